//! What the tests share. Each uses a part of it.
#![allow(dead_code, unreachable_pub, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[cfg(feature = "test-util")]
pub mod hammer;
pub mod redis;

use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

/// Says that a test is skipped for want of `what`; under `PALISADE_REQUIRE_SERVERS=1` that is a failure.
pub fn skip(what: &str) {
    if std::env::var("PALISADE_REQUIRE_SERVERS").is_ok_and(|value| value == "1") {
        panic!("{what}, and PALISADE_REQUIRE_SERVERS=1");
    }
    // Not by `println!`, which the harness swallows when a test passes.
    let test = thread::current();
    let test = test.name().unwrap_or("a test");
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {what}");
}

/// Whether `holds` comes to hold before `limit` has passed.
pub async fn within(limit: Duration, mut holds: impl AsyncFnMut() -> bool) -> bool {
    let since = Instant::now();
    while since.elapsed() < limit {
        if holds().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

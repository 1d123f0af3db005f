//! Waiting for what a server brings about.

use std::time::Duration;

/// Waits until `done`, for a few seconds at most.
pub(crate) async fn until(done: impl Fn() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came about");
}

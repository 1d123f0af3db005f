//! Ten million callers that come once: what is limited stays limited, memory stays within its bound, and the last million
//! takes no longer than the first.
//!
//! `scripts/bench flood [MILLIONS]`. Each line is a million admissions, each of another key, on two limits. In the first flood
//! nothing ever drains: when the store is full, new keys share a record. In the second each key is idle a moment later, and
//! its record is used for another. It fails when the limited key is admitted or the store outgrows its bound.

#![allow(
    missing_docs,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used
)]

mod keys;

use std::{
    env,
    time::{Duration, Instant},
};

use keys::key;
use palisade::store::{
    Admission, Charge, Decision, Key, Limit, LimitId, LimiterStore, MemoryStore, ReservationId,
};

const RECORDS: usize = 1_000_000;
const MILLION: u64 = 1_000_000;
const HOUR: Duration = Duration::from_secs(3600);

fn main() {
    let millions = env::args().skip(1).find_map(|it| it.parse().ok()).unwrap_or(10);
    flood("nothing drains", millions, |name| Limit::rate(LimitId::of(name), 60, HOUR));
    flood("idle in a millisecond", millions, |name| {
        Limit::rate(LimitId::of(name), 1_000, Duration::from_secs(1))
    });
}

fn flood(name: &str, millions: u64, limit: impl Fn(&str) -> Limit) {
    let store = MemoryStore::builder().max_records(RECORDS).build().unwrap();
    let quota = Limit::rate(LimitId::of("quota"), 10, 24 * HOUR);
    let limited = [Charge::new(Key::from_bytes([7; 16]), quota, 1)];
    assert_eq!((0..20).filter(|_| admits(&store, &limited)).count(), 10);
    let limits = [limit("requests"), limit("tokens")];
    println!(
        "\n{name}: a million admissions a line\n{:>12} {:>12} {:>14}",
        "ns each", "admitted", "bytes in all"
    );
    let (mut bytes, mut times) = (0, Vec::new());
    for million in 0..millions {
        let (mut admitted, mut took) = (0, Duration::ZERO);
        let counted = allocation_counter::measure(|| {
            let began = Instant::now();
            for n in million * MILLION..(million + 1) * MILLION {
                let key = key(n);
                let charges = limits.map(|limit| Charge::new(key, limit, 1));
                admitted += u64::from(admits(&store, &charges));
            }
            took = began.elapsed();
        });
        bytes += counted.bytes_current;
        times.push(took.as_nanos() / u128::from(MILLION));
        println!("{:>12} {admitted:>12} {bytes:>14}", times[times.len() - 1]);
    }
    // What a record of two limits takes, in shards that have just grown.
    let bound = RECORDS as i64 * (26 + 2 * 16) * 5 / 4;
    assert!(bytes <= bound, "{bytes} bytes, more than {bound}");
    assert!(!admits(&store, &limited), "a flood reset a limit");
    let (first, last) = (times[1.min(times.len() - 1)], times[times.len() - 1]);
    println!("the last million took {:.2} of the second", last as f64 / first as f64);
}

fn admits(store: &MemoryStore, charges: &[Charge]) -> bool {
    let answer = store.acquire(&Admission::new(ReservationId::next(), charges));
    matches!(answer.try_now().unwrap().unwrap(), Decision::Admitted(_))
}

//! `MemoryStore` beside `governor`, which keeps one rate per key and gives nothing back.
//!
//! `cargo bench --all-features --bench store`. The store's numbers are for `acquire` and `settle` together: with one
//! rate, for a fair comparison, and with what a tier has (two rates, tokens, a slot).

#![allow(missing_docs, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::{hint::black_box, num::NonZeroU32, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use governor::{Quota, RateLimiter};
use palisade::store::{
    Admission, Charge, Decision, Key, Limit, LimitId, LimiterStore, MemoryStore, Pepper,
    ReservationId, Settlement,
};

const MINUTE: Duration = Duration::from_secs(60);
const MANY: usize = 1 << 20;

fn limits() -> [Limit; 4] {
    let id = LimitId::of;
    [
        Limit::rate(id("requests-minute"), 1_000_000_000, MINUTE),
        Limit::rate(id("requests-day"), 1_000_000_000_000, 1440 * MINUTE),
        Limit::rate(id("tokens-minute"), 1_000_000_000_000, MINUTE),
        Limit::slots(id("concurrent-requests"), 1000),
    ]
}

fn keys(count: usize) -> Vec<Key> {
    let pepper = Pepper::from_secret("bench");
    (0..count).map(|n| pepper.key("subject").with(&n.to_le_bytes()).finish()).collect()
}

fn request(store: &MemoryStore, key: Key, limits: &[Limit]) {
    let mut charges = [Charge::new(key, limits[0], 1); 4];
    for (charge, limit) in charges.iter_mut().zip(limits) {
        charge.limit = *limit;
    }
    let (charges, id) = (&charges[..limits.len()], ReservationId::next());
    let answer = store.acquire(&Admission::new(id, charges)).try_now().unwrap().unwrap();
    let Decision::Admitted(grant) = answer else { panic!("refused") };
    store.settle(&Settlement::new(id, charges, grant.receipts.as_slice(), &[1; 4]));
}

fn stores(c: &mut Criterion) {
    for (name, count) in [("hot key", 1), ("a million keys", MANY)] {
        let (keys, mut group) = (keys(count), c.benchmark_group(name));
        // The same far step from key to key for all: no order that a cache would like.
        let step = |at: &mut usize| {
            *at = (*at + 611_953) % count;
            keys[*at]
        };

        let quota = Quota::per_minute(NonZeroU32::new(1_000_000_000).unwrap());
        let governor = RateLimiter::keyed(quota);
        keys.iter().for_each(|key| governor.check_key(key).unwrap());
        let mut at = 0;
        group.bench_function("governor, one rate", |b| {
            b.iter(|| governor.check_key(&black_box(step(&mut at))).unwrap());
        });

        for (name, limits) in
            [("palisade, one rate", &limits()[..1]), ("palisade, a tier", &limits())]
        {
            let store = MemoryStore::builder().max_records(2 * MANY).build().unwrap();
            keys.iter().for_each(|key| request(&store, *key, limits));
            group.bench_function(name, |b| {
                b.iter(|| request(&store, black_box(step(&mut at)), limits));
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = stores
}
criterion_main!(benches);

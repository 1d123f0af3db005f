//! What must hold in whatever order threads run: see `scripts/interleavings`.
//!
//! `shuttle` stops a thread at every lock and lets another one on, by chance and by priorities that it draws (PCT,
//! Burckhardt et al., ASPLOS 2010); a failure prints a schedule that repeats it.
#![cfg(all(test, palisade_shuttle))]

mod fair;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use palisade::{
    Identity, UsageMeter,
    clock::ManualClock,
    identity::UserIdentity,
    rate_limit::{Calendar, Tier, TierLimit, TieredRateLimitLayer},
    reservation::TokenUsage,
    store::{
        Admission, Charge, Decision, Key, Limit, LimitId, LimiterStore, MemoryStore, Pepper,
        ReservationId, Seen, Settlement, Stores,
    },
};
use shuttle::{future::block_on, thread};
use tower::{Layer, ServiceExt, service_fn};

const RUNS: usize = 2_000;
/// Changes of priority in a run.
const DEPTH: usize = 3;
const HOUR: Duration = Duration::from_secs(3600);

fn in_every_order(test: impl Fn() + Send + Sync + 'static) {
    let test = Arc::new(test);
    let again = Arc::clone(&test);
    shuttle::check_random(move || test(), RUNS);
    shuttle::check_pct(move || again(), RUNS, DEPTH);
}

/// Runs these at once, and waits for all.
fn at_once(count: u64, work: impl Fn(u64) + Send + Sync + 'static) {
    let work = Arc::new(work);
    let threads = (0..count).map(|n| {
        let work = Arc::clone(&work);
        thread::spawn(move || work(n))
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
}

fn key(n: u8) -> Key {
    // The first bytes choose the shard, the last ones the place in it.
    Key::from_bytes([n; 16])
}

fn rate(name: &str, quota: u64) -> Limit {
    Limit::rate(LimitId::of(name), quota, HOUR)
}

fn store(clock: &Arc<ManualClock>, shards: usize, records: usize) -> Arc<MemoryStore> {
    let clock = Arc::clone(clock);
    let store = MemoryStore::builder().clock(clock).shards(shards).max_records(records);
    Arc::new(store.build().unwrap())
}

fn acquire(store: &MemoryStore, charges: &[Charge]) -> Option<Seen> {
    let answer = store.acquire(&Admission::new(ReservationId::next(), charges));
    match answer.try_now().unwrap().unwrap() {
        Decision::Admitted(seen) => Some(seen),
        Decision::Refused(_) => None,
    }
}

fn settle(store: &MemoryStore, charges: &[Charge], seen: &Seen, used: &[u64]) {
    let receipts = seen.receipts.as_slice();
    store.settle(&Settlement::new(ReservationId::next(), charges, receipts, used));
}

fn remaining(store: &MemoryStore, charges: &[Charge]) -> Vec<u64> {
    let standings = store.peek(&Admission::new(ReservationId::next(), charges));
    let standings = standings.try_now().unwrap().unwrap();
    standings.as_slice().iter().map(|standing| standing.remaining).collect()
}

/// Whoever names the records in another order does not wait for one who waits for him.
#[test]
fn several_records_are_charged_all_or_none_and_nobody_waits_for_ever() {
    in_every_order(|| {
        let store = store(&Arc::default(), 2, 16);
        let charges = [Charge::new(key(0), rate("a", 3), 1), Charge::new(key(1), rate("b", 2), 1)];
        let (shared, admitted) = (Arc::clone(&store), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&admitted);
        at_once(4, move |n| {
            let [a, b] = charges;
            let wanted = if n % 2 == 0 { [a, b] } else { [b, a] };
            count.fetch_add(u64::from(acquire(&shared, &wanted).is_some()), Ordering::Relaxed);
        });
        assert_eq!(admitted.load(Ordering::Relaxed), 2);
        assert_eq!(remaining(&store, &charges), [1, 0]);
    });
}

/// Here a key is a busy one at once: leases are begun, used, recalled and ended while others ask.
#[test]
fn what_is_taken_ahead_is_admitted_once_or_given_back() {
    in_every_order(|| {
        let clock = Arc::new(ManualClock::default());
        let store = store(&clock, 2, 16);
        let charges =
            [Charge::new(key(0), rate("a", 30), 1), Charge::new(key(1), rate("b", 25), 1)];
        // A lease counts as used when it ends: of a bucket that is full, what drains until then is lost.
        assert!(acquire(&store, &charges).is_some());
        let (shared, admitted) = (Arc::clone(&store), Arc::new(AtomicU64::new(1)));
        let count = Arc::clone(&admitted);
        at_once(3, move |n| {
            // Some ask for one of the limits alone, and again when they are refused.
            let wanted = if n == 2 { &charges[1..] } else { &charges };
            for _ in 0..12 {
                // Leases end, too.
                clock.advance(Duration::from_micros(30));
                count.fetch_add(u64::from(acquire(&shared, wanted).is_some()), Ordering::Relaxed);
            }
        });
        assert_eq!(admitted.load(Ordering::Relaxed), 25);
        assert_eq!(remaining(&store, &charges)[1], 0);
    });
}

#[test]
fn no_more_slots_are_held_than_there_are_and_all_come_back() {
    in_every_order(|| {
        let store = store(&Arc::default(), 1, 16);
        let charges = [Charge::new(key(0), Limit::slots(LimitId::of("slots"), 2), 1)];
        let (shared, held) = (Arc::clone(&store), AtomicU64::new(0));
        at_once(4, move |_| {
            if let Some(seen) = acquire(&shared, &charges) {
                assert!(held.fetch_add(1, Ordering::Relaxed) < 2);
                thread::yield_now();
                held.fetch_sub(1, Ordering::Relaxed);
                settle(&shared, &charges, &seen, &[0]);
            }
        });
        assert_eq!(remaining(&store, &charges), [2]);
    });
}

/// What is used is what counts, whoever settles while others are admitted.
#[test]
fn what_is_given_back_is_not_given_twice() {
    in_every_order(|| {
        let store = store(&Arc::default(), 1, 16);
        let charges = [Charge::new(key(0), rate("tokens", 100), 30)];
        let (shared, used) = (Arc::clone(&store), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&used);
        at_once(3, move |n| {
            if let Some(seen) = acquire(&shared, &charges) {
                settle(&shared, &charges, &seen, &[10 * n]);
                count.fetch_add(10 * n, Ordering::Relaxed);
            }
        });
        let [left] = remaining(&store, &charges)[..] else { panic!("one") };
        // Safe, not generous: a reservation that others were moved before gives back less.
        assert!(left <= 100 - used.load(Ordering::Relaxed), "{left} left");
    });
}

/// Records are reused and moved by those of others, who come when they are idle and when they are not.
#[test]
fn a_limit_in_use_is_not_forgotten_while_records_are_reclaimed() {
    in_every_order(|| {
        let clock = Arc::new(ManualClock::default());
        let store = store(&clock, 1, 3);
        let limited = [Charge::new(key(9), rate("quota", 2), 1)];
        let (shared, admitted) = (Arc::clone(&store), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&admitted);
        at_once(3, move |n| match n {
            0 => {
                for _ in 0..4 {
                    count.fetch_add(
                        u64::from(acquire(&shared, &limited).is_some()),
                        Ordering::Relaxed,
                    );
                }
            }
            1 => {
                for n in 0..6 {
                    // Idle at once when the clock moves on.
                    let second = Limit::rate(LimitId::of("short"), 10, Duration::from_secs(1));
                    acquire(
                        &shared,
                        &[Charge::new(key(n), second, 1), Charge::new(key(n), rate("b", 1000), 0)],
                    );
                    clock.advance(Duration::from_millis(200));
                }
            }
            _ => {
                for n in 10..14 {
                    acquire(&shared, &[Charge::new(key(n), rate("quota", 2), 2)]);
                }
            }
        });
        // In a record of its own, or in the one that those share for whom there is no room.
        assert!(admitted.load(Ordering::Relaxed) <= 4);
        let before = remaining(&store, &limited);
        assert_eq!(remaining(&store, &limited), before);
    });
}

/// An answer's body is dropped, a handler's task charges, reports and goes: one of them settles, once.
#[test]
fn a_request_is_settled_once_whoever_lets_go_last() {
    in_every_order(|| {
        let clock = Arc::new(ManualClock::default());
        let store = store(&clock, 2, 64);
        let stores =
            Stores::new(Arc::clone(&store) as Arc<_>, Pepper::from_secret("interleavings"));
        let tier = Tier::new()
            .requests_per_minute(10)
            // Of a rate, what is given back in another order than it was taken comes back later.
            .limit(TierLimit::tokens(1000, Calendar::day()))
            .concurrent_requests(1);
        let limits = TieredRateLimitLayer::builder(&stores)
            .tier("free", tier)
            .fallback_tier("free")
            .default_output_tokens(500)
            .clock(clock)
            .build()
            .unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let handler = service_fn(move |request: Request<Full<Bytes>>| {
            let meter = UsageMeter::of(request.extensions()).unwrap().clone();
            sender.send(meter).unwrap();
            async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"{}")))) }
        });
        let alice = Identity::asserted(UserIdentity::asserted("https://login.example", "alice"));
        let mut request = Request::post("/generate").body(Full::default()).unwrap();
        request.extensions_mut().insert(alice.clone());
        let answer = block_on(limits.layer(handler).oneshot(request)).unwrap();
        let meter = receiver.recv().unwrap();
        let by_task = thread::spawn(move || {
            meter.report(TokenUsage::new(20, 0));
            meter.charge(5);
            let refined = block_on(meter.refine(TokenUsage::new(20, 900)));
            assert!(refined.is_ok());
        });
        let by_body = thread::spawn(move || {
            assert!(block_on(answer.into_body().collect()).is_ok());
        });
        by_task.join().unwrap();
        by_body.join().unwrap();
        let quotas = block_on(limits.quotas(&alice, None)).unwrap();
        let left = |name: &str| quotas.iter().find(|it| it.name == name).unwrap().remaining;
        assert_eq!((left("requests-minute"), left("concurrent-requests")), (9, 1));
        // Nothing reported when it was settled: the estimate is paid. Else what the handler said.
        let tokens = left("tokens-calendar-day");
        assert!([244, 980, 975].contains(&tokens), "{tokens} left");
    });
}

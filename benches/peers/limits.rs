//! `MemoryStore` and `TieredRateLimitLayer` beside governor, tower_governor and limitador, in one run.
//!
//! `scripts/bench limits [PART OF A LINE'S NAME]`. The checks: one limit of governor, of limitador and of palisade, and
//! five limits of palisade, all or none, on a hot key, on one in bursts of 256, between which the others have their turns, and
//! on a million keys, by one thread and by two. What palisade reserves it settles too, which the others do not know: the column says which; and which has the time by governor's clock. The layers: each over the same service,
//! which answers at once; what is timed is a request's way through the whole service.
//!
//! All quotas are so large that everything is admitted, and all records are in use: none is reclaimed and made anew. Keys are
//! 16 bytes; limitador keeps strings.

#[path = "../keys/mod.rs"]
mod keys;
mod report;
mod timing;

use std::{
    collections::HashMap,
    env,
    hint::black_box,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum_08::{body::Body, extract::ConnectInfo};
use bytes::Bytes;
use governor::{Quota, RateLimiter};
use http::{Request, Response};
use http_body_util::Full;
use keys::key;
use limitador::limit::Context;
use palisade::{
    Identity,
    clock::Clock,
    identity::UserIdentity,
    rate_limit::{Tier, TieredRateLimitLayer},
    store::{
        Admission, Charge, Decision, Key, Limit, LimitId, LimiterStore, MemoryStore, ReservationId,
        Settlement, Stores,
    },
};
use timing::{BURST, Repeat, compare, compare_in_turns, through};
use tower::Layer as _;
use tower_governor::{GovernorLayer, governor::GovernorConfigBuilder};

const MINUTE: Duration = Duration::from_secs(60);
const MANY: usize = 1_000_000;
/// A step from key to key that no cache likes.
const STRIDE: usize = 611_953;

fn main() {
    let filter = env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wanted = |name: &str| filter.as_ref().is_none_or(|filter| name.contains(filter));
    report::heading(
        "Nanoseconds for a check",
        &["governor", "palisade", "palisade, settled", "by governor's clock"],
    );
    for (keys, count, most) in [
        ("a hot key", 1, usize::MAX),
        ("a key in bursts", 1, BURST),
        ("a million keys", MANY, usize::MAX),
    ] {
        for threads in [1, 2] {
            let name = format!("{keys}, {threads} thread(s)");
            checks::<1>(&name, count, threads, most, &wanted);
            checks::<5>(&name, count, threads, most, &wanted);
        }
    }
    limitador_beside::<1>(&wanted);
    limitador_beside::<5>(&wanted);
    layers(&wanted);
}

fn checks<const LIMITS: usize>(
    name: &str,
    count: usize,
    threads: usize,
    most: usize,
    wanted: &impl Fn(&str) -> bool,
) {
    let name = format!("{LIMITS} limit(s), {name}");
    if !wanted(&name) {
        return;
    }
    let charges = charges::<LIMITS>();
    let governor = RateLimiter::keyed(Quota::per_minute(NonZeroU32::MAX));
    let builder = || MemoryStore::builder().max_records(2 * MANY);
    let store = builder().build().unwrap();
    let by_its_clock = builder().clock(Arc::new(Quanta::default())).build().unwrap();
    for key in (0..count as u64).map(key) {
        governor.check_key(&key).unwrap();
        // What takes an hour to drain: no record is reclaimed meanwhile.
        for store in [&store, &by_its_clock] {
            charge(store, key, &charges.map(|it| Charge::new(it.record, it.limit, 3600)), false);
        }
    }
    // Two of them share a store, and neither finds in the processor's cache what the other just looked at.
    let far = count / 4;
    let all = [
        repeat(threads, count, 0, |key| governor.check_key(black_box(&key)).unwrap()),
        repeat(threads, count, 0, |key| charge(&store, black_box(key), &charges, false)),
        repeat(threads, count, far, |key| charge(&store, black_box(key), &charges, true)),
        repeat(threads, count, 0, |key| charge(&by_its_clock, black_box(key), &charges, false)),
    ];
    let times = compare_in_turns(all, most);
    report::compared_nanos(&name, times);
}

/// The clock that governor has by default, which reads the processor's counter.
#[derive(Debug)]
struct Quanta(quanta::Clock, quanta::Instant);

impl Default for Quanta {
    fn default() -> Self {
        let clock = quanta::Clock::new();
        let now = clock.now();
        Self(clock, now)
    }
}

impl Clock for Quanta {
    fn unix(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.0.now().saturating_duration_since(self.1)
    }
}

/// limitador is so much slower that it gets fewer keys.
fn limitador_beside<const LIMITS: usize>(wanted: &impl Fn(&str) -> bool) {
    let name = format!("limitador, {LIMITS} limit(s), a hot key");
    if !wanted(&name) {
        return;
    }
    report::heading("Nanoseconds for a check", &["limitador", "palisade"]);
    let peer = limitador::RateLimiter::new(1_000_000_000);
    for n in 1..=LIMITS as u64 {
        let key = "key".try_into().unwrap();
        peer.add_limit(limitador::limit::Limit::new("llm", u64::MAX, 60 * n, [], [key]));
    }
    let namespace = "llm".into();
    let store = MemoryStore::default();
    let charges = charges::<LIMITS>();
    let times = compare([
        repeat(1, 1, 0, |_| {
            let values = HashMap::from([("key".to_owned(), "alice".to_owned())]);
            let context = Context::from(values);
            let answer = peer.check_rate_limited_and_update(&namespace, &context, 1);
            assert!(!answer.unwrap().limited);
        }),
        repeat(1, 1, 0, |key| charge(&store, black_box(key), &charges, false)),
    ]);
    report::compared_nanos(&name, times);
}

fn layers(wanted: &impl Fn(&str) -> bool) {
    let name = "through the whole layer";
    let answer = tower::service_fn(|_| std::future::ready(Ok(Response::new(Body::empty()))));
    if !wanted(name) {
        return;
    }
    report::heading(
        "Nanoseconds for a request",
        &["no layer", "tower_governor", "palisade, 5 limits", "without headers"],
    );
    let config = GovernorConfigBuilder::default().per_nanosecond(1).burst_size(u32::MAX).finish();
    let governor = GovernorLayer::new(Arc::new(config.unwrap())).layer(answer);
    let tier = Tier::new()
        .requests_per_minute(1_000_000_000)
        .requests_per_day(1_000_000_000_000)
        .tokens_per_minute(1_000_000_000_000)
        .tokens_per_day(1_000_000_000_000)
        .concurrent_requests(1000);
    let limits = || {
        let limits = TieredRateLimitLayer::builder(&Stores::in_memory());
        limits.tier("free", tier.clone()).fallback_tier("free")
    };
    let palisade = limits().build().unwrap().layer(answer);
    let without_headers = limits().without_headers().build().unwrap().layer(answer);
    report::compared_nanos(
        name,
        compare([
            through(&answer, request),
            through(&governor, request),
            through(&palisade, request),
            through(&without_headers, request),
        ]),
    );
}

/// A request from an address, by a caller who is known.
fn request() -> Request<Full<Bytes>> {
    let mut request = Request::post("/generate").body(Full::default()).unwrap();
    let address: SocketAddr = "192.0.2.1:4711".parse().unwrap();
    request.extensions_mut().insert(ConnectInfo(address));
    request.extensions_mut().insert(address);
    let user = UserIdentity::asserted("https://login.example", "alice");
    request.extensions_mut().insert(Identity::asserted(user));
    request
}

/// Calls `check` so many times on each thread, key after key, from the one at `from` on.
fn repeat<'a>(
    threads: usize,
    count: usize,
    from: usize,
    check: impl Fn(Key) + Sync + 'a,
) -> Repeat<'a> {
    let next = AtomicUsize::new(from);
    Box::new(move |times| {
        let first = next.fetch_add(times * STRIDE, Ordering::Relaxed);
        let waiting = AtomicUsize::new(threads);
        let one = |thread: usize| {
            let mut at = (first + thread * count / 2) % count;
            waiting.fetch_sub(1, Ordering::AcqRel);
            while waiting.load(Ordering::Acquire) > 0 {
                std::hint::spin_loop();
            }
            let began = Instant::now();
            for _ in 0..times {
                at = (at + STRIDE) % count;
                // Made, not read from memory: a request's key was just hashed.
                check(key(at as u64));
            }
            began.elapsed()
        };
        if threads == 1 {
            return one(0);
        }
        thread::scope(|scope| {
            let one = &one;
            let all: Vec<_> = (0..threads).map(|thread| scope.spawn(move || one(thread))).collect();
            all.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
        })
    })
}

/// Made once, as governor's quota is. Each check puts in its key and what it costs.
fn charges<const LIMITS: usize>() -> [Charge; LIMITS] {
    let names =
        ["requests-second", "requests-minute", "requests-day", "tokens-minute", "tokens-day"];
    std::array::from_fn(|n| {
        let limit = Limit::rate(LimitId::of(names[n]), 60, MINUTE).with_burst(u64::MAX);
        Charge::new(Key::from_bytes([0; 16]), limit, 1)
    })
}

fn charge<const LIMITS: usize>(
    store: &MemoryStore,
    key: Key,
    charges: &[Charge; LIMITS],
    settle: bool,
) {
    let mut charges = *charges;
    for charge in &mut charges {
        (charge.record, charge.cost) = (key, black_box(charge.cost));
    }
    let id = ReservationId::next();
    let mut answer = store.acquire(&Admission::new(id, &charges));
    let Some(Ok(Decision::Admitted(grant))) = answer.now() else { panic!("refused") };
    if settle {
        let (receipts, used) = (grant.receipts.as_slice(), charges.map(|charge| charge.cost));
        store.settle(&Settlement::new(id, &charges, receipts, &used));
    }
}

mod windows;

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
};

use super::*;
use crate::{
    clock::ManualClock,
    store::{
        Charge, Key, Limit, MemoryStore, Refusal, ReservationId, Seen, StoreError,
        conformance::{self, RealTime},
    },
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const RECORD: Key = Key::from_bytes([7; 16]);

/// Counts what the inner store is asked for, and can be told to answer later.
#[derive(Debug, Clone)]
struct Counting {
    store: Arc<MemoryStore>,
    acquired: Arc<AtomicU64>,
    settled: Arc<AtomicU64>,
    slow: bool,
    /// As a store that decides by itself while another is out of reach.
    degraded: bool,
}

impl LimiterStore for Counting {
    fn acquire(&self, admission: &Admission<'_>) -> StoreFuture<Decision> {
        self.acquired.fetch_add(1, Ordering::Relaxed);
        let answer = self.store.acquire(admission);
        if self.degraded {
            let answer = answer.try_now().unwrap();
            return ReadyOr::ready(answer.map(|decision| match decision {
                Decision::Admitted(grant) => Decision::Admitted(grant.as_degraded()),
                refused => refused,
            }));
        }
        if !self.slow {
            return answer;
        }
        let (store, id, charges) =
            (Arc::clone(&self.store), admission.id, admission.charges.to_vec());
        // As a networked store does, it gives back what nobody waits for.
        let mut taken = Unclaimed { store, id, charges, answer: answer.try_now().ok() };
        ReadyOr::pending(async move {
            tokio::task::yield_now().await;
            taken.answer.take().unwrap()
        })
    }

    fn settle(&self, settlement: &Settlement<'_>) {
        self.settled.fetch_add(1, Ordering::Relaxed);
        self.store.settle(settlement);
    }

    fn standings(&self, charges: &[Charge], seen: &Seen) -> Standings {
        self.store.standings(charges, seen)
    }

    fn peek(&self, admission: &Admission<'_>) -> StoreFuture<Standings> {
        self.store.peek(admission)
    }

    fn reset(&self, record: Key) -> StoreFuture<()> {
        self.store.reset(record)
    }

    fn flush(&self) -> StoreFuture<()> {
        self.store.flush()
    }
}

struct Unclaimed {
    store: Arc<MemoryStore>,
    id: ReservationId,
    charges: Vec<Charge>,
    answer: Option<Result<Decision, StoreError>>,
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(Ok(Decision::Admitted(grant))) = self.answer.take() {
            settle_in(&*self.store, self.id, &self.charges, &grant, &[0; 8]);
        }
    }
}

struct World {
    clock: Arc<ManualClock>,
    inner: Counting,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let store = MemoryStore::builder().clock(Arc::clone(&clock) as _).shards(1);
        let store = Arc::new(store.max_records(100).build().unwrap());
        let (acquired, settled) = (Arc::default(), Arc::default());
        Self { clock, inner: Counting { store, acquired, settled, slow: false, degraded: false } }
    }

    fn slow() -> Self {
        let mut world = Self::new();
        world.inner.slow = true;
        world
    }

    fn builder(&self) -> LeasedStoreBuilder<Counting> {
        LeasedStore::builder(self.inner.clone()).clock(Arc::clone(&self.clock) as _)
    }

    fn store(&self) -> LeasedStore<Counting> {
        self.builder().build().unwrap()
    }

    fn calls(&self) -> (u64, u64) {
        (self.inner.acquired.load(Ordering::Relaxed), self.inner.settled.load(Ordering::Relaxed))
    }

    fn acquired(&self) -> u64 {
        self.calls().0
    }

    /// What the inner store has left.
    fn left(&self, charge: Charge) -> u64 {
        remaining(&self.inner, &[charge])[0]
    }

    fn pass(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }
}

fn requests(quota: u64, window: Duration) -> Limit {
    Limit::rate(LimitId::of("requests"), quota, window)
}

fn charge(quota: u64, cost: u64) -> Charge {
    Charge::new(RECORD, requests(quota, HOUR), cost)
}

fn now<T>(answer: StoreFuture<T>) -> T {
    let mut answer = std::pin::pin!(answer);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    for _ in 0..10 {
        if let std::task::Poll::Ready(answer) = answer.as_mut().poll(&mut cx) {
            return answer.unwrap();
        }
    }
    panic!("it waits")
}

#[allow(clippy::result_large_err)]
fn acquire(store: &impl LimiterStore, charges: &[Charge]) -> Result<Seen, Refusal> {
    match now(store.acquire(&Admission::new(ReservationId::next(), charges))) {
        Decision::Admitted(grant) => Ok(grant),
        Decision::Refused(refusal) => Err(refusal),
    }
}

fn admits(store: &impl LimiterStore, charge: Charge) -> bool {
    acquire(store, &[charge]).is_ok()
}

fn settle_in(
    store: &impl LimiterStore,
    id: ReservationId,
    charges: &[Charge],
    grant: &Seen,
    used: &[u64],
) {
    store.settle(&Settlement::new(id, charges, grant.receipts.as_slice(), used));
}

fn settle(store: &impl LimiterStore, charge: Charge, grant: &Seen, used: u64) {
    settle_in(store, ReservationId::next(), &[charge], grant, &[used]);
}

fn remaining(store: &impl LimiterStore, charges: &[Charge]) -> Vec<u64> {
    let standings = now(store.peek(&Admission::new(ReservationId::next(), charges)));
    standings.as_slice().iter().map(|standing| standing.remaining).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    let clock = Arc::new(ManualClock::default());
    let memory = || MemoryStore::builder().clock(Arc::clone(&clock) as _).build().unwrap();
    let new = || {
        let builder = LeasedStore::builder(memory()).clock(Arc::clone(&clock) as _);
        Arc::new(builder.build().unwrap())
    };
    conformance::limiter_store(new, &*clock).await;
    // As hot as can be: everything that may be is leased.
    let new = || {
        let builder = LeasedStore::builder(memory()).clock(Arc::clone(&clock) as _).instances(1);
        let (ahead, period) = (Duration::from_secs(600), Duration::from_secs(3600));
        Arc::new(builder.ahead(ahead).period(period).build().unwrap())
    };
    conformance::limiter_store(new, &*clock).await;
    let new = || Arc::new(LeasedStore::builder(MemoryStore::default()).build().unwrap());
    conformance::limiter_store(new, &RealTime).await;
}

#[test]
fn a_hot_subject_below_its_limit_rarely_asks_the_inner_store() {
    let world = World::new();
    let store = world.store();
    let per_minute = Charge::new(RECORD, requests(120_000, MINUTE), 1);
    let per_day = Limit::rate(LimitId::of("day"), 10_000_000, 24 * HOUR);
    let charges = [per_minute, Charge::new(RECORD, per_day, 1)];
    let mut admitted = 0;
    // 1600 a second of 2000, and of 116 beyond the day's burst, for 10 seconds.
    for _ in 0..16_000 {
        world.clock.advance(Duration::from_micros(625));
        let grant = acquire(&store, &charges).unwrap();
        settle_in(&store, ReservationId::next(), &charges, &grant, &[1, 1]);
        admitted += 1;
    }
    let (acquired, settled) = world.calls();
    assert!(20 * (acquired + settled) <= admitted, "{acquired} and {settled} for {admitted}");
    now(store.flush());
    let left = world.left(charges[1]);
    // And what of the day drained in ten seconds.
    assert!((10_000_000 - 16_000..=10_000_000 - 16_000 + 1160).contains(&left), "{left}");
}

/// Each of four alone is far below the rate, so that much of a lease drains unused: it is given back all the same.
#[test]
fn several_stores_below_the_limit_rarely_ask_the_inner_store_and_refuse_nothing() {
    let world = World::new();
    let stores = [world.store(), world.store(), world.store(), world.store()];
    let charges = [Charge::new(RECORD, requests(120_000, MINUTE), 1)];
    for n in 0..32_000_usize {
        world.clock.advance(Duration::from_micros(625));
        let store = &stores[n % 4];
        let grant = acquire(store, &charges).unwrap();
        settle_in(store, ReservationId::next(), &charges, &grant, &[1]);
    }
    let (acquired, settled) = world.calls();
    assert!(acquired * 15 <= 32_000 && settled * 15 <= 32_000, "{acquired} and {settled}");
    for store in &stores {
        now(store.flush());
    }
    world.pass(1000);
    assert_eq!(world.left(charges[0]), 120_000);
}

#[test]
fn a_block_is_what_was_asked_for_but_never_too_much_of_what_remains() {
    let world = World::new();
    let store = world.builder().instances(2).build().unwrap();
    // The first of a subject, and whoever comes seldom, is charged alone.
    for n in 1..=3 {
        assert!(admits(&store, charge(1000, 10)));
        assert_eq!(world.left(charge(1000, 1)), 1000 - 10 * n);
        world.pass(200);
    }
    assert!(admits(&store, charge(1000, 10)));
    assert!(admits(&store, charge(1000, 10)));
    // The fifth, and as much ahead as was asked for in this time.
    assert_eq!(world.left(charge(1000, 1)), 1000 - 50 - 20);
    assert_eq!(remaining(&store, &[charge(1000, 1)]), [950]);
    for n in 6..=95 {
        assert!(admits(&store, charge(1000, 10)));
        let (inner, whole) = (world.left(charge(1000, 1)), 1000 - 10 * n);
        // A quarter of what remained when it was taken, at most.
        assert!(inner <= whole && whole - inner <= (whole + 10) / 3, "{inner} of {whole}");
    }
    assert_eq!(remaining(&store, &[charge(1000, 1)]), [50]);
    let calls = world.acquired();
    // A block would not hold another ten.
    for _ in 0..5 {
        assert!(admits(&store, charge(1000, 10)));
    }
    assert!(world.acquired() - calls >= 3, "little remains: the inner store is asked");
    assert!(!admits(&store, charge(1000, 1)), "all is used, and no more");
}

#[test]
fn a_refusal_is_held_for_a_moment() {
    let world = World::new();
    let store = world.store();
    let ten = |cost| Charge::new(RECORD, requests(10, MINUTE), cost);
    let grant = acquire(&store, &[ten(9)]).unwrap();
    let refusal = acquire(&store, &[ten(5)]).unwrap_err();
    let wait = refusal.retry_after.unwrap();
    let calls = world.acquired();
    world.pass(20);
    for cost in [5, 6] {
        let charges = [ten(cost)];
        let held = acquire(&store, &charges).unwrap_err();
        assert_eq!(held.retry_after, Some(wait - Duration::from_millis(20)));
        assert_eq!(store.standings(&charges, &held.seen).as_slice()[0].remaining, 1);
    }
    assert_eq!(world.acquired(), calls, "refused without a call");
    world.pass(30);
    assert!(!admits(&store, ten(5)));
    assert_eq!(world.acquired(), calls + 1, "asked again after 50 milliseconds");
    assert!(admits(&store, ten(1)), "less than what was refused is not held");
    assert!(!admits(&store, ten(5)));
    settle(&store, ten(9), &grant, 0);
    assert!(admits(&store, ten(5)), "what was given back ends it");

    // Never longer than the refusal said.
    let quick = |cost| Charge::new(Key::from_bytes([8; 16]), requests(1000, MINUTE / 60), cost);
    assert!(admits(&store, quick(1000)));
    let wait = acquire(&store, &[quick(3)]).unwrap_err().retry_after.unwrap();
    assert!(wait <= Duration::from_millis(3), "{wait:?}");
    world.pass(3);
    assert!(admits(&store, quick(3)));

    let store = world.builder().deny_hold(Duration::ZERO).build().unwrap();
    let calls = world.acquired();
    for _ in 0..5 {
        assert!(!admits(&store, ten(9)));
    }
    assert_eq!(world.acquired(), calls + 5);
}

/// Takes until there is a lease with something left.
fn warm(store: &impl LimiterStore, charge: Charge) -> Vec<Seen> {
    (0..6).map(|_| acquire(store, &[charge]).unwrap()).collect()
}

#[test]
fn tails_are_given_back_after_the_period_at_flush_and_on_drop() {
    let world = World::new();
    let one = charge(1000, 1);
    let all = |grants: Vec<Seen>, store: &LeasedStore<_>| {
        for grant in grants {
            settle(store, one, &grant, 1);
        }
    };
    let store = world.store();
    all(warm(&store, one), &store);
    assert!(world.left(one) < 994, "leased ahead");
    world.pass(999);
    assert!(admits(&store, Charge::new(Key::from_bytes([1; 16]), one.limit, 1)));
    assert!(world.left(one) < 994, "still leased");
    world.pass(1);
    assert!(admits(&store, Charge::new(Key::from_bytes([2; 16]), one.limit, 1)));
    assert_eq!(world.left(one), 994, "the period is over");

    all(warm(&store, one), &store);
    assert!(world.left(one) < 988);
    now(store.flush());
    assert_eq!(world.left(one), 988);

    all(warm(&store, one), &store);
    assert!(world.left(one) < 982);
    drop(store);
    assert_eq!(world.left(one), 982);
    let (_, settled) = world.calls();
    assert!(settled > 0);
}

#[test]
fn a_tail_that_is_more_than_what_is_open_does_not_wait_for_it() {
    let world = World::new();
    let store = world.builder().instances(1).ahead(Duration::from_secs(1)).build().unwrap();
    let (small, large) = (charge(10_000, 10), charge(10_000, 1000));
    assert!(admits(&store, large));
    let open = acquire(&store, &[small]).unwrap();
    assert_eq!(world.left(small), 10_000 - 1000 - 10 - 1010);
    now(store.flush());
    // One of ten is open, and a thousand were left.
    assert_eq!(world.left(small), 10_000 - 1010);
    // What it uses beyond its charge is charged all the same, and what it does not, is lost.
    settle(&store, small, &open, 25);
    assert_eq!(world.left(small), 10_000 - 1025);
}

#[test]
fn a_lease_whose_admissions_will_give_more_back_waits_for_them() {
    let world = World::new();
    let store = world.builder().instances(1).build().unwrap();
    let ten = charge(10_000, 10);
    for grant in warm(&store, ten) {
        settle(&store, ten, &grant, 1);
    }
    now(store.flush());
    world.pass(500);
    let whole = world.left(ten);
    let (_, settled) = world.calls();
    let grants: Vec<_> = (0..4).map(|_| acquire(&store, &[ten]).unwrap()).collect();
    now(store.flush());
    assert_eq!(world.left(ten), whole - 40);
    assert_eq!(world.calls().1, settled, "nothing is settled yet");
    for grant in &grants {
        settle(&store, ten, grant, 1);
    }
    assert_eq!(world.left(ten), whole - 4);
}

#[test]
fn strict_limits_and_all_that_is_no_rate_are_never_leased() {
    let world = World::new();
    let store = world.builder().strict([LimitId::of("strict")]).build().unwrap();
    let strict = Charge::new(RECORD, Limit::rate(LimitId::of("strict"), 1000, HOUR), 1);
    for n in 1..=20 {
        assert!(admits(&store, strict));
        assert_eq!(world.left(strict), 1000 - n);
    }
    assert_eq!(world.acquired(), 20);
    let slots = Charge::new(RECORD, Limit::slots(LimitId::of("slots"), 30), 1);
    let both = [charge(1000, 1), slots];
    for n in 1..=20 {
        acquire(&store, &both).unwrap();
        assert_eq!(remaining(&world.inner, &both), [1000 - n, 30 - n]);
    }
    assert_eq!(world.acquired(), 40);
    for n in 1..=20 {
        world.pass(1);
        let ends_in = HOUR - Duration::from_millis(n);
        let others = [
            Charge::new(RECORD, Limit::calendar(LimitId::of("calendar"), 1000, 1, ends_in), 1),
            Charge::new(RECORD, Limit::sliding(LimitId::of("sliding"), 1000, HOUR), 1),
        ];
        acquire(&store, &others).unwrap();
        assert_eq!(remaining(&world.inner, &others), [1000 - n; 2]);
    }
    assert_eq!(world.acquired(), 60);
}

#[test]
fn an_admission_is_all_or_none_across_leases_and_the_inner_store() {
    let world = World::new();
    let store = world.store();
    let one = charge(1000, 1);
    warm(&store, one);
    let narrow = Charge::new(RECORD, Limit::slots(LimitId::of("slots"), 1), 1);
    let before = remaining(&store, &[one]);
    let grant = acquire(&store, &[one, narrow]).unwrap();
    let refusal = acquire(&store, &[one, narrow]).unwrap_err();
    assert_eq!((refusal.index, refusal.retry_after), (1, None));
    assert_eq!(remaining(&store, &[one]), [before[0] - 1], "the refused one holds nothing");
    settle_in(&store, ReservationId::next(), &[one, narrow], &grant, &[0, 0]);
    assert_eq!(remaining(&store, &[one, narrow]), [before[0], 1]);
}

#[test]
fn what_a_lease_has_left_is_never_missing() {
    let world = World::new();
    let store = world.builder().instances(1).build().unwrap();
    let ten = charge(100, 10);
    for _ in 0..5 {
        assert!(admits(&store, ten));
    }
    assert_eq!(remaining(&store, &[ten]), [50]);
    assert!(world.left(ten) < 50, "some of it is leased");
    assert!(admits(&store, charge(100, 50)), "all that is there, wherever it is");
    assert!(!admits(&store, charge(100, 1)));
}

#[test]
fn debt_is_charged_to_the_inner_store_at_once() {
    let world = World::new();
    let store = world.store();
    let one = charge(1000, 1);
    let grants = warm(&store, one);
    settle(&store, one, &grants[5], 301);
    assert_eq!(remaining(&store, &[one]), [1000 - 306]);
    assert_eq!(world.left(one), 1000 - 306);
    settle(&store, one, &grants[4], 2001);
    assert_eq!(world.left(one), 0);
    assert!(!admits(&store, charge(1000, 0)), "in debt");
}

#[test]
fn dropping_an_admission_on_its_way_gives_back_what_it_took() {
    let world = World::slow();
    let store = world.store();
    let one = charge(1000, 1);
    for grant in warm(&store, one) {
        settle(&store, one, &grant, 1);
    }
    let whole = remaining(&store, &[one]);
    assert!(world.left(one) < whole[0], "some of it is leased");
    let slots = Charge::new(RECORD, Limit::slots(LimitId::of("slots"), 9), 1);
    for polls in 0..2 {
        let charges = [one, slots];
        let mut answer = store.acquire(&Admission::new(ReservationId::next(), &charges));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        for _ in 0..polls {
            assert!(std::pin::Pin::new(&mut answer).poll(&mut cx).is_pending());
        }
        drop(answer);
        assert_eq!(remaining(&store, &charges), [whole[0], 9], "after {polls} polls");
    }
    // A lease that nobody waits for any more, and whoever waits for it goes on.
    let much = Charge { record: Key::from_bytes([8; 16]), ..charge(1000, 50) };
    assert!(admits(&store, much));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut first = store.acquire(&Admission::new(ReservationId::next(), &[much]));
    assert!(std::pin::Pin::new(&mut first).poll(&mut cx).is_pending());
    let mut second = store.acquire(&Admission::new(ReservationId::next(), &[much]));
    assert!(std::pin::Pin::new(&mut second).poll(&mut cx).is_pending());
    drop(first);
    assert!(matches!(now(second), Decision::Admitted(_)));
    assert_eq!(remaining(&store, &[much]), [900]);
    assert!(world.left(much) < 900, "leased ahead");
}

#[test]
fn those_who_need_a_lease_that_is_on_its_way_wait_for_it() {
    let world = World::slow();
    let store = world.store();
    let one = charge(1000, 1);
    let admission = || store.acquire(&Admission::new(ReservationId::next(), &[one]));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut answers: Vec<_> = (0..40).map(|_| admission()).collect();
    let mut admitted = 0;
    for _ in 0..20 {
        answers.retain_mut(|answer| match std::pin::Pin::new(answer).poll(&mut cx) {
            std::task::Poll::Ready(answer) => {
                assert!(matches!(answer.unwrap(), Decision::Admitted(_)));
                admitted += 1;
                false
            }
            std::task::Poll::Pending => true,
        });
    }
    assert_eq!((admitted, answers.len()), (40, 0));
    assert_eq!(remaining(&store, &[one]), [960]);
}

#[test]
fn what_others_lease_is_stranded_for_a_period_at_most() {
    let world = World::new();
    const QUOTA: u64 = 10_000;
    let one = charge(QUOTA, 1);
    let stores: Vec<_> = (0..4).map(|_| world.store()).collect();
    let mut used = 0;
    // Each gets hot, then three of them are silent.
    for store in &stores {
        for _ in 0..300 {
            used += u64::from(admits(store, one));
        }
    }
    let leases: u64 = stores[..3].iter().map(|it| remaining(it, &[one])[0] - world.left(one)).sum();
    let lease = QUOTA / (2 * 4);
    assert!(leases > 0 && leases <= 3 * lease, "{leases}");
    let last = &stores[3];
    while admits(last, one) {
        used += 1;
    }
    assert_eq!(used, QUOTA - leases);
    world.pass(1000);
    for store in &stores[..3] {
        // Any call of theirs; with a runtime none is needed.
        assert!(admits(store, Charge::new(Key::from_bytes([9; 16]), one.limit, 1)));
    }
    let mut after = 0;
    while admits(last, one) {
        after += 1;
    }
    // And what drained in that second.
    assert!((leases..=leases + 3).contains(&after), "{after} of {leases}");
}

#[test]
fn memory_is_bounded_and_what_has_no_room_goes_to_the_inner_store() {
    let world = World::new();
    let store = world.builder().max_leases(2).build().unwrap();
    let key = |n| Key::from_bytes([n; 16]);
    let one = |n| Charge::new(key(n), requests(1000, HOUR), 1);
    for n in 1..=3 {
        for grant in warm(&store, one(n)) {
            settle(&store, one(n), &grant, 1);
        }
    }
    assert!(world.left(one(1)) < 994);
    assert_eq!(world.left(one(3)), 994, "no room to lease");
    world.pass(2000);
    warm(&store, one(3));
    assert!(world.left(one(3)) < 988, "the idle ones are gone");

    let store = world.builder().max_reservations(3).build().unwrap();
    let calls = world.acquired();
    for _ in 0..50 {
        assert!(admits(&store, one(4)));
    }
    assert!(world.acquired() - calls >= 45, "more than may wait for their settlement");
}

#[test]
fn what_was_granted_without_the_store_is_not_leased() {
    let mut world = World::new();
    world.inner.degraded = true;
    let store = world.store();
    for n in 1..=20 {
        assert!(acquire(&store, &[charge(1000, 1)]).unwrap().degraded);
        assert_eq!(world.left(charge(1000, 1)), 1000 - n);
    }
}

#[test]
fn a_new_rate_ends_the_lease_of_the_old() {
    let world = World::new();
    let store = world.store();
    let grants = warm(&store, charge(1000, 1));
    for grant in &grants {
        settle(&store, charge(1000, 1), grant, 1);
    }
    assert!(world.left(charge(1000, 1)) < 994);
    assert!(admits(&store, charge(2000, 1)));
    assert_eq!(world.left(charge(2000, 1)), 2000 - 2 * 6 - 1, "the line of time stays");
}

#[tokio::test(start_paused = true)]
async fn idle_leases_end_without_a_call() {
    let world = World::new();
    let store = world.store();
    for grant in warm(&store, charge(1000, 1)) {
        settle(&store, charge(1000, 1), &grant, 1);
    }
    assert!(world.left(charge(1000, 1)) < 994);
    world.pass(2000);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(world.left(charge(1000, 1)), 994);
}

#[test]
fn what_can_not_work_is_not_built() {
    let builder = || LeasedStore::builder(MemoryStore::default());
    assert!(builder().instances(0).build().is_err());
    assert!(builder().ahead(Duration::ZERO).build().is_err());
    assert!(builder().period(Duration::from_millis(10)).build().is_err());
    assert!(builder().period(2 * HOUR).build().is_err());
}

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::{
    clock::ManualClock,
    store::{Key, Limit, LimitId, MemoryStore, Outage, Refusal, conformance},
};

const HOUR: Duration = Duration::from_secs(3600);

/// A store that can be out of reach, and counts how often it is asked.
#[derive(Clone, Debug)]
struct Remote(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: MemoryStore,
    is_down: AtomicBool,
    asked: AtomicUsize,
}

impl Remote {
    fn new(clock: &Arc<ManualClock>) -> Self {
        let store = MemoryStore::builder().clock(Arc::clone(clock) as _).build().unwrap();
        Self(Arc::new(Inner { store, is_down: AtomicBool::new(false), asked: AtomicUsize::new(0) }))
    }

    fn set_down(&self, is_down: bool) {
        self.0.is_down.store(is_down, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }
}

impl LimiterStore for Remote {
    fn acquire(&self, admission: &Admission<'_>) -> StoreFuture<Decision> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        let (inner, id, charges) = (Arc::clone(&self.0), admission.id, admission.charges.to_vec());
        // As a store over a network does.
        ReadyOr::pending(async move {
            tokio::task::yield_now().await;
            if inner.is_down.load(Ordering::SeqCst) {
                return Err(StoreError::transient("down"));
            }
            inner.store.acquire(&Admission::new(id, &charges)).await
        })
    }

    fn settle(&self, settlement: &Settlement<'_>) {
        self.0.store.settle(settlement);
    }

    fn standings(&self, charges: &[Charge], seen: &Seen) -> Standings {
        self.0.store.standings(charges, seen)
    }

    fn peek(&self, admission: &Admission<'_>) -> StoreFuture<Standings> {
        self.0.store.peek(admission)
    }

    fn reset(&self, record: Key) -> StoreFuture<()> {
        self.0.store.reset(record)
    }

    fn flush(&self) -> StoreFuture<()> {
        ReadyOr::ready(Ok(()))
    }
}

struct Rig {
    clock: Arc<ManualClock>,
    remote: Remote,
    store: BreakerStore,
}

impl Rig {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let remote = Remote::new(&clock);
        let store = BreakerStore::builder(remote.clone())
            .failures(2)
            .instances(4)
            .max_records(100)
            .clock(Arc::clone(&clock) as _);
        Self { store: store.build().unwrap(), remote, clock }
    }

    async fn acquire(&self, charges: &[Charge]) -> Result<Decision, StoreError> {
        self.store.acquire(&Admission::new(ReservationId::next(), charges)).await
    }

    async fn admits(&self, charges: &[Charge]) -> bool {
        matches!(self.acquire(charges).await, Ok(Decision::Admitted(_)))
    }

    /// Until the store is left alone.
    async fn goes_down(&self) {
        self.remote.set_down(true);
        let strict = [Charge::new(key(99), rate(Outage::Refuse), 1)];
        for _ in 0..2 {
            assert!(self.acquire(&strict).await.is_err());
        }
        assert!(self.store.is_open());
    }

    async fn comes_back(&self) {
        self.remote.set_down(false);
        self.clock.advance(Duration::from_secs(1));
        let strict = [Charge::new(key(98), rate(Outage::Refuse), 1)];
        assert!(self.admits(&strict).await, "the probe is a request like another");
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!self.store.is_open());
    }

    async fn left(&self, charge: Charge) -> u64 {
        let left = self.store.peek(&Admission::new(ReservationId::next(), &[charge])).await;
        left.unwrap().as_slice()[0].remaining
    }
}

fn key(n: u8) -> Key {
    Key::from_bytes([n; 16])
}

/// A hundred an hour.
fn rate(outage: Outage) -> Limit {
    Limit::rate(LimitId::of("rate"), 100, HOUR).on_outage(outage)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_store_in_reach_it_is_that_store() {
    let clock = Arc::new(ManualClock::default());
    let new = || Arc::new(BreakerStore::builder(Remote::new(&clock)).build().unwrap());
    conformance::limiter_store(new, &*clock).await;
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_left_alone_and_probed_once_a_second() {
    let rig = Rig::new();
    let strict = [Charge::new(key(1), rate(Outage::Refuse), 1)];
    assert!(rig.admits(&strict).await);
    rig.goes_down().await;
    let asked = rig.remote.asked();
    for _ in 0..100 {
        let error = rig.acquire(&strict).await.unwrap_err();
        assert!(error.is_transient());
    }
    assert_eq!(rig.remote.asked(), asked);
    for probes in 1..4 {
        rig.clock.advance(Duration::from_secs(1));
        for _ in 0..10 {
            assert!(rig.acquire(&strict).await.is_err());
        }
        assert_eq!(rig.remote.asked(), asked + probes);
    }
    rig.comes_back().await;
    assert!(rig.admits(&strict).await);
    assert_eq!(rig.left(strict[0]).await, 98);
}

#[tokio::test]
async fn each_limit_becomes_what_it_says() {
    let rig = Rig::new();
    rig.goes_down().await;
    let local = [Charge::new(key(1), rate(Outage::LocalShare), 1)];
    let mut admitted = 0;
    let refusal = loop {
        match rig.acquire(&local).await.unwrap() {
            Decision::Admitted(grant) => {
                assert!(grant.degraded);
                admitted += 1;
                let standings = rig.store.standings(&local, &grant);
                assert_eq!(standings.as_slice()[0].remaining, 25 - admitted);
            }
            Decision::Refused(refusal) => break refusal,
        }
    };
    assert_eq!(admitted, 25, "a quarter");
    assert_eq!(refusal.retry_after.unwrap().as_secs_f64().ceil(), 144.0);
    let open = [Charge::new(key(2), rate(Outage::InsecureAdmit), 1)];
    for _ in 0..200 {
        assert!(rig.admits(&open).await);
    }
    // A limit that is refused refuses all, whatever the others say.
    let mixed = [open[0], Charge::new(key(2), Limit::slots(LimitId::of("slots"), 9), 1)];
    assert!(rig.acquire(&mixed).await.is_err());
}

#[tokio::test]
async fn of_several_limits_those_kept_locally_decide_and_are_told_by_their_place() {
    let rig = Rig::new();
    rig.goes_down().await;
    let slots = Limit::slots(LimitId::of("slots"), 8).on_outage(Outage::LocalShare);
    let charges = [
        Charge::new(key(1), rate(Outage::InsecureAdmit), 1),
        Charge::new(key(1), slots, 1),
        Charge::new(key(2), rate(Outage::LocalShare), 10),
    ];
    let mut held = Vec::new();
    for _ in 0..2 {
        let id = ReservationId::next();
        let answer = rig.store.acquire(&Admission::new(id, &charges)).await;
        let Ok(Decision::Admitted(grant)) = answer else { panic!("{answer:?}") };
        held.push((id, grant));
    }
    let Ok(Decision::Refused(Refusal { index, seen, .. })) = rig.acquire(&charges).await else {
        panic!("it was admitted")
    };
    let standings = rig.store.standings(&charges, &seen);
    assert_eq!(index, 2);
    let left: Vec<_> = standings.as_slice().iter().map(|standing| standing.remaining).collect();
    assert_eq!(left, [100, 0, 5]);
    // What was held here is given back here, also when the store is back.
    let (id, grant) = held.pop().unwrap();
    rig.store.settle(&Settlement::new(id, &charges, grant.receipts.as_slice(), &[1, 0, 0]));
    assert!(rig.admits(&charges).await);
    rig.comes_back().await;
    let (id, grant) = held.pop().unwrap();
    rig.store.settle(&Settlement::new(id, &charges, grant.receipts.as_slice(), &[1, 0, 10]));
    assert_eq!(rig.left(charges[1]).await, 8);
}

#[tokio::test]
async fn recovery_grants_no_fresh_burst() {
    let rig = Rig::new();
    let charge = Charge::new(key(1), rate(Outage::LocalShare), 10);
    assert!(rig.admits(&[charge]).await);
    rig.goes_down().await;
    assert!(rig.admits(&[charge]).await && rig.admits(&[charge]).await);
    assert_eq!(rig.left_in_remote(charge).await, 90);
    rig.comes_back().await;
    assert_eq!(rig.left(charge).await, 70);
    // The next time it is told what is new, not what it knows.
    rig.goes_down().await;
    rig.comes_back().await;
    assert_eq!(rig.left(charge).await, 70);
}

impl Rig {
    async fn left_in_remote(&self, charge: Charge) -> u64 {
        let left = self.remote.peek(&Admission::new(ReservationId::next(), &[charge])).await;
        left.unwrap().as_slice()[0].remaining
    }
}

#[tokio::test]
async fn what_the_store_could_not_be_told_it_is_told_later() {
    let rig = Rig::new();
    let charges: Vec<_> =
        (1..=3).map(|n| Charge::new(key(n), rate(Outage::LocalShare), 10)).collect();
    rig.goes_down().await;
    for charge in &charges {
        assert!(rig.admits(&[*charge]).await);
    }
    // It comes back for the probe alone.
    rig.remote.set_down(false);
    rig.clock.advance(Duration::from_secs(1));
    let strict = [Charge::new(key(98), rate(Outage::Refuse), 1)];
    let answer = rig.acquire(&strict).await;
    rig.remote.set_down(true);
    assert!(answer.is_ok());
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(rig.store.is_open());
    rig.comes_back().await;
    for charge in charges {
        assert_eq!(rig.left(charge).await, 90);
    }
}

/// Until nothing is left to be told.
async fn settled() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_admitted_while_the_store_is_told_is_told_once() {
    let rig = Rig::new();
    let charge = |n| Charge::new(key(n), rate(Outage::LocalShare), 10);
    rig.goes_down().await;
    for n in 1..=20 {
        assert!(rig.admits(&[charge(n)]).await);
    }
    rig.remote.set_down(false);
    rig.clock.advance(Duration::from_secs(1));
    assert!(rig.admits(&[Charge::new(key(98), rate(Outage::Refuse), 1)]).await);
    tokio::task::yield_now().await;
    // It is being told.
    assert!(rig.store.is_open() && rig.admits(&[charge(1)]).await);
    settled().await;
    assert!(!rig.store.is_open());
    assert_eq!(rig.left(charge(1)).await, 80);
    assert_eq!(rig.left(charge(2)).await, 90);
    // Nor are they told again when it is lost again.
    rig.goes_down().await;
    assert!(rig.admits(&[Charge { cost: 1, ..charge(1) }]).await);
    rig.comes_back().await;
    assert_eq!(rig.left(charge(1)).await, 79);
}

#[tokio::test]
async fn what_an_outage_s_requests_use_in_the_end_is_charged_after_it() {
    let rig = Rig::new();
    let charge = |n| [Charge::new(key(n), rate(Outage::LocalShare), 10)];
    rig.goes_down().await;
    let mut held = Vec::new();
    for n in 1..=4 {
        let id = ReservationId::next();
        let answer = rig.store.acquire(&Admission::new(id, &charge(n))).await;
        let Ok(Decision::Admitted(grant)) = answer else { panic!("{answer:?}") };
        held.push((id, charge(n), grant));
    }
    let mut ends = async |used| {
        let (id, charge, grant) = held.remove(0);
        let receipts = grant.receipts.as_slice();
        rig.store.settle(&Settlement::new(id, &charge, receipts, &[used]));
    };
    // A debt of more than the process's share, and less than was reserved: both before it is back.
    ends(85).await;
    ends(4).await;
    rig.comes_back().await;
    assert_eq!(rig.left(charge(1)[0]).await, 15);
    assert_eq!(rig.left(charge(2)[0]).await, 96);
    ends(25).await;
    ends(4).await;
    settled().await;
    assert_eq!(rig.left(charge(3)[0]).await, 75);
    // What was told stays charged, and drains.
    assert_eq!(rig.left(charge(4)[0]).await, 90);
}

#[tokio::test]
async fn there_is_room_for_so_many_keys_and_no_more() {
    let rig = Rig::new();
    rig.goes_down().await;
    let charges = |n| [Charge::new(key(n), rate(Outage::LocalShare), 1)];
    for n in 0..100 {
        assert!(rig.admits(&charges(n)).await);
    }
    assert!(rig.acquire(&charges(100)).await.is_err());
    assert!(rig.admits(&charges(0)).await);
}

#[test]
fn options_of_zero_are_refused() {
    let builder = || BreakerStore::builder(MemoryStore::default());
    assert!(builder().build().is_ok());
    assert!(builder().failures(0).build().is_err());
    assert!(builder().instances(0).build().is_err());
    assert!(builder().pause(Duration::ZERO).build().is_err());
    assert!(builder().max_records(0).build().is_err());
}

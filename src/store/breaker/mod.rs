//! What becomes of limits while their store is out of reach.

mod circuit;
mod local;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub(crate) use self::circuit::{Circuit, Permit};
use self::local::{Local, Missed};
use super::{
    Admission, Charge, Decision, Inline, Key, LimiterStore, NO_CHARGE, ReservationId, Seen,
    Settlement, Standings, StoreError, StoreFuture,
};
use crate::{
    BuildError,
    clock::{Clock, SystemClock},
    future::ReadyOr,
    observe, runtime,
};

/// A store over a network, with a circuit breaker, and with what each limit says that it becomes while that store is out
/// of reach: its [`Outage`](super::Outage).
///
/// After 5 failures in a row the store is left alone: requests no longer wait for its deadline. Once a second one of them
/// probes whether it is back. Meanwhile an admission is refused if any of its limits says so, which is the default;
/// else those that are to be kept locally are, each process by its share, and the others are not kept. Answers
/// say so: [`Seen::degraded`](super::Seen::degraded).
///
/// **No fresh burst.** What was admitted locally and has not drained is charged to the store, once, before it is used
/// again; and what such a request is found to have used beyond that when it ends, by then.
/// Slots are not: until those held at the time have ended, up to a share more than `max` can be held.
///
/// **Bound.** With `n` instances, each keeps an `n`th of each quota, and at least 1. What a store has counted already is
/// not known while it is out of reach: from when it fails on, at most one quota more is admitted than it would have.
///
/// `palisade_store_degraded_total{outcome}` counts what was decided without the store, and the gauge
/// `palisade_store_circuit_open` says whether it is left alone.
///
/// ```
/// use palisade::store::{BreakerStore, Limit, LimitId, MemoryStore, Outage};
/// use std::time::Duration;
///
/// # let redis = MemoryStore::default();
/// // In front of a RedisStore that four servers share.
/// let store = BreakerStore::builder(redis).instances(4).build()?;
/// let minute = Duration::from_secs(60);
/// let paid = Limit::rate(LimitId::of("requests-minute"), 600, minute).on_outage(Outage::LocalShare);
/// # let _ = (store, paid);
/// # Ok::<(), palisade::BuildError>(())
/// ```
#[derive(Clone)]
pub struct BreakerStore(Arc<Shared>);

struct Shared {
    inner: Box<dyn LimiterStore>,
    circuit: Circuit,
    local: Local,
    makes_up: AtomicBool,
    clock: Arc<dyn Clock>,
}

/// Builds a [`BreakerStore`].
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct BreakerStoreBuilder {
    inner: Box<dyn LimiterStore>,
    failures: u32,
    pause: Duration,
    instances: u64,
    max_records: usize,
    clock: Arc<dyn Clock>,
}

impl BreakerStore {
    /// Begins a breaker around `inner`, with the defaults that each option states.
    pub fn builder(inner: impl LimiterStore) -> BreakerStoreBuilder {
        BreakerStoreBuilder {
            inner: Box::new(inner),
            failures: 5,
            pause: Duration::from_secs(1),
            instances: 1,
            max_records: 100_000,
            clock: Arc::new(SystemClock),
        }
    }

    /// Whether the store is left alone at the moment.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.circuit.is_open()
    }
}

impl BreakerStoreBuilder {
    /// How many failures in a row open the circuit. Default: 5.
    pub fn failures(self, failures: u32) -> Self {
        Self { failures, ..self }
    }

    /// How long the store is left alone before a request probes it, and between two probes. Default: a second.
    pub fn pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// How many processes share the store: each keeps that part of a limit locally. Default: 1.
    pub fn instances(self, instances: u64) -> Self {
        Self { instances, ..self }
    }

    /// How many keys are kept locally, at about 300 bytes each. Further ones are refused. Default: 100,000.
    pub fn max_records(self, max_records: usize) -> Self {
        Self { max_records, ..self }
    }

    /// The clock to count by. Default: the machine's.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The store.
    ///
    /// # Errors
    /// When an option is zero.
    pub fn build(self) -> Result<BreakerStore, BuildError> {
        let zero = |what| Err(BuildError::invalid(what, "zero"));
        match (self.failures, self.instances, self.pause.is_zero()) {
            (0, ..) => return zero("failures"),
            (_, 0, _) => return zero("instances"),
            (.., true) => return zero("pause"),
            _ => {}
        }
        Ok(BreakerStore(Arc::new(Shared {
            inner: self.inner,
            circuit: Circuit::new(self.failures, self.pause),
            local: Local::new(self.instances, self.max_records, Arc::clone(&self.clock))?,
            makes_up: AtomicBool::new(false),
            clock: self.clock,
        })))
    }
}

impl LimiterStore for BreakerStore {
    fn acquire(&self, admission: &Admission<'_>) -> StoreFuture<Decision> {
        let shared = &self.0;
        if shared.circuit.permit(shared.clock.monotonic()) == Permit::Nothing {
            return ReadyOr::ready(shared.without_store(admission, is_open()));
        }
        match shared.inner.acquire(admission).try_now() {
            Ok(answer) => ReadyOr::ready(shared.answered(answer, admission)),
            Err(pending) => {
                let shared = Arc::clone(shared);
                let id = admission.id;
                let charges = Inline::collect(NO_CHARGE, admission.charges.iter().copied());
                ReadyOr::pending(async move {
                    let answer = pending.await;
                    shared.answered(answer, &Admission::new(id, charges.as_slice()))
                })
            }
        }
    }

    fn settle(&self, settlement: &Settlement<'_>) {
        if !self.0.local.settle(settlement) {
            return self.0.inner.settle(settlement);
        }
        if !self.0.circuit.is_open() {
            self.0.catch_up();
        }
    }

    fn standings(&self, charges: &[Charge], seen: &Seen) -> Standings {
        if seen.degraded {
            self.0.local.standings(charges)
        } else {
            self.0.inner.standings(charges, seen)
        }
    }

    fn peek(&self, admission: &Admission<'_>) -> StoreFuture<Standings> {
        if self.0.circuit.is_open() {
            return ReadyOr::ready(Err(is_open()));
        }
        self.0.inner.peek(admission)
    }

    fn reset(&self, record: Key) -> StoreFuture<()> {
        self.0.local.reset(record);
        self.0.inner.reset(record)
    }

    fn flush(&self) -> StoreFuture<()> {
        self.0.inner.flush()
    }
}

impl Shared {
    /// What the store said, or what is done without it.
    fn answered(
        self: &Arc<Self>,
        answer: Result<Decision, StoreError>,
        admission: &Admission<'_>,
    ) -> Result<Decision, StoreError> {
        match answer {
            Ok(decision) => {
                if self.circuit.succeeded() {
                    self.make_up(true);
                } else {
                    self.catch_up();
                }
                Ok(decision)
            }
            Err(error) if error.is_transient() => {
                if self.circuit.failed(self.clock.monotonic()) {
                    observe::gauge(CIRCUIT_OPEN, 1);
                    observe::warn("store", "the limiter store does not answer, and is left alone");
                }
                self.without_store(admission, error)
            }
            Err(error) => Err(error),
        }
    }

    /// What the limits say of an outage. The error is that of a limit that is not kept without the store.
    fn without_store(
        &self,
        admission: &Admission<'_>,
        error: StoreError,
    ) -> Result<Decision, StoreError> {
        let decision = self.local.acquire(admission);
        let outcome = match &decision {
            Some(Decision::Admitted(_)) => "admitted",
            Some(Decision::Refused(_)) => "refused",
            None => "unavailable",
        };
        observe::count("palisade_store_degraded_total", &[("outcome", outcome)]);
        decision.ok_or(error)
    }

    /// Tells the store what of a request that was admitted without it has become known since.
    fn catch_up(self: &Arc<Self>) {
        if self.local.is_behind() {
            self.make_up(false);
        }
    }

    /// Charges the store what was admitted without it and has not drained; then it is used again, if it `closes` the
    /// circuit.
    fn make_up(self: &Arc<Self>, closes: bool) {
        if self.makes_up.swap(true, Ordering::AcqRel) {
            return;
        }
        let making_up = MakingUp(Arc::clone(self));
        // Without a runtime there is no store that can be out of reach.
        drop(runtime::spawn(async move {
            let shared = Arc::clone(&making_up.0);
            if shared.tell_all().await.is_err() {
                return;
            }
            if closes {
                shared.circuit.close();
                observe::gauge(CIRCUIT_OPEN, 0);
            }
            drop(making_up);
            // What has counted here while it was told.
            shared.catch_up();
        }));
    }

    async fn tell_all(&self) -> Result<(), StoreError> {
        let mut all = self.local.take_missed();
        while let Some(missed) = all.pop() {
            if let Err(error) = self.tell(missed).await {
                all.push(missed);
                self.local.put_back(all);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Charges so many units, whether or not they fit.
    async fn tell(&self, Missed { charge, units }: Missed) -> Result<(), StoreError> {
        let (id, charges) = (ReservationId::next(), [Charge { cost: 0, ..charge }]);
        // Refused: it is in debt already.
        if let Decision::Admitted(grant) = self.inner.acquire(&Admission::new(id, &charges)).await?
        {
            let receipts = grant.receipts.as_slice();
            self.inner.settle(&Settlement::new(id, &charges, receipts, &[units]));
        }
        Ok(())
    }
}

/// The one task that makes up, until it ends in whichever way.
struct MakingUp(Arc<Shared>);

impl Drop for MakingUp {
    fn drop(&mut self) {
        self.0.makes_up.store(false, Ordering::Release);
    }
}

impl fmt::Debug for BreakerStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerStore")
            .field("inner", &self.0.inner)
            .field("circuit", &self.0.circuit)
            .finish_non_exhaustive()
    }
}

fn is_open() -> StoreError {
    StoreError::transient("the store has not answered lately, and is left alone")
}

const CIRCUIT_OPEN: &str = "palisade_store_circuit_open";

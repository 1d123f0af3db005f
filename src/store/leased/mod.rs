//! A store that leases from another, so that most admissions cost no round trip.

mod block;
mod builder;
mod entry;
mod flight;
mod line;
mod shared;
mod table;

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

pub use self::builder::LeasedStoreBuilder;
use self::shared::{Shared, Step};
use super::{
    Admission, Charge, Decision, Key, LimitId, LimiterStore, Seen, Settlement, Standings,
    StoreFuture, rules,
};
use crate::{clock::Clock, future::ReadyOr};

/// Leases units of a subject's rates from another store, above all `RedisStore`, a block ahead, and admits from them in
/// the memory of this process: most admissions of a busy subject cost no round trip. Cheap to clone.
///
/// **What is leased:** rates that are asked for at least twice in the time that a lease is for (50 milliseconds), by
/// admissions of rates alone. A block is what was asked for in that time, or what drains in it, whichever is
/// more, but at most what remains divided by twice the instances; when that would not hold another request, and for
/// all else, every request is an admission of the inner store. An admission is all or none, and a lease never
/// refuses what the inner store would admit. Slots, calendar periods, sliding windows and [`strict`](LeasedStoreBuilder::strict) limits always go to the
/// inner store, and an admission that names one of them beside rates takes a round trip for it.
///
/// **What it costs:** what one process has leased, the others can't use: at most (instances - 1) x lease, until the lease
/// ends, which is after one [`period`](LeasedStoreBuilder::period) at the latest, when another takes its place, at [`flush`](LimiterStore::flush) and when
/// the store is dropped. All that was not used is given back then, as far as the inner store's own refund is safe. One grant is
/// settled once: when the admissions from a lease that are still open are expected to give back more than it has left, by what others of the limit gave
/// back lately, the lease waits for them; otherwise what they do not use of it later is lost.
///
/// **Never more than the limit.** In any window, all processes together use at most the burst and what drains in the
/// window, as with the inner store alone:
///
/// - The inner store keeps each limit as a line of time on which every unit has a place, never one that is past when it is charged
///   and never further ahead than the burst. What it gives back moves later units forward, but none into the past. So a block that was
///   asked for at `t` lies, at any time, nowhere earlier than `t` to `t` + units x window / quota.
/// - A lease is a leaky bucket on just that stretch: a unit is admitted only at or before its place in it. So the unit's place in the inner
///   store is not past either, and what windows allow there they allow of the use. What drains of the stretch is not used any more,
///   and after its end nothing of it is.
/// - A settlement gives back to the lease as the inner store would: what has not drained. At the lease's end, the inner
///   store is given back all that was not used once all that was used has drained, and before that only what lies behind it.
///
/// That holds if this clock and the inner store's run equally fast.
///
/// **Debt** of an admission is taken from its lease, and what exceeds that is charged to the inner store, at once if it grants a
/// charge of nothing, to which debt can be added, and else when the last admission from that lease is settled.
///
/// **After a refusal**, as much or more of the same limit is refused for a moment without asking again
/// ([`deny_hold`](LeasedStoreBuilder::deny_hold)).
///
/// While a lease is on its way, other requests that need it wait for it once, so that the units which come do not
/// count as missing; then they go to the inner store themselves, so that an outage delays no request twice.
///
/// Memory is bounded: [`max_leases`](LeasedStoreBuilder::max_leases). The counters are `palisade_leases_taken_total`,
/// `palisade_leases_returned_total`, `palisade_lease_admissions_total` and `palisade_lease_denials_total`.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use palisade::store::{
///     Admission, Charge, Decision, LeasedStore, Limit, LimitId, LimiterStore, MemoryStore, Pepper, ReservationId,
/// };
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// // In production a `RedisStore`, which several processes share.
/// let store = LeasedStore::builder(MemoryStore::default()).instances(8).build()?;
/// let alice = Pepper::random().key("subject").with(b"alice").finish();
/// let requests = Limit::rate(LimitId::of("requests"), 6000, Duration::from_secs(60));
/// for _ in 0..6000 {
///     let charges = [Charge::new(alice, requests, 1)];
///     let decision = store.acquire(&Admission::new(ReservationId::next(), &charges)).await?;
///     let Decision::Admitted(grant) = decision else { panic!("within the quota") };
///     # store.settle(&palisade::store::Settlement::new(ReservationId::next(), &charges, grant.receipts.as_slice(), &[1]));
/// }
/// store.flush().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub struct LeasedStore<S: LimiterStore> {
    shared: Arc<Shared<S>>,
}

struct Options {
    instances: u64,
    /// In ticks, as the period.
    ahead: u64,
    period: u64,
    pause: Duration,
    deny_hold: Duration,
    strict: HashSet<LimitId>,
    max_leases: usize,
    max_reservations: usize,
}

impl<S: LimiterStore> LeasedStore<S> {
    /// Begins a store that leases from `inner`. The options state their defaults.
    pub fn builder(inner: S) -> LeasedStoreBuilder<S> {
        LeasedStoreBuilder::new(inner)
    }

    fn with(inner: S, clock: Arc<dyn Clock>, options: Options) -> Self {
        Self { shared: Arc::new(Shared::new(inner, clock, options)) }
    }
}

impl<S: LimiterStore> LimiterStore for LeasedStore<S> {
    fn acquire(&self, admission: &Admission<'_>) -> StoreFuture<Decision> {
        if let Err(error) = rules::check(admission.charges) {
            return ReadyOr::ready(Err(error));
        }
        let charges = admission.charges;
        if !charges.iter().any(|charge| self.shared.may_lease(charge)) {
            return self.shared.inner.acquire(admission);
        }
        match self.shared.step(charges, true) {
            Step::Decided(decision) => ReadyOr::ready(Ok(decision)),
            step => {
                let (shared, id) = (Arc::clone(&self.shared), admission.id);
                let charges = charges.to_vec();
                ReadyOr::pending(async move { shared.go_on(id, &charges, step).await })
            }
        }
    }

    fn settle(&self, settlement: &Settlement<'_>) {
        self.shared.settle(settlement);
    }

    fn standings(&self, charges: &[Charge], seen: &Seen) -> Standings {
        self.shared.standings(charges, seen)
    }

    fn peek(&self, admission: &Admission<'_>) -> StoreFuture<Standings> {
        let (shared, charges) = (Arc::clone(&self.shared), admission.charges.to_vec());
        match self.shared.inner.peek(admission).try_now() {
            Ok(answer) => ReadyOr::ready(answer.map(|it| shared.with_leases(&charges, it))),
            Err(answer) => ReadyOr::pending(async move {
                answer.await.map(|standings| shared.with_leases(&charges, standings))
            }),
        }
    }

    /// Leases that are out are used up, or returned to a record that takes nothing back.
    fn reset(&self, record: Key) -> StoreFuture<()> {
        self.shared.inner.reset(record)
    }

    fn flush(&self) -> StoreFuture<()> {
        self.shared.end_all();
        self.shared.inner.flush()
    }
}

impl<S: LimiterStore> Clone for LeasedStore<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<S: LimiterStore> fmt::Debug for LeasedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.shared.inner;
        f.debug_struct("LeasedStore").field("inner", inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

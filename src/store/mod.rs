//! The stores that all layers share: limits in a [`LimiterStore`], facts in a [`FactStore`], what must not
//! be forgotten in a [`RecordStore`].
//!
//! [`MemoryStore`] serves one process, `RedisStore` (feature `redis`) many, and [`LeasedStore`] spares them most of its round trips. All are held to the
//! same conformance suite, which third parties can run on theirs (feature `test-util`).

mod breaker;
#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
mod facts;
mod forward;
mod key;
mod leased;
mod memory;
mod records;
#[cfg(feature = "redis")]
mod redis;
mod rules;
mod stores;

use std::{fmt::Debug, time::Duration};

#[cfg(feature = "redis")]
pub use self::redis::{RedisStore, RedisStoreBuilder};
pub use self::{
    breaker::{BreakerStore, BreakerStoreBuilder},
    facts::{Distinct, FactStore},
    key::{Key, Keyed, Pepper},
    leased::{LeasedStore, LeasedStoreBuilder},
    memory::{MemoryStore, MemoryStoreBuilder},
    records::{MAX_RECORD_BYTES, RecordPage, RecordStore},
    stores::Stores,
};
use crate::{BoxError, future::ReadyOr};

/// The answer of a store: ready, or a boxed future that owns what it needs.
pub type StoreFuture<T> = ReadyOr<Result<T, StoreError>>;

/// How many limits one admission may name.
pub const MAX_CHARGES: usize = 8;

/// Names one limit within a record, the same in every process and after every reload: what a record has used of
/// it is kept when its rate, quota or window changes, but not when it counts by another rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LimitId(u32);

impl LimitId {
    /// The id of the limit of this name: FNV-1a, which a configuration checks for collisions.
    #[must_use]
    pub const fn of(name: &str) -> Self {
        let bytes = name.as_bytes();
        let mut hash = 0x811c_9dc5_u32;
        let mut at = 0;
        while at < bytes.len() {
            #[allow(clippy::indexing_slicing)]
            let byte = bytes[at];
            hash = (hash ^ byte as u32).wrapping_mul(0x0100_0193);
            at += 1;
        }
        Self(hash)
    }

    /// The id as a number, for a store to write down.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// One limit on one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limit {
    /// Which limit of its record this is.
    pub id: LimitId,
    /// How it counts.
    pub rule: Rule,
    /// What becomes of it while the store is out of reach, if that is a [`BreakerStore`].
    pub outage: Outage,
}

/// What becomes of a limit while its store is out of reach, in a [`BreakerStore`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Outage {
    /// Whatever it counts is refused, with 503.
    #[default]
    Refuse,
    /// Each process keeps its share of it.
    LocalShare,
    /// It is not kept.
    InsecureAdmit,
}

impl Limit {
    /// `quota` units in each `window`, all of which may come at once: see [`Rule::Rate`].
    #[must_use]
    pub const fn rate(id: LimitId, quota: u64, window: Duration) -> Self {
        Self::by(id, Rule::Rate { quota, window, burst: quota })
    }

    /// At most `max` at a time: see [`Rule::Slots`]. In a shared store, the slots of a process that died are free again
    /// within seconds.
    #[must_use]
    pub const fn slots(id: LimitId, max: u64) -> Self {
        Self::by(id, Rule::Slots { max })
    }

    /// With what becomes of it while the store is out of reach. Default: [`Outage::Refuse`].
    #[must_use]
    pub const fn on_outage(mut self, outage: Outage) -> Self {
        self.outage = outage;
        self
    }

    /// `quota` units in each period of a calendar, which is now in `period` and leaves it in `ends_in`: see
    /// [`Rule::Calendar`].
    ///
    /// ```
    /// use palisade::store::{Limit, LimitId};
    /// use std::time::Duration;
    ///
    /// // A thousand a day, by days in UTC.
    /// let unix = Duration::from_secs(1_800_000_000);
    /// let (day, gone) = (unix.as_secs() / 86_400, unix.as_secs() % 86_400);
    /// let left = Duration::from_secs(86_400 - gone);
    /// let limit = Limit::calendar(LimitId::of("requests-per-day"), 1000, day, left);
    /// assert_eq!(limit.capacity(), 1000);
    /// ```
    #[must_use]
    pub const fn calendar(id: LimitId, quota: u64, period: u64, ends_in: Duration) -> Self {
        Self::by(id, Rule::Calendar { quota, period, ends_in })
    }

    /// `quota` units in a `window` that slides: see [`Rule::Sliding`].
    #[must_use]
    pub const fn sliding(id: LimitId, quota: u64, window: Duration) -> Self {
        Self::by(id, Rule::Sliding { quota, window })
    }

    const fn by(id: LimitId, rule: Rule) -> Self {
        Self { id, rule, outage: Outage::Refuse }
    }

    /// With a burst other than the quota: how many units of a rate may come at once. The other rules have none.
    #[must_use]
    pub const fn with_burst(mut self, units: u64) -> Self {
        if let Rule::Rate { quota, window, .. } = self.rule {
            self.rule = Rule::Rate { quota, window, burst: units };
        }
        self
    }

    /// The most that can ever be admitted at once.
    #[must_use]
    pub const fn capacity(self) -> u64 {
        rules::capacity(self.rule)
    }
}

/// How a limit counts.
///
/// What is used beyond a reservation is always charged, and is debt where it does not fit. The bounds are on what was
/// reserved and on what of it was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// `quota` units in each `window`, of which `burst` may come at once, by GCRA (ITU-T I.371). What was used drains
    /// steadily, and a debt with it.
    ///
    /// Bound: in any stretch of time `d` at most `burst + quota * d / window` units. The rule to choose unless another
    /// is asked for: what is used up comes back unit by unit, and nobody waits for a border.
    Rate {
        /// Units that drain in a window.
        quota: u64,
        /// The window.
        window: Duration,
        /// Units that may come at once.
        burst: u64,
    },
    /// `max` at a time, each held until it is settled.
    Slots {
        /// How many.
        max: u64,
    },
    /// `quota` units in each period of a calendar, such as a day in the customer's time zone: a plain count, which
    /// begins anew at the border. The store knows no calendar; the caller says which period it is.
    ///
    /// Bound: at most `quota` units in a period, so up to twice as many around a border. To choose where a contract or
    /// a bill counts by the calendar, and where everybody should know when there is more.
    ///
    /// The period of a record never goes back: a caller who names an earlier one, because its clock is behind, is charged in
    /// the record's, and is told when its own ends. After its end a period is remembered for 5 minutes: processes whose
    /// clocks differ by less share one quota. What is given back, or used beyond what was charged, counts within the
    /// period that was charged and is forgotten with it.
    Calendar {
        /// Units in a period. More than 2^41 - 1 count as that.
        quota: u64,
        /// The number of the period that it is: one that grows from each period to the next, such as a day's number
        /// since 1970. Numbers beyond 2^41 - 1 are one period.
        period: u64,
        /// Until the period ends.
        ends_in: Duration,
    },
    /// `quota` units in a `window` that slides, by two counters: windows stand end to end by the store's clock (in
    /// Redis since 2024-01-01 UTC, so that a minute is a clock's), and of what was used in the one before, as much counts as
    /// the last `window` still reaches into, were it spread evenly.
    ///
    /// Bound: in any stretch of time `d` at most `quota * (1 + d / window)` units, and in each of the store's windows at
    /// most `quota`. To choose where another limiter must be matched that counts by such windows, as many gateways and
    /// vendors do: what was used up comes back from the next window on, not at once as with a rate of the same bound.
    ///
    /// What is given back is taken off the window that was charged, as long as it counts. What was used beyond is charged when that is
    /// told, and counts until the end of the next window.
    Sliding {
        /// Units in a window. More than 2^41 - 1 count as that.
        quota: u64,
        /// The window, rounded up to 64 microseconds. At most two years.
        window: Duration,
    },
}

/// A cost to be charged to one limit of one record. Charges on the same record stand side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Charge {
    /// Whose limit.
    pub record: Key,
    /// Which limit.
    pub limit: Limit,
    /// How many units. Zero means: refuse if in debt.
    pub cost: u64,
}

impl Charge {
    /// `cost` units of `limit`, on `record`.
    #[must_use]
    pub const fn new(record: Key, limit: Limit, cost: u64) -> Self {
        Self { record, limit, cost }
    }
}

/// Stands where there is no charge yet.
pub(crate) const NO_CHARGE: Charge =
    Charge::new(Key::from_bytes([0; 16]), Limit::slots(LimitId(0), 0), 0);

/// Names a reservation within its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReservationId(pub(crate) u64);

impl ReservationId {
    /// A new one, unlike all others of this process.
    #[must_use]
    pub fn next() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The id as a number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

/// A wish to charge several limits, all or none.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Admission<'a> {
    /// What is to be admitted.
    pub id: ReservationId,
    /// At most [`MAX_CHARGES`].
    pub charges: &'a [Charge],
}

impl<'a> Admission<'a> {
    /// All of `charges`, or none.
    #[must_use]
    pub const fn new(id: ReservationId, charges: &'a [Charge]) -> Self {
        Self { id, charges }
    }
}

/// Up to [`MAX_CHARGES`] items, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inline<T> {
    len: u8,
    items: [T; MAX_CHARGES],
}

/// Where a limit stands after a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// Units that can still be admitted now.
    pub remaining: u64,
    /// Until all of the limit is there again.
    pub reset: Duration,
}

impl Standing {
    /// `remaining` units now, and all of them after `reset`.
    #[must_use]
    pub const fn new(remaining: u64, reset: Duration) -> Self {
        Self { remaining, reset }
    }
}

/// Where each limit of an admission stands, in its order.
pub type Standings = Inline<Standing>;

/// What a store needs to give a charge back safely. Opaque to all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // Stores make them.
pub struct Receipt(pub [u64; 2]);

/// An admission that was granted.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Grant {
    /// Where each limit stands now.
    pub standings: Standings,
    /// One per charge, to be handed back in the settlement.
    pub receipts: Inline<Receipt>,
    /// Whether it was decided without the store, which is out of reach.
    pub degraded: bool,
}

impl Grant {
    /// Granted, with a standing and a receipt per charge.
    #[must_use]
    pub const fn new(standings: Standings, receipts: Inline<Receipt>) -> Self {
        Self { standings, receipts, degraded: false }
    }

    /// The same, decided without the store.
    #[must_use]
    pub const fn as_degraded(mut self) -> Self {
        self.degraded = true;
        self
    }
}

/// An admission that was refused. Nothing was charged.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// The charge that did not fit: of several, the one that must wait longest.
    pub index: usize,
    /// When it would fit, if nothing else were charged. `None`: never, the cost is beyond the limit's capacity;
    /// or nobody knows, as for a slot.
    pub retry_after: Option<Duration>,
    /// Where each limit stands.
    pub standings: Standings,
}

impl Refusal {
    /// Refused for the charge at `index`.
    #[must_use]
    pub const fn new(index: usize, retry_after: Option<Duration>, standings: Standings) -> Self {
        Self { index, retry_after, standings }
    }
}

/// What became of an admission.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_enums)]
pub enum Decision {
    /// Everything was charged.
    Admitted(Grant),
    /// Nothing was charged.
    Refused(Refusal),
}

/// What was charged and what was really used.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Settlement<'a> {
    /// The reservation, as admitted.
    pub id: ReservationId,
    /// The charges, as admitted.
    pub charges: &'a [Charge],
    /// The receipts of the grant.
    pub receipts: &'a [Receipt],
    /// Units really used, one per charge. Less is given back as far as it is safe to; more becomes
    /// debt. Slots are given back whatever stands here.
    pub used: &'a [u64],
}

impl<'a> Settlement<'a> {
    /// `used[i]` units of `charges[i]`.
    #[must_use]
    pub const fn new(
        id: ReservationId,
        charges: &'a [Charge],
        receipts: &'a [Receipt],
        used: &'a [u64],
    ) -> Self {
        Self { id, charges, receipts, used }
    }
}

/// Why a store could not answer. Never the caller's fault.
#[derive(Debug, thiserror::Error)]
#[error("the store can't answer: {source}")]
pub struct StoreError {
    transient: bool,
    source: BoxError,
}

impl StoreError {
    /// An outage: the same call may go through later.
    pub fn transient(source: impl Into<BoxError>) -> Self {
        Self { transient: true, source: source.into() }
    }

    /// A fault that will not pass by itself: a wrong configuration, an answer that can't be read.
    pub fn permanent(source: impl Into<BoxError>) -> Self {
        Self { transient: false, source: source.into() }
    }

    /// Whether the same call may go through later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.transient
    }
}

/// Keeps limits. What every layer that counts is built on.
///
/// A backend is held to `conformance` (feature `test-util`).
pub trait LimiterStore: Debug + Send + Sync + 'static {
    /// Charges all of the admission or nothing.
    ///
    /// The admission is read during the call; the answer borrows nothing. Dropping the answer
    /// before it is ready gives back whatever it took. A refused admission charges nothing.
    ///
    /// # Errors
    /// When the store can't be asked. Nothing is charged then.
    fn acquire(&self, admission: &Admission<'_>) -> StoreFuture<Decision>;

    /// Settles an admission that was granted to what was really used: gives back the unused rest
    /// and every slot, and charges what was used beyond.
    ///
    /// Returns at once, needs no runtime and can't fail, so that `Drop` may call it on any thread: a
    /// networked store reserved the place for it when it admitted. Called once per grant.
    fn settle(&self, settlement: &Settlement<'_>);

    /// Where the limits of an admission stand, nothing charged.
    ///
    /// # Errors
    /// When the store can't be asked.
    fn peek(&self, admission: &Admission<'_>) -> StoreFuture<Standings>;

    /// Forgets what was used of all limits of a record, but for slots, which those hold that run: for support staff. What
    /// is admitted on a rate and not settled yet gives nothing back later.
    ///
    /// # Errors
    /// When the store can't be asked.
    fn reset(&self, record: Key) -> StoreFuture<()>;

    /// Ready when every settlement so far has been applied: before a shutdown.
    ///
    /// # Errors
    /// When some could not be applied.
    fn flush(&self) -> StoreFuture<()>;
}

impl<T: Copy> Inline<T> {
    /// None yet. `fill` stands in the unused places and is never seen.
    #[must_use]
    pub const fn new(fill: T) -> Self {
        Self { len: 0, items: [fill; MAX_CHARGES] }
    }

    /// Those of `items` that there are places for: all, where there is one for each charge. `fill` is as in
    /// [`new`](Self::new).
    pub(crate) fn collect(fill: T, items: impl IntoIterator<Item = T>) -> Self {
        let mut all = Self::new(fill);
        for item in items {
            all.push(item);
        }
        all
    }

    /// Adds one more. False, and nothing added, when all places are taken.
    pub fn push(&mut self, item: T) -> bool {
        match self.items.get_mut(usize::from(self.len)) {
            Some(place) => {
                *place = item;
                self.len += 1;
                true
            }
            None => false,
        }
    }

    /// The items.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        self.items.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The items, to change.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        self.items.get_mut(..usize::from(self.len)).unwrap_or_default()
    }
}

impl<T: Copy + Default> Default for Inline<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

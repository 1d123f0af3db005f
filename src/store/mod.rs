//! The stores that all layers share: limits in a [`LimiterStore`], facts in a [`FactStore`], what must not
//! be forgotten in a [`RecordStore`].
//!
//! [`MemoryStore`] serves one process, `RedisStore` (feature `redis`) many, over one server or several, and [`LeasedStore`] spares them most of its round trips. All are held to the
//! same conformance suite, which third parties can run on theirs (feature `test-util`).

mod breaker;
#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
mod decision;
mod facts;
mod forward;
mod key;
mod leased;
mod limit;
mod memory;
#[cfg(any(feature = "jwt", feature = "prompt-guard"))]
pub(crate) mod penalties;
mod records;
#[cfg(feature = "redis")]
mod redis;
mod rules;
mod stores;

use std::fmt::Debug;

#[cfg(feature = "prompt-guard")]
pub(crate) use self::breaker::{Circuit, Permit};
pub(crate) use self::limit::NO_CHARGE;
#[cfg(feature = "redis")]
pub use self::redis::{RedisHealth, RedisStore, RedisStoreBuilder, RedisWarning};
pub use self::{
    breaker::{BreakerStore, BreakerStoreBuilder},
    decision::{
        Admission, Decision, Inline, Receipt, Refusal, ReservationId, Seen, Settlement, Standing,
        Standings,
    },
    facts::{Distinct, FactStore},
    key::{Group, Key, Keyed, Pepper},
    leased::{LeasedStore, LeasedStoreBuilder},
    limit::{Charge, Limit, LimitId, Outage, Rule},
    memory::{MemoryStore, MemoryStoreBuilder},
    records::{MAX_RECORD_BYTES, RecordPage, RecordStore},
    stores::Stores,
};
use crate::{BoxError, future::ReadyOr};

/// The answer of a store: ready, or a boxed future that owns what it needs.
pub type StoreFuture<T> = ReadyOr<Result<T, StoreError>>;

/// How many limits one admission may name.
pub const MAX_CHARGES: usize = 8;

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

    /// Where the limits of an admission stood when it was decided, by what was `seen` then, or where they are known to
    /// stand by now. Asks nobody: it is told in the headers of every answer.
    fn standings(&self, charges: &[Charge], seen: &Seen) -> Standings;

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

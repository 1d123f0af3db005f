//! The options of a leased store.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{LeasedStore, Options};
use crate::{
    clock::{Clock, SystemClock},
    error::BuildError,
    store::{LimitId, LimiterStore, rules},
};

/// Builds a [`LeasedStore`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct LeasedStoreBuilder<S> {
    inner: S,
    clock: Arc<dyn Clock>,
    instances: u64,
    ahead: Duration,
    period: Duration,
    deny_hold: Duration,
    strict: HashSet<LimitId>,
    max_leases: usize,
    max_reservations: usize,
}

impl<S: LimiterStore> LeasedStoreBuilder<S> {
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            clock: Arc::new(SystemClock),
            instances: 4,
            ahead: Duration::from_millis(50),
            period: Duration::from_secs(1),
            deny_hold: Duration::from_millis(50),
            strict: HashSet::new(),
            max_leases: 100_000,
            max_reservations: 1_000_000,
        }
    }

    /// The clock to count by. It must run as fast as the inner store's. Default: the machine's.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// How many processes share the inner store, about: no lease takes more than what remains, divided by twice this. Default: 4.
    pub fn instances(self, instances: u64) -> Self {
        Self { instances, ..self }
    }

    /// For how long ahead a lease is to suffice. Default: 50 milliseconds.
    pub fn ahead(self, ahead: Duration) -> Self {
        Self { ahead, ..self }
    }

    /// How long a lease lasts at most: what it has left then is given back. Default: 1 second.
    pub fn period(self, period: Duration) -> Self {
        Self { period, ..self }
    }

    /// For how long, after the inner store has refused, as much of the same limit is refused without asking it again;
    /// never longer than it said to wait. Zero: not at all. Default: 50 milliseconds.
    pub fn deny_hold(self, deny_hold: Duration) -> Self {
        Self { deny_hold, ..self }
    }

    /// Limits that are never leased: each of their charges goes to the inner store. Adds to those
    /// named before. Default: none.
    pub fn strict(mut self, limits: impl IntoIterator<Item = LimitId>) -> Self {
        self.strict.extend(limits);
        self
    }

    /// How many limits of records are watched, and how many leases may be open, at up to about 400 bytes each. Beyond, requests
    /// go straight to the inner store. Default: 100,000.
    pub fn max_leases(self, max_leases: usize) -> Self {
        Self { max_leases, ..self }
    }

    /// How many admissions from leases may wait for their settlement, at about 200 bytes each. Beyond, requests go straight to the inner store.
    /// Default: 1,000,000.
    pub fn max_reservations(self, max_reservations: usize) -> Self {
        Self { max_reservations, ..self }
    }

    /// The store.
    ///
    /// # Errors
    /// When the number of instances or a time ahead is zero, or the period is shorter than the time ahead or longer than an hour.
    pub fn build(self) -> Result<LeasedStore<S>, BuildError> {
        if self.instances == 0 {
            return Err(BuildError::invalid("instances", "must be at least 1"));
        }
        if self.ahead.is_zero() {
            return Err(BuildError::invalid("ahead", "must not be zero"));
        }
        if self.period < self.ahead || self.period > Duration::from_secs(3600) {
            return Err(BuildError::invalid("period", "must be from the time ahead to an hour"));
        }
        let options = Options {
            instances: self.instances,
            ahead: rules::ticks(self.ahead).max(1),
            period: rules::ticks(self.period),
            pause: self.period,
            deny_hold: self.deny_hold,
            strict: self.strict,
            max_leases: self.max_leases,
            max_reservations: self.max_reservations,
        };
        Ok(LeasedStore::with(self.inner, self.clock, options))
    }
}

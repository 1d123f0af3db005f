//! What callers may get wrong before they have to wait.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    Admission, Charge, Decision, Key, Limit, LimitId, LimiterStore, ReservationId, Settlement,
    StoreError, Stores,
};
use crate::{
    BuildError,
    clock::{Clock, SystemClock},
    observe, runtime,
};

/// Counts what somebody gets wrong, by key, in the store. Those whose quota is used up are also kept here, so that no
/// request waits for the store to tell: another process learns of it with the next that they get wrong there.
#[derive(Clone, Debug)]
pub(crate) struct Penalties(Arc<Table>);

#[derive(Debug)]
struct Table {
    terms: Terms,
    blocked: Mutex<Blocked>,
    /// Whether anybody was ever blocked: while nobody was, nothing is locked.
    any: AtomicBool,
}

/// What is counted, and what follows.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    store: Arc<dyn LimiterStore>,
    clock: Arc<dyn Clock>,
    limit: LimitId,
    quota: u64,
    window: Duration,
    /// How long those wait who have used up the quota. `None`: until one of the wrongs is forgotten.
    wait: Option<Duration>,
    /// In which time the whole quota is forgotten, one by one.
    period: Duration,
    /// Counts those that the store could not be told of.
    errors: &'static str,
}

/// Until when, in the clock's monotonic time.
#[derive(Debug, Default)]
struct Blocked {
    until: HashMap<Key, Duration>,
    swept: Duration,
}

impl Terms {
    /// `quota`, of which one is forgotten with each of as many parts of a `window`, counted in the store by this name.
    pub(crate) fn new(stores: &Stores, name: &str, quota: u64, window: Duration) -> Self {
        Self {
            store: Arc::clone(stores.limiter()),
            clock: Arc::new(SystemClock),
            limit: LimitId::of(name),
            quota,
            window,
            wait: None,
            period: window,
            errors: "palisade_penalty_errors_total",
        }
    }

    pub(crate) fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    pub(crate) fn wait(self, wait: Duration) -> Self {
        Self { wait: Some(wait), ..self }
    }

    /// One is forgotten in a whole window: whoever gets `quota` wrong within any time as long has used it up.
    pub(crate) fn one_in_a_window(self) -> Self {
        let quota = u32::try_from(self.quota).unwrap_or(u32::MAX);
        Self { period: self.window.saturating_mul(quota), ..self }
    }

    pub(crate) fn errors(self, errors: &'static str) -> Self {
        Self { errors, ..self }
    }

    /// `what` they are for, in the error.
    pub(crate) fn check(&self, what: &'static str) -> Result<(), BuildError> {
        let times = [Some(self.window), self.wait];
        let fits = |time: &Duration| (Duration::from_secs(1)..=LONGEST).contains(time);
        if self.quota == 0 || !times.iter().flatten().all(fits) {
            let reason = "a quota of at least 1 and times of a second to a day are needed";
            return Err(BuildError::invalid(what, reason));
        }
        Ok(())
    }

    fn charge(&self, key: Key) -> Charge {
        Charge::new(key, Limit::rate(self.limit, self.quota, self.period), 1)
    }

    /// Until one is forgotten.
    fn one_unit(&self) -> Duration {
        let nanos = self.period.as_nanos() / u128::from(self.quota.max(1));
        u64::try_from(nanos).map_or(self.window, Duration::from_nanos)
    }
}

impl Penalties {
    pub(crate) fn new(terms: Terms) -> Self {
        let (blocked, any) = (Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Table { terms, blocked, any }))
    }

    /// How long this one must wait, if the quota is used up.
    pub(crate) fn wait(&self, key: Key) -> Option<Duration> {
        let table = &*self.0;
        if !table.any.load(Ordering::Acquire) {
            return None;
        }
        let now = table.terms.clock.monotonic();
        let blocked = table.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        let until = blocked.until.get(&key).copied()?;
        until.checked_sub(now).filter(|wait| !wait.is_zero())
    }

    /// Counts one. Waits for nothing.
    pub(crate) fn count(&self, key: Key) {
        let (id, charges) = (ReservationId::next(), [self.0.terms.charge(key)]);
        match self.0.terms.store.acquire(&Admission::new(id, &charges)).try_now() {
            Ok(decision) => self.0.decided(id, key, decision),
            Err(pending) => {
                let table = Arc::clone(&self.0);
                let task = async move {
                    let decision = pending.await;
                    table.decided(id, key, decision);
                };
                // Without a runtime it goes uncounted; a store that waits needs one anyway.
                drop(runtime::spawn(task));
            }
        }
    }
}

impl Table {
    fn decided(&self, id: ReservationId, key: Key, decision: Result<Decision, StoreError>) {
        let Self { terms, .. } = self;
        match decision {
            Ok(Decision::Admitted(grant)) => {
                let charges = [terms.charge(key)];
                let receipts = grant.receipts.as_slice();
                terms.store.settle(&Settlement::new(id, &charges, receipts, &[1]));
                let standings = terms.store.standings(&charges, &grant);
                if standings.as_slice().iter().any(|standing| standing.remaining == 0) {
                    self.block(key, terms.wait.unwrap_or_else(|| terms.one_unit()));
                }
            }
            Ok(Decision::Refused(refusal)) => {
                let wait = terms.wait.or(refusal.retry_after);
                self.block(key, wait.unwrap_or(terms.window));
            }
            Err(_) => observe::count(terms.errors, &[]),
        }
    }

    fn block(&self, key: Key, wait: Duration) {
        let now = self.terms.clock.monotonic();
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        if blocked.until.len() >= MAX_BLOCKED && blocked.swept + SWEEP_EVERY <= now {
            blocked.until.retain(|_, until| *until > now);
            blocked.swept = now;
        }
        // A full table forgets the newcomer, not those within: the store still counts what it does.
        if blocked.until.len() < MAX_BLOCKED || blocked.until.contains_key(&key) {
            blocked.until.insert(key, now.saturating_add(wait));
        }
        drop(blocked);
        self.any.store(true, Ordering::Release);
    }
}

const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_BLOCKED: usize = 16 * 1024;
const SWEEP_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::ManualClock, store::Pepper};

    #[test]
    fn the_table_of_those_who_wait_is_bounded_and_swept() {
        let clock = Arc::new(ManualClock::default());
        let terms = Terms::new(&Stores::in_memory(), "test", 1, Duration::from_secs(60));
        let penalties = Penalties::new(terms.clock(Arc::clone(&clock) as _));
        let pepper = Pepper::random();
        let key = |n: usize| pepper.key("test").with(&n.to_le_bytes()).finish();
        for n in 0..=MAX_BLOCKED {
            penalties.0.block(key(n), Duration::from_secs(10));
        }
        assert!(penalties.wait(key(0)).is_some());
        assert_eq!(penalties.wait(key(MAX_BLOCKED)), None);
        clock.advance(Duration::from_secs(10));
        assert_eq!(penalties.wait(key(0)), None);
        penalties.0.block(key(0), Duration::from_secs(10));
        assert_eq!(penalties.0.blocked.lock().unwrap().until.len(), 1);
    }

    #[test]
    fn those_who_use_it_up_wait_as_long_as_they_are_told_to() {
        let clock = Arc::new(ManualClock::default());
        let terms = Terms::new(&Stores::in_memory(), "test", 3, Duration::from_secs(60));
        let penalties =
            Penalties::new(terms.clock(Arc::clone(&clock) as _).wait(Duration::from_secs(600)));
        let pepper = Pepper::random();
        let key = |n: u8| pepper.key("test").with(&[n]).finish();
        for _ in 0..2 {
            penalties.count(key(1));
            assert_eq!(penalties.wait(key(1)), None);
        }
        penalties.count(key(1));
        assert_eq!(penalties.wait(key(1)), Some(Duration::from_secs(600)));
        assert_eq!(penalties.wait(key(2)), None);
        clock.advance(Duration::from_secs(600));
        assert_eq!(penalties.wait(key(1)), None);
    }
}

//! Keys that are fetched, and how old they may get: one state machine per issuer.
//!
//! A set is fetched anew before the refresh interval has passed. While that fails the old one is
//! believed until `max_stale`; from then on there is none. One fetch is under way at a time, a *flight*.
//! Requests wait for one only when they can't be answered without: there are no keys, or the token names
//! one that is not among them.

use std::{
    fmt, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    Algorithm, IssuerHealth, KeySet, KeySetFetch, Reason,
    key_flight::{self, Awaited, FLIGHT_LIMIT, Fetched},
    key_source::HeldKeys,
    refetch_budget::RefetchBudget,
};
use crate::{
    clock::Clock,
    observe,
    runtime::{self, watch},
};

/// Keys that are fetched.
pub(crate) struct RemoteKeys {
    pub(crate) options: RemoteOptions,
    pub(crate) fetch: Arc<dyn KeySetFetch>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// That of the set in use; 0 before the first one.
    generation: AtomicU64,
    /// When to fetch again.
    due_at: Moment,
    /// When the set is too old to be believed.
    ends_at: Moment,
    /// The number of the flight that landed last.
    landed: watch::Sender<u64>,
}

/// What is to be fetched, and when.
#[derive(Debug)]
pub(crate) struct RemoteOptions {
    pub(crate) issuer: String,
    /// Where the keys are; nowhere yet, where the issuer's metadata are to be asked.
    pub(crate) url: Option<String>,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) http_loopback: bool,
    pub(crate) refresh_interval: Duration,
    pub(crate) max_stale: Duration,
}

#[derive(Default)]
struct State {
    held: Option<Arc<HeldKeys>>,
    /// How many flights were started.
    flights: u64,
    flying: bool,
    budget: RefetchBudget,
    failures: u32,
    last_error: Option<&'static str>,
    /// Where the issuer's metadata say that the keys are, and when they said so.
    discovered: Option<(String, Duration)>,
    /// Whether a task sees to refreshes.
    kept_up: bool,
}

/// Who asks for a flight.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The schedule.
    Schedule,
    /// A request, out of turn: within the budget.
    Request,
}

/// What a request found lacking.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lack {
    /// There are no keys, or they are too old.
    Keys,
    /// The key that the token names.
    NamedKey,
    /// A key that fits. A newer set would not help.
    FittingKey,
}

impl RemoteKeys {
    pub(crate) fn new(
        options: RemoteOptions,
        fetch: Arc<dyn KeySetFetch>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            options,
            fetch,
            clock,
            state: Mutex::default(),
            generation: AtomicU64::new(0),
            due_at: Moment::default(),
            ends_at: Moment::default(),
            landed: watch::Sender::new(0),
        }
    }

    pub(crate) fn is_current(self: &Arc<Self>, generation: u64) -> bool {
        let now = self.clock.monotonic();
        if self.is_due(now) {
            if !runtime::is_here() {
                // Whoever asks for the keys then has to fetch them.
                return false;
            }
            drop(self.join_or_start(Cause::Schedule));
        }
        generation == self.generation.load(Ordering::Acquire) && now < self.ends_at.get()
    }

    pub(crate) async fn keys_for(
        self: &Arc<Self>,
        key_id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<HeldKeys>, Reason> {
        let due = self.is_due(self.clock.monotonic());
        if let Some(flight) = due.then(|| self.join_or_start(Cause::Schedule)).flatten()
            && flight.is_own()
        {
            flight.landed().await;
        }
        let before = self.state().flights;
        let mut landed = 0;
        loop {
            let lack = match self.search(key_id, algorithm) {
                Ok(held) => return Ok(held),
                Err(lack) => lack,
            };
            // A flight that left before this request came may have missed the key, a later one has not.
            if lack == Lack::FittingKey || landed > before {
                return Err(lack.reason());
            }
            let Some(flight) = self.join_or_start(Cause::Request) else {
                observe::count("palisade_key_set_fetches_denied_total", &[]);
                return Err(lack.reason());
            };
            landed = flight.landed().await;
        }
    }

    pub(crate) fn warm_up(self: &Arc<Self>) -> Option<Awaited> {
        let is_cold = self.usable(self.clock.monotonic()).is_none();
        is_cold.then(|| self.join_or_start(Cause::Schedule)).flatten()
    }

    pub(crate) fn health(&self, issuer: &str) -> IssuerHealth {
        let now = self.clock.monotonic();
        let usable = self.usable(now);
        let state = self.state();
        IssuerHealth {
            issuer: issuer.to_owned(),
            keys: usable.as_ref().map_or(0, |held| held.keys.len()),
            skipped: usable.as_ref().map_or(0, |held| held.keys.skipped().len()),
            age: state.held.as_ref().map(|held| now.saturating_sub(held.fetched_at)),
            failures: state.failures,
            last_error: state.last_error,
            has_keys: true,
            unanswered: 0,
        }
    }

    /// Whether it is time for a flight that nobody waits for, but who has to drive it.
    fn is_due(&self, now: Duration) -> bool {
        now >= self.due_at.get() && self.generation.load(Ordering::Acquire) > 0
    }

    /// Starts a flight, for the task that keeps the set up, which also gets the first one if nobody else does.
    pub(crate) fn keep_up(self: &Arc<Self>) {
        if self.clock.monotonic() >= self.due_at.get() {
            drop(self.join_or_start(Cause::Schedule));
        }
    }

    pub(crate) fn until_due(&self) -> Duration {
        self.due_at.get().saturating_sub(self.clock.monotonic())
    }

    pub(crate) fn no_longer_kept_up(&self) {
        self.state().kept_up = false;
    }

    fn search(&self, key_id: Option<&str>, algorithm: Algorithm) -> Result<Arc<HeldKeys>, Lack> {
        let held = self.usable(self.clock.monotonic()).ok_or(Lack::Keys)?;
        if held.keys.choose(key_id, algorithm).is_some() {
            return Ok(held);
        }
        let is_new = key_id.is_some_and(|id| !held.keys.mentions(id));
        Err(if is_new { Lack::NamedKey } else { Lack::FittingKey })
    }

    fn usable(&self, now: Duration) -> Option<Arc<HeldKeys>> {
        self.state().held.clone().filter(|_| now < self.ends_at.get())
    }

    /// The flight that is under way, or else a new one. `None`: the budget is spent.
    fn join_or_start(self: &Arc<Self>, cause: Cause) -> Option<Awaited> {
        let now = self.clock.monotonic();
        let mut state = self.state();
        if state.flying {
            return Some(Awaited::new(state.flights, self.landed.subscribe(), None));
        }
        if cause == Cause::Request && !state.budget.take(now) {
            return None;
        }
        state.flying = true;
        state.flights += 1;
        let number = state.flights;
        let keep_up = !mem::replace(&mut state.kept_up, true);
        self.due_at.set(now + FLIGHT_LIMIT);
        let landed = self.landed.subscribe();
        drop(state);
        let own = key_flight::start(self, number, now);
        if keep_up {
            key_flight::start_upkeep(self);
        }
        Some(Awaited::new(number, landed, own))
    }

    /// Where the issuer's metadata said the keys are, if that was lately.
    pub(crate) fn discovered(&self) -> Option<String> {
        let now = self.clock.monotonic();
        let (url, at) = self.state().discovered.clone()?;
        (now.saturating_sub(at) < METADATA_LIFE).then_some(url)
    }

    pub(crate) fn set_discovered(&self, url: &str) {
        self.state().discovered = Some((url.to_owned(), self.clock.monotonic()));
    }

    /// What a flight ended with, one way or another.
    pub(crate) fn land(
        &self,
        number: u64,
        started: Duration,
        outcome: Result<Fetched, &'static str>,
    ) {
        let mut state = self.state();
        state.flying = false;
        match outcome {
            Ok(fetched) => self.replace(&mut state, started, fetched),
            Err(reason) => self.fail(&mut state, reason),
        }
        drop(state);
        self.landed.send_replace(number);
    }

    fn replace(&self, state: &mut State, started: Duration, (keys, digest): Fetched) {
        let old = state.held.as_deref();
        let is_same = old.is_some_and(|old| old.digest == digest);
        let generation = old.map_or(0, |old| old.generation) + u64::from(!is_same);
        if !is_same {
            report_skipped(&self.options.issuer, &keys);
        }
        state.held = Some(Arc::new(HeldKeys { keys, generation, fetched_at: started, digest }));
        (state.failures, state.last_error) = (0, None);
        // Ahead of the interval's end, so that the new set is there by then.
        self.due_at.set(started.saturating_add(self.options.refresh_interval / 4 * 3));
        self.ends_at.set(started.saturating_add(self.options.max_stale));
        self.generation.store(generation, Ordering::Release);
        let outcome = if is_same { "unchanged" } else { "changed" };
        observe::count("palisade_key_set_fetches_total", &[("outcome", outcome)]);
    }

    fn fail(&self, state: &mut State, reason: &'static str) {
        state.failures = state.failures.saturating_add(1);
        state.last_error = Some(reason);
        // It may have moved.
        state.discovered = None;
        let doublings = state.failures.saturating_sub(1).min(5);
        let pause = (FIRST_RETRY * 2u32.pow(doublings)).min(LAST_RETRY);
        self.due_at.set(self.clock.monotonic() + pause);
        observe::count("palisade_key_set_fetches_total", &[("outcome", "failed")]);
        observe::warn("jwt", &format!("no new keys of {}: {reason}", self.options.issuer));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lack {
    fn reason(self) -> Reason {
        match self {
            Self::Keys => Reason::Unavailable,
            Self::NamedKey | Self::FittingKey => Reason::Unverifiable,
        }
    }
}

fn report_skipped(issuer: &str, keys: &KeySet) {
    for key in keys.skipped() {
        let (index, reason) = (key.index(), key.reason());
        observe::warn("jwt", &format!("key {index} of {issuer} is not used: {reason}"));
    }
}

impl fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteKeys").field("options", &self.options).finish_non_exhaustive()
    }
}

/// A time on the monotonic clock, to the millisecond, that is read without a lock.
#[derive(Debug, Default)]
struct Moment(AtomicU64);

impl Moment {
    fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Acquire))
    }

    fn set(&self, at: Duration) {
        let millis = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis, Ordering::Release);
    }
}

const FIRST_RETRY: Duration = Duration::from_secs(5);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// How long the issuer's word on where its keys are is taken, while they are there.
const METADATA_LIFE: Duration = Duration::from_secs(60 * 60);

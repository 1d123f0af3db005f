//! How many tokens a network may get wrong.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Extensions, HeaderMap};

use super::{AuthError, AuthErrorKind, service::Verdict};
use crate::{
    BuildError, Rejection, RejectionKind,
    clock::{Clock, SystemClock},
    future::ReadyOr,
    network::{ClientAddress, Network},
    observe, runtime,
    store::{
        Admission, Charge, Decision, Key, Limit, LimitId, LimiterStore, Pepper, ReservationId,
        Settlement, StoreError, Stores,
    },
};

/// Counts the tokens that did not hold, by network, in the store. Networks whose quota is used up are
/// also kept here, so that no request waits for the store to tell.
#[derive(Debug)]
pub(crate) struct Throttle {
    store: Arc<dyn LimiterStore>,
    pepper: Pepper,
    quota: u64,
    window: Duration,
    client: ClientAddress,
    clock: Arc<dyn Clock>,
    blocked: Mutex<Blocked>,
    /// Whether any network was ever blocked: while none was, nothing is locked.
    any: AtomicBool,
}

/// Until when, in the clock's monotonic time.
#[derive(Debug, Default)]
struct Blocked {
    until: HashMap<Key, Duration>,
    swept: Duration,
}

impl Throttle {
    pub(crate) fn new(stores: &Stores, quota: u64, window: Duration) -> Self {
        Self {
            store: Arc::clone(stores.limiter()),
            pepper: stores.pepper().clone(),
            quota,
            window,
            client: ClientAddress::default(),
            clock: Arc::new(SystemClock),
            blocked: Mutex::default(),
            any: AtomicBool::new(false),
        }
    }

    pub(crate) fn with(self, client: ClientAddress, clock: Arc<dyn Clock>) -> Self {
        Self { client, clock, ..self }
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        if self.quota == 0 || self.window < Duration::from_secs(1) || self.window > MAX_WINDOW {
            let reason = "a quota of at least 1 and a window of a second to a day are needed";
            return Err(BuildError::invalid("throttle_failures", reason));
        }
        Ok(())
    }

    /// The network that the request comes from, if the server tells.
    pub(crate) fn network(&self, headers: &HeaderMap, extensions: &Extensions) -> Option<Key> {
        let network = Network::of(self.client.find(headers, extensions)?);
        Some(self.pepper.key("auth_failures").with(network.as_bytes()).finish())
    }

    /// How long the network must wait, if its quota is used up.
    pub(crate) fn wait(&self, network: Key) -> Option<Duration> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let now = self.clock.monotonic();
        let blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        let until = blocked.until.get(&network).copied()?;
        until.checked_sub(now).filter(|wait| !wait.is_zero())
    }

    /// Charges the network when `verdict` is that its token does not hold.
    pub(crate) fn note(self: &Arc<Self>, network: Key, verdict: &Verdict) {
        if !verdict.as_ref().is_err_and(is_failure) {
            return;
        }
        let (id, charges) = (ReservationId::next(), [self.charge(network)]);
        match self.store.acquire(&Admission::new(id, &charges)).try_now() {
            Ok(decision) => self.decided(id, network, decision),
            Err(pending) => {
                let throttle = Arc::clone(self);
                let task = async move {
                    let decision = pending.await;
                    throttle.decided(id, network, decision);
                };
                // Without a runtime the failure goes uncounted; a store that waits needs one anyway.
                drop(runtime::spawn(task));
            }
        }
    }

    /// The verdict that is to come, which is noted as soon as it is there.
    pub(crate) fn noting(
        self: &Arc<Self>,
        network: Key,
        answer: ReadyOr<Verdict>,
    ) -> ReadyOr<Verdict> {
        let throttle = Arc::clone(self);
        ReadyOr::pending(async move {
            let verdict = answer.await;
            throttle.note(network, &verdict);
            verdict
        })
    }

    /// A refusal without a challenge: another token would not help now.
    pub(crate) fn refused(wait: Duration) -> Rejection {
        const MESSAGE: &str = "Too many access tokens from this network did not hold.";
        let kind = RejectionKind::RateLimited;
        Rejection::new(kind, "too_many_failures", MESSAGE).with_retry_after(wait)
    }

    fn decided(&self, id: ReservationId, network: Key, decision: Result<Decision, StoreError>) {
        match decision {
            Ok(Decision::Admitted(grant)) => {
                let charges = [self.charge(network)];
                let receipts = grant.receipts.as_slice();
                self.store.settle(&Settlement::new(id, &charges, receipts, &[1]));
                let standings = self.store.standings(&charges, &grant);
                if standings.as_slice().iter().any(|standing| standing.remaining == 0) {
                    self.block(network, self.one_unit());
                }
            }
            Ok(Decision::Refused(refusal)) => {
                self.block(network, refusal.retry_after.unwrap_or(self.window));
            }
            Err(_) => observe::count("palisade_auth_throttle_errors_total", &[]),
        }
    }

    fn block(&self, network: Key, wait: Duration) {
        let now = self.clock.monotonic();
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        if blocked.until.len() >= MAX_BLOCKED && blocked.swept + SWEEP_EVERY <= now {
            blocked.until.retain(|_, until| *until > now);
            blocked.swept = now;
        }
        // A full table forgets the newcomer, not those within: the store still refuses it.
        if blocked.until.len() < MAX_BLOCKED || blocked.until.contains_key(&network) {
            blocked.until.insert(network, now.saturating_add(wait));
        }
        drop(blocked);
        self.any.store(true, Ordering::Release);
    }

    fn charge(&self, network: Key) -> Charge {
        let limit = Limit::rate(LimitId::of("auth_failures"), self.quota, self.window);
        Charge::new(network, limit, 1)
    }

    /// Until one failure is forgotten.
    fn one_unit(&self) -> Duration {
        let nanos = self.window.as_nanos() / u128::from(self.quota.max(1));
        u64::try_from(nanos).map_or(self.window, Duration::from_nanos)
    }
}

/// An outage is not the caller's doing, and a token that grants too little holds.
fn is_failure(error: &AuthError) -> bool {
    matches!(error.kind(), AuthErrorKind::InvalidToken | AuthErrorKind::InvalidRequest)
}

const MAX_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_BLOCKED: usize = 16 * 1024;
const SWEEP_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_and_missing_scopes_are_no_failures() {
        assert!(is_failure(&AuthError::invalid_token()));
        assert!(!is_failure(&AuthError::unavailable()));
        assert!(!is_failure(&AuthError::new(AuthErrorKind::InsufficientScope, "")));
    }

    #[test]
    fn the_table_of_blocked_networks_is_bounded_and_swept() {
        let clock = Arc::new(crate::clock::ManualClock::default());
        let throttle = Throttle::new(&Stores::in_memory(), 1, Duration::from_secs(60))
            .with(ClientAddress::default(), Arc::clone(&clock) as _);
        let key = |n: usize| throttle.pepper.key("test").with(&n.to_le_bytes()).finish();
        for n in 0..=MAX_BLOCKED {
            throttle.block(key(n), Duration::from_secs(10));
        }
        assert!(throttle.wait(key(0)).is_some());
        assert_eq!(throttle.wait(key(MAX_BLOCKED)), None);
        clock.advance(Duration::from_secs(10));
        assert_eq!(throttle.wait(key(0)), None);
        throttle.block(key(0), Duration::from_secs(10));
        assert_eq!(throttle.blocked.lock().unwrap().until.len(), 1);
    }
}

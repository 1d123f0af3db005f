//! How many tokens a network may get wrong.

use std::{sync::Arc, time::Duration};

use http::{Extensions, HeaderMap};

use super::{AuthError, AuthErrorKind, service::Verdict};
use crate::{
    BuildError, Rejection, RejectionKind,
    clock::Clock,
    future::ReadyOr,
    network::{ClientAddress, Network},
    runtime::{self, oneshot},
    store::{
        Key, Pepper, Stores,
        penalties::{Penalties, Terms},
    },
};

/// Counts the tokens that did not hold, by network.
#[derive(Debug)]
pub(crate) struct Throttle {
    penalties: Penalties,
    pepper: Pepper,
    client: ClientAddress,
}

/// What the builder is told of one.
#[derive(Debug)]
pub(crate) struct ThrottleOptions {
    terms: Terms,
    pepper: Pepper,
}

impl ThrottleOptions {
    pub(crate) fn new(stores: &Stores, quota: u64, window: Duration) -> Self {
        let terms = Terms::new(stores, "auth_failures", quota, window);
        let terms = terms.errors("palisade_auth_throttle_errors_total");
        Self { terms, pepper: stores.pepper().clone() }
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        self.terms.check("throttle_failures")
    }

    pub(crate) fn with(self, client: ClientAddress, clock: Arc<dyn Clock>) -> Throttle {
        let penalties = Penalties::new(self.terms.clock(clock));
        Throttle { penalties, pepper: self.pepper, client }
    }
}

impl Throttle {
    /// The network that the request comes from, if the server tells.
    pub(crate) fn network(&self, headers: &HeaderMap, extensions: &Extensions) -> Option<Key> {
        let network = Network::of(self.client.find(headers, extensions)?);
        Some(self.pepper.key("auth_failures").with(network.as_bytes()).finish())
    }

    /// How long the network must wait, if its quota is used up.
    pub(crate) fn wait(&self, network: Key) -> Option<Duration> {
        self.penalties.wait(network)
    }

    /// Charges the network when `verdict` is that its token does not hold.
    pub(crate) fn note(&self, network: Key, verdict: &Verdict) {
        if verdict.as_ref().is_err_and(is_failure) {
            self.penalties.count(network);
        }
    }

    /// The verdict that is to come, which is noted as soon as it is there: whoever hangs up before has been asked about
    /// all the same.
    pub(crate) fn noting(
        self: &Arc<Self>,
        network: Key,
        answer: ReadyOr<Verdict>,
    ) -> ReadyOr<Verdict> {
        let throttle = Arc::clone(self);
        let (told, verdict) = oneshot::channel();
        let noted = async move {
            let verdict = answer.await;
            throttle.note(network, &verdict);
            // Nobody may be there any more to hear it.
            let _ = told.send(verdict);
        };
        // Without a runtime it is driven by who waits for it.
        let own = runtime::spawn(noted).err();
        ReadyOr::pending(async move {
            if let Some(noted) = own {
                noted.await;
            }
            verdict.await.unwrap_or_else(|_| Err(AuthError::unavailable()))
        })
    }

    /// A refusal without a challenge: another token would not help now.
    pub(crate) fn refused(wait: Duration) -> Rejection {
        const MESSAGE: &str = "Too many access tokens from this network did not hold.";
        let kind = RejectionKind::RateLimited;
        Rejection::new(kind, "too_many_failures", MESSAGE).with_retry_after(wait)
    }
}

/// An outage is not the caller's doing, and a token that grants too little holds.
fn is_failure(error: &AuthError) -> bool {
    matches!(error.kind(), AuthErrorKind::InvalidToken | AuthErrorKind::InvalidRequest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_and_missing_scopes_are_no_failures() {
        assert!(is_failure(&AuthError::invalid_token()));
        assert!(!is_failure(&AuthError::unavailable()));
        assert!(!is_failure(&AuthError::new(AuthErrorKind::InsufficientScope, "")));
    }
}

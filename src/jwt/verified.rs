//! A token that held, as it is remembered.

use std::{sync::Arc, time::Duration};

use super::{Reason, claims::Times, confirmation::Binding, resource_server::Inner};
use crate::identity::UserIdentity;

/// What verifying a token found, and what must still be so when it comes again. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    pub(crate) user: Arc<UserIdentity>,
    pub(crate) times: Times,
    /// The issuer's place among the server's.
    pub(crate) issuer: usize,
    /// Of the issuer's keys.
    pub(crate) generation: u64,
    /// Held against every request anew: proofs serve once.
    pub(crate) binding: Binding,
}

impl Verified {
    /// Whether the keys that it was verified by are the issuer's still. If not, it is verified again.
    pub(crate) fn keys_are_current(&self, server: &Inner) -> bool {
        server.issuer_at(self.issuer).is_some_and(|issuer| issuer.keys.is_current(self.generation))
    }

    /// Whether the token still holds: asked of a remembered one on every use. Neither waits nor
    /// allocates.
    /// `Revocable` looks after revocation.
    pub(crate) fn recheck(&self, server: &Inner, now: Duration) -> Result<(), Reason> {
        self.times.check(now, server.leeway)
    }
}

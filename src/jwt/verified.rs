//! A token that held, as it is remembered.

use std::{sync::Arc, time::Duration};

use super::{Presented, Reason, claims::Times, confirmation::Binding, resource_server::Inner};
use crate::identity::UserIdentity;

/// What verifying a token found, and what must still be so when it comes again. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    pub(crate) user: Arc<UserIdentity>,
    pub(crate) times: Times,
    /// Held against every request anew: proofs serve once.
    pub(crate) binding: Binding,
}

impl Verified {
    /// Whether the token still holds: asked of a remembered one on every use. Neither waits nor
    /// allocates.
    pub(crate) fn recheck(
        &self,
        server: &Inner,
        _presented: &Presented<'_>,
        now: Duration,
    ) -> Result<(), Reason> {
        self.times.check(now, server.leeway)
        // Here also: the generation of the keys. `Revocable` looks after revocation.
    }
}

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
    pub(crate) basis: Basis,
    /// Held against every request anew: proofs serve once.
    pub(crate) binding: Binding,
}

/// What it was believed for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Basis {
    /// A signature, by a key of this generation of the issuer's.
    Keys { generation: u64 },
    /// The issuer's answer, which counts until this time of the monotonic clock.
    Answer { until: Duration },
}

impl Verified {
    /// Whether what it was believed for still counts. If not, it is verified again.
    pub(crate) fn is_current(&self, server: &Inner) -> bool {
        let Some(issuer) = server.issuer_at(self.issuer) else { return false };
        match self.basis {
            Basis::Keys { generation } => issuer.keys.is_current(generation),
            Basis::Answer { until } => server.clock.monotonic() < until,
        }
    }

    /// Whether the token still holds: asked of a remembered one on every use. Neither waits nor
    /// allocates.
    /// `Revocable` looks after revocation.
    pub(crate) fn recheck(&self, server: &Inner, now: Duration) -> Result<(), Reason> {
        self.times.check(now, server.leeway)
    }
}

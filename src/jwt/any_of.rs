//! API keys beside access tokens.

use std::sync::Arc;

use super::{ApiKeys, AuthError, DpopVerifier, Presented, Reason, Scheme, TokenVerifier};
use crate::{future::ReadyOr, identity::UserIdentity};

/// API keys and something else, told apart by the keys' prefix: see [`ApiKeys::or`].
#[derive(Debug)]
pub struct AnyOf {
    keys: ApiKeys,
    other: Box<dyn TokenVerifier>,
}

impl AnyOf {
    pub(super) fn new(keys: ApiKeys, other: Box<dyn TokenVerifier>) -> Self {
        Self { keys, other }
    }
}

#[deny(clippy::missing_trait_methods)]
impl TokenVerifier for AnyOf {
    /// Only one of the two is asked: a refused key gets no second chance as something else.
    fn verify(&self, presented: &Presented<'_>) -> ReadyOr<Result<Arc<UserIdentity>, AuthError>> {
        match (self.keys.claims(presented.token), presented.scheme) {
            (true, Scheme::Bearer) => self.keys.verify(presented),
            // A key is bound to nothing that a proof could show.
            (true, Scheme::Dpop) => ReadyOr::ready(Err(Reason::NoDpopToken.error())),
            (false, _) => self.other.verify(presented),
        }
    }

    fn dpop(&self) -> Option<&DpopVerifier> {
        self.other.dpop()
    }

    fn remembers(&self, presented: &Presented<'_>) -> bool {
        if self.keys.claims(presented.token) {
            self.keys.remembers(presented)
        } else {
            self.other.remembers(presented)
        }
    }
}

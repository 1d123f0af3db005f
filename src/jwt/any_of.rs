//! API keys beside access tokens.

use std::sync::Arc;

use super::{ApiKeys, AuthError, Presented, TokenVerifier};
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

impl TokenVerifier for AnyOf {
    /// Only one of the two is asked: a refused key gets no second chance as something else.
    fn verify(&self, presented: &Presented<'_>) -> ReadyOr<Result<Arc<UserIdentity>, AuthError>> {
        if self.keys.claims(presented.token) {
            self.keys.verify(presented)
        } else {
            self.other.verify(presented)
        }
    }
}

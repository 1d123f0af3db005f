//! What a verification that waits keeps of the request, which it does not hold on to.

use std::fmt;

use http::{HeaderMap, Method, Uri};

use super::{Presented, Scheme, cache::Digest, dpop};
use crate::identity::Identity;

/// A token, and what it may be bound to or judged by.
pub(crate) struct Facts {
    pub(crate) token: String,
    /// SHA-256 of the token.
    pub(crate) digest: Digest,
    pub(crate) scheme: Scheme,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    /// Those that a verification reads alone: the proofs.
    pub(crate) headers: HeaderMap,
    /// What the layers outside verified: the peer's certificate.
    pub(crate) identity: Option<Identity>,
}

impl Facts {
    pub(crate) fn of(presented: &Presented<'_>, digest: Digest) -> Self {
        let mut headers = HeaderMap::new();
        for proof in presented.headers.get_all(dpop::PROOF) {
            headers.append(dpop::PROOF, proof.clone());
        }
        Self {
            token: presented.token.to_owned(),
            digest,
            scheme: presented.scheme,
            method: presented.method.clone(),
            uri: presented.uri.clone(),
            headers,
            identity: Identity::of(presented.extensions).cloned(),
        }
    }
}

/// Hides the token.
impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts").field("method", &self.method).finish_non_exhaustive()
    }
}

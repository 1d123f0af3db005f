//! What a verification that waits keeps of the request, which it does not hold on to.

use std::{fmt, net::IpAddr};

use http::{HeaderMap, HeaderName, Method, Uri};

use super::{Presented, Scheme, cache::Digest, dpop};
use crate::{connection, identity::Identity};

/// A token, and what it may be bound to or judged by.
// Not every kind of credential asks for all of it.
#[allow(dead_code)]
pub(crate) struct Facts {
    pub(crate) token: String,
    /// SHA-256 of the token.
    pub(crate) digest: Digest,
    pub(crate) scheme: Scheme,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    /// Those of [`KEPT`] alone, all values of each.
    pub(crate) headers: HeaderMap,
    /// What the layers outside verified: the peer's certificate.
    pub(crate) identity: Option<Identity>,
    /// The other end of the connection.
    pub(crate) address: Option<IpAddr>,
}

impl Facts {
    pub(crate) fn of(presented: &Presented<'_>, digest: Digest) -> Self {
        let mut headers = HeaderMap::new();
        for name in &KEPT {
            for value in presented.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        Self {
            token: presented.token.to_owned(),
            digest,
            scheme: presented.scheme,
            method: presented.method.clone(),
            uri: presented.uri.clone(),
            headers,
            identity: Identity::of(presented.extensions).cloned(),
            address: connection::peer_addr(presented.extensions).map(|address| address.ip()),
        }
    }
}

/// Hides the token.
impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts").field("method", &self.method).finish_non_exhaustive()
    }
}

/// The headers that a verification reads.
const KEPT: [HeaderName; 2] = [dpop::PROOF, http::header::HOST];

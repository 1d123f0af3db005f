//! The OAuth 2.0 resource server: which tokens hold.

mod builder;

use std::{sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};

pub use self::builder::ResourceServerBuilder;
use super::{
    CryptoBackend, DpopVerifier, Facts, IssuerHealth, Presented, Reason, TokenVerifier,
    cache::TokenCache,
    confirmation::{self, Enforced, Shown},
    introspection::Introspector,
    issuer::Trusted,
    service::Verdict,
    verification,
    verified::Basis,
};
use crate::{clock::Clock, future::ReadyOr};

/// Verifies access tokens of one or more issuers: JWTs (RFC 9068), and such as only their issuer understands (RFC
/// 7662). Cheap to clone.
///
/// What can be refused without cryptography is refused before it; whatever is wrong with the
/// issuer, the key or the signature gets one and the same answer.
#[derive(Clone, Debug)]
pub struct ResourceServer(Arc<Inner>);

/// What all verifications share.
#[derive(Debug)]
pub(crate) struct Inner {
    issuers: Vec<Trusted>,
    /// The place of the issuer that is asked about tokens that are no JWTs.
    pub(crate) opaque: Option<usize>,
    pub(crate) leeway: Duration,
    max_token_bytes: usize,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) crypto: CryptoBackend,
    pub(crate) cache: TokenCache,
    pub(crate) enforced: Enforced,
}

impl ResourceServer {
    /// A resource server without issuers, to be given one at least.
    pub fn builder() -> ResourceServerBuilder {
        ResourceServerBuilder::new()
    }

    /// Fetches the keys of every issuer whose keys are fetched and that has none yet, and returns when
    /// each attempt has ended, well or badly, within 15 seconds. From here on they are kept up in the
    /// background. Without this the first token does it, and waits.
    pub async fn warm_up(&self) {
        let flights: Vec<_> =
            self.0.issuers.iter().filter_map(|issuer| issuer.keys.warm_up()).collect();
        for flight in flights {
            flight.landed().await;
        }
    }

    /// How the keys of each issuer are doing, now. Asks nobody.
    #[must_use]
    pub fn health(&self) -> Vec<IssuerHealth> {
        self.0.issuers.iter().map(Trusted::health).collect()
    }
}

impl TokenVerifier for ResourceServer {
    /// A remembered token is answered at once, and without an allocation. Any other may be waited for.
    fn verify(&self, presented: &Presented<'_>) -> ReadyOr<Verdict> {
        let server = &self.0;
        if presented.token.len() > server.max_token_bytes {
            return ReadyOr::ready(Err(Reason::TooLong.error()));
        }
        let digest = Sha256::digest(presented.token).into();
        let remembered = server.cache.get(&digest);
        let Some(verified) = remembered.filter(|verified| verified.is_current(server)) else {
            let facts = Facts::of(presented, digest);
            return ReadyOr::pending(verification::verify(Arc::clone(server), facts));
        };
        let now = server.clock.unix();
        let shown = Shown::by(presented);
        let held = verified
            .recheck(server, now)
            .and_then(|()| server.enforced.confirm(&verified.binding, &shown, &digest, now));
        match held {
            Ok(None) => ReadyOr::ready(Ok(verified.user)),
            Ok(Some(first_use)) => ReadyOr::pending(async {
                let once = confirmation::used_once(first_use).await;
                once.map(|()| verified.user).map_err(Reason::error)
            }),
            Err(reason) => ReadyOr::ready(Err(reason.error())),
        }
    }

    fn dpop(&self) -> Option<&DpopVerifier> {
        self.0.enforced.dpop.as_ref()
    }

    fn remembers(&self, presented: &Presented<'_>) -> bool {
        let digest = Sha256::digest(presented.token).into();
        self.0.cache.get(&digest).is_some_and(|verified| match verified.basis {
            Basis::Keys { .. } => verified.is_current(&self.0),
            // One whose answer is old is asked about again. If it holds no more, it is forgotten.
            Basis::Answer { .. } => true,
        })
    }
}

impl Inner {
    /// The issuer of this name, and its place.
    pub(crate) fn issuer_of(&self, claim: Option<&str>) -> Result<(usize, &Trusted), Reason> {
        let claim = claim.ok_or(Reason::Malformed)?;
        let mut issuers = self.issuers.iter().enumerate();
        let found = issuers.find(|(_, issuer)| issuer.rules.issuer == claim);
        found.ok_or(Reason::Unverifiable)
    }

    pub(crate) fn issuer_at(&self, index: usize) -> Option<&Trusted> {
        self.issuers.get(index)
    }

    pub(crate) fn introspector_at(&self, index: usize) -> Option<&Introspector> {
        self.issuer_at(index)?.introspector.as_ref()
    }
}

/// Whether a token's form and signature hold under a key of the set, whatever it says: for published
/// test vectors, whose payloads are not claims.
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
#[must_use]
pub fn verify_signature(keys: &super::KeySet, token: &str, backend: CryptoBackend) -> bool {
    let verify = || {
        let compact = super::compact::Compact::split(token)?;
        let header = compact.header()?;
        compact.payload()?;
        let key = keys.choose(header.key_id.as_deref(), header.algorithm);
        let key = key.ok_or(Reason::Unverifiable)?;
        let signature = compact.signature()?;
        let holds = backend.verifies(header.algorithm, &key.material, compact.signed(), &signature);
        Ok::<_, Reason>(holds)
    };
    verify().unwrap_or(false)
}

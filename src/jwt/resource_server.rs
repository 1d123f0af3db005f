//! The OAuth 2.0 resource server: which tokens hold.

use std::{sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};

use super::{
    CertificateHolder, Confirmation, CryptoBackend, DpopOptions, DpopVerifier, Facts,
    IntrospectionClient, Issuer, IssuerHealth, KeySetFetch, Presented, Reason, TokenVerifier,
    cache::TokenCache,
    confirmation::{self, Enforced, Shown},
    introspection::Introspector,
    issuer::{Means, Trusted},
    service::Verdict,
    verification,
    verified::Basis,
};
use crate::{
    BuildError,
    clock::{Clock, SystemClock},
    future::ReadyOr,
};

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
        ResourceServerBuilder {
            issuers: Vec::new(),
            leeway: DEFAULT_LEEWAY,
            max_token_bytes: DEFAULT_MAX_TOKEN_BYTES,
            clock: Arc::new(SystemClock),
            crypto: CryptoBackend::compiled_in(),
            cache: DEFAULT_CACHE,
            fetch: None,
            introspection_client: None,
            confirmation: Confirmation::default(),
            holder: CertificateHolder::default(),
            dpop: None,
        }
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

/// Builds a [`ResourceServer`].
#[derive(Debug)]
#[must_use]
pub struct ResourceServerBuilder {
    issuers: Vec<Issuer>,
    leeway: Duration,
    max_token_bytes: usize,
    clock: Arc<dyn Clock>,
    crypto: Option<CryptoBackend>,
    cache: usize,
    fetch: Option<Arc<dyn KeySetFetch>>,
    introspection_client: Option<Arc<dyn IntrospectionClient>>,
    confirmation: Confirmation,
    holder: CertificateHolder,
    dpop: Option<DpopOptions>,
}

impl ResourceServerBuilder {
    /// Accepts this issuer's tokens. At least one is required.
    pub fn issuer(mut self, issuer: Issuer) -> Self {
        self.issuers.push(issuer);
        self
    }

    /// How far the issuers' clocks may be off. By default 30 seconds; at most 5 minutes.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// The longest token that is looked at, in bytes. By default 16 KiB.
    pub fn max_token_bytes(mut self, bytes: usize) -> Self {
        self.max_token_bytes = bytes;
        self
    }

    /// About how many verified tokens are remembered, at some 100 bytes each and their claims. A
    /// remembered token costs about a microsecond, one that is not the verification of a
    /// signature, 20 to 200 microseconds. By default 8192; 0 remembers none.
    pub fn token_cache(mut self, tokens: usize) -> Self {
        self.cache = tokens;
        self
    }

    /// The time. By default the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Whose code verifies signatures. By default aws-lc-rs where the feature is on, else
    /// RustCrypto.
    pub fn crypto(mut self, backend: CryptoBackend) -> Self {
        self.crypto = Some(backend);
        self
    }

    /// How keys are fetched. By default by `HttpFetch`, where the feature `http-client` is on.
    pub fn fetch(mut self, fetch: impl KeySetFetch) -> Self {
        self.fetch = Some(Arc::new(fetch));
        self
    }

    /// How issuers are asked about tokens. By default by `HttpFetch`, where the feature `http-client` is on.
    pub fn introspect_by(mut self, client: impl IntrospectionClient) -> Self {
        self.introspection_client = Some(Arc::new(client));
        self
    }

    /// What is done with tokens that are bound to a client certificate (RFC 8705), and with those
    /// that are bound to nothing. By default the former are refused and the latter accepted.
    pub fn confirmation(mut self, confirmation: Confirmation) -> Self {
        self.confirmation = confirmation;
        self
    }

    /// Whose certificate tokens are held against, where a proxy forwards those of its clients. By default that of
    /// whoever is at the other end of the connection.
    pub fn certificate_holder(mut self, holder: CertificateHolder) -> Self {
        self.holder = holder;
        self
    }

    /// Accepts tokens that are bound to a DPoP key (RFC 9449), from who proves to have it. By default
    /// they are refused.
    pub fn dpop(mut self, options: DpopOptions) -> Self {
        self.dpop = Some(options);
        self
    }

    /// The resource server. Fetches nothing.
    ///
    /// # Errors
    /// [`BuildError`] when there is no issuer, when two have the same name or are to be asked about tokens that are
    /// no JWTs, when one lacks an audience, usable keys or a way to fetch them or to ask, or wants to be asked
    /// anywhere but at `https://`, when the options of DPoP can't be meant, and when no signature backend is
    /// compiled in.
    pub fn build(self) -> Result<ResourceServer, BuildError> {
        let crypto = self.crypto.ok_or(BuildError::Missing(
            "a signature backend: one of the features aws-lc-rs and rust-crypto",
        ))?;
        if self.issuers.is_empty() {
            return Err(BuildError::Empty("issuers"));
        }
        if self.leeway > MAX_LEEWAY {
            return Err(BuildError::invalid("leeway", "more than 5 minutes"));
        }
        let fetch = match self.fetch {
            None if self.issuers.iter().any(Issuer::is_remote) => default_fetch()?,
            given => given,
        };
        let introspection_client = match self.introspection_client {
            None if self.issuers.iter().any(Issuer::is_introspected) => default_client()?,
            given => given,
        };
        let means = Means { fetch, introspection_client, clock: Arc::clone(&self.clock) };
        let build = |issuer: Issuer| issuer.build(&means);
        let issuers = self.issuers.into_iter().map(build).collect::<Result<Vec<_>, _>>()?;
        let name = |trusted: &Trusted| trusted.rules.issuer.clone();
        let names: std::collections::HashSet<String> = issuers.iter().map(name).collect();
        if names.len() < issuers.len() {
            return Err(BuildError::invalid("issuers", "two have the same name"));
        }
        let mut asked = issuers.iter().enumerate().filter(|(_, one)| one.introspector.is_some());
        let opaque = asked.next().map(|(index, _)| index);
        if asked.next().is_some() {
            return Err(BuildError::invalid("issuers", "two are to be asked about opaque tokens"));
        }
        let dpop = self.dpop.map(|dpop| dpop.build(Arc::clone(&self.clock), crypto, self.leeway));
        let (confirmation, holder) = (self.confirmation, self.holder);
        let enforced = Enforced { confirmation, holder, dpop: dpop.transpose()? };
        Ok(ResourceServer(Arc::new(Inner {
            issuers,
            opaque,
            leeway: self.leeway,
            max_token_bytes: self.max_token_bytes,
            clock: self.clock,
            crypto,
            cache: TokenCache::new(self.cache),
            enforced,
        })))
    }
}

#[cfg(feature = "http-client")]
fn default_fetch() -> Result<Option<Arc<dyn KeySetFetch>>, BuildError> {
    Ok(Some(Arc::new(super::HttpFetch::new()?)))
}

#[cfg(feature = "http-client")]
fn default_client() -> Result<Option<Arc<dyn IntrospectionClient>>, BuildError> {
    Ok(Some(Arc::new(super::HttpFetch::new()?)))
}

#[cfg(not(feature = "http-client"))]
fn default_client() -> Result<Option<Arc<dyn IntrospectionClient>>, BuildError> {
    Ok(None)
}

#[cfg(not(feature = "http-client"))]
fn default_fetch() -> Result<Option<Arc<dyn KeySetFetch>>, BuildError> {
    Ok(None)
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

const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);
const MAX_LEEWAY: Duration = Duration::from_secs(300);
const DEFAULT_MAX_TOKEN_BYTES: usize = 16 * 1024;
const DEFAULT_CACHE: usize = 8192;

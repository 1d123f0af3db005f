//! How a resource server is put together.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        CertificateHolder, Confirmation, CryptoBackend, DpopOptions, IntrospectionClient, Issuer,
        KeySetFetch,
        cache::TokenCache,
        confirmation::Enforced,
        issuer::{Means, Trusted},
    },
    Inner, ResourceServer,
};
use crate::{
    BuildError,
    clock::{Clock, SystemClock},
};

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
    pub(super) fn new() -> Self {
        Self {
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
    Ok(Some(Arc::new(super::super::HttpFetch::new()?)))
}

#[cfg(feature = "http-client")]
fn default_client() -> Result<Option<Arc<dyn IntrospectionClient>>, BuildError> {
    Ok(Some(Arc::new(super::super::HttpFetch::new()?)))
}

#[cfg(not(feature = "http-client"))]
fn default_client() -> Result<Option<Arc<dyn IntrospectionClient>>, BuildError> {
    Ok(None)
}

#[cfg(not(feature = "http-client"))]
fn default_fetch() -> Result<Option<Arc<dyn KeySetFetch>>, BuildError> {
    Ok(None)
}

const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);
const MAX_LEEWAY: Duration = Duration::from_secs(300);
const DEFAULT_MAX_TOKEN_BYTES: usize = 16 * 1024;
const DEFAULT_CACHE: usize = 8192;

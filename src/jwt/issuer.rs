//! One issuer of access tokens, and what its tokens must say.

use std::{mem, sync::Arc, time::Duration};

use super::{
    AccessTokenProfile, Algorithm, Introspection, IntrospectionClient, IssuerHealth, KeySet,
    KeySetFetch,
    claims::{Audience, Rules},
    discovery,
    introspection::Introspector,
    key_source::KeySource,
    remote_keys::{RemoteKeys, RemoteOptions},
};
use crate::{BuildError, Secret, clock::Clock};

/// An issuer whose tokens are accepted. Nothing of one issuer, keys least of all, serves for another.
#[derive(Debug)]
#[must_use]
pub struct Issuer {
    issuer: String,
    keys: Keys,
    introspection: Option<Introspection>,
    http_loopback: bool,
    refresh_interval: Duration,
    max_stale: Duration,
    audiences: Vec<String>,
    audience_claim: Vec<(String, String)>,
    required: Vec<String>,
    algorithms: Vec<Algorithm>,
    profile: AccessTokenProfile,
    max_lifetime: Duration,
    roles: String,
}

#[derive(Debug)]
enum Keys {
    Given(Result<KeySet, BuildError>),
    /// At this URL.
    At(String),
    /// Where the issuer's metadata say.
    Discovered,
    /// Nowhere.
    None,
}

/// What issuers are built with.
#[derive(Debug)]
pub(crate) struct Means {
    pub(crate) fetch: Option<Arc<dyn KeySetFetch>>,
    pub(crate) introspection_client: Option<Arc<dyn IntrospectionClient>>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// An [`Issuer`] that was found to make sense.
#[derive(Debug)]
pub(crate) struct Trusted {
    pub(crate) keys: KeySource,
    /// Who is asked about its tokens that are no JWTs, and about all where there are no keys.
    pub(crate) introspector: Option<Introspector>,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) rules: Rules,
}

impl Trusted {
    pub(crate) fn health(&self) -> IssuerHealth {
        let mut health = self.keys.health(&self.rules.issuer);
        health.unanswered = self.introspector.as_ref().map_or(0, |asked| asked.flights.failures());
        health
    }
}

impl Issuer {
    /// An issuer whose metadata say where its keys are: OpenID Connect Discovery, or RFC 8414. `issuer` is
    /// its URL, and must equal both the `iss` of its tokens and the `issuer` of the metadata to the byte,
    /// a trailing slash included.
    ///
    /// Nothing is fetched before the first token comes, or
    /// [`ResourceServer::warm_up`](super::ResourceServer::warm_up) asks for it, so the server starts while
    /// the issuer is down. Until there are keys its tokens get 503. Needs a way to fetch: the feature
    /// `http-client`, or [`ResourceServerBuilder::fetch`](super::ResourceServerBuilder::fetch).
    pub fn discover(issuer: impl Into<String>) -> Self {
        Self::new(issuer.into(), Keys::Discovered, Algorithm::DEFAULT.to_vec())
    }

    /// An issuer whose key set is at this URL, which may be another host than the issuer's: the one that is
    /// reached from inside a cluster, for one. Otherwise like [`discover`](Self::discover).
    pub fn jwks_uri(issuer: impl Into<String>, url: impl Into<String>) -> Self {
        Self::new(issuer.into(), Keys::At(url.into()), Algorithm::DEFAULT.to_vec())
    }

    /// An issuer with these keys. `issuer` must equal the `iss` of its tokens to the byte, a
    /// trailing slash included.
    pub fn jwks(issuer: impl Into<String>, keys: KeySet) -> Self {
        Self::new(issuer.into(), Keys::Given(Ok(keys)), Algorithm::DEFAULT.to_vec())
    }

    /// An issuer that signs with a shared secret, of at least the algorithm's hash length: 32, 48 or 64
    /// random bytes. `algorithm` is an `HS` one, and the only one accepted.
    pub fn secret(
        issuer: impl Into<String>,
        algorithm: Algorithm,
        secret: &Secret<Vec<u8>>,
    ) -> Self {
        let keys = KeySet::secret(None, algorithm, secret);
        Self::new(issuer.into(), Keys::Given(keys), vec![algorithm])
    }

    /// An issuer that is asked about every token of its own: those that are no JWTs, and JWTs whose `iss` it is. A
    /// token that it revoked counts no longer than [`max_age`](Introspection::max_age).
    pub fn introspected(issuer: impl Into<String>, introspection: Introspection) -> Self {
        Self::new(issuer.into(), Keys::None, Algorithm::DEFAULT.to_vec())
            .introspection(introspection)
    }

    /// Asks this issuer about tokens that are no JWTs, beside verifying its JWTs by its keys. By default such tokens
    /// are refused. Only one issuer of a server may be asked: nothing in the token says whose it is, and it is
    /// nobody else's to see.
    pub fn introspection(mut self, introspection: Introspection) -> Self {
        self.introspection = Some(introspection);
        self
    }

    /// Accepts tokens for this audience: their `aud` is it, or contains it. Required; said more than
    /// once, each of them is accepted. Use what names this API, never a client's `client_id`.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// Instead of `aud`, asks that another claim is exactly `value`: for issuers whose access tokens
    /// have no `aud`, such as Amazon Cognito (`client_id`). Said more than once, of the same claim, each value is
    /// accepted.
    pub fn audience_claim(mut self, claim: impl Into<String>, value: impl Into<String>) -> Self {
        self.audience_claim.push((claim.into(), value.into()));
        self
    }

    /// Asks that a claim is there, whatever it says: one that only this issuer's access tokens have, where nothing
    /// else tells them from its other tokens. By default those of the profile.
    pub fn require_claim(mut self, claim: impl Into<String>) -> Self {
        self.required.push(claim.into());
        self
    }

    /// The algorithms that tokens may be signed with. By default RS256, PS256, ES256 and EdDSA.
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.algorithms = algorithms.into_iter().collect();
        self
    }

    /// What the issuer's access tokens look like. By default as in RFC 9068.
    pub fn profile(mut self, profile: AccessTokenProfile) -> Self {
        self.profile = profile;
        self
    }

    /// The longest time from `iat`, or from now where there is none, to `exp`. By default 24 hours:
    /// until a token ends, a thief can use it.
    pub fn max_lifetime(mut self, max_lifetime: Duration) -> Self {
        self.max_lifetime = max_lifetime;
        self
    }

    /// The claim, by name or JSON pointer, whose list of strings becomes
    /// [`UserIdentity::roles`](crate::identity::UserIdentity::roles). By default `roles`, as in RFC 9068, section
    /// 2.2.3.1; Keycloak has `/realm_access/roles`, others `groups`.
    pub fn roles_from(mut self, claim: impl Into<String>) -> Self {
        self.roles = claim.into();
        self
    }

    /// The age at which keys that are fetched have been fetched anew: how long a key that the issuer
    /// withdrew still counts. By default 5 minutes; at least 1. A token that names a key which is not
    /// known has them fetched at once, 3 times and then every 10 seconds at most.
    pub fn refresh_interval(mut self, interval: Duration) -> Self {
        self.refresh_interval = interval;
        self
    }

    /// How old fetched keys may get while the issuer can't be reached. Past that its tokens get 503. By
    /// default an hour; at least the refresh interval.
    pub fn max_stale(mut self, max_stale: Duration) -> Self {
        self.max_stale = max_stale;
        self
    }

    /// Fetches and asks over plain HTTP too, at `localhost`, `127.0.0.0/8` and `[::1]` alone: for development, and
    /// for a sidecar. Whoever else listens on this machine may then choose the keys.
    pub fn insecure_http_loopback(mut self) -> Self {
        self.http_loopback = true;
        self
    }

    pub(crate) fn build(mut self, means: &Means) -> Result<Trusted, BuildError> {
        if self.issuer.is_empty() {
            return Err(BuildError::Missing("issuer"));
        }
        if self.algorithms.is_empty() {
            return Err(BuildError::Empty("algorithms"));
        }
        let url = match mem::replace(&mut self.keys, Keys::None) {
            Keys::None => return self.trusted(KeySource::None, means),
            Keys::Given(keys) => {
                let keys = keys?;
                if !keys.serves(&self.algorithms) {
                    return Err(BuildError::Empty(
                        "the set of keys that fit the issuer's algorithms",
                    ));
                }
                return self.trusted(KeySource::fixed(keys), means);
            }
            Keys::At(url) => Some(url),
            Keys::Discovered => None,
        };
        let options = RemoteOptions {
            issuer: self.issuer.clone(),
            url,
            algorithms: self.algorithms.clone(),
            http_loopback: self.http_loopback,
            refresh_interval: self.refresh_interval,
            max_stale: self.max_stale,
        };
        check_remote(&options)?;
        let fetch = means.fetch.as_ref().ok_or(BuildError::Missing(
            "a way to fetch keys: the feature http-client, or ResourceServerBuilder::fetch",
        ))?;
        let keys = RemoteKeys::new(options, Arc::clone(fetch), Arc::clone(&means.clock));
        self.trusted(KeySource::Remote(Arc::new(keys)), means)
    }

    /// Whether its keys are to be fetched.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.keys, Keys::At(_) | Keys::Discovered)
    }

    /// Whether it is to be asked about tokens.
    pub(crate) fn is_introspected(&self) -> bool {
        self.introspection.is_some()
    }

    fn trusted(self, keys: KeySource, means: &Means) -> Result<Trusted, BuildError> {
        let client = means.introspection_client.as_ref();
        let build = |asked: Introspection| asked.build(client, self.http_loopback);
        let introspector = self.introspection.map(build).transpose()?;
        let rules = Rules {
            audience: audience(self.audiences, self.audience_claim)?,
            required: self.required,
            issuer: self.issuer,
            profile: self.profile,
            max_lifetime: self.max_lifetime,
            roles: self.roles,
        };
        Ok(Trusted { keys, introspector, algorithms: self.algorithms, rules })
    }

    fn new(issuer: String, keys: Keys, algorithms: Vec<Algorithm>) -> Self {
        Self {
            issuer,
            keys,
            introspection: None,
            http_loopback: false,
            refresh_interval: DEFAULT_REFRESH_INTERVAL,
            max_stale: DEFAULT_MAX_STALE,
            audiences: Vec::new(),
            audience_claim: Vec::new(),
            required: Vec::new(),
            algorithms,
            profile: AccessTokenProfile::default(),
            max_lifetime: DEFAULT_MAX_LIFETIME,
            roles: "roles".into(),
        }
    }
}

fn check_remote(options: &RemoteOptions) -> Result<(), BuildError> {
    if options.algorithms.iter().any(|algorithm| algorithm.is_symmetric()) {
        return Err(BuildError::invalid("algorithms", "a shared secret is never fetched"));
    }
    if options.refresh_interval < MIN_REFRESH_INTERVAL {
        return Err(BuildError::invalid("refresh_interval", "less than a minute"));
    }
    if options.max_stale < options.refresh_interval {
        return Err(BuildError::invalid("max_stale", "less than the refresh interval"));
    }
    let (what, urls) = match &options.url {
        Some(url) => ("jwks_uri", vec![url.clone()]),
        None => {
            let wrong = |reason| BuildError::invalid("issuer", reason);
            ("issuer", discovery::locations(&options.issuer).map_err(wrong)?)
        }
    };
    for url in urls {
        let checked = discovery::check_url(&url, options.http_loopback);
        checked.map_err(|reason| BuildError::invalid(what, reason))?;
    }
    Ok(())
}

fn audience(audiences: Vec<String>, claims: Vec<(String, String)>) -> Result<Audience, BuildError> {
    let invalid = |reason| Err(BuildError::invalid("audience", reason));
    let is_empty = |(name, value): &(String, String)| name.is_empty() || value.is_empty();
    if audiences.iter().any(String::is_empty) || claims.iter().any(is_empty) {
        return Err(BuildError::Empty("audience"));
    }
    match (audiences.is_empty(), claims.first().map(|(name, _)| name.clone())) {
        (true, None) => Err(BuildError::Missing("audience")),
        (false, None) => Ok(Audience::Aud(audiences)),
        (false, Some(_)) => invalid("audience and audience_claim exclude each other"),
        (true, Some(name)) if claims.iter().all(|(other, _)| *other == name) => {
            Ok(Audience::Claim(name, claims.into_iter().map(|(_, value)| value).collect()))
        }
        (true, Some(_)) => invalid("audience_claim names two claims"),
    }
}

const DEFAULT_MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
const DEFAULT_REFRESH_INTERVAL: Duration = Duration::from_secs(5 * 60);
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(60);
const DEFAULT_MAX_STALE: Duration = Duration::from_secs(60 * 60);

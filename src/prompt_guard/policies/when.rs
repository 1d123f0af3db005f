//! Which requests a policy is for.

use http::Request;

use crate::{
    BuildError, connection,
    identity::{ClaimTest, Identity, PeerRule},
    reject::{Rejection, RejectionKind},
    route::{self, Endpoint},
};

/// Which requests a [`GuardPolicy`](super::GuardPolicy) is for: by what is asked, and by who asks.
///
/// ```
/// use palisade::{identity::PeerRule, prompt_guard::When, route::Endpoint};
///
/// let agents = When::all_of([
///     When::endpoint(Endpoint::OpenAiChat),
///     When::peer(PeerRule::spiffe("spiffe://prod.example/ns/agents/sa/runner")?),
/// ]);
/// let trusted = When::any_of([When::tier("enterprise"), When::scope("llm:raw"), When::claim("org", "acme")]);
/// let for_them = When::all_of([trusted, When::not(agents)]);
/// # Ok::<(), palisade::BuildError>(())
/// ```
///
/// What the layers outside have not found out is not guessed at: where the answer hangs on the caller and no
/// `JwtAuthLayer` was passed, on his tier without a `TieredRateLimitLayer`, or on the peer without a `PeerCertLayer`,
/// the request is refused with 500, and the order of the layers is logged. A caller without a token, where the layer
/// outside lets those pass, has no scope, role or claim.
#[derive(Clone, Debug)]
#[must_use]
pub struct When(Node);

#[derive(Clone, Debug)]
enum Node {
    Path(String),
    Prefix(String),
    Endpoint(Endpoint),
    Tier(String),
    Scope(String),
    Role(String),
    Claim(String, ClaimTest),
    Peer(PeerRule),
    All(Vec<When>),
    Any(Vec<When>),
    Not(Box<When>),
}

impl When {
    /// The path, or the router's pattern for it, ends in this: whole segments only, since everybody mounts at a prefix.
    ///
    /// A path that a server further on may read as another one (`/x/../chat`, `/%63hat`), so that it would and would not fit, is
    /// refused with 400, code `ambiguous_path`.
    pub fn path(suffix: impl Into<String>) -> Self {
        Self(Node::Path(suffix.into()))
    }

    /// The same of how the path begins: `/internal` fits `/internal/generate`, and not `/internals`.
    pub fn path_prefix(prefix: impl Into<String>) -> Self {
        Self(Node::Prefix(prefix.into()))
    }

    /// The request is for this endpoint.
    pub fn endpoint(endpoint: Endpoint) -> Self {
        Self(Node::Endpoint(endpoint))
    }

    /// `TieredRateLimitLayer` found the caller to be in this tier.
    pub fn tier(tier: impl Into<String>) -> Self {
        Self(Node::Tier(tier.into()))
    }

    /// The caller's token grants this scope. Case-sensitive.
    pub fn scope(scope: impl Into<String>) -> Self {
        Self(Node::Scope(scope.into()))
    }

    /// The caller has this role. Case-sensitive.
    pub fn role(role: impl Into<String>) -> Self {
        Self(Node::Role(role.into()))
    }

    /// A claim, by name (`org`) or by JSON pointer (`/realm_access/roles`), has this value, or stands the test.
    pub fn claim(claim: impl Into<String>, test: impl Into<ClaimTest>) -> Self {
        Self(Node::Claim(claim.into(), test.into()))
    }

    /// The rule fits the workload that calls. One for [`issuer_key_sha256`](PeerRule::issuer_key_sha256) fits only where
    /// `PeerCertLayer` verifies the path. No rule fits a name that nobody vouches for: see
    /// [`PeerIdentity`](crate::identity::PeerIdentity).
    pub fn peer(rule: PeerRule) -> Self {
        Self(Node::Peer(rule))
    }

    /// All of these hold.
    pub fn all_of(conditions: impl IntoIterator<Item = Self>) -> Self {
        Self(Node::All(conditions.into_iter().collect()))
    }

    /// One of these holds at least.
    pub fn any_of(conditions: impl IntoIterator<Item = Self>) -> Self {
        Self(Node::Any(conditions.into_iter().collect()))
    }

    /// This does not hold.
    #[allow(clippy::should_implement_trait)] // It stands beside `all_of` and `any_of`, and negates no value.
    pub fn not(condition: Self) -> Self {
        Self(Node::Not(Box::new(condition)))
    }

    /// Refuses what says nothing.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        const WHAT: &str = "condition of a guard policy";
        match &self.0 {
            Node::Path(path) | Node::Prefix(path) if path.trim_matches('/').is_empty() => {
                Err(BuildError::invalid(WHAT, "the path has no segment"))
            }
            Node::Prefix(path) if !path.starts_with('/') => {
                Err(BuildError::invalid(WHAT, "the beginning of a path is a slash"))
            }
            Node::Tier(name) | Node::Scope(name) | Node::Role(name) | Node::Claim(name, _)
                if name.is_empty() =>
            {
                Err(BuildError::invalid(WHAT, "a tier, scope, role or claim without a name"))
            }
            Node::Claim(_, test) if test.never_holds() => Err(BuildError::Empty(WHAT)),
            Node::All(list) | Node::Any(list) if list.is_empty() => Err(BuildError::Empty(WHAT)),
            Node::All(list) | Node::Any(list) => list.iter().try_for_each(Self::check),
            Node::Not(condition) => condition.check(),
            _ => Ok(()),
        }
    }

    /// Whether it holds. A refusal: that can't be told, and the answer hangs on it, whatever the order of the conditions.
    pub(crate) fn holds(
        &self,
        target: &RequestTarget<'_>,
        identity: &Identity,
    ) -> Result<bool, Rejection> {
        let holds = |when: &Self| when.holds(target, identity);
        match &self.0 {
            Node::Path(suffix) => target.fits(|path| route::ends_in_segments(path, suffix)),
            Node::Prefix(prefix) => target.fits(|path| route::begins_with_segments(path, prefix)),
            Node::Endpoint(endpoint) => Ok(target.endpoint == *endpoint),
            Node::Tier(tier) => identity.known_tier().map(|known| known == tier),
            Node::Scope(scope) => of_user(identity, |user| user.has_scope(scope)),
            Node::Role(role) => of_user(identity, |user| user.has_role(role)),
            Node::Claim(claim, test) => of_user(identity, |user| test.holds(user.claims(), claim)),
            Node::Peer(rule) => {
                identity.known_peer().map(|peer| peer.is_some_and(|peer| rule.matches(peer)))
            }
            Node::All(list) => any(list.iter().map(|when| Ok(!holds(when)?))).map(|not| !not),
            Node::Any(list) => any(list.iter().map(holds)),
            Node::Not(condition) => holds(condition).map(|holds| !holds),
        }
    }
}

/// Whether one holds at least. What can't be told counts only where none does.
fn any(answers: impl Iterator<Item = Result<bool, Rejection>>) -> Result<bool, Rejection> {
    let mut unknown = None;
    for answer in answers {
        match answer {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(rejection) => unknown = unknown.or(Some(rejection)),
        }
    }
    unknown.map_or(Ok(false), Err)
}

/// Nobody has nothing; where nobody was asked who calls, that can't be told.
fn of_user(
    identity: &Identity,
    holds: impl FnOnce(&crate::identity::UserIdentity) -> bool,
) -> Result<bool, Rejection> {
    match identity.known_user() {
        Ok(user) => Ok(holds(user)),
        Err(rejection) if rejection.kind() == RejectionKind::Unauthenticated => Ok(false),
        Err(rejection) => Err(rejection),
    }
}

/// What a request is for.
#[derive(Clone, Copy, Debug)]
pub struct RequestTarget<'a> {
    path: &'a str,
    pattern: Option<&'a str>,
    endpoint: Endpoint,
}

impl<'a> RequestTarget<'a> {
    pub(crate) fn of<B>(request: &'a Request<B>, endpoint: Endpoint) -> Self {
        let pattern = connection::matched_path(request.extensions());
        Self { path: request.uri().path(), pattern, endpoint }
    }

    /// The path as it came: not decoded, and within a nested router without the prefix.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The router's pattern for the path, of axum (feature `axum`).
    #[must_use]
    pub fn matched_path(&self) -> Option<&'a str> {
        self.pattern
    }

    /// The endpoint that the guard reads it as.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    fn fits(&self, fits: impl Fn(&str) -> bool) -> Result<bool, Rejection> {
        if self.pattern.is_some_and(&fits) {
            return Ok(true);
        }
        let given = fits(self.path);
        if route::readings(self.path).iter().all(|path| fits(path) == given) {
            return Ok(given);
        }
        Err(Rejection::new(
            RejectionKind::BadRequest,
            "ambiguous_path",
            "The path can be read as another one. Send it without dots, empty segments and percent signs.",
        ))
    }
}

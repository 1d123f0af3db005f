//! What tells whether a token holds: [`ResourceServer`](super::ResourceServer), or the application's own.

use std::{
    fmt::{self, Debug},
    sync::{Arc, LazyLock},
};

use http::{Extensions, HeaderMap, Method, Request, Uri};

use super::{DpopVerifier, dpop::Flaw};
use crate::{future::ReadyOr, identity::UserIdentity};

/// Tells whose an access token is. [`ResourceServer`](super::ResourceServer) is one; an application
/// that knows its tokens otherwise writes its own.
///
/// ```
/// use std::sync::Arc;
///
/// use palisade::{future::ReadyOr, identity::UserIdentity, jwt::{AuthError, Presented, TokenVerifier}, secret};
///
/// #[derive(Debug)]
/// struct OneKey;
///
/// impl TokenVerifier for OneKey {
///     fn verify(&self, presented: &Presented<'_>) -> ReadyOr<Result<Arc<UserIdentity>, AuthError>> {
///         let known = secret::constant_time_eq(presented.token.as_bytes(), b"a-long-random-key");
///         let user = || Arc::new(UserIdentity::asserted("https://llm.example", "ci"));
///         ReadyOr::ready(known.then(user).ok_or_else(AuthError::invalid_token))
///     }
/// }
/// ```
pub trait TokenVerifier: Debug + Send + Sync + 'static {
    /// Whose the token is. It is read during the call: what a pending answer needs of it, it owns.
    /// Dropping a pending answer must do no harm.
    fn verify(&self, presented: &Presented<'_>) -> ReadyOr<Result<Arc<UserIdentity>, AuthError>>;

    /// Whether the token held before and is remembered, so that verifying it costs next to nothing. Of
    /// a network that got too many tokens wrong, only such ones are verified: see
    /// [`throttle_failures`](super::JwtAuthLayerBuilder::throttle_failures). By default none is.
    fn remembers(&self, presented: &Presented<'_>) -> bool {
        let _ = presented;
        false
    }

    /// How DPoP proofs (RFC 9449) are asked for, by a verifier that checks them: one that hands
    /// tokens on to a [`ResourceServer`](super::ResourceServer) answers with what that one answers.
    /// By default none are, and the layer takes no token of the scheme `DPoP`.
    fn dpop(&self) -> Option<&DpopVerifier> {
        None
    }
}

#[deny(clippy::missing_trait_methods)]
impl<T: TokenVerifier + ?Sized> TokenVerifier for Arc<T> {
    fn verify(&self, presented: &Presented<'_>) -> ReadyOr<Result<Arc<UserIdentity>, AuthError>> {
        (**self).verify(presented)
    }

    fn remembers(&self, presented: &Presented<'_>) -> bool {
        (**self).remembers(presented)
    }

    fn dpop(&self) -> Option<&DpopVerifier> {
        (**self).dpop()
    }
}

#[deny(clippy::missing_trait_methods)]
impl<T: TokenVerifier + ?Sized> TokenVerifier for Box<T> {
    fn verify(&self, presented: &Presented<'_>) -> ReadyOr<Result<Arc<UserIdentity>, AuthError>> {
        (**self).verify(presented)
    }

    fn remembers(&self, presented: &Presented<'_>) -> bool {
        (**self).remembers(presented)
    }

    fn dpop(&self) -> Option<&DpopVerifier> {
        (**self).dpop()
    }
}

/// An access token, and the request that presents it: what a token may be bound to.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Presented<'a> {
    /// The token, as it stands in the request.
    pub token: &'a str,
    /// Under which scheme it stands there.
    pub scheme: Scheme,
    /// The request's method.
    pub method: &'a Method,
    /// The request's target, as this server sees it.
    pub uri: &'a Uri,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// What the server and the layers outside left: the connection, the peer's identity.
    pub extensions: &'a Extensions,
}

impl<'a> Presented<'a> {
    /// The token of a request, as a bearer token.
    #[must_use]
    pub fn by<B>(request: &'a Request<B>, token: &'a str) -> Self {
        Self {
            token,
            scheme: Scheme::Bearer,
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }

    /// The same under another scheme.
    #[must_use]
    pub fn with_scheme(self, scheme: Scheme) -> Self {
        Self { scheme, ..self }
    }

    /// A token without a request, which can be bound to nothing.
    #[must_use]
    pub fn alone(token: &'a str) -> Self {
        static NOTHING: LazyLock<Request<()>> = LazyLock::new(Request::default);
        Self::by(&NOTHING, token)
    }
}

/// Hides the token.
impl Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented").field("method", self.method).finish_non_exhaustive()
    }
}

/// How a request says that it presents an access token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// `Authorization: Bearer` (RFC 6750), or a header of its own: who has the token may use it.
    #[default]
    Bearer,
    /// `Authorization: DPoP` (RFC 9449): who has the token must also prove to have its key.
    Dpop,
}

/// Why a token was not accepted. Says nothing that the token's sender must not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{description}")]
pub struct AuthError {
    kind: AuthErrorKind,
    description: &'static str,
}

/// The kinds of [`AuthError`]: the error codes of RFC 6750, section 3.1, and of RFC 9449, and an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuthErrorKind {
    /// The request is malformed: 400. The caller's fault.
    InvalidRequest,
    /// The token is expired, forged, revoked, or not for this server: 401. The caller's fault.
    InvalidToken,
    /// The token holds, but does not grant this: 403. The caller's fault.
    InsufficientScope,
    /// The DPoP proof does not hold, or there is none: 401. The caller's fault.
    InvalidDpopProof,
    /// The DPoP proof needs the nonce that stands in the answer: 401. The client tries again with it.
    UseDpopNonce,
    /// Whether the token holds can't be told now: 503. Our fault.
    Unavailable,
}

impl AuthError {
    /// An error with a description for people, which the caller gets to see: one of a fixed list,
    /// never a part of the token.
    #[must_use]
    pub const fn new(kind: AuthErrorKind, description: &'static str) -> Self {
        Self { kind, description }
    }

    /// The token does not hold. This one answer for all reasons that an attacker could learn from.
    #[must_use]
    pub const fn invalid_token() -> Self {
        Reason::Unverifiable.error()
    }

    /// Whether the token holds can't be told now.
    #[must_use]
    pub const fn unavailable() -> Self {
        Reason::Unavailable.error()
    }

    /// Why.
    #[must_use]
    pub fn kind(&self) -> AuthErrorKind {
        self.kind
    }

    /// Why, for people.
    #[must_use]
    pub fn description(&self) -> &'static str {
        self.description
    }
}

/// Why a token was refused. All but `Unverifiable` and `Unavailable` can be read off the request itself, so
/// that telling them apart gives nothing away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Longer than the cap.
    TooLong,
    /// Not a JWS in compact form, or a member or claim is missing or of the wrong type.
    Malformed,
    /// The issuer, algorithm, key or signature: not told apart.
    Unverifiable,
    /// The `typ` or the claims are those of another kind of token.
    WrongType,
    /// For another audience.
    WrongAudience,
    /// Its issuer says that it does not hold.
    Inactive,
    /// Past `exp`.
    Expired,
    /// Before `nbf`, or issued in the future.
    NotYetValid,
    /// Valid for longer than allowed.
    TooLongLived,
    /// Bound to a key that is not checked.
    Bound,
    /// Bound to nothing, where it must be.
    Unbound,
    /// Bound to another certificate than the peer's, if it has one.
    WrongPeer,
    /// Bound to a DPoP key, and presented as a bearer token.
    DpopToken,
    /// Presented under the scheme DPoP, and not bound to a DPoP key.
    NoDpopToken,
    /// The DPoP proof does not hold.
    Proof(Flaw),
    /// It can't be told now.
    Unavailable,
}

impl Reason {
    pub(crate) const fn error(self) -> AuthError {
        let kind = match self {
            Self::Proof(flaw) => return flaw.error(),
            Self::Unavailable => AuthErrorKind::Unavailable,
            _ => AuthErrorKind::InvalidToken,
        };
        AuthError::new(kind, self.description())
    }

    const fn description(self) -> &'static str {
        match self {
            Self::TooLong => "The access token is too long.",
            Self::Malformed => "The access token is malformed or lacks a required claim.",
            Self::Unverifiable => "The access token cannot be verified.",
            Self::WrongType => "The token is not an access token.",
            Self::WrongAudience => "The access token is for another audience.",
            Self::Inactive => "The access token is not active.",
            Self::Expired => "The access token has expired.",
            Self::NotYetValid => "The access token is not valid yet.",
            Self::TooLongLived => "The access token is valid for too long.",
            Self::Bound => "The access token is bound to a key, which this server does not check.",
            Self::Unbound => "The access token is not bound to a key, as it must be here.",
            Self::WrongPeer => {
                "The access token is bound to a certificate that the peer has not shown."
            }
            Self::DpopToken => "The access token is bound to a key, and needs the scheme DPoP.",
            Self::NoDpopToken => "The access token is not bound to a key of DPoP.",
            Self::Proof(flaw) => flaw.description(),
            Self::Unavailable => "Access tokens cannot be verified at the moment.",
        }
    }
}

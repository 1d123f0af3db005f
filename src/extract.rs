//! What the layers left in a request, as arguments of axum handlers.
//!
//! ```
//! use palisade::{Identity, UsageMeter};
//!
//! async fn generate(identity: Identity, meter: Option<UsageMeter>, body: axum::body::Bytes) -> String {
//!     let subject = identity.user().map_or("nobody", |user| user.subject());
//!     format!("{subject} sent {} bytes, metered: {}", body.len(), meter.is_some())
//! }
//!
//! let app: axum::Router = axum::Router::new().route("/generate", axum::routing::post(generate));
//! ```
//!
//! A handler whose argument is not there, since its layer is not in the stack, answers with 500; an `Option` of it is `None`.
//!
//! [`User`] is the caller, and [`TypedClaims`] what the token says, as a type of the application's own:
//!
//! ```
//! use palisade::extract::{TypedClaims, User};
//!
//! #[derive(serde::Deserialize)]
//! struct Tenant {
//!     tenant: String,
//! }
//!
//! async fn generate(user: User, TypedClaims(claims): TypedClaims<Tenant>) -> String {
//!     format!("{} of {}", user.subject(), claims.tenant)
//! }
//!
//! let app: axum::Router = axum::Router::new().route("/generate", axum::routing::post(generate));
//! ```
//!
//! They answer a request of nobody, which `JwtAuthLayer` may be told to pass, with 401, and claims that don't fit
//! with 403. `Option<User>` is `None` for nobody.

use std::{convert::Infallible, ops::Deref, sync::Arc};

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header, request::Parts};

use crate::{
    Identity, Rejection, RejectionKind, Routes, UsageMeter,
    body::ResponseBody,
    identity::{self, UserIdentity},
    observe,
    reject::ErrorFormat,
};

/// What a handler asks for was not left by any layer.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct NotLeft {
    layer: &'static str,
}

impl NotLeft {
    /// The layer that is not in the stack.
    #[must_use]
    pub fn layer(self) -> &'static str {
        self.layer
    }
}

impl IntoResponse for NotLeft {
    fn into_response(self) -> Response {
        observe::error("extract", self.layer);
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

macro_rules! extractors {
    ($($type:ty, $layer:literal;)*) => {$(
        impl<S: Send + Sync> FromRequestParts<S> for $type {
            type Rejection = NotLeft;

            async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NotLeft> {
                Self::of(&parts.extensions).cloned().ok_or(NotLeft { layer: $layer })
            }
        }

        impl<S: Send + Sync> OptionalFromRequestParts<S> for $type {
            type Rejection = Infallible;

            async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
                Ok(Self::of(&parts.extensions).cloned())
            }
        }
    )*};
}

extractors! {
    Identity, "a handler takes an Identity, but no PeerCertLayer or JwtAuthLayer is in the stack";
    UsageMeter, "a handler takes a UsageMeter, but no TieredRateLimitLayer is in the stack";
}

/// The caller, for handlers that serve nobody else. Dereferences to [`UserIdentity`].
#[derive(Clone, Debug)]
pub struct User(Arc<UserIdentity>);

impl Deref for User {
    type Target = UserIdentity;

    fn deref(&self) -> &UserIdentity {
        &self.0
    }
}

/// What the caller's token says, as a type of the application's own: see
/// [`Claims::get`](crate::identity::Claims::get).
#[cfg(any(feature = "jwt", feature = "serde"))]
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::exhaustive_structs)] // A pattern, as axum's own extractors are.
pub struct TypedClaims<T>(pub T);

/// Why a handler that takes the caller was not called. The answer is that of a refusal in the format
/// problem+json, with its [`Rejection`] in its extensions.
#[derive(Clone, Debug)]
pub struct Refused(Rejection);

impl Refused {
    /// Why.
    #[must_use]
    pub fn rejection(&self) -> &Rejection {
        &self.0
    }

    fn new(rejection: Rejection) -> Self {
        let challenge = HeaderValue::from_static("Bearer");
        Self(match rejection.kind() {
            // RFC 9110, section 11.6.1: a 401 has a challenge.
            RejectionKind::Unauthenticated => {
                rejection.with_header(header::WWW_AUTHENTICATE, challenge)
            }
            _ => rejection,
        })
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let response: http::Response<ResponseBody<String>> =
            self.0.into_response("extract", ErrorFormat::Problem, &Routes::guard_all());
        response.into_response()
    }
}

fn user(parts: &Parts) -> Result<&Arc<UserIdentity>, Refused> {
    let identity = Identity::of(&parts.extensions).ok_or_else(identity::wrong_order);
    identity.and_then(Identity::known_user).map_err(Refused::new)
}

impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        user(parts).map(|user| Self(Arc::clone(user)))
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for User {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Refused> {
        match user(parts) {
            Ok(user) => Ok(Some(Self(Arc::clone(user)))),
            Err(refused) if refused.0.kind() == RejectionKind::Unauthenticated => Ok(None),
            Err(refused) => Err(refused),
        }
    }
}

#[cfg(any(feature = "jwt", feature = "serde"))]
impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequestParts<S> for TypedClaims<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let claims = user(parts)?.claims().get();
        claims.map(Self).map_err(|_| {
            let message = "The access token lacks a claim that is needed here.";
            Refused::new(Rejection::new(RejectionKind::Forbidden, "unfit_claims", message))
        })
    }
}

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

use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};

use crate::{Identity, UsageMeter, observe};

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

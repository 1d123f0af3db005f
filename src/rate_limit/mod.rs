//! `TieredRateLimitLayer`: how much a caller may use.
//!
//! A [`Tier`] is a set of limits: requests and tokens per second, minute or day, and requests at a time. All of a tier's
//! limits are decided at once: a request is admitted if every one has room, and a refused request uses up none.
//!
//! Tokens are reserved before the model is called and settled to what was really used. The layer
//! never reads the body. It admits on headers, with an estimate, and leaves a
//! [`UsageMeter`](crate::UsageMeter) in the request's extensions, through which `PromptGuardLayer` refines the estimate
//! when it has parsed the prompt, and a handler with an engine of its own reports what it uses. For any other handler the layer
//! reads the usage from the answer as it passes: JSON, event streams, headers, gRPC trailers.
//!
//! What a request pays, and when its slot is free again:
//!
//! | the request | tokens | the request itself |
//! |---|---|---|
//! | is answered to the end | what the handler reported, else what the answer states, else what was reserved | charged |
//! | is answered by a stream or a plain text that states nothing | as much, and no less than the prompt and what it streamed, by estimate | charged |
//! | is dropped mid-stream | the prompt and the output so far, or all that was reserved ([`keep_reservation_on_abort`]) | charged |
//! | is dropped before the head of its answer | what was reserved | charged |
//! | is answered, and the guard cuts the answer short | the prompt and what was let through | charged |
//! | is answered, and the guard withholds the answer | as if it had been let through | charged |
//! | leaves while it waits for its turn ([`fair`]) | none | charged |
//! | is refused for want of capacity, or broken off before its answer has begun | none | none |
//! | is blocked by the guard, or answered with 4xx | none | charged |
//! | is answered with 5xx, or the service fails | none | charged, or not ([`refund_failed_requests`]) |
//!
//! A slot is held until the last byte of the answer, its error, or its drop. A connection that becomes something else, a
//! WebSocket for one (101, or `CONNECT`), holds it for as long as its handler keeps the [`UsageMeter`](crate::UsageMeter).
//!
//! Each caller has a limit to himself, unless [`TierLimit::per`] says who shares it: his organisation, workload, network,
//! the tier, everybody, or a combination. Limits are kept under keyed hashes of verified facts. For most of them the caller
//! must have been identified, so `JwtAuthLayer` stands outside this layer; without it every request is refused with 500,
//! and the log says what the right order is.
//!
//! A limit that is the caller's own is answered with 429. One that all callers of the tier share is the server's
//! capacity, and is answered with 503; what is left of it is not told.
//!
//! Tokens need not all count the same: a [cost](TierLimit::cost) weighs them by kind and by model. And a limit may count
//! [only some models](TierLimit::only_models), or [each by itself](TierLimit::each_model); it is charged when the body was parsed
//! and the model is known.
//!
//! A limit can be tried on live traffic before it is enforced: a [shadow](TierLimit::shadow) counts what it would let
//! through, never refuses, and tells of what it would have refused.
//!
//! Limits alone do not keep one tier from slowing another: fifty accounts within theirs still fill an engine.
//! [`fair`] shares the engine's capacity between tiers, and a tier's share between its callers: a request that its limits admit
//! then waits for its turn ([`TieredRateLimitLayerBuilder::fair`]). If it is refused there, it is charged nothing; if its client
//! leaves while it waits, the request and no tokens.
//!
//! Tiers can be replaced while the server runs ([`TieredRateLimitLayer::replace_tiers`], or by a [file that is
//! watched](TieredRateLimitLayerBuilder::tiers_file)), and single callers can have one of
//! their own ([`TierOverrides`]). What was used is kept.
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use palisade::{
//!     identity::{Identity, UserIdentity},
//!     rate_limit::{Tier, TieredRateLimitLayer},
//!     store::Stores,
//! };
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let limits = TieredRateLimitLayer::builder(&Stores::in_memory())
//!     .tier("free", Tier::new().requests_per_minute(1).tokens_per_minute(10_000))
//!     .fallback_tier("free")
//!     .build()?;
//!
//! let service = ServiceBuilder::new().layer(limits).service_fn(|_: Request<String>| async {
//!     Ok::<_, std::convert::Infallible>(Response::new(String::from("an answer")))
//! });
//!
//! let request = || {
//!     let mut request = Request::post("/generate").body(String::new()).unwrap();
//!     // In the place of JwtAuthLayer.
//!     let user = UserIdentity::asserted("https://login.example", "alice");
//!     request.extensions_mut().insert(Identity::asserted(user));
//!     request
//! };
//! let first = service.clone().oneshot(request()).await?;
//! assert_eq!(first.status(), StatusCode::OK);
//! assert_eq!(first.headers()["x-ratelimit-remaining-requests"], "0");
//!
//! let second = service.oneshot(request()).await?;
//! assert_eq!(second.status(), StatusCode::TOO_MANY_REQUESTS);
//! assert_eq!(second.headers()["retry-after"], "60");
//! # Ok(())
//! # }
//! ```
//!
//! # What can break it
//! A proxy that buffers answers keeps slots taken after the client has left. Two server processes need a shared store
//! to share limits.
//!
//! [`keep_reservation_on_abort`]: TieredRateLimitLayerBuilder::keep_reservation_on_abort
//! [`refund_failed_requests`]: TieredRateLimitLayerBuilder::refund_failed_requests

mod body;
mod builder;
mod calendar;
mod cost;
pub mod fair;
#[cfg(feature = "serde")]
mod file;
mod future;
mod header_names;
mod headers;
mod layer;
mod limit;
mod models;
mod quota;
mod ready;
mod ready_tier;
mod refusal;
mod reservation;
mod scope;
mod service;
mod settlement;
mod shadow;
mod shares;
mod tier;
mod tiers;
mod unit;
mod window;

pub use self::{
    body::MeteredBody,
    builder::TieredRateLimitLayerBuilder,
    calendar::{Calendar, CalendarPeriod},
    cost::{CostTable, TokenWeights},
    future::TieredRateLimitFuture,
    headers::HeaderFamily,
    layer::TieredRateLimitLayer,
    limit::TierLimit,
    quota::Quota,
    scope::Scope,
    service::TieredRateLimit,
    tier::Tier,
    tiers::{PreparedTier, TierOverrides},
    window::Window,
};

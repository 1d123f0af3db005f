//! Tower layers that put zero trust in front of an LLM inference endpoint, inside the server's own
//! process.
//!
//! ```text
//! request  -> PeerCertLayer -> JwtAuthLayer -> TieredRateLimitLayer -> PromptGuardLayer -> model
//! response <-                     usage metering, output guard              <-
//! ```
//!
//! | layer | asks | leaves for those within |
//! |---|---|---|
//! | [`PeerCertLayer`](peer_cert) | from which workload: its client certificate | [`Identity::peer`] |
//! | [`JwtAuthLayer`](jwt) | who is calling: an access token | [`Identity::user`] |
//! | [`TieredRateLimitLayer`](rate_limit) | how much: requests, tokens, requests at a time | [`Identity::tier`], a [`UsageMeter`] |
//! | [`PromptGuardLayer`](prompt_guard) | what: the prompt, and the answer | a [`Verdict`](prompt_guard::Verdict) |
//!
//! Each is a feature and stands by itself. [`Stack`] puts them in their right order. A layer that
//! misses what an earlier one should have left refuses with 500, and logs what the right order is.
//!
//! # What all layers have in common
//! - **Any server.** They ask of the inner service that it is `Clone`, of bodies that their data is
//!   `Bytes`, and of errors nothing: the inner service's pass through. A refusal is an answer, with a
//!   [`Rejection`] in its extensions.
//! - **Everything is guarded** but what [`Routes`] exempts by name.
//! - **Refusals speak the caller's format**: that of the OpenAI, Anthropic or text-generation-inference
//!   API, problem+json (RFC 9457), or gRPC, told by the endpoint.
//! - **They fail closed.** What can't be checked is refused: with 401, 403, 413, 415 or 429 where it is
//!   the caller's doing, with 503 where it is ours. What weakens a check has `insecure` in its name.
//! - **Dropping is safe at every await**, and what was taken for a request is given back exactly once.
//! - **Nothing secret shows**: no token, key or prompt stands in a log, an error, a metric or `Debug`.
//!
//! # In a handler
//! A handler finds the verified [`Identity`] and the [`UsageMeter`] in the request's extensions, or takes
//! them as arguments ([`extract`], feature `axum`). One with an engine of its own reports what it
//! uses through the meter; for any other the usage is read from its answer.
//!
//! # Where to begin
//! The README has a server in thirty lines, and `examples/generate` is a whole one, with flags for
//! keys, tiers, Redis and TLS.

// With a layer left out, what it alone uses of the core is dead.
#![cfg_attr(not(feature = "full"), allow(dead_code, unused_imports))]
// And what its docs are linked from has nothing to link to.
#![cfg_attr(not(all(feature = "full", feature = "axum")), allow(rustdoc::broken_intra_doc_links))]

mod error;
mod observe;
mod outbound;
mod runtime;
mod stack;
mod sync;
mod watch;

pub mod body;
pub mod clock;
pub mod connection;
#[cfg(feature = "axum")]
pub mod extract;
pub mod future;
pub mod gate;
pub mod identity;
pub mod inference;
#[cfg(feature = "jwt")]
pub mod jwt;
pub mod network;
#[cfg(feature = "peer-cert")]
pub mod peer_cert;
#[cfg(feature = "prompt-guard")]
pub mod prompt_guard;
#[cfg(feature = "rate-limit")]
pub mod rate_limit;
pub mod reject;
pub mod reservation;
pub mod route;
pub mod secret;
pub mod store;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "trust")]
pub mod trust;

pub use crate::{
    error::{BoxError, BuildError},
    identity::Identity,
    reject::{Rejection, RejectionKind},
    reservation::UsageMeter,
    route::Routes,
    secret::Secret,
    stack::Stack,
};

/// The README's examples compile.
#[cfg(all(doctest, feature = "full"))]
#[doc = include_str!("../README.md")]
pub struct Readme;

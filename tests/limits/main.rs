//! What a limit of a tier can be: only counted, of weighted cost, of some models; and how callers are told of it.
#![cfg(all(feature = "rate-limit", feature = "metrics", feature = "serde", feature = "test-util"))]
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

mod cost;
mod engine;
mod families;
mod models;
mod shadow;
mod support;

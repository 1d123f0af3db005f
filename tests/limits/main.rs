//! What a limit of a tier can be: only counted, of weighted cost, of some models; and how callers are told of it.
#![cfg(all(feature = "rate-limit", feature = "metrics", feature = "serde", feature = "test-util"))]
#![allow(
    clippy::expect_used,
    clippy::future_not_send,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

mod cost;
mod engine;
mod families;
mod models;
mod redis;
#[path = "../support/mod.rs"]
mod servers;
mod shadow;
mod support;

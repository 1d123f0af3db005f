//! The promise of the remote detectors: they ask as the published APIs have it, believe only what these
//! answer, and when they can't tell, the policy says what happens.

#![cfg(test)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../support/mod.rs"]
mod harness;

mod classifier;
mod cli;
mod llama_guard;
mod moderation;
mod outages;
mod presidio;
mod support;

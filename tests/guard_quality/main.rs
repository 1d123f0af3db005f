//! What the guard's detectors find, what they leave alone, and what disguises do not hide.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]
// A binary of tests has no reader of its documentation.
#![allow(missing_docs)]

mod answers;
mod injection;
mod joined;
mod obfuscation;
mod personal_data;
mod secrets;
#[path = "../support/mod.rs"]
mod support;
mod vectors;

//! The promise of the guard's policies: who asks for what decides what is looked for and what is done, and a dry
//! run changes nothing.

#![cfg(test)]
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod choice;
mod dry_run;
mod file;
#[path = "../prompt_guard/support.rs"]
#[allow(dead_code, unreachable_pub)]
mod guarded;
#[path = "../jwt_support/mod.rs"]
mod jwt_support;
#[path = "../pki/mod.rs"]
mod pki;
mod support;

//! Fair admission as a server has it: who is let in, who waits, who is refused and how, and that nothing is ever left
//! behind.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod adaptive;
mod leaving;
mod metrics;
mod quotas;
mod refusals;
mod signals;
mod sockets;
mod support;
mod turns;
#[path = "../support/until.rs"]
mod until;
mod waiting;

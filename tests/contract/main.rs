//! What every layer keeps, whatever is built on it: the servers it runs in, what becomes of a
//! request that is dropped, that everything is settled exactly once.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod books;
mod cancellation;
#[path = "../support/credentials.rs"]
mod credentials;
mod misuse;
mod order;
mod readiness;
mod servers;
mod settlement;
mod support;
#[path = "../support/until.rs"]
mod until;

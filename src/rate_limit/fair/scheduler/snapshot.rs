//! How an engine's capacity stands.

use std::{sync::Arc, time::Duration};

/// How an engine's capacity stands at a moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// Requests that the engine takes at a time.
    pub slots: u64,
    /// Requests that run.
    pub in_use: u64,
    /// Tokens of prompts and granted answers that the engine takes at a time. `None`: any.
    pub tokens: Option<u64>,
    /// Tokens of the requests that run, of their prompts and granted answers.
    pub tokens_in_flight: u64,
    /// Tokens of prompts whose answers have not begun.
    pub prefill_pending: u64,
    /// Slots that nobody may borrow now.
    pub headroom: u64,
    /// How many requests the engine runs at a time, if it was found to run fewer than `slots`: the rest wait within it, where
    /// nothing is fair, and `slots` should be no more than this. Found by streamed answers, none of which begins before
    /// another ends.
    pub engine_slots: Option<u64>,
    /// How what may be borrowed is [adapted](crate::rate_limit::fair::FairAdmissionBuilder::adaptive). `None`: it is not.
    pub adaptive: Option<AdaptiveSnapshot>,
    /// The tiers, in the order in which they were added.
    pub tiers: Vec<TierSnapshot>,
}

/// How what may be borrowed stands at a moment, by how fast the engine is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AdaptiveSnapshot {
    /// Something is lent as long as fewer requests run in all. From zero to all slots.
    pub limit: u64,
    /// How long a token may take. `None`: it is not found yet.
    pub target: Option<Duration>,
    /// How long one took when that was last measured, on average.
    pub per_token: Option<Duration>,
    /// Windows so far in which nothing was lent, and the engine was still too slow: more is guaranteed than it can do.
    pub oversold: u64,
}

/// How a tier stands at a moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TierSnapshot {
    /// Its name.
    pub name: Arc<str>,
    /// Slots that are its own.
    pub guaranteed: u64,
    /// Its requests that run.
    pub in_use: u64,
    /// How many of those are more than its share.
    pub borrowed: u64,
    /// Tokens of its requests that run, of their prompts and granted answers.
    pub tokens_in_flight: u64,
    /// Tokens of its prompts whose answers have not begun.
    pub prefill_pending: u64,
    /// Its requests that wait, parked ones with them.
    pub waiting: u64,
    /// What is known of their sizes, in bytes.
    pub waiting_bytes: u64,
    /// For how long the one of them has waited that came first.
    pub oldest_wait: Duration,
    /// Requests that were let in so far.
    pub admitted: u64,
    /// Tokens that were used so far, of prompts and answers.
    pub served_tokens: u64,
    /// Requests that waited although their tier was below its share: what it has to itself is taken, by what it has
    /// lent, or too small for it.
    pub owners_waited: u64,
    /// Requests that were refused so far.
    pub refused: Refused,
    /// Running requests that were told so far to break off.
    pub revoked: u64,
    /// Running requests that the engine has parked so far.
    pub parked: u64,
}

/// Requests that were refused, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// There was no place in the queue, or it went to somebody with fewer requests in it.
    pub queue_full: u64,
    /// It was not let in in time, or could not have been.
    pub deadline: u64,
    /// Its prompt is longer than the tier's may be.
    pub prompt_too_long: u64,
    /// It has more tokens than the tier's share of them, and there were not as many to borrow.
    pub too_large: u64,
}

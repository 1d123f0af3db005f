//! Facts that are no limits.

use std::{fmt::Debug, time::Duration};

use super::{Key, StoreFuture};

/// Keeps facts that are no limits: used token ids, revocations, strikes.
pub trait FactStore: Debug + Send + Sync + 'static {
    /// Whether `key` is seen for the first time within `ttl`: true exactly once.
    ///
    /// # Errors
    /// When the store can't be asked, or is full: then nothing is known, and the caller refuses.
    fn first_use(&self, key: Key, ttl: Duration) -> StoreFuture<bool>;

    /// Keeps the larger of `value` and what is kept under `key`, for the longer of `ttl` and the time that is left of that:
    /// of several at a time none takes back what another has said. What is kept then.
    ///
    /// # Errors
    /// When the store can't be asked, or is full.
    fn raise(&self, key: Key, value: u64, ttl: Duration) -> StoreFuture<u64>;

    /// What is kept under `key`.
    ///
    /// # Errors
    /// When the store can't be asked.
    fn get(&self, key: Key) -> StoreFuture<Option<u64>>;

    /// Notes that `member` belongs to `key`, and counts how many different members do, within a
    /// `window` that begins with the first. Counts exactly up to `cap` and keeps no more.
    ///
    /// # Errors
    /// When the store can't be asked, or is full.
    fn distinct(&self, key: Key, member: Key, window: Duration, cap: u32) -> StoreFuture<Distinct>;
}

/// How many different members a key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Distinct {
    /// The count, at most the cap.
    pub count: u32,
    /// Whether there are more than the cap.
    pub saturated: bool,
    /// Whether this member was not there before. Unknown, and so false, beyond the cap.
    pub new: bool,
}

impl Distinct {
    /// A count.
    #[must_use]
    pub const fn new(count: u32, saturated: bool, new: bool) -> Self {
        Self { count, saturated, new }
    }
}

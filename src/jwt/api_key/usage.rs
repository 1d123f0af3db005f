//! When keys were used: two numbers a key.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// How a key was used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiKeyUse {
    /// The key's name.
    pub id: String,
    /// How often it was accepted.
    pub count: u64,
    /// When it was last accepted, in seconds since the Unix epoch.
    pub last_at: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Uses {
    count: AtomicU64,
    last_at: AtomicU64,
    /// How many of them are in the store too.
    written: AtomicU64,
}

impl Uses {
    pub(super) fn count(&self, now: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.last_at.store(now.as_secs(), Ordering::Relaxed);
    }

    pub(super) fn are_unwritten(&self) -> bool {
        self.count.load(Ordering::Relaxed) > self.written.load(Ordering::Relaxed)
    }

    /// How many uses are not in the store, which the caller sees to from now on, and when the last was.
    pub(super) fn take_unwritten(&self) -> (u64, u64) {
        let count = self.count.load(Ordering::Relaxed);
        let written = self.written.fetch_max(count, Ordering::Relaxed);
        (count.saturating_sub(written), self.last_at.load(Ordering::Relaxed))
    }

    /// Takes back what could not be written.
    pub(super) fn put_back(&self, count: u64) {
        self.written.fetch_sub(count, Ordering::Relaxed);
    }

    pub(super) fn told(&self, id: &str) -> ApiKeyUse {
        let count = self.count.load(Ordering::Relaxed);
        let last_at = (count > 0).then(|| self.last_at.load(Ordering::Relaxed));
        ApiKeyUse { id: id.to_owned(), count, last_at }
    }
}

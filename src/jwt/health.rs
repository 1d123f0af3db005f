//! How an issuer's keys are doing.

use std::time::Duration;

use super::KeySet;

/// How the keys of one issuer are doing: see [`ResourceServer::health`](super::ResourceServer::health).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerHealth {
    pub(crate) issuer: String,
    pub(crate) keys: usize,
    pub(crate) skipped: usize,
    pub(crate) age: Option<Duration>,
    pub(crate) failures: u32,
    pub(crate) last_error: Option<&'static str>,
    /// Whether its tokens are verified by keys.
    pub(crate) has_keys: bool,
    pub(crate) unanswered: u32,
}

impl IssuerHealth {
    /// Of keys that stay as they are, or of an issuer that has none and is asked.
    pub(crate) fn of(issuer: &str, keys: Option<&KeySet>) -> Self {
        Self {
            issuer: issuer.to_owned(),
            keys: keys.map_or(0, KeySet::len),
            skipped: keys.map_or(0, |keys| keys.skipped().len()),
            age: None,
            failures: 0,
            last_error: None,
            has_keys: keys.is_some(),
            unanswered: 0,
        }
    }

    /// The issuer.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether its tokens can be verified: there are keys, and they are not too old; or, of an issuer that is asked
    /// about all of its tokens, it answered when it was last asked.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        if self.has_keys { self.keys > 0 } else { self.unanswered == 0 }
    }

    /// How many keys can be used now.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// How many keys of the set were set aside, being of an unknown kind or weak.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// How long ago the keys were fetched. `None`: they never were, or need not be.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.age
    }

    /// How many fetches failed since the last one that did not.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// How many introspections got no answer since the last one that did.
    #[must_use]
    pub fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Why the last fetch failed, if it did.
    #[must_use]
    pub fn last_error(&self) -> Option<&'static str> {
        self.last_error
    }
}

//! Where an issuer's keys come from.

use std::{sync::Arc, time::Duration};

use super::{
    Algorithm, IssuerHealth, KeySet, Reason, key_flight::Awaited, remote_keys::RemoteKeys,
};

/// An issuer's keys.
#[derive(Debug)]
pub(crate) enum KeySource {
    /// None: the issuer is asked about its tokens.
    None,
    /// As they were given, for good.
    Fixed(Arc<HeldKeys>),
    /// As they were last fetched.
    Remote(Arc<RemoteKeys>),
}

/// A key set that is in use.
#[derive(Debug)]
pub(crate) struct HeldKeys {
    pub(crate) keys: KeySet,
    /// Counts the sets of this issuer that differed. What was verified by one set is verified again
    /// under the next, so that a key which was withdrawn takes its tokens with it.
    pub(crate) generation: u64,
    /// On the monotonic clock.
    pub(crate) fetched_at: Duration,
    /// SHA-256 of the text.
    pub(crate) digest: [u8; 32],
}

impl KeySource {
    pub(crate) fn fixed(keys: KeySet) -> Self {
        let held = HeldKeys { keys, generation: 0, fetched_at: Duration::ZERO, digest: [0; 32] };
        Self::Fixed(Arc::new(held))
    }

    /// Whether no token of the issuer is verified by a key.
    pub(crate) fn are_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether the keys of `generation` are still believed. Asked for every remembered token: neither
    /// waits, nor locks, nor allocates, but where it finds a refresh due.
    pub(crate) fn is_current(&self, generation: u64) -> bool {
        match self {
            Self::None => false,
            Self::Fixed(_) => true,
            Self::Remote(remote) => remote.is_current(generation),
        }
    }

    /// A set in which [`KeySet::choose`] finds a key for such a token.
    pub(crate) async fn keys_for(
        &self,
        key_id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<HeldKeys>, Reason> {
        match self {
            Self::None => Err(Reason::Unverifiable),
            Self::Fixed(held) => {
                let fits = held.keys.choose(key_id, algorithm).is_some();
                fits.then(|| Arc::clone(held)).ok_or(Reason::Unverifiable)
            }
            Self::Remote(remote) => remote.keys_for(key_id, algorithm).await,
        }
    }

    /// Has the keys fetched, if they never were.
    pub(crate) fn warm_up(&self) -> Option<Awaited> {
        match self {
            Self::None | Self::Fixed(_) => None,
            Self::Remote(remote) => remote.warm_up(),
        }
    }

    pub(crate) fn health(&self, issuer: &str) -> IssuerHealth {
        match self {
            Self::None => IssuerHealth::of(issuer, None),
            Self::Fixed(held) => IssuerHealth::of(issuer, Some(&held.keys)),
            Self::Remote(remote) => remote.health(issuer),
        }
    }
}

//! Tokens that were verified before, so that each pays for its signature once.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::Verified;

/// A set-associative cache: a token's hash names the one small set that it may stand in. A lookup
/// locks that set alone and allocates nothing; a flood of tokens replaces entries, never adds
/// memory. Only tokens that held get in.
pub(crate) struct TokenCache {
    sets: Box<[Mutex<Set>]>,
    ways: usize,
}

/// SHA-256 of the whole token: a shorter or keyed-by-claims key would let one token pass for
/// another (CVE-2026-35039).
pub(crate) type Digest = [u8; 32];

#[derive(Default)]
struct Set {
    entries: Vec<Entry>,
    /// Which entry goes next when all are live.
    hand: usize,
}

struct Entry {
    digest: Digest,
    verified: Verified,
}

impl TokenCache {
    /// For at most `capacity` tokens; none at all for 0.
    pub(crate) fn new(capacity: usize) -> Self {
        let ways = capacity.min(WAYS);
        let sets = capacity.checked_div(ways).unwrap_or(0);
        Self { sets: (0..sets).map(|_| Mutex::default()).collect(), ways }
    }

    /// What was found when the token was verified. Whether it still holds, it must be asked.
    pub(crate) fn get(&self, digest: &Digest) -> Option<Verified> {
        let set = self.set(digest)?.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = set.entries.iter().find(|entry| entry.digest == *digest)?;
        Some(entry.verified.clone())
    }

    /// Keeps a token that was verified, in the place of one that has expired if there is one.
    pub(crate) fn insert(&self, digest: Digest, verified: Verified, now: Duration) {
        let Some(set) = self.set(&digest) else { return };
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = Entry { digest, verified };
        let Set { entries, hand } = &mut *set;
        let replaceable = |old: &Entry| old.digest == digest || old.verified.times.have_passed(now);
        let slot = match entries.iter().position(replaceable) {
            Some(slot) => slot,
            None if entries.len() < self.ways => return entries.push(entry),
            None => {
                *hand = (*hand + 1) % self.ways;
                *hand
            }
        };
        if let Some(old) = entries.get_mut(slot) {
            *old = entry;
        }
    }

    /// Forgets a token.
    pub(crate) fn remove(&self, digest: &Digest) {
        let Some(set) = self.set(digest) else { return };
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        set.entries.retain(|entry| entry.digest != *digest);
    }

    fn set(&self, digest: &Digest) -> Option<&Mutex<Set>> {
        let (low, _) = digest.split_first_chunk()?;
        // Widening: 64 bits of the hash against a count that fits the memory.
        let index = (u64::from_le_bytes(*low)).checked_rem(self.sets.len() as u64)?;
        self.sets.get(usize::try_from(index).ok()?)
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenCache({} tokens)", self.sets.len() * self.ways)
    }
}

const WAYS: usize = 8;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::{
        super::{claims::Times, verified::Basis},
        *,
    };
    use crate::identity::UserIdentity;

    fn digest(token: u64) -> Digest {
        use sha2::Digest as _;
        sha2::Sha256::digest(token.to_le_bytes()).into()
    }

    fn verified(name: u64, expires_at: u64) -> Verified {
        let times = Times::read(json!({ "exp": expires_at }).as_object().unwrap()).unwrap();
        let user = Arc::new(UserIdentity::asserted("issuer", name.to_string()));
        let basis = Basis::Keys { generation: 0 };
        Verified { user, times, issuer: 0, basis, binding: Default::default() }
    }

    fn stored(cache: &TokenCache) -> usize {
        cache.sets.iter().map(|set| set.lock().unwrap().entries.len()).sum()
    }

    #[test]
    fn a_flood_of_tokens_adds_no_memory() {
        let cache = TokenCache::new(100);
        for token in 0..10_000 {
            cache.insert(digest(token), verified(token, 1000), Duration::ZERO);
        }
        assert!(stored(&cache) <= 100);
        // What was kept last is there.
        let kept = cache.get(&digest(9_999)).unwrap();
        assert_eq!(kept.user.subject(), "9999");
    }

    #[test]
    fn each_token_gets_its_own_user() {
        let cache = TokenCache::new(10_000);
        for token in 0..1_000 {
            cache.insert(digest(token), verified(token, 1000), Duration::ZERO);
        }
        for token in 0..1_000 {
            let found = cache.get(&digest(token)).unwrap();
            assert_eq!(found.user.subject(), token.to_string());
        }
        assert!(cache.get(&digest(1_000)).is_none());
    }

    #[test]
    fn expired_tokens_make_room_first() {
        let cache = TokenCache::new(8);
        for token in 0..8 {
            let end = if token == 5 { 10 } else { 1000 };
            cache.insert(digest(token), verified(token, end), Duration::ZERO);
        }
        cache.insert(digest(8), verified(8, 1000), Duration::from_secs(10));
        assert!(cache.get(&digest(5)).is_none());
        assert_eq!((0..9).filter(|token| cache.get(&digest(*token)).is_some()).count(), 8);
    }

    #[test]
    fn no_capacity_is_no_cache() {
        let cache = TokenCache::new(0);
        cache.insert(digest(1), verified(1, 1000), Duration::ZERO);
        assert!(cache.get(&digest(1)).is_none());
    }
}

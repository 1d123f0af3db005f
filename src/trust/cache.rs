//! Paths that were verified before, so that a certificate pays for its signatures once.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::path::{ChainDigest, VerifiedPath};

/// A set-associative cache: a chain's digest names the one small set that it may stand in. Only paths that held get in,
/// and a flood of them replaces entries, never adds memory.
pub(super) struct PathCache(Box<[Mutex<Vec<Entry>>]>);

struct Entry {
    digest: ChainDigest,
    path: Arc<VerifiedPath>,
}

impl PathCache {
    pub(super) fn new() -> Self {
        Self((0..SETS).map(|_| Mutex::default()).collect())
    }

    /// What was verified by `generation`, and holds at `now`, in seconds since the epoch.
    pub(super) fn get(
        &self,
        digest: &ChainDigest,
        generation: u64,
        now: u64,
    ) -> Option<Arc<VerifiedPath>> {
        let set = self.set(digest)?.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = set.iter().find(|entry| entry.digest == *digest)?;
        let holds = entry.path.generation == generation && entry.path.holds.contains(&now);
        holds.then(|| Arc::clone(&entry.path))
    }

    pub(super) fn insert(&self, digest: ChainDigest, path: Arc<VerifiedPath>) {
        let Some(set) = self.set(&digest) else { return };
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        set.retain(|entry| entry.digest != digest);
        if set.len() >= WAYS {
            // The oldest. Those of former generations are older than all of this one.
            set.remove(0);
        }
        set.push(Entry { digest, path });
    }

    fn set(&self, digest: &ChainDigest) -> Option<&Mutex<Vec<Entry>>> {
        let [low, high, ..] = digest.0;
        self.0.get(usize::from(u16::from_le_bytes([low, high])) % SETS)
    }
}

impl fmt::Debug for PathCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PathCache({} paths)", SETS * WAYS)
    }
}

/// Together they hold 4096 paths.
const SETS: usize = 512;
const WAYS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn path(generation: u64) -> Arc<VerifiedPath> {
        let issuer_keys_sha256 = Vec::new();
        Arc::new(VerifiedPath {
            issuer_keys_sha256,
            vouches_for_names: true,
            expires_at: 20,
            generation,
            holds: 10..=20,
        })
    }

    #[test]
    fn a_path_holds_for_its_time_and_generation() {
        let cache = PathCache::new();
        let digest = ChainDigest::of(None, b"leaf", &[]);
        cache.insert(digest, path(1));
        let found = |generation, now| cache.get(&digest, generation, now).is_some();
        assert!(found(1, 10) && found(1, 20));
        assert!(!found(1, 9) && !found(1, 21), "a success does not outlive what it rests on");
        assert!(!found(2, 15));
        cache.insert(digest, path(2));
        assert!(found(2, 15) && !found(1, 15));
    }

    #[test]
    fn attack_30_it_is_bounded_and_keyed_by_the_whole_chain() {
        let cache = PathCache::new();
        for leaf in 0..20_000_u32 {
            cache.insert(ChainDigest::of(None, &leaf.to_le_bytes(), &[]), path(1));
        }
        let held: usize = cache.0.iter().map(|set| set.lock().unwrap().len()).sum();
        assert!(held <= SETS * WAYS, "{held}");
        let digests = [
            ChainDigest::of(None, b"ab", &[]),
            ChainDigest::of(None, b"a", &[b"b".as_slice().into()]),
            ChainDigest::of(None, b"ab", &[b"".as_slice().into()]),
            ChainDigest::of(Some(""), b"ab", &[]),
            ChainDigest::of(Some("a"), b"b", &[]),
        ];
        for (index, digest) in digests.iter().enumerate() {
            assert!(digests.iter().skip(index + 1).all(|other| other != digest));
        }
    }
}

//! A store's last answers: a bounded copy, each with its age.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::store::Key;

/// A set-associative map: a key names the one small set that it may stand in. What is pushed out is
/// asked for again.
pub(crate) struct Replica<V> {
    sets: Box<[Mutex<Vec<Answer<V>>>]>,
}

struct Answer<V> {
    key: Key,
    value: V,
    asked_at: Duration,
    renewed_at: Duration,
}

/// What an answer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing<V> {
    /// It counts.
    Fresh(V),
    /// It counts, and the caller is the one to ask for a newer one.
    Ageing(V),
    /// There is none, or none that is new enough.
    Unknown,
}

impl<V: Clone> Replica<V> {
    /// For about so many answers, and one at least.
    pub(crate) fn new(answers: usize) -> Self {
        let sets = answers.div_ceil(WAYS).max(1);
        Self { sets: (0..sets).map(|_| Mutex::default()).collect() }
    }

    /// As large, with nothing in it.
    pub(crate) fn emptied(&self) -> Self {
        Self::new(self.sets.len() * WAYS)
    }

    pub(crate) fn get(&self, key: Key, now: Duration, staleness: Duration) -> Standing<V> {
        let Some(mut set) = self.set(&key) else { return Standing::Unknown };
        let Some(answer) = set.iter_mut().find(|answer| answer.key == key) else {
            return Standing::Unknown;
        };
        if now.saturating_sub(answer.asked_at) >= staleness {
            return Standing::Unknown;
        }
        // One asks, and if it does not succeed, another a little later.
        let ageing = now.saturating_sub(answer.asked_at) >= staleness / 2
            && now.saturating_sub(answer.renewed_at) >= staleness / 8;
        if !ageing {
            return Standing::Fresh(answer.value.clone());
        }
        answer.renewed_at = now;
        Standing::Ageing(answer.value.clone())
    }

    /// Keeps an answer, unless one to a later question is there.
    pub(crate) fn put(&self, key: Key, value: V, asked_at: Duration) {
        let Some(mut set) = self.set(&key) else { return };
        let new = Answer { key, value, asked_at, renewed_at: Duration::ZERO };
        if let Some(old) = set.iter_mut().find(|answer| answer.key == key) {
            if old.asked_at <= asked_at {
                *old = new;
            }
        } else if set.len() < WAYS {
            set.push(new);
        } else if let Some(oldest) = set.iter_mut().min_by_key(|answer| answer.asked_at) {
            *oldest = new;
        }
    }

    /// The last answer, however old. Does not count as a look that renews it.
    pub(crate) fn last(&self, key: Key) -> Option<V> {
        let set = self.set(&key)?;
        set.iter().find(|answer| answer.key == key).map(|answer| answer.value.clone())
    }

    /// Forgets an answer, unless it is to a later question.
    pub(crate) fn remove(&self, key: Key, asked_at: Duration) {
        if let Some(mut set) = self.set(&key) {
            set.retain(|answer| answer.key != key || answer.asked_at > asked_at);
        }
    }

    fn set(&self, key: &Key) -> Option<MutexGuard<'_, Vec<Answer<V>>>> {
        let (low, _) = key.as_bytes().split_first_chunk()?;
        let index = u64::from_le_bytes(*low).checked_rem(self.sets.len() as u64)?;
        let set = self.sets.get(usize::try_from(index).ok()?)?;
        Some(set.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<V> fmt::Debug for Replica<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replica({} answers)", self.sets.len() * WAYS)
    }
}

const WAYS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(number: u64) -> Key {
        crate::store::Pepper::from_secret("x").key("test").with(&number.to_le_bytes()).finish()
    }

    #[test]
    fn an_answer_is_renewed_by_one_before_it_is_too_old() {
        let replica = Replica::new(8);
        let get = |at: u32| replica.get(key(1), SECOND * at, SECOND * 8);
        assert_eq!(get(0), Standing::Unknown);
        replica.put(key(1), Some(5), SECOND);
        assert_eq!(get(4), Standing::Fresh(Some(5)));
        assert_eq!(get(5), Standing::Ageing(Some(5)));
        assert_eq!(get(5), Standing::Fresh(Some(5)), "only one asks");
        assert_eq!(get(6), Standing::Ageing(Some(5)), "and another, since nothing came of it");
        assert_eq!(get(9), Standing::Unknown);
    }

    #[test]
    fn a_late_answer_does_not_undo_a_newer_one() {
        let replica = Replica::new(8);
        replica.put(key(1), Some(1), SECOND * 3);
        replica.put(key(1), None, SECOND * 2);
        assert_eq!(replica.get(key(1), SECOND * 3, SECOND), Standing::Fresh(Some(1)));
    }

    #[test]
    fn what_is_removed_is_asked_for_again_unless_it_is_newer() {
        let replica = Replica::new(8);
        replica.put(key(1), Some(1), SECOND * 3);
        replica.remove(key(1), SECOND * 2);
        assert_eq!(replica.last(key(1)), Some(Some(1)));
        replica.remove(key(1), SECOND * 3);
        assert_eq!(replica.last(key(1)), None);
    }

    #[test]
    fn a_flood_adds_no_memory_and_pushes_out_the_oldest() {
        let replica = Replica::<Option<u64>>::new(16);
        for number in 0..1000 {
            replica.put(key(number), None, SECOND);
        }
        let kept: usize = replica.sets.iter().map(|set| set.lock().unwrap().len()).sum();
        assert!(kept <= 16);
        assert_eq!(replica.get(key(999), SECOND, SECOND), Standing::Fresh(None));
        assert_eq!(replica.get(key(1), SECOND, Duration::ZERO), Standing::Unknown);
    }
}

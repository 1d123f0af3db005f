//! A map from keys to entries, swept a few entries at a time.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use crate::store::Key;

/// Keys are keyed hashes already: their own bytes are the hash.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeyBytes(u64);

pub(super) type ByKeyBytes = BuildHasherDefault<KeyBytes>;

impl Hasher for KeyBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk() {
            self.0 = u64::from_le_bytes(*last);
        }
    }

    // The length of a key, always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Entries side by side, and an index of them, so that a cursor can walk round.
#[derive(Debug)]
pub(super) struct Table<T> {
    index: HashMap<Key, u32, ByKeyBytes>,
    entries: Vec<(Key, T)>,
    cursor: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { index: HashMap::default(), entries: Vec::new(), cursor: 0 }
    }
}

impl<T> Table<T> {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The place of an entry: good until the next `sweep`.
    pub(super) fn find(&self, key: &Key) -> Option<u32> {
        self.index.get(key).copied()
    }

    pub(super) fn at(&self, place: u32) -> Option<&T> {
        self.entries.get(place as usize).map(|(_, entry)| entry)
    }

    pub(super) fn at_mut(&mut self, place: u32) -> Option<&mut T> {
        self.entries.get_mut(place as usize).map(|(_, entry)| entry)
    }

    pub(super) fn get(&self, key: &Key) -> Option<&T> {
        self.find(key).and_then(|place| self.at(place))
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut T> {
        self.find(key).and_then(|place| self.at_mut(place))
    }

    /// The entry of `key`, a new one if there is none.
    pub(super) fn entry(&mut self, key: Key, new: impl FnOnce() -> T) -> Option<&mut T> {
        let place = match self.find(&key) {
            Some(place) => place,
            None => {
                let place = u32::try_from(self.entries.len()).ok()?;
                self.entries.push((key, new()));
                self.index.insert(key, place);
                place
            }
        };
        self.at_mut(place)
    }

    /// Looks at the next `steps` entries and removes those that are `idle`. Returns what was removed.
    pub(super) fn sweep(
        &mut self,
        steps: usize,
        idle: impl Fn(&T) -> bool,
        mut removed: impl FnMut(T),
    ) {
        for _ in 0..steps.min(self.entries.len()) {
            if self.cursor >= self.entries.len() {
                self.cursor = 0;
            }
            match self.entries.get(self.cursor) {
                Some((_, entry)) if idle(entry) => removed(self.remove_at_cursor()),
                _ => self.cursor += 1,
            }
        }
    }

    fn remove_at_cursor(&mut self) -> T {
        let (key, entry) = self.entries.swap_remove(self.cursor);
        self.index.remove(&key);
        if let Some((moved, _)) = self.entries.get(self.cursor)
            && let Some(place) = self.index.get_mut(moved)
        {
            // As many entries as `u32` has were never admitted.
            *place = self.cursor as u32;
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_removes_the_idle_and_keeps_the_index_right() {
        let key = |n: u8| Key::from_bytes([n; 16]);
        let mut table = Table::default();
        for n in 0..100_u8 {
            table.entry(key(n), || n);
        }
        for _ in 0..10 {
            table.sweep(25, |n| n % 3 != 0, |_| {});
        }
        assert_eq!(table.len(), 34);
        for n in 0..100 {
            assert_eq!(table.get(&key(n)).copied(), (n % 3 == 0).then_some(n));
        }
    }
}

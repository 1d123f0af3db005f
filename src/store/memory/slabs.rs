//! Records side by side, each as wide as its limits need, and an index of them.

use std::num::NonZeroU32;

use super::record::{self, HEAD, Record};
use crate::store::{Key, MAX_CHARGES};

/// All records of a shard. Those with as many limits are in one slab, so that a cursor can walk round.
#[derive(Debug)]
pub(super) struct Slabs {
    /// By the number of their limits, less one.
    slabs: [Slab; MAX_CHARGES],
    index: Index,
    cursor: Place,
}

/// Where a record is, good until one is removed or grows: three bits of the slab, and the place in it, counted from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(NonZeroU32);

impl Place {
    /// There are at most `MOST` places in a slab.
    pub(super) const fn new(slab: usize, at: usize) -> Self {
        let bits = (slab as u32) << PLACE_BITS | at as u32;
        Self(NonZeroU32::MIN.saturating_add(bits))
    }

    const fn bits(self) -> u32 {
        self.0.get() - 1
    }

    const fn slab(self) -> usize {
        (self.bits() >> PLACE_BITS) as usize
    }

    const fn at(self) -> usize {
        (self.bits() & MOST as u32) as usize
    }
}

/// Records of one width, in chunks, so that a shard that grows has little room to spare and moves nothing.
#[derive(Debug, Default)]
struct Slab {
    chunks: Vec<Box<[u32]>>,
    len: usize,
}

/// Finds places by keys: open addressing with linear probing. A key is a keyed hash already.
#[derive(Debug, Default)]
struct Index {
    /// Zero, or eight bits of the hash and the place.
    slots: Vec<u32>,
    len: usize,
}

impl Default for Slabs {
    fn default() -> Self {
        let slabs = std::array::from_fn(|_| Slab::default());
        Self { slabs, index: Index::default(), cursor: Place::new(0, 0) }
    }
}

impl Slabs {
    pub(super) fn len(&self) -> usize {
        self.index.len
    }

    pub(super) fn find(&self, key: &Key) -> Option<Place> {
        let hash = hash(key);
        self.index.at(hash, |place| self.is_at(place, key)).map(|(_, place)| place)
    }

    /// The record at a place.
    pub(super) fn at(&mut self, place: Place) -> Option<Record<'_>> {
        let width = width(place.slab());
        self.slabs.get_mut(place.slab())?.words_mut(place.at(), width).map(Record)
    }

    /// A new record of `key`, which has none, with room for so many limits.
    pub(super) fn add(&mut self, key: &Key, limits: usize) -> Option<Place> {
        let slab = limits.clamp(1, MAX_CHARGES) - 1;
        let at = self.slabs.get_mut(slab)?.push(width(slab))?;
        let place = Place::new(slab, at);
        self.at(place)?.begin(key);
        self.reindex_if_full();
        self.index.add(hash(key), place);
        Some(place)
    }

    /// Moves the record of `key` to where it has room for one more limit.
    pub(super) fn grow(&mut self, key: &Key) -> Option<Place> {
        let old = self.find(key)?;
        let mut words = [0; record::WIDEST];
        let kept = self.at(old)?;
        words.get_mut(..kept.0.len())?.copy_from_slice(kept.0);
        let slab = old.slab() + 1;
        let at = self.slabs.get_mut(slab)?.push(width(slab))?;
        self.remove(old);
        let place = Place::new(slab, at);
        let new = self.at(place)?;
        let len = new.0.len();
        new.0.copy_from_slice(words.get(..len)?);
        self.index.add(hash(key), place);
        Some(place)
    }

    /// Looks at the next `steps` records and removes those that are `idle`.
    pub(super) fn sweep(&mut self, steps: usize, now: u64) {
        for _ in 0..steps.min(self.len()) {
            for _ in 0..=MAX_CHARGES {
                let (slab, at) = (self.cursor.slab(), self.cursor.at());
                if self.slabs.get(slab).is_some_and(|slab| at < slab.len) {
                    break;
                }
                self.cursor = Place::new((slab + 1) % MAX_CHARGES, 0);
            }
            let cursor = self.cursor;
            if self.at(cursor).is_some_and(|record| record.is_idle(now)) {
                self.remove(cursor);
            } else {
                self.cursor = Place::new(cursor.slab(), cursor.at() + 1);
            }
        }
    }

    /// Removes a record. The last of its slab takes its place.
    fn remove(&mut self, place: Place) {
        let Some(key) = self.at(place).map(|record| record.key()) else { return };
        let Some(slab) = self.slabs.get(place.slab()) else { return };
        let last = Place::new(place.slab(), slab.len - 1);
        self.unindex(&key, place);
        let mut words = [0; record::WIDEST];
        let Some(moved) = self.at(last) else { return };
        let (width, moved_key) = (moved.0.len(), moved.key());
        if let Some(words) = words.get_mut(..width) {
            words.copy_from_slice(moved.0);
        }
        if last != place {
            if let (Some(record), Some(words)) = (self.at(place), words.get(..width)) {
                record.0.copy_from_slice(words);
            }
            self.index.replace(hash(&moved_key), last, place);
        }
        if let Some(slab) = self.slabs.get_mut(place.slab()) {
            slab.len -= 1;
            slab.chunks.truncate(slab.len.div_ceil(CHUNK) + 1);
        }
    }

    /// Takes an entry out of the index, and moves those up that it kept from their homes.
    fn unindex(&mut self, key: &Key, place: Place) {
        let Some((mut hole, _)) = self.index.at(hash(key), |it| it == place) else { return };
        let mask = self.index.slots.len() - 1;
        let mut next = (hole + 1) & mask;
        while let Some(slot) = self.index.slots.get(next).copied().filter(|slot| *slot != 0) {
            let Some(home) = self.hash_at(unpack(slot)).map(|hash| home(hash, mask)) else { break };
            // Whether the hole lies between its home and where it is.
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(hole) & mask) {
                self.index.set(hole, slot);
                hole = next;
            }
            next = (next + 1) & mask;
        }
        self.index.set(hole, 0);
        self.index.len -= 1;
    }

    /// Doubles the index when seven eighths of it are taken.
    fn reindex_if_full(&mut self) {
        let slots = self.index.slots.len();
        if (self.index.len + 1) * 8 <= slots * 7 {
            return;
        }
        let old = std::mem::take(&mut self.index);
        self.index.slots = vec![0; (slots * 2).max(8)];
        for slot in old.slots.into_iter().filter(|slot| *slot != 0) {
            let place = unpack(slot);
            if let Some(hash) = self.hash_at(place) {
                self.index.add(hash, place);
            }
        }
    }

    fn words(&self, place: Place) -> Option<&[u32]> {
        self.slabs.get(place.slab())?.words(place.at(), width(place.slab()))
    }

    fn is_at(&self, place: Place, key: &Key) -> bool {
        self.words(place).is_some_and(|words| record::is_of(words, key))
    }

    fn hash_at(&self, place: Place) -> Option<u64> {
        self.words(place).map(|words| hash(&record::key(words)))
    }
}

impl Slab {
    fn words(&self, at: usize, width: usize) -> Option<&[u32]> {
        let from = at % CHUNK * width;
        self.chunks.get(at / CHUNK)?.get(from..from + width)
    }

    fn words_mut(&mut self, at: usize, width: usize) -> Option<&mut [u32]> {
        let from = at % CHUNK * width;
        self.chunks.get_mut(at / CHUNK)?.get_mut(from..from + width)
    }

    /// The place of one more. `None` when there are as many as the index can tell apart.
    fn push(&mut self, width: usize) -> Option<usize> {
        if self.len >= MOST {
            return None;
        }
        if self.len == self.chunks.len() * CHUNK {
            self.chunks.push(vec![0; CHUNK * width].into_boxed_slice());
        }
        self.len += 1;
        Some(self.len - 1)
    }
}

impl Index {
    /// The slot and the place of the first entry with that hash which `is` it.
    fn at(&self, hash: u64, is: impl Fn(Place) -> bool) -> Option<(usize, Place)> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = home(hash, mask);
        loop {
            let slot = self.slots.get(at).copied().filter(|slot| *slot != 0)?;
            if slot >> 24 == tag(hash) && is(unpack(slot)) {
                return Some((at, unpack(slot)));
            }
            at = (at + 1) & mask;
        }
    }

    /// There is a free slot: an eighth of them is.
    fn add(&mut self, hash: u64, place: Place) {
        let mask = self.slots.len() - 1;
        let mut at = home(hash, mask);
        while self.slots.get(at).is_some_and(|slot| *slot != 0) {
            at = (at + 1) & mask;
        }
        self.set(at, pack(hash, place));
        self.len += 1;
    }

    fn replace(&mut self, hash: u64, old: Place, new: Place) {
        if let Some((at, _)) = self.at(hash, |place| place == old) {
            self.set(at, pack(hash, new));
        }
    }

    fn set(&mut self, at: usize, slot: u32) {
        if let Some(place) = self.slots.get_mut(at) {
            *place = slot;
        }
    }
}

/// Records in a chunk.
const CHUNK: usize = 64;
/// The most records of a slab: as many as 21 bits count from one.
const MOST: usize = (1 << PLACE_BITS) - 1;
const PLACE_BITS: u32 = 21;

/// The most records that a shard should be asked to keep. A few more are of what overflows.
pub(super) const MOST_RECORDS: usize = 2_000_000;

/// The words of a record of a slab.
const fn width(slab: usize) -> usize {
    HEAD + (slab + 1) * record::ENTRY
}

/// The shard is chosen by the key's other end.
pub(super) fn hash(key: &Key) -> u64 {
    let [_, end] = key.halves();
    end
}

fn home(hash: u64, mask: usize) -> usize {
    (hash >> 24) as usize & mask
}

fn tag(hash: u64) -> u32 {
    (hash >> 56) as u32
}

fn pack(hash: u64, place: Place) -> u32 {
    tag(hash) << 24 | place.0.get()
}

/// Of a slot that is taken.
fn unpack(slot: u32) -> Place {
    Place(NonZeroU32::new(slot & ((1 << 24) - 1)).unwrap_or(NonZeroU32::MIN))
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::store::{Charge, Limit, LimitId, rules::State};

    const DAY: Duration = Duration::from_secs(86_400);

    fn key(n: u8) -> Key {
        let mut bytes = [n; 16];
        // Many of the same home, and some of the same tag.
        bytes[8..].copy_from_slice(&(u64::from(n % 5) << 25 | u64::from(n) << 58).to_le_bytes());
        Key::from_bytes(bytes)
    }

    fn charge(n: u8, limit: u64) -> Charge {
        Charge::new(key(n), Limit::rate(LimitId::of(&limit.to_string()), 1, DAY), 1)
    }

    proptest! {
        #[test]
        fn keeps_what_a_map_keeps(
            steps in prop::collection::vec((0_u8..60, 1_u64..=8, 1_u64..40, 0_usize..4), 1..400),
        ) {
            let (mut slabs, mut map, mut now) = (Slabs::default(), HashMap::new(), 0);
            for (n, limits, until, sweeps) in steps {
                now += 1;
                if slabs.find(&key(n)).is_none() {
                    map.retain(|(of, _), _| *of != n);
                    slabs.add(&key(n), 1).unwrap();
                }
                for limit in 0..limits {
                    let charge = charge(n, limit);
                    let place = slabs.find(&key(n)).unwrap();
                    if !slabs.at(place).unwrap().make_places(std::iter::once(&charge), 0) {
                        slabs.grow(&key(n)).unwrap();
                        let place = slabs.find(&key(n)).unwrap();
                        let mut record = slabs.at(place).unwrap();
                        prop_assert!(record.make_places(std::iter::once(&charge), 0));
                    }
                    let place = slabs.find(&key(n)).unwrap();
                    let state = State { level: now + until, mark: 1, used: 0 };
                    let mut record = slabs.at(place).unwrap();
                    let (at, _) = record.find(&charge.limit, 0).unwrap();
                    record.set(at, &charge.limit, state.receipt(&charge.limit.kind));
                    map.insert((n, limit), state);
                }
                slabs.sweep(sweeps, now);
                for ((n, limit), state) in &map {
                    match slabs.find(&key(*n)) {
                        Some(place) => {
                            let record = slabs.at(place).unwrap();
                            prop_assert_eq!(record.key(), key(*n));
                            let limit = charge(*n, *limit).limit;
                            let (_, receipt) = record.find(&limit, 0).unwrap();
                            prop_assert_eq!(receipt.state(&limit.kind), *state);
                        }
                        None => prop_assert!(state.level <= now, "what is not idle stays"),
                    }
                }
                let keys: std::collections::HashSet<_> = map.keys().map(|(n, _)| n).collect();
                let there = keys.iter().filter(|n| slabs.find(&key(***n)).is_some()).count();
                prop_assert_eq!(slabs.len(), there);
            }
            for _ in 0..20 {
                slabs.sweep(100, u64::MAX);
            }
            prop_assert_eq!(slabs.len(), 0);
        }
    }
}

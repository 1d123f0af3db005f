//! Records, each where its key's hash says.
//!
//! Records with places for as many limits are in one slab. A word for each bucket tells what is in it, so that a record is
//! found with one look at it, and what is not there mostly with none. Two thirds are in the place of their bucket that their
//! hash says, too, and are fetched while its word is. The home of a record follows from its hash and the number
//! of buckets, in their order: a slab that is full grows by an eighth, and is then read and written from one end to the other.

use std::hint::black_box;

use super::{
    bucket::{Bucket, PLACES, choice, tag},
    layouts::{Layout, Layouts},
    record::{self, Record, width},
};
use crate::store::{Charge, Key, MAX_CHARGES};

/// All records of a shard.
#[derive(Debug, Default)]
pub(super) struct Slabs {
    /// By the number of their places, less one.
    slabs: [Slab; MAX_CHARGES],
    layouts: Layouts,
    cursor: Place,
}

/// Where a record is, good until one is added or removed, or grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    slab: u8,
    at: At,
}

/// A bucket, and the place in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct At(u32);

/// Records of one width.
#[derive(Debug, Default)]
struct Slab {
    buckets: Vec<Bucket>,
    /// The records of `CHUNK` buckets each, if there ever was one: so that a slab that grows needs little more room meanwhile.
    chunks: Vec<Box<[u64]>>,
    len: usize,
}

impl Slabs {
    pub(super) fn len(&self) -> usize {
        self.slabs.iter().map(|slab| slab.len).sum()
    }

    /// The record of `key`, which most likely has so many places.
    #[inline]
    pub(super) fn find(&self, key: &Key, likely: usize) -> Option<Place> {
        let likely = slab(likely);
        let found = self.slabs.get(likely).and_then(|slab| slab.find(key, likely));
        match found {
            Some(at) => Some(Place { slab: likely as u8, at }),
            None => self.find_but_in(likely, key),
        }
    }

    #[inline(never)]
    fn find_but_in(&self, likely: usize, key: &Key) -> Option<Place> {
        let others = self.slabs.iter().enumerate();
        let mut others = others.filter(|(number, slab)| *number != likely && slab.len > 0);
        others.find_map(|(number, slab)| {
            slab.find(key, number).map(|at| Place { slab: number as u8, at })
        })
    }

    /// The record at a place.
    #[inline]
    pub(super) fn at(&mut self, place: Place) -> Option<Record<'_>> {
        let number = usize::from(place.slab);
        let words = self.slabs.get_mut(number)?.words_mut(place.at, width(number))?;
        Some(Record { words, layouts: &mut self.layouts })
    }

    /// Whether there is room for what limits there are in an admission's new records.
    pub(super) fn has_room(&self) -> bool {
        self.layouts.has_room()
    }

    /// A new record of `key`, which has none, with the limits that are charged.
    pub(super) fn add(&mut self, key: &Key, charges: &[Charge]) -> Option<Place> {
        let layout = self.layouts.take(Layout::of(charges))?;
        let place = self.insert(key, slab(charges.len()))?;
        self.at(place)?.begin(key, layout, charges);
        Some(place)
    }

    /// Moves the record of `key` to where it has a place for one more limit.
    pub(super) fn grow(&mut self, key: &Key, old: Place) -> Option<Place> {
        let mut words = [0; record::WIDEST];
        let kept = self.at(old)?.words;
        let kept_words = words.get_mut(..kept.len())?;
        kept_words.copy_from_slice(kept);
        let number = usize::from(old.slab) + 1;
        if number >= MAX_CHARGES {
            return None;
        }
        self.take_out(old, key);
        let place = self.insert(key, number)?;
        let new = self.at(place)?.words;
        new.copy_from_slice(words.get(..new.len())?);
        Some(place)
    }

    /// Looks at the next `steps` records and removes those that are `idle`.
    pub(super) fn sweep(&mut self, steps: usize, now: u64) {
        for _ in 0..steps.min(self.len()) {
            let Some(place) = self.next_at_cursor() else { return };
            self.cursor = Place { at: At(place.at.0 + 1), ..place };
            let Some(record) = self.at(place).filter(|record| record.is_idle(now)) else {
                continue;
            };
            let key = record.key();
            record.release();
            self.take_out(place, &key);
        }
    }

    /// The next record from the cursor on, which goes round.
    fn next_at_cursor(&mut self) -> Option<Place> {
        // The slab where it is may be looked at twice: from the cursor on, and up to it.
        for _ in 0..=MAX_CHARGES {
            let Place { slab, at } = self.cursor;
            if let Some(at) = self.slabs.get(usize::from(slab))?.next_from(at) {
                return Some(Place { slab, at });
            }
            self.cursor = Place { slab: (slab + 1) % MAX_CHARGES as u8, at: At::default() };
        }
        None
    }

    /// A place for a record.
    fn insert(&mut self, key: &Key, number: usize) -> Option<Place> {
        let slab = self.slabs.get_mut(number)?;
        if slab.is_full() {
            let buckets = slab.buckets.len();
            self.resize(number, buckets + buckets / GROWTH + 1);
        }
        let at = self.slabs.get_mut(number)?.insert(hash(key), width(number))?;
        Some(Place { slab: number as u8, at })
    }

    /// Takes out the record of `key`, whose words stay where they are.
    fn take_out(&mut self, place: Place, key: &Key) {
        let number = usize::from(place.slab);
        let Some(slab) = self.slabs.get_mut(number) else { return };
        slab.remove(place.at, hash(key));
        if slab.is_sparse() {
            let buckets = slab.buckets.len() / 2;
            self.resize(number, buckets);
        }
    }

    fn resize(&mut self, number: usize, buckets: usize) {
        let Some(slab) = self.slabs.get_mut(number) else { return };
        let old = slab.buckets.len().max(1);
        slab.resize(buckets, width(number));
        if usize::from(self.cursor.slab) == number {
            // Where those that were there went.
            let bucket = self.cursor.at.bucket() * buckets / old;
            self.cursor.at = At::new(bucket, 0);
        }
    }
}

impl At {
    fn new(bucket: usize, place: usize) -> Self {
        Self((bucket << 3 | place) as u32)
    }

    fn bucket(self) -> usize {
        self.0 as usize >> 3
    }

    fn place(self) -> usize {
        self.0 as usize & 7
    }

    /// The chunk, and the record in it.
    #[inline]
    fn in_chunks(self) -> (usize, usize) {
        (self.bucket() / CHUNK, self.bucket() % CHUNK * PLACES + self.place())
    }
}

impl Slab {
    #[inline]
    fn find(&self, key: &Key, number: usize) -> Option<At> {
        let (hash, width, buckets) = (hash(key), width(number), self.buckets.len());
        let mut bucket = home(hash, buckets);
        self.fetch(At::new(bucket, choice(hash)), width);
        for _ in 0..buckets {
            let word = *self.buckets.get(bucket)?;
            for place in word.tagged(tag(hash)) {
                let at = At::new(bucket, place);
                if self.words(at, width).is_some_and(|words| record::is_of(words, key)) {
                    return Some(at);
                }
            }
            if !word.has_passed() {
                return None;
            }
            bucket = next(bucket, buckets);
        }
        None
    }

    /// Takes a place for what has this hash. There is one.
    fn insert(&mut self, hash: u64, width: usize) -> Option<At> {
        let buckets = self.buckets.len();
        let mut bucket = home(hash, buckets);
        loop {
            let word = self.buckets.get_mut(bucket)?;
            if let Some(place) = word.free(choice(hash)) {
                word.set(place, tag(hash));
                self.len += 1;
                self.make_chunk(bucket / CHUNK, width);
                return Some(At::new(bucket, place));
            }
            word.pass();
            bucket = next(bucket, buckets);
        }
    }

    fn remove(&mut self, at: At, hash: u64) {
        let buckets = self.buckets.len();
        let mut bucket = home(hash, buckets);
        while bucket != at.bucket() {
            let Some(word) = self.buckets.get_mut(bucket) else { return };
            word.unpass();
            bucket = next(bucket, buckets);
        }
        if let Some(word) = self.buckets.get_mut(bucket) {
            word.clear(at.place());
            self.len -= 1;
        }
    }

    fn next_from(&self, at: At) -> Option<At> {
        let mut from = at.place();
        let buckets = self.buckets.iter().enumerate().skip(at.bucket());
        buckets
            .map(|(bucket, word)| (bucket, word.taken().from(std::mem::take(&mut from)).next()))
            .find_map(|(bucket, place)| place.map(|place| At::new(bucket, place)))
    }

    /// Whether nine tenths of its places are taken.
    fn is_full(&self) -> bool {
        (self.len + 1) * 10 > self.buckets.len() * PLACES * 9
    }

    /// Whether it would be no more than that with half of its buckets, and then some.
    fn is_sparse(&self) -> bool {
        self.buckets.len() >= CHUNK && self.len * 5 < self.buckets.len() * PLACES * 2
    }

    /// Moves all records to where they are found among so many buckets: chunk by chunk, each of which is let go then.
    fn resize(&mut self, buckets: usize, width: usize) {
        let chunks = (0..buckets.div_ceil(CHUNK)).map(|_| Box::default()).collect();
        let new = Self { buckets: vec![Bucket::default(); buckets], chunks, len: 0 };
        let old = std::mem::replace(self, new);
        for (words, buckets) in old.chunks.into_iter().zip(old.buckets.chunks(CHUNK)) {
            for (bucket, word) in buckets.iter().enumerate() {
                for place in word.taken() {
                    let from = (bucket * PLACES + place) * width;
                    let Some(words) = words.get(from..from + width) else { continue };
                    let to = self.insert(hash(&record::key(words)), width);
                    if let Some(place) = to.and_then(|to| self.words_mut(to, width)) {
                        place.copy_from_slice(words);
                    }
                }
            }
        }
    }

    /// Has what is at a place brought to the processor, which does not wait for it: where a record most likely is, at the same
    /// time as the word that tells where it is. Among a million records an admission's time is mostly that of these two.
    #[inline]
    fn fetch(&self, at: At, width: usize) {
        let words = self.words(at, width);
        black_box(words.and_then(|words| Some((*words.first()?, *words.last()?))));
    }

    #[inline]
    fn words(&self, at: At, width: usize) -> Option<&[u64]> {
        let (chunk, record) = at.in_chunks();
        self.chunks.get(chunk)?.get(record * width..(record + 1) * width)
    }

    #[inline]
    fn words_mut(&mut self, at: At, width: usize) -> Option<&mut [u64]> {
        let (chunk, record) = at.in_chunks();
        self.chunks.get_mut(chunk)?.get_mut(record * width..(record + 1) * width)
    }

    fn make_chunk(&mut self, number: usize, width: usize) {
        let buckets = (self.buckets.len() - number * CHUNK).min(CHUNK);
        if let Some(chunk) = self.chunks.get_mut(number)
            && chunk.is_empty()
        {
            *chunk = vec![0; buckets * PLACES * width].into_boxed_slice();
        }
    }
}

/// Buckets whose records are in one chunk.
const CHUNK: usize = 64;
/// A slab that is full grows by one part of so many.
const GROWTH: usize = 8;

/// The most records that a shard should be asked to keep. A few more are of what overflows.
pub(super) const MOST_RECORDS: usize = 2_000_000;

/// The slab of records with so many places.
#[inline]
fn slab(places: usize) -> usize {
    places.clamp(1, MAX_CHARGES) - 1
}

/// The shard is chosen by the key's other end.
pub(super) fn hash(key: &Key) -> u64 {
    let [_, end] = key.halves();
    end
}

/// Which of so many buckets a record belongs to (Lemire, "Fast random integer generation in an interval", 2019): with more
/// of them, none that comes after another comes before it.
#[inline]
fn home(hash: u64, buckets: usize) -> usize {
    (((hash >> 32) * buckets as u64) >> 32) as usize
}

#[inline]
fn next(bucket: usize, buckets: usize) -> usize {
    if bucket + 1 == buckets { 0 } else { bucket + 1 }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::store::{
        Limit, LimitId,
        rules::{GRAIN, State},
    };

    const DAY: Duration = Duration::from_secs(86_400);

    fn key(n: u8) -> Key {
        let mut bytes = [n; 16];
        // Many of the same home, and some of the same tag.
        bytes[8..].copy_from_slice(&(u64::from(n % 5) << 61 | u64::from(n % 7)).to_le_bytes());
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
                if slabs.find(&key(n), 1).is_none() {
                    map.retain(|(of, _), _| *of != n);
                    slabs.add(&key(n), &[charge(n, 0)]).unwrap();
                }
                for limit in 0..limits {
                    let charge = charge(n, limit);
                    let place = slabs.find(&key(n), 1 + n as usize % 3).unwrap();
                    if !slabs.at(place).unwrap().make_places(std::iter::once(&charge), 0) {
                        slabs.grow(&key(n), place).unwrap();
                        let place = slabs.find(&key(n), 1 + n as usize % 3).unwrap();
                        let mut record = slabs.at(place).unwrap();
                        prop_assert!(record.make_places(std::iter::once(&charge), 0));
                    }
                    let place = slabs.find(&key(n), 1 + n as usize % 3).unwrap();
                    let state = State { level: now + until, mark: 1, used: 0 };
                    let mut record = slabs.at(place).unwrap();
                    let (at, _) = record.find(&charge.limit, 0).unwrap();
                    record.set(at, &charge.limit, state.receipt(&charge.limit.kind));
                    map.insert((n, limit), state);
                }
                slabs.sweep(sweeps, now);
                for ((n, limit), state) in &map {
                    match slabs.find(&key(*n), 1) {
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
                let there = keys.iter().filter(|n| slabs.find(&key(***n), 1).is_some()).count();
                prop_assert_eq!(slabs.len(), there);
            }
            for _ in 0..20 {
                slabs.sweep(100, u64::MAX);
            }
            prop_assert_eq!(slabs.len(), 0);
        }
    }

    /// Thousands, so that the slab grows and shrinks many times, and buckets are full.
    #[test]
    fn a_slab_grows_and_shrinks_with_its_records() {
        let key = |n: u64| {
            let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
            Key::from_bytes((u128::from(hash) << 64 | u128::from(n)).to_le_bytes())
        };
        let charges =
            ["a", "b"].map(|name| Charge::new(key(0), Limit::rate(LimitId::of(name), 1, DAY), 1));
        let mut slabs = Slabs::default();
        let there = |slabs: &Slabs, of: std::ops::Range<u64>| {
            of.filter(|n| slabs.find(&key(*n), 2).is_some()).count() as u64
        };
        for n in 0..20_000 {
            assert_eq!(slabs.find(&key(n), 2), None);
            let place = slabs.add(&key(n), &charges).unwrap();
            let state = State { level: 1 + n, mark: n, used: 0 };
            let mut record = slabs.at(place).unwrap();
            record.set(1, &charges[1].limit, state.receipt(&charges[1].limit.kind));
        }
        let buckets = slabs.slabs[1].buckets.len() as u64;
        assert!((8..=9).contains(&(20_000 * 10 / (buckets * PLACES as u64))), "{buckets}");
        assert_eq!(there(&slabs, 0..20_000), 20_000);
        let is_chosen = |n: &u64| {
            slabs.find(&key(*n), 2).is_some_and(|it| it.at.place() == choice(hash(&key(*n))))
        };
        let chosen = (0..20_000).filter(is_chosen).count();
        assert!((12_000..16_000).contains(&chosen), "about two thirds: {chosen}");
        for n in 0..20_000 {
            let place = slabs.find(&key(n), 5).unwrap();
            let (_, receipt) = slabs.at(place).unwrap().find(&charges[1].limit, 0).unwrap();
            assert_eq!(receipt.state(&charges[1].limit.kind).mark, n);
        }
        // Those that are idle by then, to the grain.
        let kept = 20_000 - 19_000 / GRAIN * GRAIN;
        (0..50).for_each(|_| slabs.sweep(1000, 19_000));
        assert_eq!((slabs.len() as u64, there(&slabs, 0..20_000)), (kept, kept));
        assert_eq!(there(&slabs, 20_000 - kept..20_000), kept);
        assert!((slabs.slabs[1].buckets.len() as u64) < buckets / 4);
        (0..50).for_each(|_| slabs.sweep(1000, u64::MAX));
        assert_eq!((slabs.len(), there(&slabs, 0..20_000)), (0, 0));
        let passed = |slab: &Slab| slab.buckets.iter().any(|bucket| bucket.has_passed());
        assert!(!slabs.slabs.iter().any(passed), "what is gone leaves nothing behind");
    }
}

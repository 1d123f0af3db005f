//! Facts: what is kept for a time, never for longer and never without a bound.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::table::{ByKeyBytes, Table};
use crate::store::{Distinct, Key, StoreError};

#[derive(Debug)]
pub(super) struct Facts {
    shards: Box<[Mutex<Shard>]>,
    /// Facts in a shard, each member of a set counting as one.
    capacity: usize,
}

/// The three kinds of facts never meet: a key of one says nothing of another.
#[derive(Debug, Default)]
struct Shard {
    used: Table<Until<()>>,
    values: Table<Until<u64>>,
    sets: Table<Until<Members>>,
    members: usize,
}

#[derive(Debug)]
struct Until<T> {
    until: Duration,
    fact: T,
}

#[derive(Debug, Default)]
struct Members {
    keys: HashSet<Key, ByKeyBytes>,
    more: bool,
}

impl Facts {
    pub(super) fn new(shards: usize, max_facts: usize) -> Self {
        let shards = shards.next_power_of_two();
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            capacity: max_facts.div_ceil(shards),
        }
    }

    pub(super) fn first_use(
        &self,
        key: Key,
        ttl: Duration,
        now: Duration,
    ) -> Result<bool, StoreError> {
        let mut shard = self.shard(&key)?;
        let until = now.saturating_add(ttl);
        match shard.used.get_mut(&key) {
            Some(used) if used.until > now => Ok(false),
            Some(used) => {
                used.until = until;
                Ok(true)
            }
            None => {
                shard.make_room(1, self.capacity, now)?;
                shard.used.entry(key, || Until { until, fact: () });
                Ok(true)
            }
        }
    }

    pub(super) fn raise(
        &self,
        key: Key,
        value: u64,
        ttl: Duration,
        now: Duration,
    ) -> Result<u64, StoreError> {
        let mut shard = self.shard(&key)?;
        let new = Until { until: now.saturating_add(ttl), fact: value };
        if let Some(kept) = shard.values.get_mut(&key) {
            *kept = if kept.until > now {
                Until { until: kept.until.max(new.until), fact: kept.fact.max(value) }
            } else {
                new
            };
            return Ok(kept.fact);
        }
        shard.make_room(1, self.capacity, now)?;
        shard.values.entry(key, || new);
        Ok(value)
    }

    pub(super) fn get(&self, key: Key, now: Duration) -> Result<Option<u64>, StoreError> {
        let shard = self.shard(&key)?;
        Ok(shard.values.get(&key).filter(|kept| kept.until > now).map(|kept| kept.fact))
    }

    pub(super) fn distinct(
        &self,
        key: Key,
        member: Key,
        window: Duration,
        cap: u32,
        now: Duration,
    ) -> Result<Distinct, StoreError> {
        let mut guard = self.shard(&key)?;
        let shard = &mut *guard;
        if let Some(set) = shard.sets.get_mut(&key).filter(|set| set.until <= now) {
            shard.members -= set.fact.keys.len();
            *set = Until { until: now.saturating_add(window), fact: Members::default() };
        }
        if let Some(set) = shard.sets.get_mut(&key) {
            if set.fact.keys.contains(&member) {
                return Ok(set.fact.count(cap, false));
            }
            if set.fact.keys.len() >= cap as usize {
                set.fact.more = true;
                return Ok(set.fact.count(cap, false));
            }
        }
        shard.make_room(2, self.capacity, now)?;
        let set = shard
            .sets
            .entry(key, || Until { until: now.saturating_add(window), fact: Members::default() });
        let Some(set) = set else { return Err(full()) };
        if cap == 0 {
            set.fact.more = true;
            return Ok(set.fact.count(cap, false));
        }
        set.fact.keys.insert(member);
        shard.members += 1;
        Ok(set.fact.count(cap, true))
    }

    fn shard(&self, key: &Key) -> Result<MutexGuard<'_, Shard>, StoreError> {
        let [_, _, _, _, a, b, c, d, ..] = *key.as_bytes();
        let number = u32::from_le_bytes([a, b, c, d]) as usize & (self.shards.len() - 1);
        let shard = self.shards.get(number).ok_or_else(full)?;
        Ok(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shard {
    /// Sweeps away some of what has expired, and sees that `more` facts may be added.
    fn make_room(&mut self, more: usize, capacity: usize, now: Duration) -> Result<(), StoreError> {
        let steps = if self.len() + more > capacity { STEPS_WHEN_FULL } else { STEPS };
        self.used.sweep(steps, |used| used.until <= now, drop);
        self.values.sweep(steps, |kept| kept.until <= now, drop);
        let members = &mut self.members;
        self.sets.sweep(steps, |set| set.until <= now, |set| *members -= set.fact.keys.len());
        if self.len() + more > capacity { Err(full()) } else { Ok(()) }
    }

    fn len(&self) -> usize {
        self.used.len() + self.values.len() + self.sets.len() + self.members
    }
}

impl Members {
    fn count(&self, cap: u32, new: bool) -> Distinct {
        let count = u32::try_from(self.keys.len()).map_or(cap, |count| count.min(cap));
        Distinct::new(count, self.more, new)
    }
}

const STEPS: usize = 4;
const STEPS_WHEN_FULL: usize = 64;

fn full() -> StoreError {
    StoreError::transient("there is no room for more facts")
}

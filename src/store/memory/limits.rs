//! Limits: shards of records, locked in a fixed order.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{
    record,
    slabs::{Place as At, Slabs},
};
use crate::{
    observe,
    store::{
        Admission, Charge, Decision, Inline, Key, MAX_CHARGES, Receipt, Settlement, Standings,
        StoreError,
        rules::{self, Correction, State},
    },
};

#[derive(Debug)]
pub(super) struct Limits {
    shards: Box<[Mutex<Shard>]>,
    /// Records in a shard, but those of what overflows.
    capacity: usize,
}

#[derive(Debug, Default)]
struct Shard {
    records: Slabs,
    /// The latest time seen here. An earlier one counts as this.
    now: u64,
}

/// Where a charge is kept.
#[derive(Clone, Copy, Debug)]
struct Place {
    key: Key,
    at: Option<At>,
    overflow: bool,
}

/// The shards of an admission, locked in the order of their numbers so that no two callers wait for
/// each other.
struct Locked<'a> {
    numbers: Inline<usize>,
    guards: [Option<MutexGuard<'a, Shard>>; MAX_CHARGES],
    mask: usize,
    capacity: usize,
}

impl Limits {
    pub(super) fn new(shards: usize, max_records: usize) -> Self {
        let shards = shards.next_power_of_two();
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            capacity: max_records.div_ceil(shards),
        }
    }

    pub(super) fn acquire(
        &self,
        admission: &Admission<'_>,
        now: u64,
    ) -> Result<Decision, StoreError> {
        rules::check(admission)?;
        let charges = admission.charges;
        let mut locked = self.lock(charges);
        let now = locked.now(now);
        let (places, mut states) = locked.read(charges, now)?;
        let mut decision = rules::decide(charges, states.as_mut_slice(), now);
        if let Decision::Admitted(grant) = &mut decision {
            locked.write(charges, places.as_slice(), states.as_slice(), now);
            for (place, receipt) in places.as_slice().iter().zip(grant.receipts.as_mut_slice()) {
                if place.overflow {
                    observe::count("palisade_store_overflow_total", &[("store", "memory")]);
                    receipt.0[0] |= IN_OVERFLOW;
                }
            }
        }
        Ok(decision)
    }

    pub(super) fn peek(
        &self,
        admission: &Admission<'_>,
        now: u64,
    ) -> Result<Standings, StoreError> {
        rules::check(admission)?;
        let mut locked = self.lock(admission.charges);
        let now = locked.now(now);
        let (_, states) = locked.read(admission.charges, now)?;
        Ok(rules::standings(admission.charges, states.as_slice(), now))
    }

    pub(super) fn settle(&self, settlement: &Settlement<'_>, now: impl FnOnce() -> u64) {
        let parts = settlement.charges.iter().zip(settlement.receipts).zip(settlement.used);
        let unchanged = |((charge, _), used): ((&Charge, _), &u64)| {
            Correction::of(charge, *used).changes_nothing()
        };
        if parts.clone().all(unchanged) {
            return;
        }
        let mut locked = self.lock(settlement.charges);
        let now = locked.now(now());
        for ((charge, receipt), used) in parts {
            let correction = Correction::of(charge, *used);
            if !correction.changes_nothing() {
                locked.settle(charge, *receipt, correction, now);
            }
        }
    }

    pub(super) fn reset(&self, record: &Key, now: u64) {
        let shard = self.shards.get(number(record, self.shards.len() - 1));
        let shard = shard.map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(mut shard) = shard else { return };
        let now = now.max(shard.now);
        let place = shard.records.find(record);
        if let Some(mut record) = place.and_then(|place| shard.records.at(place)) {
            record.forget(now);
        }
    }

    fn lock(&self, charges: &[Charge]) -> Locked<'_> {
        let mask = self.shards.len() - 1;
        let mut numbers = Inline::default();
        for charge in charges {
            let number = number(&charge.record, mask);
            if !numbers.as_slice().contains(&number) {
                numbers.push(number);
            }
        }
        numbers.as_mut_slice().sort_unstable();
        let mut guards = [const { None }; MAX_CHARGES];
        for (number, guard) in numbers.as_slice().iter().zip(&mut guards) {
            // A panic while it was held, which nothing here can cause, left whole records behind.
            *guard = self
                .shards
                .get(*number)
                .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Locked { numbers, guards, mask, capacity: self.capacity }
    }
}

impl Locked<'_> {
    /// The time by which to decide: never earlier than one that was decided by before.
    fn now(&mut self, now: u64) -> u64 {
        let shards = self.guards.iter().flatten();
        let now = shards.fold(now, |now, shard| now.max(shard.now));
        for shard in self.guards.iter_mut().flatten() {
            shard.now = now;
        }
        now
    }

    /// Where the charges are kept and where their limits stand. Changes nothing that could be seen.
    fn read(
        &mut self,
        charges: &[Charge],
        now: u64,
    ) -> Result<(Inline<Place>, Inline<State>), StoreError> {
        let mut places = self.places(charges);
        let is_new = |place: &Place| place.at.is_none() || place.overflow;
        if places.as_slice().iter().any(is_new) {
            for (charge, place) in charges.iter().zip(places.as_slice()) {
                if is_new(place) {
                    self.sweep(&charge.record, now);
                }
            }
            // Sweeping moves records.
            places = self.places(charges);
        }
        let mut states = self.states(charges, places.as_slice());
        if states.is_none() {
            for (charge, place) in charges.iter().zip(places.as_slice()) {
                self.make_place(charge, *place, charges, now)?;
            }
            // Making places moves records, too.
            places = self.places(charges);
            states = self.states(charges, places.as_slice());
        }
        let states = states.ok_or_else(|| StoreError::permanent("a record has lost a limit"))?;
        Ok((places, states))
    }

    /// Where the limits stand. `None` when one lacks a place in a record that there is.
    fn states(&mut self, charges: &[Charge], places: &[Place]) -> Option<Inline<State>> {
        let mut states = Inline::default();
        for (charge, place) in charges.iter().zip(places) {
            states.push(match place.at {
                Some(at) => self.shard(&charge.record)?.records.at(at)?.find(charge)?,
                None => State::default(),
            });
        }
        Some(states)
    }

    fn places(&mut self, charges: &[Charge]) -> Inline<Place> {
        let mut places = Inline::new(Place { key: NO_KEY, at: None, overflow: false });
        let mut last: Option<(Key, Place)> = None;
        for charge in charges {
            let place = match last {
                Some((record, place)) if record == charge.record && !place.overflow => place,
                _ => self.place(charge),
            };
            last = Some((charge.record, place));
            places.push(place);
        }
        places
    }

    fn place(&mut self, charge: &Charge) -> Place {
        let capacity = self.capacity;
        let key = charge.record;
        let Some(shard) = self.shard(&key) else { return Place { key, at: None, overflow: false } };
        let at = shard.records.find(&key);
        if at.is_some() || shard.records.len() < capacity {
            return Place { key, at, overflow: false };
        }
        let key = overflow_key(charge);
        Place { key, at: shard.records.find(&key), overflow: true }
    }

    /// Sees that a limit has a place in its record, if there is one.
    fn make_place(
        &mut self,
        charge: &Charge,
        place: Place,
        charges: &[Charge],
        now: u64,
    ) -> Result<(), StoreError> {
        let Some(shard) = self.shard(&charge.record).filter(|_| place.at.is_some()) else {
            return Ok(());
        };
        let beside = charges.iter().filter(|other| {
            if place.overflow { *other == charge } else { other.record == charge.record }
        });
        if shard.make_places(&place.key, beside, now) {
            return Ok(());
        }
        Err(StoreError::permanent("a record has more live limits than it has places"))
    }

    fn write(&mut self, charges: &[Charge], places: &[Place], states: &[State], now: u64) {
        for ((charge, place), state) in charges.iter().zip(places).zip(states) {
            let Some(shard) = self.shard(&charge.record) else { continue };
            let at = place.at.or_else(|| {
                // An earlier charge may have made it.
                shard.records.find(&place.key).or_else(|| {
                    let beside = charges.iter().filter(|other| other.record == charge.record);
                    let limits = if place.overflow { 1 } else { beside.count() };
                    shard.records.add(&place.key, limits)
                })
            });
            let Some(mut record) = at.and_then(|at| shard.records.at(at)) else { continue };
            if !record.set(charge, *state) && record.make_places(std::iter::once(charge), now) {
                record.set(charge, *state);
            }
        }
    }

    fn settle(&mut self, charge: &Charge, receipt: Receipt, correction: Correction, now: u64) {
        let Receipt([tail, shift]) = receipt;
        let overflow = tail & IN_OVERFLOW != 0;
        let capacity = self.capacity;
        let Some(shard) = self.shard(&charge.record) else { return };
        let mut key = if overflow { overflow_key(charge) } else { charge.record };
        if shard.records.find(&key).is_none() {
            if correction.add == 0 {
                return; // It is gone because all of it has drained.
            }
            if shard.records.len() >= capacity {
                key = overflow_key(charge);
            }
        }
        if shard.records.find(&key).is_none() && shard.records.add(&key, 1).is_none() {
            return;
        }
        if !shard.make_places(&key, std::iter::once(charge), now) {
            return;
        }
        let at = shard.records.find(&key);
        let Some(mut record) = at.and_then(|at| shard.records.at(at)) else { return };
        let state = record.find(charge).unwrap_or_default();
        let receipt = Receipt([tail & !IN_OVERFLOW, shift]);
        record.set(charge, rules::settle(state, correction, receipt, now));
    }

    fn sweep(&mut self, key: &Key, now: u64) {
        let capacity = self.capacity;
        if let Some(shard) = self.shard(key) {
            let full = shard.records.len() >= capacity;
            let steps = if full { STEPS_WHEN_FULL } else { STEPS };
            shard.records.sweep(steps, now);
        }
    }

    fn shard(&mut self, key: &Key) -> Option<&mut Shard> {
        let number = number(key, self.mask);
        let at = self.numbers.as_slice().iter().position(|locked| *locked == number)?;
        self.guards.get_mut(at)?.as_deref_mut()
    }
}

impl Shard {
    /// Sees that each of `charges` has a place in the record of `key`, which may move it and others. False: more limits
    /// are in use than a record has places.
    fn make_places<'a>(
        &mut self,
        key: &Key,
        charges: impl Iterator<Item = &'a Charge> + Clone,
        now: u64,
    ) -> bool {
        loop {
            let at = self.records.find(key);
            let Some(mut record) = at.and_then(|at| self.records.at(at)) else { return false };
            if record.make_places(charges.clone(), now) {
                return true;
            }
            if self.records.grow(key).is_none() {
                return false;
            }
        }
    }
}

/// How many records are looked at for each charge to a new one: more than one, so that idle ones are gone before
/// as many new ones have come.
const STEPS: usize = 2;
/// The same when a shard is full.
const STEPS_WHEN_FULL: usize = 16;
/// Marks the receipt of what was charged to an overflow record. Ticks stay below 2^53.
const IN_OVERFLOW: u64 = 1 << 63;
const NO_KEY: Key = Key::from_bytes([0; 16]);

/// The shard of a key. Its map uses the key's other half.
fn number(key: &Key, mask: usize) -> usize {
    let [a, b, c, d, ..] = *key.as_bytes();
    u32::from_le_bytes([a, b, c, d]) as usize & mask
}

/// The record that all keys for which there is no room share, in each shard and for each limit.
fn overflow_key(charge: &Charge) -> Key {
    let mut bytes = *b"overflow\0\0\0\0\0\0\0\0";
    let limit = u64::from(record::rule(charge)) << 32 | u64::from(charge.limit.id.get());
    if let Some(last) = bytes.last_chunk_mut() {
        *last = limit.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    }
    Key::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::{Limit, LimitId, ReservationId};

    #[test]
    fn a_clock_that_goes_back_refills_nothing() {
        let limits = Limits::new(1, 10);
        let limit = Limit::rate(LimitId::of("rate"), 10, Duration::from_secs(10));
        let charges = [Charge::new(NO_KEY, limit, 10)];
        let admits = |now| {
            let admission = Admission::new(ReservationId::next(), &charges);
            matches!(limits.acquire(&admission, now).unwrap(), Decision::Admitted(_))
        };
        let start = 1000 * rules::SECOND;
        assert!(admits(start));
        for _ in 0..100 {
            assert!(!admits(start - 900 * rules::SECOND));
            assert!(!admits(start + rules::SECOND));
        }
        assert!(admits(start + 10 * rules::SECOND));
    }
}

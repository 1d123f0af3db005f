//! A shard of records, which one lock guards.

use std::sync::PoisonError;

use super::{
    lanes,
    record::Record,
    slabs::{Place, Slabs},
};
use crate::{
    store::{
        Charge, Key, Limit, Receipt,
        rules::{Correction, Kind, State},
    },
    sync::{Mutex, MutexGuard},
};

/// All shards, as many as a power of two.
#[derive(Debug)]
pub(super) struct Shards(Box<[Locking]>);

/// A shard and its lock, with what each admission writes in one line of a processor's cache that no other shard's is in.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Locking(Mutex<Shard>);

#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Shard {
    /// The latest time seen here. An earlier one counts as this.
    pub(super) now: u64,
    pub(super) heat: Heat,
    /// Leases of what is kept here that have not ended, and when the last of them does. One of several records may count as several.
    pub(super) ahead: u32,
    pub(super) ahead_until: u64,
    pub(super) records: Slabs,
}

/// How often the same key was admitted of late.
#[derive(Debug, Default)]
pub(super) struct Heat {
    key: u32,
    times: u32,
    since: u64,
}

impl Shards {
    pub(super) fn new(count: usize) -> Self {
        Self((0..count.next_power_of_two()).map(|_| Locking::default()).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The number of a key's shard: not by its group, which many may share. Its place there is by the key's other half.
    #[inline]
    pub(super) fn number(&self, key: &Key) -> u32 {
        let [_, _, _, _, a, b, c, d, ..] = *key.as_bytes();
        // There are at most 65,536.
        u32::from_le_bytes([a, b, c, d]) & (self.0.len() as u32 - 1)
    }

    #[inline]
    pub(super) fn lock(&self, number: u32) -> Option<MutexGuard<'_, Shard>> {
        // A panic while it was held, which nothing here can cause, left whole records behind.
        let Locking(shard) = self.0.get(number as usize)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shard {
    /// The time by which to decide: never earlier than one that was decided by before.
    #[inline]
    pub(super) fn now(&mut self, now: u64) -> u64 {
        self.now = self.now.max(now);
        self.now
    }

    /// The time as of which a rate is given back. What a lease grants was charged as of its end: until then, no more is given
    /// back than if that were now.
    fn now_for_refunds(&self) -> u64 {
        if self.ahead > 0 { self.now.max(self.ahead_until) } else { self.now }
    }

    /// Whether a lease is over that has not given back what it did not grant.
    #[inline]
    pub(super) fn holds_what_is_over(&self, now: u64) -> bool {
        self.ahead > 0 && now > self.ahead_until
    }

    /// The record of `key`, which most likely has so many places.
    #[inline]
    pub(super) fn record(&mut self, key: &Key, likely: usize) -> Option<Record<'_>> {
        let place = self.records.find(key, likely)?;
        self.records.at(place)
    }

    /// Charges all limits of a record, or none, that stand there as they do in the admission, and notes how they stand then.
    /// Whether it did. `None`, and nothing has changed: they do not.
    #[inline]
    pub(super) fn charge_in_place(
        &mut self,
        key: &Key,
        charges: &[Charge],
        receipts: &mut [Receipt],
        now: u64,
    ) -> Option<bool> {
        let mut record = self.record(key, charges.len())?;
        let (from, fits) = record.charge_in_place(charges, receipts, now)?;
        match fits {
            true => record.keep(from, charges, receipts),
            false => record.see(from, charges, receipts, now),
        }
        Some(fits)
    }

    /// Makes a record of what was charged to a new key.
    pub(super) fn add(&mut self, key: &Key, charges: &[Charge], receipts: &[Receipt]) {
        if self.records.find(key, charges.len()).is_some() {
            // Charges of its other limits stand before these, elsewhere in the admission.
            for (charge, receipt) in charges.iter().zip(receipts).filter(|(it, _)| it.cost > 0) {
                self.write(key, charge, *receipt);
            }
        } else if charges.iter().any(|charge| charge.cost > 0) {
            let place = self.records.add(key, charges);
            if let Some(mut record) = place.and_then(|place| self.records.at(place)) {
                record.keep(0, charges, receipts);
            }
        }
    }

    /// Makes room, a record or a few for each new one.
    pub(super) fn sweep(&mut self, capacity: usize) {
        let full = self.records.len() >= capacity;
        let steps = if full { STEPS_WHEN_FULL } else { STEPS };
        self.records.sweep(steps, self.now);
    }

    /// Sees that each of `charges` has a place in the record of `key`, which may move it and others. False: more limits
    /// are in use than a record has places.
    pub(super) fn make_places<'a>(
        &mut self,
        key: &Key,
        charges: impl Iterator<Item = &'a Charge> + Clone,
    ) -> bool {
        loop {
            let Some(at) = self.records.find(key, 1) else { return false };
            let Some(mut record) = self.records.at(at) else { return false };
            if record.make_places(charges.clone(), self.now) {
                return true;
            }
            if self.records.grow(key, at).is_none() {
                return false;
            }
        }
    }

    /// Sets where the limit stands that has this place in its record.
    pub(super) fn set(&mut self, at: Place, entry: u8, limit: &Limit, state: Receipt) {
        if let Some(mut record) = self.records.at(at) {
            record.set(usize::from(entry), limit, state);
        }
    }

    /// Sets where the limit of `charge` stands, in the record of `key`, which is made if there is none.
    fn write(&mut self, key: &Key, charge: &Charge, state: Receipt) {
        if self.records.find(key, 1).is_none() {
            self.records.add(key, std::slice::from_ref(charge));
        }
        if !self.make_places(key, std::iter::once(charge)) {
            return;
        }
        let Some(mut record) = self.record(key, 1) else { return };
        if let Some((entry, _)) = record.find(&charge.limit, 0) {
            record.set(entry, &charge.limit, state);
        }
    }

    /// Corrects where a limit stands. The record that it was found in, as the `last` one before: good while the shard is locked.
    pub(super) fn settle(
        &mut self,
        charge: &Charge,
        receipt: Receipt,
        correction: Correction,
        capacity: usize,
        last: Option<(Key, Place)>,
    ) -> Option<(Key, Place)> {
        let limit = &charge.limit;
        let is_refund = correction.give_back > 0 && matches!(limit.kind, Kind::Rate(_));
        let now = if is_refund { self.now_for_refunds() } else { self.now };
        let overflow = receipt.0[1] & IN_OVERFLOW != 0;
        let mut key = if overflow { overflow_key(charge) } else { charge.record };
        let last = last.filter(|(of, _)| *of == key);
        let found = last.or_else(|| self.records.find(&key, 1).map(|at| (key, at)));
        if let Some(mut record) = found.and_then(|(_, at)| self.records.at(at)) {
            if let Some((entry, state)) = record.find(limit, 0) {
                let state = limit.kind.settle(state.state(&limit.kind), correction, receipt, now);
                record.set(entry, limit, state.receipt(&limit.kind));
                return found;
            }
        } else if correction.add == 0 {
            return None; // It is gone because all of it has drained.
        } else if self.records.len() >= capacity {
            key = overflow_key(charge);
        }
        let state = limit.kind.settle(State::default(), correction, receipt, now);
        self.write(&key, charge, state.receipt(&limit.kind));
        None
    }
}

impl Heat {
    /// Counts an admission. Whether there were many of the key in a short time.
    pub(super) fn rises(&mut self, key: &Key, now: u64) -> bool {
        let [.., a, b, c, d] = *key.as_bytes();
        let key = u32::from_le_bytes([a, b, c, d]);
        if self.key != key || now > self.since + lanes::LONGEST {
            *self = Self { key, times: 0, since: now };
        }
        self.times += 1;
        self.times >= lanes::BUSY
    }
}

/// How many records are looked at for each new one: more than one, so that idle ones are gone before
/// as many new ones have come.
const STEPS: usize = 2;
/// The same when a shard is full.
const STEPS_WHEN_FULL: usize = 16;
/// Marks the receipt of what was charged to an overflow record, in the second word of which two bits are free.
pub(super) const IN_OVERFLOW: u64 = 1 << 63;

/// The record that all keys for which there is no room share, in each shard and for each limit.
pub(super) fn overflow_key(charge: &Charge) -> Key {
    let mut bytes = *b"overflow\0\0\0\0\0\0\0\0";
    let limit = u64::from(charge.limit.kind.code()) << 32 | u64::from(charge.limit.id().get());
    if let Some(last) = bytes.last_chunk_mut() {
        *last = limit.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    }
    Key::from_bytes(bytes)
}

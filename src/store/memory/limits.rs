//! Limits: shards of records, locked in a fixed order.

use super::{
    lanes::{self, Lanes, Lease, Rest},
    locked::{Locked, Spot},
    shard::{Shard, Shards},
};
use crate::{
    store::{
        Admission, Charge, Inline, Key, NO_CHARGE, Receipt, Refusal, Seen, Settlement, Standings,
        StoreError,
        rules::{self, Asks, Correction},
    },
    sync::MutexGuard,
};

#[derive(Debug)]
pub(super) struct Limits {
    shards: Shards,
    /// Records in a shard, but those of what overflows.
    capacity: usize,
    lanes: Lanes,
    /// By how many ticks the time may be behind that is told to grant what was taken ahead.
    behind: u64,
}

/// What became of an admission where its limits are kept.
enum Decided {
    /// All is charged, and whether the first record is a busy one.
    Admitted(bool),
    Refused,
    /// Nothing: leases are to be recalled first.
    Later,
}

impl Limits {
    pub(super) fn new(shards: usize, max_records: usize, behind: u64) -> Self {
        let shards = Shards::new(shards);
        let capacity = max_records.div_ceil(shards.len());
        Self { shards, capacity, lanes: Lanes::default(), behind }
    }

    /// Grants the admission if it was taken ahead, by a time that may be behind. Or else the lane in which to look for such
    /// admissions, if they are of a busy key.
    #[inline]
    pub(super) fn granted_ahead(
        &self,
        charges: &[Charge],
        now: impl FnOnce() -> u64,
    ) -> Result<Seen, Option<MutexGuard<'_, Lease>>> {
        let Some(mut lease) = self.lane(charges) else { return Err(None) };
        lease.grant(charges, now(), self.behind).ok_or(Some(lease))
    }

    /// The lane in which to look for what was taken ahead, if the admission is of a busy key.
    #[inline]
    fn lane(&self, charges: &[Charge]) -> Option<MutexGuard<'_, Lease>> {
        self.lanes.of(&charges.first()?.record)
    }

    /// Charges all of the admission, as told in `seen`, or tells why it did not.
    pub(super) fn acquire(
        &self,
        admission: &Admission<'_>,
        now: u64,
        seen: &mut Seen,
        mut lane: Option<MutexGuard<'_, Lease>>,
    ) -> Result<Option<Refusal>, StoreError> {
        let charges = admission.charges;
        let refusal = |seen: &Seen| Ok(Some(rules::refusal(charges, &Asks::of(charges), *seen)));
        let decided = match &mut lane {
            Some(lease) if !lease.is_used_up() => Decided::Later,
            lease => self.decide(charges, now, seen, lease.as_deref_mut(), true)?,
        };
        drop(lane);
        match decided {
            Decided::Admitted(_) => return Ok(None),
            Decided::Refused => return refusal(seen),
            // Nobody is refused for what only lies ready for others.
            Decided::Later => self.recall(charges, now),
        }
        let mut lane = self.lane(charges).filter(|lease| lease.is_used_up());
        match self.decide(charges, now, seen, lane.as_deref_mut(), false)? {
            Decided::Refused => refusal(seen),
            Decided::Admitted(_) | Decided::Later => Ok(None),
        }
    }

    /// Decides where the limits are kept, and takes more ahead for `lease`, if they are in demand. Where leases are `heeded`,
    /// those that are over, or that keep what is asked for, must be recalled first.
    fn decide(
        &self,
        charges: &[Charge],
        now: u64,
        seen: &mut Seen,
        mut lease: Option<&mut Lease>,
        heeded: bool,
    ) -> Result<Decided, StoreError> {
        let in_demand = lease.as_ref().and_then(|lease| lease.was_in_demand(now));
        if let Some(rest) = lease.as_mut().and_then(|lease| lease.end(now)) {
            self.give_back(&rest);
        }
        let decided = match self.charge_one(charges, now, seen, heeded) {
            Some(decided) => decided,
            None => self.charge_all(charges, now, seen, heeded)?,
        };
        if let Decided::Admitted(is_busy) = decided
            && in_demand.unwrap_or(is_busy)
        {
            // A lease that was in vain, as where each admission costs something else, is not followed by another.
            match (lease, charges.first()) {
                (Some(lease), _) => self.take_ahead(charges, now, lease),
                (None, Some(charge)) => self.lanes.look_for(&charge.record),
                (None, None) => {}
            }
        }
        Ok(decided)
    }

    /// Charges limits of one record that stand there as they do in the admission, as they do from its second time on. `None`,
    /// and nothing is decided: they don't.
    #[inline]
    fn charge_one(
        &self,
        charges: &[Charge],
        now: u64,
        seen: &mut Seen,
        heeded: bool,
    ) -> Option<Decided> {
        let (Charge { record: key, .. }, others) = charges.split_first()?;
        if others.iter().any(|other| other.record != *key) {
            return None;
        }
        let mut shard = self.shards.lock(self.shards.number(key))?;
        if heeded && shard.holds_what_is_over(now) {
            return Some(Decided::Later);
        }
        seen.at = shard.now(now);
        let receipts = seen.receipts.stretched(charges.len());
        Some(match shard.charge_in_place(key, charges, receipts, seen.at)? {
            true => Decided::Admitted(shard.heat.rises(key, seen.at)),
            false if heeded && shard.ahead > 0 => Decided::Later,
            false => Decided::Refused,
        })
    }

    /// Charges limits wherever they are.
    #[inline(never)]
    fn charge_all(
        &self,
        charges: &[Charge],
        now: u64,
        seen: &mut Seen,
        heeded: bool,
    ) -> Result<Decided, StoreError> {
        // What is charged to one record in its places is not charged twice.
        rules::check(charges)?;
        let mut locked = self.lock(charges);
        if heeded && locked.shards().any(|shard| shard.holds_what_is_over(now)) {
            return Ok(Decided::Later);
        }
        seen.at = locked.now(now);
        let is_charged = match locked.charge_in_place(charges, seen) {
            Some(is_charged) => is_charged,
            None => locked.charge(charges, seen)?,
        };
        if !is_charged {
            let is_kept_ahead = heeded && locked.shards().any(|shard| shard.ahead > 0);
            return Ok(if is_kept_ahead { Decided::Later } else { Decided::Refused });
        }
        let first = charges.first().and_then(|charge| Some((charge, locked.shard_of(charge)?)));
        let is_busy = first.is_some_and(|(charge, it)| it.heat.rises(&charge.record, seen.at));
        Ok(Decided::Admitted(is_busy))
    }

    /// Charges more of the same for a lease, if there is plenty.
    #[inline(never)]
    fn take_ahead(&self, charges: &[Charge], now: u64, lease: &mut Lease) {
        let mut locked = self.lock(charges);
        let now = locked.now(now);
        let mut seen = Seen::new(Inline::default(), now);
        let spots = locked.find(charges, &mut seen);
        let until = now + self.behind + lanes::LONGEST;
        let (asks, mut receipts) = (Asks::of(charges), seen.receipts);
        let stand = seen.receipts.as_slice();
        let times = rules::times_ahead(charges, &asks, stand, PART_AHEAD, now, until);
        if times < LEAST_AHEAD || !spots.as_slice().iter().all(Spot::is_found) {
            return;
        }
        let times = times.min(MOST_AHEAD);
        rules::charge_times(charges, &asks, receipts.as_mut_slice(), times, until);
        let parts = charges.iter().zip(spots.as_slice()).zip(receipts.as_slice());
        let mut before = None;
        for ((charge, spot), receipt) in parts {
            let number = self.shards.number(&charge.record);
            if let Some((shard, (at, entry))) = locked.shard_of(charge).zip(spot.place()) {
                shard.set(at, entry, &charge.limit, *receipt);
                shard.ahead += u32::from(before.replace(number) != Some(number));
                shard.ahead_until = until;
            }
        }
        lease.begin(charges, &seen, receipts, times, until);
    }

    /// Ends the leases that keep something of records that are charged, and those that are over.
    fn recall(&self, charges: &[Charge], now: u64) {
        let is_charged = |key: &Key| charges.iter().any(|charge| charge.record == *key);
        self.lanes.recall(
            now,
            |lease| lease.concerns(is_charged, now),
            |rest| self.give_back(rest),
        );
    }

    /// Gives back what a lease did not grant.
    fn give_back(&self, rest: &Rest) {
        let unused = rest.unused.as_slice();
        let parts = rest.charges.as_slice().iter().zip(rest.receipts.as_slice()).zip(unused);
        let parts = parts.map(|((charge, receipt), unused)| {
            (charge, *receipt, Correction { give_back: *unused, add: 0 })
        });
        // Where nothing has happened since it ended, as much as it would have been then.
        self.correct(parts, || rest.ended, |shard| shard.ahead = shard.ahead.saturating_sub(1));
    }

    pub(super) fn peek(
        &self,
        admission: &Admission<'_>,
        now: u64,
    ) -> Result<Standings, StoreError> {
        rules::check(admission.charges)?;
        self.recall(admission.charges, now);
        let mut locked = self.lock(admission.charges);
        let mut seen = Seen::new(Inline::default(), locked.now(now));
        locked.read(admission.charges, &mut seen)?;
        drop(locked);
        Ok(rules::standings(admission.charges, &seen))
    }

    pub(super) fn settle(&self, settlement: &Settlement<'_>, now: impl Fn() -> u64) {
        let parts = settlement.charges.iter().zip(settlement.receipts).zip(settlement.used);
        let parts = parts
            .map(|((charge, receipt), used)| (charge, *receipt, Correction::of(charge, *used)));
        // Shards of which nothing changes are not locked.
        let parts = parts.filter(|(_, _, correction)| !correction.changes_nothing());
        self.correct(parts, now, |_| ());
    }

    /// Corrects charges, one shard after the other, each of which is noted first.
    fn correct<'a>(
        &self,
        parts: impl Iterator<Item = (&'a Charge, Receipt, Correction)>,
        now: impl Fn() -> u64,
        note: impl Fn(&mut Shard),
    ) {
        let mut held: Option<(u32, MutexGuard<'_, Shard>)> = None;
        let (mut last, mut time) = (None, None);
        for (charge, receipt, correction) in parts {
            let number = self.shards.number(&charge.record);
            if held.as_ref().is_none_or(|(locked, ..)| *locked != number) {
                // The one before is let go first: no two callers wait for each other.
                drop(held.take());
                held = self.shards.lock(number).map(|mut shard| {
                    note(&mut shard);
                    (number, shard)
                });
                last = None;
            }
            if let Some((_, shard)) = &mut held
                && !correction.changes_nothing()
            {
                // To slots all times are one.
                if !charge.limit.is_slots() {
                    shard.now = shard.now.max(*time.get_or_insert_with(&now));
                }
                last = shard.settle(charge, receipt, correction, self.capacity, last);
            }
        }
    }

    pub(super) fn reset(&self, record: &Key, now: u64) {
        self.recall(&[Charge { record: *record, ..NO_CHARGE }], now);
        let Some(mut shard) = self.shards.lock(self.shards.number(record)) else { return };
        let now = now.max(shard.now);
        if let Some(mut record) = shard.record(record, 1) {
            record.forget(now);
        }
    }

    fn lock(&self, charges: &[Charge]) -> Locked<'_> {
        Locked::of(&self.shards, charges, self.capacity)
    }
}

/// What a lease takes at the least and at the most, and of what is left of a limit: one part of so many.
const LEAST_AHEAD: u64 = if cfg!(palisade_shuttle) { 2 } else { 16 };
const MOST_AHEAD: u64 = 256;
const PART_AHEAD: u64 = 8;

#[cfg(test)]
mod tests;

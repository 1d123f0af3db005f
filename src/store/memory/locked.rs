//! The shards of an admission: of several records, or of limits that have no places yet.

use std::slice::from_ref;

use super::{
    shard::{IN_OVERFLOW, Shard, Shards, overflow_key},
    slabs::Place,
};
use crate::{
    observe,
    store::{
        Charge, Inline, Key, MAX_CHARGES, NO_CHARGE, Receipt, Seen, StoreError,
        rules::{self, Asks},
    },
    sync::MutexGuard,
};

/// The shards of an admission, locked in the order of their numbers so that no two callers wait for
/// each other.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    shards: &'a Shards,
    runs: Runs,
    numbers: Inline<u32>,
    guards: [Option<MutexGuard<'a, Shard>>; MAX_CHARGES],
    /// Records in a shard, but those of what overflows.
    capacity: usize,
}

/// All charges of an admission, run by run.
#[derive(Clone, Copy, Debug)]
struct Runs(Inline<Run>);

/// Charges of the same record that stand side by side: how many, and in which shard.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    len: u32,
    shard: u32,
}

/// Where a charge is kept: in a record of a shard that is locked, and in a place there, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    at: Option<Place>,
    entry: Option<u8>,
    overflow: bool,
}

impl<'a> Locked<'a> {
    pub(super) fn of(shards: &'a Shards, charges: &[Charge], capacity: usize) -> Self {
        let runs = Runs::of(charges, shards);
        let mut numbers = Inline::default();
        for run in runs.0.as_slice() {
            if !numbers.as_slice().contains(&run.shard) {
                numbers.push(run.shard);
            }
        }
        numbers.as_mut_slice().sort_unstable();
        let mut guards = [const { None }; MAX_CHARGES];
        for (number, guard) in numbers.as_slice().iter().zip(&mut guards) {
            *guard = shards.lock(*number);
        }
        Self { shards, runs, numbers, guards, capacity }
    }
}

impl Locked<'_> {
    /// The time by which to decide: never earlier than one that was decided by before.
    pub(super) fn now(&mut self, now: u64) -> u64 {
        let now = self.shards().fold(now, |now, shard| now.max(shard.now));
        for shard in self.guards.iter_mut().map_while(Option::as_deref_mut) {
            shard.now = now;
        }
        now
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.guards.iter().map_while(Option::as_deref)
    }

    /// The shard of a charge's record.
    pub(super) fn shard_of(&mut self, charge: &Charge) -> Option<&mut Shard> {
        shard(&self.numbers, &mut self.guards, self.shards.number(&charge.record))
    }

    /// Charges all of them, or none, where all limits stand in their records as they do in the admission, as they do from its
    /// second time on. Whether it did. `None`, and nothing is decided: they don't.
    pub(super) fn charge_in_place(&mut self, charges: &[Charge], seen: &mut Seen) -> Option<bool> {
        if let [_] = self.runs.0.as_slice() {
            return None; // That was tried.
        }
        let (now, receipts) = (seen.at, seen.receipts.stretched(charges.len()));
        let (mut all_fit, mut places) = (Some(true), Inline::default());
        self.visit(charges, receipts, |shard, key, run, receipts| {
            let place = shard.records.find(key, run.len());
            let record = place.and_then(|place| shard.records.at(place));
            let found = record.and_then(|record| record.charge_in_place(run, receipts, now));
            places.push(place.zip(found.map(|(from, _)| from)));
            all_fit = all_fit.zip(found).map(|(all, (_, fits))| all && fits);
        });
        let (all_fit, mut places) = (all_fit?, places.as_slice().iter().flatten());
        self.visit(charges, receipts, |shard, _, run, receipts| {
            let Some((place, from)) = places.next() else { return };
            let Some(mut record) = shard.records.at(*place) else { return };
            match all_fit {
                true => record.keep(*from, run, receipts),
                false => record.see(*from, run, receipts, now),
            }
        });
        Some(all_fit)
    }

    /// Charges all of them, or none. Whether it did.
    pub(super) fn charge(
        &mut self,
        charges: &[Charge],
        seen: &mut Seen,
    ) -> Result<bool, StoreError> {
        let spots = self.read(charges, seen)?;
        let asks = Asks::of(charges);
        let fits = rules::decide(charges, &asks, seen.receipts.as_mut_slice(), seen.at);
        if fits {
            self.write(charges, spots.as_slice(), seen);
        }
        Ok(fits)
    }

    /// Where the charges are kept. Where their limits stand is added to what was `seen`. Changes nothing else that could be
    /// seen.
    pub(super) fn read(
        &mut self,
        charges: &[Charge],
        seen: &mut Seen,
    ) -> Result<Inline<Spot>, StoreError> {
        let mut spots = self.find(charges, seen);
        if spots.as_slice().iter().all(Spot::is_found) {
            return Ok(spots);
        }
        if !self.shards().all(|shard| shard.records.has_room()) {
            return Err(StoreError::transient("too many different sets of limits are in use"));
        }
        if spots.as_slice().iter().any(Spot::is_new) {
            self.sweep(charges, &spots);
            // Sweeping moves records.
            spots = self.find(charges, seen);
            self.check_overflow(charges, &spots)?;
        }
        if spots.as_slice().iter().any(Spot::lacks_place) {
            self.make_places(charges, &spots)?;
            // Making places moves records, too.
            spots = self.find(charges, seen);
            if spots.as_slice().iter().any(Spot::lacks_place) {
                return Err(StoreError::permanent("a record has lost a limit"));
            }
        }
        Ok(spots)
    }

    pub(super) fn find(&mut self, charges: &[Charge], seen: &mut Seen) -> Inline<Spot> {
        let (capacity, mut spots) = (self.capacity, Inline::new(NOWHERE));
        seen.receipts = Inline::filled(Receipt::default(), charges.len());
        self.visit(charges, seen.receipts.as_mut_slice(), |shard, key, run, receipts| {
            let records = &mut shard.records;
            let own = records.find(key, run.len());
            let overflow = own.is_none() && records.len() >= capacity;
            for (hint, (charge, receipt)) in run.iter().zip(receipts).enumerate() {
                let at = if overflow { records.find(&overflow_key(charge), 1) } else { own };
                let record = at.and_then(|at| records.at(at));
                let found = record.and_then(|record| record.find(&charge.limit, hint));
                let entry = found.map(|(entry, state)| {
                    *receipt = state;
                    entry as u8
                });
                spots.push(Spot { at, entry, overflow });
            }
        });
        spots
    }

    /// Makes room for new records, once for each.
    fn sweep(&mut self, charges: &[Charge], spots: &Inline<Spot>) {
        let (capacity, mut swept) = (self.capacity, None);
        for (charge, _) in charges.iter().zip(spots.as_slice()).filter(|(_, spot)| spot.is_new()) {
            if swept.replace(charge.record) != Some(charge.record)
                && let Some(shard) = self.shard_of(charge)
            {
                shard.sweep(capacity);
            }
        }
    }

    /// One limit of two records is one limit where both overflow: it can't be charged twice at once.
    fn check_overflow(&self, charges: &[Charge], spots: &Inline<Spot>) -> Result<(), StoreError> {
        let mut kept = Inline::new((0, overflow_key(&NO_CHARGE)));
        let overflowing = charges.iter().zip(spots.as_slice()).filter(|(_, spot)| spot.overflow);
        for (charge, _) in overflowing {
            let place = (self.shards.number(&charge.record), overflow_key(charge));
            if kept.as_slice().contains(&place) {
                return Err(StoreError::transient("there is no room for one limit on two records"));
            }
            kept.push(place);
        }
        Ok(())
    }

    /// Sees that limits have places in their records, where there are such.
    fn make_places(&mut self, charges: &[Charge], spots: &Inline<Spot>) -> Result<(), StoreError> {
        let lacking = charges.iter().zip(spots.as_slice()).filter(|(_, spot)| spot.lacks_place());
        for (charge, Spot { overflow, .. }) in lacking {
            let key = if *overflow { overflow_key(charge) } else { charge.record };
            let beside = charges.iter().filter(|other| {
                if *overflow { *other == charge } else { other.record == charge.record }
            });
            if !self.shard_of(charge).is_none_or(|shard| shard.make_places(&key, beside)) {
                let error = "a record has more live limits than it has places";
                return Err(StoreError::permanent(error));
            }
        }
        Ok(())
    }

    /// Keeps what was charged.
    fn write(&mut self, charges: &[Charge], spots: &[Spot], seen: &mut Seen) {
        let (receipts, mut places) = (seen.receipts.as_mut_slice(), spots.iter());
        self.visit(charges, receipts, |shard, _, run, receipts| {
            for ((charge, receipt), spot) in run.iter().zip(receipts).zip(&mut places) {
                if let Some((at, entry)) = spot.place()
                    && charge.cost > 0
                {
                    shard.set(at, entry, &charge.limit, *receipt);
                }
            }
        });
        if spots.iter().all(Spot::is_found) {
            return;
        }
        // After all that have a place: a new record moves others.
        let mut spots = spots.iter();
        self.visit(charges, receipts, |shard, key, run, receipts| {
            let mut is_new = false;
            for ((charge, receipt), spot) in run.iter().zip(&mut *receipts).zip(&mut spots) {
                is_new |= spot.at.is_none() && !spot.overflow;
                if spot.overflow {
                    if spot.place().is_none() {
                        let (alone, receipt) = (from_ref(charge), from_ref(receipt));
                        shard.add(&overflow_key(charge), alone, receipt);
                    }
                    observe::count("palisade_store_overflow_total", &[("store", "memory")]);
                    receipt.0[1] |= IN_OVERFLOW;
                }
            }
            if is_new {
                shard.add(key, run, receipts);
            }
        });
    }

    /// Calls `visit` with the shard, the key, the charges and their receipts of each run.
    #[inline]
    fn visit(
        &mut self,
        mut charges: &[Charge],
        mut receipts: &mut [Receipt],
        mut visit: impl FnMut(&mut Shard, &Key, &[Charge], &mut [Receipt]),
    ) {
        for Run { len, shard: number } in self.runs.0.as_slice() {
            let parts = charges.split_at_checked(*len as usize);
            let parts = parts.zip(receipts.split_at_mut_checked(*len as usize));
            let Some(((run, other), (of_run, of_others))) = parts else { return };
            (charges, receipts) = (other, of_others);
            let shard = shard(&self.numbers, &mut self.guards, *number);
            if let Some((shard, Charge { record, .. })) = shard.zip(run.first()) {
                visit(shard, record, run, of_run);
            }
        }
    }
}

impl Runs {
    fn of(charges: &[Charge], shards: &Shards) -> Self {
        let mut runs = Self(Inline::default());
        for run in charges.chunk_by(|one, other| one.record == other.record) {
            if let Some(Charge { record, .. }) = run.first() {
                runs.0.push(Run { len: run.len() as u32, shard: shards.number(record) });
            }
        }
        runs
    }
}

impl Spot {
    /// Whether its limit has a place, in the key's own record.
    pub(super) fn is_found(&self) -> bool {
        self.entry.is_some() && !self.overflow
    }

    /// Where it is, if it has a place.
    pub(super) fn place(&self) -> Option<(Place, u8)> {
        self.at.zip(self.entry)
    }

    /// Whether its key has no record of its own.
    fn is_new(&self) -> bool {
        self.at.is_none() || self.overflow
    }

    /// Whether there is a record, and the limit not in it.
    fn lacks_place(&self) -> bool {
        self.at.is_some() && self.entry.is_none()
    }
}

const NOWHERE: Spot = Spot { at: None, entry: None, overflow: false };

/// That one of the locked shards which has this number.
fn shard<'l>(
    numbers: &Inline<u32>,
    guards: &'l mut [Option<MutexGuard<'_, Shard>>; MAX_CHARGES],
    number: u32,
) -> Option<&'l mut Shard> {
    let at = numbers.as_slice().iter().position(|locked| *locked == number)?;
    guards.get_mut(at)?.as_deref_mut()
}

//! Limits: shards of records, locked in a fixed order.

use std::sync::PoisonError;

use super::{
    lanes::{self, Lanes, Lease, Rest},
    record::Record,
    slabs::{Place as At, Slabs},
};
use crate::{
    observe,
    store::{
        Admission, Charge, Inline, Key, Limit, MAX_CHARGES, NO_CHARGE, Receipt, Refusal, Seen,
        Settlement, Standings, StoreError,
        rules::{self, Asks, Correction, State},
    },
    sync::{Mutex, MutexGuard},
};

#[derive(Debug)]
pub(super) struct Limits {
    shards: Box<[Locking]>,
    /// Records in a shard, but those of what overflows.
    capacity: usize,
    lanes: Lanes,
}

/// A shard and its lock, with what each admission writes in one line of a processor's cache that no other shard's is in.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Locking(Mutex<Shard>);

#[derive(Debug, Default)]
#[repr(C)]
struct Shard {
    /// The latest time seen here. An earlier one counts as this.
    now: u64,
    heat: Heat,
    /// Charges of leases that have not ended, and when the last of them does.
    ahead: u32,
    ahead_until: u64,
    records: Slabs,
}

/// How often the same key was admitted of late.
#[derive(Debug, Default)]
struct Heat {
    key: u32,
    times: u32,
    since: u64,
}

/// Where a charge is kept: in a record of a shard that is locked, and in a place there, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spot {
    at: Option<At>,
    entry: Option<u8>,
    overflow: bool,
}

/// What became of an admission where its limits are kept.
enum Decided {
    Admitted,
    Refused,
    /// Nothing: leases are to be recalled first.
    Later,
}

/// Charges of the same record that stand side by side: how many, and in which shard.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    len: u32,
    shard: u32,
}

/// All charges of an admission, run by run.
#[derive(Debug)]
struct Runs(Inline<Run>);

/// The shards of an admission, locked in the order of their numbers so that no two callers wait for
/// each other.
struct Locked<'a> {
    numbers: Inline<u32>,
    guards: [Option<MutexGuard<'a, Shard>>; MAX_CHARGES],
    mask: u32,
    capacity: usize,
}

impl Limits {
    pub(super) fn new(shards: usize, max_records: usize) -> Self {
        let shards = shards.next_power_of_two();
        Self {
            shards: (0..shards).map(|_| Locking::default()).collect(),
            capacity: max_records.div_ceil(shards),
            lanes: Lanes::default(),
        }
    }

    /// Grants the admission if it was taken ahead. Or else the lane in which to look for such admissions, if they are of a
    /// busy key.
    #[inline]
    pub(super) fn granted_ahead(
        &self,
        charges: &[Charge],
        now: u64,
    ) -> Result<Seen, Option<MutexGuard<'_, Lease>>> {
        let Some(mut lease) = self.lane(charges) else { return Err(None) };
        lease.grant(charges, now).ok_or(Some(lease))
    }

    /// The lane in which to look for such admissions, if they are of a busy key.
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
        rules::check(admission)?;
        let charges = admission.charges;
        let refusal = |seen: &Seen| Ok(Some(rules::refusal(charges, &Asks::of(charges), *seen)));
        let decided = match &mut lane {
            Some(lease) if !lease.is_used_up() => Decided::Later,
            lease => self.decide(charges, now, seen, lease.as_deref_mut(), true)?,
        };
        drop(lane);
        match decided {
            Decided::Admitted => return Ok(None),
            Decided::Refused => return refusal(seen),
            // Nobody is refused for what only lies ready for others.
            Decided::Later => self.recall(charges, now),
        }
        let mut lane = self.lane(charges).filter(|lease| lease.is_used_up());
        match self.decide(charges, now, seen, lane.as_deref_mut(), false)? {
            Decided::Refused => refusal(seen),
            Decided::Admitted | Decided::Later => Ok(None),
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
        let is_busy = match self.charge_one(charges, now, seen, heeded) {
            Some(is_busy) => is_busy,
            None => match self.charge_all(charges, now, seen, heeded)? {
                Ok(is_busy) => is_busy,
                Err(decided) => return Ok(decided),
            },
        };
        if in_demand.unwrap_or(is_busy) {
            // A lease that was in vain, as where each admission costs something else, is not followed by another.
            match (lease, charges.first()) {
                (Some(lease), _) => self.take_ahead(charges, now, lease),
                (None, Some(charge)) => self.lanes.look_for(&charge.record),
                (None, None) => {}
            }
        }
        Ok(Decided::Admitted)
    }

    /// Charges limits of one record that stand there as they do in the admission, as they do from its second time on. Whether
    /// the record is a busy one. `None`, and nothing has changed: they don't, or not all of it fits, or leases are to be recalled.
    #[inline]
    fn charge_one(
        &self,
        charges: &[Charge],
        now: u64,
        seen: &mut Seen,
        heeded: bool,
    ) -> Option<bool> {
        let (Charge { record: key, .. }, others) = charges.split_first()?;
        if others.iter().any(|other| other.record != *key) {
            return None;
        }
        let mut shard = self.shard(number(key, self.mask()))?;
        if heeded && shard.holds_what_is_over(now) {
            return None;
        }
        seen.at = shard.now(now);
        let receipts = seen.receipts.stretched(charges.len());
        shard.charge_in_place(key, charges, receipts, seen.at)?.keep(charges, receipts);
        Some(shard.heat.rises(key, seen.at))
    }

    /// Charges limits wherever they are. Whether the first of their records is a busy one, or what became of it otherwise.
    fn charge_all(
        &self,
        charges: &[Charge],
        now: u64,
        seen: &mut Seen,
        heeded: bool,
    ) -> Result<Result<bool, Decided>, StoreError> {
        let runs = Runs::of(charges, self.mask());
        let mut locked = self.lock(&runs);
        if heeded && locked.shards().any(|shard| shard.holds_what_is_over(now)) {
            return Ok(Err(Decided::Later));
        }
        seen.at = locked.now(now);
        if !locked.charge_in_place(charges, &runs, seen) && !locked.charge(charges, &runs, seen)? {
            let holds_leases = locked.shards().any(|shard| shard.ahead > 0);
            return Ok(Err(if heeded && holds_leases { Decided::Later } else { Decided::Refused }));
        }
        Ok(Ok(charges.first().is_some_and(|charge| locked.heats(&charge.record, seen.at))))
    }

    /// Charges more of the same for a lease, if there is plenty.
    #[inline(never)]
    fn take_ahead(&self, charges: &[Charge], now: u64, lease: &mut Lease) {
        let runs = Runs::of(charges, self.mask());
        let mut locked = self.lock(&runs);
        let (now, mut seen) = (locked.now(now), Seen::default());
        seen.at = now;
        let spots = locked.find(charges, &runs, &mut seen);
        let (asks, until, mut receipts) = (Asks::of(charges), now + lanes::LONGEST, seen.receipts);
        let stand = seen.receipts.as_slice();
        let times = rules::times_ahead(charges, &asks, stand, PART_AHEAD, now, until);
        if times < LEAST_AHEAD || !spots.as_slice().iter().all(Spot::is_found) {
            return;
        }
        let times = times.min(MOST_AHEAD);
        rules::charge_times(charges, &asks, receipts.as_mut_slice(), times, until);
        let parts = charges.iter().zip(spots.as_slice()).zip(receipts.as_slice());
        for ((charge, spot), receipt) in parts {
            if let Some(shard) = locked.shard_of(&charge.record) {
                shard.set(*spot, &charge.limit, *receipt);
                (shard.ahead, shard.ahead_until) = (shard.ahead + 1, until);
            }
        }
        lease.begin(charges, &seen, receipts, times);
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
        let steps = rest.asks.iter().map(|ask| ask.step * rest.left);
        let parts = rest.charges.as_slice().iter().zip(rest.receipts.as_slice()).zip(steps);
        let parts = parts.map(|((charge, receipt), give_back)| {
            (charge, *receipt, Correction { give_back, add: 0 })
        });
        // Where nothing has happened since it ended, as much as it would have been then.
        self.correct(parts, || rest.ended, |shard| shard.ahead = shard.ahead.saturating_sub(1));
    }

    pub(super) fn peek(
        &self,
        admission: &Admission<'_>,
        now: u64,
    ) -> Result<Standings, StoreError> {
        rules::check(admission)?;
        self.recall(admission.charges, now);
        let runs = Runs::of(admission.charges, self.mask());
        let mut locked = self.lock(&runs);
        let mut seen = Seen::new(Inline::default(), locked.now(now));
        locked.read(admission.charges, &runs, &mut seen)?;
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

    /// Corrects charges, one shard after the other.
    fn correct<'a>(
        &self,
        parts: impl Iterator<Item = (&'a Charge, Receipt, Correction)>,
        now: impl Fn() -> u64,
        note: impl Fn(&mut Shard),
    ) {
        let mut held: Option<(u32, MutexGuard<'_, Shard>)> = None;
        let mut time = None;
        for (charge, receipt, correction) in parts {
            let number = number(&charge.record, self.mask());
            if held.as_ref().is_none_or(|(locked, ..)| *locked != number) {
                // The one before is let go first: no two callers wait for each other.
                drop(held.take());
                held = self.shard(number).map(|shard| (number, shard));
            }
            if let Some((_, shard)) = &mut held {
                note(shard);
                if !correction.changes_nothing() {
                    // To slots all times are one.
                    if !charge.limit.is_slots() {
                        shard.now = shard.now.max(*time.get_or_insert_with(&now));
                    }
                    shard.settle(charge, receipt, correction, self.capacity);
                }
            }
        }
    }

    pub(super) fn reset(&self, record: &Key, now: u64) {
        self.recall(&[Charge { record: *record, ..NO_CHARGE }], now);
        let Some(mut shard) = self.shard(number(record, self.mask())) else { return };
        let now = now.max(shard.now);
        let place = shard.records.find(record, 1);
        if let Some(mut record) = place.and_then(|place| shard.records.at(place)) {
            record.forget(now);
        }
    }

    fn lock(&self, runs: &Runs) -> Locked<'_> {
        let mut numbers = Inline::default();
        for run in runs.0.as_slice() {
            if !numbers.as_slice().contains(&run.shard) {
                numbers.push(run.shard);
            }
        }
        if numbers.as_slice().len() > 1 {
            numbers.as_mut_slice().sort_unstable();
        }
        let mut guards = [const { None }; MAX_CHARGES];
        for (number, guard) in numbers.as_slice().iter().zip(&mut guards) {
            *guard = self.shard(*number);
        }
        Locked { numbers, guards, mask: self.mask(), capacity: self.capacity }
    }

    /// The bits of a key that tell its shard.
    fn mask(&self) -> u32 {
        // There are at most 65,536.
        self.shards.len() as u32 - 1
    }

    fn shard(&self, number: u32) -> Option<MutexGuard<'_, Shard>> {
        // A panic while it was held, which nothing here can cause, left whole records behind.
        let Locking(shard) = self.shards.get(number as usize)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Locked<'_> {
    /// The time by which to decide: never earlier than one that was decided by before.
    fn now(&mut self, now: u64) -> u64 {
        let now = self.shards().fold(now, |now, shard| now.max(shard.now));
        for shard in self.guards.iter_mut().map_while(Option::as_deref_mut) {
            shard.now = now;
        }
        now
    }

    fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.guards.iter().map_while(Option::as_deref)
    }

    /// Charges all of them, or none, where all limits stand in their records as they do in the admission, as they do from its
    /// second time on. False, and nothing has changed: they don't, or not all of it fits.
    #[inline]
    fn charge_in_place(&mut self, charges: &[Charge], runs: &Runs, seen: &mut Seen) -> bool {
        let now = seen.at;
        let receipts = seen.receipts.stretched(charges.len());
        let mut all_fit = true;
        runs.visit(charges, receipts, |shard, key, charges, receipts| {
            let shard = self.shard(shard);
            all_fit = all_fit
                && shard
                    .is_some_and(|it| it.charge_in_place(key, charges, receipts, now).is_some());
        });
        if all_fit {
            runs.visit(charges, receipts, |shard, key, charges, receipts| {
                if let Some(mut record) = self.shard(shard).and_then(|it| it.record(key, charges)) {
                    record.keep(charges, receipts);
                }
            });
        }
        all_fit
    }

    /// Charges all of them, or none. Whether it did.
    fn charge(
        &mut self,
        charges: &[Charge],
        runs: &Runs,
        seen: &mut Seen,
    ) -> Result<bool, StoreError> {
        let spots = self.read(charges, runs, seen)?;
        let asks = Asks::of(charges);
        let fits = rules::decide(charges, &asks, seen.receipts.as_mut_slice(), seen.at);
        if fits {
            self.write(charges, runs, &asks, spots.as_slice(), seen);
        }
        Ok(fits)
    }

    /// Where the charges are kept. Where their limits stand is added to what was `seen`. Changes nothing else that could be
    /// seen.
    fn read(
        &mut self,
        charges: &[Charge],
        runs: &Runs,
        seen: &mut Seen,
    ) -> Result<Inline<Spot>, StoreError> {
        let now = seen.at;
        let mut spots = self.find(charges, runs, seen);
        if spots.as_slice().iter().all(Spot::is_found) {
            return Ok(spots);
        }
        let is_new = |spot: &Spot| spot.at.is_none() || spot.overflow;
        if spots.as_slice().iter().any(is_new) {
            let mut swept = None;
            if !self.shards().all(|shard| shard.records.has_room()) {
                return Err(StoreError::transient("too many different sets of limits are in use"));
            }
            for (charge, spot) in charges.iter().zip(spots.as_slice()) {
                if is_new(spot) && swept.replace(charge.record) != Some(charge.record) {
                    self.sweep(&charge.record, now);
                }
            }
            // Sweeping moves records.
            spots = self.find(charges, runs, seen);
            self.check_overflow(charges, spots.as_slice())?;
        }
        let lacks_place = |spot: &Spot| spot.at.is_some() && spot.entry.is_none();
        if spots.as_slice().iter().any(lacks_place) {
            for (charge, spot) in charges.iter().zip(spots.as_slice()) {
                self.make_place(charge, *spot, charges, now)?;
            }
            // Making places moves records, too.
            spots = self.find(charges, runs, seen);
            if spots.as_slice().iter().any(lacks_place) {
                return Err(StoreError::permanent("a record has lost a limit"));
            }
        }
        Ok(spots)
    }

    /// One limit of two records is one limit where both overflow: it can't be charged twice at once.
    fn check_overflow(&self, charges: &[Charge], spots: &[Spot]) -> Result<(), StoreError> {
        let mut kept = Inline::new((0, overflow_key(&NO_CHARGE)));
        let overflowing = charges.iter().zip(spots).filter(|(_, spot)| spot.overflow);
        for (charge, _) in overflowing {
            let place = (number(&charge.record, self.mask), overflow_key(charge));
            if kept.as_slice().contains(&place) {
                return Err(StoreError::transient("there is no room for one limit on two records"));
            }
            kept.push(place);
        }
        Ok(())
    }

    fn find(&mut self, charges: &[Charge], runs: &Runs, seen: &mut Seen) -> Inline<Spot> {
        let (capacity, mut spots) = (self.capacity, Inline::new(NOWHERE));
        seen.receipts = Inline::filled(Receipt::default(), charges.len());
        runs.visit(charges, seen.receipts.as_mut_slice(), |shard, key, charges, receipts| {
            let Some(Shard { records, .. }) = self.shard(shard) else { return };
            let own = records.find(key, charges.len());
            let overflow = own.is_none() && records.len() >= capacity;
            for (hint, (charge, receipt)) in charges.iter().zip(receipts).enumerate() {
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

    /// Sees that a limit has a place in its record, if there is one.
    fn make_place(
        &mut self,
        charge: &Charge,
        spot: Spot,
        charges: &[Charge],
        now: u64,
    ) -> Result<(), StoreError> {
        let Some(shard) = self.shard_of(&charge.record).filter(|_| spot.at.is_some()) else {
            return Ok(());
        };
        let beside = charges.iter().filter(|other| {
            if spot.overflow { *other == charge } else { other.record == charge.record }
        });
        if shard.make_places(&spot.key(charge), beside, now) {
            return Ok(());
        }
        Err(StoreError::permanent("a record has more live limits than it has places"))
    }

    fn write(
        &mut self,
        charges: &[Charge],
        runs: &Runs,
        asks: &Asks,
        spots: &[Spot],
        seen: &mut Seen,
    ) {
        let (now, mut all_written) = (seen.at, true);
        let mut parts = asks.iter().zip(spots);
        runs.visit(charges, seen.receipts.as_mut_slice(), |shard, _, charges, receipts| {
            let Some(shard) = self.shard(shard) else { return };
            for ((charge, receipt), (ask, spot)) in charges.iter().zip(receipts).zip(&mut parts) {
                all_written &= ask.step == 0 || shard.set(*spot, &charge.limit, *receipt);
            }
        });
        if all_written && !spots.iter().any(|spot| spot.overflow) {
            return;
        }
        // After all that have a place: a new record moves others.
        let mut parts = asks.iter().zip(spots);
        runs.visit(charges, seen.receipts.as_mut_slice(), |shard, key, run, receipts| {
            let Some(shard) = self.shard(shard) else { return };
            for ((charge, receipt), (ask, spot)) in run.iter().zip(receipts).zip(&mut parts) {
                let (key, beside) = match spot.overflow {
                    true => (overflow_key(charge), std::slice::from_ref(charge)),
                    false => (*key, run),
                };
                if ask.step > 0 && spot.entry.is_none() {
                    shard.write(&key, charge, *receipt, beside, now);
                }
                if spot.overflow {
                    observe::count("palisade_store_overflow_total", &[("store", "memory")]);
                    receipt.0[1] |= IN_OVERFLOW;
                }
            }
        });
    }

    /// Whether the key is one that others may have to wait for.
    fn heats(&mut self, key: &Key, now: u64) -> bool {
        self.shard_of(key).is_some_and(|shard| shard.heat.rises(key, now))
    }

    fn sweep(&mut self, key: &Key, now: u64) {
        let capacity = self.capacity;
        if let Some(shard) = self.shard_of(key) {
            let full = shard.records.len() >= capacity;
            let steps = if full { STEPS_WHEN_FULL } else { STEPS };
            shard.records.sweep(steps, now);
        }
    }

    fn shard_of(&mut self, key: &Key) -> Option<&mut Shard> {
        self.shard(number(key, self.mask))
    }

    fn shard(&mut self, number: u32) -> Option<&mut Shard> {
        let at = self.numbers.as_slice().iter().position(|locked| *locked == number)?;
        self.guards.get_mut(at)?.as_deref_mut()
    }
}

impl Runs {
    fn of(charges: &[Charge], mask: u32) -> Self {
        let mut runs = Self(Inline::default());
        for run in charges.chunk_by(|one, other| one.record == other.record) {
            if let Some(Charge { record, .. }) = run.first() {
                runs.0.push(Run { len: run.len() as u32, shard: number(record, mask) });
            }
        }
        runs
    }

    /// Calls `visit` with the shard, the key, the charges and their receipts of each run.
    #[inline]
    fn visit(
        &self,
        mut charges: &[Charge],
        mut receipts: &mut [Receipt],
        mut visit: impl FnMut(u32, &Key, &[Charge], &mut [Receipt]),
    ) {
        for Run { len, shard } in self.0.as_slice() {
            let parts = charges.split_at_checked(*len as usize);
            let parts = parts.zip(receipts.split_at_mut_checked(*len as usize));
            let Some(((run, other), (of_run, of_others))) = parts else { return };
            (charges, receipts) = (other, of_others);
            if let Some(Charge { record, .. }) = run.first() {
                visit(*shard, record, run, of_run);
            }
        }
    }
}

impl Shard {
    /// The time by which to decide: never earlier than one that was decided by before.
    #[inline]
    fn now(&mut self, now: u64) -> u64 {
        self.now = self.now.max(now);
        self.now
    }

    /// Whether a lease is over that has not given back what it did not grant.
    #[inline]
    fn holds_what_is_over(&self, now: u64) -> bool {
        self.ahead > 0 && now > self.ahead_until
    }

    /// The record of these charges.
    #[inline]
    fn record(&mut self, key: &Key, charges: &[Charge]) -> Option<Record<'_>> {
        let place = self.records.find(key, charges.len())?;
        self.records.at(place)
    }

    /// Notes what charges of one record make of their limits, for the record, which is returned, to keep. `None`: these do not
    /// stand there as they do in the admission, or not all of it fits.
    #[inline]
    fn charge_in_place(
        &mut self,
        key: &Key,
        charges: &[Charge],
        receipts: &mut [Receipt],
        now: u64,
    ) -> Option<Record<'_>> {
        let record = self.record(key, charges)?;
        record.charge_in_place(charges, receipts, now).then_some(record)
    }

    /// Sees that each of `charges` has a place in the record of `key`, which may move it and others. False: more limits
    /// are in use than a record has places.
    fn make_places<'a>(
        &mut self,
        key: &Key,
        charges: impl Iterator<Item = &'a Charge> + Clone,
        now: u64,
    ) -> bool {
        loop {
            let Some(at) = self.records.find(key, 1) else { return false };
            let Some(mut record) = self.records.at(at) else { return false };
            if record.make_places(charges.clone(), now) {
                return true;
            }
            if self.records.grow(key, at).is_none() {
                return false;
            }
        }
    }

    /// Sets where a limit stands. False when it has no place yet.
    fn set(&mut self, spot: Spot, limit: &Limit, state: Receipt) -> bool {
        let Some((at, entry)) = spot.at.zip(spot.entry) else { return false };
        let record = self.records.at(at);
        record.is_some_and(|mut record| record.set(usize::from(entry), limit, state))
    }

    /// Sets where the limit of `charge` stands, in the record of `key`. If there is none, one is made for all limits that are
    /// charged `beside` it.
    fn write(&mut self, key: &Key, charge: &Charge, state: Receipt, beside: &[Charge], now: u64) {
        let places = beside.len();
        if self.records.find(key, places).is_none() {
            self.records.add(key, beside);
        }
        if !self.make_places(key, std::iter::once(charge), now) {
            return;
        }
        let at = self.records.find(key, places);
        let Some(mut record) = at.and_then(|at| self.records.at(at)) else { return };
        if let Some((entry, _)) = record.find(&charge.limit, 0) {
            record.set(entry, &charge.limit, state);
        }
    }

    fn settle(
        &mut self,
        charge: &Charge,
        receipt: Receipt,
        correction: Correction,
        capacity: usize,
    ) {
        let (limit, now) = (&charge.limit, self.now);
        let overflow = receipt.0[1] & IN_OVERFLOW != 0;
        let mut key = if overflow { overflow_key(charge) } else { charge.record };
        let at = self.records.find(&key, 1);
        if let Some(mut record) = at.and_then(|at| self.records.at(at)) {
            if let Some((entry, state)) = record.find(limit, 0) {
                let state = limit.kind.settle(state.state(&limit.kind), correction, receipt, now);
                record.set(entry, limit, state.receipt(&limit.kind));
                return;
            }
        } else if correction.add == 0 {
            return; // It is gone because all of it has drained.
        } else if self.records.len() >= capacity {
            key = overflow_key(charge);
        }
        let state = limit.kind.settle(State::default(), correction, receipt, now);
        self.write(&key, charge, state.receipt(&limit.kind), std::slice::from_ref(charge), now);
    }
}

impl Heat {
    /// Counts an admission. Whether there were many of the key in a short time.
    fn rises(&mut self, key: &Key, now: u64) -> bool {
        let [.., a, b, c, d] = *key.as_bytes();
        let key = u32::from_le_bytes([a, b, c, d]);
        if self.key != key || now > self.since + lanes::LONGEST {
            *self = Self { key, times: 0, since: now };
        }
        self.times += 1;
        self.times >= lanes::BUSY
    }
}

impl Spot {
    /// Whether its limit has a place, in the key's own record.
    fn is_found(&self) -> bool {
        self.entry.is_some() && !self.overflow
    }

    /// Whose record it is.
    fn key(self, charge: &Charge) -> Key {
        if self.overflow { overflow_key(charge) } else { charge.record }
    }
}

const NOWHERE: Spot = Spot { at: None, entry: None, overflow: false };

/// How many records are looked at for each new one: more than one, so that idle ones are gone before
/// as many new ones have come.
const STEPS: usize = 2;
/// The same when a shard is full.
const STEPS_WHEN_FULL: usize = 16;
/// What a lease takes at the least and at the most, and of what is left of a limit: one part of so many.
const LEAST_AHEAD: u64 = if cfg!(palisade_shuttle) { 2 } else { 16 };
const MOST_AHEAD: u64 = 256;
const PART_AHEAD: u64 = 8;
/// Marks the receipt of what was charged to an overflow record, in the second word of which two bits are free.
const IN_OVERFLOW: u64 = 1 << 63;

/// The shard of a key: not by its group, which many may share. Its map uses the key's other half.
fn number(key: &Key, mask: u32) -> u32 {
    let [_, _, _, _, a, b, c, d, ..] = *key.as_bytes();
    u32::from_le_bytes([a, b, c, d]) & mask
}

/// The record that all keys for which there is no room share, in each shard and for each limit.
fn overflow_key(charge: &Charge) -> Key {
    let mut bytes = *b"overflow\0\0\0\0\0\0\0\0";
    let limit = u64::from(charge.limit.kind.code()) << 32 | u64::from(charge.limit.id().get());
    if let Some(last) = bytes.last_chunk_mut() {
        *last = limit.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    }
    Key::from_bytes(bytes)
}

#[cfg(test)]
mod tests;

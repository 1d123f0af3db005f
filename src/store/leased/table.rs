//! What is known of limits, the leases that are open, and the admissions that were made from them.

use std::{
    collections::{HashMap, VecDeque},
    task::Waker,
    time::Duration,
};

use super::{
    Options,
    block::{Block, Due, Part, Place, Work},
    entry::{Entry, Hold},
    line::{self, Line, Tail},
};
use crate::{
    observe,
    store::{Charge, Inline, Key, LimitId, Receipt, ReservationId, Standing, rules},
};

/// A limit of a record.
pub(super) type Slot = (Key, LimitId);

#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<Slot, Entry>,
    /// Each entry once, by when to look whether it is still needed.
    idle: VecDeque<(u64, Slot)>,
    blocks: HashMap<u64, Block>,
    /// Blocks by when their leases end.
    ends: VecDeque<(u64, u64)>,
    taken: HashMap<u64, Taken>,
    /// Who waits for a lease that is on its way.
    flights: HashMap<u64, Vec<Waker>>,
    last: u64,
}

/// An admission of which a part came from leases.
#[derive(Debug)]
pub(super) struct Taken {
    /// One per charge. `None`: it was charged to the inner store.
    pub(super) parts: Vec<Option<Taking>>,
    pub(super) receipts: Inline<Receipt>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Taking {
    place: Place,
    cost: u64,
    tail: Tail,
}

impl Table {
    /// Looks after a few of what is due: as many as were added since, or more.
    pub(super) fn sweep(&mut self, steps: usize, now: u64, options: &Options, work: &mut Work) {
        for _ in 0..steps {
            let Some((end, block)) = self.ends.front().copied() else { break };
            if end > now {
                break;
            }
            self.ends.pop_front();
            self.end(block, now, work);
        }
        for _ in 0..steps {
            let Some((due, slot)) = self.idle.front().copied() else { break };
            if due > now {
                break;
            }
            self.idle.pop_front();
            let Some(entry) = self.entries.get(&slot) else { continue };
            let is_idle = entry.touched + options.period <= now;
            if is_idle && entry.lease.is_none() && entry.flight.is_none() {
                self.entries.remove(&slot);
            } else {
                self.idle.push_back((now + options.period, slot));
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.ends.is_empty()
    }

    /// Whether one more admission may be made from leases.
    pub(super) fn has_room(&self, options: &Options) -> bool {
        self.taken.len() < options.max_reservations
    }

    /// Notes that `charge` is asked for. False: there is no room to watch its limit.
    pub(super) fn ask(
        &mut self,
        charge: &Charge,
        now: u64,
        options: &Options,
        work: &mut Work,
    ) -> bool {
        let slot = slot(charge);
        if let Some(entry) = self.entries.get_mut(&slot) {
            entry.touched = now;
            entry.demand.add(charge.cost, now / options.ahead);
            let old = std::mem::replace(&mut entry.limit, charge.limit);
            let is_rate = |limit| line::drained(limit, 0).is_some();
            if old != charge.limit && (is_rate(&old) || is_rate(&charge.limit)) {
                // A new rate: nothing that was known of the old one holds.
                (entry.hold, entry.standing) = (None, None);
                if let Some(place) = entry.lease {
                    self.end(place.block, now, work);
                }
            }
            return true;
        }
        if self.entries.len() >= options.max_leases {
            return false;
        }
        let mut entry = Entry::new(charge.limit);
        entry.touched = now;
        entry.demand.add(charge.cost, now / options.ahead);
        self.entries.insert(slot, entry);
        self.idle.push_back((now + options.period, slot));
        true
    }

    /// Units of its lease that `charge` could take.
    pub(super) fn left(&self, charge: &Charge, now: u64) -> u64 {
        let place = self.entries.get(&slot(charge)).and_then(|entry| entry.lease);
        place.and_then(|place| self.part(place)).map_or(0, |part| part.line.left(now))
    }

    pub(super) fn fits(&self, charge: &Charge, now: u64) -> bool {
        self.left(charge, now) >= charge.cost.max(1)
    }

    /// Takes `charge` from its lease.
    pub(super) fn take(&mut self, charge: &Charge, now: u64) -> Option<Taking> {
        let place = self.entries.get(&slot(charge))?.lease?;
        let part = self.part_mut(place)?;
        let tail = part.line.take(charge.cost, now)?;
        part.open.0 += 1;
        part.open.1 += charge.cost;
        Some(Taking { place, cost: charge.cost, tail })
    }

    /// Settles what was taken to `used`.
    pub(super) fn settle(&mut self, taking: Taking, used: u64, now: u64, work: &mut Work) {
        let Taking { place, cost, tail } = taking;
        let Some(block) = self.blocks.get_mut(&place.block) else { return };
        let Some(part) = block.parts.get_mut(place.part) else { return };
        part.open.0 = part.open.0.saturating_sub(1);
        part.open.1 = part.open.1.saturating_sub(cost);
        if let Some(entry) = self.entries.get_mut(&part.slot) {
            entry.refunds.add(cost, used);
        }
        let beyond = used.saturating_sub(cost);
        if block.settled {
            part.owed = part.owed.saturating_add(beyond);
        } else if beyond > 0 {
            part.line.charge(beyond, now);
        } else {
            part.line.give_back(cost.saturating_sub(used), tail, now);
        }
        if part.line.is_overdrawn() || part.owed > 0 {
            self.end(place.block, now, work);
        } else {
            self.close(place.block, now, work);
        }
    }

    /// Keeps an admission until it is settled; returns its ticket.
    pub(super) fn keep(&mut self, taken: Taken) -> u64 {
        self.last += 1;
        self.taken.insert(self.last, taken);
        self.last
    }

    pub(super) fn redeem(&mut self, ticket: u64) -> Option<Taken> {
        self.taken.remove(&ticket)
    }

    /// How many units to lease ahead of `charge`. Zero: it is asked for too seldom, or too little remains.
    pub(super) fn ahead(&self, charge: &Charge, now: u64, options: &Options) -> u64 {
        let Some(entry) = self.entries.get(&slot(charge)) else { return 0 };
        let (admissions, units) = entry.demand.most();
        let Some(drains) = line::drained(&charge.limit, options.ahead) else { return 0 };
        if admissions < 2 || self.blocks.len() >= options.max_leases {
            return 0;
        }
        let remaining = entry.standing_now(now).map_or(0, |standing| standing.remaining);
        let ahead = units.max(drains).min(remaining / options.instances.saturating_mul(2));
        // One that would not hold another like this one is not worth it.
        if ahead < charge.cost.max(1) { 0 } else { ahead }
    }

    /// Opens a lease for each of `charges`, which the inner store has granted, in the place of older ones.
    /// What the admission itself needs is taken from them: `charges` less `ahead`.
    pub(super) fn lease(
        &mut self,
        granted: (ReservationId, Inline<Charge>, Inline<Receipt>),
        ahead: &[u64],
        since: u64,
        now: u64,
        options: &Options,
        work: &mut Work,
    ) -> Vec<Option<Taking>> {
        let (id, charges, receipts) = granted;
        self.last += 1;
        let number = self.last;
        let mut parts = Vec::with_capacity(ahead.len());
        let mut taken = Vec::with_capacity(ahead.len());
        for (charge, ahead) in charges.as_slice().iter().zip(ahead) {
            let own = charge.cost.saturating_sub(*ahead);
            let line = Line::new(&charge.limit, charge.cost, since);
            // What can't be leased was not asked for ahead.
            let Some(mut line) = line else { continue };
            let place = Place { block: number, part: parts.len() };
            taken.push(line.take(own, since).map(|tail| Taking { place, cost: own, tail }));
            parts.push(Part { slot: slot(charge), line, live: true, open: (1, own), owed: 0 });
        }
        let slots: Vec<_> = parts.iter().map(|part| part.slot).collect();
        let block = Block { id, charges, receipts, parts, settled: false, settling: false };
        self.blocks.insert(number, block);
        self.ends.push_back((since + options.period, number));
        for (part, slot) in slots.into_iter().enumerate() {
            let Some(entry) = self.entries.get_mut(&slot) else { continue };
            let old = entry.lease.replace(Place { block: number, part });
            if let Some(old) = old {
                self.end_part(old, now, work);
            }
        }
        observe::count("palisade_leases_taken_total", &[]);
        taken
    }

    /// Ends the lease of `charge`. Whether it had anything to give back.
    pub(super) fn give_up(&mut self, charge: &Charge, now: u64, work: &mut Work) -> bool {
        let entry = self.entries.get_mut(&slot(charge));
        let Some(place) = entry.and_then(|entry| entry.lease.take()) else { return false };
        let unused = self.part(place).map_or(0, |part| part.line.unused(now));
        self.end_part(place, now, work);
        unused > 0
    }

    /// Units that ending the lease of `charge` would give back.
    pub(super) fn unused(&self, charge: &Charge, now: u64) -> u64 {
        let place = self.entries.get(&slot(charge)).and_then(|entry| entry.lease);
        place.and_then(|place| self.part(place)).map_or(0, |part| part.line.unused(now))
    }

    pub(super) fn end_all(&mut self, now: u64, work: &mut Work) {
        let blocks: Vec<_> = self.blocks.keys().copied().collect();
        for block in blocks {
            self.end(block, now, work);
        }
    }

    /// Settles all there is, though some admissions are not: nobody can settle them any more.
    pub(super) fn abandon(&mut self, now: u64, work: &mut Work) {
        for (_, block) in self.blocks.drain() {
            work.settlements.push(block.settlement(now));
        }
    }

    fn end(&mut self, block: u64, now: u64, work: &mut Work) {
        let Some(parts) = self.blocks.get(&block).map(|block| block.parts.len()) else { return };
        for part in 0..parts {
            self.end_part(Place { block, part }, now, work);
        }
    }

    /// No more is taken from it.
    fn end_part(&mut self, place: Place, now: u64, work: &mut Work) {
        let Some(block) = self.blocks.get_mut(&place.block) else { return };
        let Some(part) = block.parts.get_mut(place.part) else { return };
        part.live = false;
        let entry = self.entries.get_mut(&part.slot);
        if let Some(entry) = entry.filter(|it| it.lease.is_some_and(|it| it.block == place.block)) {
            entry.lease = None;
        }
        if !self.close(place.block, now, work) && self.is_better_settled_early(place.block, now) {
            work.early.push(place.block);
        }
    }

    /// Settles a block from which nothing more is taken and all admissions are settled.
    fn close(&mut self, block: u64, now: u64, work: &mut Work) -> bool {
        let found = self.blocks.get(&block);
        let is_open = |part: &Part| part.live || part.open.0 > 0;
        if found.is_none_or(|block| block.parts.iter().any(is_open)) {
            return false;
        }
        if let Some(block) = self.blocks.remove(&block) {
            observe::count("palisade_leases_returned_total", &[]);
            work.settlements.push(block.settlement(now));
        }
        true
    }

    /// Whether more waits to be given back than is to be expected of the open admissions, or there is debt.
    fn is_better_settled_early(&self, block: u64, now: u64) -> bool {
        let Some(block) = self.blocks.get(&block) else { return false };
        let is_live = block.parts.iter().any(|part| part.live);
        !is_live
            && !block.settling
            && block.parts.iter().any(|part| {
                if block.settled {
                    return part.owed > 0;
                }
                let unused = part.line.unused(now);
                let entry = self.entries.get(&part.slot);
                let expected = entry.map_or(0, |entry| entry.refunds.expected(part.open.1));
                part.line.is_overdrawn() || (unused > 0 && unused >= expected)
            })
    }

    /// The charges of a block that is to be settled early, at no cost: a grant of these takes its debts.
    pub(super) fn begin_early(&mut self, block: u64) -> Option<Inline<Charge>> {
        let block = self.blocks.get_mut(&block).filter(|block| !block.settling)?;
        block.settling = true;
        let mut charges = block.charges;
        for charge in charges.as_mut_slice() {
            charge.cost = 0;
        }
        Some(charges)
    }

    /// Settles a block early, now that there is a grant to take its debts; or the grant, if the block is gone.
    pub(super) fn settle_early(
        &mut self,
        block: u64,
        grant: Option<(ReservationId, Inline<Charge>, Inline<Receipt>)>,
        now: u64,
        work: &mut Work,
    ) {
        let found = self.blocks.get_mut(&block);
        let Some((id, charges, receipts)) = grant else {
            if let Some(block) = found {
                block.settling = false;
            }
            return;
        };
        let Some(block) = found else {
            let used = Inline::collect(0, charges.as_slice().iter().map(|_| 0));
            work.settlements.push(Due { id, charges, receipts, used });
            return;
        };
        work.settlements.push(block.settlement(now));
        (block.id, block.charges, block.receipts) = (id, charges, receipts);
        (block.settled, block.settling) = (true, false);
        for part in &mut block.parts {
            part.owed = 0;
        }
    }

    /// Remembers where the limit of `charge` stands.
    pub(super) fn learn(&mut self, charge: &Charge, standing: Standing, now: u64) {
        if let Some(entry) = self.entries.get_mut(&slot(charge)) {
            entry.standing = Some((standing, now));
        }
    }

    /// Where the limit of `charge` stands now, by what was last heard, and with what is leased of it.
    pub(super) fn standing(&self, charge: &Charge, now: u64) -> Option<Standing> {
        let standing = self.entries.get(&slot(charge))?.standing_now(now)?;
        Some(with_lease(charge, standing, self.left(charge, now)))
    }

    /// Remembers a refusal.
    pub(super) fn hold(&mut self, charge: &Charge, wait: Duration, now: u64, options: &Options) {
        let Some(entry) = self.entries.get_mut(&slot(charge)) else { return };
        let (cost, retry_at) = (charge.cost, now + rules::ticks(wait));
        let until = now + rules::ticks(wait.min(options.deny_hold));
        entry.hold = Some(Hold { cost, until, retry_at });
    }

    /// Forgets a refusal: something was given back.
    pub(super) fn let_go(&mut self, charge: &Charge) {
        if let Some(entry) = self.entries.get_mut(&slot(charge)) {
            entry.hold = None;
        }
    }

    /// How long `charge` has to wait, when as much was refused lately.
    pub(super) fn held(&self, charge: &Charge, now: u64) -> Option<Duration> {
        let hold = self.entries.get(&slot(charge))?.hold?;
        let held = now < hold.until && charge.cost >= hold.cost;
        held.then(|| rules::duration(hold.retry_at.saturating_sub(now)))
    }

    pub(super) fn flight_of(&self, charge: &Charge) -> Option<u64> {
        self.entries.get(&slot(charge))?.flight
    }

    /// A lease of `charges` is on its way.
    pub(super) fn depart(&mut self, charges: &[Charge]) -> u64 {
        self.last += 1;
        for charge in charges {
            if let Some(entry) = self.entries.get_mut(&slot(charge)) {
                entry.flight = Some(self.last);
            }
        }
        self.flights.insert(self.last, Vec::new());
        self.last
    }

    /// It has arrived, or never will. Returns who waits for it.
    pub(super) fn arrive(&mut self, flight: u64, charges: &[Charge]) -> Vec<Waker> {
        for charge in charges {
            if let Some(entry) = self.entries.get_mut(&slot(charge))
                && entry.flight == Some(flight)
            {
                entry.flight = None;
            }
        }
        self.flights.remove(&flight).unwrap_or_default()
    }

    /// Whether it has arrived; if not, `waker` is woken then.
    pub(super) fn has_arrived(&mut self, flight: u64, waker: &Waker) -> bool {
        let Some(waiting) = self.flights.get_mut(&flight) else { return true };
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        false
    }

    fn part(&self, place: Place) -> Option<&Part> {
        self.blocks.get(&place.block)?.parts.get(place.part)
    }

    fn part_mut(&mut self, place: Place) -> Option<&mut Part> {
        self.blocks.get_mut(&place.block)?.parts.get_mut(place.part)
    }
}

/// A standing of the inner store, with what of the limit is leased here.
pub(super) fn with_lease(charge: &Charge, standing: Standing, left: u64) -> Standing {
    let most = charge.limit.capacity().max(standing.remaining);
    let drains = rules::duration(line::ticks(&charge.limit, left).unwrap_or(0));
    let remaining = standing.remaining.saturating_add(left).min(most);
    Standing::new(remaining, standing.reset.saturating_sub(drains))
}

fn slot(charge: &Charge) -> Slot {
    (charge.record, charge.limit.id())
}

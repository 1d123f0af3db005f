//! Who is let in next: those within their tier's share, then those to whom something is lent.

use std::{cmp::Ordering, time::Duration};

use super::{Scheduler, Shed, Wakes, adaptive::BorrowLimit, load::Load, queue::State, slab::NONE};

/// Who is next.
enum Next {
    /// Within its tier's share.
    Owner(u32),
    /// Beyond it.
    Borrower(u32),
    /// One within its tier's share, for which there is no room: so many tokens, and for so many like it, so many slots.
    Blocked {
        tokens: u64,
        slots: u64,
    },
    Nobody,
}

impl Scheduler {
    /// Lets in whoever may be, until nobody is left who may.
    pub(super) fn dispatch(&mut self, now: Duration, wakes: &mut Wakes) {
        while self.waiting > 0 {
            match self.next(now, wakes) {
                Next::Owner(request) => self.let_in(request, false, now, wakes),
                Next::Borrower(request) => self.let_in(request, true, now, wakes),
                // Nothing is lent while an owner waits: else there would never be room for it.
                Next::Blocked { tokens, slots } => {
                    return self.reclaim(tokens, slots, now, wakes);
                }
                Next::Nobody => return,
            }
        }
    }

    fn next(&mut self, now: Duration, wakes: &mut Wakes) -> Next {
        let (mut owner, mut blocked, mut borrower) = (None, None, None);
        let mut wanted = 0;
        let mut held_back = false;
        for place in 0..self.tiers.len() as u32 {
            if self.tiers.at(place).waiting == 0 {
                continue;
            }
            let Some(head) = self.head(place, now, wakes) else { continue };
            let (tier, request) = (self.tiers.at(place), self.requests.at(head));
            let load = request.load();
            if tier.owns(load, request.parked) {
                let fewer = |other: &Option<(u32, u32)>| {
                    other.is_none_or(|(other, _)| self.by_use(place, other) == Ordering::Less)
                };
                if self.has_room(load) {
                    owner = if fewer(&owner) { Some((place, head)) } else { owner };
                } else {
                    wanted += tier.waiting.min(tier.share.slots.saturating_sub(tier.used.slots));
                    blocked = if fewer(&blocked) { Some((place, head)) } else { blocked };
                }
            } else if self.may_borrow(place, load) {
                if borrower.is_none_or(|(least, _)| tier.counter < least) {
                    borrower = Some((tier.counter, head));
                }
            } else {
                held_back |= self.may_borrow_beside(self.room.slots(), place, load);
            }
        }
        if held_back && let Some(limit) = &mut self.limit {
            limit.holds_back();
        }
        match (owner, blocked, borrower) {
            (Some((_, head)), ..) => Next::Owner(head),
            (_, Some((_, head)), _) => {
                Next::Blocked { tokens: self.requests.at(head).load().tokens, slots: wanted }
            }
            (.., Some((_, head))) => Next::Borrower(head),
            _ => Next::Nobody,
        }
    }

    /// Which of two tiers uses less of its share.
    fn by_use(&self, one: u32, other: u32) -> Ordering {
        let (one, other) = (self.tiers.at(one), self.tiers.at(other));
        let part = |used: u64, percent: u32| used.saturating_mul(u64::from(percent));
        part(one.used.slots, other.percent).cmp(&part(other.used.slots, one.percent))
    }

    /// The request of a tier whose turn it is. Those whose time is up are refused on the way: a timer that is late
    /// wastes no slot.
    fn head(&mut self, tier: u32, now: Duration, wakes: &mut Wakes) -> Option<u32> {
        loop {
            let subject = self.flows.next(tier)?;
            let head = self.flows.flows.at(subject).queue.first;
            if self.requests.at(head).deadline > now {
                return (head != NONE).then_some(head);
            }
            self.refuse(head, Shed::Deadline, wakes);
        }
    }

    /// Whether the engine has room. For a single request it has, whatever its capacity has become.
    fn has_room(&self, load: Load) -> bool {
        self.total.slots == 0 || self.capacity.holds(self.total, load)
    }

    /// Whether so much may be lent to a tier: what is left beside the headroom, up to the adapted limit and the tier's
    /// own bound.
    pub(super) fn may_borrow(&self, tier: u32, load: Load) -> bool {
        let limited = self.limit.as_ref().map_or(0, BorrowLimit::kept_free);
        self.may_borrow_beside(self.room.slots().max(limited), tier, load)
    }

    fn may_borrow_beside(&self, kept_free: u64, tier: u32, load: Load) -> bool {
        let tier = self.tiers.at(tier);
        self.capacity.without(kept_free).holds(self.total, load)
            && self.capacity.holds_prefill(self.total, load)
            && tier.most.holds(tier.used, load)
    }

    /// Whether a request may be let in, if nobody waits; and whether it is lent what it takes.
    pub(super) fn admits(&self, tier: u32, load: Load) -> Option<bool> {
        if self.tiers.at(tier).owns(load, false) {
            return self.has_room(load).then_some(false);
        }
        self.may_borrow(tier, load).then_some(true)
    }

    /// Lets in a waiter. What it takes is taken here, under the lock: whom it wakes has it already.
    fn let_in(&mut self, place: u32, lent: bool, now: Duration, wakes: &mut Wakes) {
        self.unqueue(place);
        let request = self.requests.at_mut(place);
        let (flow, tier) = (request.flow, request.tier);
        wakes.push(request.waker.take());
        self.start(place, lent);
        self.flows.settle(flow);
        let tier = self.tiers.at_mut(tier);
        tier.gap.let_in(now, tier.waiting > 0);
    }

    /// Takes what a request needs, and charges what it is thought to cost: charged only at its end, a caller could have as
    /// many at a time as there are slots before he is behind anybody.
    pub(super) fn start(&mut self, place: u32, lent: bool) {
        let request = self.requests.at_mut(place);
        (request.state, request.lent, request.parked) = (State::Running, lent, false);
        request.is_deaf = false;
        request.next_to_begin = self.plateau.next();
        self.streams += u64::from(request.is_streamed);
        let (load, flow, begun, cost) = (request.load(), request.flow, request.begun, request.cost);
        let tier = self.tiers.at_mut(request.tier);
        tier.used += load;
        tier.counts.admitted += 1;
        if lent {
            self.lent_floor = self.lent_floor.max(tier.counter);
        }
        tier.list(begun).push_last(&mut self.requests, place);
        self.total += load;
        self.flows.let_in(flow, cost);
        self.charge_tier(place, 0, cost);
    }

    /// What a request's tier was charged `from` for what it is lent costs `to`.
    pub(super) fn charge_tier(&mut self, place: u32, from: u64, to: u64) {
        let request = self.requests.at(place);
        if !request.lent {
            return;
        }
        let tier = self.tiers.at_mut(request.tier);
        let weighed = |cost: u64| cost.saturating_mul(100) / u64::from(tier.percent.max(1));
        let (from, to) = (weighed(from), weighed(to));
        tier.counter = tier.counter.saturating_add(to).saturating_sub(from);
        if tier.counter > HIGH {
            for tier in self.tiers.iter_mut() {
                tier.counter = tier.counter.saturating_sub(self.lent_floor);
            }
            self.lent_floor = 0;
        }
    }
}

/// Where counters are lowered, before they overflow.
const HIGH: u64 = 1 << 62;

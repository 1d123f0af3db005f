//! How requests come into the queue and out of it, and go.

use std::time::Duration;

use super::{
    Scheduler, Shed, Ticket, Wakes,
    queue::{Request, State},
};
use crate::reservation::TokenUsage;

impl Scheduler {
    /// The request of a ticket, if it is not gone.
    pub(super) fn of(&mut self, ticket: Ticket) -> Option<&mut Request> {
        let request = self.requests.at_mut(ticket.place);
        (request.serial == ticket.serial).then_some(request)
    }

    /// What tokens cost, in thousandths of a unit: whole numbers, which never drift.
    pub(super) fn cost(&self, usage: TokenUsage) -> u64 {
        u64::try_from(self.plan.weights.thousandths(usage)).unwrap_or(u64::MAX).min(DEAREST)
    }

    /// A tier of which none waits, and now one does, has borrowed no less than others: to have asked for nothing is no
    /// credit.
    pub(super) fn lift(&mut self, tier: u32) {
        let tier = self.tiers.at_mut(tier);
        if tier.waiting == 0 {
            tier.counter = tier.counter.max(self.lent_floor);
        }
    }

    /// Puts a request into its subject's queue, at its end or before all others.
    pub(super) fn enqueue(&mut self, place: u32, first: bool) {
        let request = self.requests.at(place);
        let (flow, bytes) = (request.flow, request.bytes);
        let tier = self.tiers.at_mut(request.tier);
        tier.waiting += 1;
        tier.bytes = tier.bytes.saturating_add(bytes);
        self.waiting += 1;
        let queue = &mut self.flows.flows.at_mut(flow).queue;
        if first {
            queue.push_first(&mut self.requests, place);
        } else {
            queue.push_last(&mut self.requests, place);
        }
        self.flows.queued(flow, true);
        self.flows.settle(flow);
    }

    /// Takes a waiter out of its queue. Its subject has to be settled.
    pub(super) fn unqueue(&mut self, place: u32) {
        let request = self.requests.at(place);
        let (flow, bytes) = (request.flow, request.bytes);
        let tier = self.tiers.at_mut(request.tier);
        tier.waiting = tier.waiting.saturating_sub(1);
        tier.bytes = tier.bytes.saturating_sub(bytes);
        self.waiting = self.waiting.saturating_sub(1);
        self.flows.flows.at_mut(flow).queue.remove(&mut self.requests, place);
        self.flows.queued(flow, false);
    }

    fn unqueue_unserved(&mut self, place: u32) {
        self.unqueue(place);
        let tier = self.tiers.at_mut(self.requests.at(place).tier);
        if tier.waiting == 0 {
            tier.gap.none_waits();
        }
    }

    /// Refuses a waiter, who finds out when it is next polled.
    pub(super) fn refuse(&mut self, place: u32, shed: Shed, wakes: &mut Wakes) {
        self.unqueue_unserved(place);
        let request = self.requests.at_mut(place);
        request.state = State::Refused(shed);
        let (flow, tier) = (request.flow, request.tier);
        wakes.push(request.waker.take());
        self.tiers.at_mut(tier).refuse(shed);
        self.flows.settle(flow);
    }

    /// Takes back what a running request has, and charges what it cost. Its subject has to be settled.
    pub(super) fn stop(&mut self, place: u32, cost: u64) {
        let request = self.requests.at(place);
        let (load, flow, begun, charged) =
            (request.load(), request.flow, request.begun, request.cost);
        let (state, is_deaf) = (request.state, request.is_deaf);
        self.streams -= u64::from(request.is_streamed);
        let tier = self.tiers.at_mut(request.tier);
        tier.used -= load;
        self.total -= load;
        match state {
            State::Running => tier.list(begun).remove(&mut self.requests, place),
            State::Told(_) if !is_deaf => {
                tier.leaving -= load;
                self.leaving -= load;
            }
            State::Told(_) | State::Waiting | State::Refused(_) | State::Lingering => {}
        }
        if self.waiting > 0 {
            self.room.slot_freed();
        }
        self.charge_tier(place, charged, cost);
        self.flows.done(flow, charged, cost);
    }

    /// A running request costs so much, and not what it was charged.
    pub(super) fn recharge(&mut self, place: u32, cost: u64) {
        let request = self.requests.at_mut(place);
        let (flow, charged) = (request.flow, std::mem::replace(&mut request.cost, cost));
        self.charge_tier(place, charged, cost);
        self.flows.correct(flow, charged, cost);
        self.flows.settle(flow);
    }

    /// A request goes, and has cost so much. Its place may have been what another waited for, and its size what kept
    /// others behind it.
    pub(super) fn depart(&mut self, place: u32, cost: u64, now: Duration, wakes: &mut Wakes) {
        let request = self.requests.at(place);
        let flow = request.flow;
        match request.state {
            // Its subject may be gone before it.
            State::Refused(_) => return self.free(place, wakes),
            State::Waiting => {
                self.unqueue_unserved(place);
                // What was lent before the engine parked it.
                self.charge_tier(place, 0, cost);
                self.flows.correct(flow, 0, cost);
            }
            State::Running | State::Told(_) | State::Lingering => self.stop(place, cost),
        }
        self.flows.settle(flow);
        self.free(place, wakes);
        self.dispatch(now, wakes);
    }

    pub(super) fn free(&mut self, place: u32, wakes: &mut Wakes) {
        let request = self.requests.at_mut(place);
        wakes.drop_later(request.waker.take());
        request.serial = 0;
        self.requests.give_back(place);
    }

    /// Changes what a request takes of an engine.
    pub(super) fn change(&mut self, place: u32, change: impl FnOnce(&mut Request)) {
        let request = self.requests.at_mut(place);
        let (before, state, is_deaf) = (request.load(), request.state, request.is_deaf);
        change(request);
        let after = request.load();
        let tier = self.tiers.at_mut(request.tier);
        let runs = [&mut tier.used, &mut self.total];
        let leaves = [&mut tier.leaving, &mut self.leaving];
        let (runs, leaves) = match state {
            State::Told(_) if !is_deaf => (Some(runs), Some(leaves)),
            State::Running | State::Told(_) | State::Lingering => (Some(runs), None),
            State::Waiting | State::Refused(_) => (None, None),
        };
        for load in runs.into_iter().chain(leaves).flatten() {
            *load -= before;
            *load += after;
        }
    }
}

/// No single request counts for more: counters are lowered long before they overflow.
const DEAREST: u64 = 1 << 48;

//! The scheduler of fair admission: plain data, told what happens and what time it is.
//!
//! A capacity of up to three numbers is shared between tiers. Below its share a tier is an owner; what nobody uses is
//! lent. Owners go before borrowers, the one that uses least of its share first; of borrowers, the tier goes first that has
//! borrowed least for its weight. Within a tier virtual token counters say whose turn it is ([`flows`]). Whether something is
//! borrowed is how its tier stands now, and nothing that a request bears. What ends, and what changes, lets others in before
//! the call returns.

mod adaptive;
mod arrive;
mod depart;
mod dispatch;
mod estimate;
mod flows;
mod headroom;
mod heap;
mod lengths;
mod load;
mod plateau;
mod queue;
mod reclaim;
mod slab;
mod snapshot;
#[cfg(test)]
mod tests;
mod tier;
mod wakes;

use std::{
    collections::VecDeque,
    task::{Poll, Waker},
    time::Duration,
};

pub use self::snapshot::{AdaptiveSnapshot, Refused, Snapshot, TierSnapshot};
use self::{
    adaptive::BorrowLimit,
    flows::Flows,
    headroom::Room,
    load::Load,
    plateau::Plateau,
    queue::{Request, State},
    slab::Slab,
    tier::Tier,
};
pub(in crate::rate_limit) use self::{adaptive::Measured, reclaim::OBEYS_WITHIN, wakes::Wakes};
use super::plan::{Capacity, MOST, Plan};
use crate::{BuildError, reservation::TokenUsage};

/// A request that wants in.
#[derive(Clone, Copy, Debug)]
pub(in crate::rate_limit) struct Ask {
    /// Its tier, by its place in the plan.
    pub(in crate::rate_limit) tier: usize,
    /// Who counts as one first, and the caller within: keyed hashes.
    pub(in crate::rate_limit) group: u64,
    /// The group is only where the caller comes from: as long as it is in line in another, it stays there.
    pub(in crate::rate_limit) stays: bool,
    pub(in crate::rate_limit) subject: u64,
    /// Tokens.
    pub(in crate::rate_limit) prompt: u64,
    pub(in crate::rate_limit) output: u64,
    /// What it takes up while it waits.
    pub(in crate::rate_limit) bytes: u64,
    /// When it is refused if it still waits. The tier's own bound holds as well.
    pub(in crate::rate_limit) deadline: Duration,
}

/// The handle on a request. Of no use any more once the request is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rate_limit) struct Ticket {
    place: u32,
    serial: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rate_limit) enum Arrival {
    Admitted(Ticket),
    Waiting(Ticket),
    Refused(Shed),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rate_limit) enum Shed {
    QueueFull,
    Deadline,
    PromptTooLong,
    /// More tokens than the tier's share, and as many are not to be borrowed now.
    TooLarge,
    Revoked,
}

/// What a running request is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rate_limit) enum Signal {
    /// To be parked by the engine.
    Yield,
    /// To be broken off.
    Revoked,
}

#[derive(Debug)]
pub(in crate::rate_limit) struct Scheduler {
    plan: Plan,
    capacity: Load,
    room: Room,
    /// Up to how many slots something is lent, where that is adapted.
    limit: Option<BorrowLimit>,
    tiers: Slab<Tier>,
    flows: Flows,
    requests: Slab<Request>,
    serials: u64,
    total: Load,
    /// Of that, what those use that were told to stop.
    leaving: Load,
    /// Those that were told, and when, until it is too long ago.
    told: VecDeque<(Ticket, Duration)>,
    waiting: u64,
    /// Streamed answers that are under way, and what they show of the engine.
    streams: u64,
    plateau: Plateau,
    /// What a tier had borrowed when something was last lent to it: none that comes anew has less.
    lent_floor: u64,
}

impl Scheduler {
    /// For a plan that was checked.
    pub(in crate::rate_limit) fn new(plan: Plan) -> Self {
        Self::remembering(plan, MOST_FLOWS)
    }

    /// With at most so many groups and subjects remembered.
    fn remembering(plan: Plan, flows: usize) -> Self {
        let capacity = Load::of(plan.capacity);
        let mut tiers = Slab::default();
        for (name, share) in &plan.tiers {
            let place = tiers.take();
            let mut tier = Tier::new(name.clone(), share);
            tier.resize(capacity);
            *tiers.at_mut(place) = tier;
        }
        Self {
            capacity,
            room: Room::new(plan.headroom, plan.yields, capacity.slots),
            limit: plan.adaptive.map(|adaptive| BorrowLimit::new(adaptive, capacity.slots)),
            flows: Flows::new(plan.tiers.len(), flows),
            plan,
            tiers,
            requests: Slab::default(),
            serials: 0,
            total: Load::default(),
            leaving: Load::default(),
            told: VecDeque::new(),
            waiting: 0,
            streams: 0,
            plateau: Plateau::default(),
            lent_floor: 0,
        }
    }

    /// What has become of a waiter. When it is refused its ticket is gone.
    pub(in crate::rate_limit) fn poll(
        &mut self,
        ticket: Ticket,
        waker: &Waker,
        wakes: &mut Wakes,
    ) -> Poll<Result<(), Shed>> {
        // Nobody is let in by a ticket that is gone.
        let Some(request) = self.of(ticket) else { return Poll::Ready(Err(Shed::Revoked)) };
        match request.state {
            State::Waiting => {
                wakes.keep(&mut request.waker, waker);
                Poll::Pending
            }
            State::Running | State::Told(_) | State::Lingering => Poll::Ready(Ok(())),
            State::Refused(shed) => {
                self.free(ticket.place, wakes);
                Poll::Ready(Err(shed))
            }
        }
    }

    /// What a running request is told. Keeps the waker in any case: it may be told more.
    pub(in crate::rate_limit) fn running(
        &mut self,
        ticket: Ticket,
        waker: &Waker,
        wakes: &mut Wakes,
    ) -> Poll<Signal> {
        let Some(request) = self.of(ticket) else { return Poll::Pending };
        wakes.keep(&mut request.waker, waker);
        match request.state {
            State::Told(signal) => Poll::Ready(signal),
            _ => Poll::Pending,
        }
    }

    /// Whoever waits or runs goes as if it had not been.
    pub(in crate::rate_limit) fn leave(
        &mut self,
        ticket: Ticket,
        now: Duration,
        wakes: &mut Wakes,
    ) {
        if self.of(ticket).is_some() {
            self.depart(ticket.place, 0, now, wakes);
        }
    }

    /// A running request has ended, and has used so much.
    pub(in crate::rate_limit) fn release(
        &mut self,
        ticket: Ticket,
        used: TokenUsage,
        now: Duration,
        wakes: &mut Wakes,
    ) {
        let cost = self.cost(used);
        let Some(tier) = self.of(ticket).map(|request| request.tier) else { return };
        let served = &mut self.tiers.at_mut(tier).counts.served;
        *served = served.saturating_add(used.total());
        self.depart(ticket.place, cost, now, wakes);
    }

    /// A request was dropped, and has used so much. It has its place until it is released, and is told nothing more. Whether the
    /// engine may be at it: what is parked it has put away.
    pub(in crate::rate_limit) fn linger(&mut self, ticket: Ticket, used: TokenUsage) -> bool {
        let cost = self.cost(used);
        let Some(request) = self.of(ticket) else { return false };
        let (state, tier, begun) = (request.state, request.tier, request.begun);
        if state != State::Running {
            // It has stopped: it only has its slot for a while.
            request.told = Duration::MAX;
            return matches!(state, State::Told(_));
        }
        let streamed = std::mem::take(&mut request.is_streamed);
        request.state = State::Lingering;
        self.streams -= u64::from(streamed);
        self.tiers.at_mut(tier).list(begun).remove(&mut self.requests, ticket.place);
        self.recharge(ticket.place, cost);
        true
    }

    /// There is a better estimate of a request.
    pub(in crate::rate_limit) fn refine(
        &mut self,
        ticket: Ticket,
        prompt: u64,
        output: u64,
        now: Duration,
        wakes: &mut Wakes,
    ) {
        let (prompt, output) = (prompt.min(MOST), output.min(MOST));
        let cost = self.cost(TokenUsage::new(prompt, output));
        let Some(request) = self.of(ticket) else { return };
        let state = request.state;
        self.change(ticket.place, |request| (request.prompt, request.output) = (prompt, output));
        if matches!(state, State::Running | State::Told(_) | State::Lingering) {
            self.recharge(ticket.place, cost);
        } else {
            self.requests.at_mut(ticket.place).cost = cost;
        }
        self.dispatch(now, wakes);
    }

    /// The answer of a running request has begun, streamed or whole: its prompt is nobody's hindrance any more. How many requests
    /// the engine runs at a time, if it is found now that it was given more.
    pub(in crate::rate_limit) fn first_byte(
        &mut self,
        ticket: Ticket,
        is_streamed: bool,
        now: Duration,
        wakes: &mut Wakes,
    ) -> Option<u64> {
        let request = self.of(ticket)?;
        let (state, tier, next) = (request.state, request.tier, request.next_to_begin);
        if request.begun || !matches!(state, State::Running | State::Told(_)) {
            return None;
        }
        request.is_streamed = is_streamed;
        self.change(ticket.place, |request| request.begun = true);
        if state == State::Running {
            let tier = self.tiers.at_mut(tier);
            tier.unanswered.remove(&mut self.requests, ticket.place);
            tier.answering.push_last(&mut self.requests, ticket.place);
        }
        let found = if is_streamed {
            self.streams += 1;
            self.plateau.begins(self.streams, next)
        } else {
            None
        };
        self.dispatch(now, wakes);
        found
    }

    /// The engine has parked a running request: it waits, before all others of its subject, to go on.
    pub(in crate::rate_limit) fn park(&mut self, ticket: Ticket, now: Duration, wakes: &mut Wakes) {
        let Some(request) = self.of(ticket) else { return };
        if !matches!(request.state, State::Running | State::Told(_)) {
            return;
        }
        let tier = request.tier;
        self.stop(ticket.place, 0);
        self.lift(tier);
        self.tiers.at_mut(tier).counts.parked += 1;
        let request = self.requests.at_mut(ticket.place);
        // Its answer has begun, or might have: it is not refused any more.
        (request.state, request.parked, request.deadline) = (State::Waiting, true, Duration::MAX);
        self.enqueue(ticket.place, true);
        self.dispatch(now, wakes);
    }

    /// The timer of a waiter has run out.
    pub(in crate::rate_limit) fn expire(
        &mut self,
        ticket: Ticket,
        now: Duration,
        wakes: &mut Wakes,
    ) {
        let Some(request) = self.of(ticket) else { return };
        let is_due = request.state == State::Waiting && request.deadline <= now;
        if is_due {
            self.refuse(ticket.place, Shed::Deadline, wakes);
        }
        if is_due || self.has_deaf(now) {
            self.dispatch(now, wakes);
        }
    }

    /// The engine takes more at a time, or less. What runs goes on.
    pub(in crate::rate_limit) fn set_capacity(
        &mut self,
        capacity: Capacity,
        now: Duration,
        wakes: &mut Wakes,
    ) -> Result<(), BuildError> {
        self.plan.check_capacity(capacity)?;
        self.plan.capacity = capacity;
        self.capacity = Load::of(capacity);
        self.room.resize(self.capacity.slots);
        let capacity = self.capacity;
        if let Some(limit) = &mut self.limit {
            limit.resize(capacity.slots);
        }
        self.tiers.iter_mut().for_each(|tier| tier.resize(capacity));
        self.dispatch(now, wakes);
        Ok(())
    }

    /// Whether the tier of a request uses more than its share now.
    pub(in crate::rate_limit) fn borrows(&self, ticket: Ticket) -> bool {
        let request = self.requests.at(ticket.place);
        request.serial == ticket.serial && self.tiers.at(request.tier).excess().is_some()
    }

    /// Requests of a tier that run, how many of them are more than its share, and how many wait.
    pub(in crate::rate_limit) fn use_of(&self, tier: usize) -> (u64, u64, u64) {
        let tier = self.tiers.at(u32::try_from(tier).unwrap_or(slab::NONE));
        (tier.used.slots, tier.borrowed(), tier.waiting)
    }

    /// How long it takes to let in all of a tier that wait, as it went lately.
    pub(in crate::rate_limit) fn drains_in(&self, tier: usize, now: Duration) -> Duration {
        let tier = self.tiers.at(u32::try_from(tier).unwrap_or(slab::NONE));
        tier.gap.of(tier.waiting, now)
    }

    pub(in crate::rate_limit) fn snapshot(&self, now: Duration) -> Snapshot {
        let tiers = (0..).zip(self.tiers.iter());
        Snapshot {
            slots: self.capacity.slots,
            in_use: self.total.slots,
            tokens: self.plan.capacity.tokens,
            tokens_in_flight: self.total.tokens,
            prefill_pending: self.total.prefill,
            headroom: self.room.slots(),
            engine_slots: self.plateau.found(),
            adaptive: self.limit.as_ref().map(BorrowLimit::snapshot),
            tiers: tiers.map(|(place, tier)| tier.snapshot(place, &self.requests, now)).collect(),
        }
    }
}

/// Groups and subjects that are remembered: those that wait or run, and those that have had more than others.
const MOST_FLOWS: usize = 1 << 16;

//! A request that comes: let in, queued, or refused.

use std::time::Duration;

use super::{
    Arrival, Ask, Scheduler, Shed, Ticket, Wakes,
    load::Load,
    queue::{Request, State},
    slab::NONE,
};
use crate::{rate_limit::fair::plan::MOST, reservation::TokenUsage};

impl Scheduler {
    /// A request comes.
    pub(in crate::rate_limit) fn arrive(
        &mut self,
        ask: Ask,
        now: Duration,
        wakes: &mut Wakes,
    ) -> Arrival {
        // No more tiers than `u32` has were ever added.
        let place = u32::try_from(ask.tier).unwrap_or(NONE);
        let (prompt, output) = (ask.prompt.min(MOST), ask.output.min(MOST));
        let tier = self.tiers.at(place);
        if tier.max_prompt.is_some_and(|most| prompt > most) {
            return self.turned_away(place, Shed::PromptTooLong);
        }
        let load = Load { slots: 1, tokens: prompt + output, prefill: prompt };
        let (owns, too_large) = (tier.owns(load, false), load.tokens > tier.share.tokens);
        let deadline = ask.deadline.min(now.saturating_add(tier.max_wait));
        if owns && self.waiting > 0 {
            self.room.owner_came();
        }
        self.lift(place);
        let flow = self.flows.enter(place, ask.group, ask.subject, ask.stays);
        self.serials += 1;
        let request = Request {
            serial: self.serials,
            tier: place,
            flow,
            prompt,
            output,
            cost: self.cost(TokenUsage::new(prompt, output)),
            bytes: ask.bytes,
            since: now,
            deadline,
            ..Request::default()
        };
        if self.waiting == 0
            && let Some(lent) = self.admits(place, load)
        {
            let ticket = self.place(request);
            self.start(ticket.place, lent);
            self.flows.settle(flow);
            return Arrival::Admitted(ticket);
        }
        // Where others wait it may be its turn before theirs; where none may wait it has no other chance.
        let now_or_never = too_large || self.tiers.at(place).queue == 0;
        if !now_or_never && let Err(shed) = self.find_room(&request, now, wakes) {
            self.flows.settle(flow);
            // Some may have been refused to no avail.
            self.dispatch(now, wakes);
            return self.turned_away(place, shed);
        }
        let ticket = self.place(request);
        self.enqueue(ticket.place, false);
        self.dispatch(now, wakes);
        match self.requests.at(ticket.place).state {
            State::Waiting if now_or_never => {
                self.depart(ticket.place, 0, now, wakes);
                let shed = if too_large { Shed::TooLarge } else { Shed::QueueFull };
                self.turned_away(place, shed)
            }
            State::Waiting => {
                self.tiers.at_mut(place).counts.owners_waited += u64::from(owns);
                Arrival::Waiting(ticket)
            }
            State::Refused(shed) => {
                self.depart(ticket.place, 0, now, wakes);
                Arrival::Refused(shed)
            }
            State::Running | State::Told(_) | State::Lingering => Arrival::Admitted(ticket),
        }
    }

    fn turned_away(&mut self, tier: u32, shed: Shed) -> Arrival {
        self.tiers.at_mut(tier).refuse(shed);
        Arrival::Refused(shed)
    }

    fn place(&mut self, request: Request) -> Ticket {
        let (place, serial) = (self.requests.take(), request.serial);
        *self.requests.at_mut(place) = request;
        Ticket { place, serial }
    }

    /// Finds a place in the queue, if need be that of the newest of those of whom most wait: a queue that one caller fills is
    /// not full for the others.
    fn find_room(
        &mut self,
        request: &Request,
        now: Duration,
        wakes: &mut Wakes,
    ) -> Result<(), Shed> {
        let before = u64::from(self.flows.flows.at(request.flow).queued);
        let turns = before.saturating_mul(self.flows.turns(request.flow));
        let wait = self.tiers.at(request.tier).gap.of(turns, now);
        if request.deadline <= now.saturating_add(wait) {
            return Err(Shed::Deadline);
        }
        loop {
            let tier = self.tiers.at(request.tier);
            if request.bytes > tier.queue_bytes {
                return Err(Shed::QueueFull);
            }
            if tier.waiting < tier.queue && tier.bytes + request.bytes <= tier.queue_bytes {
                return Ok(());
            }
            let newest = self.newest_of_most(request).ok_or(Shed::QueueFull)?;
            self.refuse(newest, Shed::QueueFull, wakes);
        }
    }

    /// The newest request of the subject with the longest queue, in the group with the longest; or else of the asker's own
    /// group, which gets no more room by that. `None`: with one more, the one who asks would have as long a queue himself.
    fn newest_of_most(&self, request: &Request) -> Option<u32> {
        let flows = &self.flows.flows;
        let (subject, group) = (request.flow, flows.at(request.flow).parent);
        let newest = |of: u32, theirs: u32, own: u32| {
            // What the engine has parked was let in once: it is in nobody's way.
            let newest = flows.at(of).queue.last;
            let has_more = flows.at(theirs).queued > flows.at(own).queued + 1;
            (has_more && !self.requests.at(newest).parked).then_some(newest)
        };
        let most = self.flows.longest(request.tier)?;
        let others = flows.at(most).parent;
        let of_others = (others != group).then(|| newest(most, others, group)).flatten();
        of_others.or_else(|| {
            let most = self.flows.longest_in(group)?;
            newest(most, most, subject)
        })
    }
}

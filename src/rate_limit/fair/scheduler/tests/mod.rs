//! What must hold of the scheduler.

mod adaptive;
mod crowds;
mod model;
mod plateau;
mod reclaim;
mod traces;
mod traps;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
};

use super::{flows::MOST_SPENT, *};
use crate::rate_limit::{
    TokenWeights,
    fair::plan::{Headroom, Share},
};

/// A scheduler, and a time that stands still.
struct Bench {
    scheduler: Scheduler,
    now: Duration,
}

const SECOND: Duration = Duration::from_secs(1);
/// What a token costs in the counters, of prompt and answer alike.
const TOKEN: u64 = 1000;

fn plan(capacity: Capacity, headroom: usize, tiers: &[(&str, Share)]) -> Plan {
    let tiers = tiers.iter().map(|(name, share)| (Arc::from(*name), *share)).collect();
    let weights = TokenWeights::new(1000, 1000);
    let headroom = Headroom::slots(headroom);
    Plan { capacity, headroom, adaptive: None, weights, yields: false, tiers }.check().unwrap()
}

impl Bench {
    fn new(plan: Plan) -> Self {
        Self { scheduler: Scheduler::new(plan), now: Duration::ZERO }
    }

    /// One tier of so many slots.
    fn of_slots(slots: usize) -> Self {
        let share = Share::percent(100).queue(100_000).queue_bytes(1 << 40);
        Self::new(plan(Capacity::slots(slots), 0, &[("all", share)]))
    }

    fn ask(&self, tier: usize, subject: u64) -> Ask {
        let deadline = self.now + 3600 * SECOND;
        Ask {
            tier,
            group: subject,
            stays: false,
            subject,
            prompt: 50,
            output: 50,
            bytes: 1,
            deadline,
        }
    }

    fn arrive(&mut self, ask: Ask) -> Arrival {
        self.call(|scheduler, now, wakes| scheduler.arrive(ask, now, wakes))
    }

    /// Somebody comes, and is not refused.
    fn enter(&mut self, tier: usize, subject: u64) -> Ticket {
        ticket(self.arrive(self.ask(tier, subject)))
    }

    fn enter_many(&mut self, tier: usize, subject: u64, count: usize) -> Vec<Ticket> {
        (0..count).map(|_| self.enter(tier, subject)).collect()
    }

    fn release(&mut self, ticket: Ticket, used: u64) {
        let used = TokenUsage::new(used, 0);
        self.call(|scheduler, now, wakes| scheduler.release(ticket, used, now, wakes));
    }

    fn leave(&mut self, ticket: Ticket) {
        self.call(|scheduler, now, wakes| scheduler.leave(ticket, now, wakes));
    }

    fn first_byte(&mut self, ticket: Ticket) {
        self.call(|scheduler, now, wakes| scheduler.first_byte(ticket, true, now, wakes));
    }

    fn call<T>(&mut self, call: impl FnOnce(&mut Scheduler, Duration, &mut Wakes) -> T) -> T {
        let mut wakes = Wakes::default();
        let result = call(&mut self.scheduler, self.now, &mut wakes);
        wakes.wake();
        result
    }

    fn poll(&mut self, ticket: Ticket) -> Poll<Result<(), Shed>> {
        self.call(|scheduler, _, wakes| scheduler.poll(ticket, Waker::noop(), wakes))
    }

    fn runs(&mut self, ticket: Ticket) -> bool {
        self.poll(ticket) == Poll::Ready(Ok(()))
    }

    fn told(&mut self, ticket: Ticket) -> Option<Signal> {
        match self.call(|scheduler, _, wakes| scheduler.running(ticket, Waker::noop(), wakes)) {
            Poll::Ready(signal) => Some(signal),
            Poll::Pending => None,
        }
    }

    /// Those of `tickets` that are told to stop.
    fn all_told(&mut self, tickets: &[Ticket]) -> Vec<Ticket> {
        tickets.iter().copied().filter(|ticket| self.told(*ticket).is_some()).collect()
    }

    fn tier(&self, name: &str) -> TierSnapshot {
        let tiers = self.scheduler.snapshot(self.now).tiers;
        tiers.into_iter().find(|tier| &*tier.name == name).unwrap()
    }
}

impl Scheduler {
    /// As if nobody had ever come.
    fn assert_empty(&self) {
        assert_eq!((self.total, self.leaving), (Load::default(), Load::default()));
        assert_eq!((self.waiting, self.requests.len(), self.flows.remembered()), (0, 0, 0));
        assert_eq!(self.streams, 0);
        self.flows.assert_consistent();
        assert!(self.flows.flows.len() <= self.tiers.len() + MOST_SPENT);
        for place in 0..self.tiers.len() as u32 {
            let (tier, flow) = (self.tiers.at(place), self.flows.flows.at(place));
            assert_eq!((tier.used, tier.leaving), (Load::default(), Load::default()));
            assert_eq!((tier.waiting, tier.bytes, flow.queued, flow.flying), (0, 0, 0, 0));
            assert_eq!(tier.victim(true), None);
            assert_eq!(self.flows.longest(place), None);
        }
    }
}

fn ticket(arrival: Arrival) -> Ticket {
    match arrival {
        Arrival::Admitted(ticket) | Arrival::Waiting(ticket) => ticket,
        Arrival::Refused(shed) => panic!("refused: {shed:?}"),
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Woken {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

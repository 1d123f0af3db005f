//! The scheduler of fair admission.

mod snapshot;

use std::{
    task::{Poll, Waker},
    time::Duration,
};

pub use self::snapshot::{Refused, Snapshot, TierSnapshot};
use super::plan::{Capacity, Plan};
use crate::{BuildError, reservation::TokenUsage};

/// A request that wants in.
#[derive(Clone, Copy, Debug)]
pub(in crate::rate_limit) struct Ask {
    /// Its tier, by its place in the plan.
    pub(in crate::rate_limit) tier: usize,
    /// Who counts as one first, and the caller within: keyed hashes.
    pub(in crate::rate_limit) group: u64,
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

/// Wakers to be called, and others to be dropped, once the lock is free: either may run anything.
#[derive(Debug, Default)]
pub(in crate::rate_limit) struct Wakes {
    wake: Vec<Waker>,
}

impl Wakes {
    pub(in crate::rate_limit) fn wake(self) {
        self.wake.into_iter().for_each(Waker::wake);
    }
}

#[derive(Debug)]
pub(in crate::rate_limit) struct Scheduler {
    plan: Plan,
}

impl Scheduler {
    pub(in crate::rate_limit) fn new(plan: Plan) -> Self { Self { plan } }
    pub(in crate::rate_limit) fn arrive(&mut self, ask: Ask, now: Duration, wakes: &mut Wakes) -> Arrival { Arrival::Admitted(Ticket{place:0,serial:0}) }
    pub(in crate::rate_limit) fn poll(&mut self, ticket: Ticket, waker: &Waker, wakes: &mut Wakes) -> Poll<Result<(), Shed>> { Poll::Pending }
    pub(in crate::rate_limit) fn running(&mut self, ticket: Ticket, waker: &Waker, wakes: &mut Wakes) -> Poll<Signal> { Poll::Pending }
    pub(in crate::rate_limit) fn leave(&mut self, ticket: Ticket, now: Duration, wakes: &mut Wakes) {}
    pub(in crate::rate_limit) fn refine(&mut self, ticket: Ticket, prompt: u64, output: u64, now: Duration, wakes: &mut Wakes) {}
    pub(in crate::rate_limit) fn first_byte(&mut self, ticket: Ticket, now: Duration, wakes: &mut Wakes) {}
    pub(in crate::rate_limit) fn park(&mut self, ticket: Ticket, now: Duration, wakes: &mut Wakes) {}
    pub(in crate::rate_limit) fn release(&mut self, ticket: Ticket, used: TokenUsage, now: Duration, wakes: &mut Wakes) {}
    pub(in crate::rate_limit) fn expire(&mut self, ticket: Ticket, now: Duration, wakes: &mut Wakes) {}
    pub(in crate::rate_limit) fn set_capacity(&mut self, capacity: Capacity, now: Duration, wakes: &mut Wakes) -> Result<(), BuildError> { self.plan.check_capacity(capacity) }
    pub(in crate::rate_limit) fn borrows(&self, ticket: Ticket) -> bool { false }
    /// Requests of a tier that run, how many of them are borrowed, and how many wait.
    pub(in crate::rate_limit) fn use_of(&self, tier: usize) -> (u64, u64, u64) { (0,0,0) }
    pub(in crate::rate_limit) fn drains_in(&self, tier: usize, now: Duration) -> Duration { Duration::ZERO }
    pub(in crate::rate_limit) fn snapshot(&self, now: Duration) -> Snapshot { Snapshot { slots:0,in_use:0,tokens:None,tokens_in_flight:0,prefill_pending:0,headroom:0,tiers:vec![] } }
}

//! A tier: what it may use, what it uses, and what becomes of its requests.

use std::{sync::Arc, time::Duration};

use super::{
    Shed, TierSnapshot,
    estimate::Gap,
    load::Load,
    queue::{List, Request, State},
    slab::{NONE, Slab},
    snapshot::Refused,
};
use crate::rate_limit::fair::plan::{Revoke, Share};

#[derive(Debug, Default)]
pub(super) struct Tier {
    pub(super) name: Arc<str>,
    pub(super) percent: u32,
    borrow_up_to_percent: u32,
    pub(super) max_prompt: Option<u64>,
    pub(super) queue: u64,
    pub(super) queue_bytes: u64,
    pub(super) max_wait: Duration,
    pub(super) revoke: Revoke,
    /// What is its own.
    pub(super) share: Load,
    /// What it may have at most, when others leave it theirs.
    pub(super) most: Load,
    pub(super) used: Load,
    /// Of that, what those use that were told to stop.
    pub(super) leaving: Load,
    pub(super) waiting: u64,
    pub(super) bytes: u64,
    /// Cost of what it has borrowed, by its weight: whoever has borrowed least is lent to first.
    pub(super) counter: u64,
    /// Those that run and were told nothing, the newest last: before their first byte, and after it.
    pub(super) unanswered: List,
    pub(super) answering: List,
    pub(super) gap: Gap,
    pub(super) counts: Counts,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) admitted: u64,
    pub(super) served: u64,
    pub(super) owners_waited: u64,
    pub(super) refused: Refused,
    pub(super) revoked: u64,
    pub(super) parked: u64,
}

impl Tier {
    pub(super) fn new(name: Arc<str>, share: &Share) -> Self {
        Self {
            name,
            percent: share.percent,
            borrow_up_to_percent: share.borrow_up_to_percent,
            max_prompt: share.max_prompt_tokens,
            queue: share.queue as u64,
            queue_bytes: share.queue_bytes,
            max_wait: share.max_wait,
            revoke: share.revocable,
            ..Self::default()
        }
    }

    /// Takes its parts of another capacity.
    pub(super) fn resize(&mut self, capacity: Load) {
        self.share = capacity.percent(self.percent);
        self.most = capacity.percent(self.borrow_up_to_percent);
    }

    /// Whether a request would be within the tier's share: in all three numbers, or its capacity would be no guarantee. What
    /// the engine has parked may be let back in alone, whatever the share has become meanwhile.
    pub(super) fn owns(&self, load: Load, parked: bool) -> bool {
        let alone = parked && self.used.slots == 0;
        (alone || self.share.holds(self.used, load)) && self.share.holds_prefill(self.used, load)
    }

    /// Whether it uses more than its share now, those aside that were told to stop; and how much of it, in thousandths. What
    /// is borrowed is nothing that a request bears: it is what the tier has too much.
    pub(super) fn excess(&self) -> Option<u64> {
        let slots = self.used.slots.saturating_sub(self.leaving.slots);
        let tokens = self.used.tokens.saturating_sub(self.leaving.tokens);
        let over = slots > self.share.slots || tokens > self.share.tokens;
        let of = |used: u64, share: u64| used.saturating_mul(1000) / share.max(1);
        over.then(|| of(slots, self.share.slots).max(of(tokens, self.share.tokens)))
    }

    pub(super) fn borrowed(&self) -> u64 {
        self.used.slots.saturating_sub(self.share.slots)
    }

    /// The newest request that may be told to stop: one that is not answered yet, else one that is, if that may be.
    pub(super) fn victim(&self, answered_too: bool) -> Option<u32> {
        let answering = self.answering.last;
        let newest = match self.unanswered.last {
            NONE if answered_too => answering,
            newest => newest,
        };
        (newest != NONE).then_some(newest)
    }

    /// The list of those that run and were told nothing which a request is in.
    pub(super) fn list(&mut self, begun: bool) -> &mut List {
        if begun { &mut self.answering } else { &mut self.unanswered }
    }

    pub(super) fn refuse(&mut self, shed: Shed) {
        let refused = &mut self.counts.refused;
        let count = match shed {
            Shed::QueueFull => &mut refused.queue_full,
            Shed::Deadline => &mut refused.deadline,
            Shed::PromptTooLong => &mut refused.prompt_too_long,
            Shed::TooLarge => &mut refused.too_large,
            // Counted when it was told.
            Shed::Revoked => return,
        };
        *count += 1;
    }

    pub(super) fn snapshot(
        &self,
        place: u32,
        requests: &Slab<Request>,
        now: Duration,
    ) -> TierSnapshot {
        let waiting = requests.iter().filter(|request| {
            request.serial != 0 && request.tier == place && request.state == State::Waiting
        });
        let oldest = waiting.map(|request| request.since).min();
        TierSnapshot {
            name: Arc::clone(&self.name),
            guaranteed: self.share.slots,
            in_use: self.used.slots,
            borrowed: self.borrowed(),
            tokens_in_flight: self.used.tokens,
            prefill_pending: self.used.prefill,
            waiting: self.waiting,
            waiting_bytes: self.bytes,
            oldest_wait: oldest.map_or(Duration::ZERO, |since| now.saturating_sub(since)),
            admitted: self.counts.admitted,
            served_tokens: self.counts.served,
            owners_waited: self.counts.owners_waited,
            refused: self.counts.refused,
            revoked: self.counts.revoked,
            parked: self.counts.parked,
        }
    }
}

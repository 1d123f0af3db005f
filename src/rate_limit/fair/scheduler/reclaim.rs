//! Room for a tier that has less than its share, from those that have more.

use std::time::Duration;

use super::{
    Scheduler, Signal, Ticket, Wakes,
    queue::{Request, State},
};
use crate::rate_limit::fair::plan::Revoke;

impl Scheduler {
    /// Tells requests to stop until there will be room for so many tokens and so many slots. They count as running until
    /// they have: a slot that is thought free too soon would be given away twice.
    pub(super) fn reclaim(&mut self, tokens: u64, slots: u64, now: Duration, wakes: &mut Wakes) {
        self.reckon_without_deaf(now);
        while self.leaving.slots < AT_ONCE {
            let staying = self.total.slots.saturating_sub(self.leaving.slots);
            let using = self.total.tokens.saturating_sub(self.leaving.tokens);
            if staying + slots <= self.capacity.slots && using + tokens <= self.capacity.tokens {
                return;
            }
            let Some((place, signal)) = self.victim() else { return };
            self.tell(place, signal, now, wakes);
        }
    }

    /// The request that is told next: of the tier furthest above its share of those of which one may be.
    fn victim(&self) -> Option<(u32, Signal)> {
        let tiers = self.tiers.iter().filter_map(|tier| {
            let excess = tier.excess()?;
            let (signal, answered_too) = match tier.revoke {
                _ if self.plan.yields => (Signal::Yield, true),
                Revoke::Never => return None,
                Revoke::BeforeFirstByte => (Signal::Revoked, false),
                Revoke::Always => (Signal::Revoked, true),
            };
            Some((excess, tier.victim(answered_too)?, signal))
        });
        let (_, place, signal) = tiers.max_by_key(|(excess, ..)| *excess)?;
        Some((place, signal))
    }

    /// What does not stop when it is told to keeps its slot, but no longer those from being told that would: nobody reads
    /// its answer, say, or nobody listens for it.
    fn reckon_without_deaf(&mut self, now: Duration) {
        while self.has_deaf(now)
            && let Some((ticket, since)) = self.told.pop_front()
        {
            let is_it = |request: &&mut Request| {
                matches!(request.state, State::Told(_)) && request.told == since && !request.is_deaf
            };
            let Some(request) = self.of(ticket).filter(is_it) else { continue };
            request.is_deaf = true;
            let (tier, load) = (request.tier, request.load());
            self.tiers.at_mut(tier).leaving -= load;
            self.leaving -= load;
        }
    }

    /// Whether one may have been told too long ago.
    pub(super) fn has_deaf(&self, now: Duration) -> bool {
        self.told.front().is_some_and(|(_, since)| since.saturating_add(OBEYS_WITHIN) <= now)
    }

    fn tell(&mut self, place: u32, signal: Signal, now: Duration, wakes: &mut Wakes) {
        let request = self.requests.at_mut(place);
        let (begun, load) = (request.begun, request.load());
        (request.state, request.told) = (State::Told(signal), now);
        self.told.push_back((Ticket { place, serial: request.serial }, now));
        wakes.push(request.waker.take());
        let tier = self.tiers.at_mut(request.tier);
        tier.list(begun).remove(&mut self.requests, place);
        tier.counts.revoked += u64::from(signal == Signal::Revoked);
        tier.leaving += load;
        self.leaving += load;
    }
}

/// Requests that may have been told to stop and have not yet.
const AT_ONCE: u64 = 2;
/// How long it may take one of them.
pub(in crate::rate_limit) const OBEYS_WITHIN: Duration = Duration::from_secs(5);

//! What one request has reserved in the store, and the one place that settles it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    headers,
    layer::Config,
    settlement::{Due, Known, Outcome, due},
    tier::{ReadyTier, Unit},
};
use crate::{
    future::ReadyOr,
    reject::Rejection,
    reservation::{Meter, Observed, Refined, TokenUsage},
    route::Endpoint,
    store::{
        Admission, Charge, Decision, Grant, Inline, Key, Receipt, Refusal, ReservationId,
        Settlement, Standing, Standings, StoreError,
    },
};

/// Everything an admitted request holds. Settled exactly once; what comes later has no effect.
pub(super) struct Reservation {
    config: Arc<Config>,
    tier: Arc<ReadyTier>,
    record: Key,
    endpoint: Endpoint,
    state: Mutex<State>,
}

struct State {
    known: Known,
    /// The admission.
    base: Part,
    /// Refinements upward, which are rare.
    more: Vec<Part>,
    standings: Standings,
    settled: bool,
}

/// One grant of the store.
#[derive(Clone, Copy)]
struct Part {
    id: ReservationId,
    tokens: u64,
    receipts: Inline<Receipt>,
}

impl Reservation {
    pub(super) fn new(
        config: Arc<Config>,
        tier: Arc<ReadyTier>,
        record: Key,
        endpoint: Endpoint,
        granted: Granted,
    ) -> Self {
        let Granted { id, estimate, grant } = granted;
        let state = State {
            known: Known { estimate, ..Known::default() },
            base: Part { id, tokens: estimate.total(), receipts: grant.receipts },
            more: Vec::new(),
            standings: grant.standings,
            settled: false,
        };
        Self { config, tier, record, endpoint, state: Mutex::new(state) }
    }

    /// Writes where the caller stands into an answer's headers.
    pub(super) fn write_headers(&self, headers: &mut http::HeaderMap) {
        let standings = self.state().standings;
        let unix = self.config.clock.unix();
        headers::write(headers, &self.tier, standings.as_slice(), self.endpoint, unix);
    }

    /// Hears that the output so far is told by the answer's text.
    pub(super) fn estimates_by_text(&self) {
        self.state().known.by_text = true;
    }

    /// Settles, unless that was done.
    pub(super) fn settle(&self, outcome: Outcome) {
        let (base, more, Due { requests, tokens }) = {
            let mut state = self.state();
            if std::mem::replace(&mut state.settled, true) {
                return;
            }
            (
                state.base,
                std::mem::take(&mut state.more),
                due(outcome, &state.known, self.config.options),
            )
        };
        // In the order in which they were granted: the store takes an earlier one to have been moved by whatever was
        // given back before it, and would keep that much. What is used beyond all parts is the first one's debt.
        let held = more.iter().fold(base.tokens, |sum, part| sum.saturating_add(part.tokens));
        let mut left = tokens.min(held);
        let mut take = |part: &Part| {
            let used = left.min(part.tokens);
            left -= used;
            used
        };
        let used = take(&base).saturating_add(tokens.saturating_sub(held));
        self.give_back(&base, requests, used, &self.tier.charges(self.record, base.tokens));
        for part in &more {
            let charges = self.tier.token_charges(self.record, part.tokens);
            self.give_back(part, 0, take(part), &charges);
        }
    }

    fn give_back(&self, part: &Part, requests: u64, tokens: u64, charges: &Inline<Charge>) {
        let mut used = Inline::new(0);
        for charge in charges.as_slice() {
            let limit = self.tier.limits.iter().find(|limit| limit.limit.id == charge.limit.id);
            used.push(match limit.map(|limit| limit.unit) {
                Some(Unit::Requests) => requests,
                Some(Unit::Tokens) => tokens,
                Some(Unit::Slots) | None => 0,
            });
        }
        let receipts = part.receipts.as_slice();
        let (charges, used) = (charges.as_slice(), used.as_slice());
        self.config.store.settle(&Settlement::new(part.id, charges, receipts, used));
    }

    /// Takes a refinement's grant of so many tokens in; gives it back if the request has ended meanwhile.
    fn extend(&self, tokens: u64, granted: Granted) {
        let Granted { id, estimate, grant } = granted;
        let part = Part { id, tokens, receipts: grant.receipts };
        let mut state = self.state();
        if state.settled {
            drop(state);
            self.give_back(&part, 0, 0, &self.tier.token_charges(self.record, part.tokens));
            return;
        }
        state.more.push(part);
        state.known.estimate = estimate;
        let tier = &self.tier;
        let tokens = tier.limits.iter().zip(state.standings.as_mut_slice());
        let tokens = tokens.filter(|(limit, _)| limit.unit == Unit::Tokens);
        for ((_, standing), now) in tokens.zip(grant.standings.as_slice()) {
            *standing = *now;
        }
    }

    /// The answer to a refinement that does not fit.
    fn refused(&self, charges: &[Charge], refusal: &Refusal) -> Rejection {
        // The refinement charges the token limits alone: the others stand as they stood.
        let index = charges.get(refusal.index).and_then(|charge| {
            self.tier.limits.iter().position(|limit| limit.limit.id == charge.limit.id)
        });
        let mut standings = self.state().standings;
        let tokens = self.tier.limits.iter().zip(standings.as_mut_slice());
        let tokens = tokens.filter(|(limit, _)| limit.unit == Unit::Tokens);
        for ((_, standing), now) in tokens.zip(refusal.standings.as_slice()) {
            *standing = *now;
        }
        let (after, unix) = (refusal.retry_after, self.config.clock.unix());
        headers::rejection(&self.tier, index, after, standings.as_slice(), self.endpoint, unix)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Tokens that the store holds for the request.
    fn held(&self) -> u64 {
        let more = self.more.iter().map(|part| part.tokens);
        more.fold(self.base.tokens, u64::saturating_add)
    }
}

/// What an admission asked for and got.
pub(super) struct Granted {
    pub(super) id: ReservationId,
    pub(super) estimate: TokenUsage,
    pub(super) grant: Grant,
}

impl Meter for Reservation {
    fn charge(&self, output_tokens: u64) {
        self.state().known.charge(output_tokens);
    }

    fn report(&self, usage: TokenUsage) {
        self.state().known.report(usage);
    }

    fn observe(&self, observed: Observed) {
        self.state().known.observe(observed);
    }

    fn remaining(&self) -> Option<u64> {
        let state = self.state();
        let limits = self.tier.limits.iter().zip(state.standings.as_slice());
        let tokens = limits.filter(|(limit, _)| limit.unit == Unit::Tokens);
        let left = tokens.map(|(_, standing): (_, &Standing)| standing.remaining).min()?;
        Some(left.saturating_add(state.held()).saturating_sub(state.known.so_far().total()))
    }

    fn refine(self: Arc<Self>, estimate: TokenUsage) -> Refined {
        let more = {
            let mut state = self.state();
            let more = estimate.total().saturating_sub(state.held());
            if more == 0 || state.settled {
                // Less than is held: given back when the request ends.
                state.known.estimate = estimate;
                return ReadyOr::ready(Ok(()));
            }
            more
        };
        let id = ReservationId::next();
        let charges = self.tier.token_charges(self.record, more);
        if charges.as_slice().is_empty() {
            self.state().known.estimate = estimate;
            return ReadyOr::ready(Ok(()));
        }
        match self.config.store.acquire(&Admission::new(id, charges.as_slice())).try_now() {
            Ok(decision) => ReadyOr::ready(self.refined(id, more, estimate, &charges, decision)),
            Err(answer) => ReadyOr::pending(async move {
                let decision = answer.await;
                self.refined(id, more, estimate, &charges, decision)
            }),
        }
    }
}

impl Reservation {
    fn refined(
        &self,
        id: ReservationId,
        more: u64,
        estimate: TokenUsage,
        charges: &Inline<Charge>,
        decision: Result<Decision, StoreError>,
    ) -> Result<(), Rejection> {
        match decision {
            Ok(Decision::Admitted(grant)) => {
                self.extend(more, Granted { id, estimate, grant });
                Ok(())
            }
            Ok(Decision::Refused(refusal)) => Err(self.refused(charges.as_slice(), &refusal)),
            Err(error) => Err(headers::unavailable(&error)),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.settle(Outcome::Answered);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("tier", &self.tier.name).finish_non_exhaustive()
    }
}

/// Settles when it is dropped, however that comes. Moves from the layer's future into the body.
#[derive(Debug)]
pub(super) struct SettleOnDrop {
    reservation: Arc<Reservation>,
    outcome: Outcome,
    /// The last meter settles in its place.
    by_meter: bool,
}

impl SettleOnDrop {
    /// Settles as abandoned, unless told otherwise.
    pub(super) fn new(reservation: Arc<Reservation>) -> Self {
        Self { reservation, outcome: Outcome::Abandoned, by_meter: false }
    }

    /// Settles as `outcome` from now on.
    pub(super) fn set(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// Leaves it to whoever holds a meter. Once all are gone, the request is settled as answered.
    pub(super) fn leave_to_meter(mut self) {
        self.by_meter = true;
    }

    pub(super) fn outcome(&self) -> Outcome {
        self.outcome
    }

    pub(super) fn reservation(&self) -> &Arc<Reservation> {
        &self.reservation
    }
}

impl Drop for SettleOnDrop {
    fn drop(&mut self) {
        if !self.by_meter {
            self.reservation.settle(self.outcome);
        }
    }
}

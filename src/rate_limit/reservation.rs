//! What one request has reserved in the store, and the one place that settles it.

use std::{
    fmt,
    sync::{Arc, PoisonError},
};

use super::{
    fair::{Pace, Permit, Place, Watch},
    headers,
    layer::Config,
    models::Told,
    ready::{ReadyLimit, UNCOUNTED},
    ready_tier::ReadyTier,
    refusal::rejection,
    service::Wanted,
    settlement::{Known, Outcome, due},
    shadow::{Shadow, ShadowKeys},
    shares::{Charges, Part, give_back, held, shares},
    unit::Unit,
};
use crate::{
    future::ReadyOr,
    observe,
    reject::Rejection,
    reservation::{Meter, Observed, Refined, TokenUsage},
    route::Endpoint,
    store::{
        Admission, Decision, Inline, Key, Refusal, ReservationId, Seen, Standing, Standings,
        StoreError, StoreFuture,
    },
    sync::{Mutex, MutexGuard},
};

/// Everything an admitted request holds. Settled exactly once; what comes later has no effect.
pub(super) struct Reservation {
    config: Arc<Config>,
    tier: Arc<ReadyTier>,
    keys: Inline<Key>,
    endpoint: Endpoint,
    /// The admission.
    base: Part,
    state: Mutex<State>,
    /// Those of the shadow limits, until the request is admitted.
    shadow_keys: Option<Box<ShadowKeys>>,
    shadow: Option<Arc<Shadow>>,
}

struct State {
    known: Known,
    /// What the limits make of the model, once it is told.
    model: Option<Arc<Told>>,
    /// Refinements upward, which are rare.
    more: Vec<Part>,
    /// The estimate is no longer that of the admission.
    refined: bool,
    /// What it has of the engine, where that is shared.
    permit: Option<Permit>,
    /// Something of the answer has come.
    begun: bool,
    /// Nothing is held: not yet, or no more.
    settled: bool,
}

impl State {
    /// Where the request stands with the engine.
    fn place(&self) -> Option<Place> {
        self.permit.as_ref()?.place().cloned()
    }
}

impl Reservation {
    /// What a request asks for. It holds nothing yet.
    pub(super) fn ask(config: &Arc<Config>, endpoint: Endpoint, wanted: Wanted) -> Arc<Self> {
        let Wanted { tier, keys, estimate, shadow } = wanted;
        let state = State {
            known: Known { estimate, ..Known::default() },
            model: None,
            more: Vec::new(),
            refined: false,
            permit: None,
            begun: false,
            settled: true,
        };
        let id = ReservationId::next();
        let mut asked = Arc::new(Self {
            config: Arc::clone(config),
            tier,
            keys,
            endpoint,
            base: Part { id, charges: Charges::none(), seen: Seen::default() },
            state: Mutex::new(state),
            shadow_keys: shadow,
            shadow: None,
        });
        if let Some(Self { tier, keys, base, .. }) = Arc::get_mut(&mut asked) {
            // In their place: they are large to move.
            let charges = &mut base.charges;
            tier.charge_admission(charges, keys, estimate, &*config.clock);
        }
        asked
    }

    /// Asks for it.
    pub(super) fn acquire(&self) -> StoreFuture<Decision> {
        let Part { id, charges, .. } = &self.base;
        if charges.as_slice().is_empty() {
            // All of the tier's limits are counted later, or only counted.
            return StoreFuture::ready(Ok(Decision::Admitted(Seen::default())));
        }
        self.config.store.acquire(&Admission::new(*id, charges.as_slice()))
    }

    /// What the store's answer means. Where nobody else has the reservation yet, it holds what was granted from now on; a
    /// request goes unmetered where there is none, and nothing else to hold either.
    pub(super) fn decided(
        mut self: Arc<Self>,
        decision: &Result<Decision, StoreError>,
    ) -> Result<Option<Arc<Self>>, Rejection> {
        let seen = match decision {
            Ok(Decision::Admitted(seen)) => Some(seen),
            Ok(Decision::Refused(Refusal { index, retry_after, seen, .. })) => {
                let standings = self.config.store.standings(self.base.charges.as_slice(), seen);
                let (index, told) = (Some(*index), self.config.telling(self.endpoint));
                let standings = standings.as_slice();
                return Err(rejection(&self.tier, index, *retry_after, standings, told));
            }
            Err(error) => {
                self.tier.without_store(error)?;
                None
            }
        };
        if seen.is_none() && self.config.fair.is_none() {
            return Ok(None);
        }
        if let Some(this) = Arc::get_mut(&mut self) {
            let state = this.state.get_mut().unwrap_or_else(PoisonError::into_inner);
            state.settled = false;
            let Some(seen) = seen else {
                this.base.charges = Charges::none();
                return Ok(Some(self));
            };
            this.base.seen = *seen;
            let (keys, estimate) = (this.shadow_keys.take(), state.known.estimate);
            this.shadow = keys.and_then(|keys| keys.begin(&this.config, &this.tier, estimate));
        }
        Ok(Some(self))
    }

    /// Holds its part of the engine too, from now on.
    pub(super) fn hold(&self, permit: Permit) {
        self.state().permit = Some(permit);
    }

    /// Leaves the engine what it asked for, and hears what the request is told.
    pub(super) fn tell_engine(&self, extensions: &mut http::Extensions) -> Option<Arc<Watch>> {
        self.config.fair.as_ref()?;
        let state = self.state();
        let permit = state.permit.as_ref()?;
        permit.tell_engine(extensions);
        permit.watch().map(Arc::clone)
    }

    /// Times the answer, where the engine's capacity goes by that.
    pub(super) fn pace(&self) -> Option<Pace> {
        self.config.fair.as_ref()?;
        self.state().permit.as_ref()?.pace()
    }

    /// The first of the answer has come, of a stream or of what is whole.
    pub(super) fn begin_answer(&self, is_streamed: bool) {
        if self.config.fair.is_none() {
            return;
        }
        let mut state = self.state();
        state.begun = true;
        if let Some(place) = state.place() {
            drop(state);
            place.first_byte(is_streamed);
        }
    }

    /// Writes where the caller stands into an answer's headers.
    pub(super) fn write_headers(&self, headers: &mut http::HeaderMap) {
        let (standings, degraded) = {
            let state = self.state();
            (self.standings(&state, None), self.parts(&state).any(|part| part.seen.degraded))
        };
        if degraded {
            headers.insert(headers::MODE, headers::DEGRADED);
        }
        let told = self.config.telling(self.endpoint);
        told.write(headers, &self.tier, standings.as_slice());
    }

    /// Hears what the answer's body says: the usage it states, its output by estimate, and whether that is by its text.
    pub(super) fn read(&self, stated: Option<TokenUsage>, output_so_far: u64, by_text: bool) {
        let known = &mut self.state().known;
        known.stated = stated.or(known.stated);
        (known.output_so_far, known.by_text) = (output_so_far, by_text || known.by_text);
    }

    /// Settles, unless that was done.
    pub(super) fn settle(&self, outcome: Outcome) {
        let (more, model, due, permit, aborted) = {
            let mut state = self.state();
            if std::mem::replace(&mut state.settled, true) {
                return;
            }
            let permit = state.permit.take();
            let revoked = permit.as_ref().is_some_and(Permit::is_revoked);
            let outcome = if revoked && !state.begun { Outcome::Unserved } else { outcome };
            (
                std::mem::take(&mut state.more),
                state.model.clone(),
                due(outcome, &state.known, self.config.options),
                permit,
                revoked || matches!(outcome, Outcome::Aborted | Outcome::Abandoned),
            )
        };
        // In the order in which they were granted: the store takes an earlier one to have been moved by whatever was
        // given back before it, and would keep that much.
        if model.is_none() && self.tier.limits.iter().any(ReadyLimit::is_by_model) {
            observe::count("palisade_model_not_told_total", &[("layer", "rate_limit")]);
        }
        let units = self.tier.due(due, model.as_deref());
        for (part, used) in shares(std::iter::once(&self.base).chain(&more), units) {
            give_back(&*self.config.store, part, &used);
        }
        if let Some(shadow) = &self.shadow {
            shadow.end(due);
        }
        if let Some(permit) = permit {
            permit.release(due.tokens, aborted);
        }
    }

    /// Takes a refinement's grant in; gives it back if the request has ended meanwhile.
    fn extend(&self, part: Part, estimate: TokenUsage) {
        let mut state = self.state();
        if state.settled {
            drop(state);
            return give_back(
                &*self.config.store,
                &part,
                &Inline::filled(0, part.charges.as_slice().len()),
            );
        }
        state.more.push(part);
        self.refined(state, estimate);
    }

    /// The estimate is a better one from now on.
    fn refined(&self, mut state: MutexGuard<'_, State>, estimate: TokenUsage) {
        state.known.estimate = estimate;
        state.refined = true;
        let place = state.place();
        drop(state);
        if let Some(place) = place {
            place.refine(estimate);
        }
        if let Some(shadow) = &self.shadow {
            shadow.reserve(estimate);
        }
    }

    /// The answer to a refinement that does not fit.
    fn refused(&self, part: &Part, refusal: &Refusal) -> Rejection {
        let standings = {
            let state = self.state();
            self.standings(&state, Some(part))
        };
        let index = part.charges.indices().nth(refusal.index);
        let (after, told) = (refusal.retry_after, self.config.telling(self.endpoint));
        rejection(&self.tier, index, after, standings.as_slice(), told)
    }

    /// Where the limits stood when each was last decided on, the `last` of these decisions aside from those in `state`.
    fn standings(&self, state: &State, last: Option<&Part>) -> Standings {
        let told = |part: &Part| self.config.store.standings(part.charges.as_slice(), &part.seen);
        // The admission charges the first of the limits, up to those by model.
        let mut standings = told(&self.base);
        standings.fill_up(UNCOUNTED, self.tier.limits.len());
        for part in state.more.iter().chain(last) {
            let told = told(part);
            for (index, told) in part.charges.indices().zip(told.as_slice()) {
                if let Some(standing) = standings.as_mut_slice().get_mut(index) {
                    *standing = *told;
                }
            }
        }
        standings
    }

    /// Units of the limit at `index` that the store holds for the request. `None`: it is not charged yet.
    fn held(&self, state: &State, index: usize) -> Option<u64> {
        held(self.parts(state), index)
    }

    /// Units of it that there are for this request, those that it holds included.
    fn room(&self, state: &State, index: usize, standing: &Standing) -> u64 {
        standing.remaining.saturating_add(self.held(state, index).unwrap_or(0))
    }

    fn parts<'a>(&'a self, state: &'a State) -> impl Iterator<Item = &'a Part> {
        std::iter::once(&self.base).chain(&state.more)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        let so_far = state.known.so_far();
        let standings = self.standings(&state, None);
        let limits = self.tier.limits.iter().zip(standings.as_slice()).enumerate();
        // A prompt is over: what is left for prompts does not end an answer.
        let limits = limits.filter(|(_, (limit, _))| limit.unit != Unit::InputTokens);
        let left = limits.filter_map(|(index, (limit, standing)): (usize, (_, &Standing))| {
            if *standing == UNCOUNTED {
                return None;
            }
            let weights = limit.weights(state.model.as_deref(), index);
            let left = self.room(&state, index, standing);
            let left = left.saturating_sub(limit.units(so_far, weights)?);
            limit.output_that_fits(left, TokenUsage::default(), weights)
        });
        left.min()
    }

    fn granted_output_tokens(&self) -> Option<u64> {
        let state = self.state();
        state.refined.then_some(state.known.estimate.output)
    }

    fn refine(self: Arc<Self>, model: Option<&str>, estimate: TokenUsage) -> Refined {
        {
            let mut state = self.state();
            if let Some(place) = state.place()
                && let Err(rejection) = place.takes(estimate)
            {
                return ReadyOr::ready(Err(rejection));
            }
            if state.model.is_none() {
                state.model = Told::of(&self.tier, &self.config.pepper, &self.keys, model);
            }
        }
        if let Some(shadow) = &self.shadow {
            shadow.tell(model);
        }
        let least = self.config.options.least_output;
        self.reserve(estimate, least)
    }
}

impl Reservation {
    /// Holds what `estimate` is more than is held; or, where there is no room for that, what there is room for, if it
    /// leaves at least so much for the answer.
    fn reserve(self: Arc<Self>, estimate: TokenUsage, least_output: Option<u64>) -> Refined {
        let id = ReservationId::next();
        let (amounts, model) = {
            let state = self.state();
            let model = state.model.clone();
            let amounts =
                self.tier.missing(estimate, model.as_deref(), |index| self.held(&state, index));
            if state.settled || amounts.as_slice().iter().all(Option::is_none) {
                // Less than is held: given back when the request ends.
                self.refined(state, estimate);
                return ReadyOr::ready(Ok(()));
            }
            (amounts, model)
        };
        let clock = &*self.config.clock;
        let charges = self.tier.charges(&self.keys, model.as_deref(), &amounts, clock);
        let answer = self.config.store.acquire(&Admission::new(id, charges.as_slice()));
        let decided = move |this: Arc<Self>, decision| {
            let part = |seen| Part { id, charges, seen };
            let refusal = match decision {
                Ok(Decision::Admitted(grant)) => {
                    this.extend(part(grant), estimate);
                    return ReadyOr::ready(Ok(()));
                }
                Ok(Decision::Refused(refusal)) => refusal,
                Err(error) => return ReadyOr::ready(this.without_store(estimate, &error)),
            };
            let part = part(refusal.seen);
            let output = this.output_that_fits(&part, estimate);
            match (output, least_output) {
                // Where it was no want of tokens, there is room for all of them.
                (Some(output), Some(least))
                    if (least.max(1)..estimate.output).contains(&output) =>
                {
                    this.reserve(TokenUsage { output, ..estimate }, None)
                }
                _ => ReadyOr::ready(Err(this.refused(&part, &refusal))),
            }
        };
        match answer.try_now() {
            Ok(decision) => decided(self, decision),
            Err(answer) => ReadyOr::pending(async move { decided(self, answer.await).await }),
        }
    }

    /// A refinement that the store can't be asked for.
    fn without_store(&self, estimate: TokenUsage, error: &StoreError) -> Result<(), Rejection> {
        self.tier.without_store(error)?;
        self.refined(self.state(), estimate);
        Ok(())
    }

    /// Tokens of the answer that there would have been room for beside the prompt.
    fn output_that_fits(&self, part: &Part, estimate: TokenUsage) -> Option<u64> {
        let state = self.state();
        let standings = self.standings(&state, Some(part));
        let limits = self.tier.limits.iter().zip(standings.as_slice()).enumerate();
        let room = limits.map(|(index, (limit, standing))| {
            if *standing == UNCOUNTED {
                return Some(u64::MAX);
            }
            let weights = limit.weights(state.model.as_deref(), index);
            limit.output_that_fits(self.room(&state, index, standing), estimate, weights)
        });
        room.min().flatten()
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

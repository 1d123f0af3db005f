//! Limits that are counted and never refuse: how a limit is tried on live traffic before it is enforced.
//!
//! They are asked for after the enforced limits have granted a request, in an admission of their own. In the same one, a
//! shadow limit that is full would stop the others from being charged; and to charge it nonetheless would heap up a debt that
//! it would not have were it enforced. Here it is left out, told of, and the rest is asked for again, so that each counts what it
//! would let through. The request does not wait for it: a store across a network is asked in the background.

use std::{
    fmt,
    pin::pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

use super::{
    layer::Config,
    models::Told,
    ready_tier::{Amounts, ReadyTier},
    scope::Asker,
    settlement::Due,
    shares::{Part, give_back, held, shares},
};
use crate::{
    observe,
    reservation::TokenUsage,
    runtime,
    store::{Admission, Decision, Inline, Key, ReservationId},
    sync::{Mutex, MutexGuard},
};

/// What one request holds of the shadow limits.
pub(super) struct Shadow {
    config: Arc<Config>,
    /// The shadow limits alone.
    tier: Arc<ReadyTier>,
    keys: Inline<Key>,
    state: Mutex<State>,
}

/// The records that count a caller's shadow limits.
pub(super) struct ShadowKeys(Inline<Key>);

impl ShadowKeys {
    /// `None`: there are no such limits, or it can't be told who the caller is. An enforced limit would refuse then.
    pub(super) fn of(tier: &ReadyTier, asker: &Asker<'_>) -> Option<Box<Self>> {
        match tier.shadow.as_ref()?.keys(asker) {
            Ok(keys) => Some(Box::new(Self(keys))),
            Err(rejection) => {
                observe::debug("rate_limit", "shadow limits can't be counted");
                observe::debug("rate_limit", rejection.message());
                None
            }
        }
    }

    pub(super) fn keys(&self) -> &Inline<Key> {
        &self.0
    }

    /// Counts an admission by its headers, which never refuses for its size alone.
    pub(super) fn begin(
        &self,
        config: &Arc<Config>,
        of: &ReadyTier,
        estimate: TokenUsage,
    ) -> Option<Arc<Shadow>> {
        let tier = Arc::clone(of.shadow.as_ref()?);
        let estimate = tier.clamp(estimate);
        let config = Arc::clone(config);
        let shadow = Arc::new(Shadow { config, tier, keys: self.0, state: Mutex::default() });
        shadow.reserve(estimate);
        Some(shadow)
    }
}

#[derive(Default)]
struct State {
    parts: Vec<Part>,
    model: Option<Arc<Told>>,
    /// The limits that would have refused the request, as bits.
    over: u8,
    /// The store is being asked.
    asking: bool,
    /// What it is asked for next.
    next: Option<TokenUsage>,
    /// The request has ended, and pays this.
    due: Option<Due>,
}

impl Shadow {
    /// Hears which model the request is for. The first word counts.
    pub(super) fn tell(&self, model: Option<&str>) {
        let mut state = self.state();
        if state.model.is_none() {
            state.model = Told::of(&self.tier, &self.config.pepper, &self.keys, model);
        }
    }

    /// Holds what `estimate` is more than is held.
    pub(super) fn reserve(self: &Arc<Self>, estimate: TokenUsage) {
        let mut state = self.state();
        if state.due.is_some() {
            return;
        }
        if std::mem::replace(&mut state.asking, true) {
            state.next = Some(estimate);
            return;
        }
        drop(state);
        self.begin_to_ask(estimate);
    }

    fn begin_to_ask(self: &Arc<Self>, estimate: TokenUsage) {
        let asking = Asking(Arc::clone(self));
        let mut asked = Box::pin(async move { asking.0.ask(estimate).await });
        // A store in memory has answered by then.
        let now = pin!(&mut asked).poll(&mut Context::from_waker(Waker::noop()));
        if now == Poll::Pending {
            // Without a runtime what was asked is given back.
            let _ = runtime::spawn(asked);
        }
    }

    /// The request has ended.
    pub(super) fn end(&self, due: Due) {
        let mut state = self.state();
        if state.due.is_none() {
            state.due = Some(due);
            self.pay(state);
        }
    }

    async fn ask(&self, estimate: TokenUsage) {
        while let Some(amounts) = self.wanted(estimate) {
            let id = ReservationId::next();
            let charges;
            let answer = {
                let (model, clock) = (self.state().model.clone(), &*self.config.clock);
                charges = self.tier.charges(&self.keys, model.as_deref(), &amounts, clock);
                self.config.store.acquire(&Admission::new(id, charges.as_slice()))
            };
            match answer.await {
                Ok(Decision::Admitted(seen)) => {
                    self.state().parts.push(Part { id, charges, seen });
                    return;
                }
                Ok(Decision::Refused(refusal)) => {
                    let Some(index) = charges.indices().nth(refusal.index) else { return };
                    self.state().over |= 1 << index;
                    if let Some(limit) = self.tier.limits.get(index) {
                        observe::shadow_refused(&self.tier.name, &limit.name);
                    }
                }
                Err(_) => return observe::debug("rate_limit", "shadow limits can't be counted"),
            }
        }
    }

    /// What is not held yet of `estimate`, by the limits that have room. `None`: nothing.
    fn wanted(&self, estimate: TokenUsage) -> Option<Amounts> {
        let state = self.state();
        let held = |index| held(state.parts.iter(), index);
        let mut amounts = self.tier.missing(estimate, state.model.as_deref(), held);
        for (index, amount) in amounts.as_mut_slice().iter_mut().enumerate() {
            *amount = amount.filter(|_| !state.is_over(index));
        }
        amounts.as_slice().iter().any(Option::is_some).then_some(amounts)
    }

    /// Settles what is held, once the request has ended and nothing is asked any more.
    fn pay(&self, mut state: MutexGuard<'_, State>) {
        let Some(due) = state.due.filter(|_| !state.asking) else { return };
        let parts = std::mem::take(&mut state.parts);
        let model = state.model.clone();
        let mut pays = self.tier.due(due, model.as_deref());
        // Had the limit been enforced, the request would not have come to use any.
        let refused = Due { tokens: TokenUsage::default(), ..due };
        let refused = self.tier.due(refused, model.as_deref());
        let refused = refused.as_slice().iter().enumerate();
        for (pays, (index, refused)) in pays.as_mut_slice().iter_mut().zip(refused) {
            if state.is_over(index) {
                *pays = *refused;
            }
        }
        drop(state);
        for (part, used) in shares(parts.iter(), pays) {
            give_back(&*self.config.store, part, &used);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_over(&self, index: usize) -> bool {
        self.over & (1 << index) != 0
    }
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shadow").finish_non_exhaustive()
    }
}

/// While the store is asked, also when that is broken off.
struct Asking(Arc<Shadow>);

impl Drop for Asking {
    fn drop(&mut self) {
        let mut state = self.0.state();
        // Also of a request that has ended by now: what it used is charged to what is held.
        if let Some(next) = state.next.take() {
            drop(state);
            return self.0.begin_to_ask(next);
        }
        state.asking = false;
        self.0.pay(state);
    }
}

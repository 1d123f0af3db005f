//! The builder of the shared capacity.

use std::{sync::Arc, time::Duration};

use super::{
    Adaptive, Capacity, FairAdmission, Headroom, Share,
    admission::{Terms, TierFacts},
    grouping::Grouping,
    plan::Plan,
    scheduler::Scheduler,
};
use crate::{
    BuildError,
    clock::{Clock, SystemClock},
    rate_limit::{Scope, TokenWeights},
};

/// Builds a [`FairAdmission`].
#[derive(Debug)]
#[must_use]
pub struct FairAdmissionBuilder {
    capacity: Option<Capacity>,
    tiers: Vec<(Arc<str>, Share)>,
    fallback: Option<String>,
    headroom: Headroom,
    adaptive: Option<Adaptive>,
    weights: TokenWeights,
    group_by: Option<Vec<Scope>>,
    engine_yields: bool,
    abort_grace: Duration,
    clock: Arc<dyn Clock>,
}

impl Default for FairAdmissionBuilder {
    fn default() -> Self {
        Self {
            capacity: None,
            tiers: Vec::new(),
            fallback: None,
            headroom: Headroom::default(),
            adaptive: None,
            weights: TokenWeights::new(1000, 4000),
            group_by: None,
            engine_yields: false,
            abort_grace: Duration::ZERO,
            clock: Arc::new(SystemClock),
        }
    }
}

impl FairAdmissionBuilder {
    /// How much the engine takes at a time. Required.
    pub fn capacity(mut self, capacity: Capacity) -> Self {
        self.capacity = Some(capacity);
        self
    }

    /// Adds a tier's share. At least one is needed.
    pub fn tier(mut self, name: impl Into<Arc<str>>, share: Share) -> Self {
        self.tiers.push((name.into(), share));
        self
    }

    /// The tier whose share callers of any other tier have: of those that
    /// [`TierOverrides`](crate::rate_limit::TierOverrides) gives single callers. By default a layer with a tier that has no
    /// share can't be built, and such a caller is refused with 500.
    pub fn fallback_tier(mut self, name: impl Into<String>) -> Self {
        self.fallback = Some(name.into());
        self
    }

    /// Slots that nobody may borrow. Default: [`Headroom::automatic`].
    pub fn headroom(mut self, headroom: Headroom) -> Self {
        self.headroom = headroom;
        self
    }

    /// Lends less when the engine takes too long for a token. Default: all that is nobody's is lent, beside the headroom,
    /// however slow the engine is.
    pub fn adaptive(mut self, adaptive: Adaptive) -> Self {
        self.adaptive = Some(adaptive);
        self
    }

    /// What a token of a prompt and one of an answer take of an engine, by which callers are served alike. Default: 1 and 4,
    /// as vendors price them.
    pub fn weights(mut self, weights: TokenWeights) -> Self {
        self.weights = weights;
        self
    }

    /// Who counts as one when a tier's share is divided, before single callers do: what is hard to have many of, so that
    /// accounts buy no shares. Default: the organisation, if the token names one; else the client's network, where the server
    /// tells its address; else the caller himself. A user stays in the network in which he is in line already: he
    /// has no turns in several. Behind a proxy, its word for the address has to be taken
    /// ([`client_address`](crate::rate_limit::TieredRateLimitLayerBuilder::client_address)), else all who come through it
    /// count as one.
    pub fn group_by(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.group_by = Some(scopes.into_iter().collect());
        self
    }

    /// The engine is in this process, and honours [`YieldSignal`](super::YieldSignal): it finds that and an
    /// [`EngineHint`](super::EngineHint) in the extensions of every request that is let in. Default: it does not, and there
    /// are none.
    pub fn engine_yields(mut self) -> Self {
        self.engine_yields = true;
        self
    }

    /// For how long a slot stays taken when a request is dropped before its answer has ended: its client has left, it was
    /// revoked, or the answer broke off. For an engine that works on for a while then; let go at once, the slot would be free
    /// here and not there.
    /// Default: zero. The caller pays for what he had, as ever. Outside of a tokio runtime, the slot is let go at once.
    pub fn abort_grace(mut self, grace: Duration) -> Self {
        self.abort_grace = grace;
        self
    }

    /// The clock that waits are counted by. Default: the system's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Checks the configuration.
    ///
    /// # Errors
    /// When there is no capacity, no tier, or two of a name; when a token may take no time; when the shares are more than 100 % together, or one of them
    /// comes to no slot; when nothing but the headroom is left to borrow, or no ordinary prompt fits what may be pending;
    /// when the fallback does not exist.
    pub fn build(self) -> Result<FairAdmission, BuildError> {
        let capacity = self.capacity.ok_or(BuildError::Missing("capacity"))?;
        let grouping = match self.group_by {
            Some(scopes) => Grouping::of(scopes)?,
            None => Grouping::MostDurable,
        };
        let existing = |name: &str| {
            self.tiers.iter().position(|(tier, _)| **tier == *name).ok_or_else(|| {
                BuildError::invalid("fallback_tier", format!("{name}: there is no such tier"))
            })
        };
        let fallback = self.fallback.as_deref().map(existing).transpose()?;
        let tiers = self.tiers.iter().enumerate();
        let tiers = tiers.map(|(at, (name, share))| TierFacts::new(at, Arc::clone(name), *share));
        let tiers = tiers.collect();
        let plan = Plan {
            capacity,
            headroom: self.headroom,
            adaptive: self.adaptive,
            weights: self.weights,
            yields: self.engine_yields,
            tiers: self.tiers,
        };
        let terms = Terms {
            fallback,
            grouping,
            clock: self.clock,
            engine_yields: self.engine_yields,
            abort_grace: self.abort_grace,
            adapts: self.adaptive.is_some(),
        };
        Ok(FairAdmission::new(Scheduler::new(plan.check()?), tiers, terms))
    }
}

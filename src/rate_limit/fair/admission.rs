//! The handle on an engine's capacity that all layers before it share.

use std::{
    fmt,
    sync::{Arc, PoisonError},
    time::Duration,
};

use http::Request;

use super::{
    Capacity, FairAdmissionBuilder, Share, Snapshot,
    deadline::patience,
    gauges::{Gauges, TierMetrics},
    grouping::{Grouping, subject},
    permit::{Permit, Place, Queued},
    plan::Revoke,
    refusal::{self, Spread},
    scheduler::{Arrival, Ask, Measured, Scheduler, Shed, Wakes},
};
use crate::{
    BuildError, clock::Clock, observe, rate_limit::scope::Asker, reject::Rejection,
    reservation::TokenUsage, sync::Mutex,
};

/// The capacity of one engine, shared between tiers. Cheap to clone: one for each engine, given to every layer that stands
/// before it. See the [module docs](super).
#[derive(Clone)]
pub struct FairAdmission(Arc<Engine>);

struct Engine {
    scheduler: Mutex<Scheduler>,
    tiers: Vec<Arc<TierFacts>>,
    terms: Terms,
    spread: Spread,
    gauges: Gauges,
}

/// What the builder was told that is not the scheduler's.
pub(super) struct Terms {
    /// Whose share callers of tiers without one have.
    pub(super) fallback: Option<usize>,
    pub(super) grouping: Grouping,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) engine_yields: bool,
    pub(super) abort_grace: Duration,
    pub(super) adapts: bool,
}

/// What is fixed of a tier.
pub(super) struct TierFacts {
    /// Its place among them.
    pub(super) index: usize,
    pub(super) name: Arc<str>,
    pub(super) share: Share,
    pub(super) metrics: TierMetrics,
}

impl TierFacts {
    pub(super) fn new(index: usize, name: Arc<str>, share: Share) -> Self {
        let metrics = TierMetrics::new(&name);
        Self { index, name, share, metrics }
    }
}

/// What a request says of itself.
pub(in crate::rate_limit) struct Wish {
    usage: TokenUsage,
    /// What it takes while it waits.
    bytes: u64,
    patience: Option<Duration>,
}

impl Wish {
    /// What a request says that has so long a body, and may use so much.
    pub(in crate::rate_limit) fn of<B>(request: &Request<B>, body: u64, usage: TokenUsage) -> Self {
        let headers = request.headers();
        let lines = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
        let bytes = body.min(READ_AHEAD).saturating_add(lines.sum::<usize>() as u64);
        Self { usage, bytes, patience: patience(headers) }
    }
}

/// What a request asks for. It holds nothing yet.
pub(in crate::rate_limit) struct Asking {
    tier: Arc<TierFacts>,
    ask: Ask,
}

/// What becomes of a request that asks.
pub(in crate::rate_limit) enum Entry {
    Admitted(Permit),
    Queued(Queued),
}

impl FairAdmission {
    /// A capacity to share.
    pub fn builder() -> FairAdmissionBuilder {
        FairAdmissionBuilder::default()
    }

    /// How all tiers stand now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let now = self.now();
        self.look(|scheduler, _| scheduler.snapshot(now))
    }

    /// Changes the capacity, in all layers that share it: for an engine that is restarted with another, or one of several
    /// that is gone. What runs goes on, also beyond it; nothing more is let in until it fits.
    ///
    /// # Errors
    /// As in [`build`](FairAdmissionBuilder::build). The capacity stays as it was then.
    pub fn set_capacity(&self, capacity: Capacity) -> Result<(), BuildError> {
        self.change(|scheduler, now, wakes| scheduler.set_capacity(capacity, now, wakes))
    }

    pub(super) fn new(scheduler: Scheduler, tiers: Vec<TierFacts>, terms: Terms) -> Self {
        let tiers = tiers.into_iter().map(Arc::new).collect();
        let (spread, gauges) = (Spread::new(), Gauges::default());
        Self(Arc::new(Engine { scheduler: Mutex::new(scheduler), tiers, terms, spread, gauges }))
    }

    /// The names of all tiers.
    pub(super) fn tiers(&self) -> impl Iterator<Item = &str> {
        self.0.tiers.iter().map(|tier| &*tier.name)
    }

    /// Whether callers of this tier have a share.
    pub(in crate::rate_limit) fn has(&self, tier: &str) -> bool {
        self.tier(tier).is_some()
    }

    fn tier(&self, name: &str) -> Option<&Arc<TierFacts>> {
        let fallback = || self.0.tiers.get(self.0.terms.fallback?);
        self.0.tiers.iter().find(|tier| &*tier.name == name).or_else(fallback)
    }

    /// What a caller's request asks for.
    pub(in crate::rate_limit) fn ask(
        &self,
        asker: &Asker<'_>,
        wish: &Wish,
    ) -> Result<Asking, Rejection> {
        let tier = self.tier(asker.tier).ok_or_else(|| refusal::no_share(asker.tier))?;
        let group = self.0.terms.grouping.group(asker)?;
        let max_wait = tier.share.max_wait;
        let wait = wish.patience.map_or(max_wait, |patience| patience.min(max_wait));
        let ask = Ask {
            tier: tier.index,
            group: group.key,
            stays: group.is_place,
            subject: subject(asker),
            prompt: wish.usage.input,
            output: wish.usage.output,
            bytes: wish.bytes,
            deadline: self.now().saturating_add(wait),
        };
        Ok(Asking { tier: Arc::clone(tier), ask })
    }

    /// Lets a request in, or to the queue.
    pub(in crate::rate_limit) fn enter(&self, asking: Asking) -> Result<Entry, Rejection> {
        let Asking { tier, ask } = asking;
        let deadline = ask.deadline;
        let (arrival, now) =
            self.change(|scheduler, now, wakes| (scheduler.arrive(ask, now, wakes), now));
        match arrival {
            Arrival::Admitted(ticket) => {
                tier.metrics.waited(Duration::ZERO);
                Ok(Entry::Admitted(Permit::new(Place::new(self.clone(), ticket, tier))))
            }
            Arrival::Waiting(ticket) => {
                let place = Place::new(self.clone(), ticket, tier);
                Ok(Entry::Queued(Queued::new(place, now, deadline)))
            }
            Arrival::Refused(shed) => Err(self.refused(&tier, shed)),
        }
    }

    /// The refusal of a request of this tier. Counted.
    pub(super) fn refused(&self, tier: &TierFacts, shed: Shed) -> Rejection {
        observe::fair_refused(&tier.name, refusal::code(shed));
        let drain = self.look(|scheduler, _| scheduler.drains_in(tier.index, self.now()));
        refusal::rejection(shed, &tier.name, self.0.spread.over(drain))
    }

    /// Whether a running request of this tier may be told anything.
    pub(super) fn tells(&self, tier: &TierFacts) -> bool {
        self.engine_yields() || tier.share.revocable != Revoke::Never
    }

    pub(super) fn abort_grace(&self) -> Duration {
        self.0.terms.abort_grace
    }

    pub(super) fn engine_yields(&self) -> bool {
        self.0.terms.engine_yields
    }

    /// Whether what may be borrowed goes by how fast the engine is.
    pub(super) fn adapts(&self) -> bool {
        self.0.terms.adapts
    }

    /// Takes what was measured of an answer.
    pub(super) fn measured(&self, measured: Measured) {
        let finding = self.change(|scheduler, now, wakes| scheduler.measured(measured, now, wakes));
        if finding.oversold {
            observe::count("palisade_fair_oversold_total", &[]);
        }
        if let Some(target) = finding.target {
            let found = format!(
                "adaptive capacity: a token may take {target:.1?}, 1.5 times what it takes at low load"
            );
            observe::info("rate_limit", &found);
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.0.terms.clock.monotonic()
    }

    /// Changes who has what.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut Scheduler, Duration, &mut Wakes) -> T,
    ) -> T {
        let now = self.now();
        let result = self.look(|scheduler, wakes| change(scheduler, now, wakes));
        let metrics = self.0.tiers.iter().map(|tier| &tier.metrics);
        let standing = |tier| self.look(|scheduler, _| scheduler.use_of(tier));
        let limit = || self.adapts().then(|| self.look(|scheduler, _| scheduler.borrow_limit()));
        self.0.gauges.tell(metrics, standing, || limit().flatten());
        result
    }

    /// Does something under the lock, for a moment: neither the clock nor a waker nor anything of the application's runs in
    /// it, since they may do anything.
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut Scheduler, &mut Wakes) -> T) -> T {
        let mut wakes = Wakes::default();
        let result = {
            let mut scheduler = self.0.scheduler.lock().unwrap_or_else(PoisonError::into_inner);
            look(&mut scheduler, &mut wakes)
        };
        wakes.wake();
        result
    }
}

impl fmt::Debug for FairAdmission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tiers: Vec<_> = self.tiers().collect();
        f.debug_struct("FairAdmission").field("tiers", &tiers).finish_non_exhaustive()
    }
}

/// What a server reads of a body that nobody asks for: HTTP/2 a stream's window, HTTP/1 less.
const READ_AHEAD: u64 = 1 << 20;

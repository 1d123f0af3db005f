//! What one request has of an engine, from the moment that it asks: a place in the queue, then a permit.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::Extensions;

use super::{
    FairAdmission,
    admission::TierFacts,
    pace::Pace,
    scheduler::{OBEYS_WITHIN, Shed, Signal, Ticket},
    signal::{EngineHint, SlotClass, Watch, YieldSignal},
};
use crate::{observe, reject::Rejection, reservation::TokenUsage, runtime};

/// A ticket, and whose it is.
#[derive(Clone)]
pub(in crate::rate_limit) struct Place {
    fair: FairAdmission,
    ticket: Ticket,
    tier: Arc<TierFacts>,
}

impl Place {
    pub(super) fn new(fair: FairAdmission, ticket: Ticket, tier: Arc<TierFacts>) -> Self {
        Self { fair, ticket, tier }
    }

    /// Ready when a waiter is let in, or is not any more.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Result<(), Shed>> {
        self.fair.look(|scheduler, wakes| scheduler.poll(self.ticket, cx.waker(), wakes))
    }

    /// What a running request is told to do.
    pub(super) fn running(&self, waker: &Waker) -> Poll<Signal> {
        self.fair.look(|scheduler, wakes| scheduler.running(self.ticket, waker, wakes))
    }

    /// The engine has parked the stream.
    pub(super) fn park(&self) {
        self.fair.change(|scheduler, now, wakes| scheduler.park(self.ticket, now, wakes));
    }

    /// Refuses a better estimate by which the prompt is too long for the tier.
    pub(in crate::rate_limit) fn takes(&self, usage: TokenUsage) -> Result<(), Rejection> {
        if self.tier.share.max_prompt_tokens.is_some_and(|most| usage.input > most) {
            return Err(self.fair.refused(&self.tier, Shed::PromptTooLong));
        }
        Ok(())
    }

    /// There is a better estimate.
    pub(in crate::rate_limit) fn refine(&self, usage: TokenUsage) {
        let (prompt, output) = (usage.input, usage.output);
        self.fair.change(|scheduler, now, wakes| {
            scheduler.refine(self.ticket, prompt, output, now, wakes);
        });
    }

    /// Why the request was broken off, for its caller.
    pub(super) fn revoked(&self) -> Rejection {
        self.fair.refused(&self.tier, Shed::Revoked)
    }

    /// The answer has begun, streamed or whole.
    pub(in crate::rate_limit) fn first_byte(&self, is_streamed: bool) {
        let found = self.fair.change(|scheduler, now, wakes| {
            scheduler.first_byte(self.ticket, is_streamed, now, wakes)
        });
        if let Some(found) = found {
            observe::count("palisade_fair_engine_queues_total", &[]);
            let slots = format!(
                "the engine runs no more than {found} requests at a time, though it is given more: \
                 they wait within it, where nothing is fair"
            );
            observe::warn("rate_limit", &slots);
        }
    }

    /// What becomes of a request that has waited since then.
    fn decided(self, decided: Result<(), Shed>, since: Duration) -> Result<Permit, Rejection> {
        match decided {
            Ok(()) => {
                self.tier.metrics.waited(self.fair.now().saturating_sub(since));
                Ok(Permit::new(self))
            }
            Err(shed) => Err(self.fair.refused(&self.tier, shed)),
        }
    }

    fn leave(&self) {
        self.fair.change(|scheduler, now, wakes| scheduler.leave(self.ticket, now, wakes));
    }
}

/// A running request's part of the capacity. Released once; unreleased, it goes as if the request had not been.
pub(in crate::rate_limit) struct Permit {
    place: Option<Place>,
    /// Hears what the request is told: where anything may be.
    watch: Option<Arc<Watch>>,
}

impl Permit {
    pub(super) fn new(place: Place) -> Self {
        let watched = place.fair.tells(&place.tier);
        let watch = watched.then(|| Watch::new(place.clone()));
        Self { place: Some(place), watch }
    }

    pub(in crate::rate_limit) fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    pub(in crate::rate_limit) fn watch(&self) -> Option<&Arc<Watch>> {
        self.watch.as_ref()
    }

    /// Times its answer, where anything goes by that.
    pub(in crate::rate_limit) fn pace(&self) -> Option<Pace> {
        let fair = &self.place.as_ref()?.fair;
        fair.adapts().then(|| Pace::new(fair.clone(), self.watch.clone()))
    }

    /// Whether the request was broken off.
    pub(in crate::rate_limit) fn is_revoked(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.is_revoked())
    }

    /// Leaves the engine what it asked for.
    pub(in crate::rate_limit) fn tell_engine(&self, extensions: &mut Extensions) {
        let (Some(place), Some(watch)) = (&self.place, &self.watch) else { return };
        if !place.fair.engine_yields() {
            return;
        }
        let borrows = place.fair.look(|scheduler, _| scheduler.borrows(place.ticket));
        let class = if borrows { SlotClass::Borrowed } else { SlotClass::Owned };
        extensions.insert(EngineHint { tier: Arc::clone(&place.tier.name), class });
        extensions.insert(YieldSignal::new(Arc::clone(watch)));
    }

    /// Gives it up, and says what was used: in a while, where the engine may still be at it.
    pub(in crate::rate_limit) fn release(mut self, used: TokenUsage, aborted: bool) {
        let Some(place) = self.place.take() else { return };
        place.tier.metrics.served(used.total());
        let grace = if aborted { place.fair.abort_grace() } else { Duration::ZERO };
        let ended = Ended { place, used };
        let Place { fair, ticket, .. } = &ended.place;
        if grace.is_zero() || !fair.look(|scheduler, _| scheduler.linger(*ticket, used)) {
            drop(ended);
        } else {
            // Without a runtime, and when that ends, it is given back by the task that is dropped.
            let _ = runtime::spawn(async move {
                let _ended = ended;
                runtime::sleep(grace).await;
            });
        }
        if let Some(watch) = &self.watch {
            watch.end();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            place.leave();
            if let Some(watch) = &self.watch {
                watch.end();
            }
        }
    }
}

/// What a request had that has ended, given back when this is dropped.
struct Ended {
    place: Place,
    used: TokenUsage,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let Self { place, used } = self;
        place.fair.change(|scheduler, now, wakes| {
            scheduler.release(place.ticket, *used, now, wakes);
        });
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

/// A request's place in the queue, which it leaves when this is dropped, let in or not.
pub(in crate::rate_limit) struct Queued {
    place: Option<Place>,
    since: Duration,
    deadline: Duration,
    timer: Option<Timer>,
}

type Timer = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

impl Queued {
    pub(super) fn new(place: Place, since: Duration, deadline: Duration) -> Self {
        Self { place: Some(place), since, deadline, timer: None }
    }

    /// Ready with the permit, or with why there is none.
    pub(in crate::rate_limit) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Permit, Rejection>> {
        loop {
            let Some(place) = &self.place else { return Poll::Pending };
            if let Poll::Ready(decided) = place.poll(cx) {
                let Some(place) = self.place.take() else { return Poll::Pending };
                return Poll::Ready(place.decided(decided, self.since));
            }
            if !runtime::is_here() {
                // Whoever comes or goes next finds that its time is up.
                return Poll::Pending;
            }
            let fair = &place.fair;
            let timer = self.timer.get_or_insert_with(|| {
                let left = self.deadline.saturating_sub(fair.now());
                // Rounded up: woken early, it would wait again. And now and then who was told to make room is looked after.
                Box::pin(runtime::sleep(left.clamp(TICK, OBEYS_WITHIN)))
            });
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.timer = None;
            fair.change(|scheduler, now, wakes| scheduler.expire(place.ticket, now, wakes));
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            place.leave();
        }
    }
}

/// The shortest wait that a timer is set for.
const TICK: Duration = Duration::from_millis(1);

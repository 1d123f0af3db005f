//! What an engine in the same process is told of a request: whose it is, and when another needs its slot.

use std::{
    fmt,
    future::poll_fn,
    sync::{Arc, PoisonError, atomic::Ordering},
    task::{Context, Poll, Wake, Waker},
};

use http::Extensions;

use super::{permit::Place, scheduler::Signal};
use crate::{
    reject::Rejection,
    sync::{AtomicBool, Mutex, MutexGuard},
};

/// Whose slot a request has, for an engine that batches by it: in the request's extensions, where
/// [`engine_yields`](super::FairAdmissionBuilder::engine_yields) was said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineHint {
    /// The tier whose share it is.
    pub tier: Arc<str>,
    /// Whether the tier had such a slot to itself when the request was let in.
    pub class: SlotClass,
}

/// Whether a slot is of a tier's own share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SlotClass {
    /// The tier has no more than its share.
    Owned,
    /// The tier has more than its share, as long as no other needs it.
    Borrowed,
}

impl EngineHint {
    /// The hint on a request, where the layer leaves any.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }
}

/// Says that another tier needs the slot which a request has borrowed: in the request's extensions, where
/// [`engine_yields`](super::FairAdmissionBuilder::engine_yields) was said. Cheap to clone.
///
/// An engine looks before each step, parks the stream, and goes on with it when it may:
///
/// ```
/// use palisade::rate_limit::fair::YieldSignal;
///
/// async fn step(signal: Option<&YieldSignal>) -> bool {
///     if let Some(signal) = signal && signal.is_requested() {
///         // Its place in the batch is given up here, its cache kept.
///         if !signal.parked().await {
///             return false;
///         }
///     }
///     // One token.
///     true
/// }
/// ```
#[derive(Clone)]
pub struct YieldSignal(Arc<Watch>);

impl YieldSignal {
    pub(super) fn new(watch: Arc<Watch>) -> Self {
        Self(watch)
    }

    /// The signal of a request, where the layer leaves any.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// Whether the slot is asked for, now. No more than a look at a flag, unless it is.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.look() == Some(Signal::Yield)
    }

    /// Resolves when the slot is asked for; at once, when the request is over.
    pub async fn requested(&self) {
        poll_fn(|cx| {
            let watch = &self.0;
            watch.listeners().engine.set(cx);
            match watch.look() {
                Some(_) => Poll::Ready(()),
                None if watch.is_over() => Poll::Ready(()),
                None => Poll::Pending,
            }
        })
        .await;
    }

    /// Says that the engine has parked the stream: its slot is given up here, and taken by who needs it. Resolves when the
    /// stream may go on, before others of its caller: `true`; or when its request is over, and nobody waits for more of
    /// it: `false`. A stream whose engine goes on without waiting for this has a slot that is not counted.
    pub async fn parked(&self) -> bool {
        let watch = &self.0;
        watch.place.park();
        poll_fn(|cx| {
            watch.listeners().engine.set(cx);
            if watch.is_over() {
                return Poll::Ready(false);
            }
            watch.place.poll(cx).map(|granted| {
                // The first look leaves the waker again.
                watch.said.store(true, Ordering::SeqCst);
                watch.rested.store(true, Ordering::SeqCst);
                granted.is_ok()
            })
        })
        .await
    }
}

impl fmt::Debug for YieldSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("YieldSignal").finish_non_exhaustive()
    }
}

/// Hears what a running request is told, for two who listen: the task that answers, and the engine.
pub(in crate::rate_limit) struct Watch {
    place: Place,
    /// Something was said that nobody has looked at.
    said: AtomicBool,
    revoked: AtomicBool,
    over: AtomicBool,
    /// The engine goes on with what it had parked, and nobody has asked whether it does.
    rested: AtomicBool,
    listeners: Mutex<Listeners>,
}

#[derive(Default)]
struct Listeners {
    answer: Listener,
    engine: Listener,
}

#[derive(Default)]
struct Listener(Option<Waker>);

impl Listener {
    fn set(&mut self, cx: &Context<'_>) {
        match &mut self.0 {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

impl Watch {
    pub(super) fn new(place: Place) -> Arc<Self> {
        Arc::new(Self {
            place,
            // The first look leaves the waker.
            said: AtomicBool::new(true),
            revoked: AtomicBool::new(false),
            over: AtomicBool::new(false),
            rested: AtomicBool::new(false),
            listeners: Mutex::default(),
        })
    }

    /// Ready when the request is to be broken off, with why.
    pub(in crate::rate_limit) fn poll_revoked(
        self: &Arc<Self>,
        cx: &Context<'_>,
    ) -> Poll<Rejection> {
        self.listeners().answer.set(cx);
        match self.look() {
            Some(Signal::Revoked) => Poll::Ready(self.place.revoked()),
            _ => Poll::Pending,
        }
    }

    /// Whether the request was broken off.
    pub(super) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::SeqCst)
    }

    /// Whether it was parked since this was last asked.
    pub(super) fn has_rested(&self) -> bool {
        self.rested.swap(false, Ordering::SeqCst)
    }

    /// The request holds nothing any more.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.wake_all();
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// What the request is told to do, as it stands.
    fn look(self: &Arc<Self>) -> Option<Signal> {
        if self.is_revoked() {
            return Some(Signal::Revoked);
        }
        if self.is_over() || !self.said.swap(false, Ordering::SeqCst) {
            return None;
        }
        match self.place.running(&Waker::from(Arc::clone(self))) {
            Poll::Pending => None,
            Poll::Ready(signal) => {
                // It stands until it is obeyed or taken back, which nobody says.
                self.said.store(true, Ordering::SeqCst);
                if signal == Signal::Revoked {
                    self.revoked.store(true, Ordering::SeqCst);
                }
                Some(signal)
            }
        }
    }

    fn wake_all(&self) {
        let Listeners { answer, engine } = std::mem::take(&mut *self.listeners());
        [answer, engine].into_iter().filter_map(|listener| listener.0).for_each(Waker::wake);
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Watch {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.said.store(true, Ordering::SeqCst);
        self.wake_all();
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

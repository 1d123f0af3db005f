//! How long a detector is waited for, how many prompts it looks at at once, and when it is left alone.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    BuildError,
    clock::Clock,
    runtime::{OwnedSemaphorePermit, Semaphore},
    store::{Circuit, Permit},
};

/// The limits of a detector that has to wait. A [`Duration`] alone becomes one with the defaults.
///
/// ```
/// use std::time::Duration;
///
/// use palisade::prompt_guard::AsyncLimits;
///
/// let limits = AsyncLimits::within(Duration::from_millis(200)).concurrency(32).queue(64);
/// # let _ = limits;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct AsyncLimits {
    time: Duration,
    concurrency: Option<usize>,
    queue: usize,
    breaker: Option<(u32, Duration)>,
}

impl AsyncLimits {
    /// Each prompt takes at most this long, the wait for its turn included.
    pub fn within(time: Duration) -> Self {
        let breaker = Some((FAILURES, PAUSE));
        Self { time, concurrency: None, queue: QUEUE, breaker }
    }

    /// How many prompts it looks at at once. Default: 256; on the blocking pool, the processors of the machine.
    pub fn concurrency(self, prompts: usize) -> Self {
        Self { concurrency: Some(prompts), ..self }
    }

    /// How many prompts more may wait for their turn. For further ones the detector is unavailable at
    /// once. Default: 256.
    pub fn queue(self, prompts: usize) -> Self {
        Self { queue: prompts, ..self }
    }

    /// After so many failures in a row the detector is left alone, and prompts no longer wait for it in
    /// vain; once in each `pause` one of them probes whether it is back. Default: 5, and a second.
    ///
    /// A time limit that passes is a failure too. What a detector refuses because of the prompt
    /// itself is none, so that no caller can have it left alone for all.
    pub fn breaker(self, failures: u32, pause: Duration) -> Self {
        Self { breaker: Some((failures, pause)), ..self }
    }

    /// Asks the detector however often it has failed.
    pub fn without_breaker(self) -> Self {
        Self { breaker: None, ..self }
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let breaker = self.breaker.unwrap_or((FAILURES, PAUSE));
        let zero = [
            (self.time.is_zero(), "its time limit is zero"),
            (self.concurrency == Some(0), "its concurrency is zero"),
            (breaker.0 == 0 || breaker.1.is_zero(), "its circuit breaker has a zero"),
        ];
        match zero.into_iter().find(|(is_zero, _)| *is_zero) {
            Some((_, reason)) => Err(BuildError::invalid("async_detector", reason)),
            None => Ok(()),
        }
    }
}

impl From<Duration> for AsyncLimits {
    fn from(time: Duration) -> Self {
        Self::within(time)
    }
}

/// The state of one detector's limits, over all requests.
pub(crate) struct Capacity {
    pub(crate) time: Duration,
    slots: Arc<Semaphore>,
    queue: usize,
    queued: Arc<AtomicUsize>,
    circuit: Option<Circuit>,
    clock: Arc<dyn Clock>,
}

/// A prompt's turn. Whoever holds it keeps it from others.
#[derive(Debug)]
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
}

/// When a prompt's turn comes.
pub(crate) enum Turn<F> {
    Now(Slot),
    /// When others are done. `None`: never.
    Later(F),
    /// Too many wait already.
    Never,
}

impl Capacity {
    pub(crate) fn new(limits: AsyncLimits, default: usize, clock: Arc<dyn Clock>) -> Self {
        let slots = limits.concurrency.unwrap_or(default).min(Semaphore::MAX_PERMITS);
        Self {
            time: limits.time,
            slots: Arc::new(Semaphore::new(slots)),
            queue: limits.queue,
            queued: Arc::default(),
            circuit: limits.breaker.map(|(failures, pause)| Circuit::new(failures, pause)),
            clock,
        }
    }

    /// Whether the detector is asked at all.
    pub(crate) fn lets_through(&self) -> bool {
        let permit = |circuit: &Circuit| circuit.permit(self.clock.monotonic());
        self.circuit.as_ref().map(permit) != Some(Permit::Nothing)
    }

    pub(crate) fn turn(&self) -> Turn<impl Future<Output = Option<Slot>> + Send + use<>> {
        let slots = &self.slots;
        if let Ok(permit) = Arc::clone(slots).try_acquire_owned() {
            return Turn::Now(Slot { _permit: permit });
        }
        let Some(place) = Place::take(&self.queued, self.queue) else { return Turn::Never };
        let slots = Arc::clone(slots);
        Turn::Later(async move {
            let permit = slots.acquire_owned().await.ok();
            drop(place);
            permit.map(|permit| Slot { _permit: permit })
        })
    }

    /// The detector answered. True when that ends an outage.
    pub(crate) fn succeeded(&self) -> bool {
        let Some(circuit) = &self.circuit else { return false };
        let was_open = circuit.succeeded();
        if was_open {
            circuit.close();
        }
        was_open
    }

    /// The detector did not answer. True when from now on it is left alone.
    pub(crate) fn failed(&self) -> bool {
        self.circuit.as_ref().is_some_and(|circuit| circuit.failed(self.clock.monotonic()))
    }
}

impl fmt::Debug for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capacity")
            .field("time", &self.time)
            .field("free", &self.slots.available_permits())
            .field("circuit", &self.circuit)
            .finish_non_exhaustive()
    }
}

/// A place among those who wait, until it is dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(queued: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let another = |queued| (queued < most).then_some(queued + 1);
        queued.fetch_update(Ordering::AcqRel, Ordering::Relaxed, another).ok()?;
        Some(Self(Arc::clone(queued)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Prompts at once that only wait for an answer.
pub(crate) const CONCURRENCY: usize = 256;
const QUEUE: usize = 256;
const FAILURES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

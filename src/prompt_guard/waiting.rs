//! Detectors that have to wait: all at once, each under its own limits, with one outcome whichever
//! answers first.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    thread,
};

use super::{
    AsyncDetector, AsyncLimits, Detector, Finding, OnUnavailable, ScanError, Views,
    capacity::{CONCURRENCY, Capacity, Slot, Turn},
    policy::Gathered,
    rule::Rule,
    scan::{caught, keep, scan_as_whole},
};
use crate::{
    BoxError,
    clock::Clock,
    future::ReadyOr,
    inference::{Prompt, Segment},
    observe, runtime,
};

/// A detector as the builder was told of it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) how: How,
    pub(crate) rule: Rule,
    pub(crate) limits: AsyncLimits,
    pub(crate) on_unavailable: OnUnavailable,
}

impl Asked {
    pub(crate) fn new(
        how: How,
        rule: impl Into<Rule>,
        limits: impl Into<AsyncLimits>,
        on_unavailable: OnUnavailable,
    ) -> Self {
        Self { how, rule: rule.into(), limits: limits.into(), on_unavailable }
    }
}

/// What a detector waits for.
#[derive(Clone, Debug)]
pub(crate) enum How {
    /// An answer from elsewhere.
    Future(Arc<dyn AsyncDetector>),
    /// Its own work, on a thread that it may keep busy.
    Thread(Arc<dyn Detector>),
}

/// A detector that has to wait, and what is done about what it finds, or if it can't tell.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    how: How,
    pub(crate) rule: Rule,
    on_unavailable: OnUnavailable,
    capacity: Arc<Capacity>,
}

/// What a detector says, or why it can't tell.
type Told = Result<Vec<Finding>, Reason>;

/// Why a detector can't tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It says so.
    Failed,
    /// It says so, of this prompt alone.
    Prompt,
    Panicked,
    TimedOut,
    /// Its turn did not come, or too many wait for theirs.
    Overloaded,
    /// It has failed so often that it is left alone.
    CircuitOpen,
}

/// The questions of one prompt.
pub(crate) struct Waiting {
    prompt: Arc<Prompt>,
    /// In the order of the detectors: in it they are heard, whichever answers first.
    scans: Vec<Scan>,
    gathered: Gathered,
}

enum Scan {
    Asked(ReadyOr<Told>),
    Answered(Told),
}

impl Waiting {
    /// Asks them all.
    pub(crate) fn on(remotes: &[Remote], prompt: Arc<Prompt>, gathered: Gathered) -> Self {
        let scans = remotes.iter().map(|remote| Scan::Asked(remote.ask(&prompt))).collect();
        Self { prompt, scans, gathered }
    }

    /// Ready when each has answered or its time is up.
    pub(crate) fn poll(
        &mut self,
        remotes: &[Remote],
        cx: &mut Context<'_>,
    ) -> Poll<(Arc<Prompt>, Gathered)> {
        let mut waits = false;
        for scan in &mut self.scans {
            if let Scan::Asked(asked) = scan {
                match Pin::new(asked).poll(cx) {
                    Poll::Pending => waits = true,
                    Poll::Ready(told) => *scan = Scan::Answered(told),
                }
            }
        }
        if waits {
            return Poll::Pending;
        }
        for (remote, scan) in remotes.iter().zip(self.scans.drain(..)) {
            if let Scan::Answered(told) = scan {
                remote.hear(told, &self.prompt, &mut self.gathered);
            }
        }
        Poll::Ready((Arc::clone(&self.prompt), std::mem::take(&mut self.gathered)))
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("scans", &self.scans.len()).finish_non_exhaustive()
    }
}

impl Remote {
    /// Keeps the detector as it is now.
    pub(crate) fn pin(&mut self) {
        if let How::Thread(detector) = &self.how
            && let Some(pinned) = detector.pinned()
        {
            self.how = How::Thread(pinned);
        }
    }

    /// The same with another rule. Its limits count for both together.
    #[cfg(feature = "rule-packs")]
    pub(crate) fn ruled(&self, rule: Rule) -> Self {
        Self { rule, ..self.clone() }
    }

    #[cfg(all(test, feature = "rule-packs"))]
    pub(crate) fn shares_limits(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.capacity, &other.capacity)
    }

    /// The detector, if it runs in this process.
    pub(crate) fn in_process(&self) -> Option<&Arc<dyn Detector>> {
        match &self.how {
            How::Thread(detector) => Some(detector),
            How::Future(_) => None,
        }
    }

    pub(crate) fn new(asked: Asked, clock: Arc<dyn Clock>) -> Self {
        let Asked { how, rule, limits, on_unavailable } = asked;
        let default = match &how {
            How::Future(_) => CONCURRENCY,
            How::Thread(_) => thread::available_parallelism().map_or(1, usize::from),
        };
        let capacity = Arc::new(Capacity::new(limits, default, clock));
        Self { how, rule, on_unavailable, capacity }
    }

    fn ask(&self, prompt: &Arc<Prompt>) -> ReadyOr<Told> {
        if !self.capacity.lets_through() {
            return ReadyOr::ready(Err(Reason::CircuitOpen));
        }
        let (how, prompt) = (self.how.clone(), Arc::clone(prompt));
        let capacity = Arc::clone(&self.capacity);
        match self.capacity.turn() {
            Turn::Never => ReadyOr::ready(Err(Reason::Overloaded)),
            Turn::Now(slot) => match how.scan(prompt, slot).try_now() {
                Ok(told) => ReadyOr::ready(how.noted(told, &capacity)),
                Err(scan) => ReadyOr::pending(async move {
                    let told = runtime::timeout(capacity.time, scan).await;
                    how.noted(told.unwrap_or(Err(Reason::TimedOut)), &capacity)
                }),
            },
            Turn::Later(turn) => ReadyOr::pending(async move {
                let mut its_turn = false;
                let told = runtime::timeout(capacity.time, async {
                    let slot = turn.await.ok_or(Reason::Overloaded)?;
                    its_turn = true;
                    how.scan(prompt, slot).await
                });
                match told.await {
                    Ok(told) => how.noted(told, &capacity),
                    Err(_) if its_turn => how.noted(Err(Reason::TimedOut), &capacity),
                    Err(_) => Err(Reason::Overloaded),
                }
            }),
        }
    }

    fn hear(&self, told: Told, prompt: &Prompt, gathered: &mut Gathered) {
        let name = self.how.name();
        let findings = match told {
            Ok(findings) => findings,
            Err(reason) => {
                let on_unavailable = self.rule.on_unavailable(self.on_unavailable);
                return miss(name, reason, on_unavailable, gathered);
            }
        };
        // Each is looked up, not searched for: there may be as many findings as segments.
        let segments: Vec<Segment<'_>> = prompt.segments().collect();
        for finding in findings {
            let segment = segments.get(finding.segment).copied();
            if segment.is_some_and(|segment| self.rule.skips(segment.origin)) {
                continue;
            }
            keep(name, &self.rule, finding, segment.as_ref(), gathered);
        }
    }
}

impl How {
    fn name(&self) -> &'static str {
        match self {
            Self::Future(detector) => detector.name(),
            Self::Thread(detector) => detector.name(),
        }
    }

    /// Looks at the prompt, and keeps the slot until that is over.
    fn scan(&self, prompt: Arc<Prompt>, slot: Slot) -> ReadyOr<Told> {
        match self {
            Self::Future(detector) => {
                let Some(scan) = caught(|| detector.scan(&prompt)) else {
                    return ReadyOr::ready(Err(Reason::Panicked));
                };
                match scan.try_now() {
                    Ok(told) => ReadyOr::ready(told.map_err(|error| why(&error))),
                    Err(scan) => ReadyOr::pending(async move {
                        let told = Caught(scan).await;
                        drop(slot);
                        told
                    }),
                }
            }
            Self::Thread(detector) => {
                let detector = Arc::clone(detector);
                // Who gives up does not stop the thread, and the slot is the thread's.
                let asks = Arc::new(());
                let asker = Arc::downgrade(&asks);
                ReadyOr::pending(async move {
                    let work = move || {
                        let _slot = slot;
                        scan_all(&*detector, &prompt, || asker.strong_count() > 0)
                    };
                    let told = runtime::unblock(work).await;
                    drop(asks);
                    told.unwrap_or(Err(Reason::Failed))
                })
            }
        }
    }

    /// Tells the circuit breaker.
    fn noted(&self, told: Told, capacity: &Capacity) -> Told {
        let name = self.name();
        match &told {
            Ok(_) if capacity.succeeded() => {
                observe::warn(LAYER, &format!("the detector {name} answers again"));
            }
            Err(Reason::Failed | Reason::Panicked | Reason::TimedOut) if capacity.failed() => {
                let message = format!("the detector {name} does not answer, and is left alone");
                observe::warn(LAYER, &message);
            }
            _ => {}
        }
        told
    }
}

/// Looks at one segment after the other, for as long as somebody waits.
fn scan_all(detector: &dyn Detector, prompt: &Prompt, waits: impl Fn() -> bool) -> Told {
    let mut found = Vec::new();
    for segment in prompt.segments().take_while(|_| waits()) {
        let from = found.len();
        let scan = || detector.scan(&segment, &Views::of(segment.text), &mut found);
        caught(scan).ok_or(Reason::Panicked)?;
        for finding in found.iter_mut().skip(from) {
            finding.segment = segment.index;
        }
    }
    if scan_as_whole(detector, prompt, &mut found) { Ok(found) } else { Err(Reason::Panicked) }
}

/// A scan whose panic is no answer.
struct Caught(ReadyOr<Result<Vec<Finding>, BoxError>>);

impl Future for Caught {
    type Output = Told;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Told> {
        match caught(|| Pin::new(&mut self.0).poll(cx)) {
            Some(Poll::Pending) => Poll::Pending,
            Some(Poll::Ready(told)) => Poll::Ready(told.map_err(|error| why(&error))),
            None => Poll::Ready(Err(Reason::Panicked)),
        }
    }
}

fn why(error: &BoxError) -> Reason {
    match error.downcast_ref::<ScanError>() {
        Some(error) => {
            // Only our own errors are known to hold nothing of a prompt.
            observe::debug(LAYER, &error.to_string());
            if error.is_of_prompt() { Reason::Prompt } else { Reason::Failed }
        }
        None => Reason::Failed,
    }
}

impl Reason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "error",
            Self::Prompt => "prompt",
            Self::Panicked => "panic",
            Self::TimedOut => "timeout",
            Self::Overloaded => "overloaded",
            Self::CircuitOpen => "circuit_open",
        }
    }
}

/// A detector could not tell.
pub(crate) fn miss(
    detector: &'static str,
    reason: Reason,
    on_unavailable: OnUnavailable,
    gathered: &mut Gathered,
) {
    let (missed, outcome) = match on_unavailable {
        OnUnavailable::Refuse => {
            gathered.must_refuse = true;
            (None, "refused")
        }
        OnUnavailable::InsecurePass => (Some(&mut gathered.let_through), "let_through"),
    };
    for missed in missed.into_iter().chain([&mut gathered.unavailable]) {
        if !missed.contains(&detector) {
            missed.push(detector);
        }
    }
    let labels = [("detector", detector), ("reason", reason.as_str()), ("outcome", outcome)];
    observe::count_by_policy("palisade_guard_unavailable_total", &gathered.policy, &labels);
}

const LAYER: &str = "prompt_guard";

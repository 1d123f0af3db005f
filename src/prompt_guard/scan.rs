//! Running the detectors. One that panics is one that could not tell.

use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use super::{
    AsyncDetector, Detector, Finding, OnUnavailable, Views,
    policy::{Gathered, Rule},
};
use crate::{
    BoxError,
    future::ReadyOr,
    inference::{Prompt, Segment},
    observe, runtime,
};

/// A detector, and what is done about what it finds.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) detector: Box<dyn Detector>,
    pub(crate) rule: Rule,
}

/// A detector that has to wait, for how long, and what is done if it can't tell.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) detector: Box<dyn AsyncDetector>,
    pub(crate) rule: Rule,
    pub(crate) limit: Duration,
    pub(crate) on_unavailable: OnUnavailable,
}

/// Runs all detectors over one segment, whose views are built once for all.
pub(crate) fn scan_segment(detectors: &[Local], segment: &Segment<'_>, gathered: &mut Gathered) {
    scan_each(detectors, segment, gathered, |local, mut finding, gathered| {
        finding.segment = segment.index;
        keep(local.detector.name(), &local.rule, finding, Some(segment), gathered);
    });
}

/// Runs all detectors over one text and gives what they find to `take`.
pub(crate) fn scan_each(
    detectors: &[Local],
    segment: &Segment<'_>,
    gathered: &mut Gathered,
    mut take: impl FnMut(&Local, Finding, &mut Gathered),
) {
    let mut heard = detectors.iter().filter(|local| !local.rule.skips(segment.origin)).peekable();
    if heard.peek().is_none() || segment.text.is_empty() {
        return;
    }
    let views = caught(|| Views::of(segment.text));
    for local in heard {
        let mut findings = Vec::new();
        let told = match &views {
            Some(views) => caught(|| local.detector.scan(segment, views, &mut findings)),
            None => None,
        };
        if told.is_none() {
            gathered.must_refuse = true;
            miss(local.detector.name(), gathered);
        }
        // What it found before it panicked still counts.
        for finding in findings {
            take(local, finding, gathered);
        }
    }
}

/// Does `work` on a text of `bytes` at once, or, for one longer than the `limit` that would keep the executor, on another
/// thread. `None`: the runtime is shutting down.
pub(crate) fn run<T: Send + 'static>(
    bytes: usize,
    limit: usize,
    work: impl FnOnce(&Asker) -> T + Send + 'static,
) -> ReadyOr<Option<T>> {
    if bytes <= limit {
        return ReadyOr::ready(Some(work(&Asker(None))));
    }
    let asks = Arc::new(());
    let asker = Asker(Some(Arc::downgrade(&asks)));
    ReadyOr::pending(async move {
        let scanned = runtime::unblock(move || work(&asker)).await;
        drop(asks);
        scanned
    })
}

/// Whoever waits for a scan. Its time may come when nobody does any more.
pub(crate) struct Asker(Option<Weak<()>>);

impl Asker {
    pub(crate) fn waits(&self) -> bool {
        self.0.as_ref().is_none_or(|asks| asks.strong_count() > 0)
    }
}

/// The detectors that have to wait, all at once, each under its own time limit.
pub(crate) struct Waiting {
    prompt: Arc<Prompt>,
    scans: Vec<(usize, ReadyOr<Told>)>,
    gathered: Gathered,
}

/// What a detector says, or that it can't tell.
type Told = Option<Vec<Finding>>;

impl Waiting {
    /// Asks them all.
    pub(crate) fn on(remotes: &[Remote], prompt: Arc<Prompt>, gathered: Gathered) -> Self {
        let scans = remotes.iter().map(|remote| remote.ask(&prompt)).enumerate().collect();
        Self { prompt, scans, gathered }
    }

    /// Ready when each has answered or its time is up.
    pub(crate) fn poll(
        &mut self,
        remotes: &[Remote],
        cx: &mut Context<'_>,
    ) -> Poll<(Arc<Prompt>, Gathered)> {
        let Self { prompt, scans, gathered } = self;
        scans.retain_mut(|(index, scan)| match Pin::new(scan).poll(cx) {
            Poll::Pending => true,
            Poll::Ready(told) => {
                if let Some(remote) = remotes.get(*index) {
                    remote.hear(told, prompt, gathered);
                }
                false
            }
        });
        if scans.is_empty() {
            Poll::Ready((Arc::clone(prompt), std::mem::take(gathered)))
        } else {
            Poll::Pending
        }
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("scans", &self.scans.len()).finish_non_exhaustive()
    }
}

impl Remote {
    fn ask(&self, prompt: &Arc<Prompt>) -> ReadyOr<Told> {
        let Some(scan) = caught(|| self.detector.scan(prompt)) else { return ReadyOr::ready(None) };
        match scan.try_now() {
            Ok(told) => ReadyOr::ready(told.ok()),
            Err(scan) => {
                let limit = self.limit;
                ReadyOr::pending(async move {
                    runtime::timeout(limit, Caught(scan)).await.ok().flatten()
                })
            }
        }
    }

    fn hear(&self, told: Told, prompt: &Prompt, gathered: &mut Gathered) {
        let name = self.detector.name();
        let Some(findings) = told else {
            gathered.must_refuse |= self.on_unavailable == OnUnavailable::Refuse;
            return miss(name, gathered);
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

/// A scan whose panic is no answer.
struct Caught(ReadyOr<Result<Vec<Finding>, BoxError>>);

impl Future for Caught {
    type Output = Told;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Told> {
        match caught(|| Pin::new(&mut self.0).poll(cx)) {
            Some(Poll::Pending) => Poll::Pending,
            Some(Poll::Ready(told)) => Poll::Ready(told.ok()),
            None => Poll::Ready(None),
        }
    }
}

pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Option<T> {
    // What a panic may leave half done is the detector's own, or thrown away.
    catch_unwind(AssertUnwindSafe(run)).ok()
}

fn miss(detector: &'static str, gathered: &mut Gathered) {
    observe::count("palisade_guard_unavailable_total", &[("detector", detector)]);
    if !gathered.unavailable.contains(&detector) {
        gathered.unavailable.push(detector);
    }
}

/// Takes a finding in. A place that the text doesn't have is no place: masking it would miss.
pub(crate) fn keep(
    detector: &'static str,
    rule: &Rule,
    mut finding: Finding,
    segment: Option<&Segment<'_>>,
    gathered: &mut Gathered,
) {
    if finding.span.as_ref().is_some_and(|span| span.end <= gathered.seen) && gathered.seen > 0 {
        return;
    }
    let category = finding.category.as_str();
    let labels = [("detector", detector), ("category", category)];
    observe::count("palisade_guard_findings_total", &labels);
    let covered = |span| segment.and_then(|segment| segment.text.get(span));
    finding.span = finding.span.filter(|span| covered(span.clone()).is_some_and(|t| !t.is_empty()));
    gathered.found.push((rule.clone(), finding));
}

/// Bytes that take a few milliseconds at most.
pub(crate) const ON_EXECUTOR: usize = 32 * 1024;

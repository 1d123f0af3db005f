//! Running the detectors. One that panics is one that could not tell.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
};

use super::{
    Detector, Finding, OnUnavailable, Outcome, Views,
    policy::Gathered,
    rule::{Rule, Ruling},
    waiting::{Reason, miss},
};
use crate::{
    future::ReadyOr,
    inference::{Prompt, Segment},
    observe, runtime,
};

/// A detector, and what is done about what it finds.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) detector: Arc<dyn Detector>,
    pub(crate) rule: Rule,
}

impl Local {
    /// Keeps the detector as it is now.
    pub(crate) fn pin(&mut self) {
        if let Some(pinned) = self.detector.pinned() {
            self.detector = pinned;
        }
    }

    /// What looks at the answer to this prompt in its place.
    pub(crate) fn answering(
        &self,
        prompt: &Prompt,
        gathered: &mut Gathered,
    ) -> Option<Arc<dyn Detector>> {
        caught(|| self.detector.answering(prompt)).unwrap_or_else(|| {
            let on_unavailable = self.rule.on_unavailable(OnUnavailable::Refuse);
            miss(self.detector.name(), Reason::Panicked, on_unavailable, gathered);
            None
        })
    }
}

/// Runs all detectors over a prompt as a whole.
pub(crate) fn scan_whole(detectors: &[Local], prompt: &Prompt, gathered: &mut Gathered) {
    for local in detectors {
        let mut findings = Vec::new();
        let name = local.detector.name();
        if !scan_as_whole(&*local.detector, prompt, &mut findings) {
            let on_unavailable = local.rule.on_unavailable(OnUnavailable::Refuse);
            miss(name, Reason::Panicked, on_unavailable, gathered);
        }
        for finding in findings {
            keep(name, &local.rule, finding, None, gathered);
        }
    }
}

/// Adds what a detector finds in a prompt as a whole, which is in no place of it. `false`: it could not tell.
pub(crate) fn scan_as_whole(
    detector: &dyn Detector,
    prompt: &Prompt,
    findings: &mut Vec<Finding>,
) -> bool {
    let from = findings.len();
    let told = caught(|| detector.scan_prompt(prompt, findings)).is_some();
    for finding in findings.iter_mut().skip(from) {
        (finding.segment, finding.span) = (usize::MAX, None);
    }
    told
}

/// Runs all detectors over one text and gives what they find to `take`. `false`: one of them could not tell.
pub(crate) fn scan_each(
    detectors: &[Local],
    segment: &Segment<'_>,
    gathered: &mut Gathered,
    mut take: impl FnMut(&Local, Finding, &mut Gathered),
) -> bool {
    let mut heard = detectors.iter().filter(|local| !local.rule.skips(segment.origin)).peekable();
    if heard.peek().is_none() || segment.text.is_empty() {
        return true;
    }
    let mut all_told = true;
    let views = caught(|| Views::of(segment.text));
    for local in heard {
        let mut findings = Vec::new();
        let told = match &views {
            Some(views) => caught(|| local.detector.scan(segment, views, &mut findings)),
            None => None,
        };
        all_told &= told.is_some();
        if told.is_none() {
            let on_unavailable = local.rule.on_unavailable(OnUnavailable::Refuse);
            miss(local.detector.name(), Reason::Panicked, on_unavailable, gathered);
        }
        // What it found before it panicked still counts.
        for finding in findings {
            take(local, finding, gathered);
        }
    }
    all_told
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

pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Option<T> {
    // What a panic may leave half done is the detector's own, or thrown away.
    catch_unwind(AssertUnwindSafe(run)).ok()
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
    let covered = |span| segment.and_then(|segment| segment.text.get(span));
    finding.span = finding.span.filter(|span| covered(span.clone()).is_some_and(|t| !t.is_empty()));
    let ruling = rule.ruling(&finding, segment.map(|segment| segment.origin));
    count_finding(detector, ruling, &finding, gathered);
    gathered.found.push((ruling, finding));
}

pub(crate) fn count_finding(
    detector: &'static str,
    ruling: Ruling,
    finding: &Finding,
    gathered: &Gathered,
) {
    let policy = &gathered.policy;
    let found = [("detector", detector), ("category", finding.category.as_str())];
    observe::count_by_policy("palisade_guard_findings_total", policy, &found);
    let would_be = ruling.would_be(finding);
    if would_be > Outcome::Report && (ruling.dry_run || gathered.dry_run) {
        let labels = [found[0], found[1], ("outcome", would_be.as_str())];
        observe::count_by_policy("palisade_guard_dry_run_total", policy, &labels);
    }
}

/// Bytes that take a few milliseconds at most.
pub(crate) const ON_EXECUTOR: usize = 32 * 1024;

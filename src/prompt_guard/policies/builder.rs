//! Building a policy.

use std::{sync::Arc, time::Duration};

use super::{Policy, Turns};
use crate::{
    BuildError,
    clock::{Clock, SystemClock},
    inference::Origin,
    prompt_guard::{
        AsyncDetector, AsyncLimits, Detector, OnUnavailable, Unseen,
        hold::Sizes,
        policy::Rule,
        scan::Local,
        waiting::{Asked, How, Remote},
    },
};

/// Builds a policy.
#[derive(Clone, Debug)]
#[must_use]
pub(crate) struct GuardPolicyBuilder {
    max_body: usize,
    unread: Unseen,
    unknown_endpoint: Unseen,
    grpc: Unseen,
    turns: Turns,
    local: Vec<Local>,
    output: Vec<Local>,
    asked: Vec<Asked>,
    clock: Arc<dyn Clock>,
    max_answer: usize,
    stream_window: usize,
    /// `None`: as much as the output detectors ask for.
    hold_back: Option<usize>,
    max_delay: Duration,
    restore: bool,
    enforced: bool,
}

impl GuardPolicyBuilder {
    pub(crate) fn new() -> Self {
        Self {
            max_body: 2 << 20,
            unread: Unseen::Refuse,
            unknown_endpoint: Unseen::Refuse,
            grpc: Unseen::Refuse,
            turns: Turns { most: usize::MAX, refused: Vec::new() },
            local: Vec::new(),
            output: Vec::new(),
            asked: Vec::new(),
            clock: Arc::new(SystemClock),
            max_answer: 1 << 20,
            stream_window: 1024,
            hold_back: None,
            max_delay: Duration::from_millis(200),
            restore: true,
            enforced: true,
        }
    }

    pub(crate) fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    pub(crate) fn max_turns(mut self, turns: usize) -> Self {
        self.turns.most = turns;
        self
    }

    pub(crate) fn refuse_origin(mut self, origin: Origin) -> Self {
        self.turns.refused.push(origin);
        self
    }

    pub(crate) fn detector(mut self, detector: impl Detector, rule: impl Into<Rule>) -> Self {
        self.local.push(Local { detector: Arc::new(detector), rule: rule.into() });
        self
    }

    pub(crate) fn output_detector(
        mut self,
        detector: impl Detector,
        rule: impl Into<Rule>,
    ) -> Self {
        self.output.push(Local { detector: Arc::new(detector), rule: rule.into() });
        self
    }

    pub(crate) fn async_detector(
        mut self,
        detector: impl AsyncDetector,
        rule: impl Into<Rule>,
        limits: impl Into<AsyncLimits>,
        on_unavailable: OnUnavailable,
    ) -> Self {
        let how = How::Future(Arc::new(detector));
        let (rule, limits) = (rule.into(), limits.into());
        self.asked.push(Asked { how, rule, limits, on_unavailable });
        self
    }

    pub(crate) fn blocking_detector(
        mut self,
        detector: impl Detector,
        rule: impl Into<Rule>,
        limits: impl Into<AsyncLimits>,
        on_unavailable: OnUnavailable,
    ) -> Self {
        let how = How::Thread(Arc::new(detector));
        let (rule, limits) = (rule.into(), limits.into());
        self.asked.push(Asked { how, rule, limits, on_unavailable });
        self
    }

    pub(crate) fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    pub(crate) fn max_answer(mut self, bytes: usize) -> Self {
        self.max_answer = bytes;
        self
    }

    pub(crate) fn stream_window(mut self, bytes: usize) -> Self {
        self.stream_window = bytes;
        self
    }

    pub(crate) fn hold_back(mut self, bytes: usize, max_delay: Duration) -> Self {
        self.hold_back = Some(bytes);
        self.max_delay = max_delay;
        self
    }

    pub(crate) fn unread(mut self, unseen: Unseen) -> Self {
        self.unread = unseen;
        self
    }

    pub(crate) fn unknown_endpoint(mut self, unseen: Unseen) -> Self {
        self.unknown_endpoint = unseen;
        self
    }

    pub(crate) fn grpc(mut self, unseen: Unseen) -> Self {
        self.grpc = unseen;
        self
    }

    pub(crate) fn restore_answers(mut self, restore: bool) -> Self {
        self.restore = restore;
        self
    }

    pub(crate) fn report_only(mut self) -> Self {
        self.enforced = false;
        self
    }

    pub(crate) fn build(self) -> Result<Policy, BuildError> {
        for (what, size) in [("max_body", self.max_body), ("max_answer", self.max_answer)] {
            if size == 0 {
                return Err(BuildError::invalid(what, "it is zero, so nothing could pass"));
            }
        }
        let locals = || self.local.iter().chain(&self.output);
        let rules = locals().map(|local| &local.rule);
        if rules.chain(self.asked.iter().map(|asked| &asked.rule)).any(|rule| !rule.is_valid()) {
            return Err(BuildError::invalid("score", "it is not from 0 to 1"));
        }
        self.asked.iter().try_for_each(|asked| asked.limits.check())?;
        let lookbehind = self.output.iter().map(|local| local.detector.lookbehind()).max();
        let hold = self.hold_back.unwrap_or_else(|| lookbehind.unwrap_or_default().min(4096));
        let changes = locals().any(|local| local.detector.pinned().is_some());
        let clock = &self.clock;
        let remote: Vec<_> =
            self.asked.into_iter().map(|asked| Remote::new(asked, Arc::clone(clock))).collect();
        Ok(Policy {
            max_body: self.max_body,
            unread: self.unread,
            unknown_endpoint: self.unknown_endpoint,
            grpc: self.grpc,
            turns: self.turns,
            changes: changes || remote.iter().any(Remote::changes),
            local: self.local,
            remote,
            output: self.output,
            max_answer: self.max_answer,
            max_delay: self.max_delay,
            sizes: Sizes::new(hold, self.stream_window),
            restore: self.restore,
            enforced: self.enforced,
        })
    }
}

//! Building a policy.

use std::{sync::Arc, time::Duration};

use super::{DEFAULT, GuardPolicy, Policy, Turns};
use crate::{
    BuildError,
    clock::{Clock, SystemClock},
    inference::Origin,
    prompt_guard::{
        Action, AsyncDetector, AsyncLimits, Detector, FindingFilter, OnUnavailable, PlantedCanary,
        Rule, Spotlighting, Unseen,
        added::Additions,
        hold::Sizes,
        rule::{Exception, Setting},
        scan::Local,
        seen::SeenTexts,
        waiting::{Asked, How, Remote},
    },
};

/// Builds a [`GuardPolicy`]. Its options are those that [`PromptGuardLayerBuilder`] has for the policy of all requests for
/// which there is no other, with the same defaults. Cloned, it is a base for policies that differ a little.
///
/// [`PromptGuardLayerBuilder`]: crate::prompt_guard::PromptGuardLayerBuilder
#[derive(Clone, Debug)]
#[must_use]
pub struct GuardPolicyBuilder {
    max_body: usize,
    unread: Unseen,
    unknown_endpoint: Unseen,
    grpc: Unseen,
    max_turns: usize,
    refused: Vec<Origin>,
    local: Vec<Local>,
    remembered: usize,
    output: Vec<Local>,
    additions: Additions,
    asked: Vec<Asked>,
    clock: Arc<dyn Clock>,
    max_answer: usize,
    stream_window: usize,
    /// `None`: as much as the output detectors ask for.
    hold_back: Option<usize>,
    max_delay: Duration,
    restore: bool,
    enforced: bool,
    exceptions: Vec<Exception>,
    /// Detectors that wait, which other policies ask too.
    shared: Vec<Remote>,
}

impl GuardPolicyBuilder {
    pub(crate) fn new() -> Self {
        Self {
            max_body: 2 << 20,
            unread: Unseen::Refuse,
            unknown_endpoint: Unseen::Refuse,
            grpc: Unseen::Refuse,
            max_turns: usize::MAX,
            refused: Vec::new(),
            local: Vec::new(),
            remembered: 16_384,
            output: Vec::new(),
            additions: Additions::default(),
            asked: Vec::new(),
            clock: Arc::new(SystemClock),
            max_answer: 1 << 20,
            stream_window: 1024,
            hold_back: None,
            max_delay: Duration::from_millis(200),
            restore: true,
            enforced: true,
            exceptions: Vec::new(),
            shared: Vec::new(),
        }
    }

    /// The largest request body, in bytes: 2 MiB by default. See
    /// [the layer's](crate::prompt_guard::PromptGuardLayerBuilder::max_body).
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// How many messages, input items or prompts of a list a request may have. See
    /// [the layer's](crate::prompt_guard::PromptGuardLayerBuilder::max_turns).
    pub fn max_turns(mut self, turns: usize) -> Self {
        self.max_turns = turns;
        self
    }

    /// Refuses requests with text of this origin. May be called for several. See
    /// [the layer's](crate::prompt_guard::PromptGuardLayerBuilder::refuse_origin).
    pub fn refuse_origin(mut self, origin: Origin) -> Self {
        self.refused.push(origin);
        self
    }

    /// Runs a detector over every text of a prompt. See
    /// [the layer's](crate::prompt_guard::PromptGuardLayerBuilder::detector).
    pub fn detector(mut self, detector: impl Detector, rule: impl Into<Rule>) -> Self {
        self.local.push(Local { detector: Arc::new(detector), rule: rule.into() });
        self
    }

    /// Runs a detector over every text of an answer. See
    /// [the layer's](crate::prompt_guard::PromptGuardLayerBuilder::output_detector).
    pub fn output_detector(mut self, detector: impl Detector, rule: impl Into<Rule>) -> Self {
        self.output.push(Local { detector: Arc::new(detector), rule: rule.into() });
        self
    }

    /// Plants a random token in system prompts, and looks for it in their answers. See
    /// [the layer's](crate::prompt_guard::PromptGuardLayerBuilder::plant_canary).
    pub fn plant_canary(mut self, canary: PlantedCanary, rule: impl Into<Rule>) -> Self {
        self.additions.plant(canary.clone(), self.output.len());
        self.output_detector(canary, rule)
    }

    /// Marks what tools and documents say, for the model. See
    /// [the layer's](crate::prompt_guard::PromptGuardLayerBuilder::spotlight).
    pub fn spotlight(mut self, spotlighting: Spotlighting) -> Self {
        self.additions.spotlight = Some(spotlighting);
        self
    }

    /// Asks a detector that has to wait about every prompt that the others let pass. Limits count for this policy alone,
    /// unless it is cloned once it is built. See
    /// [the layer's](crate::prompt_guard::PromptGuardLayerBuilder::async_detector).
    pub fn async_detector(
        mut self,
        detector: impl AsyncDetector,
        rule: impl Into<Rule>,
        limits: impl Into<AsyncLimits>,
        on_unavailable: OnUnavailable,
    ) -> Self {
        let how = How::Future(Arc::new(detector));
        self.asked.push(Asked::new(how, rule, limits, on_unavailable));
        self
    }

    /// The same for a detector that computes for long, on a thread of the blocking pool. See
    /// [the layer's](crate::prompt_guard::PromptGuardLayerBuilder::blocking_detector).
    pub fn blocking_detector(
        mut self,
        detector: impl Detector,
        rule: impl Into<Rule>,
        limits: impl Into<AsyncLimits>,
        on_unavailable: OnUnavailable,
    ) -> Self {
        let how = How::Thread(Arc::new(detector));
        self.asked.push(Asked::new(how, rule, limits, on_unavailable));
        self
    }

    /// The clock that circuit breakers count by. Default: the machine's. See
    /// [the layer's](crate::prompt_guard::PromptGuardLayerBuilder::clock).
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The largest answer, and the largest single event of a stream, that is held to be scanned, in bytes: 1 MiB by
    /// default. See
    /// [the layer's](crate::prompt_guard::PromptGuardLayerBuilder::max_answer).
    pub fn max_answer(mut self, bytes: usize) -> Self {
        self.max_answer = bytes;
        self
    }

    /// How much of each text of a stream is still seen after it has gone on, in bytes: 1 KiB by default. See
    /// [the layer's](crate::prompt_guard::PromptGuardLayerBuilder::stream_window).
    pub fn stream_window(mut self, bytes: usize) -> Self {
        self.stream_window = bytes;
        self
    }

    /// How much of the end of each text of an event stream is held back, in bytes, and for how long. See
    /// [the layer's](crate::prompt_guard::PromptGuardLayerBuilder::hold_back).
    pub fn hold_back(mut self, bytes: usize, max_delay: Duration) -> Self {
        self.hold_back = Some(bytes);
        self.max_delay = max_delay;
        self
    }

    /// What happens to a prompt of which a part can't be read as text. Refused by default. See
    /// [the layer's](crate::prompt_guard::PromptGuardLayerBuilder::unread).
    pub fn unread(mut self, unseen: Unseen) -> Self {
        self.unread = unseen;
        self
    }

    /// What happens to a request with a body on a route that is no known endpoint. Refused by default. See
    /// [the layer's](crate::prompt_guard::PromptGuardLayerBuilder::unknown_endpoint).
    pub fn unknown_endpoint(mut self, unseen: Unseen) -> Self {
        self.unknown_endpoint = unseen;
        self
    }

    /// What happens to gRPC calls. Refused by default. See
    /// [the layer's](crate::prompt_guard::PromptGuardLayerBuilder::grpc).
    pub fn grpc(mut self, unseen: Unseen) -> Self {
        self.grpc = unseen;
        self
    }

    /// Whether pseudonymised values are put back into the answer: by default they are. See
    /// [the layer's](crate::prompt_guard::PromptGuardLayerBuilder::restore_answers).
    pub fn restore_answers(mut self, restore: bool) -> Self {
        self.restore = restore;
        self
    }

    /// How many texts' findings are remembered: 16384 by default. See
    /// [the layer's](crate::prompt_guard::PromptGuardLayerBuilder::remember_texts).
    pub fn remember_texts(mut self, texts: usize) -> Self {
        self.remembered = texts;
        self
    }

    /// Enforces nothing of this policy that depends on content, and says what would have been done. See
    /// [the layer's](crate::prompt_guard::PromptGuardLayerBuilder::report_only).
    pub fn report_only(mut self) -> Self {
        self.enforced = false;
        self
    }

    /// Another action on some findings, whichever detector makes them. Goes before equal exceptions of the detectors' own
    /// [`Rule`]s, and otherwise is as [`Rule::except`].
    pub fn except(mut self, which: impl Into<FindingFilter>, action: Action) -> Self {
        self.exceptions.push(Exception(which.into(), Setting::Action(action)));
        self
    }

    /// Another score on some findings, from 0 to 1, from which on something is done about them, whichever detector makes them.
    /// Goes before equal ones of the detectors' own [`Rule`]s, and otherwise is as [`Rule::threshold`].
    pub fn threshold(mut self, which: impl Into<FindingFilter>, score: f32) -> Self {
        self.exceptions.push(Exception(which.into(), Setting::Threshold(score)));
        self
    }

    /// Tries out what is done about some findings, whichever detector makes them: nothing is done, and the verdict and a
    /// counter say what would have been, as with [`Rule::dry_run`].
    pub fn dry_run(mut self, which: impl Into<FindingFilter>) -> Self {
        self.exceptions.push(Exception(which.into(), Setting::DryRun));
        self
    }

    #[cfg(feature = "rule-packs")]
    pub(crate) fn exceptions(mut self, exceptions: impl Iterator<Item = Exception>) -> Self {
        self.exceptions.extend(exceptions);
        self
    }

    #[cfg(feature = "rule-packs")]
    pub(crate) fn shared(mut self, remote: Remote) -> Self {
        self.shared.push(remote);
        self
    }

    /// The policy.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for a cap of zero, limits that make no sense, or a score that is not from 0 to 1.
    pub fn build(self) -> Result<GuardPolicy, BuildError> {
        self.policy().map(|policy| GuardPolicy(Arc::new(policy)))
    }

    pub(crate) fn policy(mut self) -> Result<Policy, BuildError> {
        for (what, size) in [("max_body", self.max_body), ("max_answer", self.max_answer)] {
            if size == 0 {
                return Err(BuildError::invalid(what, "it is zero, so nothing could pass"));
            }
        }
        let locals = self.local.iter_mut().chain(&mut self.output).map(|local| &mut local.rule);
        let asked = self.asked.iter_mut().map(|asked| &mut asked.rule);
        for rule in locals.chain(asked).chain(self.shared.iter_mut().map(|remote| &mut remote.rule))
        {
            rule.add(&self.exceptions);
            if !rule.is_valid() {
                return Err(BuildError::invalid("score", "it is not from 0 to 1"));
            }
        }
        self.asked.iter().try_for_each(|asked| asked.limits.check())?;
        self.additions.check()?;
        let lookbehind = self.output.iter().map(|local| local.detector.lookbehind()).max();
        let hold = self.hold_back.unwrap_or_else(|| lookbehind.unwrap_or_default().min(4096));
        let clock = &self.clock;
        let asked = self.asked.into_iter().map(|asked| Remote::new(asked, Arc::clone(clock)));
        let remote = asked.chain(self.shared).collect();
        let mut policy = Policy {
            name: DEFAULT.into(),
            max_body: self.max_body,
            unread: self.unread,
            unknown_endpoint: self.unknown_endpoint,
            grpc: self.grpc,
            turns: Turns { most: self.max_turns, refused: self.refused.into() },
            rules: Arc::default(),
            changes: false,
            seen: SeenTexts::new(self.remembered),
            local: self.local.into(),
            remote,
            output: self.output,
            additions: Arc::new(self.additions),
            max_answer: self.max_answer,
            max_delay: self.max_delay,
            sizes: Sizes::new(hold, self.stream_window),
            restore: self.restore,
            enforced: self.enforced,
        };
        let changes = policy.detectors().any(|detector| detector.pinned().is_some());
        policy.changes = changes;
        policy.rules = policy.rules_of_detectors();
        Ok(policy)
    }
}

//! Content policies: what is looked for in prompts and answers, and what is done about it.

mod builder;
mod choice;
mod current;
#[cfg(feature = "rule-packs")]
mod file;
mod pinned;
mod when;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

#[cfg(feature = "rule-packs")]
pub use self::file::{DetectorSet, PolicyFile};
pub use self::{
    builder::GuardPolicyBuilder,
    when::{RequestTarget, When},
};
pub(crate) use self::{choice::Chosen, current::Current};
use super::{
    Detector, Outcome, RulesVersion, Unseen, Verdict,
    added::{Added, Additions},
    hold::Sizes,
    policy::{Gathered, Subject},
    scan::Local,
    seen::{Scanner, SeenTexts},
    waiting::Remote,
};
use crate::{
    inference::{Origin, Prompt, TokenEstimator},
    observe,
    reject::{Rejection, RejectionKind},
};

/// What is looked for in prompts and answers, and what is done about it, for some requests: see
/// [`policy_for`](super::PromptGuardLayerBuilder::policy_for). Cheap to clone.
#[derive(Clone, Debug)]
pub struct GuardPolicy(Arc<Policy>);

impl GuardPolicy {
    /// A policy without detectors yet, with the defaults of a [`PromptGuardLayer`](super::PromptGuardLayer).
    pub fn builder() -> GuardPolicyBuilder {
        GuardPolicyBuilder::new()
    }

    /// The same under this name.
    fn named(&self, name: &str) -> Policy {
        Policy { name: name.into(), ..(*self.0).clone() }
    }
}

/// All that one request and its answer are held to. Cheap to clone: a request whose answer is held to what it asked has one
/// of its own.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// As it stands in verdicts and metrics.
    pub(crate) name: Arc<str>,
    pub(crate) max_body: usize,
    pub(crate) unread: Unseen,
    pub(crate) unknown_endpoint: Unseen,
    pub(crate) grpc: Unseen,
    pub(crate) turns: Turns,
    pub(crate) local: Arc<[Local]>,
    pub(crate) remote: Arc<[Remote]>,
    /// What the local ones have found before.
    pub(crate) seen: Option<SeenTexts>,
    pub(crate) output: Vec<Local>,
    /// Of the detectors that have any.
    pub(crate) rules: Arc<[RulesVersion]>,
    pub(crate) additions: Arc<Additions>,
    /// Whether a detector may be another at another time.
    pub(crate) changes: bool,
    pub(crate) max_answer: usize,
    pub(crate) max_delay: Duration,
    pub(crate) sizes: Sizes,
    pub(crate) restore: bool,
    pub(crate) enforced: bool,
}

impl Policy {
    fn rules_of_detectors(&self) -> Arc<[RulesVersion]> {
        let mut rules = Vec::new();
        for version in self.detectors().filter_map(|detector| detector.rules_version()) {
            if !rules.contains(&version) {
                rules.push(version);
            }
        }
        rules.into()
    }

    /// What looks at prompts.
    pub(crate) fn scanner(&self) -> Scanner<'_> {
        Scanner { detectors: &self.local, seen: self.seen.as_ref() }
    }

    /// What looks at whole texts of answers.
    pub(crate) fn output_scanner(&self) -> Scanner<'_> {
        Scanner { detectors: &self.output, seen: None }
    }

    /// Whether nothing is looked for in prompts, and nothing done with them.
    pub(crate) fn takes_as_it_is(&self) -> bool {
        self.local.is_empty() && self.remote.is_empty() && self.additions.is_empty()
    }

    /// What the answer to this prompt is held to.
    pub(crate) fn answering(
        self: Arc<Self>,
        prompt: &Prompt,
        gathered: &mut Gathered,
    ) -> Arc<Self> {
        let mut policy = self;
        for at in 0..policy.output.len() {
            let made = policy.output.get(at).and_then(|local| local.answering(prompt, gathered));
            let Some(detector) = made else { continue };
            if let Some(local) = Arc::make_mut(&mut policy).output.get_mut(at) {
                local.detector = detector;
            }
        }
        policy
    }

    /// The body that the model is to read in the place of this prompt's, and what the answer to that is held to.
    pub(crate) fn adding_to(self: &Arc<Self>, prompt: &Prompt) -> (Arc<Self>, Option<Bytes>) {
        let added = if self.enforced { self.additions.to(prompt) } else { Added::default() };
        let mut policy = Arc::clone(self);
        if let Some(at) = self.additions.planted_at() {
            let output = &mut Arc::make_mut(&mut policy).output;
            match added.canary {
                Some(canary) => {
                    let looks: Arc<dyn Detector> = Arc::new(canary);
                    output.iter_mut().skip(at).take(1).for_each(|it| it.detector = looks.clone());
                }
                // The model was told of none, and can't say it.
                None => drop(output.drain(at..(at + 1).min(output.len()))),
            }
        }
        (policy, added.body)
    }

    /// The tokens that [`adding_to`](Self::adding_to) adds, for the limiter.
    pub(crate) fn added_tokens(&self, prompt: &Prompt, estimator: &dyn TokenEstimator) -> u64 {
        if self.enforced { self.additions.tokens(prompt, estimator) } else { 0 }
    }

    /// The verdict in the place of a refusal that is not enforced, or the refusal.
    pub(crate) fn excuse(&self, rejection: Rejection) -> Result<Verdict, Rejection> {
        let of_content = matches!(
            rejection.kind(),
            RejectionKind::Unreadable | RejectionKind::BadRequest | RejectionKind::Unavailable
        );
        if self.enforced || !of_content {
            return Err(rejection);
        }
        self.count_excused(&rejection);
        let name = Arc::clone(&self.name);
        let verdict = Verdict::new(name, Outcome::Block, false, Some(rejection.code()));
        Ok(verdict.by_rules(&self.rules))
    }

    /// A refusal is not enforced.
    pub(crate) fn count_excused(&self, rejection: &Rejection) {
        let code = [("code", rejection.code())];
        observe::count_by_policy("palisade_guard_excused_total", &self.name, &code);
    }

    /// A prompt or an answer was decided on.
    pub(crate) fn count(&self, subject: Subject, action: Outcome) {
        let labels = [("subject", subject.as_str()), ("action", action.as_str())];
        observe::count_by_policy("palisade_guard_verdicts_total", &self.name, &labels);
    }
}

/// What conversations may be made of.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    pub(crate) most: usize,
    pub(crate) refused: Arc<[Origin]>,
}

impl Turns {
    pub(crate) fn check(&self, prompt: &Prompt) -> Result<(), Rejection> {
        let refused =
            |(code, message)| Err(Rejection::new(RejectionKind::BadRequest, code, message));
        if self.refused.is_empty() && self.most == usize::MAX {
            return Ok(());
        }
        for segment in prompt.segments() {
            if self.refused.contains(&segment.origin) {
                return refused((
                    "origin_not_allowed",
                    "A message has a role that may not be sent here.",
                ));
            }
            if segment.turn as usize >= self.most {
                return refused((
                    "too_many_turns",
                    "The conversation has more messages than may be sent here.",
                ));
            }
        }
        Ok(())
    }
}

/// Names get into verdicts, metrics and logs: nothing that a terminal or a log would take for something else.
pub(crate) fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(fits)
}

pub(crate) const NAME: &str =
    "1 to 64 ASCII letters, digits, dots, dashes, underscores or plus signs";
/// The name of the policy for requests for which there is no other.
pub(crate) const DEFAULT: &str = "default";

//! What the guard makes of a prompt or an answer.

use std::sync::Arc;

#[cfg(doc)]
use super::Detector;
use super::{Finding, RulesVersion, rule::Ruling};

/// What became of a request, or of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing was found.
    Allow,
    /// Something was found that is only reported.
    Report,
    /// What was found was masked.
    Sanitize,
    /// It was refused.
    Block,
}

impl Outcome {
    /// As it stands in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Report => "report",
            Self::Sanitize => "sanitize",
            Self::Block => "block",
        }
    }
}

/// What the guard makes of a request. Stands in the extensions of the request, for handlers, and of
/// its answer, for outer layers. Rules and places only, never a text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Verdict {
    /// What the policy says, whether or not it is enforced. What a rule's dry run would do does not count: see
    /// [`outcomes`](Self::outcomes).
    pub action: Outcome,
    /// `false` when the guard only reports: then `action` is what would have been done.
    pub enforced: bool,
    /// The code of the refusal, if `action` is [`Block`](Outcome::Block).
    pub code: Option<&'static str>,
    /// What was found: the first 256 findings.
    pub findings: Vec<Finding>,
    /// Detectors that could not tell: they failed, panicked, ran out of time, or were left alone.
    pub unavailable: Vec<&'static str>,
    /// Those of them whose [`OnUnavailable`](super::OnUnavailable) lets what they did not see pass.
    pub let_through: Vec<&'static str>,
    policy: Arc<str>,
    rules: Arc<[RulesVersion]>,
    /// Of each finding: what is done about it, or would be but for a dry run, and whether it is one.
    outcomes: Vec<(Outcome, bool)>,
}

/// A finding, and what is done about it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct FindingOutcome<'a> {
    /// What was found.
    pub finding: &'a Finding,
    /// What the policy says of it.
    pub outcome: Outcome,
    /// Whether that is only noted: the rule, or the whole policy, is tried out. A finding that is masked or blocks need
    /// not have been masked for that: another may have blocked the whole.
    pub dry_run: bool,
}

/// What the guard found in the answer to a request. Stands in the extensions of an answer that was
/// read whole before its head was sent; what is found in an event stream is only counted.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AnswerVerdict(pub Verdict);

impl Verdict {
    pub(crate) fn new(
        policy: Arc<str>,
        action: Outcome,
        enforced: bool,
        code: Option<&'static str>,
    ) -> Self {
        Self {
            action,
            enforced,
            code,
            findings: Vec::new(),
            unavailable: Vec::new(),
            let_through: Vec::new(),
            policy,
            rules: Arc::default(),
            outcomes: Vec::new(),
        }
    }

    pub(crate) fn by_rules(mut self, rules: &Arc<[RulesVersion]>) -> Self {
        self.rules = Arc::clone(rules);
        self
    }

    pub(crate) fn add(&mut self, ruling: Ruling, finding: Finding) {
        self.outcomes.push((ruling.would_be(&finding), ruling.dry_run));
        self.findings.push(finding);
    }

    /// The name of the policy that the request was held to: `default`, unless
    /// [`policy_for`](super::PromptGuardLayerBuilder::policy_for) or its like chose another.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// Which rules the policy's detectors looked with, of those that tell ([`Detector::rules_version`]), each once.
    #[must_use]
    pub fn rules(&self) -> &[RulesVersion] {
        &self.rules
    }

    /// What is done about each of the findings, or would be but for a dry run.
    pub fn outcomes(&self) -> impl Iterator<Item = FindingOutcome<'_>> {
        self.findings.iter().zip(&self.outcomes).map(|(finding, (outcome, dry_run))| {
            FindingOutcome { finding, outcome: *outcome, dry_run: *dry_run || !self.enforced }
        })
    }
}

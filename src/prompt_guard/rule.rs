//! What is done about what a detector finds, and where it is not: an action, from a score on, and
//! exceptions.

use std::{borrow::Cow, sync::Arc};

use super::{Category, Finding, OnUnavailable, Outcome};
use crate::inference::Origin;

/// What is done about what a detector finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Action {
    /// Noted in the [`Verdict`](super::Verdict) and counted. The request passes as it is.
    Report,
    /// What was found is masked (`[EMAIL]`) and the rest passes. A finding that doesn't say where it
    /// is can't be masked, and blocks.
    Redact,
    /// As `Redact`, with a keyed hash of the value (`[EMAIL:3f7a…]`): equal values can be told to be equal, by the model
    /// and in logs, and by nobody without the key what they are. The key is the layer's
    /// [`hash_key`](super::PromptGuardLayerBuilder::hash_key).
    Hash,
    /// As `Redact`, with a placeholder (`[EMAIL_K3J9X2QATRD7MWHC]`) in whose place the value is put back in the answer
    /// to the same request, as the [module docs](crate::prompt_guard#answers) say. On what is found in answers, a plain
    /// mask.
    Pseudonymize,
    /// The request is refused: 403, code `content_blocked`.
    Block,
}

impl Action {
    /// This action, on findings of at least this score, from 0 to 1. Those below are only reported.
    #[must_use]
    pub fn at(self, score: f32) -> Rule {
        Rule {
            action: self,
            threshold: score,
            dry_run: false,
            skipped: 0,
            exceptions: Arc::new([]),
        }
    }

    /// This action, but another one on some findings. See [`Rule::except`].
    #[must_use]
    pub fn except(self, which: impl Into<FindingFilter>, action: Self) -> Rule {
        Rule::from(self).except(which, action)
    }

    /// This action, but not in texts of this origin. See [`Rule::insecure_skip`].
    #[must_use]
    pub fn insecure_skip(self, origin: Origin) -> Rule {
        Rule::from(self).insecure_skip(origin)
    }

    /// This action, which is not taken. See [`Rule::dry_run`].
    #[must_use]
    pub fn dry_run(self) -> Rule {
        Rule::from(self).dry_run()
    }
}

/// An [`Action`] and the score from which on it is taken: 0.8 unless said otherwise with
/// [`Action::at`].
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    action: Action,
    threshold: f32,
    dry_run: bool,
    /// One bit for each origin.
    skipped: u16,
    exceptions: Arc<[Exception]>,
}

impl Rule {
    /// Another action on some findings: by the name of the detector's rule (or of all rules below it), by category, by
    /// origin, or by two of these. The score from which on something is done stays the same.
    ///
    /// Of several that fit, that with the longest name holds; of those with equal names, that which asks for more; of
    /// equal ones the one that was given last.
    ///
    /// ```
    /// use palisade::{inference::Origin, prompt_guard::{Action, PersonalData, PromptGuardLayer}};
    ///
    /// # fn main() -> Result<(), palisade::BuildError> {
    /// let by_kind = Action::Redact
    ///     .except("personal_data.card", Action::Block)
    ///     .except("personal_data.national_id", Action::Block)
    ///     .except("personal_data.national_id.us_itin", Action::Hash)
    ///     .except(("personal_data.email", Origin::User), Action::Pseudonymize);
    /// let guard = PromptGuardLayer::builder()
    ///     .detector(PersonalData::builder().build()?, by_kind)
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn except(mut self, which: impl Into<FindingFilter>, action: Action) -> Self {
        self.add(&[Exception(which.into(), Setting::Action(action))]);
        self
    }

    /// Another score on some findings, from 0 to 1, from which on something is done. Which of several holds is as with
    /// [`except`](Self::except).
    ///
    /// ```
    /// use palisade::{inference::Origin, prompt_guard::{Action, Category}};
    ///
    /// // Documents tell of attacks more often than they are some.
    /// let rule = Action::Block.at(0.8).threshold((Category::Injection, Origin::Document), 0.95);
    /// ```
    #[must_use]
    pub fn threshold(mut self, which: impl Into<FindingFilter>, score: f32) -> Self {
        self.add(&[Exception(which.into(), Setting::Threshold(score))]);
        self
    }

    /// Tries the rule out: what is found changes nothing, and refuses nothing if the detector can't tell. What would have
    /// been done stands in [`Verdict::outcomes`](super::Verdict::outcomes), and
    /// `palisade_guard_dry_run_total{detector, category, outcome, policy}` counts it. For a part of a rule see
    /// [`GuardPolicyBuilder::dry_run`](super::GuardPolicyBuilder::dry_run).
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Overlooks texts of this origin: where applications write system prompts or tool schemas that
    /// look like attacks. A client may claim any origin for any text, so this is for servers whose
    /// clients are trusted to tell them apart.
    ///
    /// ```
    /// use palisade::{inference::Origin, prompt_guard::Action};
    ///
    /// let rule = Action::Block.at(0.9).insecure_skip(Origin::System).insecure_skip(Origin::ToolSchema);
    /// ```
    #[must_use]
    pub fn insecure_skip(mut self, origin: Origin) -> Self {
        self.skipped |= bit(origin);
        self
    }

    /// Adds exceptions, which go before equal ones that it has.
    pub(crate) fn add(&mut self, more: &[Exception]) {
        if !more.is_empty() {
            self.exceptions = self.exceptions.iter().chain(more).cloned().collect();
        }
    }

    pub(crate) fn skips(&self, origin: Origin) -> bool {
        self.skipped & bit(origin) != 0
    }

    /// Whether all scores are from 0 to 1.
    pub(crate) fn is_valid(&self) -> bool {
        let valid = |score: &f32| (0.0..=1.0).contains(score);
        valid(&self.threshold)
            && self.exceptions.iter().all(|Exception(_, setting)| match setting {
                Setting::Threshold(score) => valid(score),
                Setting::Action(_) | Setting::DryRun => true,
            })
    }

    /// What becomes of a request when the detector can't tell: a dry run refuses nothing.
    pub(crate) fn on_unavailable(&self, otherwise: OnUnavailable) -> OnUnavailable {
        if self.dry_run { OnUnavailable::InsecurePass } else { otherwise }
    }

    /// What is done about a finding in a text of this origin. `None`: in the prompt as a whole.
    pub(crate) fn ruling(&self, finding: &Finding, origin: Option<Origin>) -> Ruling {
        let mut ruling = Ruling { action: self.action, dry_run: self.dry_run };
        let mut threshold = self.threshold;
        let (mut acts, mut counts) = ((0, 0), (0, 0));
        for Exception(which, setting) in &*self.exceptions {
            let Some(rank) = which.fits(finding, origin) else { continue };
            match setting {
                Setting::Action(action) if rank >= acts => (ruling.action, acts) = (*action, rank),
                Setting::Threshold(score) if rank >= counts => (threshold, counts) = (*score, rank),
                Setting::DryRun => ruling.dry_run = true,
                Setting::Action(_) | Setting::Threshold(_) => {}
            }
        }
        // A score that is not a number counts as the highest.
        if finding.score < threshold {
            ruling.action = Action::Report;
        }
        ruling
    }
}

impl From<Action> for Rule {
    fn from(action: Action) -> Self {
        action.at(0.8)
    }
}

/// Which findings something is said of: those of a rule, of a category, in texts of an origin, or all of what is asked for.
///
/// Made from a rule's name (`"injection.override"`, or `"injection"` for it and all below), a [`Category`], an [`Origin`], or
/// a pair of one of the former and an origin. What a detector finds in the prompt as a whole is of no origin.
#[derive(Clone, Debug, PartialEq)]
pub struct FindingFilter {
    rule: Option<Cow<'static, str>>,
    category: Option<Category>,
    origin: Option<Origin>,
}

impl FindingFilter {
    /// All findings that fit those of these which are given.
    pub(crate) fn new(
        rule: Option<Cow<'static, str>>,
        category: Option<Category>,
        origin: Option<Origin>,
    ) -> Self {
        Self { rule, category, origin }
    }

    /// How much it asks for, if the finding is one of these.
    fn fits(&self, finding: &Finding, origin: Option<Origin>) -> Option<(usize, u8)> {
        let of_rule = self.rule.as_ref().is_none_or(|name| {
            let rest = finding.rule.strip_prefix(&**name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        let fits = of_rule
            && self.category.is_none_or(|category| category == finding.category)
            && self.origin.is_none_or(|asked| Some(asked) == origin);
        let asks = u8::from(self.category.is_some()) + u8::from(self.origin.is_some());
        fits.then(|| (self.rule.as_ref().map_or(0, |name| name.len()), asks))
    }
}

impl From<&'static str> for FindingFilter {
    fn from(rule: &'static str) -> Self {
        Self::from(Cow::Borrowed(rule))
    }
}

impl From<String> for FindingFilter {
    fn from(rule: String) -> Self {
        Self::from(Cow::Owned(rule))
    }
}

impl From<Cow<'static, str>> for FindingFilter {
    fn from(rule: Cow<'static, str>) -> Self {
        Self::new(Some(rule), None, None)
    }
}

impl From<Category> for FindingFilter {
    fn from(category: Category) -> Self {
        Self::new(None, Some(category), None)
    }
}

impl From<Origin> for FindingFilter {
    fn from(origin: Origin) -> Self {
        Self::new(None, None, Some(origin))
    }
}

impl From<(Category, Origin)> for FindingFilter {
    fn from((category, origin): (Category, Origin)) -> Self {
        Self::new(None, Some(category), Some(origin))
    }
}

impl From<(&'static str, Origin)> for FindingFilter {
    fn from((rule, origin): (&'static str, Origin)) -> Self {
        Self::new(Some(Cow::Borrowed(rule)), None, Some(origin))
    }
}

/// What is said of some findings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exception(pub(crate) FindingFilter, pub(crate) Setting);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Setting {
    Action(Action),
    Threshold(f32),
    DryRun,
}

/// What a policy says of one finding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ruling {
    pub(crate) action: Action,
    /// It is only noted.
    pub(crate) dry_run: bool,
}

impl Ruling {
    /// What is done about the finding, or would be but for a dry run.
    pub(crate) fn would_be(self, finding: &Finding) -> Outcome {
        match self.action {
            Action::Report => Outcome::Report,
            Action::Block => Outcome::Block,
            _ if finding.span.is_some() => Outcome::Sanitize,
            _ => Outcome::Block,
        }
    }

    /// What is done about the finding.
    pub(crate) fn outcome(self, finding: &Finding) -> Outcome {
        if self.dry_run { Outcome::Report } else { self.would_be(finding) }
    }
}

fn bit(origin: Origin) -> u16 {
    1 << origin as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruled(rule: &Rule, score: f32, origin: Option<Origin>) -> (Action, bool) {
        let finding = Finding::new("injection.override", Category::Injection, score, 0, None);
        let Ruling { action, dry_run } = rule.ruling(&finding, origin);
        (action, dry_run)
    }

    #[test]
    fn of_several_exceptions_the_one_that_asks_for_most_holds() {
        let document = Some(Origin::Document);
        let rule = Action::Block
            .except("injection.override", Action::Hash)
            .except((Category::Injection, Origin::Document), Action::Redact)
            .except("injection", Action::Pseudonymize)
            .except(Origin::Document, Action::Report);
        assert_eq!(ruled(&rule, 1.0, document).0, Action::Hash);
        let rule = Action::Block
            .except((Category::Injection, Origin::Document), Action::Redact)
            .except(Category::Injection, Action::Hash)
            .except(Origin::Document, Action::Report);
        assert_eq!(ruled(&rule, 1.0, document).0, Action::Redact);
        assert_eq!(ruled(&rule, 1.0, Some(Origin::User)).0, Action::Hash);
        // What is found in the prompt as a whole is of no origin.
        assert_eq!(ruled(&rule, 1.0, None).0, Action::Hash);
        let rule = Action::Block
            .except(Category::Injection, Action::Hash)
            .except(Origin::Document, Action::Report);
        assert_eq!(ruled(&rule, 1.0, document).0, Action::Report);
        let rule = Action::Block
            .except("injection.over", Action::Report)
            .except(Category::Leak, Action::Report)
            .except(("injection", Origin::User), Action::Report);
        assert_eq!(ruled(&rule, 1.0, document).0, Action::Block);
    }

    #[test]
    fn a_score_of_its_own_leaves_the_action() {
        let rule = Action::Block
            .at(0.5)
            .threshold(Category::Injection, 0.7)
            .threshold((Category::Injection, Origin::Document), 0.9)
            .except("injection", Action::Hash);
        for (score, origin, expected) in [
            (0.69, Origin::User, Action::Report),
            (0.7, Origin::User, Action::Hash),
            (0.89, Origin::Document, Action::Report),
            (0.9, Origin::Document, Action::Hash),
            (f32::NAN, Origin::Document, Action::Hash),
        ] {
            assert_eq!(ruled(&rule, score, Some(origin)).0, expected, "{score} {origin:?}");
        }
        assert!(rule.is_valid());
        for score in [-0.1, 1.1, f32::NAN] {
            assert!(!rule.clone().threshold(Origin::User, score).is_valid());
        }
    }

    #[test]
    fn a_dry_run_says_what_it_would_do_and_does_nothing() {
        let finding = Finding::new("x", Category::Injection, 1.0, 0, None);
        let ruling = Action::Block.dry_run().ruling(&finding, None);
        assert_eq!(
            (ruling.would_be(&finding), ruling.outcome(&finding)),
            (Outcome::Block, Outcome::Report)
        );
        let mut some = Rule::from(Action::Block);
        some.add(&[Exception(Category::Injection.into(), Setting::DryRun)]);
        assert!(ruled(&some, 1.0, None).1);
        let other = Finding::new("x", Category::Leak, 1.0, 0, None);
        assert!(!some.ruling(&other, None).dry_run);
    }
}

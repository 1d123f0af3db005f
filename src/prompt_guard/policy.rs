//! What is done about what was found: plain data and a pure decision.

use std::{borrow::Cow, sync::Arc};

use super::{Category, Finding, Outcome, Vault, Verdict, detector::Categories, mask::Mask};
use crate::{
    inference::Origin,
    reject::{Rejection, RejectionKind},
};

/// What is done about what a detector finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Noted in the [`Verdict`] and counted. The request passes as it is.
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
        Rule { action: self, threshold: score, skipped: 0, exceptions: Arc::new([]) }
    }

    /// This action, but another one on what this rule of the detector finds. See [`Rule::except`].
    #[must_use]
    pub fn except(self, rule: impl Into<Cow<'static, str>>, action: Self) -> Rule {
        Rule::from(self).except(rule, action)
    }

    /// This action, but not in texts of this origin. See [`Rule::insecure_skip`].
    #[must_use]
    pub fn insecure_skip(self, origin: Origin) -> Rule {
        Rule::from(self).insecure_skip(origin)
    }
}

/// An [`Action`] and the score from which on it is taken: 0.8 unless said otherwise with
/// [`Action::at`].
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    action: Action,
    threshold: f32,
    /// One bit for each origin.
    skipped: u16,
    exceptions: Arc<[(Cow<'static, str>, Action)]>,
}

impl Rule {
    /// Another action on what this rule of the detector finds, or all rules below it: of several that
    /// fit, the longest holds. The score from which on something is done stays the same.
    ///
    /// ```
    /// use palisade::prompt_guard::{Action, PersonalData, PromptGuardLayer};
    ///
    /// # fn main() -> Result<(), palisade::BuildError> {
    /// let by_kind = Action::Redact
    ///     .except("personal_data.card", Action::Block)
    ///     .except("personal_data.national_id", Action::Block)
    ///     .except("personal_data.national_id.us_itin", Action::Hash)
    ///     .except("personal_data.email", Action::Pseudonymize);
    /// let guard = PromptGuardLayer::builder()
    ///     .detector(PersonalData::builder().build()?, by_kind)
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn except(mut self, rule: impl Into<Cow<'static, str>>, action: Action) -> Self {
        let more = [(rule.into(), action)];
        self.exceptions = self.exceptions.iter().cloned().chain(more).collect();
        self
    }

    /// What is done about a finding that counts.
    fn action(&self, finding: &Finding) -> Action {
        let fits = |name: &str| {
            let rest = finding.rule.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let exceptions = self.exceptions.iter().filter(|(name, _)| fits(name));
        exceptions.max_by_key(|(name, _)| name.len()).map_or(self.action, |(_, action)| *action)
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

    pub(crate) fn skips(&self, origin: Origin) -> bool {
        self.skipped & bit(origin) != 0
    }

    pub(crate) fn is_valid(&self) -> bool {
        (0.0..=1.0).contains(&self.threshold)
    }

    pub(crate) fn outcome(&self, finding: &Finding) -> Outcome {
        // A score that is not a number counts as the highest.
        if finding.score < self.threshold {
            return Outcome::Report;
        }
        match self.action(finding) {
            Action::Report => Outcome::Report,
            Action::Block => Outcome::Block,
            _ if finding.span.is_some() => Outcome::Sanitize,
            _ => Outcome::Block,
        }
    }
}

impl From<Action> for Rule {
    fn from(action: Action) -> Self {
        action.at(0.8)
    }
}

fn bit(origin: Origin) -> u16 {
    1 << origin as u16
}

/// What all detectors together have to say.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) found: Vec<(Rule, Finding)>,
    pub(crate) unavailable: Vec<&'static str>,
    /// Those of them that need not be heard.
    pub(crate) let_through: Vec<&'static str>,
    /// One of those that are unavailable must be heard.
    pub(crate) must_refuse: bool,
    /// How much of the text was looked at before: what ends in it was found then.
    pub(crate) seen: usize,
}

impl Gathered {
    /// Leaves nothing that could be masked: what would be, then blocks.
    pub(crate) fn forget_places(&mut self) {
        for (_, finding) in &mut self.found {
            finding.span = None;
        }
    }

    /// Drops what was found in the request's own placeholders, which are no words of the model's. `text` is that of a segment.
    pub(crate) fn overlook<'a>(&mut self, own: &Vault, text: impl Fn(usize) -> &'a str) {
        self.found.retain(|(_, finding)| {
            let is_own = |span| own.covers(text(finding.segment), span);
            !finding.span.as_ref().is_some_and(is_own)
        });
    }

    /// Whether something was found that blocks, whatever else is found.
    pub(crate) fn blocks(&self) -> bool {
        self.found.iter().any(|(rule, finding)| rule.outcome(finding) == Outcome::Block)
    }
}

/// A [`Verdict`], and what follows from it.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) verdict: Verdict,
    /// The masks, when the verdict is to sanitize.
    pub(crate) masks: Vec<Mask>,
    /// The refusal, when the verdict is to block.
    pub(crate) rejection: Option<Rejection>,
    /// What it was blocked for.
    pub(crate) blocking: Categories,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Prompt,
    Answer,
}

impl Subject {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Answer => "answer",
        }
    }
}

/// What to do, by everything that was found. What blocks goes before what can't be told, and that
/// before what is masked.
pub(crate) fn decide(gathered: Gathered, subject: Subject, enforced: bool) -> Decision {
    let Gathered { found, unavailable, let_through, must_refuse, .. } = gathered;
    let outcomes = found.iter().map(|(rule, finding)| rule.outcome(finding));
    let mut action = outcomes.max().unwrap_or(Outcome::Allow);
    let mut rejection = None;
    if action == Outcome::Block {
        rejection = Some(match subject {
            Subject::Prompt => prompt_blocked(&found),
            Subject::Answer => answer_blocked(),
        });
    } else if must_refuse {
        action = Outcome::Block;
        rejection = Some(self::unavailable());
    }
    let masks = if action == Outcome::Sanitize { masks(&found) } else { Vec::new() };
    let blocking = Categories::of(blocking(&found).map(|finding| finding.category));
    let findings = found.into_iter().take(MAX_REPORTED).map(|(_, finding)| finding).collect();
    let code = rejection.as_ref().map(Rejection::code);
    Decision {
        verdict: Verdict { action, enforced, code, findings, unavailable, let_through },
        masks,
        rejection,
        blocking,
    }
}

fn blocking(found: &[(Rule, Finding)]) -> impl Iterator<Item = &Finding> {
    let blocks = |(rule, finding): &&(Rule, Finding)| rule.outcome(finding) == Outcome::Block;
    found.iter().filter(blocks).map(|(_, finding)| finding)
}

/// Names the category and nothing else: not the rule, which would help to get around it.
fn prompt_blocked(found: &[(Rule, Finding)]) -> Rejection {
    let message = match blocking(found).map(|finding| finding.category).min() {
        Some(Category::Injection) => {
            "Refused by the content policy: it looks like an attempt to override instructions."
        }
        Some(Category::Secret) => {
            "Refused by the content policy: it contains a credential. Remove it and try again."
        }
        Some(Category::PersonalData) => {
            "Refused by the content policy: it contains personal data. Remove it and try again."
        }
        Some(Category::MaliciousCode) => "Refused by the content policy: malicious code.",
        Some(Category::Custom | Category::Leak) | None => {
            "Refused by the content policy of this service."
        }
    };
    Rejection::new(RejectionKind::Blocked, "content_blocked", message)
}

/// What was found can't be masked without breaking the body.
pub(crate) fn unmaskable() -> Rejection {
    Rejection::new(
        RejectionKind::Blocked,
        "content_blocked",
        "Refused by the content policy of this service.",
    )
}

pub(crate) fn unavailable() -> Rejection {
    Rejection::new(
        RejectionKind::Unavailable,
        "guard_unavailable",
        "A content check is unavailable at the moment. Try again later.",
    )
}

pub(crate) fn answer_blocked() -> Rejection {
    Rejection::new(
        RejectionKind::Blocked,
        "answer_blocked",
        "The answer was withheld by the content policy of this service.",
    )
}

/// One mask for each stretch of text that is to go, in order, those that overlap taken together.
pub(crate) fn masks(found: &[(Rule, Finding)]) -> Vec<Mask> {
    let mut masks: Vec<Mask> = found
        .iter()
        .filter(|(rule, finding)| rule.outcome(finding) == Outcome::Sanitize)
        .filter_map(|(rule, finding)| {
            let (span, action) = (finding.span.clone()?, rule.action(finding));
            Some(Mask { segment: finding.segment, span, rule: finding.rule.clone(), action })
        })
        .collect();
    masks.sort_by_key(|mask| (mask.segment, mask.span.start, std::cmp::Reverse(mask.span.end)));
    let mut merged: Vec<Mask> = Vec::with_capacity(masks.len());
    for mask in masks {
        match merged.last_mut() {
            // The first of those that overlap is the one that names the mask.
            Some(last) if last.segment == mask.segment && mask.span.start < last.span.end => {
                last.span.end = last.span.end.max(mask.span.end);
            }
            _ => merged.push(mask),
        }
    }
    merged
}

/// Findings that a verdict keeps: enough for a report, and a bound on what a hostile prompt costs.
const MAX_REPORTED: usize = 256;

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    fn finding(rule: &'static str, score: f32, span: Option<Range<usize>>) -> Finding {
        Finding::new(rule, Category::PersonalData, score, 0, span)
    }

    fn decided(found: Vec<(Rule, Finding)>) -> Decision {
        decide(Gathered { found, ..Gathered::default() }, Subject::Prompt, true)
    }

    #[test]
    fn the_strictest_outcome_wins() {
        let span = Some(0..3);
        for (rule, score, span, expected) in [
            (Action::Report.into(), 1.0, span.clone(), Outcome::Report),
            (Action::Redact.into(), 0.8, span.clone(), Outcome::Sanitize),
            (Action::Redact.into(), 0.79, span.clone(), Outcome::Report),
            (Action::Redact.into(), 0.8, None, Outcome::Block),
            (Action::Hash.into(), 0.8, span.clone(), Outcome::Sanitize),
            (Action::Pseudonymize.into(), 0.8, None, Outcome::Block),
            (Action::Redact.except("pii.email", Action::Block), 0.8, span.clone(), Outcome::Block),
            (Action::Block.except("pii", Action::Report), 0.8, span.clone(), Outcome::Report),
            (Action::Block.except("pii.e", Action::Report), 0.8, span.clone(), Outcome::Block),
            (
                Action::Redact.except("pii.email", Action::Report).except("pii", Action::Block),
                0.8,
                span.clone(),
                Outcome::Report,
            ),
            (Action::Block.into(), 0.8, span.clone(), Outcome::Block),
            (Action::Block.at(0.9), 0.8, span.clone(), Outcome::Report),
            (Action::Block.into(), f32::NAN, span, Outcome::Block),
        ] {
            let decision = decided(vec![(rule.clone(), finding("pii.email", score, span))]);
            assert_eq!(decision.verdict.action, expected, "{rule:?} {score}");
            assert_eq!(decision.rejection.is_some(), expected == Outcome::Block);
            assert_eq!(decision.masks.is_empty(), expected != Outcome::Sanitize);
        }
        assert_eq!(decided(Vec::new()).verdict.action, Outcome::Allow);
    }

    #[test]
    fn masks_that_overlap_are_one() {
        let rule = Rule::from(Action::Redact);
        let decision = decided(vec![
            (rule.clone(), finding("pii.phone", 1.0, Some(12..20))),
            (rule.clone(), finding("pii.email", 1.0, Some(0..9))),
            (rule.clone(), finding("pii.url", 1.0, Some(4..11))),
            (rule, finding("odd rule", 1.0, Some(11..12))),
        ]);
        let masks: Vec<_> =
            decision.masks.iter().map(|mask| (mask.span.clone(), &*mask.rule)).collect();
        assert_eq!(masks, [(0..11, "pii.email"), (11..12, "odd rule"), (12..20, "pii.phone")]);
    }

    #[test]
    fn what_must_be_heard_and_is_not_refuses() {
        let unavailable = || vec!["model"];
        let gathered = |found| Gathered {
            found,
            unavailable: unavailable(),
            must_refuse: true,
            ..Gathered::default()
        };
        let code = |found, subject| decide(gathered(found), subject, true).verdict.code;
        assert_eq!(code(Vec::new(), Subject::Prompt), Some("guard_unavailable"));
        let block = (Action::Block.into(), finding("x", 1.0, None));
        assert_eq!(code(vec![block.clone()], Subject::Prompt), Some("content_blocked"));
        assert_eq!(code(vec![block], Subject::Answer), Some("answer_blocked"));
    }

    #[test]
    fn a_verdict_is_bounded() {
        let one = (Action::Report.into(), finding("x", 1.0, None));
        assert_eq!(decided(vec![one; 1000]).verdict.findings.len(), MAX_REPORTED);
    }
}

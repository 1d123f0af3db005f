//! What is made of all that was found: plain data and a pure decision.

use std::sync::Arc;

use super::{
    Category, Finding, Outcome, Vault, Verdict, detector::Categories, mask::Mask, policies::Policy,
    rule::Ruling,
};
use crate::reject::{Rejection, RejectionKind};

/// What all detectors together have to say.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// The name of the policy that it is gathered for.
    pub(crate) policy: Arc<str>,
    /// Whether all of that is only reported.
    pub(crate) dry_run: bool,
    pub(crate) found: Vec<(Ruling, Finding)>,
    pub(crate) unavailable: Vec<&'static str>,
    /// Those of them that need not be heard.
    pub(crate) let_through: Vec<&'static str>,
    /// One of those that are unavailable must be heard.
    pub(crate) must_refuse: bool,
    /// How much of the text was looked at before: what ends in it was found then.
    pub(crate) seen: usize,
}

impl Gathered {
    pub(crate) fn of(policy: &Policy) -> Self {
        Self { policy: Arc::clone(&policy.name), dry_run: !policy.enforced, ..Self::default() }
    }

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
        self.found.iter().any(|(ruling, finding)| ruling.outcome(finding) == Outcome::Block)
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
pub(crate) fn decide(gathered: Gathered, subject: Subject) -> Decision {
    let Gathered { policy, dry_run, found, unavailable, let_through, must_refuse, .. } = gathered;
    let outcomes = found.iter().map(|(ruling, finding)| ruling.outcome(finding));
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
    let code = rejection.as_ref().map(Rejection::code);
    let mut verdict = Verdict::new(policy, action, !dry_run, code);
    (verdict.unavailable, verdict.let_through) = (unavailable, let_through);
    for (ruling, finding) in found.into_iter().take(MAX_REPORTED) {
        verdict.add(ruling, finding);
    }
    Decision { verdict, masks, rejection, blocking }
}

fn blocking(found: &[(Ruling, Finding)]) -> impl Iterator<Item = &Finding> {
    let blocks = |(ruling, finding): &&(Ruling, Finding)| ruling.outcome(finding) == Outcome::Block;
    found.iter().filter(blocks).map(|(_, finding)| finding)
}

/// Names the category and nothing else: not the rule, which would help to get around it.
fn prompt_blocked(found: &[(Ruling, Finding)]) -> Rejection {
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
        Some(Category::Topic) => {
            "Refused by the content policy: this service is not there to talk about that."
        }
        Some(Category::MaliciousCode) => "Refused by the content policy: malicious code.",
        Some(Category::Custom | Category::Leak | Category::SystemPrompt) | None => {
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
pub(crate) fn masks(found: &[(Ruling, Finding)]) -> Vec<Mask> {
    let mut masks: Vec<Mask> = found
        .iter()
        .filter(|(ruling, finding)| ruling.outcome(finding) == Outcome::Sanitize)
        .filter_map(|(ruling, finding)| {
            let (span, action) = (finding.span.clone()?, ruling.action);
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
    use crate::prompt_guard::{Action, Rule};

    fn finding(rule: &'static str, score: f32, span: Option<Range<usize>>) -> Finding {
        Finding::new(rule, Category::PersonalData, score, 0, span)
    }

    fn ruled((rule, finding): (Rule, Finding)) -> (Ruling, Finding) {
        (rule.ruling(&finding, None), finding)
    }

    fn decided(found: Vec<(Rule, Finding)>) -> Decision {
        let found = found.into_iter().map(ruled).collect();
        decide(Gathered { found, ..Gathered::default() }, Subject::Prompt)
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
        let code = |found, subject| decide(gathered(found), subject).verdict.code;
        assert_eq!(code(Vec::new(), Subject::Prompt), Some("guard_unavailable"));
        let block = ruled((Action::Block.into(), finding("x", 1.0, None)));
        assert_eq!(code(vec![block.clone()], Subject::Prompt), Some("content_blocked"));
        assert_eq!(code(vec![block], Subject::Answer), Some("answer_blocked"));
    }

    #[test]
    fn a_verdict_is_bounded() {
        let one = (Action::Report.into(), finding("x", 1.0, None));
        assert_eq!(decided(vec![one; 1000]).verdict.findings.len(), MAX_REPORTED);
    }
}

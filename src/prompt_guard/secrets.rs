//! Credentials in prompts and answers.
//!
//! Tokens that their issuers made recognisable, by mark, length, alphabet and check digits; values that are assigned to a
//! name, and passwords in addresses, by their randomness. One pass over the text finds all marks; only where
//! there is one does anything else run, and it looks at a bounded stretch around it.

use std::ops::Range;

use aho_corasick::dfa::DFA;

use super::{Category, Detector, Finding, ViewKind, Views, search, spans::Spans};
use crate::{BuildError, inference::Segment};

mod check;
mod context;
mod formats;
mod random;
mod shape;

use self::{
    context::{AROUND, assigned},
    formats::{NAMED, Named, TOKENS, Token},
    random::{is_drawn, is_key},
    shape::{MANY, Part},
};

/// Finds credentials: access keys, tokens, private keys, passwords in addresses and assignments. More than 200
/// forms, of more than 150 issuers.
///
/// A finding's rule is `secret.` and the form's name, as in `secret.aws_access_key`; its span covers the
/// credential alone where it is a part of something longer. Scores: 0.95 for a form that its issuer made
/// recognisable, 0.8 to 0.9 where its surroundings and its randomness tell, and 0.6, which no policy acts upon by
/// itself, for a token whose check digits are wrong. What documentation writes in the place of a
/// secret (`AKIAXXXXXXXXXXXXXXXX`, `your-api-key`) is none.
///
/// ```
/// use palisade::{
///     inference::{Origin, Segment},
///     prompt_guard::{Detector, Secrets, Views},
/// };
///
/// # fn main() -> Result<(), palisade::BuildError> {
/// let secrets = Secrets::builtin()?;
/// let text = "psql postgres://app:correct-horse-7@db.internal/orders";
/// let mut findings = Vec::new();
/// secrets.scan(&Segment::new(0, text, Origin::User, 0), &Views::of(text), &mut findings);
/// assert_eq!(findings[0].rule, "secret.url_password");
/// assert_eq!(findings[0].span, Some(20..35));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Secrets {
    marks: DFA,
    /// For each mark, what it may be a part of.
    meanings: Vec<Meaning>,
}

/// What a mark is looked at for, in the order of how much that says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Meaning {
    Token(usize),
    Named(usize),
    Around(usize),
}

/// A credential in a text.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    meaning: Meaning,
    rule: &'static str,
    score: f32,
    range: Range<usize>,
}

impl Secrets {
    /// All forms that this version knows. Takes some milliseconds and half a megabyte, so once per process.
    ///
    /// # Errors
    /// When the forms make no automaton, which a test of this crate rules out.
    pub fn builtin() -> Result<Self, BuildError> {
        let tokens = TOKENS.iter().enumerate().map(|(index, t)| (t.marks, Meaning::Token(index)));
        let named = NAMED.iter().enumerate().map(|(index, n)| (n.names, Meaning::Named(index)));
        let around = AROUND.iter().enumerate().map(|(index, a)| (a.marks, Meaning::Around(index)));
        let (marks, meanings): (Vec<_>, Vec<_>) = tokens
            .chain(named)
            .chain(around)
            .flat_map(|(marks, meaning)| marks.iter().map(move |mark| (*mark, meaning)))
            .unzip();
        let marks = DFA::builder()
            .ascii_case_insensitive(true)
            .build(marks)
            .map_err(|error| BuildError::invalid("secret formats", error.to_string()))?;
        Ok(Self { marks, meanings })
    }

    /// The credentials in a text, those that say more first. No two overlap.
    fn find(&self, text: &str) -> Vec<Found> {
        let mut all: Vec<Found> = Vec::new();
        let mut prefixes = Vec::new();
        let mut dead = Vec::new();
        search::literals(&self.marks, text.as_bytes(), 0..text.len(), |mark, range| {
            let Some(meaning) = self.meanings.get(mark).copied() else { return };
            let found = match meaning {
                Meaning::Token(index) => TOKENS.get(index).and_then(|token| {
                    let mark = range.clone();
                    let known = all
                        .last()
                        .is_some_and(|last| last.meaning == meaning && mark.start < last.range.end);
                    if known || is_dead(&dead, index, mark.start) || !says(text, token, &mark) {
                        return None;
                    }
                    prefixes.push(mark.start);
                    match_token(text, token, &mark, index, &mut dead)
                }),
                Meaning::Named(index) => {
                    NAMED.get(index).and_then(|named| match_named(text, named, range.end))
                }
                Meaning::Around(index) => AROUND.get(index).and_then(|around| {
                    let range = (around.find)(text, &range)?;
                    Some((around.rule, around.score, range))
                }),
            };
            if let Some((rule, score, range)) = found {
                all.push(Found { meaning, rule, score, range });
            }
        });
        if all.len() > 1 {
            // Wrong check digits say least of all.
            all.sort_by_key(|found| (found.score < SURE, found.meaning, found.range.start));
        }
        let mut taken = Spans::default();
        all.retain_mut(|found| {
            // What begins as a token does and is none is most likely a token that broke.
            if !matches!(found.meaning, Meaning::Token(_)) && prefixes.contains(&found.range.start)
            {
                found.score = found.score.min(UNSURE);
            }
            taken.take(&found.range)
        });
        all
    }
}

/// Whether the mark stands there in its own case.
fn says(text: &str, token: &Token, mark: &Range<usize>) -> bool {
    text.get(mark.clone()).is_some_and(|found| token.marks.contains(&found))
}

/// A token around its mark.
fn match_token(
    text: &str,
    token: &Token,
    mark: &Range<usize>,
    index: usize,
    dead: &mut Vec<(usize, usize)>,
) -> Option<(&'static str, f32, Range<usize>)> {
    let bytes = text.as_bytes();
    let start = shape::behind(bytes, mark.start, token.before)?;
    if !shape::begins(bytes, start) {
        return None;
    }
    let end = match shape::ahead(bytes, mark.end, token.after) {
        Ok(end) => end,
        Err(until) => {
            // A start further on in the same run fails in the same way.
            if matches!(token.after.first(), Some(Part::Run(_, _, MANY))) {
                dead.retain(|(other, _)| *other != index);
                dead.push((index, until));
            }
            return None;
        }
    };
    let (before, body) = (bytes.get(start..mark.start)?, bytes.get(mark.end..end)?);
    if !is_drawn(before) || !is_drawn(body) {
        return None;
    }
    let longest = if body.is_empty() { before } else { body };
    let score = match token.check {
        check::Check::Mixed => is_key(longest, 3.0).then_some(SURE)?,
        check if check.holds(bytes.get(start..end)?, body) => SURE,
        _ => UNSURE,
    };
    Some((token.rule, score, start..end))
}

fn is_dead(dead: &[(usize, usize)], index: usize, at: usize) -> bool {
    dead.iter().any(|(other, until)| *other == index && at < *until)
}

/// A value that is assigned to its issuer's name.
fn match_named(text: &str, named: &Named, at: usize) -> Option<(&'static str, f32, Range<usize>)> {
    let bytes = text.as_bytes();
    let start = assigned(bytes, at)?;
    let end = shape::ahead(bytes, start, &[named.value]).ok()?;
    let value = bytes.get(start..end)?;
    is_key(value, 2.8).then_some((named.rule, 0.9, start..end))
}

/// The score of a form that is its issuer's own.
const SURE: f32 = 0.95;
/// That of a token whose check digits are wrong, or that is not as long as it should be.
const UNSURE: f32 = 0.6;

impl Detector for Secrets {
    fn name(&self) -> &'static str {
        "secrets"
    }

    fn scan(&self, segment: &Segment<'_>, views: &Views<'_>, findings: &mut Vec<Finding>) {
        let mut taken = Spans::default();
        let mut add = |found: Found, range: Range<usize>| {
            if taken.take(&range) {
                let Found { rule, score, .. } = found;
                let finding =
                    Finding::new(rule, Category::Secret, score, segment.index, Some(range));
                findings.push(finding);
            }
        };
        for found in self.find(views.original()) {
            let range = found.range.clone();
            add(found, range);
        }
        for view in views.iter() {
            // The canonical view differs from the original only where it is not plain ASCII.
            let look = match view.kind() {
                ViewKind::Canonical => !views.original().is_ascii(),
                ViewKind::Decoded => true,
                ViewKind::Folded => false,
            };
            if !look {
                continue;
            }
            for found in self.find(view.cased()) {
                let range = view.origin_span(found.range.clone());
                add(found, range);
            }
        }
    }
}

#[cfg(test)]
mod tests;

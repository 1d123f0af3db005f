//! One text of a stream, of which the end is held back until what stands in it is known.
//!
//! It is looked at whenever it has grown by a fixed number of bytes, wherever it was cut, so that what
//! is found does not hang on the cuts.

mod arguments;
mod unfinished;

use std::{borrow::Cow, collections::VecDeque, ops::Range};

pub(super) use self::unfinished::is_unspaced;
use self::{arguments::Lexer, unfinished::finished};
use super::{
    Finding, Outcome, Vault,
    mask::Mask,
    policies::Policy,
    policy::{Gathered, answer_blocked, masks, unavailable},
    rule::Ruling,
    scan::{count_finding, scan_each},
};
use crate::{
    inference::{Origin, Segment},
    reject::Rejection,
};

/// How much of each text is held, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// The end that is held back.
    hold: usize,
    /// What is kept of what went on before.
    window: usize,
    /// How much a text grows from one look at it to the next.
    step: usize,
    /// What may follow a match that can't undo it any more.
    settled: usize,
}

impl Sizes {
    pub(crate) fn new(hold: usize, window: usize) -> Self {
        let step = (hold / 2).max(32);
        Self { hold, window: window.max(hold), step, settled: hold.min(32) }
    }

    /// The most that is held of a text, however long what is found in it.
    fn most(self) -> usize {
        2 * self.hold + self.step
    }
}

/// A text that grows.
#[derive(Debug)]
pub(crate) struct Hold {
    origin: Origin,
    /// What is held, and the end of what went on before.
    text: String,
    /// Where `text` begins. All places are counted in bytes, from the start of the stream's text.
    base: usize,
    released: usize,
    /// What was looked at last in steps, and at all.
    stepped: usize,
    looked: usize,
    /// What was masked last ended here.
    masked: usize,
    /// What is being masked began here, and may not have ended.
    growing: Option<usize>,
    changes: VecDeque<Change>,
    lexer: Option<Lexer>,
}

/// What stands in the place of a part of the text.
pub(crate) type Change = (Range<usize>, Cow<'static, str>);

/// Nothing of the text from here on may go on.
#[derive(Debug)]
pub(crate) struct Stop(pub(crate) Rejection);

/// How much of a text may go on if nothing is found in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// All but what is held back.
    Held,
    /// All but what may be the beginning of something.
    Finished,
    /// All.
    End,
}

impl Hold {
    pub(crate) fn new(origin: Origin) -> Self {
        let lexer = (origin == Origin::ToolArguments).then(|| Lexer::new(true));
        Self::with(origin, lexer)
    }

    /// A text in which values take the place of placeholders.
    pub(crate) fn restoring(origin: Origin) -> Self {
        Self::with(origin, Some(Lexer::new(origin == Origin::ToolArguments)))
    }

    fn with(origin: Origin, lexer: Option<Lexer>) -> Self {
        Self {
            origin,
            text: String::new(),
            base: 0,
            released: 0,
            stepped: 0,
            looked: 0,
            masked: 0,
            growing: None,
            changes: VecDeque::new(),
            lexer,
        }
    }

    /// Adds to the text, and says where that stands.
    pub(crate) fn push(&mut self, added: &str) -> Range<usize> {
        let start = self.end();
        self.text.push_str(added);
        start..self.end()
    }

    pub(crate) fn end(&self) -> usize {
        self.base + self.text.len()
    }

    /// Where the text begins that is held.
    pub(crate) fn released(&self) -> usize {
        self.released
    }

    /// The changes to a part of the text, all of which may go on. Asked in rising order.
    pub(crate) fn changes(&mut self, part: &Range<usize>) -> Vec<Change> {
        while self.changes.front().is_some_and(|(span, _)| span.end <= part.start) {
            self.changes.pop_front();
        }
        let touching = self.changes.iter().take_while(|(span, _)| span.start < part.end);
        touching
            .map(|(span, mask)| {
                // The part in which it begins shows the mask.
                let shown = span.start >= part.start;
                let within = span.start.max(part.start)..span.end.min(part.end);
                (within, if shown { mask.clone() } else { Cow::Borrowed("") })
            })
            .collect()
    }

    /// Looks at what has come, step by step.
    pub(crate) fn advance(
        &mut self,
        policy: &Policy,
        own: Option<&Vault>,
    ) -> Result<Outcome, Stop> {
        let mut action = Outcome::Allow;
        while self.stepped + policy.sizes.step <= self.end() {
            self.stepped += policy.sizes.step;
            action = action.max(self.look(policy, own, self.stepped, Until::Held)?);
        }
        Ok(action)
    }

    /// The text is late: what can't be the beginning of something goes on.
    pub(crate) fn flush(&mut self, policy: &Policy, own: Option<&Vault>) -> Result<Outcome, Stop> {
        if self.released == self.end() {
            return Ok(Outcome::Allow);
        }
        self.look(policy, own, self.end(), Until::Finished)
    }

    /// The text has ended, as far as is known.
    pub(crate) fn finish(&mut self, policy: &Policy, own: Option<&Vault>) -> Result<Outcome, Stop> {
        if self.released == self.end() {
            return Ok(Outcome::Allow);
        }
        self.look(policy, own, self.end(), Until::End)
    }

    /// Puts values in the place of placeholders. Nothing is held but what may be the beginning of one, unless that is
    /// `all` that comes.
    pub(crate) fn restore(&mut self, vault: &Vault, all: bool) {
        let (released, end) = (self.released, self.end());
        let held = self.text.get(released - self.base..).unwrap_or_default();
        let values = vault.places(held).into_iter().map(|(span, value)| {
            (released + span.start..released + span.end, Cow::Owned(value.to_owned()))
        });
        let values: Vec<Change> = values.collect();
        let go = if all { end } else { released + vault.open(held) };
        let (go, values) = match &mut self.lexer {
            Some(lexer) => lexer.fit_values(held, released, go, values),
            None => (go, values),
        };
        self.changes.extend(values);
        self.released = if all { end } else { self.released.max(go) };
        self.text.drain(..self.released - self.base);
        self.base = self.released;
    }

    /// Placeholders of the request's `own` are not what the model says.
    fn look(
        &mut self,
        policy: &Policy,
        own: Option<&Vault>,
        end: usize,
        until: Until,
    ) -> Result<Outcome, Stop> {
        let sizes = policy.sizes;
        let from = self.before(self.kept_from(sizes.window));
        let end = self.before(end);
        let text = self.text.get(from - self.base..end - self.base).unwrap_or_default();
        let (looked, released) = (self.looked, self.released);
        let open = own.filter(|_| until != Until::End).map_or(text.len(), |own| own.open(text));
        let mut gathered = Gathered::of(policy);
        scan_each(
            &policy.output,
            &Segment::new(0, text, self.origin, 0),
            &mut gathered,
            |local, mut finding, gathered| {
                finding.segment = 0;
                let is_own = |span: &Range<usize>| {
                    span.start >= open || own.is_some_and(|own| own.covers(text, span))
                };
                if finding.span.as_ref().is_some_and(is_own) {
                    return;
                }
                finding.span = finding
                    .span
                    .filter(|span| {
                        text.get(span.clone()).is_some_and(|covered| !covered.is_empty())
                    })
                    .map(|span| from + span.start..from + span.end);
                // What has gone on was decided on before.
                if finding.span.as_ref().is_some_and(|span| span.end <= released) {
                    return;
                }
                let ruling = local.rule.ruling(&finding, Some(self.origin));
                if finding.span.as_ref().is_none_or(|span| span.end > looked) {
                    count_finding(local.detector.name(), ruling, &finding, gathered);
                }
                gathered.found.push((ruling, finding));
            },
        );
        let (limit, settled) = match until {
            Until::Held => (end.saturating_sub(sizes.hold), end.saturating_sub(sizes.settled)),
            Until::Finished => {
                let finished = from + finished(text, sizes.hold);
                (finished, finished)
            }
            Until::End => (end, end),
        };
        let limit = self.before(limit.max(released));
        self.looked = self.looked.max(end);
        if gathered.must_refuse && policy.enforced {
            return Err(Stop(unavailable()));
        }
        let most = end.saturating_sub(sizes.most());
        let Verdict { action, go, stop, changes, growing } =
            judge(&gathered.found, released, end, limit, settled, most);
        self.growing = growing;
        if !policy.enforced {
            self.release(if stop { end } else { go }, Vec::new(), sizes.window);
            return Ok(action);
        }
        self.release(go, changes, sizes.window);
        if until == Until::End && !stop {
            // Half an escape, or a number: nothing more of it comes.
            self.released = end;
        }
        if stop { Err(Stop(answer_blocked())) } else { Ok(action) }
    }

    /// Lets the text up to `go` go on, with these changes in what is released.
    fn release(&mut self, go: usize, mut changes: Vec<Change>, window: usize) {
        let go = self.before(go);
        for (span, mask) in &mut changes {
            if span.start < self.released {
                // Its beginning went on: under this mask, or before anybody knew.
                span.start = self.released;
                if self.masked == self.released {
                    *mask = Cow::Borrowed("");
                }
            }
        }
        changes.retain(|(span, _)| span.start < span.end);
        let held = self.text.get(self.released - self.base..).unwrap_or_default();
        let go = match &mut self.lexer {
            Some(lexer) => {
                let (go, fitted) = lexer.fit(held, self.released, go, changes);
                changes = fitted;
                go
            }
            None => go,
        };
        if let Some((span, _)) = changes.last() {
            self.masked = span.end;
        }
        self.changes.extend(changes);
        self.released = self.released.max(go);
        let drop = self.before(self.kept_from(window)) - self.base;
        self.text.drain(..drop);
        self.base += drop;
    }

    /// Where that begins of what went on which is still looked at.
    fn kept_from(&self, window: usize) -> usize {
        let from = self.released.saturating_sub(window);
        self.growing
            .filter(|start| self.released - start <= MAX_GROWING)
            .map_or(from, |start| from.min(start))
    }

    /// The last border of a character that is not after `place`, within what is kept.
    fn before(&self, place: usize) -> usize {
        let mut at = place.saturating_sub(self.base).min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        self.base + at
    }
}

/// What follows from what was found.
struct Verdict {
    action: Outcome,
    /// How far the text may go on.
    go: usize,
    /// Whether nothing may go on after that.
    stop: bool,
    changes: Vec<Change>,
    /// Where what is masked up to there begins.
    growing: Option<usize>,
}

/// Decides how much of the text from `released` to `end` goes on: up to `limit`, but for what is masked and ends beyond
/// it, or blocks and is not settled. What begins before `most` has been held long enough.
fn judge(
    found: &[(Ruling, Finding)],
    released: usize,
    end: usize,
    limit: usize,
    settled: usize,
    most: usize,
) -> Verdict {
    let mut action = Outcome::Allow;
    let (mut open, mut stop) = (end, None);
    for (ruling, finding) in found {
        let outcome = ruling.outcome(finding);
        if outcome == Outcome::Block {
            let span = finding.span.clone().unwrap_or(released..released);
            let start = span.start.max(released);
            if span.end <= settled || span.start < most {
                stop = Some(stop.map_or(start, |before: usize| before.min(start)));
            } else {
                open = open.min(start);
                continue;
            }
        }
        action = action.max(outcome);
    }
    if let Some(stop) = stop {
        open = stop;
    }
    let mut go = if stop.is_some() { open } else { limit.min(open) };
    let mut changes: Vec<Change> = Vec::new();
    let mut masked = Vec::new();
    for edit in masks(found).into_iter().rev().map(Mask::plain) {
        let mut span = edit.span;
        masked.push(span.clone());
        if stop.is_some() {
            // What stands before that which blocks goes on.
            span.end = span.end.min(go);
        } else if span.end > go && span.start < most && span.start < open {
            go = span.end.min(open);
            span.end = go;
        } else if span.end > go {
            go = go.min(span.start.max(released));
            continue;
        }
        if span.start < span.end {
            changes.push((span, edit.replacement));
        }
    }
    changes.reverse();
    changes.retain(|(span, _)| span.end <= go);
    let grows = |span: &&Range<usize>| span.start < go && span.end >= go;
    let growing = masked.iter().find(grows).map(|span| span.start);
    Verdict { action, go, stop: stop.is_some(), changes, growing }
}

/// How long a match may get, in bytes, and still be masked to its end.
const MAX_GROWING: usize = 16 * 1024;

//! Wakes rules: one pass over a text finds the literals that rules need, and says where which rule
//! has to look.

use std::ops::Range;

use aho_corasick::nfa::contiguous::NFA;

use super::needs::Set;
use crate::{BuildError, prompt_guard::search};

/// What is looked for.
pub(super) struct Wakes {
    literals: NFA,
    /// For each literal the sets that it belongs to.
    sets_of: Vec<SetsOf>,
    /// For each set what one of it takes further.
    steps_of: Vec<Vec<Step>>,
    /// How many places there are to remember how far a chain has come.
    slots: usize,
    rules: usize,
}

/// Sets of which a match of a rule has a literal each, in this order.
pub(super) struct Chain {
    pub(super) rule: u32,
    pub(super) sets: Vec<(u32, Place)>,
}

/// Where in a match a literal of a set stands: it begins and ends at most so far into it.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) from: usize,
    pub(super) to: usize,
}

/// How far the chains have come in a text.
#[derive(Default)]
pub(super) struct Progress {
    /// Per slot, where the last literal ended that brought it so far, in all that was looked at.
    last: Vec<u64>,
    /// How much was looked at before this text. What ended by then says nothing.
    before: u64,
    /// Per rule, the stretch that it must look at.
    open: Vec<Range<usize>>,
    closed: Vec<(u32, Range<usize>)>,
}

#[derive(Default)]
struct SetsOf {
    anywhere: Vec<u32>,
    /// Only where a word begins.
    at_words: Vec<u32>,
}

/// What a literal of a set does for a chain.
struct Step {
    rule: u32,
    /// The slot of the literals before it, none of which is needed by the first of a chain, and how
    /// far back they may end.
    before: Option<(u32, usize)>,
    then: Then,
}

enum Then {
    /// The chain has come as far as this slot says.
    Wait(u32),
    /// The rule looks at so many bytes before the end of the literal, and after its beginning.
    Look { before: usize, after: usize },
}

impl Wakes {
    /// With the longest match of each rule.
    pub(super) fn new(
        sets: &[Set],
        chains: &[Chain],
        reaches: &[usize],
    ) -> Result<Self, BuildError> {
        let (steps_of, slots) = steps(chains, sets.len(), reaches);
        let mut literals: Vec<&[u8]> =
            sets.iter().flatten().map(|literal| literal.bytes.as_slice()).collect();
        literals.sort_unstable();
        literals.dedup();
        let mut sets_of: Vec<SetsOf> = literals.iter().map(|_| SetsOf::default()).collect();
        for (index, set) in (0..).zip(sets) {
            for literal in set {
                let at = literals.binary_search(&literal.bytes.as_slice()).ok();
                if let Some(sets) = at.and_then(|at| sets_of.get_mut(at)) {
                    if literal.starts_word {
                        sets.at_words.push(index);
                    } else {
                        sets.anywhere.push(index);
                    }
                }
            }
        }
        let literals = NFA::new(literals)
            .map_err(|error| BuildError::invalid("injection rule", error.to_string()))?;
        Ok(Self { literals, sets_of, steps_of, slots, rules: reaches.len() })
    }

    /// Where each rule must look: around places at which literals of all its sets stand together.
    pub(super) fn find(&self, text: &str, part: Range<usize>, progress: &mut Progress) {
        let bytes = text.as_bytes();
        search::literals(&self.literals, bytes, part, |literal, found| {
            let Some(sets) = self.sets_of.get(literal) else { return };
            let before = found.start.checked_sub(1).and_then(|before| bytes.get(before));
            let at_words: &[u32] =
                if before.is_some_and(u8::is_ascii_alphanumeric) { &[] } else { &sets.at_words };
            for set in sets.anywhere.iter().chain(at_words) {
                let set = *set as usize;
                for step in self.steps_of.get(set).into_iter().flatten() {
                    progress.take_step(step, &found);
                }
                progress.bring(set, found.end);
            }
        });
    }

    pub(super) fn prepare(&self, progress: &mut Progress) {
        progress.last.resize(self.slots, 0);
        progress.open.resize(self.rules, 0..0);
    }
}

impl Progress {
    fn take_step(&mut self, step: &Step, found: &Range<usize>) {
        let Range { start, end } = *found;
        if let Some((slot, gap)) = step.before {
            let last = self.last.get(slot as usize).and_then(|last| last.checked_sub(self.before));
            match last {
                Some(last) if last > 0 && end as u64 <= last.saturating_add(gap as u64) => {}
                _ => return,
            }
        }
        match step.then {
            Then::Wait(slot) => self.bring(slot as usize, end),
            Then::Look { before, after } => {
                let Some(open) = self.open.get_mut(step.rule as usize) else { return };
                let (start, end) = (end.saturating_sub(before), start.saturating_add(after));
                if open.end > 0 && start <= open.end {
                    open.start = open.start.min(start);
                    open.end = open.end.max(end);
                    return;
                }
                let before = std::mem::replace(open, start..end);
                if before.end > 0 {
                    self.closed.push((step.rule, before));
                }
            }
        }
    }

    fn bring(&mut self, slot: usize, end: usize) {
        if let Some(last) = self.last.get_mut(slot) {
            *last = self.before + end as u64;
        }
    }

    /// Where the rules that hear the text must look, in the order of rules and places.
    pub(super) fn end(
        &mut self,
        length: usize,
        hears: impl Fn(u32) -> bool,
    ) -> Vec<(u32, Range<usize>)> {
        for (index, open) in (0..).zip(self.open.iter_mut()) {
            let before = std::mem::take(open);
            if before.end > 0 {
                self.closed.push((index, before));
            }
        }
        self.before += length as u64;
        self.closed.retain_mut(|(rule, stretch)| {
            stretch.end = stretch.end.min(length);
            stretch.start = stretch.start.min(stretch.end);
            hears(*rule)
        });
        join(&mut self.closed);
        std::mem::take(&mut self.closed)
    }

    /// Takes back the room that the stretches took.
    pub(super) fn reuse(&mut self, mut stretches: Vec<(u32, Range<usize>)>) {
        stretches.clear();
        self.closed = stretches;
    }
}

/// What the literals of each set do for the chains, and how many slots that takes: one for each
/// set, and one for what chains wait for.
fn steps(chains: &[Chain], sets: usize, reaches: &[usize]) -> (Vec<Vec<Step>>, usize) {
    let mut steps: Vec<Vec<Step>> = (0..sets).map(|_| Vec::new()).collect();
    let mut slots = sets;
    for Chain { rule, sets } in chains {
        let reach = reaches.get(*rule as usize).copied().unwrap_or(0);
        let mut before: Option<(u32, Place)> = None;
        for (at, (set, place)) in sets.iter().enumerate() {
            let slot = u32::try_from(slots).unwrap_or(u32::MAX);
            let then = if at + 1 == sets.len() {
                let (to, rest) = (place.to, reach.saturating_sub(place.from));
                Then::Look { before: to.saturating_add(SLACK), after: rest.saturating_add(SLACK) }
            } else if at == 0 {
                before = Some((*set, *place));
                continue;
            } else {
                slots += 1;
                Then::Wait(slot)
            };
            let gap = |from: usize| place.to.saturating_sub(from).saturating_add(SLACK);
            let step = Step {
                rule: *rule,
                before: before.map(|(slot, last)| (slot, gap(last.from))),
                then,
            };
            // Later ones first, so that a literal is not taken for two.
            if let Some(steps) = steps.get_mut(*set as usize) {
                steps.insert(0, step);
            }
            before = Some((slot, *place));
        }
    }
    (steps, slots)
}

/// Brings each rule's stretches into order, and makes one of those that overlap.
fn join(stretches: &mut Vec<(u32, Range<usize>)>) {
    stretches.sort_unstable_by_key(|(rule, stretch)| (*rule, stretch.start));
    stretches.dedup_by(|(rule, this), (last_rule, last)| {
        let one = rule == last_rule && this.start <= last.end;
        if one {
            last.end = last.end.max(this.end);
        }
        one
    });
}

/// How much farther apart than most a rule's words may stand, in bytes: words may be long.
const SLACK: usize = 32;

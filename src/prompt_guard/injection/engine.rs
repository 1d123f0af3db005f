//! Runs many patterns over a text at the cost of few: one pass finds the literals that patterns
//! need, and a pattern only runs where all that it needs stands close together.

use std::{borrow::Cow, fmt, ops::Range, sync::OnceLock};

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};
use regex_automata::{
    Anchored, Input,
    hybrid::dfa::{Cache, DFA},
    nfa::thompson::{self, WhichCaptures},
};
use regex_syntax::{ParserBuilder, hir::Hir};

use super::{needs, shorthand::expand};
use crate::{BoxError, BuildError, inference::Origin, prompt_guard::Category, sync::Mutex};

/// A pattern and what it says, as it stands in a rule pack.
///
/// Patterns are written for folded text (see `Views`), in bytes and without look-around; `shorthand`
/// says what stands for what. A pattern must hold literals of two bytes or more: where these are
/// not, it never runs.
#[derive(Clone, Debug)]
pub(super) struct Rule<'a> {
    /// From a closed set; several rules may share one.
    pub(super) id: Cow<'static, str>,
    pub(super) category: Category,
    /// Whose texts it applies to. None: everybody's.
    pub(super) origins: &'a [Origin],
    /// How sure a match is, in hundredths.
    pub(super) weight: u8,
    pub(super) pattern: &'a str,
}

/// Rules from several tables, before they become an engine.
#[derive(Default)]
pub(super) struct Rules {
    compiled: Vec<Compiled>,
    sets: Vec<Vec<Vec<u8>>>,
}

/// Compiled rules.
pub(super) struct Engine {
    literals: AhoCorasick,
    /// For each literal the sets that it belongs to.
    sets_of: Vec<Vec<u32>>,
    /// For each set the rules that need one of it.
    rules_of: Vec<Vec<u32>>,
    rules: Vec<Compiled>,
    spare: Mutex<Vec<Scratch>>,
    /// How many scans at a time keep what they learned.
    most_spare: usize,
    /// The longest match of any rule.
    reach: usize,
}

struct Compiled {
    id: Cow<'static, str>,
    category: Category,
    weight: f32,
    origins: Vec<Origin>,
    /// Of each of these sets a literal must be there.
    sets: Vec<u32>,
    /// No match is longer, in bytes; what may go on without end is taken as a word or two.
    reach: usize,
    pattern: String,
    /// Compiled when it first has something to look at: most rules never have.
    automaton: OnceLock<Option<DFA>>,
}

/// One rule's match in one text.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    /// Its place among the rules.
    pub(super) rule: usize,
    pub(super) weight: f32,
    pub(super) range: Range<usize>,
}

/// What a scan works with, and the next one goes on with.
#[derive(Default)]
struct Scratch {
    /// Per rule, the part of its automaton that texts have led to so far.
    caches: Vec<Option<Cache>>,
    /// Per rule, how often it ran lately.
    runs: Vec<u32>,
    /// Per set, where the last literal of it began, and one more.
    last: Vec<usize>,
    /// Per rule, the stretch that it must look at.
    open: Vec<Range<usize>>,
    closed: Vec<(u32, Range<usize>)>,
}

impl Rules {
    /// Adds a table of rules that are written with these fragments.
    pub(super) fn add(
        &mut self,
        table: &[Rule<'_>],
        fragments: &[(&str, &str)],
    ) -> Result<(), BuildError> {
        for rule in table {
            self.compiled.push(compile(rule, fragments, &mut self.sets)?);
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.compiled.len()
    }
}

impl Engine {
    pub(super) fn new(rules: Rules) -> Result<Self, BuildError> {
        let Rules { compiled, sets } = rules;
        let mut rules_of = vec![Vec::new(); sets.len()];
        for (index, rule) in (0..).zip(&compiled) {
            for set in &rule.sets {
                if let Some(rules) = rules_of.get_mut(*set as usize) {
                    rules.push(index);
                }
            }
        }
        let mut literals: Vec<&[u8]> = sets.iter().flatten().map(Vec::as_slice).collect();
        literals.sort_unstable();
        literals.dedup();
        let mut sets_of = vec![Vec::new(); literals.len()];
        for (index, set) in (0..).zip(&sets) {
            for literal in set {
                let at = literals.binary_search(&literal.as_slice()).ok();
                if let Some(sets) = at.and_then(|at| sets_of.get_mut(at)) {
                    sets.push(index);
                }
            }
        }
        let literals = AhoCorasickBuilder::new()
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(literals)
            .map_err(|error| BuildError::invalid("injection rule", error.to_string()))?;
        let most_spare = std::thread::available_parallelism().map_or(1, usize::from);
        let spare = Mutex::new(Vec::new());
        let reach = compiled.iter().map(|rule| rule.reach).max().unwrap_or(0);
        Ok(Self { literals, sets_of, rules_of, rules: compiled, spare, most_spare, reach })
    }

    /// Every rule's first matches in a folded text, `most` of each. With `parts`, only those in or
    /// near one of these, which are in order.
    pub(super) fn hits(
        &self,
        text: &str,
        parts: Option<&[Range<usize>]>,
        origin: Origin,
        most: usize,
    ) -> Vec<Hit> {
        let mut scratch = self.take();
        match parts {
            None => self.find_stretches(text, 0..text.len(), &mut scratch),
            Some(parts) => {
                for part in self.surroundings(parts, text.len()) {
                    self.find_stretches(text, part, &mut scratch);
                }
            }
        }
        self.close(text, origin, &mut scratch);
        let mut hits = Vec::new();
        let mut closed = std::mem::take(&mut scratch.closed);
        // A rule's stretches are in order.
        closed.sort_by_key(|(rule, _)| *rule);
        let mut seen = (u32::MAX, 0);
        for (rule, stretch) in closed.drain(..) {
            if seen.0 != rule {
                seen = (rule, 0);
            }
            let index = rule as usize;
            let Some(compiled) = self.rules.get(index) else { continue };
            let Some(automaton) = compiled.automaton() else { continue };
            let Some(cache) = scratch.caches.get_mut(index) else { continue };
            let cache = cache.get_or_insert_with(|| automaton.create_cache());
            if let Some(runs) = scratch.runs.get_mut(index) {
                *runs = runs.saturating_add(1);
            }
            let mut from = stretch.start;
            while seen.1 < most {
                let Some(range) = find(automaton, cache, text, from..stretch.end) else { break };
                from = range.end.max(from + 1);
                seen.1 += 1;
                hits.push(Hit { rule: index, weight: compiled.weight, range });
            }
        }
        scratch.closed = closed;
        self.give_back(scratch);
        hits
    }

    /// The parts with what a match that touches them may cover.
    fn surroundings(&self, parts: &[Range<usize>], length: usize) -> Vec<Range<usize>> {
        let mut wide: Vec<Range<usize>> = Vec::new();
        for part in parts {
            let start = part.start.saturating_sub(self.reach);
            let end = part.end.saturating_add(self.reach).min(length);
            match wide.last_mut() {
                Some(last) if start <= last.end => last.end = end,
                _ => wide.push(start.min(end)..end),
            }
        }
        wide
    }

    /// Where each rule must look: around places at which literals of all its sets stand together.
    fn find_stretches(&self, text: &str, part: Range<usize>, scratch: &mut Scratch) {
        let Scratch { last, open, closed, .. } = scratch;
        for found in self.literals.find_overlapping_iter(aho_corasick::Input::new(text).range(part))
        {
            let Some(sets) = self.sets_of.get(found.pattern().as_usize()) else { continue };
            for set in sets {
                let set = *set as usize;
                if let Some(last) = last.get_mut(set) {
                    *last = found.start() + 1;
                }
                for index in self.rules_of.get(set).into_iter().flatten() {
                    let Some(rule) = self.rules.get(*index as usize) else { continue };
                    let Some(Range { start, end }) = rule.stretch(last, found.end()) else {
                        continue;
                    };
                    let Some(open) = open.get_mut(*index as usize) else { continue };
                    if start <= open.end {
                        open.end = open.end.max(end);
                        continue;
                    }
                    let before = std::mem::replace(open, start..end);
                    if before.end > 0 {
                        closed.push((*index, before));
                    }
                }
            }
        }
    }

    /// Ends all stretches, and leaves out those that a rule doesn't apply to.
    fn close(&self, text: &str, origin: Origin, scratch: &mut Scratch) {
        let Scratch { last, open, closed, .. } = scratch;
        for (index, open) in (0..).zip(open.iter_mut()) {
            let before = std::mem::take(open);
            if before.end > 0 {
                closed.push((index, before));
            }
        }
        last.fill(0);
        closed.retain_mut(|(index, stretch)| {
            stretch.end = stretch.end.min(text.len());
            stretch.start = stretch.start.min(stretch.end);
            self.rules.get(*index as usize).is_some_and(|rule| rule.hears(origin))
        });
    }

    fn take(&self) -> Scratch {
        let spare = self.spare.lock().ok().and_then(|mut spare| spare.pop());
        let mut scratch = spare.unwrap_or_default();
        scratch.caches.resize_with(self.rules.len(), || None);
        scratch.runs.resize(self.rules.len(), 0);
        scratch.last.resize(self.rules_of.len(), 0);
        scratch.open.resize(self.rules.len(), 0..0);
        scratch
    }

    fn give_back(&self, mut scratch: Scratch) {
        scratch.forget();
        if let Ok(mut spare) = self.spare.lock()
            && spare.len() < self.most_spare
        {
            spare.push(scratch);
        }
    }

    /// The rules whose pattern turns out too large when it is compiled.
    #[cfg(test)]
    pub(super) fn too_large(&self) -> Vec<&str> {
        let failed = self.rules.iter().filter(|rule| rule.automaton().is_none());
        failed.map(|rule| &*rule.id).collect()
    }

    pub(super) const fn len(&self) -> usize {
        self.rules.len()
    }

    pub(super) fn id(&self, rule: usize) -> Option<(Cow<'static, str>, Category)> {
        self.rules.get(rule).map(|rule| (rule.id.clone(), rule.category))
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("rules", &self.rules.len()).finish_non_exhaustive()
    }
}

impl Scratch {
    /// Drops what was learned for the rules that ran least, when it is too much.
    fn forget(&mut self) {
        let size = |cache: &Option<Cache>| cache.as_ref().map_or(0, Cache::memory_usage);
        let mut learned: usize = self.caches.iter().map(size).sum();
        if learned <= MOST_LEARNED {
            return;
        }
        let mut order: Vec<usize> = (0..self.caches.len()).collect();
        order.sort_unstable_by_key(|rule| self.runs.get(*rule));
        for rule in order {
            if learned <= MOST_LEARNED / 4 * 3 {
                break;
            }
            if let Some(cache) = self.caches.get_mut(rule) {
                learned -= size(cache);
                *cache = None;
            }
        }
        self.runs.iter_mut().for_each(|runs| *runs /= 2);
    }
}

impl Compiled {
    fn hears(&self, origin: Origin) -> bool {
        self.origins.is_empty() || self.origins.contains(&origin)
    }

    /// What a match may cover that ends in or after the literal that ends at `end`, if a literal of
    /// each set is near enough.
    fn stretch(&self, last: &[usize], end: usize) -> Option<Range<usize>> {
        let mut first = end;
        for set in &self.sets {
            first = first.min(last.get(*set as usize)?.checked_sub(1)?);
        }
        (end - first <= self.reach)
            .then(|| end.saturating_sub(self.reach)..first.saturating_add(self.reach))
    }

    fn automaton(&self) -> Option<&DFA> {
        self.automaton.get_or_init(|| automaton(&parse(&self.pattern).ok()?).ok()).as_ref()
    }
}

/// The first match in a stretch. A search that can't go on finds nothing.
fn find(
    automaton: &DFA,
    cache: &mut Cache,
    text: &str,
    stretch: Range<usize>,
) -> Option<Range<usize>> {
    let input = Input::new(text).range(stretch.clone());
    let end = automaton.try_search_fwd(cache, &input).ok()??.offset();
    // It begins where the first anchored search succeeds; most end after a byte or two.
    let earliest = stretch.start.max(end.saturating_sub(LONGEST));
    let start = (earliest..end).find(|start| {
        let input = Input::new(text).range(*start..end).anchored(Anchored::Yes);
        matches!(automaton.try_search_fwd(cache, &input), Ok(Some(_)))
    });
    Some(start.unwrap_or(earliest)..end)
}

fn compile(
    rule: &Rule<'_>,
    fragments: &[(&str, &str)],
    sets: &mut Vec<Vec<Vec<u8>>>,
) -> Result<Compiled, BuildError> {
    let invalid = |reason: &dyn fmt::Display| {
        BuildError::invalid("injection rule", format!("{}: {reason}", rule.id))
    };
    let pattern = expand(rule.pattern, fragments);
    let hir = parse(&pattern).map_err(|error| invalid(&error))?;
    let needed = needs::of(&hir);
    if needed.is_empty() {
        return Err(invalid(&"no literal of two bytes or more"));
    }
    let sets = needed
        .into_iter()
        .map(|needed| {
            let known = sets.iter().position(|set| *set == needed);
            let index = known.unwrap_or_else(|| {
                sets.push(needed);
                sets.len() - 1
            });
            u32::try_from(index).unwrap_or(u32::MAX)
        })
        .collect();
    Ok(Compiled {
        id: rule.id.clone(),
        category: rule.category,
        weight: f32::from(rule.weight) / 100.0,
        origins: rule.origins.to_vec(),
        sets,
        reach: needs::reach(&hir),
        pattern,
        automaton: OnceLock::new(),
    })
}

fn parse(pattern: &str) -> Result<Hir, BoxError> {
    Ok(ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern)?)
}

fn automaton(hir: &Hir) -> Result<DFA, BoxError> {
    let nfa = thompson::Config::new()
        .utf8(false)
        .which_captures(WhichCaptures::None)
        .nfa_size_limit(Some(MOST_STATES));
    let nfa = thompson::Compiler::new().configure(nfa).build_from_hir(hir)?;
    let dfa = DFA::config().cache_capacity(MOST_OF_ONE).skip_cache_capacity_check(true);
    Ok(DFA::builder().configure(dfa).build_from_nfa(nfa)?)
}

/// What each pattern may keep of its automaton, in bytes. Few patterns run on most texts: with the
/// 2 MiB that are usual, diverse texts grow the process by half as much again.
pub(in crate::prompt_guard) const DFA_CACHE: usize = 128 * 1024;
/// What one scan may leave to the next, in bytes.
const MOST_LEARNED: usize = 4 * 1024 * 1024;
/// What each pattern may keep of it, in bytes.
const MOST_OF_ONE: usize = 64 * 1024;
/// The largest pattern, in bytes of its automaton.
const MOST_STATES: usize = 1024 * 1024;
/// How far back the beginning of a match is searched for.
const LONGEST: usize = 4096;

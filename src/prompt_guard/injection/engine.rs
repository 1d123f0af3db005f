//! Runs many patterns over a text at the cost of few: one pass finds the literals that patterns
//! need, and a pattern only runs where all that it needs stands close together.

use std::{borrow::Cow, fmt, ops::Range, sync::OnceLock};

use regex_automata::{
    Anchored, Input,
    hybrid::dfa::{Cache, DFA},
    nfa::thompson::{self, WhichCaptures},
};
use regex_syntax::{ParserBuilder, hir::Hir};

use super::{
    needs::{self, Need, Set},
    shorthand::expand,
    wakes::{Chain, Place, Progress, Wakes},
};
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
    sets: Vec<Set>,
    chains: Vec<Chain>,
}

/// Compiled rules.
pub(super) struct Engine {
    wakes: Wakes,
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
    progress: Progress,
}

impl Rules {
    /// Adds a table of rules that are written with these fragments.
    pub(super) fn add(
        &mut self,
        table: &[Rule<'_>],
        fragments: &[(&str, &str)],
    ) -> Result<(), BuildError> {
        for rule in table {
            let compiled = compile(rule, fragments, self)?;
            self.compiled.push(compiled);
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.compiled.len()
    }
}

impl Engine {
    pub(super) fn new(rules: Rules) -> Result<Self, BuildError> {
        let Rules { compiled, sets, chains } = rules;
        let reaches: Vec<usize> = compiled.iter().map(|rule| rule.reach).collect();
        let wakes = Wakes::new(&sets, &chains, &reaches)?;
        let most_spare = std::thread::available_parallelism().map_or(1, usize::from);
        let spare = Mutex::new(Vec::new());
        let reach = compiled.iter().map(|rule| rule.reach).max().unwrap_or(0);
        Ok(Self { wakes, rules: compiled, spare, most_spare, reach })
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
            None => self.wakes.find(text, 0..text.len(), &mut scratch.progress),
            Some(parts) => {
                for part in self.surroundings(parts, text.len()) {
                    self.wakes.find(text, part, &mut scratch.progress);
                }
            }
        }
        let hears =
            |rule: u32| self.rules.get(rule as usize).is_some_and(|rule| rule.hears(origin));
        let mut stretches = scratch.progress.end(text.len(), hears);
        let mut hits = Vec::new();
        let mut seen = (u32::MAX, 0);
        for (rule, stretch) in stretches.drain(..) {
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
        scratch.progress.reuse(stretches);
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

    fn take(&self) -> Scratch {
        let spare = self.spare.lock().ok().and_then(|mut spare| spare.pop());
        let mut scratch = spare.unwrap_or_default();
        scratch.caches.resize_with(self.rules.len(), || None);
        scratch.runs.resize(self.rules.len(), 0);
        self.wakes.prepare(&mut scratch.progress);
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
    rules: &mut Rules,
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
    let number = |index: usize| u32::try_from(index).unwrap_or(u32::MAX);
    for chain in needed {
        let sets = chain.into_iter().map(|Need { set, from, to }| {
            let known = rules.sets.iter().position(|known| *known == set);
            let index = known.unwrap_or_else(|| {
                rules.sets.push(set);
                rules.sets.len() - 1
            });
            (number(index), Place { from, to })
        });
        let sets = sets.collect();
        rules.chains.push(Chain { rule: number(rules.compiled.len()), sets });
    }
    Ok(Compiled {
        id: rule.id.clone(),
        category: rule.category,
        weight: f32::from(rule.weight) / 100.0,
        origins: rule.origins.to_vec(),
        reach: needs::reach(&hir),
        pattern,
        automaton: OnceLock::new(),
    })
}

fn parse(pattern: &str) -> Result<Hir, BoxError> {
    Ok(ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern)?)
}

/// The bytes that a pattern, written out, takes when it is compiled, if it can be: what a pack is held to. The errors repeat nothing of it.
#[cfg(feature = "rule-packs")]
pub(super) fn compiled_size(pattern: &str) -> Result<usize, &'static str> {
    let mut parser = ParserBuilder::new();
    let hir = parser.unicode(false).utf8(false).nest_limit(DEEPEST).build().parse(pattern);
    let hir = hir.map_err(|error| match error {
        regex_syntax::Error::Parse(error) => match error.kind() {
            regex_syntax::ast::ErrorKind::NestLimitExceeded(_) => {
                "its pattern is nested more than 50 deep"
            }
            regex_syntax::ast::ErrorKind::UnsupportedLookAround
            | regex_syntax::ast::ErrorKind::UnsupportedBackreference => {
                "its pattern has a look-around or a back-reference, which no linear-time regex has"
            }
            _ => "its pattern is no regex",
        },
        _ => "its pattern is no regex over bytes",
    })?;
    if hir.properties().minimum_len() == Some(0) {
        return Err("its pattern matches the empty text");
    }
    if needs::reach(&hir) > LONGEST {
        return Err("its pattern may match more than 4096 bytes");
    }
    if needs::of(&hir).is_empty() {
        return Err("its pattern holds no literal of two bytes or more");
    }
    let nfa = nfa(&hir).map_err(|_| "its pattern takes more than 1 MiB when it is compiled")?;
    Ok(nfa.memory_usage())
}

fn automaton(hir: &Hir) -> Result<DFA, BoxError> {
    let dfa = DFA::config().cache_capacity(MOST_OF_ONE).skip_cache_capacity_check(true);
    Ok(DFA::builder().configure(dfa).build_from_nfa(nfa(hir)?)?)
}

fn nfa(hir: &Hir) -> Result<thompson::NFA, BoxError> {
    let nfa = thompson::Config::new()
        .utf8(false)
        .which_captures(WhichCaptures::None)
        .nfa_size_limit(Some(MOST_STATES));
    Ok(thompson::Compiler::new().configure(nfa).build_from_hir(hir)?)
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
/// How deep the groups of a pattern of a pack may nest.
#[cfg(feature = "rule-packs")]
const DEEPEST: u32 = 50;
/// How far back the beginning of a match is searched for.
const LONGEST: usize = 4096;

#[cfg(test)]
mod tests;

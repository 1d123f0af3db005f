//! Runs many patterns over a text at the cost of few: one pass finds the literals that patterns
//! need, and only patterns that have all they need run.

use std::{borrow::Cow, ops::Range};

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};
use regex::bytes::{Regex, RegexBuilder};

use crate::BuildError;

/// A pattern and what it says.
///
/// Patterns are written for folded text (see `Views`), in bytes and without look-around. A space
/// stands for any separators, `~3` for up to three words with what follows them, `<40>` for up to
/// forty bytes, `{NAME}` for a fragment, `\b` for a border of an ASCII word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// From a closed set; several rules may share one.
    pub(super) id: &'static str,
    /// How sure a match is, in hundredths.
    pub(super) weight: u8,
    /// Of each group one literal must be in the text.
    pub(super) needs: &'static [&'static [&'static str]],
    pub(super) pattern: &'static str,
}

/// Compiled rules.
#[derive(Debug)]
pub(super) struct Engine {
    literals: AhoCorasick,
    literal_count: usize,
    rules: Vec<Compiled>,
    words: usize,
}

#[derive(Debug)]
struct Compiled {
    id: &'static str,
    weight: f32,
    /// One set of literals per group.
    needs: Vec<Vec<u64>>,
    pattern: Regex,
}

/// One rule's match in one text.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    pub(super) id: &'static str,
    pub(super) weight: f32,
    pub(super) range: Range<usize>,
}

impl Engine {
    pub(super) fn new(tables: &[&[Rule]], fragments: &[(&str, &str)]) -> Result<Self, BuildError> {
        let invalid = |reason: String| BuildError::invalid("injection rule", reason);
        let mut literals: Vec<&str> = tables
            .iter()
            .copied()
            .flatten()
            .flat_map(|rule| rule.needs.iter().copied().flatten())
            .copied()
            .collect();
        literals.sort_unstable();
        literals.dedup();
        let words = literals.len().div_ceil(64);
        let set = |group: &[&str]| {
            let mut set = vec![0_u64; words];
            for index in group.iter().filter_map(|literal| literals.binary_search(literal).ok()) {
                if let Some(word) = set.get_mut(index / 64) {
                    *word |= 1 << (index % 64);
                }
            }
            set
        };
        let rules = tables
            .iter()
            .copied()
            .flatten()
            .map(|rule| {
                let pattern = RegexBuilder::new(&expand(rule.pattern, fragments))
                    .unicode(false)
                    .dfa_size_limit(DFA_CACHE)
                    .build()
                    .map_err(|error| invalid(format!("{}: {error}", rule.id)))?;
                let needs = rule.needs.iter().map(|group| set(group)).collect();
                Ok(Compiled { id: rule.id, weight: f32::from(rule.weight) / 100.0, needs, pattern })
            })
            .collect::<Result<_, BuildError>>()?;
        let literal_count = literals.len().max(1);
        let literals = AhoCorasickBuilder::new()
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::DFA))
            // A line break is as good as a space.
            .build(
                literals
                    .iter()
                    .map(|literal| (*literal).to_owned())
                    .chain(literals.iter().map(|literal| literal.replace(' ', "\n"))),
            )
            .map_err(|error| invalid(error.to_string()))?;
        Ok(Self { literals, literal_count, rules, words })
    }

    /// Every rule's first matches in a folded text, `most` of each.
    pub(super) fn hits<'a>(&'a self, text: &'a str, most: usize) -> impl Iterator<Item = Hit> + 'a {
        let mut present = vec![0_u64; self.words];
        for found in self.literals.find_overlapping_iter(text) {
            let index = found.pattern().as_usize() % self.literal_count;
            if let Some(word) = present.get_mut(index / 64) {
                *word |= 1 << (index % 64);
            }
        }
        self.rules
            .iter()
            .filter(move |rule| {
                rule.needs.iter().all(|group| {
                    group.iter().zip(&present).any(|(needed, here)| needed & here != 0)
                })
            })
            .flat_map(move |rule| {
                rule.pattern.find_iter(text.as_bytes()).take(most).map(move |found| Hit {
                    id: rule.id,
                    weight: rule.weight,
                    range: found.range(),
                })
            })
    }

    pub(super) const fn len(&self) -> usize {
        self.rules.len()
    }
}

/// What each pattern may keep of its automaton per thread, in bytes. Few patterns run on most texts: with the
/// 2 MiB that are usual, diverse texts grow the process by half as much again.
pub(in crate::prompt_guard) const DFA_CACHE: usize = 128 * 1024;

/// What stands between words. CJK punctuation is in it as bytes, which no letter is made of alone.
const SEPARATOR: &str = r#"(?:[ \n,.:;"'`*_!+()<>\[\]{}|/\\#=-]+)"#;
const WORD: &str = r#"[^ \n,.:;"`*_!?+()<>\[\]{}|/\\#=-]+"#;

/// Writes a rule's short form out as a regex.
fn expand(pattern: &str, fragments: &[(&str, &str)]) -> String {
    let mut pattern = Cow::Borrowed(pattern);
    for (name, fragment) in fragments {
        if pattern.contains(name) {
            pattern = Cow::Owned(pattern.replace(name, fragment));
        }
    }
    let mut out = String::with_capacity(pattern.len() * 2);
    let mut rest = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(character) = rest.next() {
        match character {
            '\\' => {
                out.push(character);
                out.extend(rest.next());
            }
            '[' => {
                in_class = true;
                out.push(character);
            }
            ']' => {
                in_class = false;
                out.push(character);
            }
            ' ' if !in_class => out.push_str(SEPARATOR),
            '~' if !in_class => {
                let count = rest.next().unwrap_or('1');
                out.push_str(&format!("(?:{WORD}{SEPARATOR}){{0,{count}}}"));
            }
            '<' if !in_class && rest.peek().is_some_and(char::is_ascii_digit) => {
                let count: String =
                    std::iter::from_fn(|| rest.next_if(|next| *next != '>')).collect();
                rest.next();
                out.push_str(&format!(r"[\x00-\xff]{{0,{count}}}"));
            }
            other => out.push(other),
        }
    }
    out
}

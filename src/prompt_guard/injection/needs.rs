//! What a pattern can't match without.

use regex_syntax::hir::{Class, Hir, HirKind, Look, literal::Extractor};

/// Some bytes that a match may hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Literal {
    pub(super) bytes: Vec<u8>,
    /// Whether no letter or digit of ASCII stands before them.
    pub(super) starts_word: bool,
}

/// A set of literals, one of which stands in every match.
pub(super) type Set = Vec<Literal>;

/// A set, and where in a match one of it stands: at most so many bytes from its beginning.
#[derive(Clone, Debug)]
pub(super) struct Need {
    pub(super) set: Set,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// How many sets of a pattern are asked for.
const MOST_SETS: usize = 4;
/// A set that turns up more often only costs time, if there is another.
const FREQUENT: f64 = 0.03;
/// The shortest literal that says anything, and how much of a longer one is looked for.
const SHORTEST: usize = 2;
const LONGEST: usize = 8;
/// How many literals a set may have.
const MOST_LITERALS: usize = 160;
/// How many ways to match a pattern are told apart.
const MOST_BRANCHES: usize = 16;

/// For each way to match, the rarest sets of literals of which a match has one each, in the order
/// in which they stand there. Empty: some way has none.
pub(super) fn of(hir: &Hir) -> Vec<Vec<Need>> {
    let mut branches = Vec::new();
    split(hir, false, &mut branches);
    let told_apart: Vec<Vec<Need>> =
        branches.into_iter().map(|(branch, starts)| chain(branch, starts)).collect();
    if told_apart.len() > MOST_BRANCHES || told_apart.iter().any(Vec::is_empty) {
        let chain = chain(hir, false);
        return if chain.is_empty() { Vec::new() } else { tidied(vec![chain]) };
    }
    let mut chains = Vec::new();
    let mut alone: Option<Need> = None;
    for mut chain in told_apart {
        match (chain.len(), &mut alone) {
            (1, Some(known)) => {
                let Some(need) = chain.pop() else { continue };
                // The least that both may begin at says how much may follow.
                known.from = known.from.min(need.from);
                known.to = known.to.max(need.to);
                known.set.extend(need.set);
            }
            (1, none) => *none = chain.pop(),
            _ => chains.push(chain),
        }
    }
    chains.extend(alone.map(|need| vec![need]));
    tidied(chains)
}

fn tidied(mut chains: Vec<Vec<Need>>) -> Vec<Vec<Need>> {
    for need in chains.iter_mut().flatten() {
        tidy(&mut need.set);
    }
    chains
}

/// The ways to match, and whether each stands at the beginning of a word.
fn split<'a>(hir: &'a Hir, starts: bool, branches: &mut Vec<(&'a Hir, bool)>) {
    match hir.kind() {
        HirKind::Capture(capture) => split(&capture.sub, starts, branches),
        HirKind::Alternation(ways) => ways.iter().for_each(|way| split(way, starts, branches)),
        HirKind::Concat(parts) => {
            let is_look = |part: &Hir| matches!(part.kind(), HirKind::Look(_));
            let mut others = parts.iter().enumerate().filter(|(_, part)| !is_look(part));
            match (others.next(), others.next()) {
                (Some((at, part)), None) => {
                    let starts = parts.iter().take(at).fold(starts, |starts, p| after(p, starts));
                    split(part, starts, branches);
                }
                _ => branches.push((hir, starts)),
            }
        }
        _ => branches.push((hir, starts)),
    }
}

fn chain(hir: &Hir, starts: bool) -> Vec<Need> {
    let mut needs = Vec::new();
    collect(hir, starts, 0, &mut needs);
    if needs.is_empty() {
        let set = best(hir, starts);
        needs.extend(set.map(|set| Need { set, from: 0, to: reach(hir) }));
    }
    let mut order: Vec<usize> = (0..needs.len()).collect();
    let cost = |at: &usize| needs.get(*at).map_or(f64::MAX, |need| cost(&need.set));
    order.sort_by(|one, other| cost(one).total_cmp(&cost(other)));
    let frequent =
        order.iter().skip(1).position(|at| cost(at) > FREQUENT).map_or(order.len(), |at| at + 1);
    order.truncate(frequent.min(MOST_SETS));
    let mut at = 0..;
    needs.retain(|_| at.next().is_some_and(|at| order.contains(&at)));
    needs
}

/// How long a match may be: what has no end is taken to repeat some times.
pub(super) fn reach(hir: &Hir) -> usize {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 0,
        HirKind::Literal(literal) => literal.0.len(),
        HirKind::Class(_) => 1,
        HirKind::Repetition(repetition) => {
            let times = match repetition.max {
                Some(most) => most as usize,
                None => repetition.min as usize + endless(&repetition.sub),
            };
            reach(&repetition.sub).saturating_mul(times)
        }
        HirKind::Capture(capture) => reach(&capture.sub),
        HirKind::Concat(parts) => parts.iter().map(reach).fold(0, usize::saturating_add),
        HirKind::Alternation(branches) => branches.iter().map(reach).max().unwrap_or(0),
    }
}

/// How often what has no end repeats: separators seldom, letters of a word more.
fn endless(hir: &Hir) -> usize {
    match hir.kind() {
        HirKind::Class(Class::Bytes(class)) => {
            let size: usize =
                class.iter().map(|range| usize::from(range.end() - range.start()) + 1).sum();
            if size < 32 { 3 } else { 11 }
        }
        _ => 11,
    }
}

/// The sets of a part that begins at most `at` bytes into the match, in their order.
fn collect(hir: &Hir, starts: bool, at: usize, needs: &mut Vec<Need>) {
    match hir.kind() {
        HirKind::Literal(literal) => {
            let set = fit(vec![literal_of(&literal.0, starts)]);
            needs.extend(set.map(|set| Need { set, from: at, to: at + literal.0.len() }));
        }
        HirKind::Capture(capture) => collect(&capture.sub, starts, at, needs),
        HirKind::Repetition(repetition) if repetition.min > 0 => {
            let first = needs.len();
            let starts = starts && (repetition.max == Some(1) || after(&repetition.sub, starts));
            collect(&repetition.sub, starts, at, needs);
            // It may be in the first turn or the last.
            for need in needs.iter_mut().skip(first) {
                (need.from, need.to) = (at, at.saturating_add(reach(hir)));
            }
        }
        HirKind::Concat(parts) => {
            let (mut starts, mut at) = (starts, at);
            for part in parts {
                collect(part, starts, at, needs);
                starts = after(part, starts);
                at = at.saturating_add(reach(part));
            }
        }
        HirKind::Alternation(branches) => {
            let best: Option<Vec<Set>> = branches.iter().map(|hir| best(hir, starts)).collect();
            let set = best.and_then(|best| fit(best.into_iter().flatten().collect()));
            let to = at.saturating_add(reach(hir));
            needs.extend(set.map(|set| Need { set, from: at, to }));
        }
        _ => {}
    }
}

/// The rarest set of a part.
fn best(hir: &Hir, starts: bool) -> Option<Set> {
    let mut needs = Vec::new();
    collect(hir, starts, 0, &mut needs);
    let mut sets: Vec<Set> = needs.into_iter().map(|need| need.set).collect();
    if sets.is_empty() {
        let prefixes = Extractor::new().extract(hir);
        let prefixes = prefixes.literals().unwrap_or(&[]);
        let literal = |prefix: &[u8]| literal_of(prefix, starts);
        sets.extend(fit(prefixes.iter().map(|prefix| literal(prefix.as_bytes())).collect()));
    }
    sets.into_iter().min_by(|one, other| cost(one).total_cmp(&cost(other)))
}

/// Whether what follows a part has no letter or digit of ASCII before it, if the part itself has none.
fn after(hir: &Hir, starts: bool) -> bool {
    match hir.kind() {
        HirKind::Empty => starts,
        // At a border of a word, what begins with a letter or a digit begins that word.
        HirKind::Look(look) => {
            starts
                || matches!(
                    look,
                    Look::Start | Look::StartLF | Look::WordAscii | Look::WordStartAscii
                )
        }
        HirKind::Literal(literal) => {
            literal.0.last().is_none_or(|byte| !byte.is_ascii_alphanumeric())
        }
        HirKind::Class(Class::Bytes(class)) => class
            .iter()
            .all(|range| !(range.start()..=range.end()).any(|byte| byte.is_ascii_alphanumeric())),
        HirKind::Class(Class::Unicode(_)) => false,
        HirKind::Repetition(repetition) => {
            let after = after(&repetition.sub, starts);
            after && (starts || repetition.min > 0)
        }
        HirKind::Capture(capture) => after(&capture.sub, starts),
        HirKind::Concat(parts) => parts.iter().fold(starts, |starts, part| after(part, starts)),
        HirKind::Alternation(branches) => branches.iter().all(|branch| after(branch, starts)),
    }
}

fn literal_of(bytes: &[u8], starts: bool) -> Literal {
    let starts_word = starts && bytes.first().is_some_and(u8::is_ascii_alphanumeric);
    Literal { bytes: bytes.to_vec(), starts_word }
}

/// The set, if it is worth looking for.
fn fit(set: Set) -> Option<Set> {
    let fine = !set.is_empty()
        && set.len() <= MOST_LITERALS
        && set.iter().all(|literal| literal.bytes.len() >= SHORTEST);
    fine.then_some(set)
}

/// How often a set is likely to turn up.
fn cost(set: &Set) -> f64 {
    let one = |literal: &Literal| {
        let rare = 5_f64.powi(-(literal.bytes.len().min(LONGEST) as i32));
        if literal.starts_word { rare / 3.0 } else { rare }
    };
    set.iter().map(one).sum()
}

/// Shortens literals, and leaves out those that hold another.
fn tidy(set: &mut Set) {
    for literal in set.iter_mut() {
        literal.bytes.truncate(LONGEST);
    }
    set.sort_by_key(|literal| (literal.bytes.len(), literal.starts_word));
    let mut kept: Set = Vec::new();
    for literal in set.drain(..) {
        if !kept.iter().any(|short| holds(&literal, short)) {
            kept.push(literal);
        }
    }
    kept.sort_unstable();
    *set = kept;
}

/// Whether another stands wherever this one does.
fn holds(literal: &Literal, short: &Literal) -> bool {
    if short.starts_word {
        literal.starts_word && literal.bytes.starts_with(&short.bytes)
    } else {
        literal.bytes.windows(short.bytes.len()).any(|part| part == short.bytes.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hir(pattern: &str) -> Hir {
        regex_syntax::ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .build()
            .parse(pattern)
            .unwrap()
    }

    /// Each way's sets; `^` says that a literal begins a word.
    fn texts(pattern: &str) -> Vec<Vec<Vec<String>>> {
        let text = |literal: &Literal| {
            let text = String::from_utf8_lossy(&literal.bytes).into_owned();
            if literal.starts_word { format!("^{text}") } else { text }
        };
        let texts = |need: &Need| need.set.iter().map(text).collect();
        of(&hir(pattern)).iter().map(|chain| chain.iter().map(texts).collect()).collect()
    }

    #[test]
    fn every_match_holds_one_literal_of_each_set() {
        assert_eq!(
            texts(r"\b(?:ignore|forget) (?:all )?(?:rules?|orders)"),
            [[["^forget", "^ignore"], ["^orders", "^rule"]]]
        );
        // A branch without a literal makes a set worthless.
        assert_eq!(texts("(?:[a-z]+|none) of them"), [[[" of them"]]]);
        assert_eq!(texts("(?:hidden|hide|hi)x?"), [[["hi"]]]);
        // Each way has its own, in the order of the text.
        assert_eq!(
            texts("new rules?: ?[0-9]+ orders|drop them[a-z]* all"),
            [vec![vec!["new rule"], vec![" orders"]], vec![vec!["drop the"], vec![" all"]]]
        );
        // Behind letters that need not be there a word may go on.
        assert_eq!(texts("[a-z]*less[ _]more"), [[["less"], ["^more"]]]);
        assert!(texts("[a-z]+ ?").is_empty());
    }

    #[test]
    fn reach_is_the_longest_usual_match() {
        assert_eq!(reach(&hir("abc")), 3);
        assert_eq!(reach(&hir("(?:a|bcd)x{0,4}")), 7);
        assert_eq!(reach(&hir("[ .]+")), 4);
        assert_eq!(reach(&hir("[^ .]+")), 12);
    }
}

//! What a pattern can't match without.

use regex_syntax::hir::{Class, Hir, HirKind, literal::Extractor};

/// A set of literals, one of which stands in every match.
type Set = Vec<Vec<u8>>;

/// How many sets of a pattern are asked for.
const MOST_SETS: usize = 3;
/// A set that turns up more often only costs time, if there is another.
const FREQUENT: f64 = 0.03;
/// The shortest literal that says anything, and how much of a longer one is looked for.
const SHORTEST: usize = 2;
const LONGEST: usize = 6;
/// How many literals a set may have.
const MOST_LITERALS: usize = 160;

/// The rarest sets of literals of which every match has one each. Empty: there is none.
pub(super) fn of(hir: &Hir) -> Vec<Set> {
    let mut sets = Vec::new();
    collect(hir, &mut sets);
    sets.sort_by(|one, other| cost(one).total_cmp(&cost(other)));
    let frequent =
        sets.iter().skip(1).position(|set| cost(set) > FREQUENT).map_or(sets.len(), |at| at + 1);
    sets.truncate(frequent.min(MOST_SETS));
    sets.iter_mut().for_each(tidy);
    sets.sort_unstable();
    sets.dedup();
    sets
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

fn collect(hir: &Hir, sets: &mut Vec<Set>) {
    match hir.kind() {
        HirKind::Literal(literal) => sets.extend(fit(vec![literal.0.to_vec()])),
        HirKind::Capture(capture) => collect(&capture.sub, sets),
        HirKind::Repetition(repetition) if repetition.min > 0 => collect(&repetition.sub, sets),
        HirKind::Concat(parts) => parts.iter().for_each(|part| collect(part, sets)),
        HirKind::Alternation(branches) => {
            let best: Option<Vec<Set>> = branches.iter().map(best).collect();
            sets.extend(best.and_then(|best| fit(best.into_iter().flatten().collect())));
        }
        _ => {}
    }
}

/// The rarest set of a part.
fn best(hir: &Hir) -> Option<Set> {
    let mut sets = Vec::new();
    collect(hir, &mut sets);
    if sets.is_empty() {
        let prefixes = Extractor::new().extract(hir);
        let prefixes = prefixes.literals().unwrap_or(&[]);
        sets.extend(fit(prefixes.iter().map(|prefix| prefix.as_bytes().to_vec()).collect()));
    }
    sets.into_iter().min_by(|one, other| cost(one).total_cmp(&cost(other)))
}

/// The set, if it is worth looking for.
fn fit(set: Set) -> Option<Set> {
    let fine = !set.is_empty()
        && set.len() <= MOST_LITERALS
        && set.iter().all(|literal| literal.len() >= SHORTEST);
    fine.then_some(set)
}

/// How often a set is likely to turn up.
fn cost(set: &Set) -> f64 {
    set.iter().map(|literal| 5_f64.powi(-(literal.len().min(LONGEST) as i32))).sum()
}

/// Shortens literals, and leaves out those that hold another.
fn tidy(set: &mut Set) {
    for literal in set.iter_mut() {
        literal.truncate(LONGEST);
    }
    set.sort_by_key(Vec::len);
    let mut kept: Set = Vec::new();
    for literal in set.drain(..) {
        let holds =
            |short: &Vec<u8>| literal.windows(short.len()).any(|part| part == short.as_slice());
        if !kept.iter().any(holds) {
            kept.push(literal);
        }
    }
    kept.sort_unstable();
    *set = kept;
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

    fn texts(pattern: &str) -> Vec<Vec<String>> {
        let texts =
            |set: &Set| set.iter().map(|literal| String::from_utf8_lossy(literal).into()).collect();
        of(&hir(pattern)).iter().map(texts).collect()
    }

    #[test]
    fn every_match_holds_one_literal_of_each_set() {
        assert_eq!(
            texts("(?:ignore|forget) (?:all )?(?:rules?|orders)"),
            [["forget", "ignore"], ["orders", "rule"]]
        );
        // A branch without a literal makes a set worthless.
        assert_eq!(texts("(?:[a-z]+|none) of them"), [[" of th"]]);
        assert_eq!(texts("(?:hidden|hide|hi)x?"), [["hi"]]);
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

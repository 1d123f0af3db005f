//! A rule is woken by whatever its pattern matches.

use proptest::{
    strategy::{Strategy, ValueTree},
    string::bytes_regex_parsed,
    test_runner::TestRunner,
};
use regex_syntax::hir::{Class, ClassBytes, ClassBytesRange, Hir, HirKind};

use super::*;

/// The same without borders of words, which nothing can be made from, and of ASCII and of usual length where there is a choice.
fn to_generate(hir: &Hir) -> Hir {
    match hir.kind() {
        HirKind::Look(_) => Hir::empty(),
        HirKind::Class(Class::Bytes(class)) => {
            let mut printable = class.clone();
            printable.intersect(&ClassBytes::new([ClassBytesRange::new(b' ', b'~')]));
            let none = printable.ranges().is_empty();
            Hir::class(Class::Bytes(if none { class.clone() } else { printable }))
        }
        HirKind::Repetition(repetition) => {
            let mut repetition = repetition.clone();
            repetition.max = repetition.max.or(Some(repetition.min + 2));
            repetition.sub = Box::new(to_generate(&repetition.sub));
            Hir::repetition(repetition)
        }
        HirKind::Capture(capture) => to_generate(&capture.sub),
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(to_generate).collect()),
        HirKind::Alternation(ways) => Hir::alternation(ways.iter().map(to_generate).collect()),
        _ => hir.clone(),
    }
}

#[test]
fn a_rule_runs_where_its_pattern_matches() {
    let mut rules = Rules::default();
    for (table, fragments) in super::super::tables() {
        rules.add(table, fragments).unwrap();
    }
    let engine = Engine::new(rules).unwrap();
    let mut runner = TestRunner::deterministic();
    let (mut matched, mut asked) = (0, 0);
    for (index, rule) in engine.rules.iter().enumerate() {
        let made = to_generate(&parse(&rule.pattern).unwrap());
        let made = bytes_regex_parsed(&made).unwrap();
        let origin = rule.origins.first().copied().unwrap_or(Origin::User);
        let (automaton, mut found) = (rule.automaton().unwrap(), 0);
        let mut cache = automaton.create_cache();
        for _ in 0..12 {
            let made = made.new_tree(&mut runner).unwrap().current();
            let Ok(made) = String::from_utf8(made) else { continue };
            asked += 1;
            let text = format!("so it is. {made} and on it goes");
            let Some(whole) = find(automaton, &mut cache, &text, 0..text.len()) else { continue };
            if whole.len() > rule.reach {
                continue;
            }
            found += 1;
            let hits = engine.hits(&text, None, origin, 16);
            assert!(hits.iter().any(|hit| hit.rule == index), "{}: {text:?}", rule.pattern);
        }
        matched += found;
        assert!(found > 0, "nothing was made that it matches: {}", rule.pattern);
    }
    assert!(matched * 2 > asked, "{matched} of {asked}");
}

//! Personal data with check digits or a fixed form is found, and little else is.

use std::{collections::BTreeMap, ops::Range};

use crate::vectors::{files, lines, scan};
use palisade::prompt_guard::PersonalData;

/// The rule, the label and the recogniser that stand for the same kind.
const KINDS: [(&str, &str, &str); 6] = [
    ("personal_data.email", "EMAIL_ADDRESS", "email_recognizer"),
    ("personal_data.card", "CREDIT_CARD", "credit_card_recognizer"),
    ("personal_data.iban", "IBAN_CODE", "iban_recognizer"),
    ("personal_data.us_social_security", "US_SSN", "us_ssn_recognizer"),
    ("personal_data.phone", "PHONE_NUMBER", "phone_recognizer"),
    ("personal_data.ip_address", "IP_ADDRESS", "ip_recognizer"),
];
/// Kinds that hold these floors; the rest is printed.
const STRICT: [&str; 4] = [
    "personal_data.email",
    "personal_data.card",
    "personal_data.iban",
    "personal_data.us_social_security",
];
const PRECISION: f64 = 0.99;
const RECALL: f64 = 0.90;

#[derive(Debug, Default)]
struct Count {
    right: usize,
    wrong: usize,
    missed: usize,
}

/// A text, the kinds that its labels speak of, and the labelled ranges in bytes.
type Example = (String, Vec<&'static str>, Vec<(&'static str, Range<usize>)>);

#[test]
fn kinds_with_a_fixed_form_are_found() {
    let detector = PersonalData::builder().build().unwrap();
    let mut counts = BTreeMap::<&str, Count>::new();
    let examples: Vec<Example> = files("pii")
        .iter()
        .flat_map(lines)
        .filter_map(|line| labelled(&line).or_else(|| recognised(&line)))
        .collect();
    for (text, kinds, expected) in &examples {
        let findings = scan(&detector, text);
        for kind in kinds {
            let count = counts.entry(kind).or_default();
            let found: Vec<_> = findings.iter().filter(|finding| finding.rule == *kind).collect();
            let wanted: Vec<_> = expected.iter().filter(|(label, _)| label == kind).collect();
            let covers = |range: &Range<usize>, other: &Range<usize>| {
                range.start < other.end && other.start < range.end
            };
            for finding in &found {
                let span = finding.span.clone().unwrap();
                if wanted.iter().any(|(_, range)| covers(range, &span)) {
                    count.right += 1;
                } else {
                    count.wrong += 1;
                }
            }
            count.missed += wanted
                .iter()
                .filter(|(_, range)| {
                    !found.iter().any(|finding| covers(range, finding.span.as_ref().unwrap()))
                })
                .count();
        }
    }
    let mut broken = Vec::new();
    for (kind, count) in &counts {
        let precision = count.right as f64 / (count.right + count.wrong).max(1) as f64;
        let recall = count.right as f64 / (count.right + count.missed).max(1) as f64;
        println!("{kind:36} precision {precision:.3} recall {recall:.3} {count:?}");
        if STRICT.contains(kind) && (precision < PRECISION || recall < RECALL) {
            broken.push(*kind);
        }
    }
    assert!(broken.is_empty(), "{broken:?}");
}

/// A text with its spans, in characters.
fn labelled(line: &serde_json::Value) -> Option<Example> {
    let text = line["text"].as_str()?;
    let spans = line["spans"].as_array()?;
    let expected = spans
        .iter()
        .filter_map(|span| {
            let (kind, ..) = KINDS.iter().find(|(_, label, _)| span[2].as_str() == Some(label))?;
            Some((*kind, bytes(text, span)?))
        })
        .collect();
    Some((text.to_owned(), KINDS.iter().map(|(kind, ..)| *kind).collect(), expected))
}

/// A case of one recogniser: text, how many are expected, and where.
fn recognised(line: &serde_json::Value) -> Option<Example> {
    let (kind, ..) =
        KINDS.iter().find(|(.., recogniser)| line["recognizer"].as_str() == Some(recogniser))?;
    let values = line["values"].as_array()?;
    let text = values.first()?.as_str()?;
    let places = line["columns"].as_array()?.iter().position(|column| {
        matches!(column.as_str(), Some("expected_positions" | "expected_res"))
    })?;
    let expected = values
        .get(places)?
        .as_array()?
        .iter()
        .filter_map(|span| Some((*kind, bytes(text, span)?)))
        .collect();
    Some((text.to_owned(), vec![kind], expected))
}

/// A span in characters as a range in bytes.
fn bytes(text: &str, span: &serde_json::Value) -> Option<Range<usize>> {
    let at = |index: usize| {
        let count = usize::try_from(span[index].as_u64()?).ok()?;
        Some(text.char_indices().nth(count).map_or(text.len(), |(offset, _)| offset))
    };
    Some(at(0)?..at(1)?)
}

//! Personal data with check digits or a fixed form is found, and little else is.

use std::{collections::BTreeMap, ops::Range};

use palisade::prompt_guard::{PersonalData, PersonalDataKind};

use crate::vectors::{THRESHOLD, files, lines, scan};

/// The rule, the label and the recogniser that stand for the same kind.
const KINDS: [(&str, &str, &str); 6] = [
    ("personal_data.email", "EMAIL_ADDRESS", "email_recognizer"),
    ("personal_data.card", "CREDIT_CARD", "credit_card_recognizer"),
    ("personal_data.iban", "IBAN_CODE", "iban_recognizer"),
    ("personal_data.us_social_security", "US_SSN", "us_ssn_recognizer"),
    ("personal_data.phone", "PHONE_NUMBER", "phone_recognizer"),
    ("personal_data.ip_address", "IP_ADDRESS", "ip_recognizer"),
];
/// The least precision and recall of a kind; the rest is printed.
const FLOORS: [(&str, f64, f64); 5] = [
    ("personal_data.email", 0.99, 0.95),
    ("personal_data.card", 0.99, 0.95),
    ("personal_data.iban", 0.99, 0.95),
    ("personal_data.us_social_security", 0.99, 0.95),
    ("personal_data.phone", 0.90, 0.85),
];

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
        let floor = FLOORS.iter().find(|(name, ..)| name == kind);
        if floor
            .is_some_and(|(_, least, least_recall)| precision < *least || recall < *least_recall)
        {
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

/// Addresses of e-mail stand in many harmless prompts, and rightly count; of all else there is next to none.
#[test]
fn ordinary_prompts_hold_no_other_personal_data() {
    let detector = PersonalData::builder().without(PersonalDataKind::Email).build().unwrap();
    let (mut benign, mut flagged) = (0, 0);
    for line in files("prompts").iter().flat_map(lines) {
        if line["label"].as_u64() != Some(0) {
            continue;
        }
        benign += 1;
        let text = line["text"].as_str().unwrap();
        for finding in scan(&detector, text).iter().filter(|finding| finding.score >= THRESHOLD) {
            flagged += 1;
            println!("{} {:?}", finding.rule, &text[finding.span.clone().unwrap()]);
        }
    }
    println!("{flagged} in {benign} harmless prompts");
    assert!(flagged * 1000 <= benign, "{flagged} in {benign}");
}

//! United States social security numbers.

use std::ops::Range;

use super::{Candidate, words::Words};

pub(super) const PATTERN: &str = r"[0-9]{3}-[0-9]{2}-[0-9]{4}|[0-9]{3} [0-9]{2} [0-9]{4}|[0-9]{9}";

/// Words that one stands with.
const CONTEXT: Words = Words::new(&["ssn", "social security", "social-security", "soc sec"]);

/// Numbers that were printed in advertisements and belong to nobody.
const PUBLISHED: [&str; 3] = ["078051120", "219099999", "123456789"];

pub(super) fn check(candidate: &Candidate<'_>) -> Option<(Range<usize>, f32)> {
    let text = candidate.as_str();
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let area = digits.get(..3)?;
    let named = candidate.is_near(&CONTEXT);
    // Area, group and serial: never all zeros; 666 and from 900 on were never given out.
    let sound = !candidate.is_inside_word(candidate.range.end)
        && !matches!(candidate.before(), Some('-' | '.' | '+' | '/'))
        && !matches!(area, "000" | "666")
        && !area.starts_with('9')
        && digits.get(3..5)? != "00"
        && digits.get(5..)? != "0000"
        && !PUBLISHED.contains(&digits.as_str());
    let score = match (text.as_bytes().get(3), named) {
        (_, true) => 0.95,
        (Some(b'-'), false) => 0.85,
        (Some(b' '), false) => 0.8,
        // An answer to the question for it.
        _ if candidate.text.trim().len() == text.len() => 0.6,
        // Nine digits are anything.
        _ => return None,
    };
    sound.then_some((candidate.range.clone(), score))
}

#[cfg(test)]
mod tests {
    use super::super::tests::values;

    #[test]
    fn numbers() {
        assert_eq!(
            values("my number: 536-90-4399."),
            ["personal_data.us_social_security:536-90-4399"]
        );
        assert_eq!(values("SSN 536904399"), ["personal_data.us_social_security:536904399"]);
        for text in [
            "000-12-3456",
            "666-12-3456",
            "900-12-3456",
            "536-00-4399",
            "536-90-0000",
            "078-05-1120",
            "order 536904399 came",
            "1-536-90-4399",
            "536-90-43991",
        ] {
            assert!(values(text).iter().all(|value| !value.contains("social")), "{text}");
        }
    }
}

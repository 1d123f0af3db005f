//! Numbers of payment cards.

use std::ops::Range;

use super::{Candidate, words::Words};

/// Unbroken, or in the groups that cards print.
pub(super) const PATTERN: &str = r"[0-9]{12,19}|[0-9]{4}[ -][0-9]{4}[ -][0-9]{4}[ -][0-9]{1,4}(?:[ -][0-9]{1,3})?|[0-9]{4}[ -][0-9]{6}[ -][0-9]{4,5}";

/// Words that a card's number stands with.
const CONTEXT: Words = Words::new(&[
    "card",
    "credit",
    "debit",
    "visa",
    "mastercard",
    "amex",
    "american express",
    "maestro",
    "discover",
    "cc",
    "jcb",
    "karte",
]);

pub(super) fn check(candidate: &Candidate<'_>) -> Option<(Range<usize>, f32)> {
    if matches!(candidate.before(), Some('.' | '-' | '+')) {
        return None;
    }
    // What follows after a space may be another number.
    let mut end = candidate.range.end;
    loop {
        let shorter = Candidate { text: candidate.text, range: candidate.range.start..end };
        if let Some(score) = score(&shorter) {
            return Some((shorter.range, score));
        }
        let text = shorter.as_str();
        end = candidate.range.start + text.rfind(' ').filter(|at| *at >= 12)?;
    }
}

fn score(candidate: &Candidate<'_>) -> Option<f32> {
    let digits: Vec<u8> =
        candidate.as_str().bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect();
    if is_inside(candidate) || !luhn(&digits) {
        return None;
    }
    let near = candidate.is_near(&CONTEXT);
    match (issued(&digits), near) {
        (true, true) => Some(0.97),
        (true, false) => Some(if digits.len() >= 15 { 0.95 } else { 0.85 }),
        // A prefix that no register known here has, but who writes it says what it is.
        (false, true) if matches!(digits.first(), Some(2..=6)) => Some(0.85),
        _ => None,
    }
}

/// Lists and files have another number, or the date of expiry, right behind a comma or a stroke.
fn is_inside(candidate: &Candidate<'_>) -> bool {
    let joined = |mark: char| mark.is_ascii_alphanumeric() || mark == '_';
    match candidate.after(candidate.range.end).starts_with([',', '/']) {
        true => candidate.before().is_some_and(joined),
        false => candidate.is_inside_word(candidate.range.end),
    }
}

/// The check digit of ISO/IEC 7812-1, annex B.
fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| {
            let digit = u32::from(*digit);
            match (index % 2, digit) {
                (0, digit) => digit,
                (_, 9) => 9,
                (_, digit) => digit * 2 % 9,
            }
        })
        .sum();
    sum.is_multiple_of(10) && digits.iter().any(|digit| *digit != 0)
}

/// Whether an issuer has this prefix and this length. It keeps timestamps out, which start with 1
/// (13 or 16 digits) or 20 (14 digits): one in ten of them passes the check digit.
fn issued(digits: &[u8]) -> bool {
    let first = |count: usize| {
        digits.iter().take(count).fold(0_u32, |value, digit| value * 10 + u32::from(*digit))
    };
    let length = digits.len();
    match first(1) {
        // Visa
        4 => matches!(length, 13 | 16 | 19),
        // American Express; Diners Club; JCB
        3 => match first(2) {
            34 | 37 => length == 15,
            30 | 36 | 38 | 39 => {
                matches!(length, 14 | 16 | 19)
                    && (first(2) != 30 || first(3) <= 305 || first(3) == 309)
            }
            35 => matches!(length, 16..=19) && (3528..=3589).contains(&first(4)),
            _ => false,
        },
        // Mastercard; Maestro and Dankort
        5 => match first(2) {
            51..=55 => length == 16,
            50 | 56..=58 => matches!(length, 12..=19),
            _ => false,
        },
        // Discover, UnionPay, RuPay; Maestro
        6 => match first(2) {
            60 | 64 | 65 => matches!(length, 16..=19),
            62 => matches!(length, 16..=19),
            63 | 67 => matches!(length, 12..=19),
            _ => false,
        },
        // Mastercard's second range; Mir; JCB of old
        2 => match first(4) {
            2221..=2720 => length == 16,
            2200..=2204 => matches!(length, 16..=19),
            2131 => length == 15,
            _ => false,
        },
        1 => first(4) == 1800 && length == 15,
        8 => first(2) == 81 && matches!(length, 16..=19),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::values;

    // The test numbers that the payment schemes publish.
    #[test]
    fn cards() {
        for number in [
            "4111111111111111",
            "4111 1111 1111 1111",
            "5555-5555-5555-4444",
            "3782 822463 10005",
            "6011111111111117",
            "2223003122003222",
        ] {
            assert_eq!(
                values(&format!("card {number}, thanks")),
                [format!("personal_data.card:{number}")]
            );
        }
    }

    #[test]
    fn other_numbers() {
        for text in [
            "4111111111111112",
            "1700000000000",
            "20240131120000",
            "0000000000000000",
            "order41111111111111111",
            "3.4111111111111111",
            "4111111111111111.5",
        ] {
            let found = values(text);
            assert!(
                found.iter().all(|value| !value.starts_with("personal_data.card")),
                "{text}: {found:?}"
            );
        }
    }
}

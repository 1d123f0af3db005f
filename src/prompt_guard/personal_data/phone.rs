//! Telephone numbers.

use std::ops::Range;

use super::Candidate;

/// Digits in groups, with what is written between them.
pub(super) const PATTERN: &str = r"(?:\+ ?)?\(?[0-9](?:[ ()/.-]{0,3}[0-9]){6,15}";

/// Words that a telephone number follows.
const CONTEXT: [&str; 20] = [
    "phone", "tel", "call", "mobile", "cell", "fax", "whatsapp", "sms", "contact", "reach", "dial",
    "text me", "telefon", "handy", "movil", "celular", "numero", "hotline", "ring me", "signal",
];

pub(super) fn check(candidate: &Candidate<'_>) -> Option<(Range<usize>, f32)> {
    let text = candidate.as_str();
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let open = text.matches('(').count();
    if candidate.is_inside_word(candidate.range.end)
        || matches!(candidate.before(), Some('.' | '-' | '/' | '#' | '$' | ':' | '='))
        || open > 1
        || open != text.matches(')').count()
    {
        return None;
    }
    let start = candidate.range.clone();
    if text.starts_with('+') {
        // E.164: at most fifteen digits, the first of them not 0.
        let sound = matches!(digits.len(), 8..=15) && !digits.starts_with('0');
        return sound.then_some((start, 0.85));
    }
    let groups: Vec<&str> =
        text.split(|mark: char| !mark.is_ascii_digit()).filter(|group| !group.is_empty()).collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let dated = is_date(&groups) || is_decimal(text);
    let near = candidate.follows(&CONTEXT);
    let score = match lengths.as_slice() {
        _ if dated => return None,
        // North America: area and exchange start with 2 to 9.
        [3, 3, 4] if starts_high(&groups) => 0.8,
        [1..=3, 3, 3, 4]
            if matches!(groups.first(), Some(&"1" | &"01" | &"001"))
                && starts_high(groups.get(1..)?) =>
        {
            0.85
        }
        // International with 00, then trunk prefixes with groups.
        [first, ..]
            if *first >= 3 && digits.starts_with("00") && matches!(digits.len(), 10..=16) =>
        {
            0.75
        }
        [2, 2, 2, 2, 2] if digits.starts_with('0') => 0.8,
        [_, _, ..]
            if digits.starts_with('0') && matches!(digits.len(), 9..=11) && lengths.len() <= 5 =>
        {
            0.65
        }
        // Elsewhere only the words before tell.
        _ if near && matches!(digits.len(), 7..=13) => 0.75,
        _ => return None,
    };
    Some((start, if near { score + 0.1 } else { score }))
}

fn starts_high(groups: &[&str]) -> bool {
    groups.iter().take(2).all(|group| matches!(group.bytes().next(), Some(b'2'..=b'9')))
}

/// `2024-01-31`, `31.01.2024 12`: groups that read as a date.
fn is_date(groups: &[&str]) -> bool {
    let year =
        |group: &&str| group.len() == 4 && (group.starts_with("19") || group.starts_with("20"));
    let short = |group: &&str| group.len() <= 2;
    match groups {
        [first, month, day, ..] if year(first) => short(month) && short(day),
        [day, month, last, ..] if year(last) => short(day) && short(month),
        [first, second] => year(first) && year(second),
        _ => false,
    }
}

/// One point and nothing else: a fraction.
fn is_decimal(text: &str) -> bool {
    text.matches('.').count() == 1 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::super::tests::values;

    #[test]
    fn numbers() {
        // Ranges that regulators keep for fiction.
        for number in [
            "+44 20 7946 0018",
            "+1 202-555-0143",
            "(202) 555-0143",
            "202-555-0143",
            "01 99 00 12 34",
        ] {
            let found = values(&format!("ring {number} today"));
            assert_eq!(found, [format!("personal_data.phone:{number}")]);
        }
        assert_eq!(values("phone: 5550143"), ["personal_data.phone:5550143"]);
    }

    #[test]
    fn other_numbers() {
        for text in [
            "2024-01-31 12:00",
            "3.1415926535",
            "1234567890",
            "10 000 000",
            "1 2 3 4 5 6 7 8",
            "item 1234-5678-90",
            "$1,234,567.00",
            "1990-2000",
        ] {
            let found = values(text);
            assert!(found.is_empty(), "{text}: {found:?}");
        }
    }
}

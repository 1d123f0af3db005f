//! Telephone numbers.

use std::{cell::LazyCell, ops::Range};

use super::{Candidate, words::Words};

/// Digits in groups, with what is written between them.
pub(super) const PATTERN: &str = r"(?:\+ ?)?\(?[0-9](?:[ ()/.-]{0,3}[0-9]){6,15}";

/// Words that a telephone number stands with.
const CONTEXT: Words = Words::new(&[
    "phone",
    "tel",
    "call",
    "mobile",
    "cell",
    "cellphone",
    "fax",
    "whatsapp",
    "sms",
    "contact",
    "reach",
    "dial",
    "text me",
    "texted",
    "messages to",
    "message to",
    "answering",
    "telefon",
    "handy",
    "mobil",
    "movil",
    "móvil",
    "celular",
    "numero",
    "número",
    "telefono",
    "teléfono",
    "téléphone",
    "portable",
    "hotline",
    "ring me",
    "signal",
    "rufnummer",
    "电话",
    "手机",
    "電話",
    "телефон",
    "тел",
]);
/// Words that stand after one in an address.
const AFTER: Words =
    Words::new(&["office", "fax", "mobile", "cell", "home", "work", "phone", "direct"]);

pub(super) fn check(candidate: &Candidate<'_>) -> Option<(Range<usize>, f32)> {
    if matches!(candidate.before(), Some('.' | '-' | '/' | '#' | '$' | ':' | '=')) {
        return None;
    }
    let named = LazyCell::new(|| candidate.follows(&CONTEXT));
    // What follows after a space may be another number.
    let mut end = candidate.range.end;
    loop {
        let shorter = Candidate { text: candidate.text, range: candidate.range.start..end };
        if let Some(score) = score(&shorter, &named) {
            return Some((shorter.range, score));
        }
        end = candidate.range.start + shorter.as_str().rfind(' ').filter(|at| *at >= 8)?;
    }
}

/// `named`: a word before says what it is.
fn score(candidate: &Candidate<'_>, named: &LazyCell<bool, impl FnOnce() -> bool>) -> Option<f32> {
    if candidate.is_inside_word(candidate.range.end) {
        return None;
    }
    let text = candidate.as_str();
    let mut digits = String::with_capacity(text.len());
    digits.extend(text.chars().filter(char::is_ascii_digit));
    let open = text.matches('(').count();
    if open > 1 || open != text.matches(')').count() {
        return None;
    }
    if text.starts_with('+') {
        return is_international(&digits).then_some(0.9);
    }
    let mut groups: Vec<&str> = Vec::with_capacity(digits.len());
    let between = |mark: char| !mark.is_ascii_digit();
    groups.extend(text.split(between).filter(|group| !group.is_empty()));
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    if is_date(&groups) || is_decimal(text) {
        return None;
    }
    let end = candidate.range.end;
    let near = || **named || candidate.has_word(end, end + 10, &AFTER);
    let trunk = digits.starts_with('0') && !digits.starts_with("00");
    let score = match lengths.as_slice() {
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
            if *first >= 3
                && digits
                    .get(2..)
                    .is_some_and(|rest| digits.starts_with("00") && is_international(rest)) =>
        {
            0.8
        }
        [2, 2, 2, 2, 2] if trunk => 0.85,
        // A social security number's groups.
        [3, 2, 4] if !near() => return None,
        [2..=5, 2..=9, ..] if trunk && matches!(digits.len(), 9..=11) && lengths.len() <= 5 => 0.8,
        [_, _, ..] if trunk && matches!(digits.len(), 9..=11) && lengths.len() <= 5 => 0.7,
        // Elsewhere only the words around tell.
        _ if matches!(digits.len(), 7..=13) && near() => return Some(0.85),
        _ => return None,
    };
    Some(if near() { score + 0.1 } else { score })
}

/// Whether a country has this calling code, and numbers of this length (ITU-T E.164).
fn is_international(digits: &str) -> bool {
    let rest = |code: usize| digits.len().saturating_sub(code);
    let is = |code: usize, list: &str| {
        digits.get(..code).is_some_and(|start| list.split(' ').any(|other| other == start))
    };
    let area = digits.as_bytes().get(1).copied();
    match digits.bytes().next() {
        Some(b'1') => rest(1) == 10 && matches!(area, Some(b'2'..=b'9')),
        Some(b'7') => rest(1) == 10,
        _ if is(2, TWO_DIGITS) => (7..=12).contains(&rest(2)),
        _ if is(3, THREE_DIGITS) => (5..=12).contains(&rest(3)),
        _ => false,
    }
}

/// Calling codes of two digits.
const TWO_DIGITS: &str = "20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 81 82 84 \
    86 90 91 92 93 94 95 98";
/// Those of three.
const THREE_DIGITS: &str = "211 212 213 216 218 220 221 222 223 224 225 226 227 228 229 230 231 232 233 234 235 236 237 238 239 240 241 \
    242 243 244 245 246 247 248 249 250 251 252 253 254 255 256 257 258 260 261 262 263 264 265 266 267 268 269 290 291 297 298 299 \
    350 351 352 353 354 355 356 357 358 359 370 371 372 373 374 375 376 377 378 380 381 382 383 385 386 387 389 420 421 423 500 501 \
    502 503 504 505 506 507 508 509 590 591 592 593 594 595 596 597 598 599 670 672 673 674 675 676 677 678 679 680 681 682 683 685 \
    686 687 688 689 690 691 692 800 808 850 852 853 855 856 870 878 880 881 882 883 886 888 960 961 962 963 964 965 966 967 968 970 \
    971 972 973 974 975 976 977 979 992 993 994 995 996 998";

fn starts_high(groups: &[&str]) -> bool {
    groups.iter().take(2).all(|group| matches!(group.bytes().next(), Some(b'2'..=b'9')))
}

/// `2024-01-31`, `31.01.2024 12`: groups that read as a date.
fn is_date(groups: &[&str]) -> bool {
    let year =
        |group: &&str| group.len() == 4 && (group.starts_with('1') || group.starts_with("20"));
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
            "phone, 1873–1960",
            "phone book 1873-1960",
        ] {
            let found = values(text);
            assert!(found.is_empty(), "{text}: {found:?}");
        }
    }
}

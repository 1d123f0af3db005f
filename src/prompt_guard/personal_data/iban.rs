//! International bank account numbers.

use std::ops::Range;

use super::Candidate;

pub(super) const PATTERN: &str = r"\b[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,32}";

pub(super) fn check(candidate: &Candidate<'_>) -> Option<(Range<usize>, f32)> {
    let country = candidate.as_str().get(..2)?.to_ascii_uppercase();
    let (_, length) = LENGTHS.iter().find(|(code, _)| *code == country)?;
    // The country says where it ends; what follows may be a word.
    let mut end = candidate.range.start;
    let mut characters = Vec::with_capacity(*length);
    for (offset, byte) in candidate.as_str().bytes().enumerate() {
        if byte.is_ascii_alphanumeric() {
            characters.push(byte);
            end = candidate.range.start + offset + 1;
        }
        if characters.len() == *length {
            break;
        }
    }
    let upper = characters.iter().any(u8::is_ascii_uppercase);
    let lower = characters.iter().any(u8::is_ascii_lowercase);
    let cut = candidate.after(end).bytes().next().is_some_and(|next| next.is_ascii_alphanumeric());
    let sound =
        characters.len() == *length && !(upper && lower) && !cut && remainder(&characters) == 1;
    sound.then_some((candidate.range.start..end, 0.97))
}

/// ISO 7064, MOD 97-10, of the number with its first four characters moved to the end.
fn remainder(characters: &[u8]) -> u32 {
    let (head, tail) = characters.split_at(characters.len().min(4));
    tail.iter().chain(head).fold(0, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        letter => (rest * 100 + u32::from(letter.to_ascii_uppercase() - b'A') + 10) % 97,
    })
}

/// The length of a number by country, from the SWIFT registry.
#[rustfmt::skip]
const LENGTHS: &[(&str, usize)] = &[
    ("AD", 24), ("AE", 23), ("AL", 28), ("AT", 20), ("AZ", 28), ("BA", 20), ("BE", 16), ("BG", 22), ("BH", 22), ("BI", 27), ("BR", 29),
    ("BY", 28), ("CH", 21), ("CR", 22), ("CY", 28), ("CZ", 24), ("DE", 22), ("DJ", 27), ("DK", 18), ("DO", 28), ("EE", 20), ("EG", 29),
    ("ES", 24), ("FI", 18), ("FK", 18), ("FO", 18), ("FR", 27), ("GB", 22), ("GE", 22), ("GI", 23), ("GL", 18), ("GR", 27), ("GT", 28),
    ("HN", 28), ("HR", 21), ("HU", 28), ("IE", 22), ("IL", 23), ("IQ", 23), ("IS", 26), ("IT", 27), ("JO", 30), ("KW", 30), ("KZ", 20),
    ("LB", 28), ("LC", 32), ("LI", 21), ("LT", 20), ("LU", 20), ("LV", 21), ("LY", 25), ("MC", 27), ("MD", 24), ("ME", 22), ("MK", 19),
    ("MN", 20), ("MR", 27), ("MT", 31), ("MU", 30), ("NI", 28), ("NL", 18), ("NO", 15), ("OM", 23), ("PK", 24), ("PL", 28), ("PS", 29),
    ("PT", 25), ("QA", 29), ("RO", 24), ("RS", 22), ("RU", 33), ("SA", 24), ("SC", 31), ("SD", 18), ("SE", 24), ("SI", 19), ("SK", 24),
    ("SM", 27), ("SO", 23), ("ST", 25), ("SV", 28), ("TL", 23), ("TN", 24), ("TR", 26), ("UA", 29), ("VA", 22), ("VG", 24), ("XK", 20),
    ("YE", 30),
];

#[cfg(test)]
mod tests {
    use super::super::tests::values;

    // The registry's own examples.
    #[test]
    fn accounts() {
        for number in [
            "GB82 WEST 1234 5698 7654 32",
            "DE89370400440532013000",
            "NO9386011117947",
            "gb82west12345698765432",
        ] {
            assert_eq!(
                values(&format!("pay {number} NOW")),
                [format!("personal_data.iban:{number}")]
            );
        }
        for text in [
            "GB82 WEST 1234 5698 7654 33",
            "XX82 WEST 1234 5698 7654 32",
            "DE8937040044053201300",
            "Gb82wEST12345698765432",
        ] {
            assert!(
                values(text).iter().all(|value| !value.starts_with("personal_data.iban")),
                "{text}"
            );
        }
    }
}

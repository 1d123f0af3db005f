//! The check digits of national identifiers, as their issuers document them. All take letters in capitals and digits.

/// The value of a digit; of a letter, 10 and more.
pub(super) fn value(byte: u8) -> u32 {
    match byte {
        b'0'..=b'9' => u32::from(byte - b'0'),
        b'A'..=b'Z' => u32::from(byte - b'A') + 10,
        _ => 0,
    }
}

pub(super) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number * 10 + u64::from(value(*byte)))
}

/// The bytes of a part, or none.
pub(super) fn part(bytes: &[u8], from: usize, until: usize) -> &[u8] {
    bytes.get(from..until).unwrap_or_default()
}

pub(super) fn at(bytes: &[u8], index: usize) -> u32 {
    bytes.get(index).map_or(0, |byte| value(*byte))
}

/// The sum of the first characters, each times its weight.
pub(super) fn weighted(bytes: &[u8], weights: &[u32]) -> u32 {
    bytes.iter().zip(weights).map(|(byte, weight)| value(*byte) * weight).sum()
}

/// Not all of one digit, which passes many sums and belongs to nobody.
pub(super) fn is_mixed(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| pair.first() != pair.last())
}

/// ISO/IEC 7812-1, annex B.
pub(super) fn luhn(bytes: &[u8]) -> bool {
    let sum: u32 = bytes
        .iter()
        .rev()
        .enumerate()
        .map(|(index, byte)| match (index % 2, value(*byte)) {
            (0, digit) => digit,
            (_, 9) => 9,
            (_, digit) => digit * 2 % 9,
        })
        .sum();
    sum.is_multiple_of(10) && is_mixed(bytes)
}

/// ISO 7064, MOD 11,10.
pub(super) fn mod_11_10(bytes: &[u8]) -> bool {
    let Some((check, digits)) = bytes.split_last() else { return false };
    let product = digits.iter().fold(10, |product, byte| {
        let sum = (value(*byte) + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    (11 - product) % 10 == value(*check)
}

/// Verhoeff's dihedral check.
pub(super) fn verhoeff(bytes: &[u8]) -> bool {
    /// The product of two elements of the dihedral group of ten.
    fn times(a: u32, b: u32) -> u32 {
        match (a < 5, b < 5) {
            (true, true) => (a + b) % 5,
            (true, false) => (a + b) % 5 + 5,
            (false, true) => (a + 10 - b) % 5 + 5,
            (false, false) => (a + 10 - b) % 5,
        }
    }
    /// The permutation that is applied once more for each place.
    const STEP: [u32; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let sum = bytes.iter().rev().enumerate().fold(0, |sum, (place, byte)| {
        let permuted = (0..place % 8)
            .fold(value(*byte), |digit, _| STEP.get(digit as usize).copied().unwrap_or_default());
        times(sum, permuted)
    });
    sum == 0
}

/// A day of the calendar, whatever the century.
pub(super) fn is_day(month: u64, day: u64) -> bool {
    matches!(
        (month, day),
        (1 | 3 | 5 | 7 | 8 | 10 | 12, 1..=31) | (4 | 6 | 9 | 11, 1..=30) | (2, 1..=29)
    )
}

/// `YYMMDD`
pub(super) fn is_year_month_day(bytes: &[u8]) -> bool {
    is_day(number(part(bytes, 2, 4)), number(part(bytes, 4, 6)))
}

/// `DDMMYY`
pub(super) fn is_day_month_year(bytes: &[u8]) -> bool {
    is_day(number(part(bytes, 2, 4)), number(part(bytes, 0, 2)))
}

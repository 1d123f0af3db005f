//! The sums of identifiers of the Americas.

use super::sums::{at, is_mixed, is_year_month_day, luhn, number, part, value, weighted};

pub(super) fn mx_curp(v: &[u8]) -> bool {
    // The letters have the Ñ between N and O.
    let of = |byte: u8| if byte > b'N' { value(byte) + 1 } else { value(byte) };
    let sum: u32 =
        part(v, 0, 17).iter().zip((2..=18).rev()).map(|(byte, weight)| of(*byte) * weight).sum();
    is_year_month_day(part(v, 4, 10))
        && matches!(v.get(10), Some(b'H' | b'M' | b'X'))
        && (10 - sum % 10) % 10 == at(v, 17)
}

/// Eleven minus the rest, which is nothing for ten and more.
fn brazilian(v: &[u8], weights: &[u32]) -> u32 {
    let rest = weighted(v, weights) % 11;
    if rest < 2 { 0 } else { 11 - rest }
}

pub(super) fn br_cpf(v: &[u8]) -> bool {
    is_mixed(v)
        && brazilian(v, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) == at(v, 9)
        && brazilian(v, &[11, 10, 9, 8, 7, 6, 5, 4, 3, 2]) == at(v, 10)
}

pub(super) fn br_cnpj(v: &[u8]) -> bool {
    is_mixed(v)
        && brazilian(v, &[5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2]) == at(v, 12)
        && brazilian(v, &[6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2]) == at(v, 13)
}

pub(super) fn cl_rut(v: &[u8]) -> bool {
    let Some((check, digits)) = v.split_last() else { return false };
    let sum: u32 = digits
        .iter()
        .rev()
        .zip([2, 3, 4, 5, 6, 7].iter().cycle())
        .map(|(byte, weight)| value(*byte) * weight)
        .sum();
    let expected = match 11 - sum % 11 {
        11 => b'0',
        10 => b'K',
        digit => b"0123456789".get(digit as usize).copied().unwrap_or_default(),
    };
    *check == expected && is_mixed(digits)
}

pub(super) fn ar_cuil(v: &[u8]) -> bool {
    let sum = weighted(part(v, 0, 10), &[5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11;
    matches!(number(part(v, 0, 2)), 20 | 23..=27 | 30 | 33 | 34) && (11 - sum) % 11 == at(v, 10)
}

pub(super) fn us_itin(v: &[u8]) -> bool {
    at(v, 0) == 9 && matches!(number(part(v, 3, 5)), 50..=65 | 70..=88 | 90..=92 | 94..=99)
}

pub(super) fn ca_sin(v: &[u8]) -> bool {
    !matches!(at(v, 0), 0 | 8) && luhn(v)
}

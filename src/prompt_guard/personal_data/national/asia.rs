//! The sums of identifiers of Asia, Africa and Oceania.

use super::sums::{
    at, is_day, is_mixed, is_year_month_day, luhn, number, part, value, verhoeff, weighted,
};

pub(super) fn cn_resident(v: &[u8]) -> bool {
    let year = number(part(v, 6, 10));
    let sum = weighted(part(v, 0, 17), &[7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]);
    (1900..=2099).contains(&year)
        && matches!(at(v, 0), 1..=8)
        && is_day(number(part(v, 10, 12)), number(part(v, 12, 14)))
        && v.get(17) == b"10X98765432".get((sum % 11) as usize)
}

pub(super) fn kr_rrn(v: &[u8]) -> bool {
    // The check digit is gone from numbers that were given out since 2020.
    is_year_month_day(v) && matches!(at(v, 6), 1..=8)
}

pub(super) fn in_pan(v: &[u8]) -> bool {
    v.get(3).is_some_and(|holder| b"ABCFGHJLPT".contains(holder)) && number(part(v, 5, 9)) != 0
}

pub(super) fn sg_nric(v: &[u8]) -> bool {
    let (series, offset): (&[u8; 11], u32) = match v.first() {
        Some(b'S') => (b"JZIHGFEDCBA", 0),
        Some(b'T') => (b"JZIHGFEDCBA", 4),
        Some(b'F') => (b"XWUTRQPNMLK", 0),
        Some(b'G') => (b"XWUTRQPNMLK", 4),
        Some(b'M') => (b"KLJNPQRTUWX", 3),
        _ => return false,
    };
    let rest = (weighted(part(v, 1, 8), &[2, 7, 6, 5, 4, 3, 2]) + offset) % 11;
    let rest = if v.first() == Some(&b'M') { 10 - rest } else { rest };
    v.get(8) == series.get(rest as usize)
}

pub(super) fn hk_id(v: &[u8]) -> bool {
    // A single letter counts as if a blank stood before it.
    let sum = 36 * 9 + weighted(v, &[8, 7, 6, 5, 4, 3, 2]);
    let check = match v.last() {
        Some(b'A') => 10,
        Some(digit) if digit.is_ascii_digit() => value(*digit),
        _ => return false,
    };
    (sum + check).is_multiple_of(11)
}

pub(super) fn tw_id(v: &[u8]) -> bool {
    const ORDER: &[u8; 26] = b"ABCDEFGHJKLMNPQRSTUVXYWZIO";
    let Some(letter) = v.first().and_then(|first| ORDER.iter().position(|other| other == first))
    else {
        return false;
    };
    let Ok(letter) = u32::try_from(letter + 10) else { return false };
    let sum =
        letter / 10 + letter % 10 * 9 + weighted(part(v, 1, 10), &[8, 7, 6, 5, 4, 3, 2, 1, 1]);
    matches!(at(v, 1), 1 | 2 | 8 | 9) && sum.is_multiple_of(10)
}

pub(super) fn tr_identity(v: &[u8]) -> bool {
    let odd: u32 = (0..9).step_by(2).map(|index| at(v, index)).sum();
    let even: u32 = (1..8).step_by(2).map(|index| at(v, index)).sum();
    let all: u32 = (0..10).map(|index| at(v, index)).sum();
    at(v, 0) != 0 && (odd * 7 + 100 - even) % 10 == at(v, 9) && all % 10 == at(v, 10)
}

pub(super) fn za_id(v: &[u8]) -> bool {
    is_year_month_day(v) && matches!(at(v, 10), 0..=2) && luhn(v)
}

pub(super) fn th_id(v: &[u8]) -> bool {
    let sum = weighted(part(v, 0, 12), &[13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2]);
    matches!(at(v, 0), 1..=8) && (11 - sum % 11) % 10 == at(v, 12)
}

pub(super) fn in_aadhaar(v: &[u8]) -> bool {
    at(v, 0) >= 2 && is_mixed(v) && verhoeff(v)
}

pub(super) fn jp_my_number(v: &[u8]) -> bool {
    let rest = weighted(part(v, 0, 11), &[6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11;
    is_mixed(v) && (if rest < 2 { 0 } else { 11 - rest }) == at(v, 11)
}

pub(super) fn au_tfn(v: &[u8]) -> bool {
    is_mixed(v) && weighted(v, &[1, 4, 3, 7, 5, 8, 6, 9, 10]).is_multiple_of(11)
}

pub(super) fn au_medicare(v: &[u8]) -> bool {
    let sum = weighted(part(v, 0, 8), &[1, 3, 7, 9, 1, 3, 7, 9]);
    matches!(at(v, 0), 2..=6) && sum % 10 == at(v, 8)
}

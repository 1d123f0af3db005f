//! The sums of identifiers of Europe.

use super::sums::{
    at, is_day, is_day_month_year, is_mixed, is_year_month_day, luhn, mod_11_10, number, part,
    value, weighted,
};

pub(super) fn it_fiscal_code(v: &[u8]) -> bool {
    const ODD: [u32; 26] = [
        1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24,
        23,
    ];
    let order = |byte: u8| if byte.is_ascii_digit() { value(byte) } else { value(byte) - 10 };
    let sum: u32 = part(v, 0, 15)
        .iter()
        .enumerate()
        .map(|(index, byte)| match index % 2 {
            0 => ODD.get(order(*byte) as usize).copied().unwrap_or_default(),
            _ => order(*byte),
        })
        .sum();
    // Digits may be replaced by letters where two people would have the same code.
    let digits = [6, 7, 9, 10, 12, 13, 14];
    let replaced = |byte: &u8| byte.is_ascii_digit() || b"LMNPQRSTUV".contains(byte);
    digits.iter().all(|index| v.get(*index).is_some_and(replaced))
        && v.get(8).is_some_and(|month| b"ABCDEHLMPRST".contains(month))
        && at(v, 15) == sum % 26 + 10
}

pub(super) fn ch_ahv(v: &[u8]) -> bool {
    let sum = weighted(part(v, 0, 12), &[1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3]);
    v.starts_with(b"756") && (10 - sum % 10) % 10 == at(v, 12)
}

pub(super) fn fr_nir(v: &[u8]) -> bool {
    let month = number(part(v, 3, 5));
    // Corsica's departments count as 19 and 18.
    let (place, known) = match part(v, 5, 7) {
        b"2A" => (19, true),
        b"2B" => (18, true),
        digits => (number(digits), digits.iter().all(u8::is_ascii_digit)),
    };
    let whole = (number(part(v, 0, 5)) * 100 + place) * 1_000_000 + number(part(v, 7, 13));
    known
        && matches!(at(v, 0), 1..=4 | 7 | 8)
        && matches!(month, 1..=12 | 20..=42 | 50..=99)
        && 97 - whole % 97 == number(part(v, 13, 15))
}

pub(super) fn fi_hetu(v: &[u8]) -> bool {
    let digits: Vec<u8> = v.iter().copied().filter(u8::is_ascii_digit).collect();
    let value = number(part(&digits, 0, 9));
    is_day_month_year(v)
        && v.last() == b"0123456789ABCDEFHJKLMNPRSTUVWXY".get((value % 31) as usize)
}

pub(super) fn be_national_number(v: &[u8]) -> bool {
    let (birth, check) = (number(part(v, 0, 9)), number(part(v, 9, 11)));
    let month = number(part(v, 2, 4)) % 20;
    // Those born from 2000 on count with a 2 in front.
    let holds = 97 - birth % 97 == check || 97 - (2_000_000_000 + birth) % 97 == check;
    holds && month <= 12 && number(part(v, 4, 6)) <= 31
}

pub(super) fn de_social_security(v: &[u8]) -> bool {
    let letter = at(v, 8).saturating_sub(9);
    let mut digits: Vec<u32> = part(v, 0, 8).iter().map(|byte| value(*byte)).collect();
    digits.extend([letter / 10, letter % 10, at(v, 9), at(v, 10)]);
    let sum: u32 = digits
        .iter()
        .zip([2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1])
        .map(|(digit, weight)| digit * weight)
        .map(|product| product / 10 + product % 10)
        .sum();
    let day = number(part(v, 2, 4)) % 50;
    (1..=31).contains(&day) && matches!(number(part(v, 4, 6)), 1..=12) && sum % 10 == at(v, 11)
}

pub(super) fn uk_nino(v: &[u8]) -> bool {
    let never = |letter: &u8| b"DFIQUV".contains(letter);
    let withheld: [&[u8]; 7] = [b"BG", b"GB", b"KN", b"NK", b"NT", b"TN", b"ZZ"];
    !part(v, 0, 2).iter().any(never)
        && v.get(1) != Some(&b'O')
        && !withheld.contains(&part(v, 0, 2))
        && matches!(v.get(8), Some(b'A'..=b'D'))
}

fn spanish(number: u64) -> Option<&'static u8> {
    b"TRWAGMYFPDXBNJZSQVHLCKE".get((number % 23) as usize)
}

pub(super) fn es_dni(v: &[u8]) -> bool {
    v.last() == spanish(number(part(v, 0, 8)))
}

pub(super) fn es_nie(v: &[u8]) -> bool {
    let first = match v.first() {
        Some(b'X') => 0,
        Some(b'Y') => 1,
        Some(b'Z') => 2,
        _ => return false,
    };
    v.last() == spanish(first * 10_000_000 + number(part(v, 1, 8)))
}

pub(super) fn no_national_id(v: &[u8]) -> bool {
    let day = number(part(v, 0, 2)) % 40;
    let month = number(part(v, 2, 4)) % 40;
    let digit = |weights: &[u32]| (11 - weighted(v, weights) % 11) % 11;
    is_day(month, day)
        && digit(&[3, 7, 6, 1, 8, 9, 4, 5, 2]) == at(v, 9)
        && digit(&[5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) == at(v, 10)
}

pub(super) fn se_personal_number(v: &[u8]) -> bool {
    let digits: Vec<u8> = v.iter().copied().filter(u8::is_ascii_digit).collect();
    let short = part(&digits, digits.len().saturating_sub(10), digits.len());
    let century = digits.len() == 10 || matches!(number(part(&digits, 0, 2)), 18..=20);
    // Coordination numbers have 60 added to the day.
    century && is_day(number(part(short, 2, 4)), number(part(short, 4, 6)) % 60) && luhn(short)
}

pub(super) fn cz_birth_number(v: &[u8]) -> bool {
    // Women have 50 added to the month, and either may have 20 more.
    let month = number(part(v, 2, 4)) % 50 % 20;
    is_day(month, number(part(v, 4, 6))) && number(v).is_multiple_of(11)
}

pub(super) fn uk_nhs(v: &[u8]) -> bool {
    let check = 11 - weighted(part(v, 0, 9), &[10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    is_mixed(v) && check % 11 == at(v, 9)
}

pub(super) fn de_tax_id(v: &[u8]) -> bool {
    // One digit of the first ten comes twice or three times, and no other does.
    let count = |digit: u8| part(v, 0, 10).iter().filter(|byte| **byte == digit).count();
    let repeated = (b'0'..=b'9').filter(|digit| count(*digit) > 1);
    at(v, 0) != 0
        && repeated.count() == 1
        && (b'0'..=b'9').all(|digit| count(digit) <= 3)
        && mod_11_10(v)
}

pub(super) fn nl_bsn(v: &[u8]) -> bool {
    let sum = weighted(part(v, 0, 8), &[9, 8, 7, 6, 5, 4, 3, 2]);
    is_mixed(v) && sum % 11 == at(v, 8)
}

pub(super) fn pl_pesel(v: &[u8]) -> bool {
    let sum = weighted(part(v, 0, 10), &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]);
    // The century is in the month.
    is_day(number(part(v, 2, 4)) % 20, number(part(v, 4, 6))) && (10 - sum % 10) % 10 == at(v, 10)
}

pub(super) fn pt_nif(v: &[u8]) -> bool {
    let rest = weighted(part(v, 0, 8), &[9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    let check = if rest < 2 { 0 } else { 11 - rest };
    (matches!(at(v, 0), 1..=3 | 5..=9) || v.starts_with(b"45")) && is_mixed(v) && check == at(v, 8)
}

pub(super) fn at_social_security(v: &[u8]) -> bool {
    let sum = weighted(v, &[3, 7, 9, 0, 5, 8, 4, 2, 1, 6]);
    at(v, 0) != 0 && sum % 11 == at(v, 3) && is_day(number(part(v, 6, 8)), number(part(v, 4, 6)))
}

pub(super) fn ie_pps(v: &[u8]) -> bool {
    let second = match v.get(8) {
        Some(b'W') | None => 0,
        Some(letter @ b'A'..=b'I') => value(*letter) - 9,
        Some(_) => return false,
    };
    let sum = (weighted(part(v, 0, 7), &[8, 7, 6, 5, 4, 3, 2]) + second * 9) % 23;
    v.get(7) == b"WABCDEFGHIJKLMNOPQRSTUV".get(sum as usize)
}

pub(super) fn ro_cnp(v: &[u8]) -> bool {
    let rest = weighted(part(v, 0, 12), &[2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9]) % 11;
    at(v, 0) != 0
        && is_year_month_day(part(v, 1, 7))
        && (if rest == 10 { 1 } else { rest }) == at(v, 12)
}

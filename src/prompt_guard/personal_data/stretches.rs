//! The stretches of a text in which a number may stand. One pass finds them, and no pattern looks at the rest.

use std::ops::Range;

use crate::prompt_guard::search;

/// Stretches of a text, in order.
#[derive(Debug, Default)]
pub(super) struct Stretches {
    /// Digits with at most three blanks, brackets, dots, dashes or strokes between one and the next, enough for a number
    /// of any kind.
    numbers: Vec<Number>,
    /// Hexadecimal digits, colons and dots, enough for an address of the Internet protocol.
    pub(super) addresses: Vec<Range<usize>>,
    /// Where the first word begins that goes on with two digits after two letters.
    pub(super) account: Option<usize>,
}

#[derive(Debug, Default)]
struct Number {
    range: Range<usize>,
    digits: usize,
}

#[derive(Default)]
struct Address {
    start: usize,
    colons: usize,
    dots: usize,
}

impl Stretches {
    pub(super) fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut found = Self::default();
        let (mut number, mut address) = (Number::default(), Address::default());
        let mut at = 0;
        loop {
            if number.digits == 0 && address.colons + address.dots == 0 {
                // Nothing has begun but hexadecimal digits.
                let rest = bytes.get(at..).unwrap_or_default();
                let skipped = search::find(rest, begins).unwrap_or(rest.len());
                let head = rest.iter().take(skipped).rev();
                let digits = head.take_while(|byte| byte.is_ascii_hexdigit()).count();
                at += skipped;
                if digits < skipped {
                    address.start = at - digits;
                }
            }
            let Some(byte) = bytes.get(at) else { break };
            match byte {
                b'0'..=b'9' => {
                    if number.digits == 0 {
                        number.range.start = at;
                        found.account = found.account.or_else(|| account(bytes, at));
                    }
                    number.range.end = at + 1;
                    number.digits += 1;
                }
                b' ' | b'(' | b')' | b'.' | b'/' | b'-' if at < number.range.end + GAP => {}
                _ if number.digits > 0 => found.end_number(&mut number),
                _ => {}
            }
            match byte {
                b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' => {}
                b':' => address.colons += 1,
                b'.' => address.dots += 1,
                _ => found.end_address(&mut address, at),
            }
            at += 1;
        }
        found.end_number(&mut number);
        found.end_address(&mut address, bytes.len());
        found
    }

    /// Where what has this many digits may stand, with so many bytes before its first one.
    pub(super) fn of_digits(
        &self,
        fewest: usize,
        before: usize,
    ) -> impl Iterator<Item = Range<usize>> {
        let numbers = self.numbers.iter().filter(move |number| number.digits >= fewest);
        numbers.map(move |Number { range, .. }| range.start.saturating_sub(before)..range.end)
    }

    fn end_number(&mut self, number: &mut Number) {
        let ended = std::mem::take(number);
        if ended.digits >= FEWEST {
            self.numbers.push(ended);
        }
    }

    fn end_address(&mut self, address: &mut Address, end: usize) {
        if address.colons + address.dots > 0 {
            if address.colons >= 2 || address.dots >= 3 {
                self.addresses.push(address.start..end);
            }
            (address.colons, address.dots) = (0, 0);
        }
        address.start = end + 1;
    }
}

/// Whether a number or a sign in an address begins with this byte.
const fn begins(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b':' | b'.')
}

/// Where the two letters stand that a number with its first digit here may begin with.
fn account(bytes: &[u8], digit: usize) -> Option<usize> {
    let start = digit.checked_sub(2)?;
    let before = start.checked_sub(1).and_then(|before| bytes.get(before));
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let letters = bytes.get(start..digit)?.iter().all(u8::is_ascii_alphabetic);
    let begins = letters
        && !before.is_some_and(is_word)
        && bytes.get(digit + 1).is_some_and(u8::is_ascii_digit);
    begins.then_some(start)
}

/// Signs between two digits.
const GAP: usize = 3;
/// Digits of the shortest number that is looked for.
const FEWEST: usize = 7;

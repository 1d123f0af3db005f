//! National identifiers with check digits or a form of their own.

mod america;
mod asia;
mod europe;
mod sums;
mod table;

use std::ops::Range;

use self::table::IDENTIFIERS;
use super::{Candidate, words::Words};
use crate::prompt_guard::search;

/// An identifier that a state gives its people.
#[derive(Debug)]
pub(super) struct Identifier {
    pub(super) rule: &'static str,
    /// How it is written: `0` is a digit, `A` a letter, `*` either, anything else itself.
    forms: &'static [&'static str],
    /// Whether its letters, in capitals, and digits are sound.
    sound: fn(&[u8]) -> bool,
    /// Words of which one has to stand near by if the form alone does not say enough.
    words: Words,
    /// The score without such a word; 0 for those that are nothing without.
    alone: f32,
}

/// The score next to one of its words.
const NAMED: f32 = 0.92;

/// Which forms to try, by how many digits or letters a value begins with: of more than seventy, two or three.
#[derive(Debug)]
pub(super) struct Index {
    digits: [Vec<Form>; 20],
    letters: [Vec<Form>; 8],
    /// Those that may go on with either.
    either: Vec<Form>,
}

type Form = (&'static Identifier, &'static str);

impl Index {
    pub(super) fn new() -> Self {
        let mut index =
            Self { digits: Default::default(), letters: Default::default(), either: Vec::new() };
        for identifier in IDENTIFIERS {
            for form in identifier.forms {
                let (digits, letters) =
                    (leading(form, |b| b == b'0'), leading(form, |b| b == b'A'));
                let list = match form.as_bytes().get(digits + letters) {
                    Some(b'*') => &mut index.either,
                    _ => match (index.digits.get_mut(digits), index.letters.get_mut(letters)) {
                        (Some(list), _) if digits > 0 => list,
                        (_, Some(list)) => list,
                        _ => &mut index.either,
                    },
                };
                list.push((identifier, form));
            }
        }
        index
    }

    /// Calls `found` for each identifier in a text. They may overlap.
    pub(super) fn scan(&self, text: &str, mut found: impl FnMut(&'static str, f32, Range<usize>)) {
        let bytes = text.as_bytes();
        let mut at = 0;
        // Every identifier has a digit within the letters that it begins with.
        while let Some(ahead) =
            bytes.get(at..).and_then(|rest| search::find(rest, |byte| byte.is_ascii_digit()))
        {
            let digit = at + ahead;
            let head = bytes.get(..digit).unwrap_or_default().iter().rev().take(MOST_LETTERS + 1);
            let letters = head.take_while(|byte| byte.is_ascii_alphanumeric()).count();
            if letters <= MOST_LETTERS {
                self.try_at(text, digit - letters, &mut found);
                // `AB 12 34 56 C`: letters that stand by themselves.
                let spaced = bytes.get(..digit - letters).and_then(|before| {
                    before.strip_suffix(b" ").or_else(|| before.strip_suffix(b"-"))
                });
                let word = spaced.map_or(0, |before| {
                    before.iter().rev().take(3).take_while(|b| b.is_ascii_alphabetic()).count()
                });
                if matches!(word, 1 | 2) {
                    self.try_at(text, digit - letters - 1 - word, &mut found);
                }
            }
            let run = bytes.get(digit..).unwrap_or_default();
            at = digit + run.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        }
    }

    fn try_at(
        &self,
        text: &str,
        start: usize,
        found: &mut impl FnMut(&'static str, f32, Range<usize>),
    ) {
        let rest = text.get(start..).unwrap_or_default();
        let (digits, letters) = (
            leading(rest, |byte| byte.is_ascii_digit()),
            leading(rest, |byte| byte.is_ascii_alphabetic()),
        );
        let forms = if digits > 0 { self.digits.get(digits) } else { self.letters.get(letters) };
        let lead = if digits > 0 { digits } else { letters };
        let goes_on =
            |(_, form): &&Form| match (form.as_bytes().get(lead), rest.as_bytes().get(lead)) {
                (Some(expected), Some(byte)) => fits(*expected, *byte),
                (expected, _) => expected.is_none(),
            };
        let forms = forms.into_iter().flatten().filter(goes_on);
        let mut value = Value::default();
        for (identifier, form) in forms.chain(&self.either) {
            let Some(length) = value.read(rest.as_bytes(), form) else { continue };
            let around = Candidate { text, range: start..start + length };
            let marked = matches!(around.before(), Some('_' | '$' | '#' | '@'));
            if marked
                || around.is_inside_word(around.range.end)
                || !(identifier.sound)(value.as_slice())
            {
                continue;
            }
            let score = if around.is_near(&identifier.words) { NAMED } else { identifier.alone };
            if score > 0.0 {
                found(identifier.rule, score, around.range);
            }
        }
    }
}

/// How many bytes of this kind a text begins with.
fn leading(text: &str, kind: impl Fn(u8) -> bool) -> usize {
    text.bytes().take(24).take_while(|byte| kind(*byte)).count()
}

/// Whether a byte may stand where a form has this one.
const fn fits(expected: u8, byte: u8) -> bool {
    match expected {
        b'0' => byte.is_ascii_digit(),
        b'A' => byte.is_ascii_alphabetic(),
        b'*' => byte.is_ascii_alphanumeric(),
        other => byte == other,
    }
}

/// The letters before the first digit of a fiscal code.
const MOST_LETTERS: usize = 6;

/// The letters and digits of an identifier.
#[derive(Default)]
struct Value {
    bytes: [u8; 20],
    length: usize,
}

impl Value {
    /// Reads what has this form: its length in the text.
    fn read(&mut self, text: &[u8], form: &str) -> Option<usize> {
        self.length = 0;
        if text.len() < form.len() {
            return None;
        }
        for (byte, expected) in text.iter().zip(form.bytes()) {
            if !fits(expected, *byte) {
                return None;
            }
            if matches!(expected, b'0' | b'A' | b'*' | b'+') || byte.is_ascii_alphanumeric() {
                *self.bytes.get_mut(self.length)? = byte.to_ascii_uppercase();
                self.length += 1;
            }
        }
        Some(form.len())
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;

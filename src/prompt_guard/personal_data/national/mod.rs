//! National identifiers with check digits or a form of their own.

mod america;
mod asia;
mod europe;
mod sums;
mod table;

use std::ops::Range;

use self::table::IDENTIFIERS;
use super::Candidate;

/// An identifier that a state gives its people.
#[derive(Debug)]
pub(super) struct Identifier {
    pub(super) rule: &'static str,
    /// How it is written: `0` is a digit, `A` a letter, `*` either, anything else itself.
    forms: &'static [&'static str],
    /// Whether its letters, in capitals, and digits are sound.
    sound: fn(&[u8]) -> bool,
    /// Words of which one has to stand near by if the form alone does not say enough.
    words: &'static [&'static str],
    /// The score without such a word; 0 for those that are nothing without.
    alone: f32,
}

/// The score next to one of its words.
const NAMED: f32 = 0.92;

/// Calls `found` for each identifier in a text. They may overlap.
pub(super) fn scan(text: &str, mut found: impl FnMut(&'static str, f32, Range<usize>)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    // Every identifier has a digit within the letters that it begins with.
    while let Some(ahead) =
        bytes.get(at..).and_then(|rest| rest.iter().position(u8::is_ascii_digit))
    {
        let digit = at + ahead;
        let head = bytes.get(..digit).unwrap_or_default().iter().rev().take(MOST_LETTERS + 1);
        let letters = head.take_while(|byte| byte.is_ascii_alphanumeric()).count();
        if letters <= MOST_LETTERS {
            try_at(text, digit - letters, &mut found);
            // `AB 12 34 56 C`: letters that stand by themselves.
            let spaced = bytes.get(..digit - letters).and_then(|before| before.strip_suffix(b" "));
            let word = spaced.map_or(0, |before| {
                before.iter().rev().take(3).take_while(|byte| byte.is_ascii_alphabetic()).count()
            });
            if word == 2 {
                try_at(text, digit - letters - 3, &mut found);
            }
        }
        let run = bytes.get(digit..).unwrap_or_default();
        at = digit + run.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    }
}

/// The letters before the first digit of a fiscal code.
const MOST_LETTERS: usize = 6;

fn try_at(text: &str, start: usize, found: &mut impl FnMut(&'static str, f32, Range<usize>)) {
    let bytes = text.as_bytes();
    if matches!(bytes.get(..start), Some([.., b'_' | b'$' | b'#' | b'@'])) {
        return;
    }
    for identifier in IDENTIFIERS {
        let mut value = Value::default();
        let rest = bytes.get(start..).unwrap_or_default();
        let whole = identifier.forms.iter().find_map(|form| {
            let around = Candidate { text, range: start..start + value.read(rest, form)? };
            (!around.is_inside_word(around.range.end)).then_some(around)
        });
        let Some(around) = whole.filter(|_| (identifier.sound)(value.as_slice())) else { continue };
        let score = if around.is_near(identifier.words) { NAMED } else { identifier.alone };
        if score > 0.0 {
            found(identifier.rule, score, around.range);
        }
    }
}

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
            let fits = match expected {
                b'0' => byte.is_ascii_digit(),
                b'A' => byte.is_ascii_alphabetic(),
                b'*' => byte.is_ascii_alphanumeric(),
                other => *byte == other,
            };
            if !fits {
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

//! Words that tell what a number beside them is.

use std::ops::Range;

/// Words in small letters.
#[derive(Debug)]
pub(super) struct Words {
    all: &'static [&'static str],
    /// The ASCII signs that they begin with, one bit for each: most places in a text are none.
    first: u128,
}

impl Words {
    pub(super) const fn new(all: &'static [&'static str]) -> Self {
        let (mut left, mut first) = (all, 0);
        while let [word, rest @ ..] = left {
            if let [byte @ 0..128, ..] = word.as_bytes() {
                first |= 1 << *byte;
            }
            left = rest;
        }
        Self { all, first }
    }

    /// Whether one of them stands in this part of a text, in any case.
    pub(super) fn stand_in(&self, text: &str, range: Range<usize>) -> bool {
        let mut before = text.get(..range.start).and_then(|text| text.chars().next_back());
        let around = text.get(range).unwrap_or_default();
        around.char_indices().any(|(at, mark)| {
            let begins = !mark.is_ascii() || (self.may_begin(mark) && is_apart(before));
            before = Some(mark);
            begins && self.is_at_start(mark, around.get(at..).unwrap_or_default())
        })
    }

    const fn may_begin(&self, mark: char) -> bool {
        self.first >> (mark.to_ascii_lowercase() as u32 & 127) & 1 == 1
    }

    /// Whether one of them stands at the beginning of a text, whose first sign this is.
    fn is_at_start(&self, mark: char, text: &str) -> bool {
        let first = mark.to_lowercase().next().unwrap_or(mark);
        let mut bytes = [0; 4];
        let first = first.encode_utf8(&mut bytes).as_bytes();
        self.all.iter().filter(|word| word.as_bytes().starts_with(first)).any(|word| {
            // A short word may be a part of any other: it has to stand by itself.
            after(text, word).is_some_and(|rest| {
                word.len() > 4 || !word.is_ascii() || is_apart(rest.chars().next())
            })
        })
    }
}

fn is_apart(mark: Option<char>) -> bool {
    mark.is_none_or(|mark| !mark.is_alphabetic())
}

/// What follows a word, in small letters, at the beginning of a text in any case.
fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let mut rest = text.chars();
    for expected in word.chars() {
        let mark = rest.next()?;
        if mark != expected && !mark.to_lowercase().eq([expected]) {
            return None;
        }
    }
    Some(rest.as_str())
}

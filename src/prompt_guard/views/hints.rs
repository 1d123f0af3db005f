//! One pass over a text that says which disguises are worth undoing.

use std::ops::Range;

use super::words::{self, Fnv, Known, LONGEST, Signature};

/// Which further views may hold something.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Escapes, entities, or a long run of letters and digits.
    pub(super) encoded: bool,
    /// Letters and digits or signs in one word.
    pub(super) leet: bool,
    /// Letters or parts of words with a separator between.
    pub(super) split: bool,
    /// Where words stand that have their inner letters out of order, and what they are.
    pub(super) jumbled: Vec<(usize, &'static str)>,
    /// Words shifted by thirteen letters.
    pub(super) rotated: bool,
    /// Words written backwards.
    pub(super) reversed: bool,
}

/// How many different signs of a shift or reversal it takes.
const EVIDENCE: u32 = 2;
/// The shortest run of letters and digits that may be an encoded text.
pub(super) const LONG_RUN: usize = 16;
/// How many single letters in a row are a spaced-out word.
pub(super) const SPACED_LETTERS: u32 = 4;

impl Hints {
    pub(super) fn of(folded: &str) -> Self {
        let text = folded.as_bytes();
        let mut pass = Pass { text, ..Pass::default() };
        let (mut at, mut previous) = (0, b' ');
        while let Some(rest) = text.get(at..)
            && let Some(byte) = rest.first().copied()
        {
            at += match byte {
                b'a'..=b'z' => {
                    let (length, known) = words::first(rest);
                    pass.word(at..at + length, known);
                    length
                }
                _ => {
                    pass.sign(byte, previous);
                    // Any number of other letters is as one.
                    rest.iter().take_while(|byte| !byte.is_ascii()).count().max(1)
                }
            };
            previous = byte;
        }
        pass.sign(b' ', previous);
        pass.hints
    }
}

#[derive(Default)]
struct Pass<'t> {
    text: &'t [u8],
    hints: Hints,
    run: usize,
    /// Since the last separator that is no letter: letters and others in one word.
    symbols: u32,
    /// The last word and the one before it, as far as single separators join them to what follows.
    joined: [Option<Range<usize>>; 2],
    /// Whether the word before stands in the list.
    common: bool,
    singles: u32,
    digit_groups: u32,
    rotated: u32,
    reversed: u32,
    plain: u32,
}

impl Pass<'_> {
    /// Takes in something that is no letter.
    fn sign(&mut self, byte: u8, previous: u8) {
        match byte {
            b'%' | b'&' | b'\\' => self.hints.encoded = true,
            b'0'..=b'9' | b'+' | b'/' | b'_' => self.go_on(1),
            _ => {
                // Groups such as `69 67 6e` or `01101001 01100111`.
                self.digit_groups = if matches!(self.run, 2 | 4 | 8) {
                    self.digit_groups + 1
                } else if self.run > 0 {
                    0
                } else {
                    self.digit_groups
                };
                self.hints.encoded |= self.digit_groups >= 8;
                self.run = 0;
            }
        }
        match byte {
            b'0'..=b'9' | b'@' | b'$' | b'!' | b'|' => {
                self.hints.leet |= previous.is_ascii_lowercase() || self.symbols > 0;
                self.symbols += 1;
            }
            _ => self.symbols = 0,
        }
        // A single separator joins two parts of a word; anything more ends it.
        if !is_joiner(byte) || !previous.is_ascii_lowercase() {
            self.joined = [None, None];
            if byte != b' ' || !matches!(previous, b' ' | b'a'..=b'z') {
                self.singles = 0;
            }
        }
    }

    /// So many more letters and digits.
    fn go_on(&mut self, length: usize) {
        self.run += length;
        self.hints.encoded |= self.run >= LONG_RUN;
    }

    /// Takes in a word.
    fn word(&mut self, word: Range<usize>, known: Known) {
        self.go_on(word.len());
        self.hints.leet |= self.symbols > 0;
        self.rotated += u32::from(known.rotated);
        self.reversed += u32::from(known.reversed);
        self.plain += u32::from(known.plain >= 4);
        self.hints.rotated = self.rotated >= EVIDENCE && self.rotated > self.plain / 8;
        self.hints.reversed = self.reversed >= EVIDENCE && self.reversed > self.plain / 8;
        if (5..=LONGEST).contains(&word.len()) && known.plain == 0 {
            let letters = self.text.get(word.clone()).unwrap_or_default();
            let jumbled = words::unjumbled(Signature::of(letters));
            self.hints.jumbled.extend(jumbled.map(|jumbled| (word.start, jumbled)));
        }
        let common = known.plain > 0;
        if !(self.common && common) {
            self.hints.split |= self.is_end_of_word(&word);
        }
        self.common = common;
        self.singles = if word.len() == 1 { self.singles + 1 } else { 0 };
        self.hints.split |= self.singles >= SPACED_LETTERS;
        let [last, _] = std::mem::take(&mut self.joined);
        self.joined = [Some(word), last];
    }

    /// Whether it makes a listed word together with what it is joined to.
    fn is_end_of_word(&self, end: &Range<usize>) -> bool {
        let [last, before] = &self.joined;
        let is_word = |parts: &[&Range<usize>]| {
            let mut state = Fnv::default();
            let letters = parts.iter().filter_map(|part| self.text.get((*part).clone())).flatten();
            letters.for_each(|letter| state.push(*letter));
            let length: usize = parts.iter().map(|part| part.len()).sum();
            (5..=LONGEST).contains(&length) && words::known(state.value()).plain >= 5
        };
        match (last, before) {
            (Some(last), Some(before)) => is_word(&[last, end]) || is_word(&[before, last, end]),
            (Some(last), None) => is_word(&[last, end]),
            _ => false,
        }
    }
}

/// What may stand between the parts of a word that was split.
pub(super) const fn is_joiner(byte: u8) -> bool {
    matches!(
        byte,
        b' ' | b'\n'
            | b'.'
            | b'-'
            | b'_'
            | b'*'
            | b'|'
            | b'/'
            | b'\\'
            | b'~'
            | b','
            | b'+'
            | b':'
            | b'\''
            | b'"'
            | b'^'
            | b'#'
            | b'='
    )
}

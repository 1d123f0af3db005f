//! One pass over a text that says which disguises are worth undoing.

use super::words::{self, Fnv, Signature};

/// Which further views may hold something.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hints {
    /// Escapes, entities, or a long run of letters and digits.
    pub(super) encoded: bool,
    /// Letters and digits or signs in one word.
    pub(super) leet: bool,
    /// Letters or parts of words with a separator between.
    pub(super) split: bool,
    /// Words with their inner letters out of order.
    pub(super) jumbled: bool,
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
        let mut pass = Pass::default();
        let mut previous = b' ';
        for byte in folded.bytes() {
            pass.step(byte, previous);
            previous = byte;
        }
        pass.step(b' ', previous);
        pass.step(b' ', b' ');
        pass.hints
    }
}

#[derive(Default)]
struct Pass {
    hints: Hints,
    run: usize,
    letters: u32,
    /// Since the last separator that is no letter: letters and others in one word.
    symbols: u32,
    word: Fnv,
    signature: Signature,
    /// The word before and the two before, joined to this one by single separators.
    pair: Option<Fnv>,
    triple: Option<Fnv>,
    /// Whether the word before stands in the list.
    common: bool,
    singles: u32,
    digit_groups: u32,
    rotated: u32,
    reversed: u32,
    plain: u32,
}

impl Pass {
    fn step(&mut self, byte: u8, previous: u8) {
        match byte {
            b'%' | b'&' | b'\\' => self.hints.encoded = true,
            b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' | b'_' => {
                self.run += 1;
                self.hints.encoded |= self.run >= LONG_RUN;
            }
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
        if byte.is_ascii_lowercase() {
            self.letter(byte);
            return;
        }
        if previous.is_ascii_lowercase() {
            self.end_of_word();
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
            self.pair = None;
            self.triple = None;
            if byte != b' ' || !matches!(previous, b' ' | b'a'..=b'z') {
                self.singles = 0;
            }
        }
    }

    fn letter(&mut self, byte: u8) {
        if self.symbols > 0 {
            self.hints.leet = true;
        }
        self.letters += 1;
        self.word.push(byte);
        self.signature.push(byte);
        if let Some(pair) = &mut self.pair {
            pair.push(byte);
        }
        if let Some(triple) = &mut self.triple {
            triple.push(byte);
        }
    }

    fn end_of_word(&mut self) {
        let known = words::known(self.word.value());
        self.rotated += u32::from(known.rotated);
        self.reversed += u32::from(known.reversed);
        self.plain += u32::from(known.plain >= 4);
        self.hints.rotated = self.rotated >= EVIDENCE && self.rotated > self.plain / 8;
        self.hints.reversed = self.reversed >= EVIDENCE && self.reversed > self.plain / 8;
        self.hints.jumbled |= self.letters >= 5
            && known.plain == 0
            && words::unjumbled(self.signature.value()).is_some();
        let common = known.plain > 0;
        if !(self.common && common) {
            for joined in [self.pair, self.triple].into_iter().flatten() {
                self.hints.split |= words::known(joined.value()).plain >= 5;
            }
        }
        self.common = common;
        self.singles = if self.letters == 1 { self.singles + 1 } else { 0 };
        self.hints.split |= self.singles >= SPACED_LETTERS;
        self.triple = self.pair;
        self.pair = Some(self.word);
        self.word = Fnv::default();
        self.signature = Signature::default();
        self.letters = 0;
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

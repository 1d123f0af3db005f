//! One plain spelling for what can be written in many ways.

use std::{borrow::Cow, ops::Range, sync::Arc};

use unicode_normalization::{
    UnicodeNormalization as _,
    char::{compose, is_combining_mark},
};
use unicode_script::{Script, UnicodeScript as _};

use super::{
    confusables,
    map::{Map, Text, Writer},
};
use crate::prompt_guard::search::BLOCK;

/// Compatibility forms composed (NFKC), invisible characters gone, hidden tag characters made
/// visible, marks off Latin letters, look-alikes folded inside mixed words, white space collapsed.
pub(super) fn canonical<'a>(text: Cow<'a, str>, parent: Option<Arc<Map>>) -> Text<'a> {
    if text.is_ascii() {
        return ascii(text, parent);
    }
    let mut writer = Writer::with_capacity(text.len());
    let mut mixed = false;
    let mut word = Word::default();
    let mut at = 0;
    while let Some(character) = text.get(at..).and_then(|rest| rest.chars().next()) {
        let from = at..at + character.len_utf8();
        at = from.end;
        if character.is_ascii() {
            let plain = plain(&text, from.start);
            mixed |= if plain.is_empty() { word.ends_mixed(character) } else { word.ascii(plain) };
            at = from.start + plain.len().max(1);
            write_plain(&mut writer, plain, character, from.start);
        } else if character == BLACK_FLAG {
            writer.push(character, from);
            let rest = text.get(at..).unwrap_or_default();
            at += rest.chars().take_while(|next| is_tag(*next)).map(char::len_utf8).sum::<usize>();
        } else if let Some(hidden) = tagged(character) {
            write_ascii(&mut writer, hidden, from);
        } else if !is_invisible(character) {
            word.note(character);
            mixed |= word.ends_mixed(character);
            write_other(&mut writer, character, from);
        }
    }
    mixed |= word.is_mixed();
    let text = writer.finish(parent);
    if mixed { fold_mixed(&text) } else { text }
}

/// The common case in one pass.
fn ascii(text: Cow<'_, str>, parent: Option<Arc<Map>>) -> Text<'_> {
    if plain_length(text.as_bytes()) == text.len() {
        let folded = Cow::Owned(text.to_ascii_lowercase());
        return Text::unchanged(text, folded, parent);
    }
    let mut writer = Writer::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.as_bytes().get(at) {
        let plain = plain(&text, at);
        write_plain(&mut writer, plain, char::from(*byte), at);
        at += plain.len().max(1);
    }
    writer.finish(parent)
}

/// The ASCII text at this place that stays as it is, whatever stands before it.
fn plain(text: &str, at: usize) -> &str {
    let rest = text.get(at..).unwrap_or_default();
    if rest.bytes().next().is_some_and(|byte| byte.is_ascii_graphic()) {
        rest.get(..plain_length(rest.as_bytes())).unwrap_or_default()
    } else {
        ""
    }
}

/// How far a text goes on in graphic ASCII characters with single spaces or line breaks between.
fn plain_length(text: &[u8]) -> usize {
    let is_blank = |byte: u8| byte == b' ' || byte == b'\n';
    let is_plain =
        |before: u8, byte: u8| byte.is_ascii_graphic() || is_blank(byte) && !is_blank(before);
    // Block by block, each as a whole.
    let (mut at, mut before) = (0, b'x');
    while let Some(block) = text.get(at..at + BLOCK) {
        let pairs = block.iter().zip(block.iter().skip(1));
        let first = block.first().is_some_and(|first| is_plain(before, *first));
        if !pairs.fold(first, |all, (before, byte)| all & is_plain(*before, *byte)) {
            break;
        }
        at += BLOCK;
        before = block.last().copied().unwrap_or(before);
    }
    let rest = text.get(at..).unwrap_or_default();
    let end = rest.iter().position(|byte| {
        let plain = is_plain(before, *byte);
        before = *byte;
        !plain
    });
    at + end.unwrap_or(rest.len())
}

/// Writes what stays as it is, or if that is nothing the ASCII character in its place.
fn write_plain(writer: &mut Writer, plain: &str, character: char, at: usize) {
    match plain {
        "" => write_ascii(writer, character, at..at + 1),
        plain => writer.push_ascii(plain, at),
    }
}

/// White space becomes one space, or one line break if there is one in it. Control characters go.
fn write_ascii(writer: &mut Writer, character: char, from: Range<usize>) {
    match character {
        '\n' | '\r' => {
            while writer.last() == Some(' ') {
                writer.pop();
            }
            if writer.last() != Some('\n') {
                writer.push('\n', from);
            }
        }
        ' ' | '\t' | '\u{b}' | '\u{c}' => {
            if !matches!(writer.last(), Some(' ' | '\n')) || writer.ends_in_spaced_letter() {
                writer.push(' ', from);
            }
        }
        character if character.is_ascii_control() => {}
        character => writer.push(character, from),
    }
}

fn write_other(writer: &mut Writer, character: char, from: Range<usize>) {
    if is_combining_mark(character) {
        let last = writer.last();
        if is_overlay(character) || last.is_none_or(|last| last.is_ascii() || is_latin(last)) {
            return;
        }
        // Canonical order first: a letter and its mark, as one character where there is one.
        if let Some(whole) = last.and_then(|last| compose(last, character)) {
            let start = from.start.saturating_sub(last.map_or(0, char::len_utf8));
            writer.pop();
            writer.push(whole, start..from.end);
            return;
        }
        writer.push(character, from);
        return;
    }
    if character.is_whitespace() || is_filler(character) {
        let blank =
            if matches!(character, '\u{85}' | '\u{2028}' | '\u{2029}') { '\n' } else { ' ' };
        write_ascii(writer, blank, from);
        return;
    }
    if let Some(letter) = confusables::drawn(character) {
        writer.push(letter, from);
        return;
    }
    if let Some(letters) = confusables::plain(character) {
        letters.chars().for_each(|letter| writer.push(letter, from.clone()));
        return;
    }
    let latin = is_latin(character);
    if latin || character.script() == Script::Common {
        for part in std::iter::once(character).nfkd() {
            if part.is_ascii() {
                write_ascii(writer, part, from.clone());
            } else if let Some(letter) = confusables::drawn(part) {
                writer.push(letter, from.clone());
            } else if !is_combining_mark(part) {
                writer.push(part, from.clone());
            }
        }
        return;
    }
    // Hangul written in parts, and what else composes without a mark.
    if let Some((last, whole)) = writer
        .last()
        .filter(|last| !last.is_ascii())
        .and_then(|last| Some((last, compose(last, character)?)))
    {
        let start = from.start.saturating_sub(last.len_utf8());
        writer.pop();
        writer.push(whole, start..from.end);
        return;
    }
    std::iter::once(character).nfkc().for_each(|part| writer.push(part, from.clone()));
}

fn is_latin(character: char) -> bool {
    character.script() == Script::Latin
}

/// Strokes and slashes laid over letters; no script spells with them.
const fn is_overlay(character: char) -> bool {
    matches!(character, '\u{334}'..='\u{338}' | '\u{20d0}'..='\u{20f0}' | '\u{488}' | '\u{489}')
}

/// Blank, but not white space.
const fn is_filler(character: char) -> bool {
    matches!(character, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{2800}')
}

/// Characters without a shape: zero-width ones, direction controls, variation selectors.
const fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{80}'..='\u{84}'
            | '\u{86}'..='\u{9f}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Opens the flags of England, Scotland and Wales, which are spelled with tag characters.
const BLACK_FLAG: char = '\u{1f3f4}';

const fn is_tag(character: char) -> bool {
    matches!(character, '\u{e0020}'..='\u{e007f}')
}

/// The ASCII character that an invisible tag character stands for.
fn tagged(character: char) -> Option<char> {
    matches!(character, '\u{e0020}'..='\u{e007e}')
        .then(|| char::from_u32(u32::from(character) - 0xe0000))
        .flatten()
}

/// Which scripts the letters of a word come from.
#[derive(Clone, Copy, Default)]
struct Word {
    latin: bool,
    alike: bool,
}

impl Word {
    fn note(&mut self, character: char) {
        if character.is_ascii_alphabetic() {
            self.latin = true;
        } else if !character.is_ascii() && confusables::latin(character).is_some() {
            self.alike = true;
        }
    }

    /// Takes in a stretch of ASCII: whether a word ends in it that was mixed.
    fn ascii(&mut self, text: &str) -> bool {
        let is_border = |character: char| !character.is_ascii_alphanumeric();
        let has_letter = |part: &str| part.bytes().any(|byte| byte.is_ascii_alphabetic());
        let Some((first, rest)) = text.split_once(is_border) else {
            self.latin |= has_letter(text);
            return false;
        };
        let mixed = self.alike && (self.latin || has_letter(first));
        let last = rest.rsplit(is_border).next().unwrap_or_default();
        *self = Self { latin: has_letter(last), alike: false };
        mixed
    }

    const fn is_mixed(self) -> bool {
        self.latin && self.alike
    }

    /// At the end of a word: whether it was mixed.
    fn ends_mixed(&mut self, character: char) -> bool {
        let is_mark = || !character.is_ascii() && is_combining_mark(character);
        if character.is_alphanumeric() || is_mark() {
            return false;
        }
        let mixed = self.is_mixed();
        *self = Self::default();
        mixed
    }
}

/// Folds look-alikes in mixed words, and in words made of nothing else: once one word is disguised,
/// short ones may be disguised throughout.
fn fold_mixed(text: &Text<'_>) -> Text<'static> {
    let mut writer = Writer::with_capacity(text.folded.len());
    let mut letters: Vec<(usize, char)> = Vec::new();
    for (at, character) in text.cased.char_indices().chain([(text.cased.len(), ' ')]) {
        if character.is_alphabetic() {
            letters.push((at, character));
            continue;
        }
        let alike = |letter: char| confusables::latin(letter).is_some();
        let foreign = |letter: char| !letter.is_ascii() && !is_latin(letter);
        let mixed = letters.iter().any(|(_, letter)| letter.is_ascii());
        let fold = letters.iter().any(|(_, letter)| alike(*letter))
            && (mixed || letters.iter().all(|(_, letter)| !foreign(*letter) || alike(*letter)));
        for (at, letter) in letters.drain(..) {
            let folded = if fold && foreign(letter) { confusables::latin(letter) } else { None };
            writer.push(folded.unwrap_or(letter), at..at + letter.len_utf8());
        }
        if at < text.cased.len() {
            writer.push(character, at..at + character.len_utf8());
        }
    }
    writer.finish(Some(Arc::clone(&text.map)))
}

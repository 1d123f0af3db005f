//! Disguises of letters: signs for letters, letters apart, out of order, shifted, backwards.

use std::sync::Arc;

use super::{
    hints::is_joiner,
    map::{Text, Writer},
    words::{self, is_word},
};
use crate::prompt_guard::search;

/// Digits and signs read as the letters they stand for. `None` if that makes no word.
pub(super) fn leet(text: &Text<'_>) -> Option<Text<'static>> {
    let is_plain = |(_, reading): &(usize, String)| reading.len() >= 4 && is_word(reading);
    let words = unleeted(&text.folded, false).filter(is_plain).take(2).count();
    if words == 0 {
        return None;
    }
    let mut writer = Writer::with_capacity(text.folded.len());
    let mut done = 0;
    // Among several such words, numbers may be words too.
    for (at, reading) in unleeted(&text.folded, words > 1) {
        writer.copy(text, done..at);
        writer.replace_each(&reading, at);
        done = at + reading.len();
    }
    writer.copy(text, done..text.folded.len());
    Some(writer.finish(Some(Arc::clone(&text.map))))
}

/// Where words stand in which there are digits and signs, or that are nothing else, and how they read. Neither
/// is longer than the other.
fn unleeted(text: &str, numbers: bool) -> impl Iterator<Item = (usize, String)> {
    leet_pieces(text).filter_map(move |(at, piece)| {
        let (skipped, piece) = marks(text, at, piece);
        let at = at + skipped;
        let word = piece.trim_end_matches(['!', '|']);
        let letters = word.bytes().filter(u8::is_ascii_lowercase).count();
        let may_be =
            letters < word.len() && (letters > 0 || numbers) && !is_address(text, at, piece);
        let reading = may_be.then(|| best_reading(word))?;
        (letters > 0 || is_word(&reading) || reading == "i").then_some((at, reading))
    })
}

/// Stretches of letters, digits and signs that are not letters alone.
fn leet_pieces(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..)?;
        let (head, tail) = rest.split_at(search::find(rest, is_sign)?);
        let before = head.iter().rev().take_while(|byte| is_leet(**byte)).count();
        let after = tail.iter().take_while(|byte| is_leet(**byte)).count();
        let start = at + head.len() - before;
        at += head.len() + after;
        Some((start, text.get(start..at)?))
    })
}

/// Without the bar of a mark such as `<|end|>`: what of the piece to skip, and the rest.
fn marks<'t>(text: &str, at: usize, piece: &'t str) -> (usize, &'t str) {
    let opened = at > 0 && text.as_bytes().get(at - 1) == Some(&b'<');
    match piece.strip_prefix('|').filter(|_| opened) {
        Some(rest) => (1, rest),
        None => (0, piece),
    }
}

/// Whether a piece is the beginning of an e-mail address.
fn is_address(text: &str, at: usize, piece: &str) -> bool {
    let sides = piece.split_once('@').filter(|(user, host)| user.len() > 2 && host.len() > 2);
    sides.is_some() && text.as_bytes().get(at + piece.len()) == Some(&b'.')
}

const fn is_leet(byte: u8) -> bool {
    byte.is_ascii_lowercase() || is_sign(byte)
}

/// Without branches, so that it can be asked of many at once.
const fn is_sign(byte: u8) -> bool {
    byte.is_ascii_digit() | (byte == b'@') | (byte == b'$') | (byte == b'!') | (byte == b'|')
}

/// As it reads with each 1 an i; with each an l, if only that is a word.
fn best_reading(word: &str) -> String {
    let with_i = unleet(word, 'i');
    if is_word(&with_i) || !word.contains(['1', '!', '|']) {
        return with_i;
    }
    Some(unleet(word, 'l')).filter(|with_l| is_word(with_l)).unwrap_or(with_i)
}

fn unleet(word: &str, one: char) -> String {
    word.chars()
        .map(|letter| match letter {
            '0' => 'o',
            '1' | '!' | '|' => one,
            '3' => 'e',
            '4' | '@' => 'a',
            '5' | '$' => 's',
            '7' => 't',
            '8' => 'b',
            '9' => 'g',
            other => other,
        })
        .collect()
}

/// Words whose inner letters are out of order, set right.
pub(super) fn unjumble(text: &Text<'_>, words: &[(usize, &str)]) -> Text<'static> {
    let mut writer = Writer::with_capacity(text.folded.len());
    let mut done = 0;
    for (at, word) in words {
        writer.copy(text, done..*at);
        writer.replace_each(word, *at);
        done = at + word.len();
    }
    writer.copy(text, done..text.folded.len());
    writer.finish(Some(Arc::clone(&text.map)))
}

/// Letters shifted by thirteen.
pub(super) fn rotate(text: &Text<'_>) -> Text<'static> {
    let mut writer = Writer::with_capacity(text.cased.len());
    for (at, character) in text.cased.char_indices() {
        let shifted = match u8::try_from(character) {
            Ok(byte) if byte.is_ascii() => char::from(words::rotate(byte)),
            _ => character,
        };
        writer.push(shifted, at..at + character.len_utf8());
    }
    writer.finish(Some(Arc::clone(&text.map)))
}

/// The text backwards.
pub(super) fn reverse(text: &Text<'_>) -> Text<'static> {
    let mut writer = Writer::with_capacity(text.cased.len());
    writer.reserve(text.cased.chars().count());
    for (at, character) in text.cased.char_indices().rev() {
        writer.push(character, at..at + character.len_utf8());
    }
    writer.finish(Some(Arc::clone(&text.map)))
}

/// Texts in which all characters stand apart, with one separator between. `None` if there are none.
pub(super) fn unspace(text: &Text<'_>) -> Option<Text<'static>> {
    let bytes = text.folded.as_bytes();
    let mut writer = Writer::with_capacity(text.folded.len());
    let mut copied = 0;
    let mut at = 0;
    while at + 2 < bytes.len() {
        let Some((end, worth)) = apart(bytes, at) else {
            at += 1;
            continue;
        };
        if !worth {
            // From a later place in it the same is found.
            at = end;
            continue;
        }
        writer.copy(text, copied..at);
        let separator = bytes.get(at + 1).copied().unwrap_or(b' ');
        let mut index = at;
        while let Some(byte) = bytes.get(index).copied().filter(|_| index < end) {
            writer.replace(char::from(byte), index..index + 1);
            index += 1;
            let is = |at: usize, wanted| at < end && bytes.get(at) == Some(&wanted);
            if is(index, separator) {
                // Three blanks are the gap between two words.
                let gap = separator == b' ' && is(index + 1, b' ');
                if gap {
                    writer.replace(' ', index..index + 1);
                }
                index += if gap { 2 } else { 1 };
            }
        }
        copied = end;
        at = end;
    }
    (copied > 0).then(|| {
        writer.copy(text, copied..text.folded.len());
        writer.finish(Some(Arc::clone(&text.map)))
    })
}

/// The end of a stretch in which every other byte is the same separator; words in it may be apart by
/// a space. And whether it is long, and says where words end.
fn apart(bytes: &[u8], start: usize) -> Option<(usize, bool)> {
    let get = |at: usize| bytes.get(at).copied();
    let separator = get(start + 1).filter(|byte| is_joiner(*byte))?;
    let plain = |at: usize| get(at).filter(|byte| byte.is_ascii_graphic() && *byte != separator);
    plain(start)?;
    let (mut at, mut pairs, mut gaps) = (start, 0, 0);
    loop {
        if get(at + 1) == Some(separator) && plain(at + 2).is_some() {
            pairs += 1;
            at += 2;
        } else if separator == b' '
            && get(at + 1) == Some(b' ')
            && get(at + 2) == Some(b' ')
            && plain(at + 3).is_some()
        {
            gaps += 1;
            at += 3;
        } else if separator != b' '
            && get(at + 1) == Some(b' ')
            && plain(at + 2).is_some()
            && (get(at + 3) == Some(separator) || matches!(get(at + 3), None | Some(b' ')))
        {
            gaps += 1;
            at += 2;
        } else {
            break;
        }
    }
    Some((at + 1, pairs >= 8 && gaps > 0 && pairs > gaps))
}

/// Words whose letters or parts stand apart, joined.
pub(super) fn join(text: &Text<'_>) -> Text<'static> {
    let mut writer = Writer::with_capacity(text.folded.len());
    let mut chain: Vec<(usize, &str)> = Vec::new();
    for (at, piece, inside) in pieces(&text.folded, |byte| byte.is_ascii_lowercase()) {
        match piece.as_bytes() {
            _ if inside => chain.push((at, piece)),
            // A single separator may stand inside a word; what is around it decides.
            [joiner] if is_joiner(*joiner) && !chain.is_empty() => {}
            _ => {
                write_chain(&mut writer, text, &chain, at);
                chain.clear();
                // The wide gap between spaced-out words, as an ordinary one.
                let length = if piece == "  " { 1 } else { piece.len() };
                writer.copy(text, at..at + length);
            }
        }
    }
    write_chain(&mut writer, text, &chain, text.folded.len());
    writer.finish(Some(Arc::clone(&text.map)))
}

/// Writes parts that single separators joined, up to `end`: as words where they make words, else as
/// they were.
fn write_chain(writer: &mut Writer, text: &Text<'_>, chain: &[(usize, &str)], end: usize) {
    let mut rest = chain;
    while let Some((at, _)) = rest.first() {
        let count = match spaced_letters(text, rest) {
            letters if letters == chain.len() => letters,
            letters if letters >= 4 => letters,
            letters if letters >= 2 && separator(text, rest) != Some(b' ') => letters,
            _ => parts_of_one_word(text, rest),
        };
        let (parts, others) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        let next = others.first().map_or(end, |(next, _)| *next);
        if parts.len() > 1 {
            write_joined(writer, parts);
            let last = parts.last().map_or(next, |(at, part)| at + part.len());
            // What follows the word, a separator that hid its end or an ordinary one.
            writer.copy(text, last..next);
        } else {
            writer.copy(text, *at..next);
        }
        rest = others;
    }
}

/// What stands after the first part.
fn separator(text: &Text<'_>, parts: &[(usize, &str)]) -> Option<u8> {
    let (at, part) = parts.first()?;
    text.folded.as_bytes().get(at + part.len()).copied()
}

/// How many of the first parts are single letters with the same separator between.
fn spaced_letters(text: &Text<'_>, parts: &[(usize, &str)]) -> usize {
    let first = separator(text, parts);
    let mut count = 0;
    for (at, part) in parts {
        if part.len() != 1 {
            break;
        }
        count += 1;
        if text.folded.as_bytes().get(at + 1).copied() != first {
            break;
        }
    }
    count
}

/// How many of the first parts make one word: a listed one of five letters or more, or whatever a
/// mark that seldom stands inside words holds together. 1 if none do.
fn parts_of_one_word(text: &Text<'_>, parts: &[(usize, &str)]) -> usize {
    let mut state = words::Fnv::default();
    let mut length = 0;
    let mut listed = 1;
    let mut marked = 1;
    let mut common = true;
    let mut held = true;
    for (index, (at, part)) in parts.iter().enumerate().take(16) {
        part.bytes().for_each(|byte| state.push(byte));
        length += part.len();
        if length > 20 {
            break;
        }
        common &= is_word(part);
        // Two words side by side are two words, even if they make a third.
        if index > 0 && !common {
            if words::known(state.value()).plain >= 5 {
                listed = index + 1;
            }
            if held {
                marked = index + 1;
            }
        }
        let mark = text.folded.as_bytes().get(at + part.len());
        held &= matches!(mark, Some(b'-' | b'.' | b'_' | b'*' | b'~' | b'|' | b'\\' | b'^'));
    }
    if listed > 1 { listed } else { marked }
}

fn write_joined(writer: &mut Writer, parts: &[(usize, &str)]) {
    let letters: Vec<(usize, char)> = parts
        .iter()
        .flat_map(|(at, part)| {
            part.char_indices().map(move |(offset, letter)| (at + offset, letter))
        })
        .collect();
    let joined: String = letters.iter().map(|(_, letter)| *letter).collect();
    let mut borders = borders(&joined).into_iter().peekable();
    for (index, (at, letter)) in letters.iter().enumerate() {
        if borders.next_if_eq(&index).is_some() {
            writer.replace(' ', *at..*at);
        }
        writer.replace(*letter, *at..at + 1);
    }
}

/// Where words begin in a text that lost the gaps between them: none in a word, or in what is short
/// and is not made of listed words alone.
fn borders(joined: &str) -> Vec<usize> {
    if is_word(joined) {
        return Vec::new();
    }
    let mut borders = Vec::new();
    let mut all_known = true;
    let mut unknown = false;
    let mut at = 0;
    while at < joined.len() {
        let known = joined
            .get(at..)
            .and_then(words::longest_prefix)
            .filter(|length| *length > 1 || at + 1 == joined.len());
        if at > 0 && (known.is_some() || !unknown) {
            borders.push(at);
        }
        unknown = known.is_none();
        all_known &= !unknown;
        at += known.unwrap_or(1);
    }
    if all_known || joined.len() > 16 { borders } else { Vec::new() }
}

/// Cuts a text into stretches inside and outside a class of ASCII bytes.
fn pieces(
    text: &str,
    class: impl Fn(u8) -> bool + Copy,
) -> impl Iterator<Item = (usize, &str, bool)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..)?;
        let inside = class(*rest.as_bytes().first()?);
        let length = rest.bytes().position(|byte| class(byte) != inside).unwrap_or(rest.len());
        let piece = rest.get(..length)?;
        let start = at;
        at += length;
        Some((start, piece, inside))
    })
}

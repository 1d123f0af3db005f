//! Encodings that carry text: undone where they stand, so that what is around stays in view.

use std::sync::Arc;

use super::{
    hints::LONG_RUN,
    map::{Text, Writer},
};

/// Undoes every encoding whose content is plausible text, at most `budget` bytes of it. `None` if
/// there is none.
pub(super) fn decode(text: &Text<'_>, budget: usize) -> Option<Text<'static>> {
    let mut writer = Writer::with_capacity(text.cased.len());
    let mut copied = 0;
    let mut at = 0;
    let mut spent = 0;
    while let Some((start, rest)) = next(&text.cased, at) {
        let (length, decoded) = candidate(rest);
        at = start + length;
        if let Some(decoded) = decoded.filter(|decoded| spent + decoded.len() <= budget) {
            spent += decoded.len();
            writer.copy(text, copied..start);
            decoded.chars().for_each(|character| writer.push(character, start..at));
            copied = at;
        }
    }
    (spent > 0).then(|| {
        writer.copy(text, copied..text.cased.len());
        writer.finish(Some(Arc::clone(&text.map)))
    })
}

/// Where the next candidate may begin.
fn next(text: &str, at: usize) -> Option<(usize, &str)> {
    let begins = |byte: u8| is_base64(byte) || matches!(byte, b'%' | b'&' | b'\\');
    let start = at + text.get(at..)?.bytes().position(begins)?;
    Some((start, text.get(start..)?))
}

/// What `rest` begins with: how far it goes, and what it holds if it is encoded.
fn candidate(rest: &str) -> (usize, Option<String>) {
    let encoded = match rest.as_bytes() {
        [b'%', ..] => escapes(rest, |rest| Some((hex_byte(rest.get(1..3)?)?, 3))),
        [b'&', ..] => entity(rest),
        [b'\\', b'x', ..] => {
            escapes(rest, |rest| Some((hex_byte(rest.strip_prefix("\\x")?.get(..2)?)?, 4)))
        }
        [b'\\', ..] => unicode_escape(rest),
        _ => return run(rest),
    };
    encoded.unwrap_or((1, None))
}

const fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

/// Consecutive escapes of one byte each.
fn escapes(
    rest: &str,
    one: impl Fn(&str) -> Option<(u8, usize)>,
) -> Option<(usize, Option<String>)> {
    let mut bytes = Vec::new();
    let mut at = 0;
    while let Some((byte, length)) = rest.get(at..).and_then(&one) {
        bytes.push(byte);
        at += length;
    }
    (at > 0).then(|| (at, String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))))
}

fn hex_byte(digits: &str) -> Option<u8> {
    digits
        .bytes()
        .all(|byte| byte.is_ascii_hexdigit())
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

fn entity(rest: &str) -> Option<(usize, Option<String>)> {
    let end = rest.bytes().take(12).position(|byte| byte == b';')?;
    let name = rest.get(1..end)?;
    let character = match name.strip_prefix('#') {
        Some(number) => {
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)?
        }
        None => match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            "nbsp" => ' ',
            "shy" | "zwj" | "zwnj" => '\u{200b}',
            "NewLine" => '\n',
            "Tab" => '\t',
            _ => return None,
        },
    };
    Some((end + 1, Some(character.to_string())))
}

/// `\uXXXX`, with surrogate pairs, and `\u{X}`.
fn unicode_escape(rest: &str) -> Option<(usize, Option<String>)> {
    let after = rest.strip_prefix("\\u").or_else(|| rest.strip_prefix("\\U"))?;
    if let Some(braced) = after.strip_prefix('{') {
        let end = braced.bytes().take(7).position(|byte| byte == b'}')?;
        let character = char::from_u32(u32::from_str_radix(braced.get(..end)?, 16).ok()?)?;
        return Some((end + 4, Some(character.to_string())));
    }
    let mut units = Vec::new();
    let mut at = 0;
    while let Some(unit) = rest
        .get(at..)
        .and_then(|rest| rest.strip_prefix("\\u")?.get(..4))
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .and_then(|digits| u16::from_str_radix(digits, 16).ok())
    {
        units.push(unit);
        at += 6;
    }
    if at > 0 {
        return Some((at, String::from_utf16(&units).ok()));
    }
    let code = u32::from_str_radix(rest.strip_prefix("\\U")?.get(..8)?, 16).ok()?;
    Some((10, Some(char::from_u32(code)?.to_string())))
}

/// Letters and digits: hexadecimal, groups of it, bits, or base64.
fn run(rest: &str) -> (usize, Option<String>) {
    if let Some((length, bytes)) = groups(rest) {
        return (length, plausible(bytes));
    }
    let length = base64_length(rest);
    let (Some(word), Some(after)) = (rest.get(..length), rest.get(length..)) else {
        return (length, None);
    };
    if length < LONG_RUN {
        return (length, None);
    }
    let padding = after.bytes().take(2).take_while(|byte| *byte == b'=').count();
    if let Some(text) = decoded(word) {
        return (length + padding, Some(text));
    }
    // Its last line may be words that only stand below it.
    let above = word.rfind('\n').and_then(|end| word.get(..end));
    match above.and_then(|above| Some((above.len(), decoded(above)?))) {
        Some((length, text)) => (length, Some(text)),
        None => (length + padding, None),
    }
}

fn decoded(word: &str) -> Option<String> {
    let digits = word.strip_prefix("0x").unwrap_or(word);
    hex(digits).and_then(plausible).or_else(|| base64(word).and_then(plausible))
}

/// The length of a base64 text, which may be broken into lines of sixty characters or more.
fn base64_length(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut length = 0;
    loop {
        let line = bytes.get(length..).unwrap_or_default();
        let line = line.iter().take_while(|byte| is_base64(**byte)).count();
        length += line;
        if line < 60 || bytes.get(length) != Some(&b'\n') {
            return length;
        }
        length += 1;
    }
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    digits.as_bytes().chunks(2).map(|pair| hex_byte(std::str::from_utf8(pair).ok()?)).collect()
}

/// Lenient: either alphabet, any padding, and what does not fill the last byte is dropped.
fn base64(word: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(word.len() * 3 / 4);
    let mut bits = 0_u32;
    let mut held = 0;
    for byte in word.bytes().filter(|byte| *byte != b'\n') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    Some(bytes)
}

/// Eight bytes or more, each written alone: `69 67 6e`, `0x69,0x67`, `01101001 01100111`.
fn groups(rest: &str) -> Option<(usize, Vec<u8>)> {
    rest.bytes().next().filter(u8::is_ascii_hexdigit)?;
    let width = rest.bytes().take(9).take_while(u8::is_ascii_alphanumeric).count();
    let (width, radix, prefix) = match (width, rest.as_bytes()) {
        (2, _) => (2, 16, ""),
        (4, [b'0', b'x', ..]) => (2, 16, "0x"),
        (8, [b'0' | b'1', ..]) => (8, 2, ""),
        _ => return None,
    };
    let mut bytes = Vec::new();
    let mut end = 0;
    let mut at = 0;
    while let Some(group) = rest.get(at..).and_then(|rest| rest.strip_prefix(prefix)?.get(..width))
    {
        let Some(byte) = group
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit())
            .then(|| u8::from_str_radix(group, radix).ok())
            .flatten()
        else {
            break;
        };
        bytes.push(byte);
        end = at + prefix.len() + width;
        let separators = rest
            .get(end..)?
            .bytes()
            .take(2)
            .take_while(|byte| matches!(byte, b' ' | b',' | b':' | b'-' | b'\n'))
            .count();
        if separators == 0 {
            break;
        }
        at = end + separators;
    }
    (bytes.len() >= 8).then_some((end, bytes))
}

/// The decoded bytes as text, if they look like one.
fn plausible(bytes: Vec<u8>) -> Option<String> {
    let text = String::from_utf8(bytes).ok()?;
    let mut letters = 0;
    let mut total = 0;
    for character in text.chars() {
        if character.is_control() && !character.is_whitespace() {
            return None;
        }
        total += 1;
        letters += usize::from(character.is_alphanumeric() || character.is_whitespace());
    }
    (total >= 4 && letters * 10 >= total * 6).then_some(text)
}

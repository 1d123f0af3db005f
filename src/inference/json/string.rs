//! The inside of JSON strings: escapes, and where decoded text stands in the source.

use std::borrow::Cow;

/// The escape at the start of `source`: its length, and what it stands for. `None` if there is none,
/// or if it is half of a surrogate pair, which stands for nothing.
pub(super) fn escape(source: &[u8]) -> Option<(usize, char)> {
    if source.first() != Some(&b'\\') {
        return None;
    }
    let stands_for = match source.get(1)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(source),
        _ => return None,
    };
    Some((2, stands_for))
}

/// The length of the escape that `source` begins with, if it does.
pub(crate) fn escape_length(source: &str) -> Option<usize> {
    escape(source.as_bytes()).map(|(length, _)| length)
}

fn unicode_escape(source: &[u8]) -> Option<(usize, char)> {
    let first = hex(source.get(2..6)?)?;
    let Some(high) = first.checked_sub(0xD800).filter(|high| *high < 0x400) else {
        return Some((6, char::from_u32(first)?));
    };
    if source.get(6..8)? != b"\\u" {
        return None;
    }
    let low = hex(source.get(8..12)?)?.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
    Some((12, char::from_u32(0x1_0000 + (high << 10) + low)?))
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |sum, digit| Some(sum << 4 | char::from(*digit).to_digit(16)?))
}

/// What the inside of a valid JSON string means. Borrowed when it has no escapes.
pub(super) fn unescape(inside: &str) -> Cow<'_, str> {
    if !inside.contains('\\') {
        return Cow::Borrowed(inside);
    }
    let mut text = String::with_capacity(inside.len());
    for step in Steps(inside) {
        match step {
            Step::Run(run) => text.push_str(run),
            Step::Escape(_, stands_for) => text.push(stands_for),
        }
    }
    Cow::Owned(text)
}

/// Where the bytes of a valid JSON string's text stand in its source: asked for in rising order, so that any number of
/// them takes one pass.
pub(crate) struct SourceOffsets<'a> {
    rest: Steps<'a>,
    step: Option<Step<'a>>,
    /// Where `step` begins, in the source and in the text.
    source: usize,
    text: usize,
}

impl<'a> SourceOffsets<'a> {
    pub(crate) fn new(inside: &'a str) -> Self {
        let mut rest = Steps(inside);
        let step = rest.next();
        Self { rest, step, source: 0, text: 0 }
    }

    /// The place of the byte `decoded` of the text, counted from the start of the inside. Within an escaped character:
    /// the place of the escape. Never before the place that was asked for last.
    pub(crate) fn of(&mut self, decoded: usize) -> usize {
        while let Some(step) = &self.step {
            let (taken, meant) = match step {
                Step::Run(run) => (run.len(), run.len()),
                Step::Escape(length, stands_for) => (*length, stands_for.len_utf8()),
            };
            let within = decoded.saturating_sub(self.text);
            if within < meant {
                return match step {
                    Step::Run(_) => self.source + within,
                    Step::Escape(..) => self.source,
                };
            }
            self.source += taken;
            self.text += meant;
            self.step = self.rest.next();
        }
        self.source
    }
}

/// Writes `text` as the inside of a JSON string.
pub(crate) fn escape_into(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.extend(HEX.get(usize::from(byte >> 4)));
                out.extend(HEX.get(usize::from(byte & 15)));
            }
            _ => out.push(byte),
        }
    }
}

/// The inside of a string, run by run and escape by escape.
struct Steps<'a>(&'a str);

enum Step<'a> {
    Run(&'a str),
    Escape(usize, char),
}

impl<'a> Iterator for Steps<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        if let Some((length, stands_for)) = escape(self.0.as_bytes()) {
            self.0 = self.0.get(length..)?;
            return Some(Step::Escape(length, stands_for));
        }
        // Up to the next backslash; one that begins no escape does not stand in a valid string.
        let after_first = self.0.char_indices().nth(1).map_or(self.0.len(), |(at, _)| at);
        let end = self.0.get(after_first..)?.find('\\').map_or(self.0.len(), |at| at + after_first);
        let (run, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        (!run.is_empty()).then_some(Step::Run(run))
    }
}

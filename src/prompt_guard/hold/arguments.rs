//! What a tool is called with: JSON that arrives in parts, and stays JSON whatever is masked in it.

use std::borrow::Cow;

use super::Change;
use crate::inference::json::{escape_into, escape_length};

/// Where in the JSON the text that went on ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Lexer {
    /// The text is what a tool is called with.
    is_arguments: bool,
    /// `None` before the first character that is no white space.
    is_json: Option<bool>,
    in_string: bool,
}

/// A piece of the text that is not cut: a character, an escape, a number or a word outside of strings.
struct Unit {
    start: usize,
    end: usize,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Within a string.
    Inside,
    /// A number.
    Bare,
    /// Brackets, quotes, colons, commas, white space, words.
    Frame,
}

impl Lexer {
    pub(super) fn new(is_arguments: bool) -> Self {
        Self { is_arguments, ..Self::default() }
    }

    /// How much of `text`, which begins at `released`, goes on if it may up to `go`, and the changes that leave it JSON.
    pub(super) fn fit(
        &mut self,
        text: &str,
        released: usize,
        go: usize,
        changes: Vec<Change>,
    ) -> (usize, Vec<Change>) {
        if self.is_json.is_none() {
            let first = text.trim_start().bytes().next();
            self.is_json = first.map(|byte| matches!(byte, b'{' | b'['));
        }
        if self.is_json != Some(true) {
            return (go, changes);
        }
        let mut at = released;
        let mut fitted: Vec<Change> = Vec::new();
        let mut changes = changes.into_iter().peekable();
        // The change whose mask is shown in the string that is being read.
        let mut shown = None;
        while let Some(unit) = self.unit(text, released, at) {
            if unit.end > go && !(unit.start < go && touches(changes.peek(), &unit)) {
                break;
            }
            while changes.next_if(|(span, _)| span.end <= unit.start).is_some() {
                shown = None;
            }
            if let Some((span, mask)) = changes.peek().filter(|change| touches(Some(change), &unit))
            {
                let key = span.start;
                match (unit.kind, fitted.last_mut()) {
                    (Kind::Frame, _) => shown = None,
                    (Kind::Inside, Some((last, _)))
                        if shown == Some(key) && last.end == unit.start =>
                    {
                        last.end = unit.end;
                    }
                    (Kind::Inside, _) => {
                        fitted.push((unit.start..unit.end, escaped(mask).into_owned().into()));
                        shown = Some(key);
                    }
                    // More of what was masked before.
                    (Kind::Bare, _) if mask.is_empty() => {
                        fitted.push((unit.start..unit.end, Cow::Borrowed("")));
                    }
                    (Kind::Bare, _) => {
                        let quoted = format!("\"{}\"", escaped(mask));
                        fitted.push((unit.start..unit.end, quoted.into()));
                    }
                }
            }
            self.pass(text, released, &unit);
            at = unit.end;
        }
        (at, fitted)
    }

    /// The same for values that take the place of placeholders: none is cut, within a string they are escaped, and
    /// elsewhere stand as they are, as in any text that is not JSON.
    pub(super) fn fit_values(
        &mut self,
        text: &str,
        released: usize,
        go: usize,
        values: Vec<Change>,
    ) -> (usize, Vec<Change>) {
        if self.is_json.is_none() {
            let first = text.trim_start().bytes().next();
            // What is said may begin with a placeholder.
            let is_json = |byte| byte == b'{' || (byte == b'[' && self.is_arguments);
            self.is_json = first.map(is_json);
        }
        if self.is_json != Some(true) {
            return (go, values);
        }
        let mut at = released;
        let mut fitted: Vec<Change> = Vec::with_capacity(values.len());
        let mut values = values.into_iter().peekable();
        while let Some(unit) = self.unit(text, released, at).filter(|unit| unit.end <= go) {
            if let Some((span, value)) = values.next_if(|(span, _)| span.start <= unit.start) {
                // Behind a lone backslash there is none.
                if span.start == unit.start {
                    let inside = unit.kind == Kind::Inside;
                    let value = if inside { escaped(&value).into_owned().into() } else { value };
                    fitted.push((span, value));
                }
            }
            self.pass(text, released, &unit);
            at = unit.end;
        }
        (at, fitted)
    }

    fn unit(&self, text: &str, base: usize, at: usize) -> Option<Unit> {
        let rest = text.get(at - base..)?;
        let first = rest.chars().next()?;
        let (length, kind) = if self.in_string {
            match first {
                '"' => (1, Kind::Frame),
                '\\' => (escape_length(rest).unwrap_or(2), Kind::Inside),
                other => (other.len_utf8(), Kind::Inside),
            }
        } else if first.is_ascii_digit() || first == '-' {
            let number = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
            let length = rest.bytes().position(|byte| !number(byte)).unwrap_or(rest.len());
            (length, Kind::Bare)
        } else {
            (first.len_utf8(), Kind::Frame)
        };
        let mut end = at + length;
        while end - base < text.len() && !text.is_char_boundary(end - base) {
            end += 1;
        }
        Some(Unit { start: at, end, kind })
    }

    fn pass(&mut self, text: &str, base: usize, unit: &Unit) {
        if unit.kind == Kind::Frame && text.as_bytes().get(unit.start - base) == Some(&b'"') {
            self.in_string = !self.in_string;
        }
    }
}

fn touches(change: Option<&Change>, unit: &Unit) -> bool {
    change.is_some_and(|(span, _)| span.start < unit.end && unit.start < span.end)
}

fn escaped(text: &str) -> Cow<'_, str> {
    let mut out = Vec::with_capacity(text.len());
    escape_into(text, &mut out);
    String::from_utf8(out).map_or(Cow::Borrowed(""), Cow::Owned)
}

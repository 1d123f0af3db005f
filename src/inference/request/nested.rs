//! Edits of a text that is itself JSON, such as what a tool is called with: it stays JSON.

use std::{borrow::Cow, ops::Range};

use crate::inference::json::{Bounds, Document, Kind, Value, escape_into, escape_length};

/// What of a text is replaced, and by what.
pub(super) type Change = (Range<usize>, Cow<'static, str>);

/// The changes, in order and none overlapping another, for a text that is a JSON object or array cut to what stands in its strings: escaped there,
/// whole escapes only, and a string in the place of a number. As they are for any other text.
pub(super) fn fit(text: &str, changes: Vec<Change>) -> Vec<Change> {
    if !matches!(text.trim_start().as_bytes().first(), Some(b'{' | b'[')) {
        return changes;
    }
    let Ok(document) = Document::read(text.as_bytes(), BOUNDS) else { return changes };
    let mut rest = changes.as_slice();
    let mut fitted = Vec::with_capacity(changes.len());
    for value in document.root().all() {
        if matches!(value.kind(), Kind::Array | Kind::Object | Kind::Bool | Kind::Null) {
            continue;
        }
        // What ends before this value touches none of those to come either.
        let passed = rest.partition_point(|(span, _)| span.end <= value.inside().start);
        rest = rest.get(passed..).unwrap_or_default();
        fit_to(value, text, rest, &mut fitted);
    }
    fitted
}

/// Cuts the first of the changes, as far as they touch it, to one string or number.
fn fit_to(value: Value<'_>, text: &str, changes: &[Change], fitted: &mut Vec<Change>) {
    let inside = value.inside();
    let mut borders = Borders { text, at: inside.start };
    let touching = changes.iter().take_while(|(span, _)| span.start < inside.end);
    for (span, replacement) in touching.filter(|(span, _)| span.end > inside.start) {
        let escaped = escaped(replacement);
        if value.kind() == Kind::Number {
            // One string for the number, however many of the changes touch it.
            fitted.push((inside, Cow::Owned(format!("\"{escaped}\""))));
            return;
        }
        let start = borders.before(span.start.max(inside.start));
        let end = borders.after(span.end.min(inside.end));
        fitted.push((start..end, Cow::Owned(escaped)));
    }
}

/// Of those that overlap, the first one's replacement stands for all.
pub(super) fn merged(changes: Vec<Change>) -> Vec<Change> {
    let mut merged: Vec<Change> = Vec::with_capacity(changes.len());
    for (span, replacement) in changes {
        match merged.last_mut() {
            Some((before, _)) if span.start < before.end => before.end = before.end.max(span.end),
            _ => merged.push((span, replacement)),
        }
    }
    merged
}

fn escaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    escape_into(text, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// Where characters and escapes begin in the inside of a string: asked in rising order.
struct Borders<'a> {
    text: &'a str,
    at: usize,
}

impl Borders<'_> {
    /// The last border that is not after `place`.
    fn before(&mut self, place: usize) -> usize {
        while let Some(next) = self.next().filter(|next| *next <= place) {
            self.at = next;
        }
        self.at
    }

    /// The first border that is not before `place`.
    fn after(&mut self, place: usize) -> usize {
        while self.at < place {
            let Some(next) = self.next() else { break };
            self.at = next;
        }
        self.at
    }

    fn next(&self) -> Option<usize> {
        let rest = self.text.get(self.at..)?;
        let length = escape_length(rest).or_else(|| rest.chars().next().map(char::len_utf8))?;
        Some(self.at + length)
    }
}

/// Room for any text that stands in a body that was read.
const BOUNDS: Bounds = Bounds { depth: 64, nodes: 1 << 20 };

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(text: &str, spans: &[(&str, &'static str)]) -> String {
        let mut changes: Vec<Change> = spans
            .iter()
            .map(|(part, mask)| {
                let at = text.find(part).unwrap();
                (at..at + part.len(), Cow::Borrowed(*mask))
            })
            .collect();
        changes.sort_by_key(|(span, _)| span.start);
        let mut out = String::new();
        let mut done = 0;
        for (span, replacement) in fit(text, changes) {
            out.push_str(&text[done..span.start]);
            out.push_str(&replacement);
            done = span.end;
        }
        out + &text[done..]
    }

    #[test]
    fn what_is_masked_in_json_within_a_string_leaves_json() {
        for (text, spans, expected) in [
            (r#"{"to":"a@b.c"}"#, &[("a@b.c", "[M]")][..], r#"{"to":"[M]"}"#),
            (r#"{"card":4111}"#, &[("4111", "[C]")], r#"{"card":"[C]"}"#),
            (r#"[-4111.5e2,7]"#, &[("11.5", "[C]"), ("e2", "[D]")], r#"["[C]",7]"#),
            (
                r#"{"a":"b c","d":true}"#,
                &[("c\",\"d\":true}", "[M]")],
                r#"{"a":"b [M]","[M]":true}"#,
            ),
            (r#"["x\u00e9y"]"#, &[("0e9y", "[M]")], r#"["x[M]"]"#),
            (r#"["x\ny"]"#, &[("x\\", "[M]")], r#"["[M]y"]"#),
            (r#"["a\\b"]"#, &[("b", "\"")], r#"["a\\\""]"#),
            (r#"["é","é"]"#, &[("é\",\"é", "[M]")], r#"["[M]","[M]"]"#),
            (r#"["a b c"]"#, &[("a", "[A]"), ("c", "[C]")], r#"["[A] b [C]"]"#),
            ("[EMAIL] a@b.c", &[("a@b.c", "[M]")], "[EMAIL] [M]"),
            ("4111", &[("4111", "[C]")], "[C]"),
        ] {
            let left = fitted(text, spans);
            assert_eq!(left, expected);
            let is_json = |text: &str| Document::read(text.as_bytes(), BOUNDS).is_ok();
            assert!(!is_json(text) || text == "4111" || is_json(&left), "{left}");
        }
    }
}

//! A body with some of its text replaced.

use std::ops::Range;

use bytes::Bytes;

use super::{
    Edit, Piece,
    nested::{self, Change},
};
use crate::inference::json::{SourceOffsets, escape_into};

/// In one pass over the body, however many edits there are.
pub(in crate::inference) fn rewrite(raw: &Bytes, pieces: &[Piece], edits: &[Edit]) -> Bytes {
    rewrite_parts(raw, pieces, edits, |_| false)
}

/// The same where some pieces are only parts of a text, which says nothing of whether that is JSON.
pub(in crate::inference) fn rewrite_parts(
    raw: &Bytes,
    pieces: &[Piece],
    edits: &[Edit],
    is_part: impl Fn(usize) -> bool,
) -> Bytes {
    let mut edits: Vec<&Edit> = edits.iter().filter(|edit| edit.segment < pieces.len()).collect();
    if edits.is_empty() {
        return raw.clone();
    }
    // Segments are in the order of the body.
    edits.sort_by_key(|edit| (edit.segment, edit.span.start, edit.span.end));
    let mut out = Vec::with_capacity(raw.len());
    let mut done = 0;
    for edits in edits.chunk_by(|a, b| a.segment == b.segment) {
        let Some(segment) = edits.first().map(|edit| edit.segment) else { continue };
        let Some(piece) = pieces.get(segment) else { continue };
        let mut places = Places::new(piece, raw);
        for (span, replacement) in changes(piece.text(raw), edits, is_part(segment)) {
            let start = places.of(span.start);
            out.extend_from_slice(raw.get(done..start).unwrap_or_default());
            escape_into(&replacement, &mut out);
            done = places.of(span.end);
        }
    }
    out.extend_from_slice(raw.get(done..).unwrap_or_default());
    out.into()
}

/// One text with these edits made, which are in order. Where it is only a part of one, or plain, its JSON is text like any other.
pub(in crate::inference) fn edited(text: &str, edits: &[&Edit], is_part: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (span, replacement) in changes(text, edits, is_part) {
        out.push_str(text.get(done..span.start).unwrap_or_default());
        out.push_str(&replacement);
        done = span.end;
    }
    out.push_str(text.get(done..).unwrap_or_default());
    out
}

/// What of one text is replaced, none of it twice. Of edits that overlap, the first one's replacement stands for all.
fn changes(text: &str, edits: &[&Edit], is_part: bool) -> Vec<Change> {
    let widened = edits.iter().map(|edit| (widen(text, &edit.span), edit.replacement.clone()));
    let merged = nested::merged(widened.collect());
    if is_part { merged } else { nested::fit(text, merged) }
}

/// Where the text of a piece stands in the body: asked in rising order.
enum Places<'a> {
    Plain(usize),
    Escaped(usize, SourceOffsets<'a>),
}

impl<'a> Places<'a> {
    fn new(piece: &Piece, raw: &'a [u8]) -> Self {
        let start = piece.source.start;
        match piece.decoded {
            None => Self::Plain(start),
            Some(_) => Self::Escaped(start, SourceOffsets::new(piece.inside(raw))),
        }
    }

    fn of(&mut self, decoded: usize) -> usize {
        match self {
            Self::Plain(start) => *start + decoded,
            Self::Escaped(start, offsets) => *start + offsets.of(decoded),
        }
    }
}

/// The span, in range and on the borders of characters, and no smaller than it was.
fn widen(text: &str, span: &Range<usize>) -> Range<usize> {
    let mut start = span.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = span.end.clamp(start, text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

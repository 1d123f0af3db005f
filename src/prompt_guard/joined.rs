//! Neighbouring texts of one origin, looked at together: a model reads them as one, so what is cut
//! over two parts or messages must not pass.

use std::ops::Range;

use super::{Finding, policy::Gathered, scan::keep, seen::Scanner, views::on_borders};
use crate::inference::Segment;

/// Puts segments together as they come, and scans them once more where they meet.
pub(crate) struct Joined<'a> {
    scanner: Scanner<'a>,
    /// Whether one message and the next are read as one.
    across_turns: bool,
    pieces: Vec<Piece<'a>>,
    bytes: usize,
}

/// A segment, or one end of a long one.
#[derive(Clone)]
struct Piece<'a> {
    segment: Segment<'a>,
    range: Range<usize>,
}

impl<'a> Joined<'a> {
    pub(crate) fn new(scanner: Scanner<'a>, across_turns: bool) -> Self {
        Self { scanner, across_turns, pieces: Vec::new(), bytes: 0 }
    }

    pub(crate) fn push(&mut self, segment: Segment<'a>, gathered: &mut Gathered) {
        let text = segment.text;
        if text.is_empty() {
            return;
        }
        let neighbour = |piece: &Piece<'_>| {
            piece.segment.origin == segment.origin
                && (self.across_turns || piece.segment.turn == segment.turn)
        };
        if !self.pieces.last().is_some_and(neighbour) {
            self.finish(gathered);
        } else if self.bytes > MOST {
            let last = self.pieces.last().cloned();
            self.finish(gathered);
            last.into_iter().for_each(|last| self.add(last));
        }
        if text.len() <= 2 * EDGE {
            return self.add(Piece { segment, range: 0..text.len() });
        }
        // What stands in the middle of it was found when it was looked at alone.
        let head = on_borders(text, 0..EDGE);
        if !self.pieces.is_empty() {
            self.add(Piece { segment, range: head });
            self.finish(gathered);
        }
        let tail = on_borders(text, text.len() - EDGE..text.len());
        self.add(Piece { segment, range: tail });
    }

    fn add(&mut self, piece: Piece<'a>) {
        self.bytes += piece.range.len();
        self.pieces.push(piece);
    }

    /// Scans what came since the last time, once for each way in which servers put texts together.
    pub(crate) fn finish(&mut self, gathered: &mut Gathered) {
        let pieces = std::mem::take(&mut self.pieces);
        self.bytes = 0;
        if pieces.len() > 1 {
            self.scan(&pieces, "\n", gathered);
            let mut pairs =
                pieces.windows(2).filter_map(|pair| Some((pair.first()?, pair.last()?)));
            if pairs.any(|(one, next)| one.may_go_on_in(next)) {
                self.scan(&pieces, "", gathered);
            }
        }
    }

    fn scan(&self, pieces: &[Piece<'_>], between: &str, gathered: &mut Gathered) {
        let Some(first) = pieces.first() else { return };
        let mut text = String::new();
        let mut starts = Vec::with_capacity(pieces.len());
        for piece in pieces {
            if !text.is_empty() {
                text.push_str(between);
            }
            starts.push(text.len());
            text.push_str(piece.text());
        }
        let segment =
            Segment::new(first.segment.index, &text, first.segment.origin, first.segment.turn);
        self.scanner.each(&segment, gathered, |local, finding, gathered| {
            // What has no place in it may stand in one text alone, and was found there.
            let Some(span) = finding.span.clone() else { return };
            let from = starts.partition_point(|start| *start <= span.start).saturating_sub(1);
            let until = starts.partition_point(|start| *start < span.end);
            let touched = pieces.iter().zip(&starts).take(until).skip(from);
            let parts: Vec<_> = touched
                .filter_map(|(piece, start)| Some((piece, piece.part(&finding, &span, *start)?)))
                .collect();
            if parts.len() > 1 {
                for (piece, part) in parts {
                    keep(local.detector.name(), &local.rule, part, Some(&piece.segment), gathered);
                }
            }
        });
    }
}

impl Piece<'_> {
    fn text(&self) -> &str {
        self.segment.text.get(self.range.clone()).unwrap_or_default()
    }

    /// Whether a word or a token may begin in this one and end in the next.
    fn may_go_on_in(&self, next: &Self) -> bool {
        let is_ink = |character: char| !character.is_whitespace();
        self.text().chars().next_back().is_some_and(is_ink)
            && next.text().chars().next().is_some_and(is_ink)
    }

    /// What of a finding at `span` of the joined text stands in this piece, which begins at `start`.
    fn part(&self, finding: &Finding, span: &Range<usize>, start: usize) -> Option<Finding> {
        let from = span.start.saturating_sub(start).min(self.range.len());
        let until = span.end.saturating_sub(start).min(self.range.len());
        let here = self.range.start + from..self.range.start + until;
        (from < until).then(|| Finding {
            segment: self.segment.index,
            span: Some(here),
            ..finding.clone()
        })
    }
}

/// How much of the ends of a long text is looked at together with its neighbours, in bytes.
const EDGE: usize = 1024;
/// How much text is put together at a time, in bytes.
const MOST: usize = 16 * 1024;

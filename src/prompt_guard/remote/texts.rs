//! Segments put together to the texts that are sent, and cut to what a model can read.

use std::ops::Range;

use crate::inference::{Origin, Segment};

/// Which segments become one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    /// Those of one origin in one message.
    Message,
    /// All of one origin, so that there are few texts.
    Origin,
}

/// Texts to be sent, within bounds.
pub(super) struct Texts {
    join: Join,
    segments_left: usize,
    bytes_left: usize,
    texts: Vec<Text>,
}

/// What is sent as one. Not `Debug`: it is a prompt's.
pub(super) struct Text {
    pub(super) text: String,
    origin: Origin,
    turn: u32,
    /// Which segment begins where.
    pieces: Vec<(usize, usize)>,
}

impl Texts {
    pub(super) fn new(join: Join, segments: usize, bytes: usize) -> Self {
        Self { join, segments_left: segments, bytes_left: bytes, texts: Vec::new() }
    }

    /// False when it does not fit: then as much of it was taken as does.
    pub(super) fn push(&mut self, segment: &Segment<'_>) -> bool {
        let Some(left) = self.segments_left.checked_sub(1) else { return false };
        self.segments_left = left;
        let fits = segment.text.len() <= self.bytes_left;
        let most = segment.text.len().min(self.bytes_left);
        let taken = segment.text.get(..floor(segment.text, most)).unwrap_or_default();
        self.bytes_left -= taken.len();
        if !taken.is_empty() {
            self.add(segment, taken);
        }
        fits
    }

    fn add(&mut self, segment: &Segment<'_>, taken: &str) {
        let joins = |text: &&mut Text| {
            text.origin == segment.origin
                && (self.join == Join::Origin || text.turn == segment.turn)
        };
        let text = match self.join {
            Join::Message => self.texts.last_mut().filter(joins),
            Join::Origin => self.texts.iter_mut().find(joins),
        };
        match text {
            Some(text) => {
                text.text.push('\n');
                text.pieces.push((segment.index, text.text.len()));
                text.text.push_str(taken);
            }
            None => self.texts.push(Text {
                text: taken.to_owned(),
                origin: segment.origin,
                turn: segment.turn,
                pieces: vec![(segment.index, 0)],
            }),
        }
    }

    pub(super) fn into_texts(self) -> Vec<Text> {
        self.texts
    }
}

impl Text {
    /// The segment that stands at this place.
    pub(super) fn segment_at(&self, at: usize) -> usize {
        let begun = self.pieces.partition_point(|(_, start)| *start <= at);
        self.pieces.get(begun.saturating_sub(1)).map_or(0, |(segment, _)| *segment)
    }

    /// What of this range of bytes stands in which segment, and where there.
    pub(super) fn parts(&self, range: Range<usize>) -> Vec<(usize, Range<usize>)> {
        let ends = self.pieces.iter().skip(1).map(|(_, start)| start.saturating_sub(1));
        let ends = ends.chain([self.text.len()]);
        let parts = self.pieces.iter().zip(ends).map(|((segment, start), end)| {
            let (from, until) = (range.start.max(*start), range.end.min(end));
            (*segment, from.saturating_sub(*start)..until.saturating_sub(*start), from < until)
        });
        parts.filter(|(_, _, any)| *any).map(|(segment, part, _)| (segment, part)).collect()
    }

    /// Windows of at most `size` bytes that overlap by an eighth, over the whole text.
    pub(super) fn windows(&self, size: usize) -> Vec<Range<usize>> {
        let text = &self.text;
        let mut windows = Vec::with_capacity(1 + text.len() / size.max(1));
        let mut start = 0;
        loop {
            let end = floor(text, start + size).max(next(text, start));
            windows.push(start..end);
            if end >= text.len() {
                return windows;
            }
            start = floor(text, end - size / 8).max(next(text, start));
        }
    }

    /// The ranges in bytes of these ranges in code points, if the text has them all.
    pub(super) fn in_bytes(&self, ranges: &[Range<usize>]) -> Option<Vec<Range<usize>>> {
        let starts: Vec<usize> =
            self.text.char_indices().map(|(at, _)| at).chain([self.text.len()]).collect();
        let at = |code_point: usize| starts.get(code_point).copied();
        ranges
            .iter()
            .map(|range| Some(at(range.start)?..at(range.end)?).filter(|range| !range.is_empty()))
            .collect()
    }
}

/// The border of a character at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The border after the character at `at`.
fn next(text: &str, at: usize) -> usize {
    text.get(at..).and_then(|rest| rest.chars().next()).map_or(text.len(), |c| at + c.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pieces: &[&str]) -> Text {
        let mut texts = Texts::new(Join::Message, 100, 1000);
        for (index, piece) in pieces.iter().enumerate() {
            assert!(texts.push(&Segment::new(index, piece, Origin::User, 0)));
        }
        texts.into_texts().remove(0)
    }

    #[test]
    fn segments_of_one_message_and_origin_are_one_text() {
        let mut texts = Texts::new(Join::Message, 9, 1000);
        let all = [
            (Origin::System, 0, "s"),
            (Origin::User, 1, "a"),
            (Origin::User, 1, "b"),
            (Origin::User, 2, "c"),
            (Origin::ToolResult, 2, "d"),
        ];
        let mut by_origin = Texts::new(Join::Origin, 9, 1000);
        for (index, (origin, turn, text)) in all.into_iter().enumerate() {
            assert!(texts.push(&Segment::new(index, text, origin, turn)));
            assert!(by_origin.push(&Segment::new(index, text, origin, turn)));
        }
        let told = |texts: Texts| texts.into_texts().into_iter().map(|text| text.text);
        assert_eq!(told(texts).collect::<Vec<_>>(), ["s", "a\nb", "c", "d"]);
        assert_eq!(told(by_origin).collect::<Vec<_>>(), ["s", "a\nb\nc", "d"]);
    }

    #[test]
    fn bounds_hold_and_say_so() {
        let mut texts = Texts::new(Join::Message, 2, 7);
        assert!(texts.push(&Segment::new(0, "abcd", Origin::User, 0)));
        // The character that doesn't fit whole is not taken.
        assert!(!texts.push(&Segment::new(1, "ef😀", Origin::User, 1)));
        assert!(!texts.push(&Segment::new(2, "g", Origin::User, 2)));
        let texts: Vec<_> = texts.into_texts().into_iter().map(|text| text.text).collect();
        assert_eq!(texts, ["abcd", "ef"]);
    }

    #[test]
    fn places_are_found_again_in_their_segments() {
        let text = text(&["ab", "😀d", "e"]);
        assert_eq!(text.text, "ab\n😀d\ne");
        assert_eq!(text.parts(0..text.text.len()), [(0, 0..2), (1, 0..5), (2, 0..1)]);
        assert_eq!(text.parts(1..3), [(0, 1..2)]);
        assert_eq!(text.parts(2..3), []);
        assert_eq!(text.parts(7..10), [(1, 4..5), (2, 0..1)]);
        assert_eq!([0, 2, 3, 7, 9, 99].map(|at| text.segment_at(at)), [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn code_points_become_bytes() {
        let text = text(&["a😀é\u{301}z"]);
        let ranges = [0..1, 1..2, 2..4, 4..5, 0..5];
        assert_eq!(text.in_bytes(&ranges), Some(vec![0..1, 1..5, 5..9, 9..10, 0..10]));
        for wrong in [4..6, 9..10, 2..2] {
            assert_eq!(text.in_bytes(&[wrong]), None);
        }
    }

    #[test]
    fn windows_cover_all_and_overlap() {
        for whole in ["x".repeat(999), "😀".repeat(200), "aé".repeat(300), "z".into()] {
            for size in [1, 3, 8, 64, 500, 5000] {
                let text = text(&[&whole]);
                let windows = text.windows(size);
                assert_eq!((windows[0].start, windows.last().unwrap().end), (0, whole.len()));
                for window in &windows {
                    assert!(whole.get(window.clone()).is_some_and(|text| !text.is_empty()));
                    assert!(window.len() <= size.max(4));
                }
                let steps = windows.windows(2);
                for (one, next) in steps.map(|pair| (&pair[0], &pair[1])) {
                    assert!(next.start <= one.end && next.start > one.start);
                    assert!(size < 64 || next.start + 8 <= one.end);
                }
            }
        }
    }
}

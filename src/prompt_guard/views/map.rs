//! Where each byte of a rewritten text came from.

use std::{ops::Range, sync::Arc};

/// A stretch of the rewritten text, up to where the next one begins. There may be one for each letter,
/// so offsets have 32 bits.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Where it begins in the rewritten text.
    view: u32,
    /// Where it begins in the text that was rewritten.
    from: u32,
    /// How many bytes of that text all of it was made of; [`EACH`]: it is the same, byte for byte.
    of: u32,
}

const EACH: u32 = u32::MAX;

/// What a rewritten text was made of.
#[derive(Debug, Default)]
struct Runs {
    list: Vec<Run>,
    /// Something stands too far on for an offset to say where, so anything may stand anywhere.
    lost: bool,
    /// The length of the rewritten text.
    length: usize,
}

impl Runs {
    fn origin(&self, range: Range<usize>) -> Range<usize> {
        if self.lost {
            return ANYWHERE;
        }
        let (Some((first, first_until)), Some((last, last_until))) =
            (self.at(range.start), self.at(range.end.saturating_sub(1)))
        else {
            return range;
        };
        let start = first.place(range.start).unwrap_or(first.from as usize);
        if range.is_empty() {
            return start..start;
        }
        let end = last.place(range.end).unwrap_or(last_until);
        if start < end {
            return start..end;
        }
        // A reversed text has its ends the other way round.
        let last = last.from as usize;
        last.min(first_until)..first_until.max(last)
    }

    /// The run in which a byte stands, and where that ends in the text that was rewritten.
    fn at(&self, offset: usize) -> Option<(Run, usize)> {
        let after = self.list.partition_point(|run| run.view as usize <= offset);
        let run = *self.list.get(after.checked_sub(1)?)?;
        let next = self.list.get(after).map_or(self.length, |next| next.view as usize);
        Some((run, run.place(next).unwrap_or(run.from as usize + run.of as usize)))
    }

    /// Adds a piece at the end of the rewritten text, made of `from`.
    fn push(&mut self, length: usize, from: Range<usize>) {
        let view = self.length;
        self.length += length;
        let is_same = length == from.len();
        let goes_on = |last: &Run| match last.place(view) {
            Some(until) => is_same && until == from.start,
            None => !is_same && last.from as usize == from.start && last.of as usize == from.len(),
        };
        if self.lost || self.list.last().is_some_and(goes_on) {
            return;
        }
        let of = if is_same { Some(EACH) } else { small(from.len()).filter(|of| *of != EACH) };
        match (small(view), small(from.start), of) {
            (Some(view), Some(from), Some(of)) => self.list.push(Run { view, from, of }),
            _ => (self.list, self.lost) = (Vec::new(), true),
        }
    }

    /// Takes back what is beyond this length.
    fn truncate(&mut self, length: usize) {
        self.length = length;
        while self.list.last().is_some_and(|run| run.view as usize >= length) {
            self.list.pop();
        }
    }
}

impl Run {
    /// Where a byte of it stands in the text that was rewritten, if it is the same byte for byte.
    fn place(self, offset: usize) -> Option<usize> {
        let inside = offset.saturating_sub(self.view as usize);
        (self.of == EACH).then(|| self.from as usize + inside)
    }
}

fn small(offset: usize) -> Option<u32> {
    u32::try_from(offset).ok()
}

/// All of a text, however long.
const ANYWHERE: Range<usize> = 0..usize::MAX;

/// Maps offsets of a rewritten text to the text it was made of, and on to the original.
#[derive(Debug)]
pub(super) struct Map {
    /// `None`: the text was not changed.
    runs: Option<Runs>,
    parent: Option<Arc<Self>>,
}

impl Map {
    /// The range of the original that `range` was made of. Not yet on character borders.
    pub(super) fn origin(&self, range: Range<usize>) -> Range<usize> {
        let range = self.runs.as_ref().map_or(range.clone(), |runs| runs.origin(range));
        match &self.parent {
            Some(parent) if range != ANYWHERE => parent.origin(range),
            _ => range,
        }
    }
}

/// A text in its own case and in folded case, with one offset map for both.
#[derive(Clone)]
pub(super) struct Text<'a> {
    pub(super) cased: std::borrow::Cow<'a, str>,
    pub(super) folded: std::borrow::Cow<'a, str>,
    pub(super) map: Arc<Map>,
    /// Where letters were read another way, in order. The rest is as it was in the text before.
    pub(super) changed: Vec<Range<usize>>,
}

/// Writes a text and remembers where each piece of it came from.
#[derive(Default)]
pub(super) struct Writer {
    cased: String,
    folded: String,
    runs: Runs,
    changed: Vec<Range<usize>>,
}

impl Writer {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self {
            cased: String::with_capacity(bytes),
            folded: String::with_capacity(bytes),
            runs: Runs::default(),
            changed: Vec::new(),
        }
    }

    /// Makes room for pieces of which none goes on where the one before it ends.
    pub(super) fn reserve(&mut self, pieces: usize) {
        self.runs.list.reserve_exact(pieces);
    }

    /// Writes one character that another one was read as.
    pub(super) fn replace(&mut self, character: char, from: Range<usize>) {
        let start = self.folded.len();
        self.push(character, from);
        let end = self.folded.len();
        match self.changed.last_mut() {
            // What stands close together is looked at together.
            Some(last) if start <= last.end + CLOSE => last.end = end,
            _ => self.changed.push(start..end),
        }
    }

    /// Writes one character that was made of `from`.
    pub(super) fn push(&mut self, character: char, from: Range<usize>) {
        if character.is_ascii() {
            self.runs.push(1, from);
            self.cased.push(character);
            self.folded.push(character.to_ascii_lowercase());
            return;
        }
        let mut lower = character.to_lowercase();
        match (lower.next(), lower.next()) {
            // One offset map serves both cases, so both must have the same length.
            (Some(one), None) if one.len_utf8() == character.len_utf8() => {
                self.runs.push(one.len_utf8(), from);
                self.cased.push(character);
                self.folded.push(one);
            }
            (Some(first), second) => {
                for one in std::iter::once(first).chain(second).chain(lower) {
                    self.runs.push(one.len_utf8(), from.clone());
                    self.cased.push(one);
                    self.folded.push(one);
                }
            }
            (None, _) => {}
        }
    }

    /// Writes ASCII characters that stand here in the text.
    pub(super) fn push_ascii(&mut self, characters: &str, at: usize) {
        self.runs.push(characters.len(), at..at + characters.len());
        let start = self.folded.len();
        self.cased.push_str(characters);
        self.folded.push_str(characters);
        if let Some(added) = self.folded.get_mut(start..) {
            added.make_ascii_lowercase();
        }
    }

    /// Writes ASCII letters, each in the place of the byte that stands where it comes to stand.
    pub(super) fn replace_each(&mut self, letters: &str, at: usize) {
        for (offset, letter) in letters.char_indices() {
            self.replace(letter, at + offset..at + offset + 1);
        }
    }

    /// Copies a stretch of a text, byte for byte.
    pub(super) fn copy(&mut self, text: &Text<'_>, range: Range<usize>) {
        let (Some(cased), Some(folded)) =
            (text.cased.get(range.clone()), text.folded.get(range.clone()))
        else {
            return;
        };
        if !range.is_empty() {
            self.runs.push(range.len(), range);
            self.cased.push_str(cased);
            self.folded.push_str(folded);
        }
    }

    /// The last character written, in folded case.
    pub(super) fn last(&self) -> Option<char> {
        self.folded.chars().next_back()
    }

    /// Whether the last three characters are one between spaces: where characters stand apart, a
    /// wider gap is the border of a word.
    pub(super) fn ends_in_spaced_letter(&self) -> bool {
        match self.folded.as_bytes() {
            [.., before, letter, b' '] => {
                matches!(before, b' ' | b'\n') && letter.is_ascii_graphic()
            }
            [letter, b' '] => letter.is_ascii_graphic(),
            _ => false,
        }
    }

    /// Takes the last character back, with what it was made of.
    pub(super) fn pop(&mut self) {
        self.cased.pop();
        self.folded.pop();
        self.runs.truncate(self.folded.len());
    }

    pub(super) fn finish(mut self, parent: Option<Arc<Map>>) -> Text<'static> {
        self.runs.list.shrink_to_fit();
        Text {
            cased: self.cased.into(),
            folded: self.folded.into(),
            map: Arc::new(Map { runs: Some(self.runs), parent }),
            changed: self.changed,
        }
    }
}

impl<'a> Text<'a> {
    /// A text as it stands, in which both cases have the same length.
    pub(super) fn unchanged(
        cased: std::borrow::Cow<'a, str>,
        folded: std::borrow::Cow<'a, str>,
        parent: Option<Arc<Map>>,
    ) -> Self {
        Self { cased, folded, map: Arc::new(Map { runs: None, parent }), changed: Vec::new() }
    }
}

/// How many bytes apart two changes are one.
const CLOSE: usize = 64;

/// The smallest range on character borders of `text` that covers `range`.
pub(in crate::prompt_guard) fn on_borders(text: &str, range: Range<usize>) -> Range<usize> {
    let mut start = range.start.min(text.len());
    let mut end = range.end.clamp(start, text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_too_far_on_for_an_offset_may_stand_anywhere() {
        const FAR: usize = 1 << 32;
        let text = "of more than four gigabytes";
        for (from, origin) in [(5..6, 5..6), (FAR..FAR + 1, 0..text.len()), (0..FAR, 0..text.len())]
        {
            let mut writer = Writer::default();
            writer.push('a', from);
            writer.push('b', 3..4);
            let map = writer.finish(None).map;
            assert_eq!(on_borders(text, map.origin(0..1)), origin);
            // The same after it was rewritten once more.
            let mut again = Writer::default();
            again.push('a', 0..1);
            let map = again.finish(Some(map)).map;
            assert_eq!(on_borders(text, map.origin(0..1)), origin);
        }
    }

    #[test]
    fn pieces_that_follow_each_other_are_one_run() {
        let mut writer = Writer::default();
        "decoded".chars().for_each(|letter| writer.push(letter, 0..12));
        writer.push_ascii(" plain", 12);
        writer.push(' ', 18..18);
        writer.push('x', 18..19);
        let text = writer.finish(None);
        let runs = text.map.runs.as_ref().unwrap();
        assert_eq!((runs.list.len(), size_of::<Run>()), (4, 12));
        for (range, origin) in
            [(0..3, 0..12), (8..10, 13..15), (13..14, 18..18), (13..15, 18..19), (3..9, 0..14)]
        {
            assert_eq!(text.map.origin(range.clone()), origin, "{range:?}");
        }
    }
}

//! Where each byte of a rewritten text came from.

use std::{ops::Range, sync::Arc};

/// A stretch of the rewritten text, up to where the next one begins.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Where it begins in the rewritten text.
    view: usize,
    /// Where it begins and ends in the text that was rewritten.
    from: usize,
    until: usize,
    /// Byte for byte, or all of it from all of that.
    linear: bool,
}

/// Maps offsets of a rewritten text to the text it was made of, and on to the original.
#[derive(Debug, Default)]
pub(super) struct Map {
    /// None: the text was not changed.
    runs: Vec<Run>,
    parent: Option<Arc<Self>>,
}

impl Map {
    /// The range of the original that `range` was made of. Not yet on character borders.
    pub(super) fn origin(&self, range: Range<usize>) -> Range<usize> {
        let range = self.step(range);
        match &self.parent {
            Some(parent) => parent.origin(range),
            None => range,
        }
    }

    fn step(&self, range: Range<usize>) -> Range<usize> {
        if self.runs.is_empty() {
            return range;
        }
        let start = self.run_at(range.start).map_or(range.start, |run| {
            let inside = range.start.saturating_sub(run.view);
            if run.linear { (run.from + inside).min(run.until) } else { run.from }
        });
        if range.is_empty() {
            return start..start;
        }
        // A reversed text has its ends the other way round.
        let end = self.run_at(range.end - 1).map_or(range.end, |run| {
            let inside = range.end - run.view;
            if run.linear { (run.from + inside).min(run.until) } else { run.until }
        });
        if start < end {
            return start..end;
        }
        let last = self.run_at(range.end - 1).map_or(end, |run| run.from);
        let first = self.run_at(range.start).map_or(start, |run| run.until);
        last.min(first)..first.max(last)
    }

    fn run_at(&self, offset: usize) -> Option<&Run> {
        let after = self.runs.partition_point(|run| run.view <= offset);
        self.runs.get(after.checked_sub(1)?)
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
    runs: Vec<Run>,
    changed: Vec<Range<usize>>,
}

impl Writer {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self {
            cased: String::with_capacity(bytes),
            folded: String::with_capacity(bytes),
            runs: Vec::new(),
            changed: Vec::new(),
        }
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
            self.note(1, from);
            self.cased.push(character);
            self.folded.push(character.to_ascii_lowercase());
            return;
        }
        let mut lower = character.to_lowercase();
        match (lower.next(), lower.next()) {
            // One offset map serves both cases, so both must have the same length.
            (Some(one), None) if one.len_utf8() == character.len_utf8() => {
                self.note(one.len_utf8(), from);
                self.cased.push(character);
                self.folded.push(one);
            }
            (Some(first), second) => {
                for one in std::iter::once(first).chain(second).chain(lower) {
                    self.note(one.len_utf8(), from.clone());
                    self.cased.push(one);
                    self.folded.push(one);
                }
            }
            (None, _) => {}
        }
    }

    /// Writes ASCII characters that stand here in the text.
    pub(super) fn push_ascii(&mut self, characters: &str, at: usize) {
        self.note(characters.len(), at..at + characters.len());
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
            self.note(range.len(), range);
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
        let length = self.folded.len();
        while self.runs.last().is_some_and(|run| run.view >= length) {
            self.runs.pop();
        }
        if let Some(run) = self.runs.last_mut().filter(|run| run.linear) {
            run.until = run.from + (length - run.view);
        }
    }

    pub(super) fn finish(self, parent: Option<Arc<Map>>) -> Text<'static> {
        Text {
            cased: self.cased.into(),
            folded: self.folded.into(),
            map: Arc::new(Map { runs: self.runs, parent }),
            changed: self.changed,
        }
    }

    fn note(&mut self, length: usize, from: Range<usize>) {
        let linear = length == from.len();
        let view = self.folded.len();
        let continued = |last: &&mut Run| linear && last.linear && last.until == from.start;
        if let Some(last) = self.runs.last_mut().filter(continued) {
            last.until = from.end;
            return;
        }
        self.runs.push(Run { view, from: from.start, until: from.end, linear });
    }
}

impl<'a> Text<'a> {
    /// A text as it stands, in which both cases have the same length.
    pub(super) fn unchanged(
        cased: std::borrow::Cow<'a, str>,
        folded: std::borrow::Cow<'a, str>,
        parent: Option<Arc<Map>>,
    ) -> Self {
        Self { cased, folded, map: Arc::new(Map { runs: Vec::new(), parent }), changed: Vec::new() }
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

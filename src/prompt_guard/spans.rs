//! Which stretches of a text are taken.

use std::{collections::BTreeMap, ops::Range};

/// Stretches that do not overlap. A prompt may hold very many, so each question is answered in the
/// logarithm of their number.
#[derive(Debug, Default)]
pub(super) struct Spans(BTreeMap<usize, usize>);

impl Spans {
    /// Takes a stretch. False if any of it was taken before; then nothing changes.
    pub(super) fn take(&mut self, range: &Range<usize>) -> bool {
        let before = self.0.range(..range.end.max(range.start + 1)).next_back();
        let free = before.is_none_or(|(_, end)| *end <= range.start);
        if free {
            self.0.insert(range.start, range.end);
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_stretches_are_taken_once() {
        let mut spans = Spans::default();
        assert!(spans.take(&(5..10)));
        assert!(!spans.take(&(9..12)));
        assert!(!spans.take(&(0..6)));
        assert!(!spans.take(&(6..7)));
        assert!(!spans.take(&(0..20)));
        assert!(spans.take(&(10..12)));
        assert!(spans.take(&(0..5)));
    }
}

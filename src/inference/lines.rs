//! Answers of one JSON value a line (`application/x-ndjson`), as Ollama and others stream them.

use super::sse::Event;

/// Splits such an answer into its lines, however its bytes are cut. Holds at most one line. Every byte is in the
/// [`raw`](Event::raw) of one line, with the line feed that ends it.
pub(crate) struct LineReader {
    max_line: usize,
    /// What came of the line that is not complete.
    held: Vec<u8>,
    /// Its length, were it not for the bound.
    length: usize,
}

impl LineReader {
    /// A line of more than `max_line` bytes is reported as [`oversized`](Event::oversized), without its content.
    pub(crate) fn new(max_line: usize) -> Self {
        Self { max_line, held: Vec::new(), length: 0 }
    }

    /// Takes the next bytes, and gives each line that ends in them to `on_line`.
    pub(crate) fn push(&mut self, data: &[u8], mut on_line: impl FnMut(Event<'_>)) {
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            self.hold(piece);
            if piece.ends_with(b"\n") {
                self.emit(true, &mut on_line);
            }
        }
    }

    /// Ends the answer. What came of a line that no line feed ends is given too.
    pub(crate) fn finish(&mut self, mut on_line: impl FnMut(Event<'_>)) {
        if self.length > 0 {
            self.emit(false, &mut on_line);
        }
    }

    fn hold(&mut self, data: &[u8]) {
        self.length = self.length.saturating_add(data.len());
        if self.length <= self.max_line {
            self.held.extend_from_slice(data);
        } else {
            self.held = Vec::new();
        }
    }

    fn emit(&mut self, complete: bool, on_line: &mut impl FnMut(Event<'_>)) {
        let length = std::mem::take(&mut self.length);
        let oversized = length > self.max_line;
        on_line(Event::line(&self.held, length, oversized, complete));
        self.held.clear();
        self.held.shrink_to(HELD);
    }
}

/// Whether a media type, in any case and without parameters, is that of lines of JSON.
pub(crate) fn is_lines(media_type: &[u8]) -> bool {
    let names: [&[u8]; 8] = [
        b"application/x-ndjson",
        b"application/ndjson",
        b"application/jsonl",
        b"application/x-jsonl",
        b"application/jsonlines",
        b"application/x-jsonlines",
        b"application/json-lines",
        b"application/x-json-lines",
    ];
    names.iter().any(|name| media_type.eq_ignore_ascii_case(name))
}

/// What is kept allocated between lines.
const HELD: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Line = (Vec<u8>, Option<String>, bool, bool);

    fn read(max: usize, pieces: &[&[u8]]) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut reader = LineReader::new(max);
        let mut keep = |line: Event<'_>| {
            let data = line.data().map(str::to_owned);
            lines.push((line.raw.to_vec(), data, line.oversized, line.complete));
        };
        pieces.iter().for_each(|piece| reader.push(piece, &mut keep));
        reader.finish(&mut keep);
        lines
    }

    #[test]
    fn lines_are_told_apart() {
        let data = |pieces: &[&[u8]]| -> Vec<_> {
            read(8, pieces).into_iter().map(|(_, data, oversized, _)| (data, oversized)).collect()
        };
        let some = |text: &str| (Some(text.to_owned()), false);
        assert_eq!(data(&[b"{}\r\n\n", b"[1", b"]"]), [some("{}"), (None, false), some("[1]")]);
        assert_eq!(data(&[b"12345", b"6789\n", b"x\n"]), [(None, true), some("x")]);
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_lines_and_all_bytes(
            text in "[a{}\r\n\u{e9}]{0,40}",
            cut in 1usize..8,
        ) {
            let whole = read(1 << 10, &[text.as_bytes()]);
            let pieces: Vec<_> = text.as_bytes().chunks(cut).collect();
            prop_assert_eq!(&read(1 << 10, &pieces), &whole);
            let raw: Vec<u8> = whole.into_iter().flat_map(|(raw, ..)| raw).collect();
            prop_assert_eq!(raw, text.as_bytes());
        }
    }
}

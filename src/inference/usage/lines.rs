//! Answers of one JSON value a line (`application/x-ndjson`), as Ollama streams them.

use super::{MAX_HELD, stream::Seen};

/// What came of the line that is not complete.
#[derive(Default)]
pub(super) struct Lines {
    held: Vec<u8>,
    length: usize,
}

impl Lines {
    pub(super) fn push(&mut self, data: &[u8], seen: &mut Seen<'_>) {
        let mut lines = data.split(|byte| *byte == b'\n');
        // What stands before the first line feed goes on the line before, and after each a new one begins.
        self.hold(lines.next().unwrap_or_default());
        for line in lines {
            self.finish(seen);
            self.hold(line);
        }
    }

    pub(super) fn finish(&mut self, seen: &mut Seen<'_>) {
        let length = std::mem::take(&mut self.length);
        if length > MAX_HELD {
            seen.bytes = seen.bytes.saturating_add(length as u64);
        } else if length > 0 {
            seen.data(&String::from_utf8_lossy(&self.held));
        }
        self.held.clear();
    }

    fn hold(&mut self, data: &[u8]) {
        self.length = self.length.saturating_add(data.len());
        if self.length <= MAX_HELD {
            self.held.extend_from_slice(data);
        }
    }
}

//! Answers that come in pieces: events, or lines.

use crate::{
    inference::{
        Edit, Event, EventReader,
        answer::{rewrite_event, rewrite_line},
        lines::LineReader,
    },
    route::Endpoint,
};

/// What the pieces of an answer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pieces {
    /// The events of a stream.
    Events,
    /// JSON values, one a line.
    Lines,
}

/// Tells the pieces of an answer apart.
pub(crate) enum PieceReader {
    Events(EventReader),
    Lines(LineReader),
}

impl Pieces {
    pub(crate) fn reader(self, max: usize) -> PieceReader {
        match self {
            Self::Events => PieceReader::Events(EventReader::new().max_event(max)),
            Self::Lines => PieceReader::Lines(LineReader::new(max)),
        }
    }

    /// A piece with the edits made in its data. `None`: it would not be read as it was.
    pub(crate) fn rewrite(
        self,
        endpoint: Endpoint,
        raw: &[u8],
        first: bool,
        edits: &[Edit],
    ) -> Option<Vec<u8>> {
        match self {
            Self::Events => rewrite_event(endpoint, raw, first, edits),
            Self::Lines => rewrite_line(endpoint, raw, edits),
        }
    }
}

impl PieceReader {
    pub(crate) fn push(&mut self, data: &[u8], on_piece: impl FnMut(Event<'_>)) {
        match self {
            Self::Events(events) => events.push(data, on_piece),
            Self::Lines(lines) => lines.push(data, on_piece),
        }
    }

    pub(crate) fn finish(&mut self, on_piece: impl FnMut(Event<'_>)) {
        match self {
            Self::Events(events) => events.finish(on_piece),
            Self::Lines(lines) => lines.finish(on_piece),
        }
    }
}

impl Default for PieceReader {
    fn default() -> Self {
        Self::Lines(LineReader::new(0))
    }
}

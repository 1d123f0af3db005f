//! Event streams (`text/event-stream`), as the WHATWG HTML standard section 9.2.6 reads them.

use std::{borrow::Cow, fmt};

/// Splits an event stream into its events, however its bytes are cut. Holds at most one event.
///
/// Every byte of the stream is in the [`raw`](Event::raw) of one event, so that forwarding each of them forwards
/// the stream; but events beyond [`max_event`](Self::max_event), are not kept.
///
/// ```
/// use palisade::inference::EventReader;
///
/// let mut reader = EventReader::new();
/// let mut seen = Vec::new();
/// for cut in ["data: a\nda", "ta: b\n\n: ping\n\n"] {
///     reader.push(cut.as_bytes(), |event| seen.push(event.data().map(String::from)));
/// }
/// assert_eq!(seen, [Some("a\nb".to_owned()), None]);
/// ```
pub struct EventReader {
    max_event: usize,
    /// What came of the event that is not complete.
    held: Vec<u8>,
    /// Its length, were it not for the bound.
    length: usize,
    at_start: bool,
    line_empty: bool,
    carriage_return: CarriageReturn,
}

/// What a carriage return that a line feed may follow has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CarriageReturn {
    None,
    Line,
    Event,
}

impl Default for EventReader {
    fn default() -> Self {
        Self {
            max_event: 1 << 20,
            held: Vec::new(),
            length: 0,
            at_start: true,
            line_empty: true,
            carriage_return: CarriageReturn::None,
        }
    }
}

impl EventReader {
    /// A reader at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The most bytes that an event may have, 1 MiB by default. A longer one is reported as
    /// [`oversized`](Event::oversized), without its content, and the stream goes on.
    #[must_use]
    pub fn max_event(mut self, bytes: usize) -> Self {
        self.max_event = bytes;
        self
    }

    /// Takes the next bytes of the stream, and gives each event that ends in them to `on_event`.
    ///
    /// An event whose last byte is a carriage return ends with the byte after it, which may be its line feed.
    pub fn push(&mut self, data: &[u8], mut on_event: impl FnMut(Event<'_>)) {
        let mut rest = data;
        while let Some(end) = self.end_of_event(rest) {
            let Some((block, after)) = rest.split_at_checked(end) else { break };
            rest = after;
            if self.length == 0 && block.len() <= self.max_event {
                self.length = block.len();
                self.emit(block, true, &mut on_event);
            } else {
                self.hold(block);
                let held = std::mem::take(&mut self.held);
                self.emit(&held, true, &mut on_event);
                self.held = held;
                self.held.clear();
                self.held.shrink_to(HELD);
            }
        }
        self.hold(rest);
    }

    /// Ends the stream. What came of an event that is not complete is given too: the standard discards it, a
    /// client may not see it, but its bytes were sent.
    pub fn finish(&mut self, mut on_event: impl FnMut(Event<'_>)) {
        if self.length == 0 {
            return;
        }
        let complete = self.carriage_return == CarriageReturn::Event;
        let held = std::mem::take(&mut self.held);
        self.emit(&held, complete, &mut on_event);
        *self = Self { max_event: self.max_event, ..Self::default() };
    }

    /// The bytes that came of an event that is not complete.
    #[must_use]
    pub fn held(&self) -> &[u8] {
        &self.held
    }

    /// How many bytes of `data` belong to the event that ends in it.
    fn end_of_event(&mut self, data: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(byte) = data.get(at) {
            match (self.carriage_return, byte) {
                (CarriageReturn::Event, _) => {
                    self.carriage_return = CarriageReturn::None;
                    return Some(at + usize::from(*byte == b'\n'));
                }
                (CarriageReturn::Line, b'\n') => {
                    self.carriage_return = CarriageReturn::None;
                }
                (_, b'\n') => {
                    if self.line_empty {
                        return Some(at + 1);
                    }
                    self.carriage_return = CarriageReturn::None;
                    self.line_empty = true;
                }
                (_, b'\r') => {
                    self.carriage_return =
                        if self.line_empty { CarriageReturn::Event } else { CarriageReturn::Line };
                    self.line_empty = true;
                }
                _ => {
                    self.carriage_return = CarriageReturn::None;
                    self.line_empty = false;
                    let line = data.get(at..).unwrap_or_default();
                    at += line.iter().position(is_line_end).unwrap_or(line.len());
                    continue;
                }
            }
            at += 1;
        }
        None
    }

    fn hold(&mut self, data: &[u8]) {
        self.length = self.length.saturating_add(data.len());
        if self.length <= self.max_event {
            self.held.extend_from_slice(data);
        } else {
            self.held = Vec::new();
        }
    }

    fn emit(&mut self, raw: &[u8], complete: bool, on_event: &mut impl FnMut(Event<'_>)) {
        let length = std::mem::take(&mut self.length);
        let first = std::mem::take(&mut self.at_start);
        let bare = raw.strip_prefix(b"\xef\xbb\xbf").filter(|_| first).unwrap_or(raw);
        let text = String::from_utf8_lossy(bare);
        let oversized = length > self.max_event;
        on_event(Event::of(&text, raw, length, oversized, complete));
    }
}

/// What is kept allocated between events.
const HELD: usize = 16 * 1024;

impl fmt::Debug for EventReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventReader").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

/// One event of a stream, or comments and blank lines between two. Its `Debug` hides the content.
#[non_exhaustive]
pub struct Event<'a> {
    /// Its bytes as they came, with comments and the blank line that ends it. Empty if it is oversized.
    pub raw: &'a [u8],
    /// How many bytes it has.
    pub length: usize,
    /// Whether it is beyond the reader's bound: nothing but its length is known.
    pub oversized: bool,
    /// Whether it was ended by a blank line, and not by the end of the stream.
    pub complete: bool,
    name: &'a str,
    data: Option<Cow<'a, str>>,
}

impl<'a> Event<'a> {
    fn of(text: &'a str, raw: &'a [u8], length: usize, oversized: bool, complete: bool) -> Self {
        let mut event = Self { raw, length, oversized, complete, name: "", data: None };
        for line in text.split(['\n', '\r']) {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "data" => match &mut event.data {
                    None => event.data = Some(Cow::Borrowed(value)),
                    Some(data) => {
                        let data = data.to_mut();
                        data.push('\n');
                        data.push_str(value);
                    }
                },
                "event" => event.name = value,
                _ => {}
            }
        }
        event
    }

    /// A line of JSON, which is the data of an event that has nothing else. A blank one has none.
    pub(super) fn line(raw: &'a [u8], length: usize, oversized: bool, complete: bool) -> Self {
        let data = Some(line_data(raw)).filter(|data| !data.trim().is_empty());
        Self { raw, length, oversized, complete, name: "", data }
    }

    /// The event's type: what its `event` field says, else `message`.
    #[must_use]
    pub fn name(&self) -> &str {
        if self.name.is_empty() { "message" } else { self.name }
    }

    /// Its data, several lines joined by a line feed; bytes that are not UTF-8 are replaced. `None` if it has
    /// none, and so is no event to a client.
    #[must_use]
    pub fn data(&self) -> Option<&str> {
        self.data.as_deref()
    }
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("length", &self.length)
            .field("oversized", &self.oversized)
            .field("complete", &self.complete)
            .finish_non_exhaustive()
    }
}

/// A line without what ends it; bytes that are not UTF-8 are replaced.
pub(super) fn line_data(raw: &[u8]) -> Cow<'_, str> {
    let line = raw.strip_suffix(b"\n").unwrap_or(raw);
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line))
}

fn is_line_end(byte: &u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Name, data, raw, oversized, complete.
    type Seen = (String, Option<String>, Vec<u8>, bool, bool);

    fn read(reader: EventReader, cuts: &[&[u8]]) -> Vec<Seen> {
        let (mut reader, mut seen) = (reader, Vec::new());
        let mut see = |event: Event<'_>| {
            assert!(event.oversized || event.length == event.raw.len());
            seen.push((
                event.name().to_owned(),
                event.data().map(str::to_owned),
                event.raw.to_vec(),
                event.oversized,
                event.complete,
            ));
        };
        cuts.iter().for_each(|cut| reader.push(cut, &mut see));
        reader.finish(&mut see);
        seen
    }

    fn data(stream: &str) -> Vec<(String, String)> {
        let seen = read(EventReader::new(), &[stream.as_bytes()]);
        seen.into_iter().filter_map(|(name, data, ..)| Some((name, data?))).collect()
    }

    #[test]
    fn the_examples_of_the_standard() {
        let message = |data: &str| ("message".to_owned(), data.to_owned());
        assert_eq!(data("data: YHOO\ndata: +2\ndata: 10\n\n"), [message("YHOO\n+2\n10")]);
        assert_eq!(
            data(
                ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third\n\n"
            ),
            [message("first event"), message("second event"), message(" third")]
        );
        assert_eq!(
            data("data\n\ndata\ndata\n\ndata:\n\n"),
            [message(""), message("\n"), message("")]
        );
        assert_eq!(data("data:test\n\ndata: test\n\n"), [message("test"), message("test")]);
        assert_eq!(data("event: add\ndata: 1\n\n"), [("add".to_owned(), "1".to_owned())]);
        assert_eq!(data("data: [DONE]\n\n"), [message("[DONE]")]);
        assert_eq!(data(" data: no\nData: no\nevent: lonely\n\n"), []);
    }

    #[test]
    fn all_line_ends_are_read_alike() {
        let stream = "event: e\ndata: a\ndata: b\n\n: ping\n\ndata: c\n\n";
        let expected = data(stream);
        assert_eq!(expected.len(), 2);
        for end in ["\r", "\r\n"] {
            assert_eq!(data(&stream.replace('\n', end)), expected, "{end:?}");
        }
    }

    #[test]
    fn a_byte_order_mark_counts_only_at_the_start() {
        assert_eq!(data("\u{feff}data: a\n\n\u{feff}data: b\n\n").len(), 1);
    }

    #[test]
    fn what_the_stream_ends_in_is_given_as_incomplete() {
        let seen = read(EventReader::new(), &[b"data: a\n\ndata: b"]);
        let complete: Vec<_> =
            seen.iter().map(|(_, data, .., complete)| (data.as_deref(), *complete)).collect();
        assert_eq!(complete, [(Some("a"), true), (Some("b"), false)]);
        assert!(read(EventReader::new(), &[b"data: a\r\r"])[0].4);
    }

    #[test]
    fn an_oversized_event_is_dropped_and_the_stream_goes_on() {
        let long = format!("data: {}\n\n", "x".repeat(100));
        let stream = format!("data: a\n\n{long}data: b\n\n");
        for size in [1, 7, 64, stream.len()] {
            let cuts: Vec<_> = stream.as_bytes().chunks(size).collect();
            let seen = read(EventReader::new().max_event(50), &cuts);
            let found: Vec<_> = seen.iter().map(|event| (event.1.as_deref(), event.3)).collect();
            assert_eq!(found, [(Some("a"), false), (None, true), (Some("b"), false)]);
            assert!(seen[1].2.is_empty());
        }
    }

    proptest! {
        #[test]
        fn events_do_not_depend_on_the_cuts(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "data: x", "data", "event: e", ":", "\n", "\r", "\r\n", "\n\n", "é", "\u{feff}", "\u{1f600}",
                ]),
                0..40,
            ),
            size in 1usize..9,
        ) {
            let stream = pieces.concat();
            let whole = read(EventReader::new().max_event(24), &[stream.as_bytes()]);
            let cuts: Vec<_> = stream.as_bytes().chunks(size).collect();
            prop_assert_eq!(read(EventReader::new().max_event(24), &cuts), whole);
            let kept = read(EventReader::new(), &cuts);
            let raw: Vec<u8> = kept.into_iter().flat_map(|event| event.2).collect();
            prop_assert_eq!(raw, stream.into_bytes());
        }

        #[test]
        fn arbitrary_bytes_are_forwarded(bytes: Vec<u8>, size in 1usize..9) {
            let cuts: Vec<_> = bytes.chunks(size).collect();
            let raw: Vec<u8> =
                read(EventReader::new(), &cuts).into_iter().flat_map(|event| event.2).collect();
            prop_assert_eq!(raw, bytes);
        }
    }
}

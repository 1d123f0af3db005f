//! The texts of one event of a stream, and the event with some of them changed.

use bytes::Bytes;

use super::{BOUNDS, NOT_TEXT, OFFSET, REPEATS, Texts, mix};
use crate::{
    inference::{
        Edit, EventReader, Origin,
        json::{Document, Kind, Value},
        request::{Piece, rewrite::rewrite_parts},
        sse::line_data,
    },
    route::Endpoint,
};

/// Where a text stands in a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The text that it continues: of which choice, content block or tool call, under which name.
    pub(crate) channel: u64,
    /// The choice or content block.
    pub(crate) group: u64,
    /// It stands alone, and continues nothing.
    pub(crate) whole: bool,
}

impl Place {
    pub(super) const ROOT: Self = Self { channel: OFFSET, group: OFFSET, whole: true };

    pub(super) fn within(self, part: &[u8]) -> Self {
        Self { channel: mix(self.channel, part), ..self }
    }

    /// In an object that has a number. The outermost of them is the group.
    pub(super) fn indexed(self, index: &[u8]) -> Self {
        let channel = mix(self.channel, index);
        let group = if self.group == OFFSET { channel } else { self.group };
        Self { channel, group, ..self }
    }

    pub(super) fn named(self, name: &str) -> Self {
        Self { whole: !STREAMED.contains(&name), ..self.within(name.as_bytes()) }
    }
}

/// What one event says.
pub(crate) struct EventTexts {
    texts: Texts,
    is_json: bool,
    ends_all: bool,
    is_ping: bool,
    may_repeat: bool,
}

impl EventTexts {
    /// Reads an event's data. What is not JSON is a text.
    pub(crate) fn read(endpoint: Endpoint, data: &str) -> Self {
        let Ok(document) = Document::read(data.as_bytes(), BOUNDS) else {
            return Self::plain(data);
        };
        let root = document.root();
        let mut texts = Texts::default();
        texts.value(endpoint, root, Place::ROOT, Origin::Assistant);
        let kind = root.get("type").and_then(Value::text).unwrap_or_default();
        let is_part = match endpoint {
            Endpoint::AnthropicMessages => kind == "content_block_delta",
            Endpoint::OpenAiResponses => kind.ends_with(".delta"),
            _ => true,
        };
        // Of other services nobody knows which names they stream under.
        let any_name = matches!(endpoint, Endpoint::Generate | Endpoint::Other);
        for place in &mut texts.places {
            place.whole = !is_part || (place.whole && !any_name);
        }
        let inside =
            |name| root.get(name).filter(|_| endpoint == Endpoint::Generate).map(Value::inside);
        if let Some(inside) = inside("generated_text") {
            for (place, piece) in texts.places.iter_mut().zip(&texts.pieces) {
                place.whole |= piece.source == inside;
            }
        }
        // SGLang's: what else they say does not grow.
        let text = inside("text").filter(|_| root.get("meta_info").is_some());
        if let Some(inside) = &text {
            for (place, piece) in texts.places.iter_mut().zip(&texts.pieces) {
                place.whole |= piece.source != *inside;
            }
        }
        if endpoint == Endpoint::OpenAiResponses && kind.ends_with("arguments.delta") {
            texts.pieces.iter_mut().for_each(|piece| piece.origin = Origin::ToolArguments);
        }
        if matches!(&*kind, "content_block_stop") || kind.ends_with(".done") {
            texts.ends.extend(
                super::index_of(endpoint, root)
                    .map(|index| Place::ROOT.indexed(index.as_bytes()).group),
            );
        }
        let last = ["message_stop", "message_delta", "response.completed", "response.incomplete"];
        // Ollama's last line.
        let done = root.get("done").is_some_and(|done| done.source() == "true");
        let ends_all = done || last.contains(&&*kind) || texts.ends.contains(&OFFSET);
        let (is_ping, may_repeat) = (kind == "ping", text.is_some());
        Self { texts, is_json: true, ends_all, is_ping, may_repeat }
    }

    fn plain(data: &str) -> Self {
        let mut texts = Texts::default();
        let ends_all = data.trim() == "[DONE]";
        if !ends_all {
            let (source, origin) = (0..data.len(), Origin::Assistant);
            texts.pieces.push(Piece { source, decoded: None, origin, turn: 0 });
            texts.places.push(Place { whole: false, ..Place::ROOT });
        }
        Self { texts, is_json: false, ends_all, is_ping: false, may_repeat: false }
    }

    /// Each text, in order.
    pub(crate) fn each<'a>(
        &'a self,
        data: &'a str,
    ) -> impl Iterator<Item = (Place, Origin, &'a str)> {
        let pieces = self.texts.places.iter().zip(&self.texts.pieces);
        pieces.map(|(place, piece)| (*place, piece.origin, piece.text(data.as_bytes())))
    }

    /// The groups whose texts end with this event.
    pub(crate) fn ends(&self) -> &[u64] {
        &self.texts.ends
    }

    /// Whether all texts end with this event.
    pub(crate) fn ends_all(&self) -> bool {
        self.ends_all
    }

    /// Whether it only keeps the connection alive.
    pub(crate) fn is_ping(&self) -> bool {
        self.is_ping
    }

    /// Whether the text that grows may be all of it so far, and not only what is new.
    pub(crate) fn may_repeat(&self) -> bool {
        self.may_repeat
    }

    /// The data with the edits made, and without what would say once more what they hide.
    fn rewrite(&self, data: &str, edits: &[Edit]) -> String {
        let edited = if self.is_json {
            let is_part =
                |segment: usize| self.texts.places.get(segment).is_some_and(|place| !place.whole);
            let data = Bytes::copy_from_slice(data.as_bytes());
            rewrite_parts(&data, &self.texts.pieces, edits, is_part).to_vec()
        } else {
            let mut out = String::with_capacity(data.len());
            let mut done = 0;
            for edit in edits {
                out.push_str(data.get(done..edit.span.start).unwrap_or_default());
                out.push_str(&edit.replacement);
                done = edit.span.end;
            }
            out.push_str(data.get(done..).unwrap_or_default());
            return out;
        };
        String::from_utf8(without_repeats(edited)).unwrap_or_default()
    }
}

/// A line with the edits made. `None`: it would not be read as it was.
pub(super) fn rewrite_line(endpoint: Endpoint, raw: &[u8], edits: &[Edit]) -> Option<Vec<u8>> {
    let end =
        raw.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    let mut out = edited(endpoint, &line_data(raw), edits)?.into_bytes();
    out.extend_from_slice(raw.get(end..).unwrap_or_default());
    Some(out)
}

/// The data of an event with the edits made. `None`: it would not be read as it was.
fn edited(endpoint: Endpoint, data: &str, edits: &[Edit]) -> Option<String> {
    let texts = EventTexts::read(endpoint, data);
    let edited = texts.rewrite(data, edits);
    let reads = !texts.is_json || Document::read(edited.as_bytes(), BOUNDS).is_ok();
    reads.then_some(edited)
}

/// An event with the edits made in its data, its other lines as they were. `None`: it would not be read as it was.
pub(super) fn rewrite_event(
    endpoint: Endpoint,
    raw: &[u8],
    first: bool,
    edits: &[Edit],
) -> Option<Vec<u8>> {
    let mut reader = EventReader::new().max_event(raw.len() + 1);
    if !first {
        // A byte order mark only counts at the start of a stream.
        reader.push(b"\n", |_| {});
    }
    let mut data = None;
    let mut keep = |event: crate::inference::Event<'_>| {
        data = data.take().or_else(|| event.data().map(str::to_owned));
    };
    reader.push(raw, &mut keep);
    reader.finish(&mut keep);
    Some(with_data(raw, &edited(endpoint, &data?, edits)?, first))
}

/// The event with other data.
fn with_data(raw: &[u8], data: &str, first: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + data.len());
    let mut written = false;
    let mut rest = raw;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
        let (line, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        let ending = if after.starts_with(b"\r\n") { 2 } else { after.len().min(1) };
        let (ending, after) = after.split_at_checked(ending).unwrap_or((after, &[]));
        let at_start = first && rest.len() == raw.len();
        let bare = line.strip_prefix(b"\xef\xbb\xbf").filter(|_| at_start).unwrap_or(line);
        let field = bare.split(|byte| *byte == b':').next().unwrap_or_default();
        if field != b"data" {
            out.extend_from_slice(line);
            out.extend_from_slice(ending);
        } else if !std::mem::replace(&mut written, true) {
            out.extend_from_slice(line.get(..line.len() - bare.len()).unwrap_or_default());
            let sign: &[u8] = if bare.starts_with(b"data: ") { b"data: " } else { b"data:" };
            for (number, line) in data.split('\n').enumerate() {
                if number > 0 {
                    out.extend_from_slice(if ending.is_empty() { b"\n" } else { ending });
                }
                // A blank at the start of a line would be taken for the one after the colon.
                out.extend_from_slice(if line.starts_with(' ') { b"data: " } else { sign });
                out.extend_from_slice(line.as_bytes());
            }
            out.extend_from_slice(ending);
        }
        rest = after;
    }
    out
}

/// The document without the members that say the text once more, token by token.
fn without_repeats(source: Vec<u8>) -> Vec<u8> {
    let Ok(document) = Document::read(&source, BOUNDS) else { return source };
    let mut places = Vec::new();
    find_repeats(document.root(), &mut places);
    if places.is_empty() {
        return source;
    }
    let mut out = Vec::with_capacity(source.len());
    let mut done = 0;
    for (span, instead) in places {
        out.extend_from_slice(source.get(done..span.start).unwrap_or_default());
        out.extend_from_slice(instead);
        done = span.end;
    }
    out.extend_from_slice(source.get(done..).unwrap_or_default());
    out
}

fn find_repeats(value: Value<'_>, places: &mut Vec<(std::ops::Range<usize>, &'static [u8])>) {
    value.items().for_each(|item| find_repeats(item, places));
    for (name, member) in value.members() {
        let name = name.text().unwrap_or_default();
        match member.kind() {
            Kind::Array if REPEATS.contains(&&*name) => places.push((member.span(), b"[]")),
            Kind::Object if REPEATS.contains(&&*name) => places.push((member.span(), b"null")),
            // The number of the token says what it was.
            Kind::Object if name == "token" => {
                let id = member.get("id").filter(|id| id.kind() == Kind::Number);
                places.extend(id.map(|id| (id.span(), &b"0"[..])));
            }
            _ if NOT_TEXT.contains(&&*name) => {}
            _ => find_repeats(member, places),
        }
    }
}

/// The names that public APIs send the parts of a text under.
const STREAMED: [&str; 11] = [
    "content",
    "text",
    "reasoning_content",
    "reasoning",
    "refusal",
    "arguments",
    "partial_json",
    "thinking",
    "delta",
    "transcript",
    "input",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn places(endpoint: Endpoint, events: &[&str]) -> Vec<Place> {
        let read = |event: &&str| {
            let texts = EventTexts::read(endpoint, event);
            texts.each(event).map(|(place, ..)| place).collect::<Vec<_>>()
        };
        events.iter().flat_map(read).collect()
    }

    #[test]
    fn deltas_of_one_text_share_a_channel() {
        let choice = |index, text| {
            format!(r#"{{"choices":[{{"delta":{{"content":"{text}"}},"index":{index}}}]}}"#)
        };
        let (a, b, c) = (choice(0, "x"), choice(1, "y"), choice(0, "z"));
        let both = r#"{"choices":[{"index":1,"delta":{"content":"p"}},{"index":0,"delta":{"content":"q"}}]}"#;
        let seen = places(Endpoint::OpenAiChat, &[&a, &b, &c, both]);
        assert_eq!((seen[0], seen[1]), (seen[2], seen[3]));
        assert_eq!(seen[0], seen[4]);
        assert_ne!(seen[0].channel, seen[1].channel);
        assert_ne!(seen[0].group, seen[1].group);
        assert!(!seen[0].whole);
    }

    #[test]
    fn a_token_counter_makes_no_channel() {
        let token =
            |index| format!(r#"{{"index":{index},"token":{{"text":"x","special":false}}}}"#);
        let seen = places(Endpoint::Generate, &[&token(1), &token(2)]);
        assert_eq!(seen[0], seen[1]);
    }

    #[test]
    fn what_is_no_json_is_a_text_and_the_last_word_is_none() {
        assert!(places(Endpoint::Generate, &["[DONE]"]).is_empty());
        assert_eq!(places(Endpoint::Generate, &["plain words"]).len(), 1);
    }

    #[test]
    fn what_ends_a_text_is_told() {
        for (endpoint, text, end) in [
            (
                Endpoint::OpenAiChat,
                r#"{"choices":[{"index":1,"delta":{"content":"x"},"finish_reason":null}]}"#,
                r#"{"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}"#,
            ),
            (
                Endpoint::AnthropicMessages,
                r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"x"}}"#,
                r#"{"type":"content_block_stop","index":1}"#,
            ),
            (
                Endpoint::OpenAiResponses,
                r#"{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"x"}"#,
                r#"{"type":"response.output_text.done","output_index":0,"content_index":0,"text":"x"}"#,
            ),
        ] {
            let group = places(endpoint, &[text])[0].group;
            assert!(EventTexts::read(endpoint, text).ends().is_empty(), "{text}");
            assert_eq!(EventTexts::read(endpoint, end).ends(), [group], "{end}");
        }
        for (endpoint, end) in [
            (Endpoint::OpenAiChat, "[DONE]"),
            (Endpoint::AnthropicMessages, r#"{"type":"message_stop"}"#),
            (Endpoint::Generate, r#"{"index":3,"token":{"text":"x"},"generated_text":"wx"}"#),
        ] {
            assert!(EventTexts::read(endpoint, end).ends_all(), "{end}");
        }
    }

    #[test]
    fn an_event_is_rewritten_in_its_own_lines() {
        let edit = |span| Edit::new(0, span, "X");
        for (raw, expected) in [
            (
                "id: 7\r\ndata: {\"text\":\"abc\"}\r\n\r\n",
                "id: 7\r\ndata: {\"text\":\"aXc\"}\r\n\r\n",
            ),
            ("data:abc\n\n", "data:aXc\n\n"),
            (
                "data: {\"text\":\ndata: \"abc\"}\n: x\n\n",
                "data: {\"text\":\ndata: \"aXc\"}\n: x\n\n",
            ),
            (
                "data:{\"token\":{\"id\":7,\"text\":\"abc\"},\"top_tokens\":[{\"text\":\"abc\"}]}\n\n",
                "data:{\"token\":{\"id\":0,\"text\":\"aXc\"},\"top_tokens\":[]}\n\n",
            ),
            (
                "data: {\"choices\":[{\"text\":\"\\u0061bc\",\"logprobs\":{\"tokens\":[\"abc\"]}}]}\n\n",
                "data: {\"choices\":[{\"text\":\"\\u0061Xc\",\"logprobs\":null}]}\n\n",
            ),
        ] {
            let edited = rewrite_event(Endpoint::Generate, raw.as_bytes(), true, &[edit(1..2)]);
            assert_eq!(String::from_utf8(edited.unwrap()).unwrap(), expected);
        }
    }
}

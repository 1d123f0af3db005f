//! Answers: what of them the model says.
//!
//! Every string of an answer is text, but for members that are known to be something else: identifiers,
//! types, what the server repeats of the request. So a member that no public API has is read too.
//! That covers the answers of the OpenAI APIs, Anthropic, text-generation-inference, SGLang and
//! FastAPI services, whole or as the events or lines of a stream.

mod event;
mod pieces;

use std::{borrow::Cow, fmt};

use bytes::Bytes;

use self::event::{rewrite_event, rewrite_line};
pub(crate) use self::{
    event::{EventTexts, Place},
    pieces::{PieceReader, Pieces},
};

use super::{
    Edit, Origin, Segment,
    adapter::{Adapted, AdapterError, Way},
    json::{Bounds, Document, JsonError, Kind, Value},
    request::{
        Piece,
        rewrite::{edited, rewrite},
    },
};
use crate::route::Endpoint;

/// An answer that was read whole. Its `Debug` hides the text.
pub(crate) struct Answer {
    raw: Bytes,
    texts: Texts,
    form: Form,
}

/// How its texts are written.
enum Form {
    Json,
    Plain,
    Adapted(Adapted),
}

impl Answer {
    /// Reads a JSON answer.
    pub(crate) fn json(endpoint: Endpoint, raw: Bytes) -> Result<Self, JsonError> {
        let texts = Texts::read(endpoint, &raw)?;
        Ok(Self { raw, texts, form: Form::Json })
    }

    /// Takes the whole answer as one text.
    pub(crate) fn plain(raw: Bytes) -> Result<Self, JsonError> {
        std::str::from_utf8(&raw).map_err(|_| JsonError::NotUtf8)?;
        let mut texts = Texts::default();
        let source = 0..raw.len();
        texts.pieces.push(Piece { source, decoded: None, origin: Origin::Assistant, turn: 0 });
        Ok(Self { raw, texts, form: Form::Plain })
    }

    /// Reads an answer as the adapter does.
    pub(crate) fn adapted(adapted: &Adapted, raw: Bytes) -> Result<Self, AdapterError> {
        let pieces = adapted.read(Way::Answer, &raw)?.pieces;
        let texts = Texts { pieces, ..Texts::default() };
        Ok(Self { raw, texts, form: Form::Adapted(adapted.clone()) })
    }

    /// The answer, byte for byte as it came.
    pub(crate) fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// What the model says.
    pub(crate) fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        self.texts.pieces.iter().enumerate().map(|(index, piece)| {
            Segment::new(index, piece.text(&self.raw), piece.origin, piece.turn)
        })
    }

    /// Whether the text stands in it once more, cut into tokens, so that editing it would not remove it.
    pub(crate) fn repeats(&self) -> bool {
        self.texts.repeats
    }

    /// The answer with the edits made, every other byte as it was. The edits are in order and don't overlap. `None` if it
    /// would not read as it did: two names of members are alike, or its adapter can't write it.
    pub(crate) fn rewritten(&self, edits: &[Edit]) -> Option<Bytes> {
        let pieces = &self.texts.pieces;
        match &self.form {
            Form::Json => {
                let json = rewrite(&self.raw, pieces, edits);
                Document::read(&json, BOUNDS).is_ok().then_some(json)
            }
            Form::Adapted(adapted) => adapted.rewritten(Way::Answer, &self.raw, pieces, edits).ok(),
            Form::Plain => {
                let text = pieces.first().map_or("", |piece| piece.text(&self.raw));
                Some(edited(text, &edits.iter().collect::<Vec<_>>(), true).into())
            }
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("bytes", &self.raw.len()).finish_non_exhaustive()
    }
}

/// The texts of a document, by place, each with its channel.
#[derive(Default)]
struct Texts {
    pieces: Vec<Piece>,
    /// The place of each piece.
    places: Vec<Place>,
    /// The groups whose texts end here.
    ends: Vec<u64>,
    repeats: bool,
}

impl Texts {
    fn read(endpoint: Endpoint, data: &[u8]) -> Result<Self, JsonError> {
        let document = Document::read(data, BOUNDS)?;
        let mut texts = Self::default();
        texts.value(endpoint, document.root(), Place::ROOT, Origin::Assistant);
        Ok(texts)
    }

    fn value(&mut self, endpoint: Endpoint, value: Value<'_>, place: Place, origin: Origin) {
        match value.kind() {
            Kind::String => self.string(value, place, origin),
            Kind::Array => {
                for (number, item) in value.items().enumerate() {
                    let counted = if index_of(endpoint, item).is_some() { 0 } else { number };
                    self.value(endpoint, item, place.within(&counted.to_le_bytes()), origin);
                }
            }
            Kind::Object => self.object(endpoint, value, place, origin),
            _ => {}
        }
    }

    fn object(&mut self, endpoint: Endpoint, value: Value<'_>, place: Place, origin: Origin) {
        let place = match index_of(endpoint, value) {
            Some(index) => place.indexed(index.as_bytes()),
            None => place,
        };
        for (name, member) in value.members() {
            let name = name.text().unwrap_or_default();
            if ENDS.contains(&&*name) && !member.is_null() {
                self.ends.push(place.group);
            }
            if REPEATS.contains(&&*name) {
                self.repeats |= member.all().nth(1).is_some();
            } else if ARGUMENTS.contains(&&*name) && member.kind() == Kind::Object {
                self.arguments(member, place.named(&name));
            } else if !NOT_TEXT.contains(&&*name) {
                let origin =
                    if ARGUMENTS.contains(&&*name) { Origin::ToolArguments } else { origin };
                self.value(endpoint, member, place.named(&name), origin);
            }
        }
    }

    /// The model chooses every name and string in them.
    fn arguments(&mut self, value: Value<'_>, place: Place) {
        let place = Place { whole: true, ..place };
        for value in value.all().filter(|value| matches!(value.kind(), Kind::Name | Kind::String)) {
            self.string(value, place, Origin::ToolArguments);
        }
    }

    fn string(&mut self, value: Value<'_>, place: Place, origin: Origin) {
        let decoded = match value.text() {
            Some(Cow::Owned(text)) => Some(text.into_boxed_str()),
            _ => None,
        };
        self.pieces.push(Piece { source: value.inside(), decoded, origin, turn: 0 });
        self.places.push(place);
    }
}

/// What an object says of its place among others, as it stands in the source. In
/// text-generation-inference's events, told by their `token`, `index` counts the tokens.
fn index_of<'d>(endpoint: Endpoint, value: Value<'d>) -> Option<Cow<'d, str>> {
    if endpoint == Endpoint::Generate && value.get("token").is_some() {
        return None;
    }
    let mut index = Cow::Borrowed("");
    for (name, member) in value.members() {
        let name = name.text().unwrap_or_default();
        if INDEX.contains(&&*name) && member.kind() == Kind::Number {
            index.to_mut().push_str(&name);
            index.to_mut().push_str(member.source());
        }
    }
    (!index.is_empty()).then_some(index)
}

/// FNV-1a, 64 bits: the names of channels.
fn mix(channel: u64, part: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    step(part.iter().fold(channel, step), &0xff)
}

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Room for an answer as large as is held, and for any that is nested sanely.
const BOUNDS: Bounds = Bounds { depth: 64, nodes: 1 << 20 };

const INDEX: [&str; 3] = ["index", "output_index", "content_index"];

/// The text once more, token by token.
const REPEATS: [&str; 10] = [
    "logprobs",
    "top_logprobs",
    "tokens",
    "top_tokens",
    "prefill",
    "token_ids",
    "output_ids",
    "output_token_logprobs",
    "input_token_logprobs",
    "prompt_logprobs",
];

/// The last event of a choice has one that is not null.
const ENDS: [&str; 3] = ["finish_reason", "stop_reason", "generated_text"];

/// What a model calls a tool with.
const ARGUMENTS: [&str; 3] = ["arguments", "partial_json", "input"];

/// What the server says and not the model, or what the client sent.
const NOT_TEXT: [&str; 29] = [
    "id",
    "created_at",
    "done_reason",
    "object",
    "model",
    "role",
    "type",
    "finish_reason",
    "stop_reason",
    "system_fingerprint",
    "service_tier",
    "status",
    "usage",
    "item_id",
    "call_id",
    "response_id",
    "tool_use_id",
    "tool_call_id",
    "previous_response_id",
    "instructions",
    "tools",
    "tool_choice",
    "metadata",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "obfuscation",
    "signature",
    "encrypted_content",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(endpoint: Endpoint, body: &'static str) -> Vec<String> {
        let answer = Answer::json(endpoint, body.into()).unwrap();
        answer.segments().map(|segment| segment.text.to_owned()).collect()
    }

    #[test]
    fn every_api_says_its_text() {
        for (endpoint, body, expected) in [
            (
                Endpoint::OpenAiChat,
                r#"{"id":"c-1","choices":[{"index":0,"message":{"role":"assistant","content":"a",
                "tool_calls":[{"id":"t","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]},
                "finish_reason":"stop"}],"usage":{"total_tokens":3}}"#,
                &["a", "f", "{\"x\":1}"][..],
            ),
            (
                Endpoint::OpenAiCompletions,
                r#"{"choices":[{"text":"a"},{"text":"b"}]}"#,
                &["a", "b"],
            ),
            (
                Endpoint::OpenAiResponses,
                r#"{"output":[{"type":"message","content":[{"type":"output_text","text":"a"}]}],
                "instructions":"secret"}"#,
                &["a"],
            ),
            (
                Endpoint::AnthropicMessages,
                r#"{"content":[{"type":"text","text":"a"},{"type":"tool_use","input":{"q":["b"]}}]}"#,
                &["a", "q", "b"],
            ),
            (Endpoint::Generate, r#"[{"generated_text":"a","details":{"tokens":[]}}]"#, &["a"]),
            (Endpoint::Generate, r#"{"text":["a","b"],"meta_info":{"id":"x"}}"#, &["a", "b"]),
            (Endpoint::Generate, r#"{"anything":{"else":"a"}}"#, &["a"]),
            (Endpoint::Generate, r#""a""#, &["a"]),
        ] {
            assert_eq!(texts(endpoint, body), expected, "{body}");
        }
    }

    #[test]
    fn edits_touch_nothing_else() {
        let body = r#"{ "big":1e400, "choices":[{"text":"\u0061b\ncd"}] }"#;
        let answer = Answer::json(Endpoint::OpenAiCompletions, body.into()).unwrap();
        let edited = answer.rewritten(&[Edit::new(0, 1..3, "\"X\"")]).unwrap();
        assert_eq!(edited, r#"{ "big":1e400, "choices":[{"text":"\u0061\"X\"cd"}] }"#);
        let plain = Answer::plain("abcd".into()).unwrap();
        assert_eq!(plain.rewritten(&[Edit::new(0, 1..3, "X")]).unwrap(), "aXd");
    }

    #[test]
    fn all_that_a_model_calls_a_tool_with_is_its_text() {
        let body = r#"{"content":[{"type":"tool_use","id":"t","name":"f",
            "input":{"id":"a","b":{"user":"c"},"metadata":["d"],"tokens":"e"}}]}"#;
        assert_eq!(
            texts(Endpoint::AnthropicMessages, body),
            ["f", "id", "a", "b", "user", "c", "metadata", "d", "tokens", "e"]
        );
    }

    #[test]
    fn text_that_stands_twice_is_told() {
        for (body, expected) in [
            (r#"{"choices":[{"text":"a","logprobs":null}]}"#, false),
            (r#"{"choices":[{"text":"a","logprobs":{"tokens":["a"]}}]}"#, true),
            (r#"{"generated_text":"a","details":{"tokens":[{"text":"a"}]}}"#, true),
        ] {
            let answer = Answer::json(Endpoint::Generate, body.into()).unwrap();
            assert_eq!(answer.repeats(), expected, "{body}");
        }
    }
}

//! What an answer says of the tokens it used.

mod skeleton;
mod stated;
mod stream;

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use self::{skeleton::Skeleton, stated::Stated, stream::Seen};
use super::{
    json::Bounds,
    lines::{LineReader, is_lines},
    sse::EventReader,
};
use crate::reservation::TokenUsage;

/// Reads the token usage out of an answer as it passes, in bounded memory, however its bytes are cut.
///
/// | answer | where its usage stands |
/// |---|---|
/// | OpenAI JSON | `usage`, of chat, completions, responses and embeddings |
/// | OpenAI event stream | `usage` of the last chunk that has one; `response.completed` |
/// | Anthropic | `usage`; `message_start` and `message_delta`, cached tokens included |
/// | text-generation-inference | `details`, in JSON or the last event; `x-prompt-tokens`, `x-generated-tokens` |
/// | SGLang | `meta_info` |
/// | Ollama | `prompt_eval_count`, `eval_count` |
/// | gRPC | trailers `x-prompt-tokens`, `x-generated-tokens` |
///
/// What of a prompt was cached, and what of an answer was reasoning, stands in `prompt_tokens_details` or
/// `input_tokens_details` (`cached_tokens`) and `completion_tokens_details` or `output_tokens_details` (`reasoning_tokens`) of
/// OpenAI's `usage`, in Anthropic's `cache_read_input_tokens`, and in Gemini's and SGLang's names for them.
///
/// Only members in their documented places count: text that the model was made to say can't pose as usage.
/// Of an answer with a `Content-Encoding` nothing is read. Of JSON beyond 1 MiB only what stands in objects, not what in
/// arrays within them.
pub struct UsageReader {
    mode: Mode,
    stated: Stated,
    finished: bool,
    /// What it states may be of a part of the answer.
    in_pieces: bool,
    /// It is text and nothing else.
    is_text: bool,
    /// Tokens in the text of the events so far.
    text: u64,
    /// Bytes that no event's text accounts for.
    bytes: u64,
    bytes_per_token: u64,
}

enum Mode {
    Json(Held),
    /// JSON, longer than is held.
    LongJson(Skeleton),
    Events(EventReader),
    /// JSON values, one a line.
    Lines(LineReader),
    /// Not to be read: estimated by its length.
    Opaque,
}

impl UsageReader {
    /// A reader for the answer with these headers.
    #[must_use]
    pub fn new(headers: &HeaderMap) -> Self {
        let encoded = headers
            .get_all(header::CONTENT_ENCODING)
            .iter()
            .any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
        let media_type = media_type(headers);
        let is = |name: &[u8]| media_type.eq_ignore_ascii_case(name);
        let mode = if encoded {
            Mode::Opaque
        } else if is(b"text/event-stream") {
            Mode::Events(EventReader::new().max_event(MAX_HELD))
        } else if is(b"") || is(b"application/json") || has_suffix(media_type, b"+json") {
            Mode::Json(Held::default())
        } else if is_lines(media_type) {
            Mode::Lines(LineReader::new(MAX_HELD))
        } else {
            Mode::Opaque
        };
        let mut reader = Self {
            in_pieces: matches!(mode, Mode::Events(_) | Mode::Lines(_)),
            is_text: !encoded && is(b"text/plain"),
            mode,
            stated: Stated::default(),
            finished: false,
            text: 0,
            bytes: 0,
            bytes_per_token: if encoded { ENCODED } else { PLAIN },
        };
        reader.trailers(headers);
        reader
    }

    /// Takes the next bytes of the body.
    pub fn push(&mut self, data: &Bytes) {
        let mut seen = Seen::new(&mut self.stated);
        match &mut self.mode {
            Mode::Events(events) => events.push(data, |event| seen.event(&event)),
            Mode::Lines(lines) => lines.push(data, |line| seen.event(&line)),
            Mode::Json(held) => {
                seen.bytes = data.len() as u64;
                if held.len().saturating_add(data.len()) <= MAX_HELD {
                    held.push(data);
                } else {
                    let mut skeleton = Skeleton::default();
                    skeleton.push(held.as_slice());
                    skeleton.push(data);
                    self.mode = Mode::LongJson(skeleton);
                }
            }
            Mode::LongJson(skeleton) => {
                seen.bytes = data.len() as u64;
                skeleton.push(data);
            }
            Mode::Opaque => seen.bytes = data.len() as u64,
        }
        self.text = self.text.saturating_add(seen.text);
        self.bytes = self.bytes.saturating_add(seen.bytes);
    }

    /// Takes the trailers of the body.
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        self.stated.input_at_least(number(trailers, &PROMPT_TOKENS));
        self.stated.output_at_least(number(trailers, &GENERATED_TOKENS));
    }

    /// Ends the body: a JSON answer is read only now.
    pub fn finish(&mut self) {
        self.finished = true;
        let mut seen = Seen::new(&mut self.stated);
        match std::mem::replace(&mut self.mode, Mode::Opaque) {
            Mode::Json(held) if held.len() == 0 => {}
            Mode::Json(held) => seen.stated.json(held.as_slice(), BOUNDS),
            Mode::LongJson(skeleton) => {
                seen.stated.json(skeleton.text().unwrap_or_default(), BOUNDS);
            }
            Mode::Events(mut events) => events.finish(|event| seen.event(&event)),
            Mode::Lines(mut lines) => lines.finish(|line| seen.event(&line)),
            Mode::Opaque => {}
        }
        self.text = self.text.saturating_add(seen.text);
        self.bytes = self.bytes.saturating_add(seen.bytes);
    }

    /// What the answer has said so far. `None` until it says how many tokens its prompt had. Until it says how many it
    /// has itself, they are estimated; and until [`finish`](Self::finish), no fewer than estimated, since
    /// Anthropic's streams begin with a count of 1 and only end with the true one.
    #[must_use]
    pub fn usage(&self) -> Option<TokenUsage> {
        let input = self.stated.input()?;
        let output = match self.stated.output() {
            // There is no text without a token.
            Some(0) if self.in_pieces => self.output_estimate(),
            Some(stated) if self.finished || !self.in_pieces => stated,
            _ => self.output_estimate(),
        };
        let usage = TokenUsage::new(input, output);
        let usage = usage.with_cached_input(self.stated.cached().unwrap_or(0));
        Some(usage.with_reasoning(self.stated.reasoning().unwrap_or(0)))
    }

    /// Tokens in the answer so far: by the text in an event stream, by the bytes of anything else, and no fewer than it
    /// says itself.
    #[must_use]
    pub fn output_estimate(&self) -> u64 {
        self.estimate().max(self.stated.output().unwrap_or(0))
    }

    /// How many tokens the answer says it has itself.
    pub(crate) fn stated_output(&self) -> Option<u64> {
        self.stated.output()
    }

    /// Whether the estimate is made of the answer's text, and not of the bytes that it came in.
    pub(crate) fn reads_text(&self) -> bool {
        self.in_pieces
    }

    /// Whether the estimate is of what was said, not of what is around it: of a text by itself, its bytes are that.
    #[cfg(feature = "rate-limit")]
    pub(crate) fn estimates_text(&self) -> bool {
        self.in_pieces || self.is_text
    }

    /// Whether the answer is one JSON text, and not a stream.
    #[cfg(feature = "rate-limit")]
    pub(crate) fn reads_whole(&self) -> bool {
        matches!(self.mode, Mode::Json(_) | Mode::LongJson(_))
    }

    fn estimate(&self) -> u64 {
        self.text.saturating_add(self.bytes.div_ceil(self.bytes_per_token))
    }
}

impl fmt::Debug for UsageReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UsageReader")
            .field("usage", &self.usage())
            .field("output_estimate", &self.output_estimate())
            .finish_non_exhaustive()
    }
}

/// The most bytes that are held of an answer.
const MAX_HELD: usize = 1 << 20;
const BOUNDS: Bounds = Bounds { depth: 64, nodes: 1 << 18 };

/// Bytes of JSON or text to a token, and of compressed text.
const PLAIN: u64 = 4;
const ENCODED: u64 = 2;

static PROMPT_TOKENS: HeaderName = HeaderName::from_static("x-prompt-tokens");
static GENERATED_TOKENS: HeaderName = HeaderName::from_static("x-generated-tokens");

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok().filter(stated::is_credible)
}

/// Without parameters, in lower case.
fn media_type(headers: &HeaderMap) -> &[u8] {
    let value = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

fn has_suffix(media_type: &[u8], suffix: &[u8]) -> bool {
    let at = media_type.len().checked_sub(suffix.len());
    let end = at.and_then(|at| media_type.get(at..));
    end.is_some_and(|end| end.eq_ignore_ascii_case(suffix))
}

/// A body that is kept until it ends. One that comes in one piece is not copied.
#[derive(Default)]
struct Held {
    first: Bytes,
    all: Vec<u8>,
}

impl Held {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn push(&mut self, data: &Bytes) {
        if self.len() == 0 {
            self.first = data.clone();
            return;
        }
        if self.all.is_empty() {
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.all.extend_from_slice(data);
    }

    fn as_slice(&self) -> &[u8] {
        if self.all.is_empty() { &self.first } else { &self.all }
    }
}

#[cfg(test)]
mod tests;

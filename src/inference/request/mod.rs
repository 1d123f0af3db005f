//! Prompts: what a model would see of a request, in every wire format that inference servers speak.
//!
//! A body is parsed once, strictly, and whatever text a model may see of it becomes a [`Segment`], down
//! to the descriptions in a tool's schema. What is not text, such as an image or token ids, is told by
//! [`Prompt::unread`], never passed over in silence. A server may put members into its prompt that no
//! public API has: their strings are segments too, unless they are known to be options.
//!
//! | endpoint | what is its prompt |
//! |---|---|
//! | `/generate` | `prompt`, `inputs`, `text` (string, list), `input_ids`, `input_embeds`, `messages`, `instances` |
//! | `/v1/chat/completions` | `messages`, `tools`, `functions`, `response_format`, `documents` |
//! | `/v1/completions` | `prompt` (string, list, token ids, lists of token ids), `suffix` |
//! | `/v1/responses` | `instructions`, `input` (string, items), `tools`, `prompt` |
//! | `/v1/embeddings`, `/embed` | `input`, `inputs` (string, list, pairs, token ids) |
//! | `/v1/messages` | `system`, `messages`, `tools` |

mod adapted;
mod body;
mod error;
mod message;
mod nested;
mod part;
mod plain;
pub(super) mod rewrite;
mod words;

use std::{borrow::Cow, fmt, ops::Range};

use bytes::Bytes;

#[cfg(feature = "prompt-guard")]
pub(crate) use self::body::is_prompt_member;
pub use self::error::{ReadError, ReadErrorKind, ReadLimits};
use super::{adapter::Adapted, json::Document, tokens::TokenEstimator};
use crate::route::Endpoint;

/// Who speaks in a segment, as far as the request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Origin {
    /// The system prompt, instructions, or a template.
    System,
    /// The developer role of the OpenAI API.
    Developer,
    /// The user, an unknown role, or a prompt without roles.
    User,
    /// The model, in an earlier turn.
    Assistant,
    /// What a tool answered.
    ToolResult,
    /// What the model called a tool with, in an earlier turn.
    ToolArguments,
    /// Names, descriptions and schemas of tools and of structured answers.
    ToolSchema,
    /// A document or search result that was attached.
    Document,
}

impl Origin {
    /// As it stands in metrics and policies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::ToolResult => "tool_result",
            Self::ToolArguments => "tool_arguments",
            Self::ToolSchema => "tool_schema",
            Self::Document => "document",
        }
    }
}

/// One piece of text that a model would see. Its `Debug` hides the text.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segment<'a> {
    /// Its place among the prompt's segments, from 0.
    pub index: usize,
    /// The text, decoded from JSON.
    pub text: &'a str,
    /// Who speaks.
    pub origin: Origin,
    /// Which message, input item or prompt of a list it belongs to, from 0; 0 outside of those.
    pub turn: u32,
}

impl<'a> Segment<'a> {
    /// A segment.
    #[must_use]
    pub fn new(index: usize, text: &'a str, origin: Origin, turn: u32) -> Self {
        Self { index, text, origin, turn }
    }
}

impl fmt::Debug for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("index", &self.index)
            .field("bytes", &self.text.len())
            .field("origin", &self.origin)
            .field("turn", &self.turn)
            .finish()
    }
}

/// What can't be read as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unread {
    /// A prompt given as token ids.
    TokenIds,
    /// An image, or a link to one.
    Image,
    /// Sound, or a link to it.
    Audio,
    /// A file, or a link to one.
    File,
    /// Anything else: embeddings, video, encrypted reasoning, a part of an unknown type.
    Other,
}

/// A change to one segment's text, for [`Prompt::rewrite`]. Its `Debug` hides the replacement.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Edit {
    /// The segment's index.
    pub segment: usize,
    /// What of its text is replaced, in bytes.
    pub span: Range<usize>,
    /// What takes its place.
    pub replacement: Cow<'static, str>,
}

impl Edit {
    /// Replaces `span` of the text of `segment`.
    pub fn new(
        segment: usize,
        span: Range<usize>,
        replacement: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { segment, span, replacement: replacement.into() }
    }
}

impl fmt::Debug for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edit")
            .field("segment", &self.segment)
            .field("span", &self.span)
            .finish_non_exhaustive()
    }
}

/// The prompt of a request: its body, and what was found in it. Its `Debug` hides the text.
///
/// ```
/// use palisade::{inference::{Edit, Origin, Prompt, ReadLimits}, route::Endpoint};
///
/// let body = r#"{"messages": [{"role": "user", "content": "My key is k-123.\n"}], "max_tokens": 9}"#;
/// let prompt = Prompt::read(Endpoint::OpenAiChat, body.into(), &ReadLimits::default())?;
/// let segment = prompt.segments().next().unwrap();
/// assert_eq!((segment.text, segment.origin), ("My key is k-123.\n", Origin::User));
/// assert_eq!(prompt.max_output_tokens(), Some(9));
///
/// let rewritten = prompt.rewrite(&[Edit::new(0, 10..15, "[key]")]);
/// assert_eq!(rewritten, body.replace("k-123", "[key]"));
/// # Ok::<(), palisade::inference::ReadError>(())
/// ```
pub struct Prompt {
    raw: Bytes,
    found: Found,
    /// Who read it, if it was not we.
    adapted: Option<Adapted>,
}

/// What was found in a body, by place, so that it borrows nothing.
#[derive(Default)]
struct Found {
    pieces: Vec<Piece>,
    /// Which of them are what somebody says, in rising order.
    said: Vec<usize>,
    model: Option<Piece>,
    /// Before it is multiplied.
    max_output: Option<u64>,
    /// A limit is stated that means none, and some server may go by that one.
    unlimited: bool,
    /// Answers per prompt.
    answers: u64,
    /// Prompts in the request.
    prompts: u64,
    streams: bool,
    token_ids: u64,
    /// Tokens of what is no segment: roles, member names of schemas, images.
    overhead: u64,
    unread: Vec<Unread>,
}

/// A string of the body.
pub(super) struct Piece {
    /// The inside of the string in the body.
    pub(super) source: Range<usize>,
    /// Its text, where it has escapes.
    pub(super) decoded: Option<Box<str>>,
    pub(super) origin: Origin,
    pub(super) turn: u32,
}

impl Piece {
    pub(super) fn text<'a>(&'a self, raw: &'a [u8]) -> &'a str {
        self.decoded.as_deref().unwrap_or_else(|| self.inside(raw))
    }

    /// The inside of the string in the body, which was found to be UTF-8 when it was read: a check again is the
    /// price of an owned body without `unsafe`.
    fn inside<'a>(&self, raw: &'a [u8]) -> &'a str {
        let inside = raw.get(self.source.clone()).unwrap_or_default();
        std::str::from_utf8(inside).unwrap_or_default()
    }
}

impl Prompt {
    /// Reads the prompt of a request to `endpoint`.
    ///
    /// # Errors
    /// When the body is not strict JSON, exceeds the limits, has a member of a type that the endpoint does not
    /// know, or holds no prompt. [`Endpoint::Grpc`] and [`Endpoint::Other`] never hold one.
    pub fn read(endpoint: Endpoint, body: Bytes, limits: &ReadLimits) -> Result<Self, ReadError> {
        let document = Document::read(&body, limits.bounds()).map_err(ReadErrorKind::from)?;
        let found = body::Reader::read(endpoint, document.root(), limits)?;
        Ok(Self { raw: body, found, adapted: None })
    }

    /// The body, byte for byte as it arrived.
    #[must_use]
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// What a model would see as text, in the order of the body.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let pieces = self.found.pieces.iter().enumerate();
        pieces.map(|(index, piece)| {
            Segment::new(index, piece.text(&self.raw), piece.origin, piece.turn)
        })
    }

    /// The model that is asked for.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.found.model.as_ref().map(|piece| piece.text(&self.raw))
    }

    /// The most tokens that all answers together may have: the limit that the request states, times its prompts, times
    /// the answers to each (`n`, `best_of`). `None` if it states none, or a negative one, which means that.
    #[must_use]
    pub fn max_output_tokens(&self) -> Option<u64> {
        let each = self.found.max_output.filter(|_| !self.found.unlimited)?;
        Some(
            each.saturating_mul(self.found.answers.max(1))
                .saturating_mul(self.found.prompts.max(1)),
        )
    }

    /// Whether the answer is asked for as a stream.
    #[must_use]
    pub fn streams(&self) -> bool {
        self.found.streams
    }

    /// Prompt tokens that are given as ids: they can be counted but not read as text.
    #[must_use]
    pub fn token_ids(&self) -> u64 {
        self.found.token_ids
    }

    /// What could not be read as text, one entry for each.
    #[must_use]
    pub fn unread(&self) -> &[Unread] {
        &self.found.unread
    }

    /// Tokens of the whole prompt: its text by `estimator`, token ids, 4 for each message, and 1024 for
    /// each image, sound or file.
    #[must_use]
    pub fn estimate(&self, estimator: &dyn TokenEstimator) -> u64 {
        let pieces = self.found.pieces.iter();
        let text = pieces.map(|piece| estimator.estimate(piece.text(&self.raw)));
        let other = self.found.token_ids.saturating_add(self.found.overhead);
        text.fold(other, u64::saturating_add)
    }

    /// Whether it is a list of prompts, each of which is answered alone: then a segment's turn says of which it is.
    #[cfg(feature = "prompt-guard")]
    pub(crate) fn is_list(&self) -> bool {
        self.found.prompts > 1
    }

    /// Whether a segment is what somebody says, and no part of a schema, a call or a label.
    #[cfg(feature = "prompt-guard")]
    pub(crate) fn is_said(&self, segment: usize) -> bool {
        self.found.said.binary_search(&segment).is_ok()
    }

    /// As [`rewrite`](Self::rewrite), but a text that is JSON is edited as any other.
    #[cfg(feature = "prompt-guard")]
    pub(crate) fn rewrite_plainly(&self, edits: &[Edit]) -> Bytes {
        rewrite::rewrite_parts(&self.raw, &self.found.pieces, edits, |_| true)
    }

    /// The body with the edits made: the spans of decoded text replaced and escaped again, every other byte as it
    /// was. A span that is out of range or splits a character is moved to the borders around it. Of
    /// edits that overlap, the first one's replacement stands for all. A text that is itself a JSON object or array,
    /// such as what a tool is called with, stays one: only what is in its strings and numbers is replaced.
    ///
    /// What a [`BodyAdapter`](super::BodyAdapter) has read it also writes; if it can't, this is empty.
    #[must_use]
    pub fn rewrite(&self, edits: &[Edit]) -> Bytes {
        self.rewritten(edits).unwrap_or_default()
    }
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prompt")
            .field("bytes", &self.raw.len())
            .field("segments", &self.found.pieces.len())
            .field("token_ids", &self.found.token_ids)
            .field("unread", &self.found.unread)
            .field("max_output_tokens", &self.max_output_tokens())
            .field("streams", &self.found.streams)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

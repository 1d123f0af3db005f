//! Formats of an application's own: what of their bodies is text, and how it is written back.

use std::{
    fmt::{self, Debug},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Edit, Origin, Unread,
    request::{Piece, rewrite::edited},
};

/// Makes bodies readable whose format no public API has: a service's own, or the messages of a gRPC method. For the guard:
/// see [`body_adapter`](crate::prompt_guard::PromptGuardLayerBuilder::body_adapter).
///
/// What it reads is what the guard sees, so it must read a body as the server behind does, refuse what that would not
/// read, and pass over no text that a model gets. It is called on the executor and must not block; one that panics could
/// not read the body. What it writes is read again: where that is not what was to be written, nothing passes.
///
/// ```
/// use bytes::Bytes;
/// use palisade::inference::{AdapterError, BodyAdapter, BodyTexts, Origin};
///
/// /// One prompt a line, behind a number and a comma: `7,How are you?`.
/// #[derive(Debug)]
/// struct Lines;
///
/// impl BodyAdapter for Lines {
///     fn read_request(&self, body: &Bytes) -> Result<BodyTexts, AdapterError> {
///         let body = std::str::from_utf8(body).map_err(|_| AdapterError::new("not UTF-8"))?;
///         let mut texts = BodyTexts::new();
///         let mut at = 0;
///         for (turn, line) in (0..).zip(body.split_inclusive('\n')) {
///             let (number, _) = line.split_once(',').ok_or(AdapterError::new("no comma"))?;
///             let start = at + number.len() + 1;
///             texts.text_at(start..at + line.trim_end().len().max(number.len() + 1), Origin::User, turn);
///             at += line.len();
///         }
///         Ok(texts)
///     }
/// }
///
/// let texts = Lines.read_request(&"7,How are you?\n8,And now?\n".into())?;
/// assert_eq!(texts.len(), 2);
/// # Ok::<(), AdapterError>(())
/// ```
pub trait BodyAdapter: Debug + Send + Sync + 'static {
    /// The texts of a request: of a gRPC method, of its one message, without the frame.
    ///
    /// # Errors
    /// When it is not of the adapter's format. The request is then refused.
    fn read_request(&self, body: &Bytes) -> Result<BodyTexts, AdapterError>;

    /// The request with `texts` in the place of its own, in their order. Only asked for when a text has changed that was not
    /// given [by its place](BodyTexts::text_at): those are written there without it. By default there is no way.
    ///
    /// # Errors
    /// When it can't be written. The request is then refused.
    fn write_request(&self, body: &Bytes, texts: &[String]) -> Result<Bytes, AdapterError> {
        let _ = (body, texts);
        Err(CANNOT_WRITE)
    }

    /// Whether it reads whole answers, too. By default it does not: without frames they are read by their content type, as
    /// those of any route are, and where there are output detectors, other answers and all of gRPC are withheld.
    fn reads_answers(&self) -> bool {
        false
    }

    /// The texts of a whole answer: of a gRPC method, of its one message, without the frame. Event streams and lines of JSON
    /// are read by the guard itself.
    ///
    /// # Errors
    /// When it is not of the adapter's format. The answer is then withheld.
    fn read_answer(&self, body: &Bytes) -> Result<BodyTexts, AdapterError> {
        let _ = body;
        Err(AdapterError::new("answers are not read"))
    }

    /// As [`write_request`](Self::write_request), of an answer.
    ///
    /// # Errors
    /// When it can't be written. The answer is then withheld.
    fn write_answer(&self, body: &Bytes, texts: &[String]) -> Result<Bytes, AdapterError> {
        let _ = (body, texts);
        Err(CANNOT_WRITE)
    }
}

/// Why an adapter can't read or write a body. Holds nothing of it: the reason is one of a closed set, and a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct AdapterError {
    reason: &'static str,
}

impl AdapterError {
    /// An error for this reason.
    #[must_use]
    pub const fn new(reason: &'static str) -> Self {
        Self { reason }
    }

    /// The reason.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        self.reason
    }
}

/// What a [`BodyAdapter`] finds in a body. Its `Debug` hides the texts.
#[derive(Default)]
pub struct BodyTexts {
    pub(super) pieces: Vec<Piece>,
    pub(super) model: Option<Box<str>>,
    pub(super) max_output: Option<u64>,
    pub(super) token_ids: u64,
    pub(super) unread: Vec<Unread>,
}

impl BodyTexts {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A text that is decoded, or written in another way than as it stands in the body. `turn` is that of
    /// [`Segment::turn`](super::Segment::turn).
    pub fn text(&mut self, text: impl Into<Box<str>>, origin: Origin, turn: u32) {
        let decoded = Some(text.into());
        self.pieces.push(Piece { source: 0..0, decoded, origin, turn });
    }

    /// A text that stands in these bytes of the body as it is, in UTF-8. What takes its place is written there as it is, too:
    /// if some signs must not stand there, they make the body unreadable, and so refuse it.
    pub fn text_at(&mut self, span: Range<usize>, origin: Origin, turn: u32) {
        self.pieces.push(Piece { source: span, decoded: None, origin, turn });
    }

    /// Something that a model sees and that is no text. Refused, unless
    /// [`unread`](crate::prompt_guard::PromptGuardLayerBuilder::unread) says otherwise.
    pub fn unread(&mut self, what: Unread) {
        self.unread.push(what);
    }

    /// Prompt tokens that are given as ids: counted for the limiter, and [`unread`](Self::unread).
    pub fn token_ids(&mut self, count: u64) {
        self.token_ids = self.token_ids.saturating_add(count);
        self.unread(Unread::TokenIds);
    }

    /// The model that is asked for.
    pub fn model(&mut self, name: impl Into<Box<str>>) {
        self.model = Some(name.into());
    }

    /// The most tokens that all answers together may have. Without it, the guard's default counts.
    pub fn max_output_tokens(&mut self, tokens: u64) {
        self.max_output = Some(tokens);
    }

    /// How many texts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether they are the same but for these texts.
    fn says(&self, raw: &[u8], pieces: &[Piece], texts: &[String]) -> bool {
        let same = |(now, (before, text)): (&Piece, (&Piece, &String))| {
            now.text(raw) == text && (now.origin, now.turn) == (before.origin, before.turn)
        };
        self.pieces.len() == pieces.len()
            && self.pieces.iter().zip(pieces.iter().zip(texts)).all(same)
    }
}

impl Debug for BodyTexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyTexts").field("texts", &self.pieces.len()).finish_non_exhaustive()
    }
}

/// Which of the two an adapter is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Request,
    Answer,
}

/// An adapter, and whether its bodies come in gRPC's frame.
#[derive(Clone, Debug)]
pub(crate) struct Adapted {
    adapter: Arc<dyn BodyAdapter>,
    pub(crate) framed: bool,
}

impl Adapted {
    pub(crate) fn new(adapter: Arc<dyn BodyAdapter>, framed: bool) -> Self {
        Self { adapter, framed }
    }

    pub(crate) fn reads_answers(&self) -> bool {
        caught(|| Ok(self.adapter.reads_answers())).unwrap_or(false)
    }

    /// What is found in a body. Places are those in the body as it came.
    pub(crate) fn read(&self, way: Way, body: &Bytes) -> Result<BodyTexts, AdapterError> {
        let message = self.message(body)?;
        let mut texts = caught(|| match way {
            Way::Request => self.adapter.read_request(&message),
            Way::Answer => self.adapter.read_answer(&message),
        })?;
        let before = body.len() - message.len();
        for piece in texts.pieces.iter_mut().filter(|piece| piece.decoded.is_none()) {
            let text = message.get(piece.source.clone()).ok_or(NO_PLACE)?;
            std::str::from_utf8(text).map_err(|_| NO_PLACE)?;
            piece.source = before + piece.source.start..before + piece.source.end;
        }
        Ok(texts)
    }

    /// The body with the edits made, if it can be written and then reads as it should.
    pub(super) fn rewritten(
        &self,
        way: Way,
        body: &Bytes,
        pieces: &[Piece],
        edits: &[Edit],
    ) -> Result<Bytes, AdapterError> {
        let texts = texts(body, pieces, edits);
        let changed =
            || pieces.iter().zip(&texts).filter(|(piece, text)| piece.text(body) != text.as_str());
        if changed().next().is_none() {
            return Ok(body.clone());
        }
        let message = if changed().all(|(piece, _)| piece.decoded.is_none()) {
            self.message(&spliced(body, changed()).ok_or(NO_PLACE)?.into())
        } else {
            let message = self.message(body)?;
            caught(|| match way {
                Way::Request => self.adapter.write_request(&message, &texts),
                Way::Answer => self.adapter.write_answer(&message, &texts),
            })
        }?;
        let written = self.framed(message);
        let read = self.read(way, &written)?;
        if read.says(&written, pieces, &texts) { Ok(written) } else { Err(CANNOT_WRITE) }
    }

    /// The one message of a unary call: uncompressed, and nothing after it. Any other body as it is.
    fn message(&self, body: &Bytes) -> Result<Bytes, AdapterError> {
        if !self.framed {
            return Ok(body.clone());
        }
        let (head, message) = body.split_first_chunk().ok_or(NOT_UNARY)?;
        let [compressed, length @ ..]: [u8; FRAME] = *head;
        if compressed != 0 {
            return Err(COMPRESSED);
        }
        let is_all = usize::try_from(u32::from_be_bytes(length)) == Ok(message.len());
        is_all.then(|| body.slice(FRAME..)).ok_or(NOT_UNARY)
    }

    fn framed(&self, message: Bytes) -> Bytes {
        if !self.framed {
            return message;
        }
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
        [&[0], &length[..], &message].concat().into()
    }
}

/// All texts, with the edits made.
fn texts(body: &[u8], pieces: &[Piece], edits: &[Edit]) -> Vec<String> {
    let mut edits: Vec<&Edit> = edits.iter().collect();
    edits.sort_by_key(|edit| (edit.segment, edit.span.start, edit.span.end));
    let mut rest = edits.as_slice();
    let one = |(index, piece): (usize, &Piece)| {
        let own = rest.partition_point(|edit| edit.segment <= index);
        let (own, after) = rest.split_at_checked(own).unwrap_or((rest, &[]));
        rest = after;
        edited(piece.text(body), own, false)
    };
    pieces.iter().enumerate().map(one).collect()
}

/// The body with other texts in their places. `None` if two of them stand in one place.
fn spliced<'a>(
    body: &[u8],
    changed: impl Iterator<Item = (&'a Piece, &'a String)>,
) -> Option<Vec<u8>> {
    let mut changed: Vec<_> = changed.collect();
    changed.sort_by_key(|(piece, _)| piece.source.start);
    let mut out = Vec::with_capacity(body.len());
    let mut done = 0;
    for (piece, text) in changed {
        out.extend_from_slice(body.get(done..piece.source.start)?);
        out.extend_from_slice(text.as_bytes());
        done = piece.source.end;
    }
    out.extend_from_slice(body.get(done..)?);
    Some(out)
}

fn caught<T>(ask: impl FnOnce() -> Result<T, AdapterError>) -> Result<T, AdapterError> {
    // What a panic may leave half done is the adapter's own, or thrown away.
    catch_unwind(AssertUnwindSafe(ask)).unwrap_or(Err(AdapterError::new("the adapter panicked")))
}

/// A flag and a length (gRPC over HTTP/2, "Length-Prefixed-Message").
const FRAME: usize = 5;

const CANNOT_WRITE: AdapterError = AdapterError::new("it can't be written");
const NO_PLACE: AdapterError = AdapterError::new("no text stands in that place");
const NOT_UNARY: AdapterError = AdapterError::new("not one whole message");
const COMPRESSED: AdapterError = AdapterError::new("the message is compressed");

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        #[deny(clippy::missing_trait_methods)]
        impl<A: BodyAdapter + ?Sized> BodyAdapter for $pointer<A> {
            fn read_request(&self, body: &Bytes) -> Result<BodyTexts, AdapterError> {
                (**self).read_request(body)
            }

            fn write_request(&self, body: &Bytes, texts: &[String]) -> Result<Bytes, AdapterError> {
                (**self).write_request(body, texts)
            }

            fn reads_answers(&self) -> bool {
                (**self).reads_answers()
            }

            fn read_answer(&self, body: &Bytes) -> Result<BodyTexts, AdapterError> {
                (**self).read_answer(body)
            }

            fn write_answer(&self, body: &Bytes, texts: &[String]) -> Result<Bytes, AdapterError> {
                (**self).write_answer(body, texts)
            }
        }
    )+};
}

forward!(Arc, Box);

//! The routes whose bodies an adapter of the application reads.

use std::sync::Arc;

use http::Request;

use super::PromptGuardLayerBuilder;
use crate::{
    BuildError, connection,
    inference::{AdapterError, BodyAdapter, adapter::Adapted},
    observe,
    reject::{Rejection, RejectionKind},
    route::{self, Endpoint},
};

/// By the end of the path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Adapters(Vec<(String, Adapted)>);

impl Adapters {
    /// Who reads the request, and what its route then speaks.
    pub(crate) fn of<B>(
        &self,
        request: &Request<B>,
        endpoint: Endpoint,
    ) -> (Option<Adapted>, Endpoint) {
        if self.0.is_empty() {
            return (None, endpoint);
        }
        let matched = connection::matched_path(request.extensions());
        let found = route::by_path(matched, request.uri().path(), |path| {
            let ends = |(suffix, _): &&(String, Adapted)| route::ends_in_segments(path, suffix);
            self.0.iter().rev().find(ends).map(|(_, adapted)| adapted.clone())
        });
        // Whether there is a frame hangs on the route, not on what the caller says of the content.
        let endpoint = match &found {
            Some(adapted) if adapted.framed => Endpoint::Grpc,
            Some(_) if endpoint == Endpoint::Grpc => Endpoint::Other,
            _ => endpoint,
        };
        (found, endpoint)
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let is_path = |(suffix, _): &(String, Adapted)| suffix.starts_with('/') && suffix.len() > 1;
        if self.0.iter().all(is_path) {
            return Ok(());
        }
        Err(BuildError::invalid("body_adapter", "its path does not begin with a slash"))
    }
}

impl PromptGuardLayerBuilder {
    /// Reads the bodies of a route that has a format of its own: of all paths that end in `suffix`, whole segments only.
    /// Goes before what [`Routes`](crate::Routes) say of the route, which decides on the shape of errors; the last one said goes
    /// first. What the adapter can't read is refused with 415, code `unreadable_body`, and counted by its reason
    /// (`palisade_guard_unadapted_total{reason}`). Default: none.
    ///
    /// Bodies of several parts and other charsets are the adapter's to read or refuse; encoded ones are refused.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use palisade::{
    ///     inference::{AdapterError, BodyAdapter, BodyTexts, Origin},
    ///     prompt_guard::PromptGuardLayer,
    /// };
    ///
    /// /// A body that is one prompt, as it is.
    /// #[derive(Debug)]
    /// struct Bare;
    ///
    /// impl BodyAdapter for Bare {
    ///     fn read_request(&self, body: &Bytes) -> Result<BodyTexts, AdapterError> {
    ///         let mut texts = BodyTexts::new();
    ///         texts.text_at(0..body.len(), Origin::User, 0);
    ///         Ok(texts)
    ///     }
    /// }
    ///
    /// let guard = PromptGuardLayer::builder().body_adapter("/ask", Bare).build()?;
    /// # let _ = guard;
    /// # Ok::<(), palisade::BuildError>(())
    /// ```
    pub fn body_adapter(self, suffix: impl Into<String>, adapter: impl BodyAdapter) -> Self {
        self.adapter(suffix.into(), Adapted::new(Arc::new(adapter), false))
    }

    /// The same for a unary gRPC method: the adapter reads and writes the message, the guard its frame. A message that is
    /// compressed, and a second one, is refused with status 3, `INVALID_ARGUMENT`: a client must not choose a compression, and
    /// methods that stream their requests can't be read. An answer that streams passes while nothing reads answers.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use palisade::{
    ///     inference::{AdapterError, BodyAdapter, BodyTexts, Origin},
    ///     prompt_guard::PromptGuardLayer,
    /// };
    ///
    /// /// `message Ask { string prompt = 1; }`, which a service decodes with its generated code.
    /// #[derive(Debug)]
    /// struct Ask;
    ///
    /// # fn decode(_: &[u8]) -> Option<String> { None }
    /// # fn encode(_: &str) -> Vec<u8> { Vec::new() }
    /// impl BodyAdapter for Ask {
    ///     fn read_request(&self, message: &Bytes) -> Result<BodyTexts, AdapterError> {
    ///         let prompt = decode(message).ok_or(AdapterError::new("no message Ask"))?;
    ///         let mut texts = BodyTexts::new();
    ///         texts.text(prompt, Origin::User, 0);
    ///         Ok(texts)
    ///     }
    ///
    ///     fn write_request(&self, _: &Bytes, texts: &[String]) -> Result<Bytes, AdapterError> {
    ///         let [prompt] = texts else { return Err(AdapterError::new("not one text")) };
    ///         Ok(encode(prompt).into())
    ///     }
    /// }
    ///
    /// let guard = PromptGuardLayer::builder().grpc_adapter("/acme.Models/Ask", Ask).build()?;
    /// # let _ = guard;
    /// # Ok::<(), palisade::BuildError>(())
    /// ```
    pub fn grpc_adapter(self, method: impl Into<String>, adapter: impl BodyAdapter) -> Self {
        self.adapter(method.into(), Adapted::new(Arc::new(adapter), true))
    }

    fn adapter(mut self, suffix: String, adapted: Adapted) -> Self {
        self.adapters.0.push((suffix, adapted));
        self
    }
}

/// The refusal of a body that its adapter can't read.
pub(crate) fn unreadable_body(error: AdapterError) -> Rejection {
    count(error);
    Rejection::new(
        RejectionKind::Unreadable,
        "unreadable_body",
        "The body is not of the form that this route takes.",
    )
}

pub(crate) fn count(error: AdapterError) {
    observe::count("palisade_guard_unadapted_total", &[("reason", error.reason())]);
}

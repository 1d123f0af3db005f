//! The server that a detector asks, and how much it is sent.

use std::{fmt, future::Future};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use serde_json::Value;

use super::texts::{Join, Text, Texts};
use crate::{
    BoxError, BuildError, Secret,
    future::ReadyOr,
    inference::{Origin, Prompt},
    outbound::{Client, Failure, check_url_or_plain},
    prompt_guard::{Category, Finding, ScanError},
    runtime,
};

/// Where a remote detector is, who asks, and how much of a prompt it is sent. Its `Debug` hides the headers.
///
/// Asked over HTTPS, with the certificates that the system trusts, or over plain HTTP on a loopback address.
/// Heeds `HTTPS_PROXY` and `NO_PROXY`. Needs tokio.
#[derive(Clone)]
#[must_use]
pub struct RemoteServer {
    base: String,
    headers: Vec<(HeaderName, Result<HeaderValue, &'static str>)>,
    plain: bool,
    name: Option<&'static str>,
    origins: Option<Vec<Origin>>,
    max_segments: usize,
    max_bytes: usize,
    oversize: Oversize,
}

/// What happens to a prompt of which a remote detector would be sent more than it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Oversize {
    /// That itself is a finding, `NAME.too_long` with score 1: the rule says what is done. It can't be
    /// masked, so [`Action::Redact`](crate::prompt_guard::Action::Redact) blocks. The default.
    #[default]
    Find,
    /// The detector can't tell: [`OnUnavailable`](crate::prompt_guard::OnUnavailable) says what is done. With one that
    /// lets pass, whoever pads a prompt gets past the detector.
    Unavailable,
    /// What is too much goes unseen: whoever pads a prompt hides what comes after.
    InsecureTruncate,
}

impl RemoteServer {
    /// A server by the URL that it is mounted at: `https://guard.example`, without the path of its API.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            base: url.into(),
            headers: Vec::new(),
            plain: false,
            name: None,
            origins: None,
            max_segments: 1024,
            max_bytes: 256 * 1024,
            oversize: Oversize::Find,
        }
    }

    /// Shows this token: `Authorization: Bearer …`.
    pub fn bearer(self, token: &Secret<String>) -> Self {
        let value = Secret::new(format!("Bearer {}", token.expose()));
        self.header(header::AUTHORIZATION, &value)
    }

    /// Sends this header with each request, such as an API key.
    pub fn header(mut self, name: HeaderName, value: &Secret<String>) -> Self {
        let value = HeaderValue::from_str(value.expose()).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        self.headers.push((name, value.map_err(|_| "it is no header's value")));
        self
    }

    /// Asks over plain HTTP also what is not this machine. Whoever is on the way can read the prompts and the
    /// token, and answer that all is well.
    pub fn insecure_plain_http(self) -> Self {
        Self { plain: true, ..self }
    }

    /// What the detector is called in verdicts and metrics, where there are two of a kind.
    pub fn named(self, name: &'static str) -> Self {
        Self { name: Some(name), ..self }
    }

    /// Sends only texts of these origins. By default all are sent. A client may claim any origin for any
    /// text, so this is for servers whose clients are trusted to tell them apart.
    pub fn insecure_only(self, origins: impl IntoIterator<Item = Origin>) -> Self {
        Self { origins: Some(origins.into_iter().collect()), ..self }
    }

    /// How many segments of a prompt are sent at most. Default: 1024.
    pub fn max_segments(self, segments: usize) -> Self {
        Self { max_segments: segments, ..self }
    }

    /// How many bytes of text of a prompt are sent at most. Default: 256 KiB. While it is asked, a prompt
    /// takes some four times as much memory.
    pub fn max_bytes(self, bytes: usize) -> Self {
        Self { max_bytes: bytes, ..self }
    }

    /// What happens to a prompt that has more. Default: [`Oversize::Find`].
    pub fn oversize(self, oversize: Oversize) -> Self {
        Self { oversize, ..self }
    }

    /// Ready to be asked at `path`.
    pub(super) fn connect(self, path: &str, name: &'static str) -> Result<Connected, BuildError> {
        let invalid = |reason| BuildError::invalid("RemoteServer", reason);
        let url = format!("{}{path}", self.base.trim_end_matches('/'));
        check_url_or_plain(&url, self.plain).map_err(invalid)?;
        if self.base.contains(['?', '#']) {
            return Err(invalid("its URL has a query"));
        }
        if self.max_bytes == 0 || self.max_segments == 0 {
            return Err(invalid("it may be sent nothing"));
        }
        if self.origins.as_ref().is_some_and(Vec::is_empty) {
            return Err(BuildError::Empty("insecure_only"));
        }
        let json = HeaderValue::from_static("application/json");
        let mut headers = vec![(header::CONTENT_TYPE, json.clone()), (header::ACCEPT, json)];
        for (name, value) in self.headers {
            headers.push((name, value.map_err(invalid)?));
        }
        Ok(Connected {
            client: Client::new(None)?,
            url,
            headers,
            name: self.name.unwrap_or(name),
            origins: self.origins,
            max_segments: self.max_segments,
            max_bytes: self.max_bytes,
            oversize: self.oversize,
        })
    }
}

impl fmt::Debug for RemoteServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteServer")
            .field("base", &self.base)
            .field("max_segments", &self.max_segments)
            .field("max_bytes", &self.max_bytes)
            .field("oversize", &self.oversize)
            .finish_non_exhaustive()
    }
}

/// A server that is asked.
#[derive(Clone)]
pub(super) struct Connected {
    client: Client,
    url: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) name: &'static str,
    origins: Option<Vec<Origin>>,
    max_segments: usize,
    max_bytes: usize,
    oversize: Oversize,
}

/// What of a prompt is sent.
enum Sent {
    Texts(Vec<Text>),
    /// Nothing: this is what there is to say.
    Nothing(Result<Vec<Finding>, ScanError>),
}

impl Connected {
    /// What `look` finds in the texts of the prompt that are sent; or what there is to say without, at once.
    pub(super) fn look<F>(
        &self,
        prompt: &Prompt,
        join: Join,
        look: impl FnOnce(Vec<Text>) -> F,
    ) -> ReadyOr<Result<Vec<Finding>, BoxError>>
    where
        F: Future<Output = Result<Vec<Finding>, ScanError>> + Send + 'static,
    {
        match self.texts(prompt, join) {
            Sent::Nothing(told) => ReadyOr::ready(told.map_err(Into::into)),
            Sent::Texts(texts) => {
                let found = look(texts);
                ReadyOr::pending(async move { Ok(found.await?) })
            }
        }
    }

    fn texts(&self, prompt: &Prompt, join: Join) -> Sent {
        let mut texts = Texts::new(join, self.max_segments, self.max_bytes);
        let chosen =
            prompt.segments().filter(|segment| !segment.text.is_empty()).filter(|segment| {
                self.origins.as_ref().is_none_or(|all| all.contains(&segment.origin))
            });
        for segment in chosen {
            if texts.push(&segment) {
                continue;
            }
            match self.oversize {
                Oversize::InsecureTruncate => break,
                Oversize::Unavailable => {
                    return Sent::Nothing(Err(ScanError::of_prompt("the prompt is too long")));
                }
                Oversize::Find => {
                    // Of no segment: a rule that skips its origin must not skip this.
                    let rule = format!("{}.too_long", self.name);
                    let finding = Finding::new(rule, Category::Custom, 1.0, usize::MAX, None);
                    return Sent::Nothing(Ok(vec![finding]));
                }
            }
        }
        let texts = texts.into_texts();
        if texts.is_empty() { Sent::Nothing(Ok(Vec::new())) } else { Sent::Texts(texts) }
    }

    /// What the server answers to this.
    pub(super) fn ask(
        &self,
        body: &Value,
    ) -> impl Future<Output = Result<Value, ScanError>> + Send + use<> {
        let body = Bytes::from(body.to_string());
        // The client would panic without.
        let answer = runtime::is_here()
            .then(|| self.client.post(&self.url, &self.headers, body, MAX_ANSWER));
        async move {
            let answer = answer.ok_or(ScanError::outage("there is no runtime"))?;
            let answer = answer.await.map_err(|failure| why(&failure))?;
            serde_json::from_slice(&answer).map_err(|_| UNEXPECTED)
        }
    }
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected").field("url", &self.url).finish_non_exhaustive()
    }
}

fn why(failure: &Failure) -> ScanError {
    match failure {
        // The request can't be processed, another one can.
        Failure::Status(status @ (400 | 413 | 422)) => {
            ScanError::of_prompt("the detector refused the prompt").with_status(*status)
        }
        Failure::Status(status) => {
            ScanError::outage("the detector did not answer").with_status(*status)
        }
        Failure::TooLarge(_) => ScanError::outage("the detector answered too much"),
        Failure::Transport(_) => ScanError::outage("the detector can't be reached"),
    }
}

/// The answer is not of the form that is expected.
pub(super) const UNEXPECTED: ScanError =
    ScanError::outage("the detector answered something unexpected");

/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

//! What a line is, and what becomes of it: a text, or the body of a request or of an answer.

use bytes::Bytes;
use clap::ValueEnum;
use http::Request;
use http_body_util::Full;
use palisade::BoxError;
use serde::Deserialize;
use serde_json::{Value, json};

/// What a line is the body of.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Wire {
    Generate,
    Chat,
    Completions,
    Responses,
    Embeddings,
    Messages,
}

/// What the model says, where lines are answers.
#[derive(Clone, Debug)]
pub(crate) struct Says(pub(crate) Bytes);

#[derive(Deserialize)]
struct Line {
    text: String,
}

impl Wire {
    fn path(self) -> &'static str {
        match self {
            Self::Generate => "/generate",
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
            Self::Embeddings => "/v1/embeddings",
            Self::Messages => "/v1/messages",
        }
    }

    /// A request in which nobody finds anything.
    fn question(self) -> Value {
        match self {
            Self::Generate | Self::Completions => json!({"prompt": "Hi"}),
            Self::Responses | Self::Embeddings => json!({"input": "Hi"}),
            Self::Chat | Self::Messages => json!({"messages": [{"role": "user", "content": "Hi"}]}),
        }
    }
}

/// The request that a line is, or that it is the answer to.
pub(crate) fn request(
    wire: Option<Wire>,
    answers: bool,
    line: &[u8],
) -> Result<Request<Full<Bytes>>, BoxError> {
    let body = match wire {
        Some(_) => Bytes::copy_from_slice(line),
        None => {
            let Line { text } = serde_json::from_slice(line)?;
            let body = match answers {
                false => json!({"prompt": text}),
                true => json!({"generated_text": text}),
            };
            Bytes::from(body.to_string())
        }
    };
    let wire = wire.unwrap_or(Wire::Generate);
    if !answers {
        return Ok(Request::post(wire.path()).body(Full::new(body))?);
    }
    let question = Bytes::from(wire.question().to_string());
    Ok(Request::post(wire.path()).extension(Says(body)).body(Full::new(question))?)
}

/// What the model, or the caller, would read.
pub(crate) fn passed_on(
    wire: Option<Wire>,
    answers: bool,
    body: &Bytes,
) -> Result<String, BoxError> {
    if wire.is_some() {
        return Ok(std::str::from_utf8(body)?.to_owned());
    }
    let body: Value = serde_json::from_slice(body)?;
    let member = if answers { "generated_text" } else { "prompt" };
    Ok(body.get(member).and_then(Value::as_str).unwrap_or_default().to_owned())
}

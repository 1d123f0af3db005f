//! The HTTP API, in the shapes that inference servers speak.
//!
//! Nothing here checks who calls or what is asked: the layers in front of it do.

mod chat;
mod generate;
mod messages;

use std::convert::Infallible;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, FromRequest, Request},
    handler::Handler,
    http::{StatusCode, header},
    response::{IntoResponse, Json, Response},
    routing::{MethodRouter, get, post},
};
use futures_util::{StreamExt, stream};
use metrics_exporter_prometheus::PrometheusHandle;
use palisade::{Rejection, RejectionKind, UsageMeter, reject::ErrorFormat};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::engine::{Engine, Finish, Generation, Token};

/// The only model there is.
pub(crate) const MODEL: &str = "trigram";

/// Tokens of an answer when the caller does not say.
pub(crate) const DEFAULT_MAX_TOKENS: u64 = 100;

/// All routes.
pub(crate) fn router(engine: Engine, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/generate", only_post(ErrorFormat::Tgi, generate::generate))
        .route("/generate_stream", only_post(ErrorFormat::Tgi, generate::generate_stream))
        .route("/v1/chat/completions", only_post(ErrorFormat::OpenAi, chat::completions))
        .route("/v1/messages", only_post(ErrorFormat::Anthropic, messages::messages))
        .route("/v1/models", get(models))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(|| async move { metrics.render() }))
        .fallback(no_such_route)
        // The guard has a cap of its own, which binds before this one would.
        .layer(DefaultBodyLimit::disable())
        .with_state(engine)
}

/// Refuses what is no POST, in the shape that the route's clients read.
fn only_post<H, T>(format: ErrorFormat, handler: H) -> MethodRouter<Engine>
where
    H: Handler<T, Engine>,
    T: 'static,
{
    post(handler).fallback(async move || {
        let refusal = Senseless(format, "This route takes POST.".into());
        (StatusCode::METHOD_NOT_ALLOWED, refusal).into_response()
    })
}

async fn no_such_route() -> Response {
    let problem = json!({
        "type": "about:blank", "title": "Not Found", "status": 404,
        "detail": "There is no such route.", "code": "not_found",
    });
    let headers = [(header::CONTENT_TYPE, "application/problem+json")];
    (StatusCode::NOT_FOUND, headers, problem.to_string()).into_response()
}

async fn models() -> Json<Value> {
    let model = json!({"id": MODEL, "object": "model", "created": 0, "owned_by": "palisade"});
    Json(json!({"object": "list", "data": [model]}))
}

/// A request with the handle on what it has reserved.
#[derive(Debug)]
pub(crate) struct Incoming {
    meter: Option<UsageMeter>,
    body: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Incoming {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let meter = UsageMeter::of(request.extensions()).cloned();
        let body =
            Bytes::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        Ok(Self { meter, body })
    }
}

impl Incoming {
    /// The body as JSON, whatever its content type says.
    fn parse<T: DeserializeOwned>(&self, format: ErrorFormat) -> Result<T, Senseless> {
        serde_json::from_slice(&self.body).map_err(|error| Senseless(format, error.to_string()))
    }
}

/// A request that makes no sense: for whom, and why.
#[derive(Debug)]
struct Senseless(ErrorFormat, String);

impl IntoResponse for Senseless {
    fn into_response(self) -> Response {
        let Self(format, message) = self;
        let rejection = Rejection::new(RejectionKind::BadRequest, "invalid_request", message);
        format.respond(&rejection).map(Body::from)
    }
}

/// An event stream: `first`, what `token` makes of each token, and `last`, where there is something
/// to say. Dropping it drops the generation.
fn event_stream<T, L>(generation: Generation, first: Option<String>, token: T, last: L) -> Response
where
    T: Fn(&Generation, Token) -> String + Send + 'static,
    L: FnOnce(&Generation) -> Option<String> + Send + 'static,
{
    let rest = stream::unfold(Some((generation, token, last)), async |state| {
        let (mut generation, token, last) = state?;
        match generation.next().await {
            Some(next) => Some((token(&generation, next), Some((generation, token, last)))),
            None => last(&generation).map(|event| (event, None)),
        }
    });
    let events = stream::iter(first).chain(rest).map(Ok::<_, Infallible>);
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(events)).into_response()
}

/// The usage as OpenAI and those who follow it state it.
fn usage(generation: &Generation) -> Value {
    let (input, output) = (generation.prompt_tokens(), generation.produced());
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output})
}

/// Why an answer ended, in the same words.
fn finish_reason(generation: &Generation) -> &'static str {
    match generation.finish() {
        Some(Finish::Length) => "length",
        _ => "stop",
    }
}

/// An id for an answer, unlike all others of this process.
fn new_id(prefix: &str) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{prefix}{:012x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Text as the APIs take it: a string, or parts of which those with text count.
#[derive(Debug, serde::Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, serde::Deserialize)]
struct Part {
    #[serde(default)]
    text: String,
}

impl Content {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Parts(parts) => {
                parts.iter().map(|part| part.text.as_str()).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

#[derive(Debug, serde::Deserialize)]
struct Message {
    content: Option<Content>,
}

/// The texts of a conversation, one after another.
fn transcript<'a>(contents: impl IntoIterator<Item = &'a Content>) -> String {
    contents.into_iter().map(Content::text).collect::<Vec<_>>().join("\n\n")
}

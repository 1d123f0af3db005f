//! `POST /generate` as FastAPI services have it, and as text-generation-inference (TGI) does, told
//! apart by what the body calls the prompt; and TGI's `POST /generate_stream`.

use axum::{
    extract::State,
    response::{IntoResponse, Json, Response},
};
use palisade::reject::ErrorFormat;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{DEFAULT_MAX_TOKENS, Incoming, Senseless, event_stream, finish_reason, usage};
use crate::engine::{Call, Engine, Finish, Generation, Token};

#[derive(Debug, Deserialize)]
struct Body {
    /// FastAPI's name of the prompt.
    prompt: Option<String>,
    max_tokens: Option<u64>,
    seed: Option<u64>,
    #[serde(default)]
    ignore_eos: bool,
    /// TGI's name of the prompt.
    inputs: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(default)]
    stream: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Parameters {
    max_new_tokens: Option<u64>,
    seed: Option<u64>,
    #[serde(default)]
    details: bool,
}

/// `POST /generate`
pub(super) async fn generate(
    State(engine): State<Engine>,
    incoming: Incoming,
) -> Result<Response, Senseless> {
    let body: Body = incoming.parse(ErrorFormat::Tgi)?;
    match (&body.prompt, &body.inputs) {
        (Some(_), None) => Ok(fast_api(&engine, incoming, body).await),
        (None, Some(_)) if body.stream => Ok(tgi_stream(&engine, incoming, body)),
        (None, Some(_)) => Ok(tgi(&engine, incoming, body).await),
        _ => Err(Senseless(ErrorFormat::Tgi, "either `prompt` or `inputs` is required".into())),
    }
}

/// `POST /generate_stream`
pub(super) async fn generate_stream(
    State(engine): State<Engine>,
    incoming: Incoming,
) -> Result<Response, Senseless> {
    let body: Body = incoming.parse(ErrorFormat::Tgi)?;
    if body.inputs.is_none() {
        return Err(Senseless(ErrorFormat::Tgi, "`inputs` is required".into()));
    }
    Ok(tgi_stream(&engine, incoming, body))
}

async fn fast_api(engine: &Engine, incoming: Incoming, body: Body) -> Response {
    let mut generation = engine.generate(Call {
        prompt: body.prompt.unwrap_or_default(),
        max_tokens: body.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
        seed: body.seed,
        ignore_eos: body.ignore_eos,
        stands_alone: false,
        meter: incoming.meter,
    });
    let ending = |generation: &Generation| json!({"finish_reason": finish_reason(generation), "usage": usage(generation)});
    if body.stream {
        return event_stream(
            generation,
            None,
            |_, token| format!("data: {}\n\n", json!({"text": token.text})),
            move |generation| Some(format!("data: {}\n\ndata: [DONE]\n\n", ending(generation))),
        );
    }
    generation.rest().await;
    let mut answer = ending(&generation);
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("text".to_owned(), generation.text().into());
    }
    Json(answer).into_response()
}

async fn tgi(engine: &Engine, incoming: Incoming, body: Body) -> Response {
    let with_details = body.parameters.details;
    let mut generation = begin_tgi(engine, incoming, body);
    let tokens: Vec<_> = generation.rest().await.iter().map(tgi_token).collect();
    let mut answer = json!({"generated_text": generation.text()});
    if with_details && let Some(answer) = answer.as_object_mut() {
        let details = json!({
            "finish_reason": tgi_finish(&generation), "generated_tokens": generation.produced(),
            "seed": null, "prefill": [], "tokens": tokens,
        });
        answer.insert("details".to_owned(), details);
    }
    let headers = [
        ("x-prompt-tokens", generation.prompt_tokens().to_string()),
        ("x-generated-tokens", generation.produced().to_string()),
    ];
    (headers, Json(answer)).into_response()
}

fn tgi_stream(engine: &Engine, incoming: Incoming, body: Body) -> Response {
    event_stream(
        begin_tgi(engine, incoming, body),
        None,
        |generation, token| tgi_event(generation, tgi_token(&token)),
        |generation| match generation.finish() {
            // The last token said it all.
            Some(Finish::Length) if generation.produced() > 0 => None,
            // The model's own end is a token too, which counts for nobody.
            _ => {
                let end = json!({"id": 0, "text": "</s>", "logprob": 0.0, "special": true});
                Some(tgi_event(generation, end))
            }
        },
    )
}

fn begin_tgi(engine: &Engine, incoming: Incoming, body: Body) -> Generation {
    engine.generate(Call {
        prompt: body.inputs.unwrap_or_default(),
        max_tokens: body.parameters.max_new_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
        seed: body.parameters.seed,
        ignore_eos: body.ignore_eos,
        stands_alone: false,
        meter: incoming.meter,
    })
}

/// An event of a TGI stream. The last one has the whole text and the usage.
fn tgi_event(generation: &Generation, token: Value) -> String {
    let ended = generation.finish().is_some();
    let details = ended.then(|| {
        json!({
            "finish_reason": tgi_finish(generation), "generated_tokens": generation.produced(),
            "input_length": generation.prompt_tokens(), "seed": null,
        })
    });
    let event = json!({
        "index": generation.produced(), "token": token,
        "generated_text": ended.then(|| generation.text()), "details": details,
    });
    format!("data:{event}\n\n")
}

fn tgi_token(token: &Token) -> Value {
    json!({"id": token.id, "text": token.text, "logprob": token.logprob, "special": false})
}

fn tgi_finish(generation: &Generation) -> &'static str {
    match generation.finish() {
        Some(Finish::Length) => "length",
        _ => "eos_token",
    }
}

//! `POST /v1/chat/completions`, as OpenAI has it.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::{
    extract::State,
    response::{IntoResponse, Json, Response},
};
use palisade::reject::ErrorFormat;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    DEFAULT_MAX_TOKENS, Incoming, MODEL, Message, Senseless, event_stream, finish_reason, new_id,
    transcript, usage,
};
use crate::engine::{Call, Engine, Generation};

#[derive(Debug, Deserialize)]
struct Body {
    messages: Vec<Message>,
    max_completion_tokens: Option<u64>,
    max_tokens: Option<u64>,
    n: Option<u64>,
    seed: Option<u64>,
    #[serde(default)]
    ignore_eos: bool,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// `POST /v1/chat/completions`
pub(super) async fn completions(
    State(engine): State<Engine>,
    incoming: Incoming,
) -> Result<Response, Senseless> {
    let body: Body = incoming.parse(ErrorFormat::OpenAi)?;
    if body.n.is_some_and(|n| n != 1) {
        return Err(Senseless(ErrorFormat::OpenAi, "`n` must be 1".into()));
    }
    let mut generation = engine.generate(Call {
        prompt: transcript(body.messages.iter().filter_map(|message| message.content.as_ref())),
        max_tokens: body.max_completion_tokens.or(body.max_tokens).unwrap_or(DEFAULT_MAX_TOKENS),
        seed: body.seed,
        ignore_eos: body.ignore_eos,
        stands_alone: true,
        meter: incoming.meter,
    });
    let id = new_id("chatcmpl-");
    if body.stream {
        let with_usage = body.stream_options.is_some_and(|options| options.include_usage);
        return Ok(stream(generation, id, with_usage));
    }
    generation.rest().await;
    let choice = json!({
        "index": 0, "logprobs": null, "finish_reason": finish_reason(&generation),
        "message": {"role": "assistant", "content": generation.text(), "refusal": null},
    });
    let answer = json!({
        "id": id, "object": "chat.completion", "created": now(), "model": MODEL,
        "choices": [choice], "usage": usage(&generation),
    });
    Ok(Json(answer).into_response())
}

fn stream(generation: Generation, id: String, with_usage: bool) -> Response {
    let created = now();
    let chunk = move |choices: Value, usage: Value| {
        let chunk = json!({
            "id": id, "object": "chat.completion.chunk", "created": created, "model": MODEL,
            "choices": choices, "usage": usage,
        });
        format!("data: {chunk}\n\n")
    };
    let choice = |delta: Value, finish: Option<&str>| json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]);
    let first = chunk(choice(json!({"role": "assistant", "content": ""}), None), Value::Null);
    let chunk_of_token = chunk.clone();
    event_stream(
        generation,
        Some(first),
        move |_, token| chunk_of_token(choice(json!({"content": token.text}), None), Value::Null),
        move |generation| {
            let mut last = chunk(choice(json!({}), Some(finish_reason(generation))), Value::Null);
            if with_usage {
                last.push_str(&chunk(json!([]), usage(generation)));
            }
            Some(last + "data: [DONE]\n\n")
        },
    )
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

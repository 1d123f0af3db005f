//! `POST /v1/messages`, as Anthropic has it.

use axum::{
    extract::State,
    response::{IntoResponse, Json, Response},
};
use palisade::reject::ErrorFormat;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Content, Incoming, MODEL, Message, Senseless, event_stream, new_id, transcript};
use crate::engine::{Call, Engine, Finish, Generation};

#[derive(Debug, Deserialize)]
struct Body {
    system: Option<Content>,
    messages: Vec<Message>,
    max_tokens: u64,
    #[serde(default)]
    ignore_eos: bool,
    #[serde(default)]
    stream: bool,
}

/// `POST /v1/messages`
pub(super) async fn messages(
    State(engine): State<Engine>,
    incoming: Incoming,
) -> Result<Response, Senseless> {
    let body: Body = incoming.parse(ErrorFormat::Anthropic)?;
    let contents = body.messages.iter().filter_map(|message| message.content.as_ref());
    let mut generation = engine.generate(Call {
        prompt: transcript(body.system.iter().chain(contents)),
        max_tokens: body.max_tokens,
        seed: None,
        ignore_eos: body.ignore_eos,
        stands_alone: true,
        meter: incoming.meter,
    });
    let id = new_id("msg_");
    if body.stream {
        return Ok(stream(generation, &id));
    }
    generation.rest().await;
    let content = json!([{"type": "text", "text": generation.text()}]);
    let answer = message(&id, content, Some(stop_reason(&generation)), &generation);
    Ok(Json(answer).into_response())
}

fn stream(generation: Generation, id: &str) -> Response {
    let start = message(id, json!([]), None, &generation);
    let first = [
        json!({"type": "message_start", "message": start}),
        json!({
            "type": "content_block_start", "index": 0,
            "content_block": {"type": "text", "text": ""},
        }),
        json!({"type": "ping"}),
    ];
    event_stream(
        generation,
        Some(first.iter().map(event).collect()),
        |_, token| {
            event(&json!({
                "type": "content_block_delta", "index": 0,
                "delta": {"type": "text_delta", "text": token.text},
            }))
        },
        |generation| {
            let last = [
                json!({"type": "content_block_stop", "index": 0}),
                json!({
                    "type": "message_delta",
                    "delta": {"stop_reason": stop_reason(generation), "stop_sequence": null},
                    "usage": {"output_tokens": generation.produced()},
                }),
                json!({"type": "message_stop"}),
            ];
            Some(last.iter().map(event).collect())
        },
    )
}

fn message(id: &str, content: Value, stop_reason: Option<&str>, generation: &Generation) -> Value {
    json!({
        "id": id, "type": "message", "role": "assistant", "model": MODEL, "content": content,
        "stop_reason": stop_reason, "stop_sequence": null,
        "usage": {
            "input_tokens": generation.prompt_tokens(), "output_tokens": generation.produced(),
        },
    })
}

/// Named by its type, as this API has it.
fn event(data: &Value) -> String {
    let name = data.get("type").and_then(Value::as_str).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n")
}

fn stop_reason(generation: &Generation) -> &'static str {
    match generation.finish() {
        Some(Finish::Length) => "max_tokens",
        _ => "end_turn",
    }
}

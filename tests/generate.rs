//! The parts of the example `generate`: its model, its engine, its API as clients read it, and its
//! issuer. What the layers do to all this is shown in `tests/example.rs` and `tests/sdk.rs`.
#![allow(dead_code, clippy::unwrap_used)]

#[path = "../examples/generate/api/mod.rs"]
mod api;
#[path = "../examples/generate/dev.rs"]
mod dev;
#[path = "../examples/generate/engine.rs"]
mod engine;
#[path = "../examples/generate/model.rs"]
mod model;

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, Response},
};
use engine::Engine;
use futures_util::StreamExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tower::ServiceExt;

fn app() -> (Router, Engine) {
    let engine = Engine::start(1000.0);
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    (api::router(engine.clone(), metrics), engine)
}

async fn post(path: &str, body: Value) -> Response<Body> {
    let request = Request::post(path).body(Body::from(body.to_string())).unwrap();
    app().0.oneshot(request).await.unwrap()
}

async fn text(response: Response<Body>) -> String {
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

async fn json(response: Response<Body>) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

/// What stands after `data:` in each event, without `[DONE]`.
fn events(stream: &str) -> Vec<Value> {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data:"));
    data.filter(|data| data.trim() != "[DONE]").map(|d| serde_json::from_str(d).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn fast_api_answers_with_text_and_usage() {
    let ask =
        json!({"prompt": "The keeper of the", "max_tokens": 12, "seed": 3, "ignore_eos": true});
    let answer = json(post("/generate", ask).await).await;
    assert!(!answer["text"].as_str().unwrap().is_empty());
    let usage = json!({"prompt_tokens": 4, "completion_tokens": 12, "total_tokens": 16});
    assert_eq!(answer["usage"], usage);
    assert_eq!(answer["finish_reason"], "length");
}

#[tokio::test(start_paused = true)]
async fn tgi_answers_with_details_and_headers() {
    let ask = json!({
        "inputs": "A bridge is a kind of", "ignore_eos": true,
        "parameters": {"max_new_tokens": 9, "details": true},
    });
    let response = post("/generate", ask).await;
    assert_eq!(response.headers()["x-prompt-tokens"], "6");
    assert_eq!(response.headers()["x-generated-tokens"], "9");
    let answer = json(response).await;
    assert_eq!(answer["details"]["generated_tokens"], 9);
    assert_eq!(answer["details"]["tokens"].as_array().unwrap().len(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_tgi_stream_ends_with_the_whole_text() {
    let ask =
        json!({"inputs": "Bread is", "parameters": {"max_new_tokens": 5}, "ignore_eos": true});
    let events = events(&text(post("/generate_stream", ask).await).await);
    assert_eq!(events.len(), 5);
    assert!(events[..4].iter().all(|event| event["generated_text"].is_null()));
    let parts: String = events.iter().map(|e| e["token"]["text"].as_str().unwrap()).collect();
    assert_eq!(events[4]["generated_text"], *parts);
    assert_eq!(events[4]["details"]["generated_tokens"], 5);
    assert_eq!(events[4]["details"]["finish_reason"], "length");
}

#[tokio::test(start_paused = true)]
async fn a_tgi_stream_that_the_model_ends_has_an_end_token() {
    let ask = json!({"inputs": "Bread is", "parameters": {"max_new_tokens": 10_000, "seed": 1}});
    let events = events(&text(post("/generate_stream", ask).await).await);
    let last = events.last().unwrap();
    assert_eq!(last["token"]["special"], true);
    assert_eq!(last["details"]["generated_tokens"], events.len() - 1);
    assert_eq!(last["details"]["finish_reason"], "eos_token");
}

#[tokio::test(start_paused = true)]
async fn a_chat_stream_states_its_usage_if_asked() {
    let ask = |usage: bool| {
        json!({
            "messages": [{"role": "user", "content": [{"type": "text", "text": "The lamp"}]}],
            "max_completion_tokens": 4, "ignore_eos": true,
            "stream": true, "stream_options": {"include_usage": usage},
        })
    };
    let stream = text(post("/v1/chat/completions", ask(true)).await).await;
    assert!(stream.ends_with("data: [DONE]\n\n"));
    let chunks = events(&stream);
    // The role, four tokens, the end, the usage.
    assert_eq!(chunks.len(), 7);
    assert_eq!(chunks[5]["choices"][0]["finish_reason"], "length");
    assert_eq!(chunks[6]["usage"]["total_tokens"], 6);
    let without = events(&text(post("/v1/chat/completions", ask(false)).await).await);
    assert!(without.iter().all(|chunk| chunk["usage"].is_null()));
}

#[tokio::test(start_paused = true)]
async fn messages_stream_in_named_events() {
    let ask = json!({
        "system": "Be brief.", "messages": [{"role": "user", "content": "The lamp"}],
        "max_tokens": 3, "ignore_eos": true, "stream": true,
    });
    let stream = text(post("/v1/messages", ask).await).await;
    let names: Vec<_> = stream.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let delta = "content_block_delta";
    assert_eq!(names[..3], ["message_start", "content_block_start", "ping"]);
    assert_eq!(names[3..6], [delta, delta, delta]);
    assert_eq!(names[6..], ["content_block_stop", "message_delta", "message_stop"]);
    let events = events(&stream);
    assert_eq!(events[0]["message"]["usage"]["input_tokens"], 5);
    assert_eq!(events[7]["usage"]["output_tokens"], 3);
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_refused_in_the_routes_own_shape() {
    let refused = post("/generate", json!({"text": 1})).await;
    assert_eq!(refused.status(), 400);
    assert_eq!(json(refused).await["error_type"], "validation");
    let refused = post("/v1/chat/completions", json!({"messages": 1})).await;
    assert_eq!(json(refused).await["error"]["type"], "invalid_request_error");
    let refused = post("/v1/messages", json!({"messages": []})).await;
    assert_eq!(json(refused).await["type"], "error");
}

#[tokio::test(start_paused = true)]
async fn wrong_methods_and_routes_are_refused_in_the_routes_own_shape() {
    let get = async |path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        app().0.oneshot(request).await.unwrap()
    };
    for (path, pointer) in [
        ("/generate", "/error_type"),
        ("/generate_stream", "/error_type"),
        ("/v1/chat/completions", "/error/code"),
        ("/v1/messages", "/error/type"),
    ] {
        let refused = get(path).await;
        assert_eq!(refused.status(), 405, "{path}");
        assert_eq!(refused.headers()["allow"], "POST");
        assert!(json(refused).await.pointer(pointer).is_some(), "{path}");
    }
    let refused = get("/nowhere").await;
    assert_eq!(refused.status(), 404);
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    assert_eq!(json(refused).await["status"], 404);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_stops_the_engine() {
    let (app, engine) = app();
    let ask = json!({"prompt": "The lamp", "max_tokens": 1000, "ignore_eos": true, "stream": true});
    let request = Request::post("/generate").body(Body::from(ask.to_string())).unwrap();
    let mut stream = app.oneshot(request).await.unwrap().into_body().into_data_stream();
    assert!(stream.next().await.is_some());
    assert_eq!(engine.live(), 1);
    drop(stream);
    assert_eq!(engine.live(), 0);
}

#[test]
fn a_development_key_is_made_once_and_for_its_owner_alone() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("dev-key-{}.pem", std::process::id()));
    let issuer =
        || dev::Issuer::from_file(&path, "https://i.example", "https://a.example").unwrap();
    let (first, second) = (issuer(), issuer());
    assert_eq!(first.key_set(), second.key_set());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    std::fs::remove_file(&path).unwrap();
    assert_ne!(first.key_set(), issuer().key_set());
    std::fs::remove_file(&path).unwrap();
}

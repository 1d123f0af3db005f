//! An engine in the server's own process: it charges each decode step, reads what its caller has left, and ends an answer cleanly
//! when that is used up. No gateway in front of an engine can: it cuts the stream, or lets it run.

use std::time::Duration;

use axum::{
    Router,
    body::{Body, Bytes},
    response::{IntoResponse, Response},
    routing::post,
};
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use palisade::{
    UsageMeter,
    prompt_guard::PromptGuardLayer,
    rate_limit::{Tier, TieredRateLimitLayer},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::{ServiceBuilder, ServiceExt};

use crate::support::{alice, builder, left};

/// Decodes one token a step, up to the request's own limit, in a task of its own as engines do.
fn decode(
    meter: UsageMeter,
    max_tokens: u64,
) -> mpsc::Receiver<Result<&'static str, &'static str>> {
    let (steps, answer) = mpsc::channel(1);
    tokio::spawn(async move {
        let story = ["The", " keeper", " lit", " the", " lamp", "."];
        for (step, token) in story.iter().cycle().enumerate().take(100) {
            if step as u64 == max_tokens || meter.remaining() == Some(0) {
                let _ = steps.send(Err("length")).await;
                return;
            }
            meter.charge(1);
            if steps.send(Ok(*token)).await.is_err() {
                return;
            }
        }
        let _ = steps.send(Err("stop")).await;
    });
    answer
}

async fn chat(meter: UsageMeter, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap();
    let max_tokens = request["max_tokens"].as_u64().unwrap_or(u64::MAX);
    let mut steps = decode(meter, max_tokens);
    if request["stream"] == true {
        let (events, body) = mpsc::channel::<Result<_, std::convert::Infallible>>(1);
        tokio::spawn(async move {
            while let Some(step) = steps.recv().await {
                let (delta, reason) = match step {
                    Ok(token) => (json!({"content": token}), None),
                    Err(reason) => (json!({}), Some(reason)),
                };
                let chunk =
                    json!({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]});
                let frame = http_body::Frame::data(Bytes::from(format!("data: {chunk}\n\n")));
                if events.send(Ok(frame)).await.is_err() {
                    return;
                }
            }
            let done = http_body::Frame::data(Bytes::from("data: [DONE]\n\n"));
            let _ = events.send(Ok(done)).await;
        });
        let body =
            futures_util::stream::unfold(body, async |mut body| Some((body.recv().await?, body)));
        let headers = [("content-type", "text/event-stream")];
        return (headers, Body::new(StreamBody::new(Box::pin(body)))).into_response();
    }
    let (mut text, mut reason) = (String::new(), "stop");
    while let Some(step) = steps.recv().await {
        match step {
            Ok(token) => text += token,
            Err(why) => reason = why,
        }
    }
    let message = json!({"role": "assistant", "content": text});
    axum::Json(json!({"choices": [{"index": 0, "message": message, "finish_reason": reason}]}))
        .into_response()
}

fn limits(tokens: u64) -> TieredRateLimitLayer {
    builder(Tier::new().tokens_per_minute(tokens)).grant_fewer_output_tokens(1).build().unwrap()
}

async fn ask(limits: &TieredRateLimitLayer, options: Value) -> Response {
    let guard = PromptGuardLayer::builder().build().unwrap();
    let stack = ServiceBuilder::new().layer(limits.clone()).layer(guard);
    let app = Router::new().route("/v1/chat/completions", post(chat)).layer(stack);
    let mut body =
        json!({"model": "own", "messages": [{"role": "user", "content": "Tell a story."}]});
    body.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let mut request =
        Request::post("/v1/chat/completions").body(Body::from(body.to_string())).unwrap();
    request.extensions_mut().insert(alice());
    app.oneshot(request).await.unwrap()
}

async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Tokens of the prompt above, as the guard counts them.
async fn prompt_tokens() -> u64 {
    let limits = limits(1000);
    text(ask(&limits, json!({"max_tokens": 0})).await).await;
    1000 - left(&limits).await[0].1
}

#[tokio::test]
async fn an_answer_ends_cleanly_where_its_caller_has_no_more_tokens() {
    let prompt = prompt_tokens().await;
    assert!(prompt > 0);
    let limits = limits(prompt + 4);
    let answer: Value =
        serde_json::from_str(&text(ask(&limits, json!({"max_tokens": 500})).await).await).unwrap();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["choices"][0]["message"]["content"], "The keeper lit the");
    // All is used, and nothing is owed.
    assert_eq!(left(&limits).await[0].1, 0);
    let quotas = limits.quotas(&alice(), None).await.unwrap();
    assert_eq!(quotas[0].reset, Duration::from_secs(60));
    assert_eq!(ask(&limits, json!({"max_tokens": 500})).await.status(), 429);
}

#[tokio::test]
async fn a_stream_ends_with_its_finish_reason_and_its_last_event() {
    let prompt = prompt_tokens().await;
    let limits = limits(prompt + 4);
    let response = ask(&limits, json!({"max_tokens": 500, "stream": true})).await;
    assert_eq!(response.status(), 200);
    let told = text(response).await;
    let events: Vec<_> = told.split_terminator("\n\n").collect();
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(*done, "data: [DONE]");
    let chunks: Vec<Value> = chunks
        .iter()
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
        .collect();
    let reasons: Vec<_> =
        chunks.iter().map(|chunk| &chunk["choices"][0]["finish_reason"]).collect();
    let none = Value::Null;
    assert_eq!(reasons, [&none, &none, &none, &none, &json!("length")]);
    assert_eq!(left(&limits).await[0].1, 0);
}

#[tokio::test]
async fn an_answer_that_fits_ends_as_it_would() {
    let prompt = prompt_tokens().await;
    let limits = limits(10_000);
    let answer: Value =
        serde_json::from_str(&text(ask(&limits, json!({"max_tokens": 500})).await).await).unwrap();
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(left(&limits).await[0].1, 10_000 - prompt - 100);
    let short: Value =
        serde_json::from_str(&text(ask(&limits, json!({"max_tokens": 3})).await).await).unwrap();
    assert_eq!(short["choices"][0]["finish_reason"], "length");
    assert_eq!(left(&limits).await[0].1, 10_000 - 2 * prompt - 103);
}

/// The engine's count is the truth where the client leaves, too.
#[tokio::test]
async fn a_client_that_leaves_pays_for_the_steps_that_were_made() {
    let prompt = prompt_tokens().await;
    let limits = limits(10_000);
    let response = ask(&limits, json!({"max_tokens": 500, "stream": true})).await;
    let mut body = response.into_body();
    for _ in 0..3 {
        assert!(body.frame().await.unwrap().is_ok());
    }
    drop(body);
    let paid = 10_000 - left(&limits).await[0].1 - prompt;
    // Those that were read, and no more than wait in the two channels.
    assert!((3..=8).contains(&paid), "{paid}");
}

//! What passes, and how it arrives.

use std::sync::Arc;

use http::{HeaderMap, Request};
use palisade::{
    Rejection, RejectionKind, Routes,
    prompt_guard::{Action, Unseen, Verdict},
    reservation::TokenUsage,
};
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimit};

use crate::support::*;

#[tokio::test]
async fn a_body_passes_byte_for_byte() {
    let odd = "{ \"n\" : 1e400,\r\n\"messages\":[{\"content\":\"\\u00e9\\/\", \"role\":\"user\"}], \"z\":0.10 }\n";
    let (answer, inner) = ask(guard(), post(CHAT, odd)).await;
    assert_eq!(text(answer).await, "ok");
    assert_eq!(inner.only().body, odd);
}

#[tokio::test]
async fn ten_megabytes_pass_byte_for_byte_or_are_refused() {
    let words = "the lamp is lit at dusk ".repeat(420_000);
    let body =
        format!("{{\"n\":1e999,\"messages\":[{{\"role\":\"user\",\"content\":\"{words}\"}}]}}");
    assert!(body.len() > 10_000_000);
    let large = guard().max_body(16 << 20).detector(EVIL, Action::Block);
    let (answer, inner) = ask(large, post(CHAT, body.clone())).await;
    assert_eq!(answer.status(), 200);
    assert!(inner.only().body == body);

    let (answer, inner) = ask(guard().detector(EVIL, Action::Block), post(CHAT, body)).await;
    assert_eq!(refusal(&answer), ("request_too_large", 413));
    assert!(inner.saw_nothing());
}

#[tokio::test]
async fn a_body_may_come_in_any_pieces_and_keeps_its_trailers() {
    let whole = chat("grüße");
    let whole: &'static str = whole.leak();
    let mut pieces: Vec<_> = whole
        .as_bytes()
        .iter()
        .map(|byte| Ok(http_body::Frame::data(bytes::Bytes::copy_from_slice(&[*byte]))))
        .collect();
    pieces.push(trailers("x-sum", "7"));
    let request = Request::post(CHAT).header("x-mine", "1").body(frames(pieces)).unwrap();
    let (_, inner) = ask(guard(), request).await;
    let arrived = inner.only();
    assert_eq!(arrived.body, whole);
    assert_eq!(arrived.trailers.unwrap()["x-sum"], "7");
    assert_eq!(arrived.head.headers["x-mine"], "1");
}

#[tokio::test]
async fn extensions_reach_the_handler() {
    let mut request = post(CHAT, chat("hi"));
    request.extensions_mut().insert(7_u8);
    let (_, inner) = ask(guard().detector(EVIL, Action::Block), request).await;
    let arrived = inner.only();
    assert_eq!(arrived.head.extensions.get(), Some(&7_u8));
    assert!(arrived.head.extensions.get::<Verdict>().is_some());
}

#[tokio::test]
async fn what_has_no_body_passes() {
    for request in [
        Request::get("/v1/models").body(full("")).unwrap(),
        Request::head(CHAT).body(full("")).unwrap(),
        Request::delete("/anything").body(full("")).unwrap(),
        Request::post(CHAT).body(frames(vec![])).unwrap(),
        Request::get("/v1/models").body(frames(vec![])).unwrap(),
        Request::post("/other").body(frames(vec![data("")])).unwrap(),
        Request::get("/x").header("upgrade", "h2c").body(full("")).unwrap(),
    ] {
        let (answer, inner) = ask(guard(), request).await;
        assert_eq!(answer.status(), 200);
        inner.only();
    }
}

#[tokio::test]
async fn an_exempt_route_passes_whatever_it_carries() {
    let routes = Routes::guard_all().exempt("/upload");
    let (answer, inner) = ask(guard().routes(routes), post("/upload", "\u{0}not json")).await;
    assert_eq!(answer.status(), 200);
    assert!(inner.only().head.extensions.is_empty());
}

#[tokio::test]
async fn what_may_pass_unseen_passes_by_name_only() {
    let image = r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x:"}}]}]}"#;
    let grpc = || {
        let mut request = post("/kserve.Inference/Infer", "\u{0}\u{0}");
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        request
    };
    let (answer, _) = ask(guard(), post("/other", "x")).await;
    assert_eq!(refusal(&answer), ("unreadable_endpoint", 415));
    let of_unknown_length = Request::get("/other").body(frames(vec![data(""), data("x")])).unwrap();
    let (answer, inner) = ask(guard(), of_unknown_length).await;
    assert_eq!(refusal(&answer), ("unreadable_endpoint", 415));
    assert!(inner.saw_nothing());
    let (answer, _) = ask(guard(), post(CHAT, image)).await;
    assert_eq!(refusal(&answer), ("unreadable_content", 415));
    let (answer, _) = ask(guard(), grpc()).await;
    assert_eq!(refusal(&answer), ("unreadable_endpoint", 200));
    assert_eq!(answer.headers()["grpc-status"], "3");

    let open = || {
        guard()
            .unknown_endpoint(Unseen::InsecurePass)
            .unread(Unseen::InsecurePass)
            .grpc(Unseen::InsecurePass)
    };
    for request in [post("/other", "x"), post(CHAT, image), grpc()] {
        let (answer, inner) = ask(open(), request).await;
        assert_eq!(answer.status(), 200);
        inner.only();
    }
}

#[tokio::test]
async fn a_content_type_makes_no_chat_grpc() {
    let evil = Action::Block;
    let mut request = post(CHAT, chat("evil"));
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let open = guard().grpc(Unseen::InsecurePass).detector(EVIL, evil);
    let (answer, inner) = ask(open, request).await;
    assert_eq!(refusal(&answer), ("content_blocked", 403));
    assert!(inner.saw_nothing());
}

#[tokio::test]
async fn the_reservation_is_refined_to_the_prompt() {
    let meter = Arc::new(Kept::default());
    let body =
        r#"{"messages":[{"role":"user","content":"one two three four"}],"max_tokens":50,"n":2}"#;
    let mut request = post(CHAT, body);
    meter.on(&mut request);
    ask(guard(), request).await.1.only();
    let refined = meter.refined.lock().unwrap().pop().unwrap();
    assert_eq!(refined.output, 100);
    assert!((4..30).contains(&refined.input), "{refined:?}");

    let mut request = post("/v1/embeddings", r#"{"input":"one two"}"#);
    meter.on(&mut request);
    ask(guard(), request).await.1.only();
    assert_eq!(meter.refined.lock().unwrap().pop().unwrap().output, 0);

    let mut request = post(CHAT, chat("hi"));
    meter.on(&mut request);
    ask(guard().default_output_tokens(77), request).await.1.only();
    let refined = meter.refined.lock().unwrap().pop().unwrap();
    assert_eq!(refined, TokenUsage::new(refined.input, 77));
}

#[tokio::test]
async fn a_refused_reservation_is_answered() {
    let refuses = Rejection::new(RejectionKind::RateLimited, "rate_limit_exceeded", "too much")
        .with_retry_after(std::time::Duration::from_millis(2500));
    let meter = Arc::new(Kept { refuses: Some(refuses), ..Kept::default() });
    let mut request = post("/generate", r#"{"inputs":"hi"}"#);
    meter.on(&mut request);
    let (answer, inner) = ask(guard(), request).await;
    assert_eq!(refusal(&answer), ("rate_limit_exceeded", 429));
    assert_eq!(answer.headers()["retry-after"], "3");
    assert_eq!(json(answer).await["error_type"], "overloaded");
    assert!(inner.saw_nothing());
}

#[tokio::test]
async fn a_stalled_upload_pins_no_permit_of_the_inner_service() {
    let inner = Inner::default();
    let answering = inner.answering(|| http::Response::new(full("ok")));
    let mut service = guard().build().unwrap().layer(ConcurrencyLimit::new(answering, 1));
    let slow = Request::post(CHAT).body(stalled(vec![data("{")])).unwrap();
    let mut slow = std::pin::pin!(service.ready().await.unwrap().call(slow));
    starts(slow.as_mut());
    for _ in 0..3 {
        let answer = service.clone().oneshot(post(CHAT, chat("hi"))).await.unwrap();
        assert_eq!(text(answer).await, "ok");
    }
}

#[tokio::test(start_paused = true)]
async fn the_content_length_is_kept() {
    let body = chat("hi");
    let mut request = post(CHAT, body.clone());
    request.headers_mut().insert("content-length", body.len().into());
    let arrived = ask(guard(), request).await.1.only();
    assert_eq!(arrived.head.headers["content-length"], body.len().to_string());
    assert_eq!(arrived.head.headers, {
        let mut headers = HeaderMap::new();
        headers.insert("content-length", body.len().into());
        headers
    });
}

#[tokio::test]
async fn a_route_that_catches_all_is_told_by_its_path() {
    use axum::{Router, body::Body, routing::any};
    let guard = guard().detector(EVIL, Action::Block).build().unwrap();
    let app = Router::new().route("/{*path}", any(async |body: String| body)).layer(guard);
    for (path, text, status) in [
        ("/v1/chat/completions", "good", 200),
        ("/v1/chat/completions", "evil", 403),
        ("/v1/unknown", "good", 415),
    ] {
        let request = Request::post(path).body(Body::from(chat(text))).unwrap();
        let answer = app.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), status, "{path} {text}");
    }
}

//! How a refusal reads, in each wire format.

use std::{collections::HashSet, time::Duration};

use http::{Request, Response};
use palisade::{
    Rejection, RejectionKind, UsageMeter,
    rate_limit::fair::{Capacity, FairAdmission, Share},
    reservation::TokenUsage,
};
use serde_json::{Value, json};

use crate::support::{
    TokioClock, Unread, ask, assert_idle, behind, now, prompt, request, request_to, shared, text,
    tier,
};

/// The reason for programs.
pub(crate) fn code_of<B>(response: &Response<B>) -> &'static str {
    response.extensions().get::<Rejection>().expect("a refusal").code()
}

/// One slot, and nobody may wait.
fn full() -> FairAdmission {
    let free = Share::percent(100).queue(0).max_prompt_tokens(1000);
    let fair = FairAdmission::builder().capacity(Capacity::slots(1)).tier("free", free);
    fair.clock(TokioClock::new()).build().unwrap()
}

fn grpc(who: &str) -> Request<Unread> {
    let mut request = request_to("/pkg.Models/Ask", who);
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn want_of_capacity_is_told_in_the_callers_format() {
    let fair = full();
    let (service, _engine) = behind(&fair);
    let _held = now(ask(&service, request("free/a")).await).await;
    let refused = async |request| {
        let response = now(ask(&service, request).await).await;
        let rejection = response.extensions().get::<Rejection>().unwrap();
        assert_eq!((rejection.kind(), rejection.code()), (RejectionKind::AtCapacity, "queue_full"));
        let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=2).contains(&seconds), "{seconds}");
        response
    };
    let status_and_body = async |path| {
        let response = refused(request_to(path, "free/b")).await;
        let status = response.status().as_u16();
        (status, serde_json::from_str::<Value>(&text(response).await).unwrap())
    };

    let (status, body) = status_and_body("/v1/chat/completions").await;
    assert_eq!(status, 503);
    assert_eq!(body["error"]["type"], "server_error");
    assert_eq!(body["error"]["code"], "queue_full");

    let (status, body) = status_and_body("/v1/messages").await;
    assert_eq!(status, 529);
    assert_eq!(
        (&body["type"], &body["error"]["type"]),
        (&json!("error"), &json!("overloaded_error"))
    );

    let (status, body) = status_and_body("/generate").await;
    assert_eq!((status, &body["error_type"]), (503, &json!("overloaded")));

    let (status, body) = status_and_body("/models").await;
    assert_eq!((status, &body["status"], &body["code"]), (503, &json!(503), &json!("queue_full")));
    let kind = body["type"].as_str().unwrap();
    assert!(kind.ends_with("#temporary-reduced-capacity"), "{kind}");

    let response = refused(grpc("free/b")).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["grpc-status"]),
        (200, &"14".parse().unwrap())
    );
    assert!(response.headers().contains_key("grpc-message"));
    assert_eq!(text(response).await, "");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_at_once_does_not_come_again_at_once() {
    let fair = full();
    let (service, _engine) = behind(&fair);
    let _held = now(ask(&service, request("free/a")).await).await;
    let mut told = HashSet::new();
    for _ in 0..200 {
        let refused = now(ask(&service, request("free/b")).await).await;
        let millis: u64 = refused.headers()["retry-after-ms"].to_str().unwrap().parse().unwrap();
        assert!((1000..=2000).contains(&millis), "{millis}");
        told.insert(millis / 100);
    }
    assert!(told.len() >= 9, "{told:?}");
}

/// The caller's fault, which waiting does not mend.
#[tokio::test(start_paused = true)]
async fn a_prompt_that_is_too_long_is_the_callers_fault() {
    let fair = full();
    let (service, engine) = behind(&fair);
    let refused = now(ask(&service, prompt("free/a", 1001)).await).await;
    assert_eq!((refused.status().as_u16(), code_of(&refused)), (400, "prompt_too_long"));
    assert!(!refused.headers().contains_key("retry-after"));
    let body: Value = serde_json::from_str(&text(refused).await).unwrap();
    assert_eq!(body["error"]["type"], "invalid_request_error");
    let mut long = grpc("free/a");
    long.headers_mut().insert("content-length", 8000.into());
    let refused = now(ask(&service, long).await).await;
    assert_eq!(refused.headers()["grpc-status"], "3");
    assert_eq!(tier(&fair, "free").refused.prompt_too_long, 2);
    assert_idle(&fair);
    // And when it is found out later, by whoever has read it.
    let answer = now(ask(&service, prompt("free/a", 1000)).await).await;
    let stream = engine.take("a");
    let meter = UsageMeter::of(&stream.extensions).unwrap().clone();
    let refused = meter.refine(TokenUsage::new(1001, 1)).await.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (RejectionKind::BadRequest, "prompt_too_long"));
    assert!(meter.refine(TokenUsage::new(1000, 1)).await.is_ok());
    drop((stream, answer));
    assert_idle(&fair);
}

/// More tokens than the tier has a share of never wait: they would stand in the way.
#[tokio::test(start_paused = true)]
async fn what_is_too_large_for_its_share_is_let_in_at_once_or_not_at_all() {
    let fair = shared(Capacity::slots(4).tokens_in_flight(10_000), Share::percent(50));
    let fair = fair.build().unwrap();
    let (service, _engine) = behind(&fair);
    let lent = now(ask(&service, prompt("free/a", 6000)).await).await;
    assert_eq!(lent.status(), 200);
    let refused = now(ask(&service, prompt("free/b", 6000)).await).await;
    assert_eq!((refused.status().as_u16(), code_of(&refused)), (503, "too_large"));
    assert_eq!(tier(&fair, "free").waiting, 0);
    drop(lent);
    assert_eq!(now(ask(&service, prompt("free/b", 6000)).await).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn who_waited_in_vain_is_told_when_to_come_again() {
    let free = Share::percent(100).max_wait(Duration::from_secs(3));
    let fair = FairAdmission::builder().capacity(Capacity::slots(1)).tier("free", free);
    let fair = fair.clock(TokioClock::new()).build().unwrap();
    let (service, _engine) = behind(&fair);
    let _held = now(ask(&service, request("free/a")).await).await;
    let refused = ask(&service, request("free/b")).await.await.unwrap();
    assert_eq!(code_of(&refused), "deadline");
    let after: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(after >= 1);
    // No word of who else is there, nor of how the server is made.
    let body = text(refused).await;
    assert!(body.contains("capacity") && !body.contains("slots"), "{body}");
}

/// 429 is for a caller's own quota, and nothing here is.
#[tokio::test(start_paused = true)]
async fn nothing_here_is_a_429() {
    let fair = full();
    let (service, _engine) = behind(&fair);
    let _held = now(ask(&service, request("free/a")).await).await;
    for request in [request("free/a"), prompt("free/b", 9000), grpc("free/c")] {
        let refused = now(ask(&service, request).await).await;
        assert_ne!(refused.status(), 429);
        let kind = refused.extensions().get::<Rejection>().unwrap().kind();
        assert_ne!(kind, RejectionKind::RateLimited);
    }
}

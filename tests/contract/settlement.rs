//! Each row of the reservation's table, settled exactly once.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{Arc, atomic::AtomicUsize},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use palisade::{
    BoxError, UsageMeter,
    rate_limit::{Tier, TieredRateLimitLayer},
    reservation::{Observed, TokenUsage},
    store::Stores,
};
use tower::{Layer, Service, ServiceExt};

use crate::support::{Ledger, Paid, Script, Step, limits, limits_with, request};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const EVENTS: &[(&str, &str)] = &[("content-type", "text/event-stream")];

/// A service that answers with this script.
fn engine(
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    steps: Vec<Step>,
    alive: &Arc<AtomicUsize>,
) -> impl Service<Request<Full<Bytes>>, Response = Response<Script>, Error = Infallible, Future: Send>
+ Clone {
    let alive = Arc::clone(alive);
    tower::service_fn(move |_: Request<Full<Bytes>>| {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let body = Script::new(&steps, &alive);
        std::future::ready(Ok(response.body(body).unwrap()))
    })
}

fn empty() -> Request<Full<Bytes>> {
    request(Full::default())
}

fn paid(requests: u64, tokens: u64) -> Vec<Paid> {
    vec![Paid { requests, tokens }]
}

/// The limit drains by seventeen tokens in a millisecond.
fn assert_left(remaining: Option<u64>, at_least: u64) {
    let remaining = remaining.unwrap();
    assert!((at_least..at_least + 20_000).contains(&remaining), "{remaining}, not {at_least}");
}

/// The whole answer is read.
async fn read(
    headers: &'static [(&'static str, &'static str)],
    steps: &[Step],
    status: u16,
) -> Vec<Paid> {
    let (ledger, alive) = (Ledger::new(), Arc::default());
    let service = limits(&ledger).layer(engine(status, headers, steps.to_vec(), &alive));
    let response = service.oneshot(empty()).await.unwrap();
    assert_eq!(ledger.out(), 1, "the slot is held until the body ends");
    let _ = response.into_body().collect().await;
    assert_eq!(ledger.out(), 0);
    ledger.settled()
}

/// `frames` frames are read, then the client leaves.
async fn leave_after(
    frames: usize,
    headers: &'static [(&'static str, &'static str)],
    steps: &[Step],
    keep: bool,
) -> Vec<Paid> {
    let (ledger, alive) = (Ledger::new(), Arc::default());
    let layer =
        limits_with(
            &ledger,
            |builder| {
                if keep { builder.keep_reservation_on_abort() } else { builder }
            },
        );
    let service = layer.layer(engine(200, headers, steps.to_vec(), &alive));
    let mut body = Box::pin(service.oneshot(empty()).await.unwrap().into_body());
    for _ in 0..frames {
        body.as_mut().frame().await.unwrap().unwrap();
    }
    // On a thread without a runtime, as a server may drop it.
    std::thread::spawn(move || drop(body)).join().unwrap();
    assert_eq!(ledger.out(), 0);
    assert_eq!(alive.load(std::sync::atomic::Ordering::SeqCst), 0, "the engine runs on");
    ledger.settled()
}

#[tokio::test]
async fn answered_without_usage_the_reservation_stays() {
    assert_eq!(read(JSON, &[Step::Data("{}")], 200).await, paid(1, 100));
}

#[tokio::test]
async fn answered_with_usage_in_json() {
    let json = r#"{"usage":{"prompt_tokens":5,"completion_tokens":6,"total_tokens":11}}"#;
    assert_eq!(read(JSON, &[Step::Data(json)], 200).await, paid(1, 11));
}

#[tokio::test]
async fn answered_with_usage_in_an_event_stream() {
    let steps = [
        Step::Data("data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}],\"usage\":null}\n\n"),
        Step::Data("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"comple"),
        Step::Data("tion_tokens\":600}}\n\ndata: [DONE]\n\n"),
    ];
    assert_eq!(read(EVENTS, &steps, 200).await, paid(1, 605));
}

#[tokio::test]
async fn answered_with_usage_in_trailers_or_headers() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-prompt-tokens", "5".parse().unwrap());
    trailers.insert("x-generated-tokens", "7".parse().unwrap());
    let steps = [Step::Data("x"), Step::Trailers(trailers)];
    assert_eq!(read(&[("content-type", "application/grpc")], &steps, 200).await, paid(1, 12));
    let headers: &[(&str, &str)] = &[("x-prompt-tokens", "5"), ("x-generated-tokens", "8")];
    assert_eq!(read(headers, &[Step::Data("x")], 200).await, paid(1, 13));
}

#[tokio::test]
async fn the_handlers_report_is_the_truth() {
    let ledger = Ledger::new();
    let service = limits(&ledger).layer(tower::service_fn(|request: Request<Full<Bytes>>| {
        let meter = UsageMeter::of(request.extensions()).unwrap().clone();
        meter.charge(2);
        assert_left(meter.remaining(), 1_000_000 - 30 - 2);
        meter.charge(3);
        let json = r#"{"usage":{"prompt_tokens":500,"completion_tokens":600}}"#;
        let mut response = Response::new(Full::<Bytes>::from(json));
        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
        std::future::ready(Ok::<_, Infallible>(response))
    }));
    service.oneshot(empty()).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(ledger.settled(), paid(1, 35));
}

#[tokio::test]
async fn a_refinement_is_reserved_at_once_and_settled_with_the_rest() {
    let ledger = Ledger::new();
    let service =
        limits(&ledger).layer(tower::service_fn(|request: Request<Full<Bytes>>| async move {
            let meter = UsageMeter::of(request.extensions()).unwrap().clone();
            meter.refine(TokenUsage::new(400, 600)).await.unwrap();
            assert_left(meter.remaining(), 1_000_000 - 400);
            meter.refine(TokenUsage::new(400, 700)).await.unwrap();
            let refused = meter.refine(TokenUsage::new(400, 1_000_000)).await.unwrap_err();
            assert_eq!(refused.kind().status(), StatusCode::TOO_MANY_REQUESTS);
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("x")))
        }));
    service.oneshot(empty()).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(ledger.out(), 0);
    assert_eq!(ledger.total(), Paid { requests: 1, tokens: 1100 });
}

/// Over a real store: what it takes back is not what it is told, where the order is wrong.
#[tokio::test]
async fn a_refinement_that_was_not_used_is_given_back_with_the_admission() {
    let layer = TieredRateLimitLayer::builder(&Stores::in_memory())
        .tier("free", Tier::new().tokens_per_day(1_000_000))
        .fallback_tier("free")
        .default_input_tokens(30)
        .default_output_tokens(70)
        .build()
        .unwrap();
    let service = layer.layer(tower::service_fn(|request: Request<Full<Bytes>>| async move {
        let meter = UsageMeter::of(request.extensions()).unwrap().clone();
        let left = meter.remaining().unwrap();
        meter.refine(TokenUsage::new(5, 2_000)).await.unwrap();
        meter.refine(TokenUsage::new(5, 3_000)).await.unwrap();
        meter.report(TokenUsage::new(5, 7));
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(left.to_string())))
    }));
    let left = async || {
        let answer = service.clone().oneshot(empty()).await.unwrap();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        std::str::from_utf8(&text).unwrap().parse::<u64>().unwrap()
    };
    let first = left().await;
    let paid = first - left().await;
    // Eleven tokens drain in a second.
    assert!((1..=12).contains(&paid), "{paid} paid for 12");
}

#[tokio::test]
async fn a_smaller_refinement_gives_the_rest_back() {
    let ledger = Ledger::new();
    let service =
        limits(&ledger).layer(tower::service_fn(|request: Request<Full<Bytes>>| async move {
            let meter = UsageMeter::of(request.extensions()).unwrap();
            meter.refine(TokenUsage::new(4, 6)).await.unwrap();
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("x")))
        }));
    service.oneshot(empty()).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(ledger.settled(), paid(1, 10));
}

#[tokio::test]
async fn what_the_guard_let_through_of_an_answer_it_cut() {
    let ledger = Ledger::new();
    let service = limits(&ledger).layer(tower::service_fn(|request: Request<Full<Bytes>>| {
        let meter = UsageMeter::of(request.extensions()).unwrap();
        meter.observe(Observed::LetThrough(4));
        std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("x"))))
    }));
    service.oneshot(empty()).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(ledger.settled(), paid(1, 34));
}

#[tokio::test]
async fn dropped_mid_stream_pays_the_prompt_and_what_was_produced() {
    let begun = "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\n";
    let steps = [Step::Data(begun), Step::Hang];
    assert_eq!(leave_after(1, EVENTS, &steps, false).await, paid(1, 10));
    // No usage yet: the prompt by the admission's estimate, the output by the deltas.
    let token = "data: {\"index\":1,\"token\":{\"id\":1,\"text\":\" a\",\"special\":false},\"generated_text\":null,\"details\":null}\n\n";
    let steps = [Step::Data(token), Step::Data(token), Step::Hang];
    assert_eq!(leave_after(2, EVENTS, &steps, false).await, paid(1, 32));
    assert_eq!(leave_after(2, EVENTS, &steps, true).await, paid(1, 100));
}

#[tokio::test]
async fn an_answer_that_breaks_off_pays_like_one_that_was_dropped() {
    let token = "data: {\"index\":1,\"token\":{\"id\":1,\"text\":\" a\",\"special\":false},\"generated_text\":null,\"details\":null}\n\n";
    assert_eq!(read(EVENTS, &[Step::Data(token), Step::Fail], 200).await, paid(1, 31));
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "13".parse().unwrap());
    let steps = [Step::Data("12345678"), Step::Trailers(trailers)];
    let tokens = read(&[("content-type", "application/grpc")], &steps, 200).await[0].tokens;
    assert!((31..100).contains(&tokens), "{tokens}");
}

#[tokio::test]
async fn dropped_before_the_head_the_reservation_stays() {
    let ledger = Ledger::new();
    let service = limits(&ledger).layer(tower::service_fn(|_: Request<Full<Bytes>>| {
        std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
    }));
    {
        let mut future = pin!(service.oneshot(empty()));
        assert!(futures_util::poll!(future.as_mut()).is_pending());
        assert_eq!(ledger.out(), 1);
    }
    assert_eq!(ledger.settled(), paid(1, 100));
}

#[tokio::test]
async fn a_4xx_gives_tokens_back_even_if_it_is_dropped_unread() {
    for status in [400, 403, 422] {
        assert_eq!(read(JSON, &[Step::Data("{}")], status).await, paid(1, 0));
        let (ledger, alive) = (Ledger::new(), Arc::default());
        let steps = vec![Step::Data("{}")];
        let service = limits(&ledger).layer(engine(status, JSON, steps, &alive));
        drop(service.oneshot(empty()).await.unwrap());
        assert_eq!(ledger.settled(), paid(1, 0));
    }
}

#[tokio::test]
async fn a_5xx_or_an_error_gives_tokens_back_and_the_request_by_option() {
    assert_eq!(read(JSON, &[Step::Data("{}")], 503).await, paid(1, 0));
    for (refund, requests) in [(false, 1), (true, 0)] {
        let ledger = Ledger::new();
        let layer =
            limits_with(
                &ledger,
                |builder| {
                    if refund { builder.refund_failed_requests() } else { builder }
                },
            );
        let service = layer.layer(tower::service_fn(|_: Request<Full<Bytes>>| async {
            Err::<Response<Full<Bytes>>, BoxError>("the service broke".into())
        }));
        assert_eq!(service.oneshot(empty()).await.unwrap_err().to_string(), "the service broke");
        assert_eq!(ledger.settled(), paid(requests, 0));
    }
}

#[tokio::test]
async fn grpc_statuses_count_as_the_http_ones_they_stand_for() {
    for (status, tokens) in [("0", 100), ("3", 0), ("7", 0), ("13", 0), ("14", 0)] {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().unwrap());
        let steps = [Step::Trailers(trailers)];
        let headers: &[(&str, &str)] = &[("content-type", "application/grpc")];
        assert_eq!(read(headers, &steps, 200).await, paid(1, tokens), "{status}");
    }
    // Trailers only: the status stands in the head.
    let headers: &[(&str, &str)] = &[("content-type", "application/grpc"), ("grpc-status", "7")];
    assert_eq!(read(headers, &[], 200).await, paid(1, 0));
}

#[tokio::test]
async fn settled_with_the_frame_that_ends_the_stream() {
    let (ledger, alive) = (Ledger::new(), Arc::default());
    let layer = limits(&ledger);
    let service = layer.layer(tower::service_fn(move |_: Request<Full<Bytes>>| {
        let body = Script::new(&[Step::Data("x")], &alive).telling_its_end();
        std::future::ready(Ok::<_, Infallible>(Response::new(body)))
    }));
    let mut body = Box::pin(service.oneshot(empty()).await.unwrap().into_body());
    body.as_mut().frame().await.unwrap().unwrap();
    assert_eq!(ledger.settled(), paid(1, 100), "answered, not aborted");
    drop(body);
    assert_eq!(ledger.settled().len(), 1);
}

#[tokio::test]
async fn an_answer_without_a_body_is_complete_not_aborted() {
    let ledger = Ledger::new();
    let service = limits(&ledger).layer(tower::service_fn(|request: Request<Full<Bytes>>| {
        let mut response = Response::new(Full::<Bytes>::default());
        if request.method() == Method::POST {
            *response.status_mut() = StatusCode::NO_CONTENT;
        } else {
            *response.body_mut() = Full::from("not sent");
        }
        std::future::ready(Ok::<_, Infallible>(response))
    }));
    drop(service.clone().oneshot(empty()).await.unwrap());
    let mut head = empty();
    *head.method_mut() = Method::HEAD;
    drop(service.oneshot(head).await.unwrap());
    assert_eq!(ledger.settled(), [Paid { requests: 1, tokens: 100 }; 2]);
}

#[tokio::test]
async fn a_refused_request_charges_nothing() {
    let (ledger, alive) = (Ledger::new(), Arc::default());
    let service = limits(&ledger).layer(engine(200, JSON, vec![Step::Hang], &alive));
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(service.clone().oneshot(empty()).await.unwrap());
    }
    let refused = service.clone().oneshot(empty()).await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ledger.out(), 4);
    drop(open.pop());
    assert_eq!(service.oneshot(empty()).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_store_that_is_down_refuses_with_503() {
    let (ledger, alive) = (Ledger::new(), Arc::default());
    let service = limits(&ledger).layer(engine(200, JSON, vec![], &alive));
    ledger.go_down();
    let response = service.oneshot(empty()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
}

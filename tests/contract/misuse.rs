//! Callers, handlers and answers that would have tokens for nothing, or keep what they must give back.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use palisade::{
    Routes, UsageMeter,
    rate_limit::{Tier, TieredRateLimitLayer},
    reservation::TokenUsage,
    store::Outage,
};
use tower::{Layer, ServiceExt};

use crate::support::{Ledger, Paid, Script, Step, limits, limits_with, request};

type Answer = Result<Response<Full<Bytes>>, Infallible>;

fn empty() -> Request<Full<Bytes>> {
    request(Full::default())
}

fn answer() -> Answer {
    Ok(Response::new(Full::from("x")))
}

/// Tokens that another request finds, beyond the 100 that it reserves.
async fn left(layer: &TieredRateLimitLayer) -> u64 {
    let service = layer.layer(tower::service_fn(|_: Request<Full<Bytes>>| async { answer() }));
    let response = service.oneshot(empty()).await.unwrap();
    response.headers()["x-ratelimit-remaining-tokens"].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_refinement_during_an_outage_passes_where_no_limit_must_be_kept_and_there_alone() {
    for (outage, passes) in [(Outage::InsecureAdmit, true), (Outage::Refuse, false)] {
        let ledger = Ledger::new();
        let layer = TieredRateLimitLayer::builder(&ledger.stores())
            .tier("free", Tier::new().tokens_per_minute(1_000_000).on_outage(outage))
            .fallback_tier("free")
            .build()
            .unwrap();
        let store = Arc::clone(&ledger);
        let service = layer.layer(tower::service_fn(move |request: Request<Full<Bytes>>| {
            let store = Arc::clone(&store);
            async move {
                let meter = UsageMeter::of(request.extensions()).unwrap();
                store.go_down();
                let refined = meter.refine(TokenUsage::new(10_000, 0)).await;
                assert_eq!(refined.is_ok(), passes, "{outage:?}");
                answer()
            }
        }));
        service.oneshot(empty()).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(ledger.out(), 0);
    }
}

#[tokio::test]
async fn two_refinements_at_once_are_given_back_whole() {
    let ledger = Ledger::remote(Duration::from_millis(8));
    let layer = limits(&ledger);
    let service = layer.layer(tower::service_fn(|request: Request<Full<Bytes>>| async move {
        let meter = UsageMeter::of(request.extensions()).unwrap();
        let both = [TokenUsage::new(400_000, 0), TokenUsage::new(0, 500_000)];
        for refined in futures_util::future::join_all(both.map(|it| meter.refine(it))).await {
            refined.unwrap();
        }
        meter.report(TokenUsage::new(0, 0));
        answer()
    }));
    service.oneshot(empty()).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!((ledger.out(), ledger.total().tokens), (0, 0));
    assert!(left(&layer).await > 990_000);
}

#[tokio::test]
async fn a_refinement_that_is_granted_after_the_end_is_given_back_whole() {
    let ledger = Ledger::remote(Duration::from_millis(8));
    let layer = limits(&ledger);
    let service = layer.layer(tower::service_fn(|request: Request<Full<Bytes>>| async move {
        let meter = UsageMeter::of(request.extensions()).unwrap().clone();
        meter.refine(TokenUsage::new(300_000, 0)).await.unwrap();
        meter.report(TokenUsage::new(0, 0));
        tokio::spawn(async move { meter.refine(TokenUsage::new(800_000, 0)).await });
        tokio::time::sleep(Duration::from_millis(2)).await;
        answer()
    }));
    service.oneshot(empty()).await.unwrap().into_body().collect().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((ledger.out(), ledger.total().tokens), (0, 0));
    assert!(left(&layer).await > 990_000);
}

#[tokio::test]
async fn a_meter_that_is_kept_after_the_end_has_no_effect() {
    let ledger = Ledger::new();
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    let service = limits(&ledger).layer(tower::service_fn(move |request: Request<Full<Bytes>>| {
        *keep.lock().unwrap() = UsageMeter::of(request.extensions()).cloned();
        std::future::ready(answer())
    }));
    service.oneshot(empty()).await.unwrap().into_body().collect().await.unwrap();
    let meter: UsageMeter = kept.lock().unwrap().take().unwrap();
    meter.charge(1000);
    meter.report(TokenUsage::new(0, 0));
    meter.refine(TokenUsage::new(u64::MAX, u64::MAX)).await.unwrap();
    assert!(meter.remaining().is_some());
    drop(meter);
    assert_eq!(ledger.settled(), [Paid { requests: 1, tokens: 100 }]);
    assert_eq!(ledger.out(), 0);
}

#[tokio::test]
async fn a_handler_that_counts_beyond_all_numbers_is_taken_at_the_greatest() {
    let ledger = Ledger::new();
    let layer = limits(&ledger);
    let service = layer.layer(tower::service_fn(|request: Request<Full<Bytes>>| async move {
        let meter = UsageMeter::of(request.extensions()).unwrap();
        meter.report(TokenUsage::new(u64::MAX, u64::MAX));
        meter.charge(u64::MAX);
        meter.charge(u64::MAX);
        assert_eq!(meter.remaining(), Some(0));
        answer()
    }));
    service.clone().oneshot(empty()).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(ledger.settled(), [Paid { requests: 1, tokens: u64::MAX }]);
    let refused = service.oneshot(empty()).await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["x-should-retry"], "false");
}

async fn paid_for(content_type: &'static str, text: &'static str) -> u64 {
    let (ledger, alive) = (Ledger::new(), Arc::default());
    let service = limits(&ledger).layer(tower::service_fn(move |_: Request<Full<Bytes>>| {
        let body = Script::new(&[Step::Data(text)], &alive);
        let response = Response::builder().header("content-type", content_type).body(body);
        std::future::ready(Ok::<_, Infallible>(response.unwrap()))
    }));
    service.oneshot(empty()).await.unwrap().into_body().collect().await.unwrap();
    ledger.total().tokens
}

#[tokio::test]
async fn usage_that_no_model_has_is_not_believed() {
    let json = r#"{"usage":{"prompt_tokens":18446744073709551615,"completion_tokens":18446744073709551615}}"#;
    assert_eq!(paid_for("application/json", json).await, 100);
    let json = r#"{"usage":{"prompt_tokens":-5,"completion_tokens":1e300,"total_tokens":[]}}"#;
    assert_eq!(paid_for("application/json", json).await, 100);
}

#[tokio::test]
async fn text_is_never_free_whatever_a_stream_states() {
    let text = "data: {\"choices\":[{\"delta\":{\"content\":\"one two three four five six seven\"}}]}\n\n\
                data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":0}}\n\n";
    let tokens = paid_for("text/event-stream", text).await;
    assert!((9..30).contains(&tokens), "{tokens}");
}

#[tokio::test]
async fn a_long_stream_that_states_nothing_is_not_cheaper_read_to_its_end() {
    let event =
        "data: {\"choices\":[{\"delta\":{\"content\":\"one two three four five six seven\"}}]}\n\n";
    let text: &'static str = Box::leak(event.repeat(500).into_boxed_str());
    let tokens = paid_for("text/event-stream", text).await;
    assert!((3000..9000).contains(&tokens), "{tokens}");
    assert_eq!(paid_for("text/event-stream", event).await, 100);
}

/// As text-generation-inference does without `decoder_input_details`.
#[tokio::test]
async fn an_answer_that_states_its_output_alone_pays_that_and_the_prompt() {
    let json = r#"{"generated_text":"x","details":{"generated_tokens":700}}"#;
    assert_eq!(paid_for("application/json", json).await, 730);
}

#[tokio::test]
async fn a_tier_below_the_guess_of_an_answer_admits() {
    let ledger = Ledger::new();
    let layer = TieredRateLimitLayer::builder(&ledger.stores())
        .tier("small", Tier::new().tokens_per_minute(50))
        .fallback_tier("small")
        .build()
        .unwrap();
    let service = layer.layer(tower::service_fn(|request: Request<Full<Bytes>>| async move {
        let meter = UsageMeter::of(request.extensions()).unwrap();
        meter.refine(TokenUsage::new(3, 4)).await.unwrap();
        answer()
    }));
    let response = service.clone().oneshot(empty()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body().collect().await.unwrap();
    assert_eq!(ledger.total().tokens, 7);
}

#[tokio::test]
async fn a_length_that_is_a_lie_harms_only_its_sender() {
    let ledger = Ledger::new();
    for (length, at_least) in
        [("-5", 100), ("+7", 70), ("x", 100), ("0", 70), ("18446744073709551615", 1_000_000)]
    {
        let layer = limits(&ledger);
        let service = layer.layer(tower::service_fn(|request: Request<Full<Bytes>>| async move {
            UsageMeter::of(request.extensions()).unwrap().report(TokenUsage::new(0, 0));
            answer()
        }));
        let mut request = empty();
        request.headers_mut().insert("content-length", length.parse().unwrap());
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{length}");
        let left = &response.headers()["x-ratelimit-remaining-tokens"];
        let left: u64 = left.to_str().unwrap().parse().unwrap();
        assert!(left <= 1_000_000 - at_least, "{length}: {left}");
    }
}

#[tokio::test]
async fn a_connection_that_becomes_a_websocket_holds_its_slot() {
    let ledger = Ledger::new();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    let service = limits(&ledger).layer(tower::service_fn(move |request: Request<Full<Bytes>>| {
        keep.lock().unwrap().extend(UsageMeter::of(request.extensions()).cloned());
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        std::future::ready(Ok::<_, Infallible>(response.body(Empty::<Bytes>::new()).unwrap()))
    }));
    for _ in 0..4 {
        drop(service.clone().oneshot(empty()).await.unwrap());
    }
    assert_eq!(ledger.out(), 4);
    let refused = service.clone().oneshot(empty()).await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let meter = kept.lock().unwrap().pop().unwrap();
    meter.charge(7);
    let clone = meter.clone();
    drop(meter);
    assert_eq!(ledger.out(), 4);
    drop(clone);
    assert_eq!(ledger.settled(), [Paid { requests: 1, tokens: 37 }]);
    kept.lock().unwrap().clear();
    assert_eq!(ledger.out(), 0);
}

#[tokio::test]
async fn a_tier_of_one_kind_of_limit_says_only_that() {
    let ledger = Ledger::new();
    for (tier, present, absent) in [
        (Tier::new().concurrent_requests(1), "ratelimit", "x-ratelimit-limit-tokens"),
        (
            Tier::new().tokens_per_day(9000),
            "x-ratelimit-limit-tokens",
            "x-ratelimit-limit-requests",
        ),
    ] {
        let layer = TieredRateLimitLayer::builder(&ledger.stores())
            .tier("only", tier)
            .fallback_tier("only")
            .build()
            .unwrap();
        let service = layer.layer(tower::service_fn(|request: Request<Full<Bytes>>| async move {
            let meter = UsageMeter::of(request.extensions()).unwrap();
            meter.refine(TokenUsage::new(10, 20)).await.unwrap();
            answer()
        }));
        let first = service.clone().oneshot(empty()).await.unwrap();
        assert!(first.headers().contains_key(present) && !first.headers().contains_key(absent));
        if present == "ratelimit" {
            let refused = service.clone().oneshot(empty()).await.unwrap();
            assert_eq!(refused.headers()["retry-after"], "1");
        }
    }
}

#[tokio::test]
async fn an_exempt_route_is_left_alone() {
    let ledger = Ledger::new();
    let layer =
        limits_with(&ledger, |builder| builder.routes(Routes::guard_all().exempt("/healthz")));
    let service = layer.layer(tower::service_fn(|request: Request<Full<Bytes>>| async move {
        assert!(UsageMeter::of(request.extensions()).is_none());
        answer()
    }));
    let request = Request::get("/healthz").body(Full::default()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert!(response.headers().is_empty());
    assert!(ledger.settled().is_empty());
}

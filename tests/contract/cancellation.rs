//! A client may leave at every await, and nothing leaks.

use std::{convert::Infallible, pin::pin, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use palisade::{UsageMeter, reservation::TokenUsage};
use tower::{Layer, ServiceExt};

use crate::support::{Ledger, limits, request};

/// The store takes 8 ms for each answer and has taken what it admits after 4, the handler takes 8 more.
#[tokio::test(start_paused = true)]
async fn leaving_at_any_time_leaks_nothing() {
    let ledger = Ledger::remote(Duration::from_millis(8));
    let service =
        limits(&ledger).layer(tower::service_fn(|request: Request<Full<Bytes>>| async move {
            let meter = UsageMeter::of(request.extensions()).unwrap().clone();
            meter.refine(TokenUsage::new(400, 600)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(8)).await;
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("x")))
        }));
    let mut answered = 0;
    for leave_after in 0..30 {
        let answer = service.clone().oneshot(request(Full::default()));
        if let Ok(response) = tokio::time::timeout(Duration::from_millis(leave_after), answer).await
        {
            response.unwrap().into_body().collect().await.unwrap();
            answered += 1;
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(answered > 0 && answered < 30, "{answered}");
    assert_eq!(ledger.out(), 0);
    // All slots are free: four at a time pass.
    let four = (0..4).map(|_| service.clone().oneshot(request(Full::default())));
    for response in futures_util::future::join_all(four).await {
        assert_eq!(response.unwrap().status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_arrived_but_was_never_read_is_given_back() {
    let ledger = Ledger::remote(Duration::from_millis(8));
    let service = limits(&ledger).layer(tower::service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("x")))
    }));
    {
        let mut answer = pin!(service.oneshot(request(Full::default())));
        assert!(futures_util::poll!(answer.as_mut()).is_pending());
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(ledger.out(), 1, "the store has admitted");
    }
    assert_eq!(ledger.out(), 0);
}

#[tokio::test]
async fn a_thousand_clients_that_leave_mid_stream_leak_nothing() {
    let ledger = Ledger::new();
    let alive = std::sync::Arc::default();
    let counted = std::sync::Arc::clone(&alive);
    let layer = crate::support::limits_with(&ledger, |builder| {
        let wide = palisade::rate_limit::Tier::new()
            .requests_per_minute(10_000)
            .tokens_per_minute(10_000_000)
            .concurrent_requests(1000);
        builder.tier("wide", wide).fallback_tier("wide")
    });
    let service = layer.layer(tower::service_fn(move |_: Request<Full<Bytes>>| {
        use crate::support::{Script, Step};
        let body = Script::new(&[Step::Data("x"), Step::Hang], &counted);
        std::future::ready(Ok::<_, Infallible>(Response::new(body)))
    }));
    for round in 0..2 {
        let mut open = Vec::new();
        for _ in 0..1000 {
            let response = service.clone().oneshot(request(Full::default())).await.unwrap();
            assert_eq!(response.status(), 200, "round {round}");
            let mut body = Box::pin(response.into_body());
            body.as_mut().frame().await.unwrap().unwrap();
            open.push(body);
        }
        assert_eq!(ledger.out(), 1000);
        let tasks = open.into_iter().map(|body| tokio::spawn(async move { drop(body) }));
        futures_util::future::join_all(tasks).await;
        assert_eq!(ledger.out(), 0);
        assert_eq!(alive.load(std::sync::atomic::Ordering::SeqCst), 0);
    }
    assert_eq!(ledger.settled().len(), 2000);
}

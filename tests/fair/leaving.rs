//! A client may leave at any moment, and nothing is left of it.

use std::{convert::Infallible, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use palisade::{
    UsageMeter,
    rate_limit::fair::{Capacity, FairAdmission, Share},
};
use tower::{Layer, Service, ServiceExt as _};

use crate::support::{
    TokioClock, Unread, ask, assert_idle, behind, go_on, layer, now, prompt, request, shared, tier,
};

fn one() -> FairAdmission {
    let fair = FairAdmission::builder().capacity(Capacity::slots(1));
    fair.tier("free", Share::percent(100)).clock(TokioClock::new()).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_queue_is_out_at_once() {
    let fair = one();
    let (service, engine) = behind(&fair);
    let held = now(ask(&service, request("free/a")).await).await;
    let leaves = ask(&service, request("free/b")).await;
    let stays = ask(&service, request("free/c")).await;
    leaves.abort();
    go_on().await;
    assert_eq!(tier(&fair, "free").waiting, 1);
    drop(held);
    go_on().await;
    assert!(stays.is_finished());
    assert_eq!(engine.running().last().unwrap(), "c");
}

/// His size was what kept the others waiting.
#[tokio::test(start_paused = true)]
async fn who_leaves_the_head_of_the_queue_lets_the_next_one_in() {
    let fair = shared(Capacity::slots(8).tokens_in_flight(2000), Share::percent(50));
    let fair = fair.build().unwrap();
    let (service, engine) = behind(&fair);
    let _held = now(ask(&service, prompt("free/a", 400)).await).await;
    let _other = now(ask(&service, prompt("enterprise/x", 700)).await).await;
    let large = ask(&service, prompt("free/b", 700)).await;
    let small = ask(&service, prompt("free/b", 50)).await;
    assert!(!large.is_finished() && !small.is_finished(), "{:?}", fair.snapshot());
    large.abort();
    go_on().await;
    assert!(small.is_finished(), "{:?}", fair.snapshot());
    assert_eq!(engine.running().last().unwrap(), "b");
}

/// Let in, and gone before he knew.
#[tokio::test(start_paused = true)]
async fn a_permit_that_nobody_took_is_the_next_ones() {
    let fair = one();
    let (mut service, engine) = behind(&fair);
    let held = now(ask(&service, request("free/a")).await).await;
    let mut unpolled = Box::pin(service.call(request("free/b")));
    assert!(futures_util::poll!(unpolled.as_mut()).is_pending());
    let next = ask(&service, request("free/c")).await;
    drop(held);
    go_on().await;
    assert_eq!((fair.snapshot().in_use, next.is_finished()), (1, false), "it is his");
    drop(unpolled);
    go_on().await;
    assert!(next.is_finished());
    assert_eq!(engine.running().last().unwrap(), "c");
    drop(next.await.unwrap());
    assert_idle(&fair);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_mid_stream_gives_his_slot_up() {
    let fair = one();
    let (service, engine) = behind(&fair);
    let mut body = Box::pin(now(ask(&service, request("free/a")).await).await.into_body());
    engine.take("a").send("data: 1\n\n");
    body.as_mut().frame().await.unwrap().unwrap();
    let next = ask(&service, request("free/b")).await;
    assert!(!next.is_finished());
    drop(body);
    go_on().await;
    assert!(next.is_finished());
    assert_eq!(engine.alive.load(Ordering::SeqCst), 1);
    drop(next.await.unwrap());
    assert_idle(&fair);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_that_come_and_go_leave_nothing() {
    let fair = FairAdmission::builder()
        .capacity(Capacity::slots(2).tokens_in_flight(100_000).prefill_pending(50_000))
        .tier("free", Share::percent(100).queue(20_000).queue_bytes(1 << 30))
        .clock(TokioClock::new())
        .build()
        .unwrap();
    let (mut service, engine) = behind(&fair);
    let mut waits = Vec::new();
    for n in 0..10_000 {
        let mut asked = Box::pin(service.call(request(&format!("free/{}", n % 1000))));
        if futures_util::poll!(asked.as_mut()).is_pending() {
            waits.push(asked);
        }
    }
    // The first two were answered, and their answers dropped at once: so were all that came after.
    assert!(waits.is_empty() && engine.running().len() == 10_000);
    let held = [
        now(ask(&service, request("free/a")).await).await,
        now(ask(&service, request("free/b")).await).await,
    ];
    for n in 0..10_000 {
        let mut asked = Box::pin(service.call(request(&format!("free/{}", n % 1000))));
        assert!(futures_util::poll!(asked.as_mut()).is_pending());
        waits.push(asked);
    }
    assert_eq!(tier(&fair, "free").waiting, 10_000);
    // From both ends and from the middle.
    while !waits.is_empty() {
        let at = waits.len() * 7 / 11 % waits.len();
        drop(waits.swap_remove(at));
    }
    drop(held);
    assert_idle(&fair);
}

/// Answers without a body are over when they come.
#[tokio::test(start_paused = true)]
async fn answers_without_a_body_hold_nothing() {
    let fair = one();
    for (method, status) in [
        (Method::HEAD, StatusCode::OK),
        (Method::POST, StatusCode::NO_CONTENT),
        (Method::GET, StatusCode::NOT_MODIFIED),
    ] {
        let inner = tower::service_fn(move |_: Request<Unread>| async move {
            let mut response = Response::new(Full::<Bytes>::from("never sent"));
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        });
        let mut asked = request("free/a");
        *asked.method_mut() = method;
        let answer = layer(&fair).layer(inner).oneshot(asked).await.unwrap();
        assert_eq!(answer.status(), status);
        assert_idle(&fair);
    }
}

/// A connection that is something else from now on holds its slot for as long as its handler keeps the meter, and its
/// prompt, which is over, keeps nobody waiting.
#[tokio::test(start_paused = true)]
async fn a_web_socket_holds_its_slot_by_its_meter() {
    let fair = FairAdmission::builder()
        .capacity(Capacity::slots(1).prefill_pending(5000))
        .tier("free", Share::percent(100))
        .build()
        .unwrap();
    let (sender, mut meters) = tokio::sync::mpsc::unbounded_channel();
    let inner = tower::service_fn(move |request: Request<Unread>| {
        sender.send(UsageMeter::of(request.extensions()).unwrap().clone()).unwrap();
        let mut response = Response::new(Full::<Bytes>::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let answer = layer(&fair).layer(inner).oneshot(prompt("free/a", 100)).await.unwrap();
    assert_eq!(answer.status(), 101);
    drop(answer);
    assert_eq!((fair.snapshot().in_use, fair.snapshot().prefill_pending), (1, 0));
    let meter = meters.recv().await.unwrap();
    meter.charge(9);
    drop(meter);
    assert_idle(&fair);
    assert_eq!(tier(&fair, "free").served_tokens, 109);
}

/// What fails, or is refused within, has used nothing.
#[tokio::test(start_paused = true)]
async fn what_fails_within_gives_its_slot_up() {
    let fair = one();
    let failing = tower::service_fn(|_: Request<Unread>| async {
        Err::<Response<Full<Bytes>>, _>("the engine is gone")
    });
    assert!(layer(&fair).layer(failing).oneshot(request("free/a")).await.is_err());
    assert_idle(&fair);
    assert_eq!(tier(&fair, "free").served_tokens, 0);
}

/// Trap 32: an engine that works on for a client that has left.
#[tokio::test(start_paused = true)]
async fn a_slot_stays_taken_for_a_while_where_the_engine_works_on() {
    let second = Duration::from_secs(1);
    let fair = FairAdmission::builder()
        .capacity(Capacity::slots(1))
        .tier("free", Share::percent(100).max_wait(30 * second))
        .abort_grace(5 * second)
        .clock(TokioClock::new())
        .build()
        .unwrap();
    let (service, engine) = behind(&fair);
    let leaves = now(ask(&service, request("free/a")).await).await;
    let waits = ask(&service, request("free/b")).await;
    drop(leaves);
    tokio::time::sleep(4 * second).await;
    assert!(!waits.is_finished());
    assert_eq!(fair.snapshot().in_use, 1);
    tokio::time::sleep(second + second / 10).await;
    let mut answer = now(waits).await;
    assert_eq!(engine.running().last().unwrap(), "b");

    // One that ends by itself is no longer in the engine.
    let last = ask(&service, request("free/c")).await;
    drop(engine.take("b"));
    assert!(answer.frame().await.is_none());
    go_on().await;
    let last = now(last).await;

    // Nobody is kept waiting beyond his time.
    let late = ask(&service, request("free/d")).await;
    tokio::time::sleep(29 * second).await;
    drop(last);
    tokio::time::sleep(second + second / 10).await;
    assert_eq!(now(late).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    tokio::time::sleep(5 * second).await;
    assert_idle(&fair);
}

#[test]
fn where_the_runtime_ends_nothing_stays_taken() {
    let fair = FairAdmission::builder().capacity(Capacity::slots(1));
    let fair = fair.tier("free", Share::percent(100)).abort_grace(Duration::from_secs(3600));
    let fair = fair.build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (service, _engine) = behind(&fair);
        drop(now(ask(&service, request("free/a")).await).await);
        go_on().await;
        assert_eq!(fair.snapshot().in_use, 1);
    });
    drop(runtime);
    assert_idle(&fair);
}

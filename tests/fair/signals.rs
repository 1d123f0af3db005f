//! How a slot that was lent comes back: by an engine that parks a stream, or by breaking a request off.

use std::{convert::Infallible, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use palisade::rate_limit::fair::{
    Capacity, EngineHint, FairAdmission, Revoke, Share, SlotClass, YieldSignal,
};
use serde_json::Value;
use tower::{Layer, ServiceExt as _};

use crate::{
    refusals::code_of,
    support::{
        Unread, ask, assert_idle, behind, capacity, go_on, layer, now, request, request_to, shared,
        text, tier,
    },
};

/// Two slots, one for each tier.
fn revocable(revoke: Revoke) -> FairAdmission {
    shared(Capacity::slots(2), Share::percent(50).revocable(revoke)).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn before_its_first_byte_a_borrowed_stream_ends_with_an_error() {
    let fair = revocable(Revoke::BeforeFirstByte);
    let (service, engine) = behind(&fair);
    let _own = now(ask(&service, request("free/a")).await).await;
    let lent = now(ask(&service, request("free/b")).await).await;
    let read = tokio::spawn(text(lent));
    go_on().await;
    let owner = ask(&service, request("enterprise/x")).await;
    // The head was out, so it ends as streams of this API do.
    let event = read.await.unwrap();
    let error = event.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap();
    let error: Value = serde_json::from_str(error).unwrap();
    assert_eq!(error["error"]["code"], "revoked");
    go_on().await;
    assert!(owner.is_finished());
    assert_eq!(engine.most.load(Ordering::SeqCst), 2, "the slot was free before its body was gone");
    let free = tier(&fair, "free");
    assert_eq!((free.in_use, free.revoked, free.served_tokens), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn before_its_head_a_borrowed_request_is_answered_with_503() {
    let fair = revocable(Revoke::BeforeFirstByte);
    let slow = tower::service_fn(|_: Request<Unread>| async {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let service = layer(&fair).layer(slow);
    let ask = |who| tokio::spawn(service.clone().oneshot(request(who)));
    let own = ask("free/a");
    go_on().await;
    let lent = ask("free/b");
    go_on().await;
    let owner = ask("enterprise/x");
    let revoked = lent.await.unwrap().unwrap();
    assert_eq!((revoked.status().as_u16(), code_of(&revoked)), (503, "revoked"));
    assert!(revoked.headers().contains_key("retry-after"));
    go_on().await;
    assert_eq!((tier(&fair, "enterprise").in_use, tier(&fair, "free").in_use), (1, 1));
    own.abort();
    owner.abort();
    go_on().await;
    assert_idle(&fair);
}

#[tokio::test(start_paused = true)]
async fn after_its_first_byte_only_a_tier_that_agreed_is_broken_off() {
    for (revoke, ends) in
        [(Revoke::Never, false), (Revoke::BeforeFirstByte, false), (Revoke::Always, true)]
    {
        let fair = revocable(revoke);
        let (service, engine) = behind(&fair);
        let own = now(ask(&service, request("free/a")).await).await;
        let lent = now(ask(&service, request("free/b")).await).await;
        let (own_stream, lent_stream) = (engine.take("a"), engine.take("b"));
        let (mut own, mut lent) = (Box::pin(own.into_body()), Box::pin(lent.into_body()));
        for (stream, body) in [(&own_stream, &mut own), (&lent_stream, &mut lent)] {
            stream.send("data: {\"choices\":[{\"delta\":{\"content\":\"one\"}}]}\n\n");
            body.as_mut().frame().await.unwrap().unwrap();
        }
        let owner = ask(&service, request("enterprise/x")).await;
        lent_stream.send("data: late\n\n");
        let frame = lent.as_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        let told = String::from_utf8(frame.to_vec()).unwrap();
        assert_eq!(told.contains("revoked"), ends, "{revoke:?}: {told}");
        assert_eq!(told.contains("late"), !ends, "{revoke:?}: {told}");
        go_on().await;
        assert_eq!(owner.is_finished(), ends, "{revoke:?}");
        if ends {
            assert!(lent.as_mut().frame().await.is_none(), "not a byte more");
            // It is charged for what it had, as if its client had left.
            assert!(tier(&fair, "free").served_tokens > 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_a_tiers_own_is_never_broken_off() {
    let fair = revocable(Revoke::Always);
    let (service, engine) = behind(&fair);
    let own = now(ask(&service, request("free/a")).await).await;
    let _x = now(ask(&service, request("enterprise/x")).await).await;
    let waits = ask(&service, request("enterprise/y")).await;
    engine.take("a").send("data: whole\n\n");
    assert_eq!(text(own).await, "data: whole\n\n");
    go_on().await;
    assert!(waits.is_finished());
    assert_eq!(tier(&fair, "free").revoked, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_over_grpc_is_broken_off_with_trailers() {
    let fair = revocable(Revoke::BeforeFirstByte);
    let inner = tower::service_fn(|_: Request<Unread>| async {
        let mut response = Response::new(Hangs);
        let grpc = "application/grpc".parse().unwrap();
        response.headers_mut().insert("content-type", grpc);
        Ok::<_, Infallible>(response)
    });
    let service = layer(&fair).layer(inner);
    let grpc = |who| {
        let mut request = request_to("/pkg.Models/Ask", who);
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        request
    };
    let _own = service.clone().oneshot(grpc("free/a")).await.unwrap();
    let lent = service.clone().oneshot(grpc("free/b")).await.unwrap();
    let owner = tokio::spawn(service.oneshot(grpc("enterprise/x")));
    go_on().await;
    let trailers = lent.into_body().collect().await.unwrap();
    assert_eq!(trailers.trailers().unwrap()["grpc-status"], "14");
    go_on().await;
    assert!(owner.is_finished());
}

/// Has nothing to say for ever.
struct Hangs;

impl http_body::Body for Hangs {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_yields_is_told_whose_a_slot_is_and_parks_streams() {
    let fair = capacity(2).engine_yields().build().unwrap();
    let (service, engine) = behind(&fair);
    let _own = now(ask(&service, request("free/a")).await).await;
    let lent = now(ask(&service, request("free/b")).await).await;
    let (own, lent_stream) = (engine.take("a"), engine.take("b"));
    let class = |stream: &crate::support::Stream| {
        let hint = EngineHint::of(&stream.extensions).unwrap().clone();
        assert_eq!(&*hint.tier, "free");
        hint.class
    };
    assert_eq!((class(&own), class(&lent_stream)), (SlotClass::Owned, SlotClass::Borrowed));
    let signal = YieldSignal::of(&lent_stream.extensions).unwrap().clone();
    assert!(!signal.is_requested());
    let requested = tokio::spawn({
        let signal = signal.clone();
        async move { signal.requested().await }
    });
    go_on().await;
    assert!(!requested.is_finished());

    let owner = ask(&service, request("enterprise/x")).await;
    requested.await.unwrap();
    assert!(signal.is_requested() && !YieldSignal::of(&own.extensions).unwrap().is_requested());
    assert!(!owner.is_finished(), "the slot is free when the engine says so");
    let parked = tokio::spawn({
        let signal = signal.clone();
        async move { signal.parked().await }
    });
    go_on().await;
    assert!(owner.is_finished() && !parked.is_finished());
    assert!(!signal.is_requested());
    assert_eq!((tier(&fair, "free").in_use, tier(&fair, "free").waiting), (1, 1));

    // Another of the same tier comes, and goes after it.
    let later = ask(&service, request("free/b")).await;
    drop(owner.await.unwrap());
    assert!(parked.await.unwrap(), "it may go on");
    assert!(!later.is_finished());
    // And again, as often as it is needed.
    let owner = ask(&service, request("enterprise/x")).await;
    assert!(signal.is_requested());
    lent_stream.send("data: on\n\n");
    drop(lent_stream);
    assert_eq!(text(lent).await, "data: on\n\n");
    go_on().await;
    assert!(owner.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_parked_stream_whose_client_leaves_is_over() {
    let fair = capacity(2).engine_yields().build().unwrap();
    let (service, engine) = behind(&fair);
    let own = now(ask(&service, request("free/a")).await).await;
    let lent = now(ask(&service, request("free/b")).await).await;
    let owner = ask(&service, request("enterprise/x")).await;
    let signal = YieldSignal::of(&engine.take("b").extensions).unwrap().clone();
    let parked = tokio::spawn({
        let signal = signal.clone();
        async move { signal.parked().await }
    });
    go_on().await;
    assert!(!parked.is_finished());
    drop(lent);
    assert!(!parked.await.unwrap());
    // It hears nothing any more, and takes no slot.
    assert!(!signal.is_requested() && !signal.parked().await);
    signal.requested().await;
    drop((own, owner.await.unwrap()));
    assert_idle(&fair);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_yield_is_told_nothing() {
    let fair = revocable(Revoke::Always);
    let (service, engine) = behind(&fair);
    let _answer = now(ask(&service, request("free/a")).await).await;
    let stream = engine.take("a");
    assert!(EngineHint::of(&stream.extensions).is_none());
    assert!(YieldSignal::of(&stream.extensions).is_none());
}

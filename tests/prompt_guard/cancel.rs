//! Dropping a request stops what it waits for, wherever it waits.

use std::{convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use http::{Request, Response};
use palisade::{
    body::RequestBody,
    future::ReadyOr,
    prompt_guard::{Action, OnUnavailable},
};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::*;

/// Asks, polls until it waits, and drops the request. `dropped` is what it waits for.
fn drops<F: Future>(asked: F, dropped: &Dropped) {
    let mut asked: Pin<Box<F>> = Box::pin(asked);
    starts(asked.as_mut());
    assert!(!dropped.get(), "it does not wait for this");
    drop(asked);
    assert!(dropped.get());
}

#[tokio::test]
async fn while_the_body_arrives() {
    let dropped = Dropped::default();
    let body = dropped.body(stalled(vec![data("{")]));
    drops(ask(guard(), Request::post(CHAT).body(body).unwrap()), &dropped);
}

#[tokio::test]
async fn while_the_limiter_reserves() {
    let dropped = Dropped::default();
    let meter = Arc::new(Kept { waits: Some(dropped.clone()), ..Kept::default() });
    let mut request = post(CHAT, chat("hi"));
    meter.on(&mut request);
    drops(ask(guard(), request), &dropped);
    assert_eq!(meter.refined.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn while_a_detector_answers() {
    let dropped = Dropped::default();
    let watched = dropped.clone();
    let remote = Remote(move |_| ReadyOr::pending(never(watched.guard())));
    let limit = Duration::from_secs(1);
    let guard = guard().async_detector(remote, Action::Block, limit, OnUnavailable::Refuse);
    drops(ask(guard, post(CHAT, chat("hi"))), &dropped);
}

#[tokio::test]
async fn while_the_inner_service_answers() {
    let dropped = Dropped::default();
    let watched = dropped.clone();
    let service = service_fn(move |_: Request<RequestBody<AnyBody>>| {
        never::<Result<Response<AnyBody>, Infallible>>(watched.guard())
    });
    let service = guard().build().unwrap().layer(service);
    drops(service.oneshot(post(CHAT, chat("hi"))), &dropped);
}

#[tokio::test]
async fn while_a_json_answer_is_collected() {
    let dropped = Dropped::default();
    let watched = dropped.clone();
    let asked = answered(guard().output_detector(EVIL, Action::Block), CHAT, move || {
        let body = watched.body(stalled(vec![data("{")]));
        Response::builder().header("content-type", "application/json").body(body).unwrap()
    });
    drops(asked, &dropped);
}

#[tokio::test]
async fn while_a_stream_runs() {
    let dropped = Dropped::default();
    let watched = dropped.clone();
    let answer = answered(guard().output_detector(EVIL, Action::Block), CHAT, move || {
        let body = watched.body(stalled(vec![data("data: x y z \n\n"), data("data: word \n\n")]));
        Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
    })
    .await;
    let mut body = answer.into_body();
    http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
    assert!(!dropped.get());
    drop(body);
    assert!(dropped.get());
}

#[tokio::test]
async fn a_refused_upload_is_dropped_before_the_answer_is_read() {
    let dropped = Dropped::default();
    let body = dropped.body(stalled(vec![data("too long")]));
    let request = Request::post(CHAT).body(body).unwrap();
    let (answer, _) = ask(guard().max_body(4), request).await;
    assert_eq!(refusal(&answer), ("request_too_large", 413));
    assert!(dropped.get());
}

/// Bodies that are neither `Send`, `Sync` nor `Unpin`, and services of any error, are guarded too; and
/// what can be sent stays so.
#[test]
fn nothing_is_asked_of_the_parts() {
    use std::{marker::PhantomPinned, rc::Rc};

    fn sends<T: Send>(_: &T) {}
    fn is_layer<T: Send + Sync + Clone + 'static>(_: &T) {}

    struct Odd(#[allow(dead_code)] Rc<()>, PhantomPinned);
    impl http_body::Body for Odd {
        type Data = bytes::Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, std::io::Error>>>
        {
            std::task::Poll::Pending
        }
    }
    struct NotEvenAnError;
    let odd = || Odd(Rc::new(()), PhantomPinned);
    let layer = guard().build().unwrap();
    is_layer(&layer);
    let service = layer.layer(service_fn(move |_: Request<RequestBody<Odd>>| async move {
        Err::<Response<Odd>, _>(NotEvenAnError)
    }));
    drop(service.oneshot(Request::post(CHAT).body(odd()).unwrap()));

    let inner = Inner::default();
    let service = layer.layer(inner.answering(|| Response::new(full("ok"))));
    sends(&service.clone());
    sends(&service.oneshot(post(CHAT, chat("hi"))));
}

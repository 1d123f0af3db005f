//! An answer ends with the token that it was asked for with, if the server wants it so.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod jwt_support;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use palisade::{
    clock::ManualClock,
    jwt::{Algorithm, JwtAuthLayer, JwtAuthLayerBuilder},
};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};

use crate::jwt_support::*;

/// Says each of its parts and then nothing, forever. Counts how often one was dropped.
struct Endless {
    parts: Vec<&'static str>,
    dropped: Arc<AtomicUsize>,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.parts.is_empty() {
            return Poll::Pending;
        }
        let part = self.parts.remove(0);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(part.as_bytes())))))
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

struct Case {
    key: Key,
    clock: Arc<ManualClock>,
    layer: JwtAuthLayer,
    dropped: Arc<AtomicUsize>,
}

impl Case {
    fn new(options: impl FnOnce(JwtAuthLayerBuilder) -> JwtAuthLayerBuilder) -> Self {
        let (key, clock) = (Key::new(Algorithm::EdDSA), clock());
        let server = server_at(Arc::clone(&clock)).issuer(key.issuer()).build().unwrap();
        let builder = JwtAuthLayer::builder(server).clock(Arc::clone(&clock) as _);
        Self { key, clock, layer: options(builder).build().unwrap(), dropped: Arc::default() }
    }

    fn ending() -> Self {
        Self::new(JwtAuthLayerBuilder::end_streams_at_expiry)
    }

    /// Of an endpoint, with a token that holds for five minutes, an answer of this type that never ends.
    async fn ask(
        &self,
        path: &str,
        content_type: &'static str,
        parts: &[&'static str],
        change: Value,
    ) -> impl Body<Data = Bytes, Error = Infallible> + Unpin + use<> {
        let body = || Endless { parts: parts.to_vec(), dropped: Arc::clone(&self.dropped) };
        let service = self.layer.layer(service_fn(async |_: Request<()>| {
            let response = Response::builder().header("content-type", content_type).body(body());
            Ok::<_, Infallible>(response.unwrap())
        }));
        let token = self.key.token(&claims(change));
        let request = Request::post(path)
            .header("authorization", format!("Bearer {token}"))
            .body(())
            .unwrap();
        Box::pin(service.oneshot(request).await.unwrap().into_body())
    }

    fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }
}

async fn next(body: &mut (impl Body<Data = Bytes, Error = Infallible> + Unpin)) -> String {
    let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
    String::from_utf8(data.to_vec()).unwrap()
}

const EVENTS: &str = "text/event-stream";

#[tokio::test]
async fn a_stream_ends_with_an_error_event_in_the_endpoints_shape() {
    for (path, start) in [
        ("/v1/chat/completions", r#"data: {"error":{"#),
        ("/v1/messages", "event: error\ndata: {"),
        ("/generate_stream", r#"data: {"error":""#),
    ] {
        let case = Case::ending();
        let mut body = case.ask(path, EVENTS, &["data: 1\n\n", "data: 2\n\n"], json!({})).await;
        assert_eq!(next(&mut body).await, "data: 1\n\n");
        // Up to the token's end and the grace after it, the stream runs on.
        case.clock.advance(Duration::from_secs(329));
        assert_eq!(next(&mut body).await, "data: 2\n\n");
        assert_eq!(case.dropped(), 0);
        case.clock.advance(Duration::from_secs(1));
        let last = next(&mut body).await;
        assert!(last.starts_with(start) && last.ends_with("}\n\n"), "{last}");
        assert!(last.contains("The access token has expired"));
        assert_eq!(case.dropped(), 1, "what produces the answer is let go at once");
        assert!(body.is_end_stream());
        assert!(body.frame().await.is_none());
    }
}

#[tokio::test]
async fn an_event_that_was_cut_in_two_does_not_swallow_the_error() {
    let case = Case::ending();
    let mut body = case.ask("/v1/chat/completions", EVENTS, &["data: {\"a"], json!({})).await;
    assert_eq!(next(&mut body).await, "data: {\"a");
    case.clock.advance(Duration::from_secs(330));
    assert!(next(&mut body).await.starts_with("\n\ndata: {\"error\""));
}

#[tokio::test]
async fn a_grpc_stream_ends_with_its_status() {
    let case = Case::ending();
    let mut body = case.ask("/llm.Model/Generate", "application/grpc", &["x"], json!({})).await;
    next(&mut body).await;
    case.clock.advance(Duration::from_secs(330));
    let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "16");
    assert!(trailers.contains_key("grpc-message") && !trailers.contains_key("content-type"));
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn any_other_answer_is_cut() {
    let case = Case::ending();
    let mut body = case.ask("/v1/chat/completions", "application/json", &["{"], json!({})).await;
    next(&mut body).await;
    case.clock.advance(Duration::from_secs(330));
    assert!(body.frame().await.is_none());
    assert_eq!(case.dropped(), 1);
}

/// The model has nothing to say for an hour: nobody asks the clock, a timer wakes the connection.
#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_ended_by_a_timer() {
    let case = Case::ending();
    let mut body = case.ask("/v1/chat/completions", EVENTS, &[], json!({})).await;
    let begun = tokio::time::Instant::now();
    assert!(next(&mut body).await.contains("expired"));
    let waited = begun.elapsed();
    assert!((330..331).contains(&waited.as_secs()), "{waited:?}");
}

#[tokio::test]
async fn a_token_past_its_end_has_its_answer_heard_for_as_long() {
    let case = Case::ending();
    let change = json!({"exp": NOW - 20});
    let mut body = case.ask("/v1/messages", EVENTS, &["a", "b", "c"], change).await;
    case.clock.advance(Duration::from_secs(29));
    assert_eq!(next(&mut body).await, "a");
    case.clock.advance(Duration::from_secs(1));
    assert!(next(&mut body).await.contains("expired"));
}

#[tokio::test]
async fn an_answer_runs_on_unless_it_is_asked_to_end() {
    let case = Case::new(|builder| builder);
    let mut body = case.ask("/v1/messages", EVENTS, &["a", "b"], json!({})).await;
    case.clock.advance(Duration::from_secs(3600));
    assert_eq!(next(&mut body).await, "a");
    assert_eq!(next(&mut body).await, "b");
}

/// hyper writes a `Content-Length` from the exact hint, and asks no more once the body is at its end.
#[tokio::test]
async fn an_answer_that_is_whole_keeps_its_length_and_its_end() {
    let case = Case::ending();
    let service = case.layer.layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"whole"))))
    }));
    let token = case.key.token(&claims(json!({})));
    let request = Request::post("/v1/messages").header("authorization", format!("Bearer {token}"));
    let mut body = service.oneshot(request.body(()).unwrap()).await.unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(5));
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "whole");
    assert!(body.is_end_stream());
    case.clock.advance(Duration::from_secs(3600));
    assert!(body.frame().await.is_none(), "a whole answer has no error after it");
}

//! A guarded service: what reaches it, and what comes back.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use palisade::{
    body::RequestBody,
    inference::Segment,
    prompt_guard::{Category, Detector, Finding, PromptGuardLayer, Views},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

/// Finds a word, as it is written.
#[derive(Debug)]
pub struct Word(pub &'static str);

impl Detector for Word {
    fn name(&self) -> &'static str {
        "word"
    }

    fn scan(&self, segment: &Segment<'_>, _: &Views<'_>, findings: &mut Vec<Finding>) {
        findings.extend(segment.text.match_indices(self.0).map(|(at, word)| {
            Finding::new("x.word", Category::Custom, 1.0, segment.index, Some(at..at + word.len()))
        }));
    }
}

/// Endpoints, with a request to each that every guard lets pass.
pub const PATHS: [(&str, &str); 4] = [
    ("/v1/chat/completions", r#"{"messages":[{"role":"user","content":"x"}]}"#),
    ("/v1/messages", r#"{"messages":[{"role":"user","content":"x"}]}"#),
    ("/v1/responses", r#"{"input":"x"}"#),
    ("/generate", r#"{"inputs":"x"}"#),
];

/// What of a request's body reaches the service: `None` if it is refused.
pub fn forwarded(guard: &PromptGuardLayer, path: &str, body: &Bytes) -> Option<Bytes> {
    let arrived = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&arrived);
    let service = guard.layer(service_fn(move |request: Request<RequestBody<Full<Bytes>>>| {
        let seen = Arc::clone(&seen);
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            *seen.lock().unwrap() = Some(body);
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
        }
    }));
    let request = Request::post(path).body(Full::new(body.clone())).unwrap();
    service.oneshot(request).now_or_never().expect("nothing waits").unwrap();
    let mut arrived = arrived.lock().unwrap();
    arrived.take()
}

/// What comes back of an answer that the service gives in pieces of `size` bytes.
pub fn answered(
    guard: &PromptGuardLayer,
    path: usize,
    content_type: &'static str,
    answer: &Bytes,
    size: usize,
) -> (StatusCode, Bytes) {
    let (path, body) = PATHS[path % PATHS.len()];
    let answer = answer.clone();
    let service = guard.layer(service_fn(move |_: Request<_>| {
        let pieces: Vec<_> = answer.chunks(size).map(|piece| answer.slice_ref(piece)).collect();
        let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let answer = Response::builder().header("content-type", content_type).body(body);
        async { Ok::<_, Infallible>(answer.unwrap()) }
    }));
    let request = Request::post(path).body(Full::from(body)).unwrap();
    async {
        let (head, body) = service.oneshot(request).await.unwrap().into_parts();
        (head.status, body.collect().await.unwrap().to_bytes())
    }
    .now_or_never()
    .expect("nothing waits")
}

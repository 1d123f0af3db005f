//! Detectors, meters, bodies and inner services to guard.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, request};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use palisade::{
    BoxError, Rejection, UsageMeter,
    body::{RequestBody, ResponseBody},
    future::ReadyOr,
    inference::{Prompt, Segment},
    prompt_guard::{
        AsyncDetector, Category, Detector, Finding, PromptGuardLayer, PromptGuardLayerBuilder,
        ScannedBody, Views,
    },
    reservation::{Meter, Observed, Refined, TokenUsage},
};
use serde_json::Value;
use tower::{Layer, Service, ServiceExt, service_fn};

pub(crate) type AnyBody = UnsyncBoxBody<Bytes, BoxError>;
pub(crate) type Answer = Response<ResponseBody<ScannedBody<AnyBody>>>;

pub(crate) const CHAT: &str = "/v1/chat/completions";

/// A chat request that says `text`.
pub(crate) fn chat(text: &str) -> String {
    serde_json::json!({"messages": [{"role": "user", "content": text}]}).to_string()
}

pub(crate) fn post(path: &str, body: impl Into<Bytes>) -> Request<AnyBody> {
    Request::post(path).body(full(body)).unwrap()
}

pub(crate) fn full(body: impl Into<Bytes>) -> AnyBody {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn frames(frames: Vec<Result<Frame<Bytes>, BoxError>>) -> AnyBody {
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

pub(crate) fn data(bytes: &'static str) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::from_static(bytes.as_bytes())))
}

pub(crate) fn trailers(name: &'static str, value: &'static str) -> Result<Frame<Bytes>, BoxError> {
    let trailers = HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
    Ok(Frame::trailers(trailers))
}

/// The frames, then nothing more and no end.
pub(crate) fn stalled(frames: Vec<Result<Frame<Bytes>, BoxError>>) -> AnyBody {
    use futures_util::StreamExt;
    let stream = futures_util::stream::iter(frames).chain(futures_util::stream::pending());
    StreamBody::new(stream).boxed_unsync()
}

/// Whether something was dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dropped(Arc<AtomicBool>);

pub(crate) struct DropGuard(Arc<AtomicBool>);

impl Dropped {
    pub(crate) fn guard(&self) -> DropGuard {
        DropGuard(Arc::clone(&self.0))
    }

    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// A body that tells of its end.
    pub(crate) fn body(&self, inner: AnyBody) -> AnyBody {
        Watched { inner, _guard: self.guard() }.boxed_unsync()
    }
}

impl Drop for DropGuard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Watched {
    inner: AnyBody,
    _guard: DropGuard,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

/// What reached the inner service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inner(Arc<Mutex<Vec<Arrived>>>);

#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) head: request::Parts,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Inner {
    /// A service that keeps what it is asked and answers as it is told.
    pub(crate) fn answering<F>(
        &self,
        answer: F,
    ) -> impl Service<
        Request<RequestBody<AnyBody>>,
        Response = Response<AnyBody>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + use<F>
    where
        F: Fn() -> Response<AnyBody> + Clone + Send + 'static,
    {
        let arrived = Arc::clone(&self.0);
        service_fn(move |request: Request<RequestBody<AnyBody>>| {
            let (arrived, answer) = (Arc::clone(&arrived), answer.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap();
                let trailers = body.trailers().cloned();
                let body = body.to_bytes();
                arrived.lock().unwrap().push(Arrived { head, body, trailers });
                Ok(answer())
            }
        })
    }

    /// The one request that arrived.
    pub(crate) fn only(&self) -> Arrived {
        let mut arrived = self.0.lock().unwrap();
        assert_eq!(arrived.len(), 1);
        arrived.pop().unwrap()
    }

    pub(crate) fn saw_nothing(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

pub(crate) fn guard() -> PromptGuardLayerBuilder {
    PromptGuardLayer::builder()
}

/// Asks a guarded service that answers `ok`.
pub(crate) async fn ask(
    guard: PromptGuardLayerBuilder,
    request: Request<AnyBody>,
) -> (Answer, Inner) {
    exchanged(guard, request, || Response::new(full("ok"))).await
}

/// Asks a guarded service that answers so.
pub(crate) async fn answered<F>(guard: PromptGuardLayerBuilder, path: &str, answer: F) -> Answer
where
    F: Fn() -> Response<AnyBody> + Clone + Send + 'static,
{
    let body = match path {
        "/generate" => r#"{"inputs":"hi"}"#.to_owned(),
        "/v1/responses" => r#"{"input":"hi"}"#.to_owned(),
        _ => chat("hi"),
    };
    exchanged(guard, post(path, body), answer).await.0
}

/// Asks a guarded service that answers so.
pub(crate) async fn exchanged<F>(
    guard: PromptGuardLayerBuilder,
    request: Request<AnyBody>,
    answer: F,
) -> (Answer, Inner)
where
    F: Fn() -> Response<AnyBody> + Clone + Send + 'static,
{
    let inner = Inner::default();
    let service = guard.build().unwrap().layer(inner.answering(answer));
    (service.oneshot(request).await.unwrap(), inner)
}

pub(crate) async fn text(answer: Answer) -> String {
    let limit = std::time::Duration::from_secs(10);
    let body = tokio::time::timeout(limit, answer.into_body().collect()).await;
    let body = body.expect("the answer does not end").unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

pub(crate) async fn json(answer: Answer) -> Value {
    serde_json::from_str(&text(answer).await).unwrap()
}

/// The refusal in an answer's extensions: its code and status.
pub(crate) fn refusal(answer: &Answer) -> (&'static str, u16) {
    let rejection = answer.extensions().get::<Rejection>().expect("it passed");
    (rejection.code(), answer.status().as_u16())
}

/// Finds a word.
#[derive(Clone, Debug)]
pub(crate) struct Word(&'static str, &'static str, Category);

impl Detector for Word {
    fn name(&self) -> &'static str {
        "word"
    }

    fn scan(&self, segment: &Segment<'_>, _: &Views<'_>, findings: &mut Vec<Finding>) {
        for (at, word) in segment.text.match_indices(self.0) {
            let span = Some(at..at + word.len());
            findings.push(Finding::new(self.1, self.2, 0.9, segment.index, span));
        }
    }
}

pub(crate) const EVIL: Word = Word("evil", "injection.evil", Category::Injection);
pub(crate) const NUMBER: Word = Word("41111111", "personal_data.card", Category::PersonalData);
pub(crate) const KEY: Word = Word("k-123", "secret.key", Category::Secret);
pub(crate) const QUOTED: Word =
    Word("\"a\\b\"@b.example", "personal_data.email", Category::PersonalData);
pub(crate) const MAIL: Word = Word("a@b.example", "personal_data.email", Category::PersonalData);

#[derive(Debug)]
pub(crate) struct Panics;

impl Detector for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }

    fn scan(&self, _: &Segment<'_>, _: &Views<'_>, _: &mut Vec<Finding>) {
        panic!("a bug")
    }
}

/// Answers by what the function makes.
pub(crate) struct Remote<F>(pub(crate) F);

impl<F> std::fmt::Debug for Remote<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remote")
    }
}

pub(crate) type Told = ReadyOr<Result<Vec<Finding>, BoxError>>;

impl<F> AsyncDetector for Remote<F>
where
    F: Fn(Arc<Prompt>) -> Told + Send + Sync + 'static,
{
    fn name(&self) -> &'static str {
        "remote"
    }

    fn scan(&self, prompt: &Arc<Prompt>) -> Told {
        (self.0)(Arc::clone(prompt))
    }
}

/// Keeps waiting until it is dropped.
pub(crate) async fn never<T>(guard: DropGuard) -> T {
    let _guard = guard;
    std::future::pending().await
}

/// A meter that keeps what it is told.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) refined: Mutex<Vec<TokenUsage>>,
    pub(crate) observed: Mutex<Vec<Observed>>,
    pub(crate) refuses: Option<Rejection>,
    pub(crate) waits: Option<Dropped>,
}

impl Kept {
    pub(crate) fn on(self: &Arc<Self>, request: &mut Request<AnyBody>) {
        let meter: Arc<dyn Meter> = Arc::clone(self) as _;
        request.extensions_mut().insert(UsageMeter::new(meter));
    }
}

impl Meter for Kept {
    fn charge(&self, _: u64) {}

    fn report(&self, _: TokenUsage) {}

    fn observe(&self, observed: Observed) {
        self.observed.lock().unwrap().push(observed);
    }

    fn remaining(&self) -> Option<u64> {
        None
    }

    fn granted_output_tokens(&self) -> Option<u64> {
        None
    }

    fn refine(self: Arc<Self>, _: Option<&str>, estimate: TokenUsage) -> Refined {
        self.refined.lock().unwrap().push(estimate);
        if let Some(waits) = &self.waits {
            return ReadyOr::pending(never(waits.guard()));
        }
        ReadyOr::ready(self.refuses.clone().map_or(Ok(()), Err))
    }
}

/// Polls once and expects it to wait.
pub(crate) fn starts<F: Future>(mut future: Pin<&mut F>) {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(future.as_mut().poll(&mut cx).is_pending());
}

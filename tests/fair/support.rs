//! An engine whose every answer the test holds in its hands, behind fair admission on tokio's paused time.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Extensions, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use palisade::{
    BoxError, Identity,
    clock::Clock,
    identity::UserIdentity,
    rate_limit::{
        TieredRateLimit,
        fair::{
            Capacity, FairAdmission, FairAdmissionBuilder, FairAdmissionLayer, Share, TierSnapshot,
        },
    },
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tower::{Layer, Service};

/// Tokio's time, which tests pause.
#[derive(Debug)]
pub(crate) struct TokioClock(tokio::time::Instant);

impl TokioClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(tokio::time::Instant::now()))
    }
}

impl Clock for TokioClock {
    fn unix(&self) -> Duration {
        self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// So many slots: half of them are the enterprise tier's, half the free one's. Nothing is kept back.
pub(crate) fn capacity(slots: usize) -> FairAdmissionBuilder {
    shared(Capacity::slots(slots), Share::percent(50))
}

/// With that share for the free tier.
pub(crate) fn shared(capacity: Capacity, free: Share) -> FairAdmissionBuilder {
    FairAdmission::builder()
        .capacity(capacity)
        .tier("enterprise", Share::percent(50))
        .tier("free", free)
        .headroom(palisade::rate_limit::fair::Headroom::slots(0))
        .clock(TokioClock::new())
}

pub(crate) fn layer(fair: &FairAdmission) -> FairAdmissionLayer {
    FairAdmissionLayer::builder(fair).fallback_tier("free").build().unwrap()
}

/// The engine behind the layer.
pub(crate) fn behind(fair: &FairAdmission) -> (TieredRateLimit<Engine>, Engine) {
    let engine = Engine::default();
    (layer(fair).layer(engine.clone()), engine)
}

/// A chat request of this caller, of the tier before the slash: `free/alice`.
pub(crate) fn request(who: &str) -> Request<Unread> {
    request_to("/v1/chat/completions", who)
}

pub(crate) fn request_to(path: &str, who: &str) -> Request<Unread> {
    let (tier, subject) = who.split_once('/').unwrap();
    let user = UserIdentity::asserted("https://login.example", subject)
        .with_claims(&format!(r#"{{"tier":"{tier}"}}"#));
    let mut request = Request::post(path).body(Unread).unwrap();
    request.extensions_mut().insert(Identity::asserted(user));
    request
}

/// One that has a prompt of so many tokens.
pub(crate) fn prompt(who: &str, tokens: u64) -> Request<Unread> {
    let mut request = request(who);
    request.headers_mut().insert("content-length", (tokens * 4).into());
    request
}

/// A body that nobody may ask for.
#[derive(Debug)]
pub(crate) struct Unread;

impl Body for Unread {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("the body was read");
    }
}

/// Begins to answer whatever comes, and goes on as the test says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Engine {
    begun: Arc<Mutex<Vec<Stream>>>,
    pub(crate) alive: Arc<AtomicUsize>,
    pub(crate) most: Arc<AtomicUsize>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) who: String,
    pub(crate) extensions: Extensions,
    frames: UnboundedSender<Bytes>,
}

impl Stream {
    pub(crate) fn send(&self, data: &'static str) {
        let _ = self.frames.send(Bytes::from_static(data.as_bytes()));
    }
}

impl Engine {
    /// Who is being answered, in the order in which they came.
    pub(crate) fn running(&self) -> Vec<String> {
        self.begun.lock().unwrap().iter().map(|stream| stream.who.clone()).collect()
    }

    /// Takes out the answer to this caller; dropped, it ends.
    pub(crate) fn take(&self, who: &str) -> Stream {
        let mut begun = self.begun.lock().unwrap();
        let at = begun.iter().position(|stream| stream.who == who).expect("he is not served");
        begun.remove(at)
    }
}

impl<B> Service<Request<B>> for Engine {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Answer>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let identity = Identity::of(request.extensions()).unwrap();
        let who = identity.user().unwrap().subject().to_owned();
        let (frames, receiver) = unbounded_channel();
        let alive = self.alive.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(alive, Ordering::SeqCst);
        let extensions = request.extensions().clone();
        self.begun.lock().unwrap().push(Stream { who, extensions, frames });
        let mut response =
            Response::new(Answer { frames: receiver, alive: Arc::clone(&self.alive) });
        let event_stream = "text/event-stream".parse().unwrap();
        response.headers_mut().insert("content-type", event_stream);
        ready(Ok(response))
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    frames: UnboundedReceiver<Bytes>,
    alive: Arc<AtomicUsize>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.frames.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) fn tier(fair: &FairAdmission, name: &str) -> TierSnapshot {
    fair.snapshot().tiers.into_iter().find(|tier| &*tier.name == name).unwrap()
}

/// Nobody runs, nobody waits, and nothing is held.
#[track_caller]
pub(crate) fn assert_idle(fair: &FairAdmission) {
    let snapshot = fair.snapshot();
    assert_eq!(
        (snapshot.in_use, snapshot.tokens_in_flight, snapshot.prefill_pending),
        (0, 0, 0),
        "{snapshot:?}"
    );
    for tier in &snapshot.tiers {
        assert_eq!((tier.in_use, tier.waiting, tier.waiting_bytes), (0, 0, 0), "{tier:?}");
    }
}

/// The whole of a body.
pub(crate) async fn text<B>(response: Response<B>) -> String
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// A request under way.
pub(crate) type Asked = tokio::task::JoinHandle<Response<AnswerBody>>;
pub(crate) type AnswerBody = <TieredRateLimit<Engine> as Answers>::Body;

/// The body that a service answers with.
pub(crate) trait Answers {
    type Body;
}

impl<S: Service<Request<Unread>, Response = Response<B>>, B> Answers for S {
    type Body = B;
}

/// Sends a request, and lets all go as far as it goes by itself.
pub(crate) async fn ask(service: &TieredRateLimit<Engine>, request: Request<Unread>) -> Asked {
    let mut service = service.clone();
    let asked = tokio::spawn(async move { service.call(request).await.unwrap() });
    go_on().await;
    asked
}

/// Lets all go as far as it goes by itself, without a step in time.
pub(crate) async fn go_on() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// The answer of a request that is not waiting.
pub(crate) async fn now(asked: Asked) -> Response<AnswerBody> {
    assert!(asked.is_finished(), "it waits");
    asked.await.unwrap()
}

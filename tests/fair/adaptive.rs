//! What is lent goes by how fast the engine is.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    ops::RangeInclusive,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use palisade::rate_limit::{
    TieredRateLimit,
    fair::{
        Adaptive, AdaptiveSnapshot, Capacity, FairAdmission, FairAdmissionBuilder, Headroom, Share,
        YieldSignal,
    },
};
use tokio::time::{Sleep, sleep};
use tower::{Layer, Service};

use crate::support::{TokioClock, ask, assert_idle, behind, go_on, layer, now, request};

const MS: Duration = Duration::from_millis(1);
const SLOTS: u64 = 32;

/// An engine that is slower the more it does: a token takes so many milliseconds for each answer that runs.
#[derive(Clone, Debug)]
struct Batching {
    each: Arc<AtomicU32>,
    alive: Arc<AtomicUsize>,
    tokens: u32,
}

impl Batching {
    fn new(each: u32, tokens: u32) -> Self {
        Self { each: Arc::new(AtomicU32::new(each)), alive: Arc::default(), tokens }
    }
}

impl<B> Service<Request<B>> for Batching {
    type Response = Response<Tokens>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Tokens>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        self.alive.fetch_add(1, Ordering::SeqCst);
        let mut response = Response::new(Tokens { engine: self.clone(), next: None });
        let event_stream = "text/event-stream".parse().unwrap();
        response.headers_mut().insert("content-type", event_stream);
        ready(Ok(response))
    }
}

/// An answer, of which a token is made when it is asked for.
#[derive(Debug)]
struct Tokens {
    engine: Batching,
    next: Option<Pin<Box<Sleep>>>,
}

impl Body for Tokens {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.engine.tokens == 0 {
            return Poll::Ready(None);
        }
        let each = self.engine.each.load(Ordering::SeqCst);
        let gap = MS * each * self.engine.alive.load(Ordering::SeqCst) as u32;
        let next = self.next.get_or_insert_with(|| Box::pin(sleep(gap)));
        std::task::ready!(next.as_mut().poll(cx));
        self.next = None;
        self.engine.tokens -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(TOKEN.as_bytes())))))
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        self.engine.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

const TOKEN: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"so\"}}]}\n\n";

fn adapting(adaptive: Adaptive) -> FairAdmissionBuilder {
    FairAdmission::builder()
        .capacity(Capacity::slots(SLOTS as usize))
        .adaptive(adaptive)
        .tier("enterprise", Share::percent(50))
        .tier("free", Share::percent(10))
        .headroom(Headroom::slots(0))
        .clock(TokioClock::new())
}

fn adaptive(fair: &FairAdmission) -> AdaptiveSnapshot {
    fair.snapshot().adaptive.unwrap()
}

/// A caller who asks again whenever he is answered, a second later when he is refused, and is so slow to read.
fn caller(service: &TieredRateLimit<Batching>, slow: Duration) -> tokio::task::JoinHandle<()> {
    let mut service = service.clone();
    tokio::spawn(async move {
        loop {
            let answer = service.call(request("free/alice")).await.unwrap();
            if answer.status() == 503 {
                sleep(Duration::from_secs(1)).await;
                continue;
            }
            let mut answer = answer.into_body();
            while let Some(frame) = answer.frame().await {
                frame.unwrap();
                if !slow.is_zero() {
                    sleep(slow).await;
                }
            }
        }
    })
}

/// Where the limit is in each of the next 20 seconds.
async fn assert_stays(fair: &FairAdmission, range: RangeInclusive<u64>) {
    for _ in 0..20 {
        sleep(Duration::from_secs(1)).await;
        let adaptive = adaptive(fair);
        assert!(range.contains(&adaptive.limit), "{adaptive:?}");
    }
}

/// A millisecond for each that runs: ten of them take ten milliseconds.
#[tokio::test(start_paused = true)]
async fn what_is_lent_comes_down_from_all_and_up_from_nothing_to_where_the_engine_is_fast_enough() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let told = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let fair = adapting(Adaptive::per_token(10 * MS)).build().unwrap();
    let engine = Batching::new(1, 50);
    let service = layer(&fair).layer(engine.clone());
    assert_eq!(adaptive(&fair).limit, SLOTS);
    let callers: Vec<_> = (0..SLOTS + 8).map(|_| caller(&service, Duration::ZERO)).collect();
    sleep(Duration::from_secs(20)).await;
    assert_stays(&fair, 6..=14).await;
    assert_eq!(adaptive(&fair).oversold, 0);

    // A hundred times slower, it is too slow for the share alone.
    engine.each.store(100, Ordering::SeqCst);
    sleep(Duration::from_secs(60)).await;
    let slow = adaptive(&fair);
    assert!(slow.limit == 0 && slow.oversold > 0, "{slow:?}");
    let free = fair.snapshot().tiers.into_iter().find(|tier| &*tier.name == "free").unwrap();
    assert_eq!((free.guaranteed, free.in_use), (3, 3));
    let told = told.render();
    assert!(told.lines().any(|line| line == "palisade_fair_borrow_limit 0"), "{told}");
    let oversold = format!("palisade_fair_oversold_total {}", slow.oversold);
    assert!(told.lines().any(|line| line == oversold), "{told}");
    // An owner is let in all the same.
    let mut owner = service.clone();
    let owned = tokio::time::timeout(MS, owner.call(request("enterprise/bob"))).await;
    assert_eq!(owned.unwrap().unwrap().status(), 200);

    engine.each.store(1, Ordering::SeqCst);
    sleep(Duration::from_secs(40)).await;
    assert_stays(&fair, 6..=14).await;
    for caller in callers {
        caller.abort();
        let _ = caller.await;
    }
    assert_idle(&fair);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_is_not_raised() {
    let fair = adapting(Adaptive::per_token(10 * MS)).build().unwrap();
    let engine = Batching::new(100, 50);
    let service = layer(&fair).layer(engine.clone());
    let caller = caller(&service, Duration::ZERO);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(adaptive(&fair).limit, 0);
    engine.each.store(1, Ordering::SeqCst);
    sleep(Duration::from_secs(60)).await;
    assert_eq!((adaptive(&fair).limit, adaptive(&fair).per_token), (0, Some(MS)));
    caller.abort();
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_does_not_move_it() {
    let fair = adapting(Adaptive::per_token(10 * MS)).build().unwrap();
    // Five that run, one of whom reads as fast as the engine answers.
    let service = layer(&fair).layer(Batching::new(1, 50));
    let slow: Vec<_> = (0..4).map(|_| caller(&service, 300 * MS)).collect();
    let quick = caller(&service, Duration::ZERO);
    sleep(Duration::from_secs(60)).await;
    let adaptive = adaptive(&fair);
    assert_eq!(adaptive.limit, SLOTS);
    let per_token = adaptive.per_token.unwrap();
    assert!(per_token <= 5 * MS && per_token >= 3 * MS, "{adaptive:?}");
    slow.into_iter().chain([quick]).for_each(|caller| caller.abort());
}

#[tokio::test(start_paused = true)]
async fn a_target_is_found_at_low_load() {
    let fair = adapting(Adaptive::automatic()).build().unwrap();
    let service = layer(&fair).layer(Batching::new(1, 50));
    let mut callers: Vec<_> = (0..8).map(|_| caller(&service, Duration::ZERO)).collect();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(adaptive(&fair).target, None);
    sleep(Duration::from_secs(15)).await;
    assert_eq!(adaptive(&fair).target, Some(12 * MS));
    callers.extend((0..SLOTS).map(|_| caller(&service, Duration::ZERO)));
    sleep(Duration::from_secs(20)).await;
    assert_stays(&fair, 8..=16).await;
    callers.into_iter().for_each(|caller| caller.abort());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_parked_is_not_timed_meanwhile() {
    let fair = crate::support::capacity(2)
        .adaptive(Adaptive::per_token(10 * MS))
        .engine_yields()
        .build()
        .unwrap();
    let (service, engine) = behind(&fair);
    let first = now(ask(&service, request("free/a")).await).await;
    let second = now(ask(&service, request("free/b")).await).await;
    let read = [first, second].map(|answer| tokio::spawn(answer.into_body().collect()));
    // Both have begun to be answered, so the newest of them is parked.
    let (other, stream) = (engine.take("a"), engine.take("b"));
    other.send(TOKEN);
    go_on().await;
    let tokens = async |count: u32| {
        for _ in 0..count {
            sleep(5 * MS).await;
            stream.send(TOKEN);
            go_on().await;
        }
    };
    tokens(300).await;
    let owner = ask(&service, request("enterprise/c")).await;
    let signal = YieldSignal::of(&stream.extensions).unwrap().clone();
    assert!(signal.is_requested());
    let parked = tokio::spawn(async move { signal.parked().await });
    go_on().await;
    let owner = now(owner).await;
    sleep(Duration::from_secs(60)).await;
    drop((engine.take("c"), owner));
    assert!(parked.await.unwrap());
    tokens(300).await;
    let adaptive = adaptive(&fair);
    assert_eq!((adaptive.limit, adaptive.per_token), (2, Some(5 * MS)));
    drop((stream, other));
    for read in read {
        read.await.unwrap().unwrap();
    }
    assert_idle(&fair);
}

#[tokio::test(start_paused = true)]
async fn where_it_is_not_asked_for_nothing_is_adapted() {
    let fair = crate::support::capacity(2).build().unwrap();
    assert!(fair.snapshot().adaptive.is_none());
}

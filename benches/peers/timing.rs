//! How services are asked, and how long they take.
#![allow(dead_code)] // Each benchmark uses a part of it.

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::Full;
use jsonwebtoken::Algorithm;
use tower::Service;

/// Answers at once.
#[derive(Clone)]
pub(crate) struct Bare;

impl<B> Service<Request<B>> for Bare {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        std::future::ready(Ok(Response::new(Body::empty())))
    }
}

/// What is sent, and what is answered.
#[derive(Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) what: &'static str,
    pub(crate) algorithm: Algorithm,
    /// Sent in turn, over and over, whichever thread it is.
    pub(crate) tokens: &'a [HeaderValue],
    pub(crate) status: StatusCode,
    /// Each sends as many requests as one alone would.
    pub(crate) threads: usize,
}

/// Does something so many times. How long that took.
pub(crate) type Repeat<'a> = Box<dyn FnMut(usize) -> Duration + 'a>;

impl<'a> Case<'a> {
    pub(crate) fn name(&self) -> String {
        let Self { what, algorithm, threads, .. } = self;
        format!("{what}, {algorithm:?}, {threads} thread{}", if *threads == 1 { "" } else { "s" })
    }

    /// Sends so many requests from each thread.
    pub(crate) fn through<S, R>(self, service: &'a S) -> Repeat<'a>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<R>, Error = Infallible>,
        S: Clone + Send + Sync,
    {
        let sent = AtomicUsize::new(0);
        Box::new(move |requests| {
            let waiting = AtomicUsize::new(self.threads);
            let one = || self.send(service, &sent, requests, &waiting);
            if self.threads == 1 {
                let (began, ended) = one();
                return ended - began;
            }
            let times: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = (0..self.threads).map(|_| scope.spawn(one)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let began = times.iter().map(|(began, _)| began).min().unwrap();
            let ended = times.iter().map(|(_, ended)| ended).max().unwrap();
            *ended - *began
        })
    }

    /// When it began and ended. The requests are built before, and some more are sent, for a thread is
    /// new and its allocator cold; then the threads begin together.
    fn send<S, R>(
        &self,
        service: &S,
        sent: &AtomicUsize,
        requests: usize,
        waiting: &AtomicUsize,
    ) -> (Instant, Instant)
    where
        S: Service<Request<Full<Bytes>>, Response = Response<R>, Error = Infallible> + Clone,
    {
        let mut service = service.clone();
        let first = sent.fetch_add(WARM_UP + requests, Ordering::Relaxed);
        let (warm, last) = (first + WARM_UP, first + WARM_UP + requests);
        let requests: Vec<_> = (warm..last).map(|turn| self.request(turn)).collect();
        let mut send = |request| {
            assert_eq!(ask(&mut service, request), self.status, "{}", self.name());
        };
        (first..warm).map(|turn| self.request(turn)).for_each(&mut send);
        waiting.fetch_sub(1, Ordering::AcqRel);
        while waiting.load(Ordering::Acquire) > 0 {
            std::hint::spin_loop();
        }
        let began = Instant::now();
        requests.into_iter().for_each(send);
        (began, Instant::now())
    }

    fn request(&self, turn: usize) -> Request<Full<Bytes>> {
        let token = &self.tokens[turn % self.tokens.len()];
        let request = Request::post("/generate").header(AUTHORIZATION, token.clone());
        request.body(Full::default()).unwrap()
    }
}

/// Sends requests that are built before.
pub(crate) fn through<'a, S, R>(service: &S, request: fn() -> Request<Full<Bytes>>) -> Repeat<'a>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>, Error = Infallible> + Clone + 'a,
{
    let mut service = service.clone();
    Box::new(move |times| {
        let requests: Vec<_> = (0..times).map(|_| request()).collect();
        let began = Instant::now();
        for request in requests {
            assert_eq!(ask(&mut service, request), StatusCode::OK);
        }
        began.elapsed()
    })
}

/// How long each takes for one of what it repeats, where what it needs is built in advance.
pub(crate) fn compare<const N: usize>(all: [Repeat<'_>; N]) -> [Duration; N] {
    compare_in_turns(all, BURST)
}

/// How long each takes for one of what it repeats. They take turns of a millisecond, or of as many as are the `most`, so that
/// whatever else the machine does meets them alike; of all turns the lowest decile counts, which leaves out those that were
/// interrupted.
pub(crate) fn compare_in_turns<const N: usize>(
    mut all: [Repeat<'_>; N],
    most: usize,
) -> [Duration; N] {
    let counts = all.each_mut().map(|repeat| {
        let quickest = (0..TURNS / 10).map(|_| repeat(WARM_UP)).min().unwrap();
        let one = quickest.as_secs_f64() / WARM_UP as f64;
        ((TURN.as_secs_f64() / one) as usize).clamp(1, most)
    });
    let mut turns = [(); N].map(|()| Vec::with_capacity(TURNS));
    for _ in 0..TURNS {
        for ((repeat, count), turns) in all.iter_mut().zip(counts).zip(&mut turns) {
            turns.push(repeat(count));
        }
    }
    let mut counts = counts.into_iter();
    turns.map(|mut turns| {
        turns.sort_unstable();
        turns[TURNS / 10].div_f64(counts.next().unwrap() as f64)
    })
}

/// What a future is that waits for nothing.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(output) = pin!(future).poll(&mut cx) else { panic!("it waits") };
    output
}

pub(crate) fn ask<S, R>(service: &mut S, request: Request<Full<Bytes>>) -> StatusCode
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>, Error = Infallible>,
{
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let Ok(response) = now(service.call(request));
    response.status()
}

const WARM_UP: usize = 8;
const TURN: Duration = Duration::from_millis(1);
const TURNS: usize = 300;
/// So many requests that are built in advance stay in the processor's cache.
pub(crate) const BURST: usize = 256;

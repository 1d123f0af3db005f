//! What each layer adds to a request, alone and together, beside the bare service in the same run.
//!
//! `cargo bench --all-features --bench layers`. The inner service answers at once, so what is left
//! after the bare service's time is the layers' own.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

use std::{
    convert::Infallible,
    future::Future,
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use palisade::{
    Identity, Stack,
    identity::UserIdentity,
    prompt_guard::{Action, InjectionRules, PersonalData, PromptGuardLayer, Secrets},
    rate_limit::{Tier, TieredRateLimitLayer},
    store::Stores,
};
use tower::{Layer, Service};

#[path = "../tests/support/credentials.rs"]
mod credentials;

use credentials::Credentials;

/// 560 characters of an ordinary prompt, about the mean of what people send.
const PROMPT: &str = "The keeper of a lighthouse writes down the weather four times a day, and he \
    has done so for thirty years. Please read the following notes and tell me in three short \
    sentences how the winters have changed, whether storms come earlier than they did, and what \
    you would ask him next. In the first years the wind came mostly from the north and the fog \
    stayed until noon; later the fog went, and the rain began to fall harder and for a shorter \
    time. The summers he calls quiet, but for one, when the lamp had to be lit at midday. Write it \
    so that a child of ten would like to read it.";

#[derive(Clone)]
struct Bare;

impl<B> Service<Request<B>> for Bare {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Full<Bytes>>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        std::future::ready(Ok(Response::new(Full::from("x"))))
    }
}

fn ask<S, R>(service: &mut S, request: Request<Full<Bytes>>)
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>, Error = Infallible>,
    R: Body<Data = Bytes>,
{
    let mut cx = Context::from_waker(Waker::noop());
    let mut future = pin!(service.call(request));
    let Poll::Ready(Ok(response)) = future.as_mut().poll(&mut cx) else { panic!("it waits") };
    assert_eq!(response.status(), 200);
    let mut body = pin!(response.into_body());
    while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut cx) {
        black_box(frame.is_ok());
    }
}

struct Rig {
    credentials: Credentials,
    token: String,
    body: Bytes,
}

impl Rig {
    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::post("/generate")
            .header("authorization", &self.token)
            .header("content-length", self.body.len())
            .body(Full::new(self.body.clone()))
            .unwrap();
        request.extensions_mut().insert(self.credentials.peer());
        // For a layer that is measured without the one that would write it.
        request.extensions_mut().insert(Identity::asserted(
            UserIdentity::asserted("https://login.example", "alice")
                .with_claims(r#"{"tier":"free"}"#),
        ));
        request
    }

    fn measure<S, R>(&self, group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut service: S)
    where
        S: Service<Request<Full<Bytes>>, Response = Response<R>, Error = Infallible>,
        R: Body<Data = Bytes>,
    {
        let make = || self.request();
        group.bench_function(name, |bencher| {
            bencher.iter_batched(make, |request| ask(&mut service, request), BatchSize::SmallInput);
        });
    }
}

fn limits(headers: bool) -> TieredRateLimitLayer {
    let tier = Tier::new()
        .requests_per_second(100_000_000)
        .requests_per_minute(1_000_000_000)
        .tokens_per_minute(1_000_000_000_000)
        .tokens_per_day(1_000_000_000_000_000)
        .concurrent_requests(100);
    let builder = TieredRateLimitLayer::builder(&Stores::in_memory()).tier("free", tier);
    let builder = if headers { builder } else { builder.without_headers() };
    builder.build().unwrap()
}

fn layers(criterion: &mut Criterion) {
    let credentials = Credentials::new();
    let rig = Rig {
        token: format!("Bearer {}", credentials.token("alice", "free")),
        body: Bytes::from(serde_json::json!({"prompt": PROMPT, "max_tokens": 100}).to_string()),
        credentials,
    };
    let reading = PromptGuardLayer::builder().build().unwrap();
    let guard = PromptGuardLayer::builder()
        .detector(InjectionRules::builtin().unwrap(), Action::Block)
        .detector(Secrets::builtin().unwrap(), Action::Redact)
        .detector(PersonalData::builder().build().unwrap(), Action::Redact)
        .build()
        .unwrap();
    let (peer, jwt) = (rig.credentials.peer_cert(), rig.credentials.jwt());

    let mut group = criterion.benchmark_group("a request through");
    rig.measure(&mut group, "the bare service", Bare);
    rig.measure(&mut group, "PeerCertLayer, warm connection", peer.layer(Bare));
    rig.measure(&mut group, "JwtAuthLayer, cached token", jwt.layer(Bare));
    rig.measure(&mut group, "TieredRateLimitLayer, five limits", limits(false).layer(Bare));
    rig.measure(&mut group, "TieredRateLimitLayer, with headers", limits(true).layer(Bare));
    rig.measure(&mut group, "PromptGuardLayer, no detector", reading.layer(Bare));
    rig.measure(&mut group, "PromptGuardLayer, all detectors", guard.layer(Bare));
    let stack = Stack::new().peer_cert(peer).jwt(jwt).rate_limit(limits(true)).prompt_guard(guard);
    rig.measure(&mut group, "the stack", stack.layer(Bare));
    group.finish();
}

criterion_group!(benches, layers);
criterion_main!(benches);

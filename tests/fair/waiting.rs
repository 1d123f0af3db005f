//! For how long a request waits, and what it holds meanwhile: no more than its place.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use palisade::rate_limit::fair::{Capacity, FairAdmission, Share};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::{Layer, Service, ServiceBuilder, ServiceExt as _};

use crate::{
    refusals::code_of,
    support::{
        TokioClock, Unread, ask, assert_idle, behind, capacity, go_on, layer, now, prompt, request,
        shared, tier,
    },
};

const SECOND: Duration = Duration::from_secs(1);

/// One slot, which somebody has.
fn one(free: Share) -> FairAdmission {
    let fair = FairAdmission::builder().capacity(Capacity::slots(1)).tier("free", free);
    fair.clock(TokioClock::new()).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_request_is_refused_when_it_has_waited_for_as_long_as_it_may() {
    // What it says, and after how long it is refused.
    for (header, expected) in [
        (None, 20_000),
        (Some(("x-request-timeout", "5")), 5_000),
        (Some(("x-request-timeout", "1500ms")), 1_500),
        (Some(("grpc-timeout", "3S")), 3_000),
        // Nobody waits for longer than his tier may, nor for ever because he can't be understood.
        (Some(("x-request-timeout", "9999")), 20_000),
        (Some(("grpc-timeout", "9H")), 20_000),
        (Some(("x-request-timeout", "soon")), 20_000),
    ] {
        let fair = one(Share::percent(100).max_wait(20 * SECOND));
        let (service, _engine) = behind(&fair);
        let _held = now(ask(&service, request("free/a")).await).await;
        let mut waits = request("free/b");
        if let Some((name, value)) = header {
            waits.headers_mut().insert(name, value.parse().unwrap());
        }
        let began = tokio::time::Instant::now();
        let refused = ask(&service, waits).await.await.unwrap();
        let waited = u64::try_from(began.elapsed().as_millis()).unwrap();
        assert!((expected..expected + 10).contains(&waited), "{header:?}: {waited}");
        assert_eq!((refused.status().as_u16(), code_of(&refused)), (503, "deadline"));
        assert_eq!(tier(&fair, "free").refused.deadline, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_served_in_time_is_refused_when_it_comes() {
    let fair = one(Share::percent(100));
    let (service, engine) = behind(&fair);
    let mut asked = VecDeque::new();
    for _ in 0..7 {
        asked.push_back(ask(&service, request("free/b")).await);
    }
    // Five seconds each: after some it is known how long a turn takes.
    for _ in 0..4 {
        tokio::time::advance(Duration::from_millis(4_900)).await;
        drop((engine.take("b"), asked.pop_front().unwrap().await.unwrap()));
        go_on().await;
    }
    assert_eq!(tier(&fair, "free").waiting, 2);
    let mut hurried = request("free/b");
    hurried.headers_mut().insert("x-request-timeout", "2".parse().unwrap());
    let refused = now(ask(&service, hurried).await).await;
    assert_eq!(code_of(&refused), "deadline");
    // And who does not wait at all is let in where there is room.
    let free = capacity(2).build().unwrap();
    let (service, _engine) = behind(&free);
    let mut hurried = request("free/a");
    hurried.headers_mut().insert("x-request-timeout", "0".parse().unwrap());
    assert_eq!(now(ask(&service, hurried).await).await.status(), 200);
}

/// Of a thousand that wait each is answered or refused in time, and the timers are only theirs.
#[tokio::test(start_paused = true)]
async fn a_thousand_are_served_or_refused_by_their_deadline() {
    let fair = FairAdmission::builder()
        .capacity(Capacity::slots(8))
        .tier("enterprise", Share::percent(50).max_wait(10 * SECOND))
        .tier("free", Share::percent(50).max_wait(5 * SECOND))
        .clock(TokioClock::new())
        .build()
        .unwrap();
    let served = Arc::new(AtomicUsize::new(0));
    let inner = tower::service_fn(|_: Request<Unread>| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("x")))
    });
    let service = layer(&fair).layer(inner);
    let tasks = (0..1000_u64).map(|n| {
        let (mut service, served) = (service.clone(), Arc::clone(&served));
        let (name, most) = if n % 4 == 0 { ("enterprise", 10) } else { ("free", 5) };
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(n % 97)).await;
            let began = tokio::time::Instant::now();
            let answer = service.call(request(&format!("{name}/{}", n % 50))).await.unwrap();
            let waited = began.elapsed();
            assert!(waited <= most * SECOND + Duration::from_millis(110), "{n}: {waited:?}");
            match answer.status().as_u16() {
                200 => drop(served.fetch_add(1, Ordering::SeqCst)),
                503 => assert_eq!(code_of(&answer), "deadline"),
                other => panic!("{other}"),
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    // Eight at a time for ten seconds at most, and for five at least.
    let served = served.load(Ordering::SeqCst);
    assert!((390..=810).contains(&served), "{served}");
    assert_idle(&fair);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_wait_are_bounded() {
    let fair = one(Share::percent(100).queue_bytes(100_000));
    let (service, _engine) = behind(&fair);
    let _held = now(ask(&service, request("free/a")).await).await;
    let first = ask(&service, prompt("free/a", 15_000)).await;
    let bytes = tier(&fair, "free").waiting_bytes;
    assert!((60_000..61_000).contains(&bytes), "{bytes}");
    assert_eq!(code_of(&now(ask(&service, prompt("free/a", 15_000)).await).await), "queue_full");
    // What the server won't have read does not count, and the headers do.
    let mut long = request("free/b");
    long.headers_mut().insert("x-long", "x".repeat(39_000).parse().unwrap());
    assert_eq!(code_of(&now(ask(&service, long).await).await), "queue_full");
    first.abort();
    go_on().await;
    assert_eq!(tier(&fair, "free").waiting_bytes, 0);
    let huge = one(Share::percent(100).queue_bytes(2 << 20));
    let (service, _engine) = behind(&huge);
    let _held = now(ask(&service, request("free/a")).await).await;
    let _waits = ask(&service, prompt("free/a", 1 << 30)).await;
    assert!((1 << 20..(1 << 20) + 1000).contains(&tier(&huge, "free").waiting_bytes));
}

/// A client that asks whether it may send its body is told when the request is let in, not before.
#[tokio::test]
async fn nobody_is_told_to_go_on_while_his_request_waits() {
    let fair = one(Share::percent(100));
    let (service, engine) = behind(&fair);
    let held = now(ask(&service, request("free/a")).await).await;
    let echo = tower::service_fn(|request: Request<hyper::body::Incoming>| async {
        let body = http_body_util::BodyExt::collect(request.into_body()).await?.to_bytes();
        Ok::<_, hyper::Error>(Response::new(Full::from(body)))
    });
    let identified = ServiceBuilder::new()
        .map_request(|mut request: Request<hyper::body::Incoming>| {
            let identity =
                crate::support::request("free/b").extensions().get::<palisade::Identity>().cloned();
            request.extensions_mut().insert(identity.unwrap());
            request
        })
        .layer(layer(&fair))
        .service(echo);
    let (server, mut client) = tokio::io::duplex(4096);
    let connection = tokio::spawn(async move {
        let service = hyper_util::service::TowerToHyperService::new(identified);
        let io = hyper_util::rt::TokioIo::new(server);
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    });
    let head =
        "POST /generate HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    while tier(&fair, "free").waiting == 0 {
        tokio::task::yield_now().await;
    }
    go_on().await;
    let mut answer = [0; 1024];
    let early = futures_util::FutureExt::now_or_never(client.read(&mut answer));
    assert!(early.is_none(), "told to go on: {early:?}");
    drop((engine.take("a"), held));
    let read = client.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 100"));
    client.write_all(b"ping").await.unwrap();
    let read = client.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{:?}", &answer[..read]);
    drop(client);
    connection.await.unwrap();
}

/// Panics when it is called unready.
#[derive(Debug, Default)]
struct Strict {
    ready: bool,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Service<Request<Unread>> for Strict {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Unread>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called unready");
        std::future::ready(Ok(Response::new(Full::from("ok"))))
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_holds_no_permit_within() {
    let fair = one(Share::percent(100));
    let (service, _engine) = behind(&fair);
    let held = now(ask(&service, request("free/a")).await).await;
    let inner = ServiceBuilder::new().concurrency_limit(1).service(Strict::default());
    let guarded = layer(&fair).layer(inner.clone());
    let waits: Vec<_> =
        (0..2).map(|_| tokio::spawn(guarded.clone().oneshot(request("free/b")))).collect();
    go_on().await;
    assert_eq!(tier(&fair, "free").waiting, 2);
    let other = futures_util::FutureExt::now_or_never(inner.oneshot(request("free/c")));
    assert_eq!(other.expect("the permit is held by who waits").unwrap().status(), 200);
    drop(held);
    for waited in waits {
        assert_eq!(waited.await.unwrap().unwrap().status(), 200);
    }
    assert_idle(&fair);
}

/// A waker may do anything, also look at the same capacity.
#[test]
fn whoever_is_woken_may_look_and_ask_at_once() {
    #[derive(Debug)]
    struct Looks(FairAdmission, AtomicUsize);
    impl Wake for Looks {
        fn wake(self: Arc<Self>) {
            assert_eq!(self.0.snapshot().in_use, 1);
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
    let fair = FairAdmission::builder()
        .capacity(Capacity::slots(1))
        .tier("free", Share::percent(100))
        .build()
        .unwrap();
    let (mut service, engine) = behind(&fair);
    let first = futures_util::FutureExt::now_or_never(service.call(request("free/a")));
    let first = first.unwrap().unwrap();
    let looks = Arc::new(Looks(fair.clone(), AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&looks));
    let mut second = Box::pin(service.call(request("free/b")));
    // Without a runtime there is no timer, and nothing else is missing.
    assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop((engine.take("a"), first));
    assert_eq!(looks.1.load(Ordering::SeqCst), 1);
    assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    drop(second);
    assert_idle(&fair);
}

/// What one tier wants by the million does not keep another's from its own.
#[tokio::test(start_paused = true)]
async fn a_full_queue_is_full_for_its_own_tier_alone() {
    let fair = shared(Capacity::slots(2), Share::percent(50).queue(3)).build().unwrap();
    let (service, _engine) = behind(&fair);
    let mut flood = Vec::new();
    for _ in 0..50 {
        flood.push(ask(&service, request("free/flood")).await);
    }
    let refused = tier(&fair, "free").refused.queue_full;
    assert_eq!(refused, 45);
    let enterprise = ask(&service, request("enterprise/x")).await;
    assert_eq!(tier(&fair, "enterprise").refused.queue_full, 0);
    drop(flood.remove(0).await.unwrap());
    go_on().await;
    assert!(enterprise.is_finished());
}

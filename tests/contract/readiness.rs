//! No layer calls a service that it did not drive to readiness, and none holds a readied one while
//! it waits.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use palisade::rate_limit::fair::{Capacity, FairAdmission, Share};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

use crate::support::{Ledger, limits, limits_with, request};

/// Panics when it is called unready, and is ready only when asked twice.
#[derive(Debug, Default)]
struct Strict {
    asked: u8,
}

impl Clone for Strict {
    /// A clone is not ready, whatever the original is.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<B> Service<Request<B>> for Strict {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.asked += 1;
        if self.asked < 2 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        assert!(self.asked >= 2, "called unready");
        self.asked = 0;
        ready(Ok(Response::new(Full::from("ok"))))
    }
}

#[tokio::test]
async fn the_inner_service_is_ready_when_it_is_called() {
    let fair = FairAdmission::builder().capacity(Capacity::slots(1));
    let fair = fair.tier("free", Share::percent(100)).build().unwrap();
    let shared = |ledger| limits_with(ledger, |limits| limits.fair(&fair));
    let (near, far) = (Ledger::new(), Ledger::remote(Duration::from_millis(2)));
    for layer in [limits(&near), limits(&far), shared(&near), shared(&far)] {
        let mut service = layer.layer(Strict::default());
        for _ in 0..3 {
            let answer = call(&mut service, request(Full::default()));
            assert_eq!(answer.await.status(), 200);
        }
        // Exempt routes too.
        let preflight = Request::options("/generate")
            .header("access-control-request-method", "POST")
            .body(Full::<Bytes>::default())
            .unwrap();
        assert_eq!(call(&mut service, preflight).await.status(), 200);
    }
}

#[tokio::test]
async fn the_whole_stack_calls_a_service_that_is_ready() {
    let rig = crate::servers::Rig::new();
    let mut service = rig.stack().layer(Strict::default());
    for body in ["", r#"{"prompt":"What does a lighthouse do?"}"#] {
        let request = rig.request(Full::from(body));
        assert_eq!(call(&mut service, request).await.status(), 200);
    }
}

async fn call<S, R>(service: &mut S, request: Request<Full<Bytes>>) -> Response<R>
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>, Error = Infallible>,
{
    service.ready().await.unwrap().call(request).await.unwrap()
}

#[tokio::test]
async fn a_request_that_waits_for_the_store_holds_no_permit_within() {
    let ledger = Ledger::remote(Duration::from_secs(600));
    let inner = ServiceBuilder::new().concurrency_limit(1).service(Strict::default());
    let service = limits(&ledger).layer(inner.clone());
    let waiting = tokio::spawn(service.oneshot(request(Full::<Bytes>::default())));
    tokio::task::yield_now().await;
    let other = inner.oneshot(request(Full::<Bytes>::default()));
    let other = tokio::time::timeout(Duration::from_secs(5), other).await;
    assert_eq!(other.expect("the permit is held by a request that waits").unwrap().status(), 200);
    waiting.abort();
}

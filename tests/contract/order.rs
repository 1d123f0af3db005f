//! Layers in the wrong order refuse, and say what the right order is.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use palisade::{Rejection, RejectionKind};
use tower::{Layer, ServiceExt};

use crate::support::{Ledger, limits, request};

const ORDER: &str = "PeerCertLayer, JwtAuthLayer, TieredRateLimitLayer, PromptGuardLayer";

#[tokio::test]
async fn a_limiter_outside_of_the_authentication_refuses() {
    let ledger = Ledger::new();
    let service = limits(&ledger).layer(tower::service_fn(|_: Request<Full<Bytes>>| async {
        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("x")))
    }));
    let unknown = Request::post("/generate").body(Full::default()).unwrap();
    let response = service.clone().oneshot(unknown).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let rejection = response.extensions().get::<Rejection>().unwrap();
    assert_eq!(rejection.kind(), RejectionKind::Misconfigured);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8(body.to_vec()).unwrap().contains(ORDER));
    assert!(ledger.settled().is_empty());
    assert_eq!(service.oneshot(request(Full::default())).await.unwrap().status(), StatusCode::OK);
}

//! What PeerCertLayer tells, of whom, and what else it may be asked to look at.
#![cfg(all(feature = "peer-cert", feature = "test-util", feature = "jwt", feature = "aws-lc-rs"))]
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod jwt_support;
mod pki;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use palisade::{
    Identity, Routes,
    clock::ManualClock,
    connection::TlsPeer,
    jwt::{Algorithm, Issuer, JwtAuthLayer, ResourceServer},
    peer_cert::{PeerCertLayer, PeerCertLayerBuilder, PeerOutcome, PeerRule},
};
use pki::{Authority, GATEWAY, Leaf, NOT_AFTER, OUTSIDER};
use rustls_pki_types::CertificateDer;
use serde_json::json;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

use crate::jwt_support::{AUDIENCE, ISSUER, Key, claims, clock};

const TOLD: HeaderName = HeaderName::from_static("x-peer");

fn builder() -> PeerCertLayerBuilder {
    PeerCertLayer::builder().allow(PeerRule::spiffe(GATEWAY).unwrap())
}

fn with(leaf: &Leaf) -> Request<()> {
    Request::post("/generate").extension(leaf.chain()).body(()).unwrap()
}

/// Answers with the header that those behind are told by, and the peer in the identity.
async fn told(request: Request<()>) -> Result<Response<Full<Bytes>>, Infallible> {
    let peer = Identity::of(request.extensions()).and_then(Identity::peer);
    let mut response = Response::new(Full::from(format!("{}", peer.is_some())));
    assert!(!request.headers().contains_key("x_peer"));
    for value in request.headers().get_all(TOLD) {
        response.headers_mut().append(TOLD, value.clone());
    }
    Ok(response)
}

async fn ask(layer: &PeerCertLayer, request: Request<()>) -> (StatusCode, Vec<HeaderValue>, Bytes) {
    let response = layer.layer(service_fn(told)).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let headers = parts.headers.get_all(TOLD).iter().cloned().collect();
    (parts.status, headers, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn those_behind_are_told_of_the_peer_and_of_nobody_else() {
    let ca = Authority::new("ca");
    let dns = ca.issue(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("gw.svc".try_into().unwrap())];
    });
    let layer = builder()
        .allow(PeerRule::dns("gw.svc").unwrap())
        .propagate(TOLD)
        .routes(Routes::guard_all().exempt("/healthz"))
        .build()
        .unwrap();
    let spoofed = |mut request: Request<()>| {
        request.headers_mut().append(TOLD, HeaderValue::from_static("spiffe://spoof/a"));
        request.headers_mut().append(TOLD, HeaderValue::from_static("spiffe://spoof/b"));
        request.headers_mut().append("x_peer", HeaderValue::from_static("spiffe://spoof/c"));
        request
    };
    let (_, told, _) = ask(&layer, spoofed(with(&ca.workload(GATEWAY)))).await;
    assert_eq!(told, [GATEWAY]);
    let (_, told, _) = ask(&layer, spoofed(with(&dns))).await;
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&dns.der);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(told, [format!("sha256:{digest}")]);
    let exempt = spoofed(Request::get("/healthz").body(()).unwrap());
    assert_eq!(ask(&layer, exempt).await, (StatusCode::OK, Vec::new(), "false".into()));
}

#[tokio::test]
async fn every_decision_is_told_with_the_rule_that_made_it() {
    let ca = Authority::new("ca");
    let events: Arc<Mutex<Vec<(PeerOutcome, String)>>> = Arc::default();
    let heard = Arc::clone(&events);
    let hear = move |event: &palisade::peer_cert::PeerEvent<'_>| {
        heard.lock().unwrap().push((event.outcome, event.to_string()));
    };
    let denied = PeerRule::spiffe(OUTSIDER).unwrap();
    let layer = builder().deny(denied).on_event(hear).build().unwrap();
    let stranger = ca.workload("spiffe://prod.example/x");
    for request in [
        with(&ca.workload(GATEWAY)),
        with(&ca.workload(OUTSIDER)),
        with(&stranger),
        with(&ca.workload_until(GATEWAY, 2021)),
        Request::new(()),
    ] {
        ask(&layer, request).await;
    }
    let events = events.lock().unwrap();
    let expected: [(PeerOutcome, &[&str]); 5] = [
        (PeerOutcome::Admitted, &[GATEWAY, "rule="]),
        (PeerOutcome::Refused, &["code=\"client_not_allowed\"", OUTSIDER, "rule="]),
        (PeerOutcome::Refused, &["code=\"client_not_allowed\"", "spiffe://prod.example/x"]),
        (PeerOutcome::Refused, &["code=\"client_certificate_expired\"", GATEWAY]),
        (PeerOutcome::Refused, &["code=\"client_certificate_required\""]),
    ];
    assert_eq!(events.len(), expected.len());
    for ((outcome, text), (expected, parts)) in events.iter().zip(expected) {
        assert_eq!(*outcome, expected, "{text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    assert!(!events[2].1.contains("rule="));
}

#[tokio::test]
async fn a_dry_run_lets_everybody_pass_and_believes_nobody() {
    let ca = Authority::new("ca");
    let would = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&would);
    let layer = builder()
        .insecure_dry_run()
        .on_event(move |event| {
            if event.outcome == PeerOutcome::WouldRefuse {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        })
        .propagate(TOLD)
        .build()
        .unwrap();
    let (status, told, peer) = ask(&layer, with(&ca.workload(GATEWAY))).await;
    assert_eq!((status, told.len(), &*peer), (StatusCode::OK, 1, b"true".as_slice()));
    for refused in [with(&ca.workload(OUTSIDER)), Request::new(())] {
        let (status, told, peer) = ask(&layer, refused).await;
        assert_eq!((status, told.len(), &*peer), (StatusCode::OK, 0, b"false".as_slice()));
    }
    assert_eq!(would.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn only_the_gateway_may_carry_tokens_of_users() {
    let (key, ca) = (Key::new(Algorithm::EdDSA), Authority::new("ca"));
    let other = Issuer::jwks("https://other.example", key.set()).audience(AUDIENCE);
    let issuers = [key.issuer(), other.algorithms([Algorithm::EdDSA])];
    let [one, other] = issuers;
    let server = ResourceServer::builder().clock(clock()).issuer(one).issuer(other);
    let gateway = || PeerRule::spiffe(GATEWAY).unwrap();
    let peers = PeerCertLayer::builder()
        .allow(PeerRule::trust_domain("prod.example").unwrap())
        .may_carry(gateway(), [ISSUER])
        .build()
        .unwrap();
    let service = ServiceBuilder::new()
        .layer(peers)
        .layer(JwtAuthLayer::new(server.build().unwrap()))
        .service(service_fn(told));
    for (peer, issuer, status) in [
        (GATEWAY, ISSUER, StatusCode::OK),
        (GATEWAY, "https://other.example", StatusCode::FORBIDDEN),
        (OUTSIDER, ISSUER, StatusCode::FORBIDDEN),
    ] {
        let token = key.token(&claims(json!({ "iss": issuer })));
        // The second one finds the token remembered.
        for _ in 0..2 {
            let mut request = with(&ca.workload(peer));
            let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
            request.headers_mut().insert("authorization", value);
            let response = service.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), status, "{peer} {issuer}");
            if status == StatusCode::FORBIDDEN {
                let rejection = response.extensions().get::<palisade::Rejection>().unwrap();
                assert_eq!(rejection.code(), "carrier_not_allowed");
            }
        }
    }
    let nothing: [&str; 0] = [];
    assert!(builder().may_carry(gateway(), nothing).build().is_err());
}

#[tokio::test]
async fn an_answer_ends_with_the_certificate_it_was_asked_for_with() {
    type Body = BoxBody<Bytes, Infallible>;
    let clock = Arc::new(ManualClock::at(Duration::from_secs(NOT_AFTER - 10)));
    let layer = builder().clock(clock.clone()).end_streams_at_expiry().build().unwrap();
    let service = layer.layer(service_fn(async |_: Request<()>| {
        // An event whenever it is asked, forever.
        let events = futures_util::stream::repeat_with(|| {
            Ok::<_, Infallible>(http_body::Frame::data(Bytes::from_static(b"data: x\n\n")))
        });
        let body: Body = StreamBody::new(events).boxed();
        let response = Response::builder().header("content-type", "text/event-stream");
        Ok::<_, Infallible>(response.body(body).unwrap())
    }));
    let answer = service.oneshot(with(&Authority::new("ca").workload(GATEWAY))).await.unwrap();
    let mut body = answer.into_body();
    for _ in 0..3 {
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "data: x\n\n");
    }
    clock.advance(Duration::from_secs(10));
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: x\n\n");
    clock.advance(Duration::from_secs(1));
    let last = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(std::str::from_utf8(&last).unwrap().contains("certificate has expired"));
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn attack_27_a_request_for_another_host_than_the_handshakes_is_misdirected() {
    let leaf = Authority::new("ca").workload(GATEWAY);
    let addr: SocketAddr = "192.0.2.1:1".parse().unwrap();
    let chain: Arc<[CertificateDer<'static>]> = leaf.chain().into();
    let peer = TlsPeer::verified(addr, Some(chain.into()));
    let named = peer.clone().with_server_name("llm.example");
    let strict = builder().check_server_name().build().unwrap();
    let request = |uri: &str, host: Option<&str>, peer: &TlsPeer| {
        let mut request = Request::post(uri).extension(peer.clone());
        if let Some(host) = host {
            request = request.header("host", host);
        }
        request.body(()).unwrap()
    };
    for (uri, host, expected) in [
        ("/generate", Some("llm.example"), 200),
        ("/generate", Some("LLM.example:8443"), 200),
        ("https://llm.example/generate", None, 200),
        ("https://llm.example/generate", Some("other.example"), 200),
        ("/generate", Some("other.example"), 421),
        ("/generate", Some("llm.example.evil.example"), 421),
        ("https://other.example/generate", Some("llm.example"), 421),
        ("/generate", Some("a b"), 421),
        ("/generate", None, 421),
    ] {
        let (status, ..) = ask(&strict, request(uri, host, &named)).await;
        assert_eq!(status, expected, "{uri} {host:?}");
        // Where no name is known, or nobody asks, all pass.
        assert_eq!(ask(&strict, request(uri, host, &peer)).await.0, 200);
        assert_eq!(ask(&builder().build().unwrap(), request(uri, host, &named)).await.0, 200);
    }
}

#[tokio::test]
async fn attack_25_what_may_be_a_replay_is_to_be_sent_again() {
    let leaf = Authority::new("ca").workload(GATEWAY);
    let early = |method: &str| {
        let mut request = with(&leaf);
        *request.method_mut() = method.parse().unwrap();
        request.headers_mut().insert("early-data", HeaderValue::from_static("1"));
        request
    };
    let strict = builder().refuse_early_data().build().unwrap();
    for (method, expected) in [("POST", 425), ("DELETE", 425), ("GET", 200), ("HEAD", 200)] {
        assert_eq!(ask(&strict, early(method)).await.0, expected, "{method}");
        assert_eq!(ask(&builder().build().unwrap(), early(method)).await.0, 200, "{method}");
    }
    assert_eq!(ask(&strict, with(&leaf)).await.0, 200);
}

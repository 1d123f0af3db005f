//! PeerCertLayer admits the workloads that its rules name, and nobody else.
#![cfg(all(feature = "peer-cert", feature = "test-util"))]
#![allow(clippy::unwrap_used)] // Helpers of tests.

mod pki;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use palisade::{
    BuildError, Identity, Rejection, RejectionKind, Routes,
    clock::ManualClock,
    connection::{PeerCertificates, TlsPeer},
    peer_cert::{PeerCertLayer, PeerCertLayerBuilder, PeerRule},
};
use pki::{Authority, GATEWAY, Leaf, NOT_AFTER, OUTSIDER};
use rustls_pki_types::CertificateDer;
use tower::{Layer, Service, ServiceExt};

/// Answers with what stands in the request's identity, as text.
#[derive(Clone, Default)]
struct Echo {
    ready: bool,
}

impl<B> Service<Request<B>> for Echo {
    type Response = Response<Full<bytes::Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without having been ready");
        let peer = Identity::of(request.extensions()).and_then(Identity::peer);
        let text = peer.map_or("nobody".to_owned(), |peer| {
            let address = format!("{:p}", std::ptr::from_ref(peer));
            format!("{} {address}", peer.spiffe_id.as_deref().unwrap_or("no SPIFFE ID"))
        });
        let forwarded = request.headers().contains_key("x-forwarded-client-cert");
        let mut response = Response::new(Full::from(text));
        if forwarded {
            response.headers_mut().insert("forwarded", "still there".parse().unwrap());
        }
        std::future::ready(Ok(response))
    }
}

fn builder() -> PeerCertLayerBuilder {
    PeerCertLayer::builder().allow(PeerRule::spiffe(GATEWAY).unwrap())
}

fn gateway() -> Leaf {
    Authority::new("ca").workload(GATEWAY)
}

async fn send(layer: PeerCertLayerBuilder, request: Request<()>) -> Response<String> {
    let response = layer.build().unwrap().layer(Echo::default()).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Response::from_parts(parts, String::from_utf8(body.to_vec()).unwrap())
}

fn with<T: Clone + Send + Sync + 'static>(extension: T) -> Request<()> {
    Request::post("/v1/chat/completions").extension(extension).body(()).unwrap()
}

fn addr() -> SocketAddr {
    "192.0.2.1:1234".parse().unwrap()
}

fn tls_peer(leaf: &Leaf) -> TlsPeer {
    let chain: Arc<[CertificateDer<'static>]> = leaf.chain().into();
    TlsPeer::verified(addr(), Some(chain.into()))
}

#[tokio::test]
async fn every_type_that_servers_leave_is_read() {
    let leaf = gateway();
    let shared: Arc<[CertificateDer<'static>]> = leaf.chain().into();
    for (what, request) in [
        ("TlsPeer", with(tls_peer(&leaf))),
        ("PeerCertificates", with(PeerCertificates::from(Arc::clone(&shared)))),
        ("Arc<[CertificateDer]>", with(shared)),
        ("Arc<Vec<CertificateDer>>", with(Arc::new(leaf.chain()))),
        ("Vec<CertificateDer>", with(leaf.chain())),
        #[cfg(feature = "axum")]
        ("ConnectInfo<TlsPeer>", with(axum::extract::ConnectInfo(tls_peer(&leaf)))),
    ] {
        let response = send(builder(), request).await;
        assert_eq!(response.status(), StatusCode::OK, "{what}");
        assert!(response.body().starts_with(GATEWAY), "{what}");
    }
}

#[tokio::test]
async fn sources_are_never_mixed() {
    let mut request = with(gateway().chain());
    request.extensions_mut().insert(TlsPeer::verified(addr(), None));
    assert_eq!(send(builder(), request).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_applications_own_source_goes_first() {
    #[derive(Clone)]
    struct Own(Option<Leaf>);
    let hook = || {
        builder().extract_with(|extensions| {
            let leaf = extensions.get::<Own>()?.0.as_ref()?;
            Some(Arc::new(leaf.chain()).into())
        })
    };
    let ca = Authority::new("ca");
    let status = async |own: Own, other: Leaf| {
        let mut request = with(own);
        request.extensions_mut().insert(other.chain());
        send(hook(), request).await.status()
    };
    let (gateway, outsider) = (ca.workload(GATEWAY), ca.workload(OUTSIDER));
    assert_eq!(status(Own(Some(gateway.clone())), outsider.clone()).await, StatusCode::OK);
    assert_eq!(status(Own(Some(outsider)), gateway.clone()).await, StatusCode::FORBIDDEN);
    assert_eq!(status(Own(None), gateway).await, StatusCode::OK);
}

#[tokio::test]
async fn attack_20_without_a_certificate_no_rule_is_asked() {
    let deny = || builder().deny(PeerRule::spiffe(OUTSIDER).unwrap());
    let none: Vec<CertificateDer<'static>> = Vec::new();
    for request in
        [Request::new(()), with(TlsPeer::verified(addr(), None)), with(none.clone()), with(addr())]
    {
        let response = send(deny(), request).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(response.body().contains("client_certificate_required"), "{}", response.body());
    }
    let error = PeerCertLayer::builder().deny(PeerRule::spiffe(OUTSIDER).unwrap()).build();
    assert!(matches!(error.unwrap_err(), BuildError::Empty(_)));
}

#[tokio::test]
async fn deny_beats_allow_and_never_admits() {
    let ca = Authority::new("ca");
    let layer = || {
        PeerCertLayer::builder()
            .allow(PeerRule::trust_domain("prod.example").unwrap())
            .deny(PeerRule::spiffe(OUTSIDER).unwrap())
    };
    let status = async |id| send(layer(), with(ca.workload(id).chain())).await.status();
    assert_eq!(status(GATEWAY).await, StatusCode::OK);
    assert_eq!(status(OUTSIDER).await, StatusCode::FORBIDDEN);
    assert_eq!(status("spiffe://test.example/ns/edge/sa/gateway").await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn dns_names_and_pins_admit_too() {
    let leaf = gateway();
    let pin = <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(&leaf.der));
    for (rule, expected) in [
        (PeerRule::dns("*.edge.svc").unwrap(), StatusCode::OK),
        (PeerRule::dns("*.svc").unwrap(), StatusCode::FORBIDDEN),
        (PeerRule::sha256_bytes(pin), StatusCode::OK),
        (PeerRule::sha256_bytes([0; 32]), StatusCode::FORBIDDEN),
    ] {
        let layer = PeerCertLayer::builder().allow(rule.clone());
        assert_eq!(send(layer, with(leaf.chain())).await.status(), expected, "{rule:?}");
    }
}

#[tokio::test]
async fn attack_23_a_certificate_that_expires_while_the_connection_lives_is_refused() {
    let clock = Arc::new(ManualClock::at(Duration::from_secs(NOT_AFTER)));
    let layer = builder().clock(Arc::clone(&clock) as _).build().unwrap();
    let service = layer.layer(Echo::default());
    let peer = tls_peer(&gateway());
    let status = async || service.clone().oneshot(with(peer.clone())).await.unwrap().status();
    assert_eq!(status().await, StatusCode::OK, "the last second counts");
    clock.advance(Duration::from_secs(1));
    assert_eq!(status().await, StatusCode::UNAUTHORIZED);
    clock.step_to(Duration::from_secs(1_577_836_800 - 1));
    assert_eq!(status().await, StatusCode::UNAUTHORIZED, "not yet valid");
    clock.advance(Duration::from_secs(1));
    assert_eq!(status().await, StatusCode::OK);
}

#[tokio::test]
async fn attack_28_an_identity_that_stood_there_before_is_overwritten() {
    #[derive(Clone)]
    struct First<S>(S, Option<Identity>);
    impl<S: Service<Request<()>>> Service<Request<()>> for First<S> {
        type Response = S::Response;
        type Error = S::Error;
        type Future = S::Future;
        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
            self.0.poll_ready(cx)
        }
        fn call(&mut self, mut request: Request<()>) -> S::Future {
            request.extensions_mut().insert(self.1.clone().unwrap());
            self.0.call(request)
        }
    }
    // Whatever identity stands there without a certificate, the request stays out.
    let user = palisade::identity::UserIdentity::asserted("https://login.example", "alice");
    let service = builder().build().unwrap().layer(Echo::default());
    let outer = First(service, Some(Identity::asserted(user)));
    let response = outer.clone().oneshot(Request::new(())).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let response = outer.oneshot(with(gateway().chain())).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(GATEWAY.as_bytes()));
}

#[tokio::test]
async fn attack_01_no_header_is_believed_and_all_are_removed() {
    let xfcc = format!("By=spiffe://prod.example/envoy;URI={GATEWAY}");
    let request = |leaf: Option<Leaf>| {
        let mut request = Request::post("/generate")
            .header("x-forwarded-client-cert", &xfcc)
            .header("ssl-client-verify", "SUCCESS");
        if let Some(leaf) = leaf {
            request = request.extension(leaf.chain());
        }
        request.body(()).unwrap()
    };
    let ca = Authority::new("ca");
    let response = send(builder(), request(None)).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let response = send(builder(), request(Some(ca.workload(OUTSIDER)))).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let response = send(builder(), request(Some(ca.workload(GATEWAY)))).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!response.headers().contains_key("forwarded"));
    // On exempt routes too.
    let mut exempt = request(None);
    *exempt.uri_mut() = "/healthz".parse().unwrap();
    let response = send(builder().routes(Routes::guard_all().exempt("/healthz")), exempt).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!response.headers().contains_key("forwarded"));
}

#[tokio::test]
async fn attack_32_refusals_name_nobody_and_are_seen_by_outer_layers() {
    let ca = Authority::new("ca");
    let expired = ca.workload_until(OUTSIDER, 2021);
    let authority = vec![CertificateDer::from(b"spiffe://prod.example/garbage".to_vec())];
    for (request, kind) in [
        (with(ca.workload(OUTSIDER).chain()), RejectionKind::Forbidden),
        (with(expired.chain()), RejectionKind::Unauthenticated),
        (with(authority), RejectionKind::Unauthenticated),
    ] {
        let response = send(builder(), request).await;
        assert_eq!(response.status(), kind.status());
        let rejection = response.extensions().get::<Rejection>().unwrap();
        assert_eq!(rejection.kind(), kind);
        let all = format!("{:?} {}", response.headers(), response.body());
        for name in ["spiffe", "prod.example", "edge", "outsider", "gateway"] {
            assert!(!all.contains(name), "{all}");
        }
        assert!(serde_json::from_str::<serde_json::Value>(response.body()).is_ok());
    }
}

#[tokio::test]
async fn grpc_is_refused_in_its_own_way() {
    let ca = Authority::new("ca");
    let grpc = |leaf: Option<Leaf>| {
        let mut request =
            Request::post("/llm.Chat/Generate").header("content-type", "application/grpc");
        if let Some(leaf) = leaf {
            request = request.extension(leaf.chain());
        }
        request.body(()).unwrap()
    };
    let (expired, outsider) = (ca.workload_until(GATEWAY, 2021), ca.workload(OUTSIDER));
    for (leaf, code) in [(None, "16"), (Some(expired), "16"), (Some(outsider), "7")] {
        let response = send(builder(), grpc(leaf)).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], code);
        assert!(response.body().is_empty());
    }
}

#[tokio::test]
async fn exempt_routes_pass_without_an_identity() {
    let layer = || builder().routes(Routes::guard_all().exempt("/healthz"));
    let request = |path| Request::get(path).body(()).unwrap();
    let response = send(layer(), request("/healthz")).await;
    assert_eq!((response.status(), response.body().as_str()), (StatusCode::OK, "nobody"));
    assert_eq!(send(layer(), request("/healthz/")).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_connections_certificate_is_read_once() {
    let service = builder().build().unwrap().layer(Echo::default());
    let answer = async |request| {
        let response = service.clone().oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap().to_bytes()
    };
    let peer = tls_peer(&gateway());
    // The very same identity, by its place in memory.
    assert_eq!(answer(with(peer.clone())).await, answer(with(peer)).await);
}

#[tokio::test]
async fn an_unreadable_certificate_is_refused_on_every_request() {
    let garbage: Arc<[CertificateDer<'static>]> = vec![CertificateDer::from(vec![0x30, 0])].into();
    let peer = TlsPeer::verified(addr(), Some(garbage.into()));
    for _ in 0..2 {
        let response = send(builder(), with(peer.clone())).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(response.body().contains("client_certificate_invalid"));
    }
}

#[test]
fn everything_crosses_threads() {
    fn crosses<T: Send + Sync + Clone + 'static>(_: &T) {}
    fn sends<T: Send>(_: T) {}
    let layer = builder().build().unwrap();
    crosses(&layer);
    let mut service = layer.layer(Echo { ready: true });
    crosses(&service);
    sends(service.call(Request::new(())));
}

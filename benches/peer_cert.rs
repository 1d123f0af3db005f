//! What it costs to know the peer: on a connection that is known, from a certificate that is new, verified by anchors
//! of our own, and forwarded by Envoy.
//!
//! `scripts/bench peer_cert`. The service behind answers at once; "bare" is that service alone, in the same run.

#![allow(missing_docs, clippy::panic, clippy::unwrap_used)]

use std::{
    convert::Infallible,
    future::Future,
    hint::black_box,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{Request, Response};
use http_body_util::Empty;
use palisade::{
    connection::TlsPeer,
    peer_cert::{Forwarded, PeerCertLayer, PeerCertLayerBuilder, PeerRule, ProxyTrust},
    trust::TrustStore,
};
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use tower::{Layer, Service};

#[path = "../tests/pki/mod.rs"]
mod pki;

use pki::{Authority, GATEWAY};

type Body = Empty<Bytes>;

#[derive(Clone)]
struct Bare;

impl Service<Request<Body>> for Bare {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        std::future::ready(Ok(Response::new(Body::new())))
    }
}

fn ask<S, R>(service: &mut S, request: Request<Body>)
where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible>,
{
    let mut answer = pin!(service.call(request));
    match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => assert_eq!(black_box(response).status(), 200),
        _ => panic!("it waits"),
    }
}

/// As many headers as clients send.
fn request() -> Request<Body> {
    Request::post("/v1/chat/completions")
        .header("host", "llm.example")
        .header("content-type", "application/json")
        .header("content-length", "560")
        .header("authorization", "Bearer x")
        .header("user-agent", "client/1.0")
        .header("accept", "application/json")
        .header("accept-encoding", "gzip")
        .header("x-request-id", "1")
        .body(Body::new())
        .unwrap()
}

fn with<T: Clone + Send + Sync + 'static>(extension: T) -> Request<Body> {
    let mut request = request();
    request.extensions_mut().insert(extension);
    request
}

fn builder() -> PeerCertLayerBuilder {
    PeerCertLayer::builder().allow(PeerRule::spiffe(GATEWAY).unwrap())
}

fn peer_cert(criterion: &mut Criterion) {
    let ca = Authority::new("ca");
    let leaf = ca.workload(GATEWAY);
    let addr: SocketAddr = "10.1.2.3:1".parse().unwrap();
    let chain: Arc<[CertificateDer<'static>]> = leaf.chain().into();
    let connection = TlsPeer::verified(addr, Some(Arc::clone(&chain).into()));
    let store = || TrustStore::builder().trust_domain("prod.example", ca.pem()).build().unwrap();
    let trusting = store();

    let mut group = criterion.benchmark_group("peer_cert");
    let request = with(connection.clone());
    group.bench_function("bare", |bencher| {
        bencher.iter_batched(|| request.clone(), |r| ask(&mut Bare, r), BatchSize::SmallInput);
    });
    let mut measure = |name: &str, layer: PeerCertLayerBuilder, request: Request<Body>| {
        let mut service = layer.build().unwrap().layer(Bare);
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || request.clone(),
                |request| ask(&mut service, request),
                BatchSize::SmallInput,
            );
        });
    };
    measure("warm connection", builder(), with(connection.clone()));
    measure("warm connection, with anchors", builder().trust(&trusting), with(connection));
    measure("new certificate", builder(), with(Arc::clone(&chain)));
    // Known to the store, but the connection is not.
    measure("new connection, with anchors", builder().trust(&trusting), with(Arc::clone(&chain)));

    // As Envoy writes it.
    let escaped: String = leaf
        .cert
        .bytes()
        .map(|byte| match byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect();
    let hash: String = Sha256::digest(&leaf.der).iter().map(|byte| format!("{byte:02x}")).collect();
    let xfcc =
        format!("By=spiffe://prod.example/envoy;Hash={hash};Cert=\"{escaped}\";URI={GATEWAY}");
    let mut forwarded = with(addr);
    forwarded.headers_mut().insert("x-forwarded-client-cert", xfcc.parse().unwrap());
    let source = || Forwarded::xfcc().trusted_by(ProxyTrust::networks(["10.0.0.0/8"]).unwrap());
    measure("XFCC, with anchors", builder().forwarded(source()).trust(&trusting), forwarded);

    // Nothing is remembered: each store is asked once.
    let request = with(chain);
    group.bench_function("new certificate, verified", |bencher| {
        bencher.iter_batched(
            || (builder().trust(&store()).build().unwrap().layer(Bare), request.clone()),
            |(mut service, request)| {
                ask(&mut service, request);
                service
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, peer_cert);
criterion_main!(benches);

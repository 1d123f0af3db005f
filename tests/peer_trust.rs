//! PeerCertLayer with anchors of its own: what was trusted when the connection began is held against what is trusted
//! now, with every request, and while an answer runs.
#![cfg(all(feature = "peer-cert", feature = "trust", feature = "test-util"))]
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod pki;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use palisade::{
    Rejection,
    clock::ManualClock,
    connection::TlsPeer,
    peer_cert::{Forwarded, PeerCertLayer, PeerCertLayerBuilder, PeerRule, ProxyTrust},
    trust::{TrustStore, TrustStoreBuilder},
};
use pki::{Authority, GATEWAY, Leaf, OUTSIDER};
use rustls_pki_types::CertificateDer;
use tower::{Layer, ServiceExt, service_fn};

const DOMAIN: &str = "prod.example";
/// In 2030.
const NOW: Duration = Duration::from_secs(1_900_000_000);

fn trusting(ca: &Authority) -> TrustStoreBuilder {
    TrustStore::builder().trust_domain(DOMAIN, ca.pem())
}

fn layer(store: &TrustStore) -> PeerCertLayerBuilder {
    PeerCertLayer::builder()
        .allow(PeerRule::spiffe(GATEWAY).unwrap())
        .clock(Arc::new(ManualClock::at(NOW)))
        .trust(store)
}

fn connection(chain: Vec<CertificateDer<'static>>) -> TlsPeer {
    let addr: SocketAddr = "192.0.2.1:1".parse().unwrap();
    let chain: Arc<[CertificateDer<'static>]> = chain.into();
    TlsPeer::verified(addr, Some(chain.into()))
}

/// As a proxy tells of it (RFC 9440).
fn as_told(leaf: &Leaf) -> String {
    format!(":{}:", BASE64_STANDARD.encode(&leaf.der))
}

/// The status, and the code of a refusal.
async fn ask<T>(layer: &PeerCertLayer, connection: T) -> (u16, &'static str)
where
    T: Clone + Send + Sync + 'static,
{
    let request = Request::post("/generate").extension(connection).body(()).unwrap();
    send(layer, request).await
}

async fn send(layer: &PeerCertLayer, request: Request<()>) -> (u16, &'static str) {
    let inner = service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(http_body_util::Empty::<Bytes>::new()))
    });
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    let code = response.extensions().get::<Rejection>().map_or("", Rejection::code);
    (response.status().as_u16(), code)
}

const PASSED: (u16, &str) = (200, "");
const UNTRUSTED: (u16, &str) = (401, "client_certificate_untrusted");
const NOT_ALLOWED: (u16, &str) = (403, "client_not_allowed");
const REVOKED: (u16, &str) = (401, "client_certificate_revoked");
const UNKNOWN: (u16, &str) = (503, "client_certificate_unverifiable");

#[tokio::test]
async fn attack_23_what_is_revoked_or_distrusted_counts_on_connections_that_live() {
    let ca = Authority::new("ca");
    let (one, other) = (ca.workload_numbered(GATEWAY, 1), ca.workload_numbered(GATEWAY, 2));
    let store = trusting(&ca).crl(ca.crl(&[], 2100)).build().unwrap();
    let layer = layer(&store).build().unwrap();
    // Of our own listener, which keeps what was verified, and of another.
    let (one, other) = (connection(one.chain()), connection(other.chain()));
    for _ in 0..2 {
        assert_eq!(ask(&layer, one.clone()).await, PASSED);
        assert_eq!(ask(&layer, other.clone()).await, PASSED);
    }
    store.replace(trusting(&ca).crl(ca.crl(&[1], 2100))).unwrap();
    for _ in 0..2 {
        assert_eq!(ask(&layer, one.clone()).await, REVOKED);
        assert_eq!(ask(&layer, other.clone()).await, PASSED);
    }
    // The list is out of date.
    store.replace(trusting(&ca).crl(ca.crl(&[1], 2029))).unwrap();
    assert_eq!(ask(&layer, other.clone()).await, UNKNOWN);
    // The authority is replaced.
    store.replace(trusting(&Authority::new("another"))).unwrap();
    assert_eq!(ask(&layer, other.clone()).await, UNTRUSTED);
    store.replace(trusting(&ca)).unwrap();
    assert_eq!(ask(&layer, other).await, PASSED);
}

#[tokio::test]
async fn attack_17_an_authority_of_one_trust_domain_vouches_for_no_other() {
    let (prod, test) = (Authority::new("prod"), Authority::new("test"));
    let store = trusting(&prod).trust_domain("test.example", test.pem()).anchors(test.pem());
    let layer = layer(&store.build().unwrap())
        .allow(PeerRule::trust_domain("test.example").unwrap())
        .allow(PeerRule::dns("gateway.edge.svc").unwrap());
    let layer = layer.build().unwrap();
    let ask = async |leaf: Leaf| ask(&layer, leaf.chain()).await;
    assert_eq!(ask(prod.workload(GATEWAY)).await, PASSED);
    assert_eq!(ask(test.workload(GATEWAY)).await, UNTRUSTED);
    assert_eq!(ask(test.workload("spiffe://test.example/a")).await, PASSED);
    assert_eq!(ask(prod.workload("spiffe://test.example/a")).await, UNTRUSTED);
    assert_eq!(ask(prod.workload("spiffe://other.example/a")).await, UNTRUSTED);
    let dns = |ca: &Authority| {
        let name = rcgen::SanType::DnsName("gateway.edge.svc".try_into().unwrap());
        ca.issue(|params| params.subject_alt_names = vec![name])
    };
    assert_eq!(ask(dns(&test)).await, PASSED);
    assert_eq!(ask(dns(&prod)).await, UNTRUSTED);
    // Nor for any other names beside its SPIFFE IDs, as both of these have them.
    assert_eq!(ask(prod.workload(OUTSIDER)).await, NOT_ALLOWED);
    assert_eq!(ask(test.workload("spiffe://test.example/a")).await, PASSED);
}

/// A name that a trust domain's authority wrote beside a SPIFFE ID keeps out who claims it, and grants nothing, unless a
/// general anchor vouches for it as well.
#[tokio::test]
async fn names_beside_a_spiffe_id_grant_nothing_that_their_authority_may_not() {
    use palisade::Identity;
    let ca = Authority::new("ca");
    let (dns, ip, email) = ("gateway.edge.svc", "192.0.2.7", "ops@edge.example");
    let leaf = ca.issue(|params| {
        params.subject_alt_names = vec![
            rcgen::SanType::URI(OUTSIDER.try_into().unwrap()),
            rcgen::SanType::DnsName(dns.try_into().unwrap()),
            rcgen::SanType::IpAddress(ip.parse().unwrap()),
            rcgen::SanType::Rfc822Name(email.try_into().unwrap()),
        ];
    });
    let rules = [PeerRule::dns(dns), PeerRule::dns("*.edge.svc"), PeerRule::ip(ip)];
    let rules = rules.into_iter().chain([PeerRule::email(email)]).map(Result::unwrap);
    let alone = trusting(&ca).build().unwrap();
    let beside = trusting(&ca).anchors(Authority::new("another").pem()).build().unwrap();
    let both = trusting(&ca).anchors(ca.pem()).build().unwrap();
    let outsider = PeerRule::spiffe(OUTSIDER).unwrap();
    for rule in rules {
        for (store, granted) in [(&alone, false), (&beside, false), (&both, true)] {
            let connection = connection(leaf.chain());
            let allowing = layer(store).allow(rule.clone()).build().unwrap();
            for _ in 0..2 {
                let expected = if granted { PASSED } else { NOT_ALLOWED };
                assert_eq!(ask(&allowing, connection.clone()).await, expected, "{rule}");
            }
            let denying = layer(store).allow(outsider.clone()).deny(rule.clone()).build().unwrap();
            assert_eq!(ask(&denying, connection.clone()).await, NOT_ALLOWED, "{rule}");
            let inner = service_fn(async |request: Request<()>| {
                let identity = request.extensions().get::<Identity>().unwrap();
                let names = identity.peer().unwrap().dns_names.len();
                Ok::<_, Infallible>(Response::new(names.to_string()))
            });
            let telling = layer(store).allow(outsider.clone()).build().unwrap().layer(inner);
            let request = Request::post("/generate").extension(connection).body(()).unwrap();
            let answer = telling.oneshot(request).await.unwrap().into_body();
            let names = answer.collect().await.unwrap().to_bytes();
            assert_eq!(names, if granted { "1" } else { "0" });
        }
    }
}

#[tokio::test]
async fn a_proxy_is_not_told_by_a_name_that_its_authority_may_not_give() {
    let ca = Authority::new("ca");
    let told = as_told(&ca.workload(GATEWAY));
    let proxy = ProxyTrust::identity(PeerRule::dns("gateway.edge.svc").unwrap());
    let forwarded = Forwarded::client_cert().trusted_by(proxy);
    for (store, expected) in
        [(trusting(&ca), NOT_ALLOWED), (trusting(&ca).anchors(ca.pem()), PASSED)]
    {
        let layer = layer(&store.build().unwrap()).forwarded(forwarded.clone()).build().unwrap();
        let request = Request::post("/generate").header("client-cert", &told);
        let proxy = connection(ca.workload(OUTSIDER).chain());
        assert_eq!(send(&layer, request.extension(proxy).body(()).unwrap()).await, expected);
    }
}

#[tokio::test]
async fn what_is_not_for_clients_or_from_nobody_known_does_not_pass() {
    let ca = Authority::new("ca");
    let store = trusting(&ca).build().unwrap();
    let layer = layer(&store).build().unwrap();
    let of_server = ca.issue(|params| {
        params.subject_alt_names = vec![rcgen::SanType::URI(GATEWAY.try_into().unwrap())];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert_eq!(ask(&layer, of_server.chain()).await, UNTRUSTED);
    // Attack 21: from elsewhere, with the authority that counts appended.
    let rogue = Authority::new("ca").workload(GATEWAY);
    assert_eq!(ask(&layer, vec![rogue.der.clone(), ca.der()]).await, UNTRUSTED);
    let expired = ca.workload_until(GATEWAY, 2029);
    assert_eq!(ask(&layer, expired.chain()).await, (401, "client_certificate_expired"));
    assert_eq!(ask(&layer, ca.workload(OUTSIDER).chain()).await, NOT_ALLOWED);
}

#[tokio::test]
async fn two_layers_with_other_anchors_do_not_share_what_they_found() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let stores = [&ca, &other].map(|ca| trusting(ca).build().unwrap());
    let layers = stores.each_ref().map(|store| layer(store).build().unwrap());
    let peer = connection(ca.workload(GATEWAY).chain());
    for _ in 0..2 {
        assert_eq!(ask(&layers[0], peer.clone()).await, PASSED);
        assert_eq!(ask(&layers[1], peer.clone()).await, UNTRUSTED);
    }
}

/// A proxy that forwards whatever it gets is no way around the anchors.
#[tokio::test]
async fn attack_11_what_a_proxy_forwards_is_verified_here() {
    let ca = Authority::new("ca");
    let store = trusting(&ca).crl(ca.crl(&[7], 2100)).build().unwrap();
    let forwarded =
        Forwarded::client_cert().trusted_by(ProxyTrust::networks(["10.0.0.0/8"]).unwrap());
    assert!(
        PeerCertLayer::builder()
            .allow(PeerRule::spiffe(GATEWAY).unwrap())
            .forwarded(forwarded.clone())
            .build()
            .is_err(),
        "without anchors, and without a status, nobody verifies it"
    );
    let layer = layer(&store).forwarded(forwarded).build().unwrap();
    let ask = async |leaf: &Leaf, address: &str| {
        let address: SocketAddr = address.parse().unwrap();
        let request =
            Request::post("/generate").header("client-cert", as_told(leaf)).extension(address);
        send(&layer, request.body(()).unwrap()).await
    };
    let good = ca.workload_numbered(GATEWAY, 1);
    assert_eq!(ask(&good, "10.1.2.3:1").await, PASSED);
    assert_eq!(ask(&good, "[::ffff:10.1.2.3]:1").await, PASSED);
    assert_eq!(ask(&good, "11.1.2.3:1").await, (401, "client_certificate_required"));
    assert_eq!(ask(&Authority::new("ca").workload(GATEWAY), "10.1.2.3:1").await, UNTRUSTED);
    assert_eq!(ask(&ca.workload_numbered(GATEWAY, 7), "10.1.2.3:1").await, REVOKED);
    assert_eq!(ask(&ca.workload_until(GATEWAY, 2021), "10.1.2.3:1").await.0, 401);
    let request = Request::post("/generate").header("client-cert", ":?:");
    let address: SocketAddr = "10.1.2.3:1".parse().unwrap();
    let malformed = send(&layer, request.extension(address).body(()).unwrap()).await;
    assert_eq!(malformed, (400, "client_certificate_malformed"));
}

#[tokio::test]
async fn a_proxy_that_is_denied_is_not_believed() {
    let ca = Authority::new("ca");
    let id = "spiffe://prod.example/ns/edge/sa/envoy";
    let (stolen, envoy) = (ca.workload(id), ca.workload(id));
    let pin = <sha2::Sha256 as sha2::Digest>::digest(&stolen.der).into();
    let layer = layer(&trusting(&ca).build().unwrap()).deny(PeerRule::sha256_bytes(pin));
    let proxy = ProxyTrust::identity(PeerRule::spiffe(id).unwrap());
    let layer = layer.forwarded(Forwarded::client_cert().trusted_by(proxy)).build().unwrap();
    let told = as_told(&ca.workload(GATEWAY));
    let by = async |proxy: &Leaf| {
        let request = Request::post("/generate").header("client-cert", &told);
        send(&layer, request.extension(connection(proxy.chain())).body(()).unwrap()).await
    };
    assert_eq!(by(&envoy).await, PASSED);
    assert_eq!(by(&stolen).await, NOT_ALLOWED);
}

/// That its certificate is worth even less makes it no better a proxy.
#[tokio::test]
async fn a_proxy_that_is_denied_is_not_believed_because_it_is_revoked_or_untrusted() {
    let (ca, stranger) = (Authority::new("ca"), Authority::new("stranger"));
    let id = "spiffe://prod.example/ns/edge/sa/envoy";
    let store = trusting(&ca).crl(ca.crl(&[7], 2100)).build().unwrap();
    let network = ProxyTrust::networks(["192.0.2.0/24"]).unwrap();
    let forwarded = Forwarded::client_cert().trusted_by(network);
    let layer = layer(&store).forwarded(forwarded).deny(PeerRule::spiffe(id).unwrap());
    let layer = layer.build().unwrap();
    let told = as_told(&ca.workload(GATEWAY));
    let by = async |proxy: Option<Leaf>| {
        let address: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let chain = proxy.map(|leaf| Arc::<[_]>::from(leaf.chain()).into());
        let peer = TlsPeer::verified(address, chain);
        let request = Request::post("/generate").header("client-cert", &told);
        send(&layer, request.extension(peer).body(()).unwrap()).await
    };
    assert_eq!(by(None).await, PASSED);
    assert_eq!(by(Some(stranger.workload(GATEWAY))).await, PASSED, "its network is trusted");
    assert_eq!(by(Some(ca.workload(id))).await, NOT_ALLOWED);
    assert_eq!(by(Some(stranger.workload(id))).await, UNTRUSTED);
    assert_eq!(by(Some(ca.workload_numbered(GATEWAY, 7))).await, REVOKED);
}

#[tokio::test]
async fn attack_04_a_proxy_is_told_by_its_socket_and_by_no_header() {
    let ca = Authority::new("ca");
    let forwarded =
        Forwarded::client_cert().trusted_by(ProxyTrust::networks(["10.0.0.0/8"]).unwrap());
    let layer = layer(&trusting(&ca).build().unwrap()).forwarded(forwarded).build().unwrap();
    let ask = async |address: &str, claim: &str| {
        let address: SocketAddr = address.parse().unwrap();
        let mut request =
            Request::post("/generate").header("client-cert", as_told(&ca.workload(GATEWAY)));
        for name in ["x-forwarded-for", "x-real-ip", "x-envoy-external-address", "true-client-ip"] {
            request = request.header(name, claim);
        }
        let request = request.header("forwarded", format!("for={claim}")).extension(address);
        send(&layer, request.body(()).unwrap()).await
    };
    assert_eq!(ask("11.1.2.3:1", "10.1.2.3").await, (401, "client_certificate_required"));
    assert_eq!(ask("10.1.2.3:1", "11.1.2.3").await, PASSED);
}

type Events<E = Infallible> = BoxBody<Bytes, E>;

/// One event, and then silence.
async fn silent(_: Request<()>) -> Result<Response<Events>, Infallible> {
    let first = futures_util::stream::iter([Ok::<_, Infallible>(http_body::Frame::data(
        Bytes::from_static(b"data: x\n\n"),
    ))]);
    let silent = futures_util::stream::pending();
    let body = BodyExt::boxed(StreamBody::new(futures_util::StreamExt::chain(first, silent)));
    Ok(Response::builder().header("content-type", "text/event-stream").body(body).unwrap())
}

/// The answer to a workload, of which the first event has come.
async fn begun(layer: &PeerCertLayer, leaf: &Leaf) -> Events<palisade::BoxError> {
    let peer = connection(leaf.chain());
    let request = Request::post("/v1/chat/completions").extension(peer).body(()).unwrap();
    let answer = layer.layer(service_fn(silent)).oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let mut body = BodyExt::boxed(answer.into_body().map_err(Into::into));
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: x\n\n");
    body
}

/// Whether it ends with an error, and does not just go on in silence.
async fn ends(body: &mut Events<palisade::BoxError>) -> bool {
    let last = tokio::time::timeout(Duration::from_secs(3600), body.frame()).await;
    let Ok(last) = last else { return false };
    let last = last.unwrap().unwrap().into_data().unwrap();
    assert!(std::str::from_utf8(&last).unwrap().contains("was revoked"));
    assert!(body.frame().await.is_none());
    true
}

#[tokio::test(start_paused = true)]
async fn an_answer_ends_when_the_certificate_it_was_asked_for_with_is_revoked() {
    let ca = Authority::new("ca");
    let store = trusting(&ca).crl(ca.crl(&[], 2100)).build().unwrap();
    let layer = layer(&store).end_streams_at_expiry().build().unwrap();
    let mut one = begun(&layer, &ca.workload_numbered(GATEWAY, 1)).await;
    let mut other = begun(&layer, &ca.workload_numbered(GATEWAY, 2)).await;
    store.replace(trusting(&ca).crl(ca.crl(&[1], 2100))).unwrap();
    assert!(ends(&mut one).await);
    assert!(!ends(&mut other).await);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_ends_no_answers() {
    let ca = Authority::new("ca");
    let store = trusting(&ca).crl(ca.crl(&[], 2100)).build().unwrap();
    let layer = layer(&store).end_streams_at_expiry().insecure_dry_run().build().unwrap();
    let mut body = begun(&layer, &ca.workload_numbered(GATEWAY, 1)).await;
    store.replace(trusting(&ca).crl(ca.crl(&[1], 2100))).unwrap();
    assert!(!ends(&mut body).await);
}

#[tokio::test(start_paused = true)]
async fn an_answer_ends_whose_certificate_was_revoked_while_it_was_admitted() {
    let ca = Authority::new("ca");
    let store = trusting(&ca).crl(ca.crl(&[], 2100)).build().unwrap();
    let (reloads, pem, list) = (store.clone(), ca.pem().to_owned(), ca.crl(&[1], 2100));
    let revokes = std::sync::Once::new();
    let layer = layer(&store).end_streams_at_expiry().on_event(move |_| {
        let new = || TrustStore::builder().trust_domain(DOMAIN, &pem).crl(&list);
        revokes.call_once(|| reloads.replace(new()).unwrap());
    });
    let layer = layer.build().unwrap();
    let peer = connection(ca.workload_numbered(GATEWAY, 1).chain());
    let request = Request::post("/v1/chat/completions").extension(peer).body(()).unwrap();
    let answer = layer.layer(service_fn(silent)).oneshot(request).await.unwrap();
    assert!(ends(&mut BodyExt::boxed(answer.into_body().map_err(Into::into))).await);
}

/// Its SPIFFE ID is trusted on, but it is not by that that it was admitted.
#[tokio::test(start_paused = true)]
async fn an_answer_ends_when_nobody_vouches_any_more_for_the_name_that_admitted_it() {
    let ca = Authority::new("ca");
    let store = trusting(&ca).anchors(ca.pem()).build().unwrap();
    let layer = layer(&store).allow(PeerRule::dns("gateway.edge.svc").unwrap());
    let layer = layer.end_streams_at_expiry().build().unwrap();
    let mut body = begun(&layer, &ca.workload(OUTSIDER)).await;
    let mut gateway = begun(&layer, &ca.workload(GATEWAY)).await;
    store.replace(trusting(&ca)).unwrap();
    assert!(ends(&mut body).await);
    assert!(!ends(&mut gateway).await);
}

#[tokio::test(start_paused = true)]
async fn an_answer_ends_when_nobody_can_say_any_more_whether_it_was_revoked() {
    let (ca, clock) = (Authority::new("ca"), Arc::new(ManualClock::at(NOW)));
    let store = trusting(&ca).crl(ca.crl(&[], 2031)).build().unwrap();
    let layer = layer(&store).clock(Arc::clone(&clock) as _).end_streams_at_expiry();
    let mut body = begun(&layer.build().unwrap(), &ca.workload(GATEWAY)).await;
    clock.advance(Duration::from_secs(366 * 86_400));
    assert!(ends(&mut body).await);
}

//! RFC 8705: tokens bound to a client certificate.

use http::Request;
use palisade::{
    jwt::{Algorithm, CertificateHolder, Confirmation, JwtAuthLayer},
    peer_cert::{Forwarded, PeerCertLayer, PeerRule, ProxyTrust},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{ask, challenges, client::*, code, seen};
use crate::{
    jwt_support::*,
    pki::{Authority, GATEWAY, Leaf, OUTSIDER},
};

fn layer(key: &Key, confirmation: Confirmation) -> JwtAuthLayer {
    let server = server_at(clock()).issuer(key.issuer()).confirmation(confirmation);
    JwtAuthLayer::new(server.build().unwrap())
}

fn peers() -> PeerCertLayer {
    let [gateway, outsider] = [GATEWAY, OUTSIDER].map(|id| PeerRule::spiffe(id).unwrap());
    PeerCertLayer::builder().allow(gateway).allow(outsider).build().unwrap()
}

fn bound_to(leaf: &Leaf) -> Value {
    claims(json!({"cnf": {"x5t#S256": base64(&Sha256::digest(&leaf.der))}}))
}

fn from(leaf: Option<&Leaf>, key: &Key, claims: &Value) -> Request<super::Body> {
    let bearer = format!("Bearer {}", key.token(claims));
    let mut request = request(&[("authorization", &bearer)]);
    if let Some(leaf) = leaf {
        request.extensions_mut().insert(leaf.chain());
    }
    request
}

#[tokio::test]
async fn a_certificate_bound_token_serves_its_peer_alone() {
    let (key, ca) = (Key::new(Algorithm::ES256), Authority::new("ca"));
    let (gateway, outsider) = (ca.workload(GATEWAY), ca.workload(OUTSIDER));
    let (peers, layer) = (peers(), layer(&key, Confirmation::Enforce));
    let claims = bound_to(&gateway);
    // The second round finds the token remembered.
    for _ in 0..2 {
        let answer = ask(Some(&peers), &layer, from(Some(&gateway), &key, &claims)).await;
        assert_eq!(seen(&answer).subject.as_deref(), Some("alice"));
        let answer = ask(Some(&peers), &layer, from(Some(&outsider), &key, &claims)).await;
        assert_eq!((answer.status().as_u16(), code(&answer)), (401, "invalid_token"));
        assert!(challenges(&answer)[0].contains("bound to a certificate"));
        // Without PeerCertLayer nothing has verified the certificate that is there.
        let answer = ask(None, &layer, from(Some(&gateway), &key, &claims)).await;
        assert_eq!((answer.status().as_u16(), code(&answer)), (401, "invalid_token"));
    }
}

#[tokio::test]
async fn another_certificate_of_the_same_workload_is_another() {
    let (key, ca) = (Key::new(Algorithm::ES256), Authority::new("ca"));
    let (old, new) = (ca.workload(GATEWAY), ca.workload(GATEWAY));
    let layer = layer(&key, Confirmation::Enforce);
    let answer = ask(Some(&peers()), &layer, from(Some(&new), &key, &bound_to(&old))).await;
    assert_eq!(code(&answer), "invalid_token");
}

#[tokio::test]
async fn unless_it_is_asked_for_nothing_is_enforced_and_the_token_refused() {
    let (key, ca) = (Key::new(Algorithm::ES256), Authority::new("ca"));
    let gateway = ca.workload(GATEWAY);
    let layer = layer(&key, Confirmation::Refuse);
    let answer = ask(Some(&peers()), &layer, from(Some(&gateway), &key, &bound_to(&gateway))).await;
    assert_eq!(code(&answer), "invalid_token");
    assert!(challenges(&answer)[0].contains("which this server does not check"));
}

#[tokio::test]
async fn a_header_is_no_certificate() {
    let (key, ca) = (Key::new(Algorithm::ES256), Authority::new("ca"));
    let gateway = ca.workload(GATEWAY);
    let layer = layer(&key, Confirmation::Enforce);
    let mut request = from(None, &key, &bound_to(&gateway));
    for name in ["x-forwarded-client-cert", "client-cert", "x-ssl-client-cert"] {
        let value = gateway.cert.replace('\n', "%0A");
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    assert_eq!(code(&ask(None, &layer, request).await), "invalid_token");
}

#[tokio::test]
async fn unbound_tokens_pass_unless_binding_is_required() {
    let (key, ca) = (Key::new(Algorithm::ES256), Authority::new("ca"));
    let gateway = ca.workload(GATEWAY);
    for (confirmation, expected) in
        [(Confirmation::Enforce, "passed"), (Confirmation::Require, "invalid_token")]
    {
        let layer = layer(&key, confirmation);
        let unbound = from(Some(&gateway), &key, &claims(json!({})));
        assert_eq!(code(&ask(Some(&peers()), &layer, unbound).await), expected);
        let bound = from(Some(&gateway), &key, &bound_to(&gateway));
        assert_eq!(code(&ask(Some(&peers()), &layer, bound).await), "passed");
    }
}

#[tokio::test]
async fn attack_33_behind_a_proxy_the_token_is_bound_to_the_one_or_by_choice_the_other() {
    const PROXY: &str = "spiffe://prod.example/ns/edge/sa/proxy";
    let (key, ca) = (Key::new(Algorithm::ES256), Authority::new("ca"));
    let (gateway, outsider, proxy) =
        (ca.workload(GATEWAY), ca.workload(OUTSIDER), ca.workload(PROXY));
    let forwarded = Forwarded::client_cert()
        .verified_by("x-verified".parse().unwrap(), "yes")
        .trusted_by(ProxyTrust::identity(PeerRule::spiffe(PROXY).unwrap()));
    let [allowed, other] = [GATEWAY, OUTSIDER].map(|id| PeerRule::spiffe(id).unwrap());
    let peers = PeerCertLayer::builder().allow(allowed).allow(other).forwarded(forwarded);
    let peers = peers.build().unwrap();
    // From the proxy, of a client with this certificate.
    let through = |client: &Leaf, claims: &Value| {
        let mut request = from(Some(&proxy), &key, claims);
        let value = format!(":{}:", base64_standard(&client.der));
        request.headers_mut().insert("client-cert", value.parse().unwrap());
        request.headers_mut().insert("x-verified", "yes".parse().unwrap());
        request
    };
    let layer = |holder| {
        let server = server_at(clock()).issuer(key.issuer()).confirmation(Confirmation::Enforce);
        JwtAuthLayer::new(server.certificate_holder(holder).build().unwrap())
    };
    let (connection, peer) = (CertificateHolder::Connection, CertificateHolder::Peer);
    for (holder, client, bound, expected) in [
        (connection, &gateway, &proxy, "passed"),
        (connection, &gateway, &gateway, "invalid_token"),
        (peer, &gateway, &gateway, "passed"),
        (peer, &gateway, &proxy, "invalid_token"),
        (peer, &outsider, &gateway, "invalid_token"),
    ] {
        let answer = ask(Some(&peers), &layer(holder), through(client, &bound_to(bound))).await;
        assert_eq!(code(&answer), expected, "{holder:?}");
    }
}

fn base64_standard(bytes: &[u8]) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    BASE64_STANDARD.encode(bytes)
}

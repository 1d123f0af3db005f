//! Rules of every kind hold real certificates to what they name, on all routes or on one, from code or from a file.
#![cfg(all(feature = "peer-cert", feature = "serde", feature = "trust"))]
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod pki;

use std::convert::Infallible;

use axum::{Router, body::Body, routing::post};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use palisade::{
    BuildError, Identity, Rejection, RejectionKind, Routes,
    identity::UserIdentity,
    peer_cert::{PeerCertLayer, PeerCertLayerBuilder, PeerRule, PeerRules, RequirePeer},
    trust::TrustStore,
};
use pki::{Authority, GATEWAY, Leaf, OUTSIDER};
use rcgen::{DnType, PublicKeyData as _, SanType};
use rustls_pki_types::CertificateDer;
use sha2::Digest as _;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use x509_cert::der::{Decode as _, Encode as _};

fn rule(text: &str) -> PeerRule {
    text.parse().unwrap()
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn request(path: &str, chain: Vec<CertificateDer<'static>>) -> Request<Body> {
    Request::post(path).extension(chain).body(Body::empty()).unwrap()
}

async fn answer(
    service: impl tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    request: Request<Body>,
) -> Response<String> {
    let (parts, body) = service.oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Response::from_parts(parts, String::from_utf8(body.to_vec()).unwrap())
}

/// What `PeerCertLayer` says to this chain by one rule.
async fn allowed(text: &str, chain: Vec<CertificateDer<'static>>) -> StatusCode {
    let layer = PeerCertLayer::builder().allow(rule(text)).build().unwrap();
    let app = Router::new().route("/", post(async || "hello")).layer(layer);
    answer(app, request("/", chain)).await.status()
}

fn named(ca: &Authority, common_name: Option<&str>, names: Vec<SanType>) -> Leaf {
    ca.issue(|params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names = names;
    })
}

#[tokio::test]
async fn addresses_of_a_certificate_admit() {
    let names = vec![
        SanType::IpAddress("10.0.0.1".parse().unwrap()),
        SanType::IpAddress("2001:db8::1".parse().unwrap()),
        SanType::Rfc822Name("Ops@Prod.example".try_into().unwrap()),
    ];
    let leaf = named(&Authority::new("ca"), None, names);
    for (text, expected) in [
        ("ip:10.0.0.1", StatusCode::OK),
        ("ip:::ffff:10.0.0.1", StatusCode::OK),
        ("ip:2001:db8::1", StatusCode::OK),
        ("ip:10.0.0.2", StatusCode::FORBIDDEN),
        ("email:Ops@prod.example", StatusCode::OK),
        ("email:ops@prod.example", StatusCode::FORBIDDEN),
        ("email:Ops@prod.example.evil", StatusCode::FORBIDDEN),
        ("dns:prod.example", StatusCode::FORBIDDEN),
    ] {
        assert_eq!(allowed(text, leaf.chain()).await, expected, "{text}");
    }
}

#[tokio::test]
async fn a_key_outlives_its_certificate() {
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = || {
        let params = rcgen::CertificateParams::new(["gateway.edge.svc".to_owned()]).unwrap();
        vec![params.self_signed(&key).unwrap().der().clone()]
    };
    let (first, renewed) = (leaf(), leaf());
    let certificate = format!("cert-sha256:{}", hex(&first[0]));
    let public_key = format!("key-sha256:{}", hex(key.subject_public_key_info()));
    assert_eq!(allowed(&certificate, first.clone()).await, StatusCode::OK);
    assert_eq!(allowed(&certificate, renewed.clone()).await, StatusCode::FORBIDDEN);
    assert_eq!(allowed(&public_key, first).await, StatusCode::OK);
    assert_eq!(allowed(&public_key, renewed).await, StatusCode::OK);
    let stranger = Authority::new("ca").workload(GATEWAY);
    assert_eq!(allowed(&public_key, stranger.chain()).await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn attack_21_an_issuer_admits_by_the_verified_path_and_not_by_what_was_sent() {
    let (ca, other) = (Authority::new("ca"), Authority::new("other"));
    let pin = |authority: &Authority| {
        let certificate = x509_cert::Certificate::from_der(&authority.der()).unwrap();
        let key = certificate.tbs_certificate().subject_public_key_info().to_der().unwrap();
        format!("issuer-key-sha256:{}", hex(key))
    };
    let leaf = ca.workload(GATEWAY);
    let (with_its_own, with_another) =
        (vec![leaf.der.clone(), ca.der()], vec![leaf.der.clone(), other.der()]);
    let store = TrustStore::builder().trust_domain("prod.example", ca.pem()).build().unwrap();
    let verified = async |text: &str, chain| {
        let layer = PeerCertLayer::builder().allow(rule(text)).trust(&store).build().unwrap();
        let app = Router::new().route("/", post(async || "hello")).layer(layer);
        answer(app, request("/", chain)).await.status()
    };
    for chain in [leaf.chain(), with_its_own.clone(), with_another.clone()] {
        assert_eq!(verified(&pin(&ca), chain.clone()).await, StatusCode::OK);
        assert_eq!(verified(&pin(&other), chain).await, StatusCode::FORBIDDEN);
    }
    // Where nothing is verified here, not even the true issuer is known, and a rule to deny him would deny nobody.
    let by = |change: fn(PeerCertLayerBuilder, PeerRule) -> PeerCertLayerBuilder| {
        let builder = PeerCertLayer::builder().allow(rule("trust-domain:prod.example"));
        change(builder, rule(&pin(&ca))).build()
    };
    assert!(by(|builder, pin| builder.allow(pin)).is_err());
    assert!(by(|builder, pin| builder.deny(pin)).is_err());
    assert!(by(|builder, pin| builder.may_carry(pin, ["https://login.example"])).is_err());
}

#[tokio::test]
async fn attack_19_a_common_name_admits_by_its_own_rule_without_other_names() {
    let ca = Authority::new("ca");
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let ask = async |text, common_name, names| {
        allowed(text, named(&ca, common_name, names).chain()).await
    };
    assert_eq!(ask("cn:gateway", Some("gateway"), Vec::new()).await, StatusCode::OK);
    assert_eq!(ask("dns:gateway", Some("gateway"), Vec::new()).await, StatusCode::FORBIDDEN);
    for names in [
        vec![uri(GATEWAY)],
        vec![uri("https://prod.example/gateway")],
        vec![SanType::DnsName("gateway".try_into().unwrap())],
        // Neither of these leaves a name that a rule could fit.
        vec![SanType::DnsName("10.0.0.1".try_into().unwrap())],
        vec![SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], "gateway".into()))],
    ] {
        let status = ask("cn:gateway", Some("gateway"), names.clone()).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{names:?}");
    }
    for other in [Some("gateway2"), Some("Gateway"), Some("gateway\0"), None] {
        let status = ask("cn:gateway", other, Vec::new()).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{other:?}");
    }
}

#[tokio::test]
async fn attack_19_one_of_two_common_names_admits_nobody() {
    // rcgen writes no two of a kind, so one begins as an organization: 2.5.4.10 becomes 2.5.4.3.
    let leaf = Authority::new("ca").issue(|params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "gateway");
        params.distinguished_name.push(DnType::OrganizationName, "billing");
    });
    assert_eq!(allowed("cn:gateway", leaf.chain()).await, StatusCode::OK);
    let mut der = leaf.der.to_vec();
    let organization = [0x06, 3, 0x55, 4, 10];
    let at = der.windows(5).position(|window| window == organization).unwrap();
    der[at + 4] = 3;
    for rule in ["cn:gateway", "cn:billing"] {
        let status = allowed(rule, vec![der.clone().into()]).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{rule}");
    }
}

const FILE: &str = r#"
    allow = ["spiffe://prod.example/ns/edge/sa/*", "dns:*.edge.svc"]
    deny = ["spiffe://prod.example/ns/edge/sa/outsider"]
"#;

#[test]
fn files_are_read_and_their_errors_name_the_place() {
    let rules: PeerRules = toml::from_str(FILE).unwrap();
    let same = PeerRules::new()
        .allow(rule("spiffe://prod.example/ns/edge/sa/*"))
        .allow(rule("dns:*.edge.svc"))
        .deny(rule(OUTSIDER));
    assert_eq!(rules, same);
    assert_eq!(toml::from_str::<PeerRules>("").unwrap(), PeerRules::new());

    let error = |text: &str| toml::from_str::<PeerRules>(text).unwrap_err().to_string();
    let sha1 = format!("deny = [\n  \"dns:a\",\n  \"cert-sha256:{}\",\n]", "07".repeat(20));
    for (text, place, reason) in [
        ("allow = [\"dns:a\"]\ndenied = []", "line 2, column 1", "unknown field `denied`"),
        ("allow = \"dns:a\"", "line 1, column 9", "expected a sequence"),
        ("allow = [1]", "line 1, column 10", "expected a peer rule as text"),
        (
            "allow = [\n  \"gateway.edge.svc\",\n]",
            "line 2, column 3",
            "must begin with `spiffe://`",
        ),
        (&sha1, "line 3, column 3", "64 hexadecimal digits"),
        ("[[carry]]\npeer = \"dns:a\"", "line 1, column 1", "missing field `issuers`"),
        ("[[carry]]\nissuers = []", "line 1, column 1", "missing field `peer`"),
        (
            "[[carry]]\npeer = \"dns:a\"\nissuer = \"x\"",
            "line 3, column 1",
            "unknown field `issuer`",
        ),
    ] {
        let error = error(text);
        assert!(error.contains(place) && error.contains(reason), "{text}:\n{error}");
    }
}

/// A server with a route for those of the rules, and one for all that the layer outside admits.
fn app(operators: RequirePeer) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(async || "chat"))
        .route_layer(operators)
        .route("/open", post(async || "open"))
}

fn everybody() -> PeerCertLayer {
    PeerCertLayer::builder().allow(rule("trust-domain:prod.example")).build().unwrap()
}

#[tokio::test]
async fn a_route_asks_for_more_than_its_router() {
    let rules: PeerRules = toml::from_str(FILE).unwrap();
    let app = app(RequirePeer::builder().rules(rules).build().unwrap()).layer(everybody());
    let ca = Authority::new("ca");
    let ask = async |path, id| answer(app.clone(), request(path, ca.workload(id).chain())).await;
    assert_eq!(ask("/v1/chat/completions", GATEWAY).await.body(), "chat");
    // Its DNS name is on the allow list, and its SPIFFE ID on the deny list.
    let refused = ask("/v1/chat/completions", OUTSIDER).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let rejection = refused.extensions().get::<Rejection>().unwrap();
    assert_eq!(rejection.kind(), RejectionKind::Forbidden);
    assert_eq!(rejection.code(), "client_not_allowed");
    let body: serde_json::Value = serde_json::from_str(refused.body()).unwrap();
    assert_eq!(body["error"]["code"], "client_not_allowed", "as the OpenAI API has it");
    assert!(!refused.body().contains("outsider"), "attack 32: {}", refused.body());
    assert_eq!(ask("/open", OUTSIDER).await.body(), "open");
    // The layer outside goes first.
    let stranger = ask("/v1/chat/completions", "spiffe://test.example/ns/edge/sa/gateway").await;
    assert_eq!(stranger.status(), StatusCode::FORBIDDEN);
    let nobody = answer(app, request("/v1/chat/completions", Vec::new())).await;
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn attack_15_and_16_a_route_holds_to_whole_names() {
    let operators = RequirePeer::builder().allow(rule("spiffe://prod.example/ns/*/sa/ops"));
    let app = app(operators.build().unwrap()).layer(
        PeerCertLayer::builder()
            .allow(rule("trust-domain:prod.example"))
            .allow(rule("trust-domain:test.example"))
            .build()
            .unwrap(),
    );
    let ca = Authority::new("ca");
    let status = async |id| {
        answer(app.clone(), request("/v1/chat/completions", ca.workload(id).chain())).await.status()
    };
    assert_eq!(status("spiffe://prod.example/ns/edge/sa/ops").await, StatusCode::OK);
    for other in [
        "spiffe://test.example/ns/edge/sa/ops",
        "spiffe://prod.example/ns/edge/sa/ops-evil",
        "spiffe://prod.example/ns/edge/x/sa/ops",
        "spiffe://prod.example/ns/edge/sa/ops/x",
    ] {
        assert_eq!(status(other).await, StatusCode::FORBIDDEN, "{other}");
    }
}

#[tokio::test]
async fn a_route_refuses_with_500_where_nobody_asked_for_the_peer() {
    let app = app(RequirePeer::builder().allow(rule(GATEWAY)).build().unwrap());
    let gateway =
        || request("/v1/chat/completions", Authority::new("ca").workload(GATEWAY).chain());
    let mut asserted = gateway();
    let user = UserIdentity::asserted("https://login.example", "alice");
    asserted.extensions_mut().insert(Identity::asserted(user));
    for request in [gateway(), asserted] {
        let answer = answer(app.clone(), request).await;
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(answer.body().contains("PeerCertLayer, JwtAuthLayer"), "{}", answer.body());
    }
    // Nor did a layer that was told to leave the route alone.
    let routes = Routes::guard_all().exempt("/v1/chat/completions");
    let layer = PeerCertLayer::builder().allow(rule(GATEWAY)).routes(routes).build().unwrap();
    let answer = answer(app.layer(layer), gateway()).await;
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn attack_20_a_peer_without_an_identity_passes_no_route() {
    let operators = RequirePeer::builder().allow(rule(GATEWAY)).deny(rule(OUTSIDER));
    let dry = PeerCertLayer::builder().allow(rule(GATEWAY)).insecure_dry_run().build().unwrap();
    let app = app(operators.build().unwrap()).layer(dry);
    let ca = Authority::new("ca");
    let ask = async |path, chain| answer(app.clone(), request(path, chain)).await.status();
    let (known, unknown) = (ca.workload(GATEWAY).chain(), ca.workload(OUTSIDER).chain());
    assert_eq!(ask("/v1/chat/completions", known).await, StatusCode::OK);
    for chain in [unknown, Vec::new()] {
        assert_eq!(ask("/open", chain.clone()).await, StatusCode::OK, "the dry run lets it pass");
        assert_eq!(ask("/v1/chat/completions", chain).await, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn a_route_may_be_exempt_and_a_refusal_has_the_endpoints_format() {
    let routes = Routes::guard_all().exempt("/healthz");
    let operators = RequirePeer::builder().allow(rule(OUTSIDER)).routes(routes).build().unwrap();
    let inner =
        service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
    let service = ServiceBuilder::new()
        .map_response(|response: Response<_>| response.map(Body::new))
        .layer(everybody())
        .layer(operators)
        .service(inner);
    let gateway = Authority::new("ca").workload(GATEWAY).chain();
    let health = answer(service.clone(), request("/healthz", gateway.clone())).await;
    assert_eq!(health.status(), StatusCode::OK);
    let mut call = request("/llm.Engine/Generate", gateway);
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let refused = answer(service, call).await;
    assert_eq!(
        (refused.status(), &refused.headers()["grpc-status"]),
        (StatusCode::OK, &"7".parse().unwrap())
    );
}

#[tokio::test]
async fn a_route_calls_the_service_that_it_found_ready() {
    let operators = RequirePeer::builder().allow(rule(GATEWAY)).build().unwrap();
    let inner =
        ServiceBuilder::new().concurrency_limit(1).service(service_fn(async |_: Request<Body>| {
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }));
    let service = everybody().layer(operators.layer(inner));
    let gateway = Authority::new("ca").workload(GATEWAY).chain();
    for _ in 0..2 {
        let response = service.clone().oneshot(request("/", gateway.clone())).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
}

#[test]
fn rules_that_admit_nobody_or_mean_nothing_here_are_not_built() {
    let error = RequirePeer::builder().deny(rule(OUTSIDER)).build().unwrap_err();
    assert!(matches!(error, BuildError::Empty(_)), "{error}");
    assert!(RequirePeer::builder().rules(PeerRules::new()).build().is_err());
    let carrying =
        PeerRules::new().allow(rule(GATEWAY)).may_carry(rule(GATEWAY), ["https://login.example"]);
    let error = RequirePeer::builder().rules(carrying).build().unwrap_err();
    assert!(matches!(error, BuildError::Invalid { .. }), "{error}");
    let both = RequirePeer::builder().rules(toml::from_str(FILE).unwrap()).allow(rule(GATEWAY));
    assert!(both.build().is_ok());
}

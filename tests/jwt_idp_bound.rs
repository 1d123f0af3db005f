//! Against a certified OpenID provider: its tokens that are bound to a certificate or a key, or say nothing, hold
//! where they should and nowhere else.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod jwt_idp_support;
mod support;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{Router, body::Body, routing::post};
use http::{Request, Response, StatusCode, header::WWW_AUTHENTICATE};
use palisade::{
    Identity, Secret,
    jwt::{
        AuthErrorKind, Confirmation, DpopOptions, HttpFetch, Introspection, Issuer, JwtAuthLayer,
        Presented, ResourceServer, ResourceServerBuilder, TokenVerifier,
    },
    peer_cert::{PeerCertLayer, PeerRule},
    store::Stores,
    tls::{TlsConfig, TlsListener},
};
use serde_json::Value;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

use crate::jwt_idp_support::*;

const ES256: &str = "https://rs.example/es256";
const OPAQUE: &str = "https://rs.example/opaque";

fn token(granted: &Value) -> &str {
    granted["access_token"].as_str().unwrap()
}

fn server(issuer: Issuer) -> ResourceServerBuilder {
    ResourceServer::builder().issuer(issuer.insecure_http_loopback())
}

/// Over real TLS: whoever has the certificate may use the token, and nobody else.
#[tokio::test]
async fn a_token_for_a_certificate_holds_over_tls_for_that_certificate() {
    let Some(idp) = Idp::start() else { return };
    let file = |name: &str| std::fs::read(idp.folder().join(name)).unwrap();
    let peers = ["spiffe://test/client", "spiffe://test/client2"].map(PeerRule::spiffe);
    let [one, other] = peers.map(Result::unwrap);
    let server = server(Issuer::discover(&idp.issuer).audience(ES256));
    let server = server.confirmation(Confirmation::Enforce).build().unwrap();
    let stack = ServiceBuilder::new()
        .layer(PeerCertLayer::builder().allow(one).allow(other).build().unwrap())
        .layer(JwtAuthLayer::new(server));
    let app = Router::new().route("/generate", post(async || "passed")).layer(stack);
    let config = TlsConfig::builder()
        .server_cert_pem(file("server.pem"), file("server.key"))
        .client_ca_pem(file("ca.pem"))
        .build()
        .unwrap();
    let listener = TlsListener::bind("127.0.0.1:0", config).await.unwrap();
    let url = format!("https://{}/generate", listener.local_addr().unwrap());
    let app = app.into_make_service_with_connect_info::<palisade::connection::TlsPeer>();
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });

    let (of_one, of_other) =
        (idp.grant(&["mtls"]), idp.grant(&["mtls", ES256, "llm:infer", "client2"]));
    assert_eq!((&of_one[0]["bound"], &of_other[0]["bound"]), (&true.into(), &true.into()));
    let unbound = idp.grant(&["cc", ES256]);
    for (certificate, granted, status) in [
        ("client", &of_one, 200),
        ("client2", &of_other, 200),
        ("client2", &of_one, 401),
        ("client", &of_other, 401),
        ("client", &unbound, 200),
    ] {
        let pem = [file(&format!("{certificate}.pem")), file(&format!("{certificate}.key"))];
        let root = reqwest::Certificate::from_pem(&file("ca.pem")).unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([root])
            .identity(reqwest::Identity::from_pem(&pem.concat()).unwrap())
            .build()
            .unwrap();
        // The second one finds the token remembered.
        for _ in 0..2 {
            let answer = client.post(&url).bearer_auth(token(&granted[0])).send().await.unwrap();
            assert_eq!(answer.status(), status, "{certificate}: {granted:?}");
        }
    }
    serving.abort();
}

#[tokio::test]
async fn a_token_for_a_key_holds_with_one_proof_once() {
    let Some(idp) = Idp::start() else { return };
    let granted = idp.grant(&["dpop"]).remove(0);
    let other = idp.grant(&["dpop"]).remove(0);
    let unbound = idp.grant(&["cc", ES256]).remove(0);
    let asked = &granted["resource_request"];
    let (authorization, proof) = (asked["authorization"].as_str(), asked["dpop"].as_str());
    let (authorization, proof) = (authorization.unwrap(), proof.unwrap());

    let server = server(Issuer::discover(&idp.issuer).audience(ES256))
        .dpop(DpopOptions::new("http://127.0.0.1:8080").stores(&Stores::in_memory()))
        .build()
        .unwrap();
    let service = JwtAuthLayer::new(server).layer(service_fn(handler));
    let ask = |path: &str, authorization: &str, proof: Option<&str>| {
        let mut request = Request::post(path).header("authorization", authorization);
        if let Some(proof) = proof {
            request = request.header("dpop", proof);
        }
        let answer = service.clone().oneshot(request.body(Body::empty()).unwrap());
        async {
            let answer = answer.await.unwrap();
            let challenges = answer.headers().get_all(WWW_AUTHENTICATE).iter();
            let challenges: Vec<_> = challenges.map(|one| one.to_str().unwrap()).collect();
            (answer.status(), challenges.join("; "))
        }
    };
    let path = "/v1/chat/completions";
    let of = |granted: &Value| format!("DPoP {}", token(granted));
    let of_other = other["resource_request"]["dpop"].as_str().unwrap();
    for (what, path, authorization, proof, error) in [
        ("no proof", path, authorization.to_owned(), None, "invalid_dpop_proof"),
        ("another's proof", path, authorization.to_owned(), Some(of_other), "invalid_token"),
        ("another path", "/generate", authorization.to_owned(), Some(proof), "invalid_dpop_proof"),
        ("as a bearer", path, format!("Bearer {}", token(&granted)), Some(proof), "invalid_token"),
        ("another's token", path, of(&other), Some(proof), "invalid_token"),
        ("a token for nothing", path, of(&unbound), Some(proof), "invalid_token"),
    ] {
        let (status, challenge) = ask(path, &authorization, proof).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{what}");
        assert!(challenge.contains(&format!("error=\"{error}\"")), "{what}: {challenge}");
    }
    assert_eq!(ask(path, authorization, Some(proof)).await.0, StatusCode::OK);
    let (status, challenge) = ask(path, authorization, Some(proof)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "a second time");
    assert!(challenge.contains("error=\"invalid_dpop_proof\""), "{challenge}");
}

async fn handler(request: Request<Body>) -> Result<Response<String>, Infallible> {
    let user = Identity::of(request.extensions()).unwrap().user().unwrap();
    Ok(Response::new(user.subject().to_owned()))
}

#[tokio::test]
async fn an_opaque_token_holds_until_the_provider_says_otherwise() {
    let Some(idp) = Idp::start() else { return };
    let introspection = |secret: &str| {
        Introspection::endpoint(format!("{}/token/introspection", idp.issuer))
            .client_secret_basic("introspector", &Secret::new(secret.to_owned()))
    };
    let of = |introspection| {
        let clock = Arc::new(AheadClock::default());
        let issuer = Issuer::discover(&idp.issuer).introspection(introspection);
        let server = server(issuer.audience(OPAQUE).audience(ES256)).clock(clock.clone());
        let fetch = HttpFetch::with_time_limit(Duration::from_secs(1)).unwrap();
        (server.introspect_by(fetch).build().unwrap(), clock)
    };
    let granted = idp.grant(&["opaque"]).remove(0);
    let opaque = token(&granted);
    assert!(!opaque.contains('.'));

    let (server, _) = of(introspection("introspector-secret"));
    // The client got it for itself, and the provider states no `sub` then.
    assert_eq!(ask(&server, opaque).await, Err(AuthErrorKind::InvalidToken));
    let (server, clock) = of(introspection("introspector-secret").clients_as_subjects());
    let user = server.verify(&Presented::alone(opaque)).await.unwrap();
    assert_eq!((user.issuer(), user.subject()), (&*idp.issuer, "svc"));
    assert_eq!(user.client_id(), Some("svc"));
    assert!(user.has_scope("llm:infer") && user.expires_at().is_some());
    // Its JWTs are verified by its keys beside that.
    assert_eq!(ask(&server, token(&idp.grant(&["pkce", ES256])[0])).await, Ok(()));
    assert_eq!(ask(&server, "made-up").await, Err(AuthErrorKind::InvalidToken));

    // A user's opaque token has a `sub`.
    let of_alice = idp.grant(&["pkce", OPAQUE, "openid llm:infer"]).remove(0);
    let user = server.verify(&Presented::alone(token(&of_alice))).await.unwrap();
    assert_eq!((user.subject(), user.client_id()), ("alice", Some("spa")));

    // Revoked (RFC 7009): it may pass for as long as the answer counts.
    idp.revoke(opaque).await;
    assert_eq!(ask(&server, opaque).await, Ok(()));
    clock.advance(Duration::from_secs(30));
    assert_eq!(ask(&server, opaque).await, Err(AuthErrorKind::InvalidToken));

    // Who may not ask has no answer, and says so.
    let (server, _) = of(introspection("wrong").clients_as_subjects());
    assert_eq!(ask(&server, token(&of_alice)).await, Err(AuthErrorKind::Unavailable));
    assert_eq!(server.health()[0].unanswered(), 1);
}

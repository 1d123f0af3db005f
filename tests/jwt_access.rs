//! What a caller may do, who may find out where tokens come from, and how often one may guess.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod jwt_support;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, routing::get};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use palisade::{
    Identity, Rejection, RejectionKind,
    clock::ManualClock,
    extract::{TypedClaims, User},
    future::ReadyOr,
    identity::UserIdentity,
    jwt::{
        Algorithm, AuthError, ClaimTest, Issuer, JwtAuthLayer, JwtAuthLayerBuilder, Policy,
        Presented, ProtectedResourceMetadata, RequireAccess, TokenVerifier,
    },
    network::ClientAddress,
    store::{MemoryStore, Pepper, Stores},
};
use serde_json::{Value, json};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

use crate::jwt_support::*;

struct Case {
    key: Key,
    layer: JwtAuthLayer,
}

impl Case {
    fn new(options: impl FnOnce(JwtAuthLayerBuilder) -> JwtAuthLayerBuilder) -> Self {
        Self::of_issuer(|issuer| issuer, options)
    }

    fn of_issuer(
        issuer: impl FnOnce(Issuer) -> Issuer,
        options: impl FnOnce(JwtAuthLayerBuilder) -> JwtAuthLayerBuilder,
    ) -> Self {
        let key = Key::new(Algorithm::EdDSA);
        let server = server_at(clock()).issuer(issuer(key.issuer())).build().unwrap();
        let layer = options(JwtAuthLayer::builder(server)).build().unwrap();
        Self { key, layer }
    }

    fn token(&self, change: Value) -> String {
        self.key.token(&claims(change))
    }

    /// Of a tower service, by a caller at the address.
    async fn ask(&self, address: Option<&str>, token: &str) -> Response<String> {
        let mut request = Request::post("/v1/chat/completions")
            .header("authorization", format!("Bearer {token}"))
            .body(())
            .unwrap();
        if let Some(address) = address {
            let address: std::net::IpAddr = address.parse().unwrap();
            request.extensions_mut().insert(SocketAddr::from((address, 4000)));
        }
        self.send(request).await
    }

    async fn send(&self, request: Request<()>) -> Response<String> {
        let inner = service_fn(async |request: Request<()>| {
            let identity = Identity::of(request.extensions());
            let user = identity.and_then(Identity::user).map(|user| user.subject().to_owned());
            Ok::<_, Infallible>(Response::new(user.unwrap_or_default()))
        });
        text(self.layer.layer(inner).oneshot(request).await.unwrap()).await
    }

    /// Of an axum router.
    async fn route(&self, app: Router, path: &str, token: Option<&str>) -> Response<String> {
        let mut request = Request::get(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let app = app.layer(self.layer.clone());
        text(app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()).await
    }
}

async fn text<B>(response: Response<B>) -> Response<String>
where
    B: http_body::Body<Error: std::fmt::Debug>,
{
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Response::from_parts(parts, String::from_utf8(bytes.to_vec()).unwrap())
}

fn challenge<B>(answer: &Response<B>) -> &str {
    answer.headers().get("www-authenticate").map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_policy_is_held_against_scopes_roles_and_claims() {
    let case = Case::of_issuer(
        |issuer| issuer.roles_from("/realm_access/roles"),
        |builder| {
            builder.require(Policy::scope("llm:infer")).require_at(
                "/chat/completions",
                Policy::any_of([
                    Policy::all_scopes(["chat", "llm:infer"]),
                    Policy::role("tester"),
                    Policy::claim("tier", ClaimTest::equals("paid")),
                ]),
            )
        },
    );
    for change in [
        json!({"scope": "llm:infer chat"}),
        json!({"realm_access": {"roles": ["tester"]}}),
        json!({"tier": "paid"}),
    ] {
        assert_eq!(case.ask(None, &case.token(change)).await.status(), StatusCode::OK);
    }
    for change in [
        json!({}),
        json!({"roles": ["tester"]}),
        json!({"tier": ["paid"]}),
        json!({"realm_access": {"roles": "tester"}}),
    ] {
        let answer = case.ask(None, &case.token(change)).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert_eq!(answer.extensions().get::<Rejection>().unwrap().code(), "insufficient_scope");
        // Of the alternatives, the first.
        assert!(challenge(&answer).ends_with(r#", scope="llm:infer chat""#), "{answer:?}");
    }
}

#[tokio::test]
async fn no_scope_is_named_where_none_would_help() {
    let case = Case::new(|builder| {
        builder.require(Policy::all_of([Policy::scope("llm:infer"), Policy::role("admin")]))
    });
    let answer = case.ask(None, &case.token(json!({}))).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert_eq!(
        challenge(&answer),
        "Bearer realm=\"inference\", error=\"insufficient_scope\", \
         error_description=\"The caller has not the role or claim that is needed here.\""
    );
}

#[tokio::test]
async fn a_route_asks_for_more_than_its_router() {
    let admins = RequireAccess::builder(Policy::all_scopes(["admin", "llm:infer"]))
        .realm("admin")
        .resource_metadata("https://a.example/m")
        .build()
        .unwrap();
    let app = || {
        Router::new()
            .route("/admin/{name}", get(async || "secret"))
            .route_layer(admins.clone())
            .route("/open", get(async || "open"))
    };
    let case = Case::new(|builder| builder);
    let (plain, admin) = (case.token(json!({})), case.token(json!({"scope": "admin llm:infer"})));
    assert_eq!(case.route(app(), "/open", Some(&plain)).await.body(), "open");
    assert_eq!(case.route(app(), "/admin/x", Some(&admin)).await.body(), "secret");
    for path in ["/admin/x", "/admin/%78", "/admin/..%2fopen"] {
        let answer = case.route(app(), path, Some(&plain)).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path}");
        assert!(challenge(&answer).starts_with(r#"Bearer realm="admin", error="insufficient"#));
        assert!(
            challenge(&answer)
                .ends_with(r#", scope="admin llm:infer", resource_metadata="https://a.example/m""#)
        );
    }
}

#[tokio::test]
async fn a_route_refuses_nobody_with_401_and_a_stack_that_never_asked_with_500() {
    let admins = RequireAccess::builder(Policy::role("admin")).build().unwrap();
    let app = Router::new().route("/", get(async || "secret")).route_layer(admins);
    let case = Case::new(JwtAuthLayerBuilder::insecure_optional);
    let answer = case.route(app.clone(), "/", None).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(challenge(&answer), r#"Bearer realm="inference""#);

    let answer = app.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn a_route_calls_the_service_that_it_found_ready() {
    let policy = RequireAccess::builder(Policy::scope("a")).build().unwrap();
    let inner =
        ServiceBuilder::new().concurrency_limit(1).service(service_fn(async |_: Request<()>| {
            Ok::<_, Infallible>(Response::new(String::new()))
        }));
    let mut request = Request::new(());
    let user = UserIdentity::asserted("i", "s").with_scopes(["a"]);
    request.extensions_mut().insert(Identity::asserted(user));
    let answer = policy.layer(inner).oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

#[test]
fn policies_that_mean_nothing_are_not_built() {
    let layer = |policy: Policy| JwtAuthLayer::builder(Nobody).require(policy).build();
    assert!(layer(Policy::all_of([])).is_err());
    assert!(layer(Policy::any_scope(Vec::<String>::new())).is_err());
    assert!(layer(Policy::scope("a b")).is_err());
    assert!(JwtAuthLayer::builder(Nobody).require_at("/", Policy::role("a")).build().is_err());
    assert!(RequireAccess::builder(Policy::role("")).build().is_err());
    assert!(RequireAccess::builder(Policy::role("a")).realm("é").build().is_err());
}

#[tokio::test]
async fn handlers_take_the_caller_and_typed_claims() {
    #[derive(serde::Deserialize)]
    struct Tenant {
        tenant: String,
    }
    let app = Router::new()
        .route("/user", get(async |user: User| user.subject().to_owned()))
        .route("/maybe", get(async |user: Option<User>| user.is_some().to_string()))
        .route("/tenant", get(async |TypedClaims(claims): TypedClaims<Tenant>| claims.tenant));
    let case = Case::new(JwtAuthLayerBuilder::insecure_optional);
    let (plain, tenant) = (case.token(json!({})), case.token(json!({"tenant": "acme"})));
    let ask = async |path, token| case.route(app.clone(), path, token).await;
    assert_eq!(ask("/user", Some(&plain)).await.body(), "alice");
    assert_eq!(ask("/tenant", Some(&tenant)).await.body(), "acme");
    assert_eq!(ask("/maybe", Some(&plain)).await.body(), "true");
    assert_eq!(ask("/maybe", None).await.body(), "false");
    let odd = case.token(json!({"tenant": {"hush": 1}}));
    for (path, token, status) in [
        ("/user", None, StatusCode::UNAUTHORIZED),
        ("/tenant", None, StatusCode::UNAUTHORIZED),
        ("/tenant", Some(&plain), StatusCode::FORBIDDEN),
        ("/tenant", Some(&odd), StatusCode::FORBIDDEN),
    ] {
        let answer = ask(path, token.map(String::as_str)).await;
        assert_eq!(answer.status(), status, "{path}");
        assert!(answer.extensions().get::<Rejection>().is_some());
        assert_eq!(!challenge(&answer).is_empty(), status == StatusCode::UNAUTHORIZED);
        assert!(!answer.body().contains("hush") && !answer.body().contains("tenant"));
    }
    for path in ["/user", "/maybe", "/tenant"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = app.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR, "{path}");
    }
}

const METADATA: &str = "https://llm.example/.well-known/oauth-protected-resource/mcp";

fn metadata() -> ProtectedResourceMetadata {
    ProtectedResourceMetadata::new("https://llm.example/mcp")
        .authorization_servers([ISSUER])
        .scopes_supported(["llm:infer"])
}

#[tokio::test]
async fn the_metadata_needs_no_token_and_nothing_beside_it_is_open() {
    let case = Case::new(|builder| builder.resource_metadata(metadata()));
    let app = || Router::new().route("/mcp", get(async || "secret"));
    let well_known = "/.well-known/oauth-protected-resource";
    for path in [well_known.to_owned(), format!("{well_known}/mcp")] {
        let answer = case.route(app(), &path, None).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/json");
        let document: Value = serde_json::from_str(answer.body()).unwrap();
        assert_eq!(document["resource"], "https://llm.example/mcp");
        assert_eq!(document["authorization_servers"], json!([ISSUER]));
    }
    for path in ["/mcp", "/.well-known/oauth-protected-resource/other", "/.well-known/other"] {
        let answer = case.route(app(), path, None).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
        let expected = format!(r#"Bearer realm="inference", resource_metadata="{METADATA}""#);
        assert_eq!(challenge(&answer), expected);
    }
    let post = Request::builder().method(Method::POST).uri(METADATA).body(()).unwrap();
    let answer = case.send(post).await;
    assert_eq!((answer.status(), answer.body().as_str()), (StatusCode::METHOD_NOT_ALLOWED, ""));
}

#[tokio::test]
async fn challenges_carry_every_parameter() {
    let case = Case::new(|builder| {
        builder.realm("llm").require_scopes(["admin"]).resource_metadata(metadata())
    });
    let answer = case.ask(None, &case.token(json!({}))).await;
    assert_eq!(
        challenge(&answer),
        format!(
            "Bearer realm=\"llm\", error=\"insufficient_scope\", error_description=\"The access \
             token does not grant a scope that is needed here.\", scope=\"admin\", \
             resource_metadata=\"{METADATA}\""
        )
    );
}

#[tokio::test]
async fn the_metadata_is_a_service_too() {
    let metadata = metadata().build().unwrap();
    let app: Router = Router::new()
        .route_service(metadata.path(), metadata.clone())
        .route_service(palisade::jwt::MetadataService::WELL_KNOWN, metadata);
    let request = Request::get("/.well-known/oauth-protected-resource/mcp");
    let answer = text(app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()).await;
    assert!(answer.body().contains("llm.example/mcp"));
}

fn throttled(quota: u64) -> (Case, Arc<ManualClock>) {
    let clock = clock();
    let store = MemoryStore::builder().clock(Arc::clone(&clock) as _).build().unwrap();
    let stores = Stores::new(Arc::new(store), Pepper::random());
    let case = Case::new(|builder| {
        builder
            .throttle_failures(&stores, quota, Duration::from_secs(60))
            .clock(Arc::clone(&clock) as _)
    });
    (case, clock)
}

#[tokio::test]
async fn a_network_that_gets_too_many_tokens_wrong_waits() {
    let (case, clock) = throttled(3);
    let (known, unknown) = (case.token(json!({})), case.token(json!({"jti": "2"})));
    let forged = Case::new(|builder| builder).token(json!({}));
    assert_eq!(case.ask(Some("192.0.2.1"), &known).await.status(), StatusCode::OK);
    for _ in 0..3 {
        let answer = case.ask(Some("192.0.2.1"), &forged).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }
    // Nothing that is not known already is verified any more, also from the address mapped into IPv6.
    for (address, token) in [("192.0.2.1", &forged), ("::ffff:192.0.2.1", &unknown)] {
        let answer = case.ask(Some(address), token).await;
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.headers()["retry-after"], "20");
        assert_eq!(challenge(&answer), "");
        let rejection = answer.extensions().get::<Rejection>().unwrap();
        assert_eq!(rejection.kind(), RejectionKind::RateLimited);
    }
    // A token that held before still does, and other networks don't pay.
    assert_eq!(case.ask(Some("192.0.2.1"), &known).await.status(), StatusCode::OK);
    assert_eq!(case.ask(Some("192.0.2.2"), &forged).await.status(), StatusCode::UNAUTHORIZED);
    clock.advance(Duration::from_secs(20));
    assert_eq!(case.ask(Some("192.0.2.1"), &unknown).await.status(), StatusCode::OK);
    assert_eq!(case.ask(Some("192.0.2.1"), &forged).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(case.ask(Some("192.0.2.1"), &forged).await.status(), StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn only_guesses_are_counted() {
    let (case, _) = throttled(1);
    let good = case.token(json!({}));
    let poor = |header: &'static str| {
        let mut request = Request::post("/").header("authorization", header).body(()).unwrap();
        request.extensions_mut().insert(SocketAddr::from(([192, 0, 2, 1], 1)));
        request
    };
    for request in [poor("Basic YTpi"), poor("Bearer a b"), poor("Basic a")] {
        assert!(case.send(request).await.status().is_client_error());
    }
    let expired = case.token(json!({"exp": NOW + 1}));
    assert_eq!(case.ask(Some("192.0.2.1"), &expired).await.status(), StatusCode::OK);
    assert_eq!(case.ask(Some("192.0.2.1"), &good).await.status(), StatusCode::OK);
    // Where the server does not tell the address, nobody is made to pay for another.
    for _ in 0..3 {
        assert_eq!(case.ask(None, "a.b.c").await.status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(case.ask(Some("192.0.2.1"), &case.token(json!({"jti": "3"}))).await.status(), 200);
}

/// Of IPv6 an attacker has 2^64 addresses.
#[tokio::test]
async fn a_64_is_one_network() {
    let (case, _) = throttled(1);
    let ask = async |address| case.ask(Some(address), "a.b.c").await.status();
    assert_eq!(ask("2001:db8::1").await, StatusCode::UNAUTHORIZED);
    assert_eq!(ask("2001:db8::2").await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ask("2001:db8:0:1::2").await, StatusCode::UNAUTHORIZED);
}

/// A header that names another address moves nobody to another network.
#[tokio::test]
async fn a_header_does_not_choose_the_network() {
    let (case, _) = throttled(1);
    let mut statuses = Vec::new();
    for n in 0..2 {
        let mut request = Request::post("/")
            .header("authorization", "Bearer a.b.c")
            .header("x-forwarded-for", format!("198.51.100.{n}"))
            .header("forwarded", format!("for=198.51.100.{n}"))
            .body(())
            .unwrap();
        request.extensions_mut().insert(SocketAddr::from(([192, 0, 2, 1], 1)));
        statuses.push(case.send(request).await.status());
    }
    assert_eq!(statuses, [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS]);
}

#[tokio::test]
async fn behind_a_proxy_each_client_has_its_own_quota() {
    let stores = Stores::in_memory();
    let case = Case::new(|builder| {
        builder
            .throttle_failures(&stores, 1, Duration::from_secs(60))
            .client_address(ClientAddress::behind(["192.0.2.1"]).unwrap())
    });
    let ask = async |forwarded: &str| {
        let request = Request::post("/").header("authorization", "Bearer a.b.c");
        let mut request = request.header("x-forwarded-for", forwarded).body(()).unwrap();
        request.extensions_mut().insert(SocketAddr::from(([192, 0, 2, 1], 1)));
        case.send(request).await.status()
    };
    assert_eq!(ask("6.6.6.1, 198.51.100.1").await, StatusCode::UNAUTHORIZED);
    assert_eq!(ask("6.6.6.2, 198.51.100.1").await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ask("198.51.100.2").await, StatusCode::UNAUTHORIZED);
}

#[derive(Debug)]
struct Nobody;

impl TokenVerifier for Nobody {
    fn verify(&self, presented: &Presented<'_>) -> ReadyOr<Result<Arc<UserIdentity>, AuthError>> {
        let outage = presented.token == "outage";
        ReadyOr::pending(async move {
            tokio::task::yield_now().await;
            Err(if outage { AuthError::unavailable() } else { AuthError::invalid_token() })
        })
    }
}

/// A verifier that asks elsewhere is throttled as well, and an outage is not the caller's doing.
#[tokio::test]
async fn verdicts_that_come_late_are_counted() {
    let stores = Stores::in_memory();
    let layer = JwtAuthLayer::builder(Nobody)
        .throttle_failures(&stores, 2, Duration::from_secs(3600))
        .build()
        .unwrap();
    let case = Case { key: Key::new(Algorithm::EdDSA), layer };
    for (token, status) in
        [("outage", 503), ("outage", 503), ("a", 401), ("outage", 503), ("a", 401), ("outage", 429)]
    {
        assert_eq!(case.ask(Some("192.0.2.1"), token).await.status(), status, "{token}");
    }
}

#[test]
fn a_throttle_that_makes_no_sense_is_not_built() {
    let stores = Stores::in_memory();
    let build = |quota, secs| {
        let builder = JwtAuthLayer::builder(Nobody);
        builder.throttle_failures(&stores, quota, Duration::from_secs(secs)).build().is_ok()
    };
    assert!(build(1, 1) && build(100, 86_400));
    assert!(!build(0, 60) && !build(1, 0) && !build(1, 86_401));
    let metadata = ProtectedResourceMetadata::new("llm.example");
    assert!(JwtAuthLayer::builder(Nobody).resource_metadata(metadata).build().is_err());
}

//! A request without an access token that holds goes no further, and is told so in its own protocol.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod jwt_support;

use std::{
    convert::Infallible,
    future::{Ready, pending, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use palisade::{
    Identity, Rejection, RejectionKind, Routes,
    body::ResponseBody,
    future::ReadyOr,
    identity::UserIdentity,
    jwt::{
        Algorithm, AuthError, AuthErrorKind, JwtAuth, JwtAuthFuture, JwtAuthLayer,
        JwtAuthLayerBuilder, Presented, TokenVerifier,
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::{Layer, Service, ServiceExt};

use crate::jwt_support::*;

type Body = Empty<bytes::Bytes>;

/// The service behind. Panics when it is called without having been found ready.
#[derive(Clone, Debug, Default)]
struct Inner {
    ready: bool,
    calls: Arc<AtomicUsize>,
}

impl<B> Service<Request<B>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut response = Response::new(Body::new());
        let (parts, _) = request.into_parts();
        let seen = Seen {
            identity: parts.extensions.get::<Identity>().cloned(),
            authorization: parts.headers.get("authorization").cloned(),
            api_key: parts.headers.get("x-api-key").cloned(),
        };
        response.extensions_mut().insert(seen);
        ready(Ok(response))
    }
}

/// What the service behind got to see.
#[derive(Clone, Debug)]
struct Seen {
    identity: Option<Identity>,
    authorization: Option<HeaderValue>,
    api_key: Option<HeaderValue>,
}

type Answer = Response<ResponseBody<Body>>;

struct Case {
    key: Key,
    layer: JwtAuthLayer,
}

impl Case {
    fn new(options: impl FnOnce(JwtAuthLayerBuilder) -> JwtAuthLayerBuilder) -> Self {
        let key = Key::new(Algorithm::EdDSA);
        let layer = options(JwtAuthLayer::builder(server(&key))).build().unwrap();
        Self { key, layer }
    }

    fn bearer(&self, change: Value) -> String {
        format!("Bearer {}", self.key.token(&claims(change)))
    }

    async fn ask(&self, request: Request<Body>) -> Answer {
        self.layer.layer(Inner::default()).oneshot(request).await.unwrap()
    }

    async fn post(&self, headers: &[(&str, &str)]) -> Answer {
        self.ask(request("/v1/chat/completions", headers)).await
    }
}

fn request(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let builder = Request::post(path);
    let builder = headers.iter().fold(builder, |builder, (name, value)| {
        builder.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
    });
    builder.body(Body::new()).unwrap()
}

fn seen(answer: &Answer) -> &Seen {
    answer.extensions().get().expect("the request passed")
}

fn user(answer: &Answer) -> Option<&UserIdentity> {
    seen(answer).identity.as_ref().and_then(Identity::user)
}

fn challenge(answer: &Answer) -> &str {
    answer.headers().get("www-authenticate").map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_token_that_holds_lets_its_bearer_through() {
    let case = Case::new(|builder| builder);
    let answer = case.post(&[("authorization", &case.bearer(json!({"tier": "paid"})))]).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let user = user(&answer).unwrap();
    assert_eq!((user.issuer(), user.subject()), (ISSUER, "alice"));
    assert!(user.has_scope("llm:infer"));
    assert_eq!(user.claims().str("tier"), Some("paid"));
    assert_eq!(seen(&answer).authorization, None);

    let key = case.key.token(&claims(json!({})));
    let answer = case.post(&[("x-api-key", &key)]).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(seen(&answer).api_key, None);
}

#[tokio::test]
async fn hostile_headers_are_refused() {
    let case = Case::new(|builder| builder.realm("llm"));
    let (good, raw) = (case.bearer(json!({})), case.key.token(&claims(json!({}))));
    let (expired, padded) = (case.bearer(json!({"exp": NOW - 60})), format!("{good}="));
    let (long, twice) = (format!("Bearer {}", "a".repeat(20_000)), format!("{good}, {good}"));
    let missing = r#"Bearer realm="llm""#;
    let (request, token) = (r#"error="invalid_request""#, r#"error="invalid_token""#);
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(Headers<'_>, u16, &str)] = &[
        (&[], 401, missing),
        (&[("authorization", "Basic YWxpY2U6eA==")], 401, missing),
        (&[("authorization", "DPoP x")], 401, missing),
        (&[("authorization", &raw)], 401, missing),
        (&[("authorization", "")], 401, missing),
        (&[("proxy-authorization", &good)], 401, missing),
        (&[("cookie", &good)], 401, missing),
        (&[("authorization", "Bearer")], 400, request),
        (&[("authorization", "Bearer ")], 400, request),
        (&[("authorization", &twice)], 400, request),
        (&[("authorization", "Bearer \u{e9}")], 400, request),
        (&[("authorization", &good), ("authorization", &good)], 400, request),
        (&[("authorization", &good), ("x-api-key", &raw)], 400, request),
        (&[("x-api-key", &raw), ("x-api-key", &raw)], 400, request),
        (&[("x-api-key", &good)], 400, request),
        (&[("x-api-key", "sk-ant-1")], 401, token),
        (&[("authorization", &padded)], 401, token),
        (&[("authorization", &expired)], 401, token),
        (&[("authorization", &long)], 401, token),
        (&[("authorization", "Bearer x")], 401, token),
    ];
    for (headers, status, expected) in cases {
        let answer = case.post(headers).await;
        let challenge = challenge(&answer);
        assert_eq!(answer.status(), *status, "{headers:?}");
        assert!(challenge.starts_with(missing), "{headers:?}: {challenge}");
        assert!(challenge.contains(expected), "{headers:?}: {challenge}");
        assert_eq!(challenge.contains("error="), *expected != missing, "{headers:?}");
        assert!(answer.extensions().get::<Seen>().is_none());
        assert!(answer.extensions().get::<Rejection>().is_some());
    }
}

#[tokio::test]
async fn a_token_in_the_query_is_not_read() {
    let case = Case::new(|builder| builder);
    let path = format!("/generate?access_token={}", case.key.token(&claims(json!({}))));
    assert_eq!(case.ask(request(&path, &[])).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_answer_echoes_nothing_of_the_token() {
    let case = Case::new(|builder| builder);
    let token = case.key.token(&claims(json!({"aud": "marker-in-claims", "exp": NOW - 900})));
    let answer = case.post(&[("authorization", &format!("Bearer {token}"))]).await;
    let shown = format!("{answer:?}");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let shown = format!("{shown}{}", String::from_utf8_lossy(&body));
    assert!(!shown.contains("marker-in-claims") && !shown.contains(&token[..20]), "{shown}");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"]["code"], "invalid_token");
}

#[tokio::test]
async fn grpc_callers_get_grpc_answers() {
    let case = Case::new(|builder| builder.require_scopes(["admin"]));
    let good = case.bearer(json!({}));
    let grpc = ("content-type", "application/grpc");
    for (headers, status) in [
        (vec![grpc], "16"),
        (vec![grpc, ("authorization", "Bearer")], "3"),
        (vec![grpc, ("authorization", "Bearer x")], "16"),
        (vec![grpc, ("authorization", &good)], "7"),
    ] {
        let answer = case.ask(request("/inference.Llm/Generate", &headers)).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["grpc-status"], status, "{headers:?}");
        assert_eq!(answer.headers()["content-type"], "application/grpc");
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}

#[tokio::test]
async fn scopes_are_asked_for_by_path() {
    let case = Case::new(|builder| {
        builder.require_scopes(["llm:infer"]).require_scopes_at("/chat/completions", ["chat"])
    });
    let (plain, chat) = (case.bearer(json!({})), case.bearer(json!({"scope": "chat llm:infer"})));
    let answer = case.post(&[("authorization", &plain)]).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert!(challenge(&answer).contains(r#"error="insufficient_scope""#));
    assert!(challenge(&answer).ends_with(r#", scope="llm:infer chat""#));
    assert_eq!(case.post(&[("authorization", &chat)]).await.status(), StatusCode::OK);
    let models = case.ask(request("/v1/models", &[("authorization", &plain)])).await;
    assert_eq!(models.status(), StatusCode::OK);
    let answer = case.post(&[]).await;
    assert_eq!(challenge(&answer), r#"Bearer realm="inference", scope="llm:infer chat""#);
}

#[tokio::test]
async fn who_stood_in_the_extensions_before_is_overwritten() {
    let planted = || Identity::asserted(UserIdentity::asserted("https://evil.example", "root"));
    let case = Case::new(JwtAuthLayerBuilder::insecure_optional);
    let mut nobody = request("/generate", &[]);
    nobody.extensions_mut().insert(planted());
    let answer = case.ask(nobody).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(user(&answer).is_none());

    let mut alice = request("/generate", &[("authorization", &case.bearer(json!({})))]);
    alice.extensions_mut().insert(planted());
    assert_eq!(user(&case.ask(alice).await).unwrap().subject(), "alice");
}

#[tokio::test]
async fn optional_waives_neither_a_bad_token_nor_a_scope() {
    let case = Case::new(JwtAuthLayerBuilder::insecure_optional);
    for value in ["Bearer x", "Basic YTpi", "Bearer"] {
        let answer = case.post(&[("authorization", value)]).await;
        assert_ne!(answer.status(), StatusCode::OK, "{value}");
    }
    let case = Case::new(|builder| builder.insecure_optional().require_scopes(["admin"]));
    assert_eq!(case.post(&[]).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_token_that_stays_is_marked_and_other_keys_are_left_alone() {
    let case = Case::new(|builder| builder.strip_token(false).api_key_header(false));
    let bearer = case.bearer(json!({}));
    let answer = case.post(&[("authorization", &bearer), ("x-api-key", "their-own")]).await;
    let seen = seen(&answer);
    assert!(seen.authorization.as_ref().unwrap().is_sensitive());
    assert_eq!(seen.api_key.as_ref().unwrap(), "their-own");
    let only = case.key.token(&claims(json!({})));
    assert_eq!(case.post(&[("x-api-key", &only)]).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn exempt_requests_pass_untouched() {
    let case = Case::new(|builder| builder.routes(Routes::guard_all().exempt("/healthz")));
    let answer = case.ask(request("/healthz", &[("authorization", "Bearer x")])).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(seen(&answer).authorization.as_ref().unwrap(), "Bearer x");
    assert!(seen(&answer).identity.is_none());
    assert_eq!(case.ask(request("/healthz/", &[])).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_short_way_guards_all() {
    let key = Key::new(Algorithm::ES256);
    let service = JwtAuthLayer::new(server(&key)).layer(Inner::default());
    let refused = service.clone().oneshot(request("/", &[])).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let bearer = format!("Bearer {}", key.token(&claims(json!({}))));
    let passed = service.oneshot(request("/", &[("authorization", &bearer)])).await.unwrap();
    assert_eq!(passed.status(), StatusCode::OK);
}

#[tokio::test]
async fn in_axum_a_rule_holds_behind_a_wildcard_too() {
    use axum::{Router, routing::post};

    let case = Case::new(|builder| builder.require_scopes_at("/admin", ["admin"]));
    let app = Router::new()
        .route("/v1/admin", post(async || "direct"))
        .route("/proxy/{*path}", post(async || "proxied"))
        .layer(case.layer.clone());
    let bearer = case.bearer(json!({}));
    for (path, status) in [
        ("/v1/admin", 403),
        ("/proxy/x/admin", 403),
        ("/proxy/%61dmin", 403),
        ("/proxy/generate", 200),
    ] {
        let request = request(path, &[("authorization", &bearer)]);
        let answer = app.clone().oneshot(request.map(axum::body::Body::new)).await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
}

/// An application's own: waits, then answers by the token.
#[derive(Debug)]
struct Slow;

impl TokenVerifier for Slow {
    fn verify(&self, presented: &Presented<'_>) -> ReadyOr<Result<Arc<UserIdentity>, AuthError>> {
        let token = presented.token.to_owned();
        ReadyOr::pending(async move {
            tokio::task::yield_now().await;
            match token.as_str() {
                "good" => Ok(Arc::new(UserIdentity::asserted("app", "bob"))),
                "outage" => Err(AuthError::unavailable()),
                "scope" => Err(AuthError::new(AuthErrorKind::InsufficientScope, "No.")),
                "request" => Err(AuthError::new(AuthErrorKind::InvalidRequest, "What?")),
                "never" => pending().await,
                _ => Err(AuthError::invalid_token()),
            }
        })
    }
}

#[tokio::test]
async fn a_verifier_that_waits_is_waited_for() {
    let layer = JwtAuthLayer::builder(Slow).build().unwrap();
    for (token, status) in
        [("good", 200), ("bad", 401), ("outage", 503), ("scope", 403), ("request", 400)]
    {
        let inner = Inner::default();
        let calls = Arc::clone(&inner.calls);
        let bearer = format!("Bearer {token}");
        let request = request("/generate", &[("authorization", &bearer)]);
        let answer = layer.layer(inner).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), status, "{token}");
        assert_eq!(calls.load(Ordering::SeqCst), usize::from(status == 200));
        if token == "outage" {
            let rejection: &Rejection = answer.extensions().get().unwrap();
            assert_eq!(rejection.kind(), RejectionKind::Unavailable);
            assert_eq!(challenge(&answer), "");
        }
        if token == "good" {
            assert_eq!(user(&answer).unwrap().subject(), "bob");
            assert_eq!(seen(&answer).authorization, None);
        }
    }
}

#[tokio::test]
async fn a_request_that_waits_holds_no_place_behind() {
    let limit = tower::limit::ConcurrencyLimit::new(Inner::default(), 1);
    let layer = JwtAuthLayer::builder(Slow).build().unwrap();
    let ask = |token: &str| {
        let bearer = format!("Bearer {token}");
        let request = request("/generate", &[("authorization", &bearer)]);
        let mut service = layer.layer(limit.clone());
        async move {
            let ready = ServiceExt::<Request<Body>>::ready(&mut service).await.unwrap();
            ready.call(request).await.unwrap()
        }
    };
    let mut stalled = Box::pin(ask("never"));
    for _ in 0..3 {
        assert!(futures_util::poll!(&mut stalled).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(ask("good").await.status(), StatusCode::OK);
    drop(stalled);
    assert_eq!(ask("good").await.status(), StatusCode::OK);
}

#[test]
fn options_that_cannot_be_meant_are_refused() {
    let build = |options: fn(JwtAuthLayerBuilder) -> JwtAuthLayerBuilder| {
        options(JwtAuthLayer::builder(Slow)).build().is_ok()
    };
    assert!(build(|builder| builder.realm("a \"b\"")));
    assert!(!build(|builder| builder.realm("")));
    assert!(!build(|builder| builder.realm("a\r\nx-evil: 1")));
    assert!(!build(|builder| builder.require_scopes(Vec::<String>::new())));
    assert!(!build(|builder| builder.require_scopes(["a b"])));
    assert!(!build(|builder| builder.require_scopes_at("/", ["a"])));
}

#[test]
fn layers_services_and_futures_cross_threads() {
    fn check<T: Send + Sync + Clone + 'static>() {}
    fn check_send<T: Send + 'static>() {}
    check::<JwtAuthLayer>();
    check::<JwtAuth<Inner>>();
    check_send::<JwtAuthFuture<Inner, Body>>();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_header_makes_it_panic_or_pass(values in prop::collection::vec(header_value(), 0..3), key in prop::option::of(header_value())) {
        thread_local!(static CASE: Case = Case::new(|builder| builder));
        let mut request = request("/generate", &[]);
        for value in values {
            request.headers_mut().append("authorization", value);
        }
        if let Some(key) = key {
            request.headers_mut().append("x-api-key", key);
        }
        let answer = CASE.with(|case| futures_util::FutureExt::now_or_never(case.ask(request)));
        prop_assert!(matches!(answer.unwrap().status().as_u16(), 400 | 401));
    }
}

fn header_value() -> impl Strategy<Value = HeaderValue> {
    let scheme = prop::sample::select(vec!["Bearer ", "bearer", "Basic ", ""]);
    (scheme, prop::collection::vec(any::<u8>(), 0..60))
        .prop_filter_map("no header", |(scheme, rest)| {
            HeaderValue::from_bytes(&[scheme.as_bytes(), &rest].concat()).ok()
        })
}

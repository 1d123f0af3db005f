//! Tokens that only their issuer understands (RFC 7662): asked about once, believed for a while, refused while nobody
//! answers.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod jwt_support;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::join_all};
use http::{Request, Response, StatusCode};
use palisade::{
    Identity, Secret,
    clock::ManualClock,
    future::ReadyOr,
    identity::UserIdentity,
    jwt::{
        Algorithm, AuthError, AuthErrorKind, Confirmation, FetchError, Introspection,
        IntrospectionClient, IntrospectionRequest, Issuer, JwtAuthLayer, Presented, ResourceServer,
        ResourceServerBuilder, TokenVerifier,
    },
    store::Stores,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::{Layer, ServiceExt, service_fn};

use crate::jwt_support::*;

const ENDPOINT: &str = "https://login.example/introspect";

/// An endpoint by script: it knows some tokens, and takes note of what it is asked.
#[derive(Clone, Debug)]
struct Script(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By token: the document that is answered. Any other gets `active: false`.
    answers: Mutex<HashMap<String, Bytes>>,
    asked: Mutex<Vec<(Option<String>, String)>>,
    down: Mutex<bool>,
    panics: Mutex<bool>,
    held: Mutex<Option<watch::Receiver<bool>>>,
}

impl Script {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn answer(&self, token: &str, text: impl Into<Bytes>) {
        self.0.answers.lock().unwrap().insert(token.to_owned(), text.into());
    }

    /// Calls the token active, Alice's, with `change` made to the answer.
    fn activate(&self, token: &str, change: Value) {
        let mut answer = claims(change);
        answer.as_object_mut().unwrap().insert("active".into(), true.into());
        self.answer(token, answer.to_string());
    }

    fn forget(&self, token: &str) {
        self.0.answers.lock().unwrap().remove(token);
    }

    fn down(&self, down: bool) {
        *self.0.down.lock().unwrap() = down;
    }

    fn panic(&self) {
        *self.0.panics.lock().unwrap() = true;
    }

    /// Answers come when what is returned says so.
    fn hold(&self) -> watch::Sender<bool> {
        let (sender, receiver) = watch::channel(false);
        *self.0.held.lock().unwrap() = Some(receiver);
        sender
    }

    fn asked(&self) -> usize {
        self.0.asked.lock().unwrap().len()
    }

    fn last(&self) -> (Option<String>, String) {
        self.0.asked.lock().unwrap().last().unwrap().clone()
    }
}

impl IntrospectionClient for Script {
    fn introspect(&self, request: &IntrospectionRequest<'_>) -> ReadyOr<Result<Bytes, FetchError>> {
        assert_eq!(request.url, ENDPOINT);
        let authorization = request.authorization.map(|value| value.to_str().unwrap().to_owned());
        self.0.asked.lock().unwrap().push((authorization, request.form.to_owned()));
        let token = request.form.strip_prefix("token=").unwrap().split('&').next().unwrap();
        let answer = self.0.answers.lock().unwrap().get(token).cloned();
        let answer = answer.unwrap_or_else(|| r#"{"active":false}"#.into());
        let (down, held) = (*self.0.down.lock().unwrap(), self.0.held.lock().unwrap().clone());
        let panics = std::mem::take(&mut *self.0.panics.lock().unwrap());
        ReadyOr::pending(async move {
            assert!(!panics, "a client of somebody else's");
            if let Some(mut held) = held {
                held.wait_for(|released| *released).await.unwrap();
            }
            if down { Err(FetchError::new("down")) } else { Ok(answer) }
        })
    }
}

struct Case {
    script: Script,
    clock: Arc<ManualClock>,
    server: ResourceServer,
}

impl Case {
    fn new() -> Self {
        Self::of(Issuer::introspected(ISSUER, introspection()))
    }

    fn of(issuer: Issuer) -> Self {
        Self::with(issuer, |server| server)
    }

    fn with(
        issuer: Issuer,
        change: impl FnOnce(ResourceServerBuilder) -> ResourceServerBuilder,
    ) -> Self {
        let (script, clock) = (Script::new(), clock());
        let server = server_at(clock.clone()).issuer(issuer.audience(AUDIENCE));
        let server = change(server.introspect_by(script.clone())).build().unwrap();
        Self { script, clock, server }
    }

    async fn verify(&self, token: &str) -> Result<Arc<UserIdentity>, AuthError> {
        self.server.verify(&Presented::alone(token)).await
    }

    async fn ask(&self, token: &str) -> Result<(), AuthErrorKind> {
        self.verify(token).await.map(drop).map_err(|error| error.kind())
    }

    fn at_once(&self, token: &str) -> bool {
        self.verify(token).now_or_never().is_some()
    }
}

fn introspection() -> Introspection {
    Introspection::endpoint(ENDPOINT).client_secret_basic("rs", &Secret::new("hush".into()))
}

#[tokio::test]
async fn a_token_that_says_nothing_is_asked_about_and_believed_for_a_while() {
    let case = Case::new();
    case.script.activate("opaque-1", json!({"scope": "llm:infer models:read", "tier": "paid"}));
    let user = case.verify("opaque-1").await.unwrap();
    assert_eq!((user.issuer(), user.subject()), (ISSUER, "alice"));
    assert!(user.has_scope("models:read"));
    assert_eq!((user.claims().str("tier"), user.expires_at()), (Some("paid"), Some(NOW + 300)));

    assert!(case.at_once("opaque-1"));
    case.clock.advance(Duration::from_secs(29));
    assert!(case.at_once("opaque-1"));
    assert_eq!(case.script.asked(), 1);
    case.clock.advance(Duration::from_secs(1));
    assert_eq!(case.ask("opaque-1").await, Ok(()));
    assert_eq!(case.script.asked(), 2);
    assert!(case.at_once("opaque-1"));
}

#[tokio::test]
async fn a_remembered_answer_ends_with_the_token() {
    let case = Case::new();
    case.script.activate("short", json!({"exp": NOW + 5}));
    assert_eq!(case.ask("short").await, Ok(()));
    // With 30 seconds of leeway, and an answer that is good for as long.
    case.clock.advance(Duration::from_millis(29_999));
    assert_eq!(case.ask("short").await, Ok(()));
    case.clock.advance(Duration::from_secs(6));
    assert_eq!(case.ask("short").await, Err(AuthErrorKind::InvalidToken));

    let patient = introspection().max_age(Duration::from_secs(600));
    let case = Case::of(Issuer::introspected(ISSUER, patient));
    case.script.activate("short", json!({"exp": NOW + 5}));
    assert_eq!(case.ask("short").await, Ok(()));
    case.clock.advance(Duration::from_secs(35));
    assert_eq!(case.ask("short").await, Err(AuthErrorKind::InvalidToken));
    assert_eq!(case.script.asked(), 1);
}

#[tokio::test]
async fn a_revoked_token_is_forgotten_and_a_bad_one_never_remembered() {
    let case = Case::new();
    case.script.activate("token", json!({}));
    assert_eq!(case.ask("token").await, Ok(()));
    case.script.forget("token");
    case.clock.advance(Duration::from_secs(30));
    assert!(case.server.remembers(&Presented::alone("token")));
    for asked in 2..5 {
        let refused = case.verify("token").await.unwrap_err();
        assert_eq!(refused.kind(), AuthErrorKind::InvalidToken);
        assert_eq!(refused.description(), "The access token is not active.");
        assert_eq!(case.script.asked(), asked);
        assert!(!case.server.remembers(&Presented::alone("token")));
    }
    case.script.activate("token", json!({}));
    assert_eq!(case.ask("token").await, Ok(()));
}

#[tokio::test]
async fn without_an_age_every_request_asks() {
    let strict = introspection().max_age(Duration::ZERO);
    let case = Case::of(Issuer::introspected(ISSUER, strict));
    case.script.activate("token", json!({}));
    for asked in 1..4 {
        assert_eq!(case.ask("token").await, Ok(()));
        assert_eq!(case.script.asked(), asked);
    }
    case.script.forget("token");
    assert_eq!(case.ask("token").await, Err(AuthErrorKind::InvalidToken));
}

#[tokio::test]
async fn jwts_of_an_issuer_with_keys_are_never_shown_to_it() {
    let key = Key::new(Algorithm::EdDSA);
    let case = Case::of(key.issuer().introspection(introspection()));
    let good = key.token(&claims(json!({})));
    assert_eq!(case.ask(&good).await, Ok(()));
    let forged = Key::new(Algorithm::EdDSA).token(&claims(json!({})));
    let foreign = key.token(&claims(json!({"iss": "https://other.example"})));
    let expired = key.token(&claims(json!({"exp": NOW - 60})));
    for jwt in [&forged, &foreign, &expired, &format!("{good}A")] {
        assert_eq!(case.ask(jwt).await, Err(AuthErrorKind::InvalidToken));
    }
    assert_eq!(case.script.asked(), 0);
    // What is none, though it has dots, is.
    case.script.activate("ya29.a0.x", json!({}));
    assert_eq!(case.ask("ya29.a0.x").await, Ok(()));
    assert_eq!(case.ask("opaque").await, Err(AuthErrorKind::InvalidToken));
    assert_eq!(case.script.asked(), 2);
}

#[tokio::test]
async fn an_issuer_without_keys_is_asked_about_its_own_jwts_alone() {
    let case = Case::new();
    let key = Key::new(Algorithm::EdDSA);
    let jwt = key.token(&claims(json!({})));
    case.script.activate(&jwt, json!({}));
    assert_eq!(case.ask(&jwt).await, Ok(()));
    assert_eq!(case.script.asked(), 1);
    let foreign = key.token(&claims(json!({"iss": "https://other.example"})));
    case.script.activate(&foreign, json!({}));
    assert_eq!(case.ask(&foreign).await, Err(AuthErrorKind::InvalidToken));
    assert_eq!(case.script.asked(), 1);
    // Its own word on the token counts, not the token's.
    let other = key.token(&claims(json!({"sub": "mallory"})));
    case.script.activate(&other, json!({}));
    assert_eq!(case.verify(&other).await.unwrap().subject(), "alice");
}

#[tokio::test]
async fn where_nobody_is_to_be_asked_such_tokens_are_malformed() {
    let server = server(&Key::new(Algorithm::EdDSA));
    assert_eq!(verify(&server, "opaque").unwrap_err().kind(), AuthErrorKind::InvalidToken);
}

#[tokio::test]
async fn an_answer_is_held_against_the_rules_of_the_issuer() {
    let case = Case::new();
    for (name, change) in [
        ("another-audience", json!({"aud": "https://other.example"})),
        ("no-audience", json!({"aud": null})),
        ("another-issuer", json!({"iss": "https://other.example"})),
        ("nobody", json!({"sub": null})),
        ("expired", json!({"exp": NOW - 31})),
        ("early", json!({"nbf": NOW + 31})),
        ("refresh", json!({"token_type": "refresh_token"})),
        ("bound", json!({"cnf": {"jkt": "x"}})),
        ("odd-scope", json!({"scope": 7})),
    ] {
        case.script.activate(name, change);
        assert_eq!(case.ask(name).await, Err(AuthErrorKind::InvalidToken), "{name}");
        assert!(!case.server.remembers(&Presented::alone(name)), "{name}");
    }
    // What the issuer need not say.
    for (name, change) in [
        ("no-issuer", json!({"iss": null})),
        ("no-end", json!({"exp": null, "iat": null})),
        ("long", json!({"exp": NOW + 86_400 * 365})),
        ("bearer", json!({"token_type": "bearer"})),
    ] {
        case.script.activate(name, change);
        assert_eq!(case.ask(name).await, Ok(()), "{name}");
    }
}

#[tokio::test]
async fn requests_with_the_same_token_share_one_question() {
    let case = Case::new();
    case.script.activate("token", json!({}));
    let released = case.script.hold();
    let mut all = Box::pin(join_all((0..50).map(|_| case.ask("token"))));
    assert!(futures_util::poll!(&mut all).is_pending());
    tokio::task::yield_now().await;
    released.send_replace(true);
    assert!(all.await.into_iter().all(|verdict| verdict == Ok(())));
    assert_eq!(case.script.asked(), 1);
}

#[tokio::test]
async fn a_request_that_goes_away_does_not_end_the_question() {
    let case = Case::new();
    case.script.activate("token", json!({}));
    let released = case.script.hold();
    {
        let mut gone = Box::pin(case.ask("token"));
        assert!(futures_util::poll!(&mut gone).is_pending());
    }
    let mut other = Box::pin(case.ask("token"));
    assert!(futures_util::poll!(&mut other).is_pending());
    released.send_replace(true);
    assert_eq!(other.await, Ok(()));
    assert_eq!(case.script.asked(), 1);
}

#[tokio::test]
async fn no_more_questions_at_a_time_than_was_said() {
    let few = introspection().max_concurrent(3);
    let case = Case::of(Issuer::introspected(ISSUER, few));
    case.script.activate("known", json!({}));
    assert_eq!(case.ask("known").await, Ok(()));
    let released = case.script.hold();
    let tokens: Vec<String> = (0..100).map(|n| format!("made-up-{n}")).collect();
    let mut flood = Box::pin(join_all(tokens.iter().map(|token| case.ask(token))));
    assert!(futures_util::poll!(&mut flood).is_pending());
    // What is remembered needs no question.
    assert!(case.at_once("known"));
    assert_eq!(case.ask("one-more").await, Err(AuthErrorKind::Unavailable));
    tokio::task::yield_now().await;
    released.send_replace(true);
    let verdicts = flood.await;
    let shed = verdicts.iter().filter(|verdict| **verdict == Err(AuthErrorKind::Unavailable));
    assert_eq!(shed.count(), 97);
    assert_eq!(case.script.asked(), 4);
    // The places are free again.
    assert_eq!(case.ask("made-up-99").await, Err(AuthErrorKind::InvalidToken));
}

#[tokio::test]
async fn while_there_is_no_answer_tokens_get_503() {
    let case = Case::new();
    case.script.activate("token", json!({}));
    assert!(case.server.health()[0].is_ready());
    case.script.down(true);
    for unanswered in 1..4 {
        assert_eq!(case.ask("token").await, Err(AuthErrorKind::Unavailable));
        assert_eq!(case.server.health()[0].unanswered(), unanswered);
        assert!(!case.server.health()[0].is_ready());
    }
    case.script.down(false);
    case.script.panic();
    assert_eq!(case.ask("token").await, Err(AuthErrorKind::Unavailable), "a panic is no answer");
    assert_eq!(case.ask("token").await, Ok(()));
    assert!(case.server.health()[0].is_ready());

    // A good answer serves until it is too old, and no longer.
    case.script.down(true);
    case.clock.advance(Duration::from_secs(29));
    assert_eq!(case.ask("token").await, Ok(()));
    case.clock.advance(Duration::from_secs(1));
    assert_eq!(case.ask("token").await, Err(AuthErrorKind::Unavailable));
    case.script.down(false);
    assert_eq!(case.ask("token").await, Ok(()));

    let huge = format!(r#"{{"active":true,"sub":"alice","pad":"{}"}}"#, "x".repeat(512 * 1024));
    for rubbish in ["", "<html>", "{}", r#"{"active":"true"}"#, "[]", &huge] {
        case.script.answer("other", rubbish.to_owned());
        assert_eq!(case.ask("other").await, Err(AuthErrorKind::Unavailable));
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_never_answers_is_given_up() {
    let case = Case::new();
    let held = case.script.hold();
    assert_eq!(case.ask("token").await, Err(AuthErrorKind::Unavailable));
    drop(held);
}

#[test]
fn where_there_is_no_runtime_the_request_asks_itself() {
    let case = Case::new();
    case.script.activate("token", json!({}));
    assert_eq!(case.ask("token").now_or_never(), Some(Ok(())));
    assert!(case.at_once("token"));
}

#[tokio::test]
async fn who_asks_and_what_is_asked_stand_where_they_should() {
    let secret = Secret::new("p%ss:wörd +".to_owned());
    let issuer = |introspection| Issuer::introspected(ISSUER, introspection);
    let endpoint = || Introspection::endpoint(ENDPOINT);

    // RFC 6749, section 2.3.1: both are form-encoded, then joined.
    let case = Case::of(issuer(endpoint().client_secret_basic("r:s", &secret)));
    assert!(case.ask("a+b/c==").await.is_err());
    let (authorization, form) = case.script.last();
    let pair = {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let value = authorization.unwrap();
        String::from_utf8(BASE64_STANDARD.decode(value.strip_prefix("Basic ").unwrap()).unwrap())
    };
    assert_eq!(pair.unwrap(), "r%3As:p%25ss%3Aw%C3%B6rd+%2B");
    assert_eq!(form, "token=a%2Bb%2Fc%3D%3D&token_type_hint=access_token");

    let case = Case::of(issuer(endpoint().client_secret_post("rs", &secret)));
    assert!(case.ask("t").await.is_err());
    let fields = "client_id=rs&client_secret=p%25ss%3Aw%C3%B6rd+%2B";
    let form = format!("token=t&token_type_hint=access_token&{fields}");
    assert_eq!(case.script.last(), (None, form));

    let case = Case::of(issuer(endpoint().bearer(&Secret::new("mine".into()))));
    assert!(case.ask("t").await.is_err());
    assert_eq!(case.script.last().0.as_deref(), Some("Bearer mine"));

    let case = Case::of(issuer(endpoint().authenticated_by_client()));
    assert!(case.ask("t").await.is_err());
    assert_eq!(case.script.last(), (None, "token=t&token_type_hint=access_token".into()));

    for shown in [
        format!("{:?}", endpoint().client_secret_basic("rs", &secret)),
        format!("{:?}", endpoint().client_secret_post("rs", &secret)),
        format!("{:?}", case.server),
    ] {
        assert!(!shown.contains("p%") && !shown.contains("Basic"), "{shown}");
    }
}

#[tokio::test]
async fn a_binding_in_the_answer_is_enforced() {
    let bound = json!({"cnf": {"x5t#S256": "A".repeat(43)}});
    let issuer = || Issuer::introspected(ISSUER, introspection());
    let case = Case::with(issuer(), |server| server.confirmation(Confirmation::Enforce));
    case.script.activate("bound", bound);
    case.script.activate("free", json!({}));
    let refused = case.verify("bound").await.unwrap_err();
    assert!(refused.description().contains("certificate"), "{refused}");
    // Also once it is remembered, which it is: another request may show the certificate.
    let refused = case.verify("bound").now_or_never().unwrap().unwrap_err();
    assert!(refused.description().contains("certificate"), "{refused}");
    assert_eq!(case.ask("free").await, Ok(()));
    let case = Case::with(issuer(), |server| server.confirmation(Confirmation::Require));
    case.script.activate("free", json!({}));
    assert_eq!(case.ask("free").await, Err(AuthErrorKind::InvalidToken));
}

#[tokio::test]
async fn through_the_layer_with_a_throttle_a_flood_is_not_passed_on() {
    let case = Case::new();
    case.script.activate("good", json!({}));
    let layer = JwtAuthLayer::builder(case.server.clone())
        .throttle_failures(&Stores::in_memory(), 5, Duration::from_secs(60))
        .clock(case.clock.clone())
        .build()
        .unwrap();
    let service = layer.layer(service_fn(|request: Request<String>| async move {
        let user = Identity::of(request.extensions()).unwrap().user().unwrap();
        Ok::<_, std::convert::Infallible>(Response::new(user.subject().to_owned()))
    }));
    let ask = |token: &str| {
        let mut request = Request::post("/v1/chat/completions")
            .header("authorization", format!("Bearer {token}"))
            .body(String::new())
            .unwrap();
        let address: SocketAddr = "192.0.2.1:1".parse().unwrap();
        request.extensions_mut().insert(axum::extract::ConnectInfo(address));
        let service = service.clone();
        async move { service.oneshot(request).await.unwrap() }
    };
    assert_eq!(ask("good").await.status(), StatusCode::OK);
    let refused = ask("bad-0").await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let challenge = refused.headers()["www-authenticate"].to_str().unwrap();
    assert!(challenge.contains(r#"error="invalid_token""#), "{challenge}");
    assert!(!challenge.contains("bad-0"));
    for n in 1..50 {
        let status = ask(&format!("bad-{n}")).await.status();
        let expected = if n < 5 { StatusCode::UNAUTHORIZED } else { StatusCode::TOO_MANY_REQUESTS };
        assert_eq!(status, expected, "{n}");
    }
    assert_eq!(case.script.asked(), 6);
    // Who was known goes on, also when his answer has to be renewed.
    assert_eq!(ask("good").await.status(), StatusCode::OK);
    case.clock.advance(Duration::from_secs(61));
    // Nor is it passed on when they do not wait for an answer.
    let held = case.script.hold();
    for n in 0..5 {
        let mut asked = Box::pin(ask(&format!("gone-{n}")));
        assert!(futures_util::poll!(&mut asked).is_pending());
        tokio::task::yield_now().await;
    }
    held.send_replace(true);
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask("gone").await.status(), StatusCode::TOO_MANY_REQUESTS);
    case.clock.advance(Duration::from_secs(61));
    for n in 0..5 {
        ask(&format!("worse-{n}")).await;
    }
    assert_eq!(ask("worse").await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ask("good").await.status(), StatusCode::OK);
}

#[test]
fn what_makes_no_sense_is_not_built() {
    let build = |issuers: Vec<Issuer>| {
        let server = ResourceServer::builder().introspect_by(Script::new());
        let add =
            |server: ResourceServerBuilder, issuer: Issuer| server.issuer(issuer.audience("a"));
        issuers.into_iter().fold(server, add).build().map(drop).map_err(|error| error.to_string())
    };
    let one = |introspection| build(vec![Issuer::introspected("https://a", introspection)]);
    assert_eq!(one(introspection()), Ok(()));
    assert!(one(Introspection::endpoint(ENDPOINT)).unwrap_err().contains("who asks"));
    for url in
        ["http://login.example/introspect", "http://127.0.0.1/", "introspect", "https://a@b/"]
    {
        assert!(one(Introspection::endpoint(url).authenticated_by_client()).is_err(), "{url}");
    }
    assert!(one(introspection().max_concurrent(0)).is_err());
    assert!(one(introspection().max_age(Duration::from_secs(3601))).is_err());
    assert!(one(introspection().bearer(&Secret::new("a\nb".into()))).is_err());
    let two = ["https://a", "https://b"].map(|name| Issuer::introspected(name, introspection()));
    assert!(build(two.into()).unwrap_err().contains("two are to be asked"));
    let local = Introspection::endpoint("http://127.0.0.1:1/").authenticated_by_client();
    let issuer = Issuer::introspected("https://a", local).insecure_http_loopback();
    assert_eq!(build(vec![issuer]), Ok(()));
    // Without an audience nothing holds.
    let server = ResourceServer::builder().introspect_by(Script::new());
    assert!(server.issuer(Issuer::introspected("https://a", introspection())).build().is_err());
}

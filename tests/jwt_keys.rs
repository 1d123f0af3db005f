//! Keys that are fetched: never waited for without need, never fetched beyond the budget, never replaced by
//! something worse, and never believed for longer than was said.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod jwt_keys_support;
mod jwt_support;

use std::time::Duration;

use futures_util::{FutureExt, future::join_all};
use palisade::jwt::{Algorithm, AuthErrorKind, Issuer};
use serde_json::json;

use crate::{jwt_keys_support::*, jwt_support::*};

#[tokio::test]
async fn the_server_starts_while_the_issuer_is_down() {
    let case = Case::new();
    assert_eq!(case.script.calls().len(), 0);
    assert!(!case.health().is_ready());
    case.server.warm_up().await;
    assert_eq!(case.verify("a").await, Err(AuthErrorKind::Unavailable));
    assert_eq!((case.health().keys(), case.health().failures()), (0, 2));
    assert!(case.health().last_error().is_some());

    case.publish(&["a"]);
    assert_eq!(case.verify("a").await, Ok(()));
    assert!(case.health().is_ready());
    assert_eq!((case.health().failures(), case.health().last_error()), (0, None));
    assert_eq!(case.health().age(), Some(Duration::ZERO));
}

#[tokio::test]
async fn no_keys_is_an_outage_that_does_not_hammer_the_issuer() {
    let case = Case::new();
    for _ in 0..100 {
        assert_eq!(case.verify("a").await, Err(AuthErrorKind::Unavailable));
    }
    assert_eq!(case.script.calls().len(), 3);
    // A set without a key for the issuer's algorithms is none.
    case.clock.advance(Duration::from_secs(10));
    case.script.answer(JWKS, &json!({"keys": [{"kty": "AKP", "kid": "a"}]}).to_string());
    assert_eq!(case.verify("a").await, Err(AuthErrorKind::Unavailable));
    assert_eq!(case.script.calls().len(), 4);
}

#[tokio::test]
async fn requests_without_keys_share_one_flight() {
    let case = Case::new();
    case.publish(&["a"]);
    case.script.hold();
    let mut all = Box::pin(join_all((0..50).map(|_| case.verify("a"))));
    assert!(futures_util::poll!(&mut all).is_pending());
    settle().await;
    case.script.release();
    assert!(all.await.into_iter().all(|verdict| verdict == Ok(())));
    assert_eq!(case.script.calls(), [JWKS]);
}

#[tokio::test]
async fn a_request_that_goes_away_does_not_end_the_flight() {
    let case = Case::new();
    case.publish(&["a"]);
    case.script.hold();
    let mut gone = Box::pin(case.verify("a"));
    assert!(futures_util::poll!(&mut gone).is_pending());
    drop(gone);
    case.script.release();
    settle().await;
    assert!(case.health().is_ready());
    assert_eq!(case.verify("a").now_or_never(), Some(Ok(())));
    assert_eq!(case.script.calls().len(), 1);
}

#[tokio::test]
async fn a_key_that_is_new_is_fetched_and_shared() {
    let case = Case::warm(&["a"]).await;
    case.publish(&["a", "b"]);
    let verdicts = join_all((0..50).map(|_| case.verify("b"))).await;
    assert!(verdicts.into_iter().all(|verdict| verdict == Ok(())));
    assert_eq!(case.script.calls().len(), 2);
}

#[tokio::test]
async fn a_flight_that_left_too_early_is_followed_by_one_more() {
    let case = Case::warm(&["a"]).await;
    case.clock.advance(Duration::from_secs(226));
    case.script.hold();
    // A refresh leaves; then the issuer rotates; what the refresh reads is the old set.
    assert_eq!(case.verify("a").now_or_never(), Some(Ok(())));
    settle().await;
    let mut new = Box::pin(case.verify("b"));
    assert!(futures_util::poll!(&mut new).is_pending());
    case.script.release();
    case.script.at_call(3, JWKS, &case.set(&["a", "b"]));
    assert_eq!(new.await, Ok(()));
    assert_eq!(case.script.calls().len(), 3);
}

#[tokio::test]
async fn a_flood_of_unknown_keys_stays_within_the_budget_and_holds_nobody_up() {
    let case = Case::warm(&["a"]).await;
    for n in 0..500 {
        assert_eq!(case.verify(&format!("x{n}")).await, Err(AuthErrorKind::InvalidToken));
        assert_eq!(case.verify_new("a").now_or_never(), Some(Ok(())));
    }
    assert_eq!(case.script.calls().len(), 1 + 3);
    // Failures count too.
    case.script.fail(JWKS);
    case.clock.advance(Duration::from_secs(30));
    for n in 0..500 {
        assert_eq!(case.verify(&format!("y{n}")).await, Err(AuthErrorKind::InvalidToken));
        assert_eq!(case.verify_new("a").now_or_never(), Some(Ok(())));
    }
    assert_eq!(case.script.calls().len(), 1 + 3 + 3);
    // Whoever spent it on purpose kept a new key out for ten seconds.
    case.publish(&["a", "b"]);
    assert_eq!(case.verify("b").await, Err(AuthErrorKind::InvalidToken));
    case.clock.advance(Duration::from_secs(10));
    assert_eq!(case.verify("b").await, Ok(()));
}

#[tokio::test]
async fn good_tokens_do_not_wait_for_a_flight_that_is_not_theirs() {
    let case = Case::warm(&["a"]).await;
    case.script.hold();
    let mut unknown = Box::pin(case.verify("x"));
    assert!(futures_util::poll!(&mut unknown).is_pending());
    for _ in 0..3 {
        settle().await;
        assert_eq!(case.verify_new("a").now_or_never(), Some(Ok(())));
    }
    assert!(futures_util::poll!(&mut unknown).is_pending());
    case.script.release();
    assert_eq!(unknown.await, Err(AuthErrorKind::InvalidToken));
}

#[tokio::test]
async fn only_a_key_that_is_not_known_is_fetched_for() {
    let case = Case::new();
    let unusable = json!({"kty": "AKP", "kid": "pq"});
    let set = json!({"keys": [case.key.jwk("a"), case.key.jwk("b"), unusable]});
    case.script.answer(JWKS, &set.to_string());
    case.server.warm_up().await;
    let claims = claims(json!({}));
    let header = |header| case.key.sign(&header, &claims);
    for token in [
        // Two would fit; one that can't be used; a forged signature; another issuer's.
        header(json!({"alg": "EdDSA", "typ": "at+jwt"})),
        header(json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "pq"})),
        header(json!({"alg": "RS256", "typ": "at+jwt", "kid": "a"})),
        Key::new(Algorithm::EdDSA).token_by("a", &claims),
        case.token("z", json!({"iss": "https://other.example"})),
        // Refused before its key is looked for.
        case.token("z", json!({"exp": NOW - 60})),
        case.token("z", json!({"aud": "https://other.example"})),
    ] {
        assert_eq!(case.ask(&token).await, Err(AuthErrorKind::InvalidToken));
    }
    assert_eq!(case.script.calls().len(), 1);
}

#[tokio::test]
async fn what_is_worse_never_replaces_a_good_set() {
    let case = Case::warm(&["a"]).await;
    let private = {
        let mut jwk = case.key.jwk("b");
        jwk["d"] = jwk["x"].clone();
        json!({"keys": [case.key.jwk("a"), jwk]}).to_string()
    };
    let huge = json!({"keys": [case.key.jwk("b")], "pad": "x".repeat(600_000)}).to_string();
    for bad in ["", "<html>", "{}", r#"{"keys":[]}"#, r#"{"keys":[7]}"#, &private, &huge] {
        case.script.answer(JWKS, bad);
        case.clock.advance(Duration::from_secs(60));
        assert_eq!(case.verify("b").await, Err(AuthErrorKind::InvalidToken));
        assert_eq!(case.verify_new("a").now_or_never(), Some(Ok(())));
        assert!(case.health().failures() > 0 && case.health().is_ready());
    }
}

#[tokio::test]
async fn one_unusable_key_does_not_spoil_the_set_and_secrets_are_never_taken() {
    let case = Case::new();
    let secret = json!({"kty": "oct", "kid": "s", "k": "W".repeat(43)});
    let set = json!({"keys": [7, {"kty": "EC", "kid": 4}, secret, case.key.jwk("a")]});
    case.script.answer(JWKS, &set.to_string());
    assert_eq!(case.verify("a").await, Ok(()));
    assert_eq!((case.health().keys(), case.health().skipped()), (1, 3));
}

#[tokio::test]
async fn keys_are_refreshed_ahead_of_time_and_nobody_waits() {
    let case = Case::warm(&["a"]).await;
    let token = case.token("a", json!({"exp": NOW + 3600}));
    assert_eq!(case.ask(&token).await, Ok(()));
    case.clock.advance(Duration::from_secs(224));
    assert_eq!(case.ask(&token).now_or_never(), Some(Ok(())));
    settle().await;
    assert_eq!(case.script.calls().len(), 1);
    case.clock.advance(Duration::from_secs(1));
    case.script.hold();
    for _ in 0..5 {
        assert_eq!(case.ask(&token).now_or_never(), Some(Ok(())));
        settle().await;
    }
    assert_eq!(case.script.calls().len(), 2);
    case.script.release();
    settle().await;
    assert_eq!(case.health().age(), Some(Duration::ZERO));
}

#[tokio::test]
async fn a_withdrawn_key_stops_counting_within_the_refresh_interval() {
    let case = Case::warm(&["a", "b"]).await;
    let remembered = case.token("a", json!({"exp": NOW + 3600}));
    assert_eq!(case.ask(&remembered).await, Ok(()));
    case.publish(&["b"]);
    case.clock.advance(Duration::from_secs(225));
    assert_eq!(case.ask(&remembered).await, Ok(()), "this one has the set fetched");
    settle().await;
    assert_eq!(case.ask(&remembered).await, Err(AuthErrorKind::InvalidToken));
    assert_eq!(case.verify("b").await, Ok(()));
}

#[tokio::test]
async fn old_keys_serve_through_an_outage_but_not_for_ever() {
    let case = Case::warm(&["a"]).await;
    let remembered = case.token("a", json!({"exp": NOW + 36_000}));
    assert_eq!(case.ask(&remembered).await, Ok(()));
    case.script.fail(JWKS);
    for _ in 0..59 {
        case.clock.advance(Duration::from_secs(60));
        assert_eq!(case.ask(&remembered).now_or_never(), Some(Ok(())));
        settle().await;
    }
    assert_eq!(case.health().age(), Some(Duration::from_secs(59 * 60)));
    // One fetch a minute at most, once it fails.
    assert!((20..70).contains(&case.script.calls().len()), "{}", case.script.calls().len());
    case.clock.advance(Duration::from_secs(60));
    assert_eq!(case.ask(&remembered).await, Err(AuthErrorKind::Unavailable));
    assert!(!case.health().is_ready());
    case.publish(&["a"]);
    case.clock.advance(Duration::from_secs(60));
    assert_eq!(case.ask(&remembered).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn keys_are_kept_up_while_no_request_comes() {
    let case = Case::warm(&["a"]).await;
    for round in 1..5 {
        case.clock.advance(Duration::from_secs(225));
        tokio::time::sleep(Duration::from_secs(226)).await;
        assert_eq!(case.script.calls().len(), 1 + round);
    }
    // The task ends with the server.
    let script = case.script.clone();
    drop(case);
    tokio::time::sleep(Duration::from_secs(10_000)).await;
    assert_eq!(script.calls().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_never_ends_is_given_up() {
    let case = Case::new();
    case.script.hold();
    let began = tokio::time::Instant::now();
    assert_eq!(case.verify("a").await, Err(AuthErrorKind::Unavailable));
    assert_eq!(began.elapsed().as_secs(), 15);
    assert_eq!(case.health().last_error(), Some("it took too long"));
    case.script.release();
    case.publish(&["a"]);
    assert_eq!(case.verify("a").await, Ok(()));
}

#[tokio::test]
async fn a_fetch_that_panics_is_a_failure() {
    let case = Case::new();
    case.script.panic();
    assert_eq!(case.verify("a").await, Err(AuthErrorKind::Unavailable));
    case.publish(&["a"]);
    assert_eq!(case.verify("a").await, Ok(()));
}

#[test]
fn without_a_runtime_the_request_itself_fetches() {
    let case = Case::new();
    case.publish(&["a"]);
    assert_eq!(case.verify("a").now_or_never(), Some(Ok(())));
    case.publish(&["a", "b"]);
    assert_eq!(case.verify("b").now_or_never(), Some(Ok(())));
}

#[test]
fn a_runtime_that_ends_takes_no_keys_with_it() {
    let case = Case::new();
    for ids in [&["a"][..], &["a", "b"], &["a", "b", "c"]] {
        let id = ids[ids.len() - 1];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        case.script.hold();
        runtime.block_on(async {
            let mut waiting = Box::pin(case.verify(id));
            assert!(futures_util::poll!(&mut waiting).is_pending());
            settle().await;
        });
        drop(runtime);
        case.script.release();
        case.publish(ids);
        assert_eq!(case.verify(id).now_or_never(), Some(Ok(())), "{id}");
        case.clock.advance(Duration::from_secs(60));
    }
}

#[tokio::test]
async fn metadata_lead_to_the_keys() {
    let issuer = "https://login.example/realms/a";
    let [first, second, third] = [
        "https://login.example/realms/a/.well-known/openid-configuration",
        "https://login.example/.well-known/oauth-authorization-server/realms/a",
        "https://login.example/.well-known/openid-configuration/realms/a",
    ];
    let metadata = |issuer: &str, url: &str| json!({"issuer": issuer, "jwks_uri": url}).to_string();
    let good = metadata(issuer, JWKS);
    for (place, url) in [first, second, third].into_iter().enumerate() {
        let case = Case::of(Issuer::discover(issuer));
        case.publish(&["a"]);
        case.script.answer(url, &good);
        let token = case.token("a", json!({ "iss": issuer }));
        assert_eq!(case.ask(&token).await, Ok(()));
        let expected = [&[first, second, third][..=place], &[JWKS]].concat();
        assert_eq!(case.script.calls(), expected);
        // What was found is remembered, until it fails.
        case.clock.advance(Duration::from_secs(226));
        assert_eq!(case.ask(&token).await, Ok(()));
        settle().await;
        assert_eq!(case.script.calls()[place + 2..], [JWKS]);
    }
    for bad in [
        metadata("https://login.example/realms/b", JWKS),
        metadata("https://login.example/realms/a/", JWKS),
        metadata(issuer, "http://login.example/jwks"),
        metadata(issuer, "http://127.0.0.1/jwks"),
        "{}".to_owned(),
    ] {
        let case = Case::of(Issuer::discover(issuer));
        case.publish(&["a"]);
        case.script.answer("http://login.example/jwks", &case.set(&["a"]));
        case.script.answer("http://127.0.0.1/jwks", &case.set(&["a"]));
        case.script.answer(first, &bad);
        let token = case.token("a", json!({ "iss": issuer }));
        assert_eq!(case.ask(&token).await, Err(AuthErrorKind::Unavailable), "{bad}");
        assert!(!case.script.calls().iter().any(|url| url.ends_with("jwks")));
    }
}

#[test]
fn without_a_runtime_a_withdrawn_key_stops_counting_too() {
    let case = Case::new();
    case.publish(&["a", "b"]);
    assert_eq!(case.verify("a").now_or_never(), Some(Ok(())));
    assert_eq!(case.verify("a").now_or_never(), Some(Ok(())));
    case.publish(&["b"]);
    case.clock.advance(Duration::from_secs(300));
    assert_eq!(case.verify("a").now_or_never(), Some(Err(AuthErrorKind::InvalidToken)));
    assert_eq!(case.verify("b").now_or_never(), Some(Ok(())));
}

#[tokio::test(start_paused = true)]
async fn keys_may_be_believed_for_ever() {
    let issuer = Issuer::jwks_uri(ISSUER, JWKS);
    let case = Case::of(issuer.max_stale(Duration::MAX).refresh_interval(Duration::MAX));
    case.clock.advance(Duration::from_secs(1));
    case.publish(&["a"]);
    let verdict = tokio::time::timeout(Duration::from_secs(60), case.verify("a")).await;
    assert_eq!(verdict.ok(), Some(Ok(())));
}

#[test]
fn what_could_never_be_fetched_is_refused_when_it_is_built() {
    let remote = |url: &str| Issuer::jwks_uri(ISSUER, url).audience(AUDIENCE);
    assert!(build(remote(JWKS)));
    assert!(build(remote("http://127.0.0.1:1/jwks").insecure_http_loopback()));
    assert!(build(Issuer::discover(ISSUER).audience(AUDIENCE)));
    assert!(!build(Issuer::discover(ISSUER)));
    assert!(!build(remote("http://127.0.0.1:1/jwks")));
    assert!(!build(remote("http://10.0.0.1/jwks").insecure_http_loopback()));
    assert!(!build(remote("jwks.json")));
    assert!(!build(Issuer::discover("login.example").audience(AUDIENCE)));
    assert!(!build(Issuer::discover("http://login.example").audience(AUDIENCE)));
    assert!(!build(remote(JWKS).algorithms([Algorithm::HS256, Algorithm::ES256])));
    assert!(!build(remote(JWKS).refresh_interval(Duration::from_secs(59))));
    assert!(!build(remote(JWKS).max_stale(Duration::from_secs(299))));
}

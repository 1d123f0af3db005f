//! Against a certified OpenID provider: its tokens are accepted, its keys may rotate under load, and whatever is
//! wrong with its key set harms as little as possible.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod jwt_idp_support;
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::FutureExt;
use palisade::{
    Secret,
    jwt::{Algorithm, AuthErrorKind, Issuer, ResourceServer},
};
use sha2::Digest as _;

use crate::jwt_idp_support::*;

#[tokio::test]
async fn tokens_of_every_algorithm_by_real_grants() {
    let Some(idp) = Idp::start() else { return };
    let (server, _) = idp.server();
    let token = |granted: &serde_json::Value| granted["access_token"].as_str().unwrap().to_owned();
    let granted = idp.grant(&["all"]);
    assert_eq!(granted.len(), 11);
    for (one, (resource, algorithm)) in granted.iter().zip(RESOURCES) {
        assert_eq!(one["header"]["alg"], algorithm.name());
        assert_eq!(ask(&server, &token(one)).await, Ok(()), "{resource}");
    }
    for (resource, algorithm) in RESOURCES {
        let granted = idp.grant(&["pkce", resource]).remove(0);
        assert_eq!(granted["header"]["alg"], algorithm.name());
        assert_eq!(granted["claims"]["sub"], "alice");
        assert_eq!(ask(&server, &token(&granted)).await, Ok(()), "{resource}");
        // An ID token is for the client, not for the API.
        let id_token = granted["id_token"].as_str().unwrap();
        assert_eq!(ask(&server, id_token).await, Err(AuthErrorKind::InvalidToken));
    }
    // One fetch of the keys served them all.
    assert_eq!(idp.key_set_fetches().await, 1);

    // HS256 is accepted by whoever was given the secret, and by nobody else.
    let hs256 = token(&granted[5]);
    assert_eq!(ask(&server, &hs256).await, Err(AuthErrorKind::InvalidToken));
    let secret = sha2::Sha256::digest("hs256 resource server shared secret").to_vec();
    let issuer = Issuer::secret(&idp.issuer, Algorithm::HS256, &Secret::new(secret));
    let shared = ResourceServer::builder().issuer(issuer.audience("https://rs.example/hs256"));
    assert_eq!(ask(&shared.build().unwrap(), &hs256).await, Ok(()));

    // Opaque; and bound to a certificate or a key that is not shown here.
    let of = |flow: &str| {
        let is = |one: &&serde_json::Value| one["flow"].as_str().unwrap().ends_with(flow);
        token(granted.iter().find(is).unwrap())
    };
    for bound in [of("mTLS-bound"), of("DPoP"), token(&granted[9])] {
        assert_eq!(ask(&server, &bound).await, Err(AuthErrorKind::InvalidToken));
    }
}

#[tokio::test]
async fn keys_rotate_under_load_and_no_good_request_is_refused() {
    let Some(idp) = Idp::start() else { return };
    let (server, clock) = idp.server();
    let idp = Arc::new(idp);
    let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = RESOURCES
        .iter()
        .map(|(_, algorithm)| {
            let (idp, server) = (Arc::clone(&idp), server.clone());
            let (over, asked) = (Arc::clone(&over), Arc::clone(&asked));
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let token = idp.sign(*algorithm, None).await;
                    for _ in 0..10 {
                        assert_eq!(ask(&server, &token).await, Ok(()));
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut before = 0;
    for _ in 0..5 {
        while asked.load(Ordering::Relaxed) < before + 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Rotations are further apart than the budget's ten seconds.
        clock.advance(Duration::from_secs(10));
        idp.control("rotate?keep=1", None).await;
        before = asked.load(Ordering::Relaxed);
    }
    while asked.load(Ordering::Relaxed) < before + 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    let fetches = idp.key_set_fetches().await;
    assert!((6..=8).contains(&fetches), "{fetches}");
}

#[tokio::test]
async fn whatever_is_wrong_with_the_key_set() {
    const HOLDS: Result<(), AuthErrorKind> = Ok(());
    const DOWN: Result<(), AuthErrorKind> = Err(AuthErrorKind::Unavailable);
    const UNKNOWN: Result<(), AuthErrorKind> = Err(AuthErrorKind::InvalidToken);
    let Some(idp) = Idp::start() else { return };
    // What a good token gets from a server that never had keys, and from one that had the right ones.
    for (mode, cold, warm) in [
        ("ok", HOLDS, HOLDS),
        ("down", DOWN, HOLDS),
        ("slow&ms=60000", DOWN, HOLDS),
        ("garbage", DOWN, HOLDS),
        ("huge", DOWN, HOLDS),
        ("empty", DOWN, HOLDS),
        // A published private key: the whole set is refused.
        ("private", DOWN, HOLDS),
        ("badkey", HOLDS, HOLDS),
        ("badset", HOLDS, HOLDS),
        ("oct", HOLDS, HOLDS),
        ("nokid", HOLDS, HOLDS),
        // No key has the name that tokens go by any more.
        ("dupkid", UNKNOWN, UNKNOWN),
    ] {
        let (server, clock) = idp.server();
        idp.control("jwks?mode=ok", None).await;
        server.warm_up().await;
        assert!(server.health()[0].is_ready());
        idp.control(&format!("jwks?mode={mode}"), None).await;
        clock.advance(Duration::from_secs(226));
        let fetches = idp.key_set_fetches().await;
        let first = idp.sign(Algorithm::ES256, None).await;
        let at_once = ask(&server, &first).now_or_never();
        assert_eq!(at_once, Some(HOLDS), "{mode}: nobody waits for the refresh");
        while server.health()[0].age() > Some(Duration::from_secs(200))
            && server.health()[0].failures() == 0
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(idp.key_set_fetches().await > fetches, "{mode}");
        for (_, algorithm) in RESOURCES {
            let token = idp.sign(algorithm, None).await;
            assert_eq!(ask(&server, &token).await, warm, "{mode}, warm, {algorithm:?}");
        }

        let (server, clock) = idp.server();
        let token = idp.sign(Algorithm::ES256, None).await;
        assert_eq!(ask(&server, &token).await, cold, "{mode}, cold");
        if mode == "dupkid" {
            for (_, algorithm) in RESOURCES {
                let token = idp.sign(algorithm, Some("same")).await;
                assert_eq!(ask(&server, &token).await, HOLDS, "{mode}, {algorithm:?}");
            }
        }
        idp.control("jwks?mode=ok", None).await;
        clock.advance(Duration::from_secs(60));
        assert_eq!(ask(&server, &token).await, HOLDS, "{mode}: it recovers");
    }
}

#[tokio::test]
async fn a_withdrawn_key_takes_its_tokens_with_it() {
    let Some(idp) = Idp::start() else { return };
    let (server, _) = idp.server();
    let old = idp.sign(Algorithm::EdDSA, None).await;
    assert_eq!(ask(&server, &old).await, Ok(()));
    idp.control("rotate?keep=0", None).await;
    let new = idp.sign(Algorithm::EdDSA, None).await;
    assert_eq!(ask(&server, &new).await, Ok(()));
    assert_eq!(ask(&server, &old).await, Err(AuthErrorKind::InvalidToken));
}

#[tokio::test]
async fn a_flood_of_unknown_keys_reaches_the_provider_as_a_trickle() {
    let Some(idp) = Idp::start() else { return };
    let (server, _) = idp.server();
    let good = idp.sign(Algorithm::ES256, None).await;
    assert_eq!(ask(&server, &good).await, Ok(()));
    let (_, rest) = good.split_once('.').unwrap();
    let began = std::time::Instant::now();
    let flood = (0..2_000).map(|n| {
        let header = format!(r#"{{"alg":"ES256","typ":"at+jwt","kid":"made-up-{n}"}}"#);
        let token = format!("{}.{rest}", BASE64_URL_SAFE_NO_PAD.encode(header));
        let server = server.clone();
        tokio::spawn(async move { ask(&server, &token).await })
    });
    let flood: Vec<_> = flood.collect();
    for _ in 0..20 {
        let fresh = idp.sign(Algorithm::ES256, None).await;
        assert_eq!(ask(&server, &fresh).await, Ok(()));
        assert_eq!(ask(&server, &good).now_or_never(), Some(Ok(())));
    }
    for one in flood {
        assert_eq!(one.await.unwrap(), Err(AuthErrorKind::InvalidToken));
    }
    let budget = 1 + 3 + began.elapsed().as_secs() / 10;
    assert!(idp.key_set_fetches().await <= budget);
}

//! Revocation: single tokens, all of a subject, other processes, and a store that does not answer.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod jwt_support;
#[cfg(feature = "redis")]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use jwt_support::{ISSUER, Key, NOW, claims, clock, server_at};
use palisade::{
    clock::ManualClock,
    future::ReadyOr,
    identity::UserIdentity,
    jwt::{Algorithm, AuthError, AuthErrorKind, Presented, Revocable, Revocations, TokenVerifier},
    store::{self, Distinct, FactStore, MemoryStore, Pepper, StoreError, StoreFuture, Stores},
};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// A store that counts what it is asked, and may be down.
#[derive(Debug)]
struct Shared {
    facts: MemoryStore,
    down: AtomicBool,
    asked: AtomicU64,
}

impl Shared {
    fn asked(&self) -> u64 {
        self.asked.swap(0, Ordering::Relaxed)
    }

    fn answer<T: Send + 'static>(&self, answer: StoreFuture<T>) -> StoreFuture<T> {
        if self.down.load(Ordering::Relaxed) {
            return ReadyOr::ready(Err(StoreError::transient("down")));
        }
        // As over a network, nothing is there at once.
        ReadyOr::pending(answer)
    }
}

impl FactStore for Shared {
    fn first_use(&self, key: store::Key, ttl: Duration) -> StoreFuture<bool> {
        self.answer(self.facts.first_use(key, ttl))
    }

    fn raise(&self, key: store::Key, value: u64, ttl: Duration) -> StoreFuture<u64> {
        self.answer(self.facts.raise(key, value, ttl))
    }

    fn get(&self, key: store::Key) -> StoreFuture<Option<u64>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.answer(self.facts.get(key))
    }

    fn distinct(
        &self,
        key: store::Key,
        member: store::Key,
        window: Duration,
        cap: u32,
    ) -> StoreFuture<Distinct> {
        self.answer(self.facts.distinct(key, member, window, cap))
    }
}

/// Two processes over one store, and an issuer.
struct Setup {
    clock: Arc<ManualClock>,
    shared: Arc<Shared>,
    stores: Stores,
    key: Key,
}

impl Setup {
    fn new() -> Self {
        let clock = clock();
        let facts = MemoryStore::builder().clock(clock.clone()).build().unwrap();
        let shared = Shared { facts, down: AtomicBool::new(false), asked: AtomicU64::new(0) };
        let shared = Arc::new(shared);
        let other = Arc::new(MemoryStore::default());
        let stores = Stores::separate(other.clone(), shared.clone(), other, Pepper::random());
        Self { clock, shared, stores, key: Key::new(Algorithm::EdDSA) }
    }

    fn process(&self) -> Revocations {
        Revocations::new(&self.stores).clock(self.clock.clone())
    }

    fn over(&self, revocations: &Revocations) -> Revocable {
        let server = server_at(self.clock.clone()).issuer(self.key.issuer()).build().unwrap();
        revocations.over(server)
    }

    fn token(&self, change: Value) -> String {
        self.key.token(&claims(change))
    }
}

async fn verify(verifier: &Revocable, token: &str) -> Result<Arc<UserIdentity>, AuthErrorKind> {
    let answer: Result<_, AuthError> = verifier.verify(&Presented::alone(token)).await;
    answer.map_err(|error| error.kind())
}

/// What is left to be done in the background is done.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

const REVOKED: AuthErrorKind = AuthErrorKind::InvalidToken;

#[tokio::test]
async fn a_token_is_revoked_by_its_issuer_and_id() {
    let setup = Setup::new();
    let here = setup.process();
    let verifier = setup.over(&here);
    let (one, other) = (setup.token(json!({})), setup.token(json!({"jti": "2"})));
    let same = setup.token(json!({"client_id": "b"}));
    assert!(verify(&verifier, &one).await.is_ok());
    here.revoke_token("https://other.example", "1", NOW + 300).await.unwrap();
    assert!(verify(&verifier, &one).await.is_ok());
    here.revoke_token(ISSUER, "1", NOW + 300).await.unwrap();
    assert_eq!(verify(&verifier, &one).await.unwrap_err(), REVOKED, "at once, where it was said");
    assert_eq!(verify(&verifier, &same).await.unwrap_err(), REVOKED, "whatever its text");
    assert!(verify(&verifier, &other).await.is_ok());
    let denied = verifier.verify(&Presented::alone(&one)).await.unwrap_err();
    assert_eq!(denied.description(), "The access token was revoked.");
}

#[tokio::test]
async fn all_tokens_of_a_subject_are_revoked_by_when_they_were_issued() {
    let setup = Setup::new();
    let here = setup.process();
    let verifier = setup.over(&here);
    let issued = |at: u64, jti: &str| setup.token(json!({"iat": at, "jti": jti}));
    let (before, then, after) = (issued(NOW - 9, "1"), issued(NOW - 5, "2"), issued(NOW - 4, "3"));
    let other = setup.token(json!({"sub": "bob", "iat": NOW - 9}));
    here.revoke_before(ISSUER, "alice", NOW - 5, DAY).await.unwrap();
    assert_eq!(verify(&verifier, &before).await.unwrap_err(), REVOKED);
    assert_eq!(verify(&verifier, &then).await.unwrap_err(), REVOKED);
    assert!(verify(&verifier, &after).await.is_ok());
    assert!(verify(&verifier, &other).await.is_ok());
    // An earlier time takes nothing back.
    here.revoke_before(ISSUER, "alice", NOW - 100, DAY).await.unwrap();
    assert_eq!(verify(&verifier, &then).await.unwrap_err(), REVOKED);
    here.revoke_before(ISSUER, "alice", NOW, DAY).await.unwrap();
    assert_eq!(verify(&verifier, &after).await.unwrap_err(), REVOKED);
}

#[tokio::test]
async fn another_process_knows_within_the_staleness() {
    let setup = Setup::new();
    let (here, there) = (setup.process(), setup.process());
    let verifier = setup.over(&there);
    let token = setup.token(json!({}));
    assert!(verify(&verifier, &token).await.is_ok());
    here.revoke_token(ISSUER, "1", NOW + 300).await.unwrap();
    setup.clock.advance(SECOND * 4);
    assert!(verify(&verifier, &token).await.is_ok(), "by the last answer");
    setup.clock.advance(SECOND * 6);
    assert_eq!(verify(&verifier, &token).await.unwrap_err(), REVOKED);
}

#[tokio::test]
async fn a_token_in_use_costs_no_round_trip_and_never_waits() {
    let setup = Setup::new();
    let verifier = setup.over(&setup.process());
    let token = setup.token(json!({}));
    assert!(verify(&verifier, &token).await.is_ok());
    assert_eq!(setup.shared.asked(), 2, "by the token and by the subject");
    for second in 1..100 {
        setup.clock.advance(SECOND);
        for _ in 0..10 {
            let answer = verifier.verify(&Presented::alone(&token)).try_now();
            assert!(answer.expect("nothing to wait for").is_ok(), "second {second}");
        }
        settle().await;
    }
    let asked = setup.shared.asked();
    assert!((30..=40).contains(&asked), "two for every five seconds: {asked}");
}

#[tokio::test]
async fn an_outage_refuses_once_the_last_answer_is_too_old() {
    let setup = Setup::new();
    let (strict, lax) = (setup.process(), setup.process().insecure_accept_unasked());
    let (strict, lax_verifier) = (setup.over(&strict), setup.over(&lax));
    let (token, bad) = (setup.token(json!({})), setup.token(json!({"jti": "bad"})));
    lax.revoke_token(ISSUER, "bad", NOW + 300).await.unwrap();
    assert!(verify(&strict, &token).await.is_ok());

    setup.shared.down.store(true, Ordering::Relaxed);
    setup.clock.advance(SECOND * 9);
    assert!(verify(&strict, &token).await.is_ok());
    settle().await;
    setup.clock.advance(SECOND);
    assert_eq!(verify(&strict, &token).await.unwrap_err(), AuthErrorKind::Unavailable);
    assert!(verify(&lax_verifier, &token).await.is_ok());
    assert_eq!(verify(&lax_verifier, &bad).await.unwrap_err(), REVOKED, "it was known before");
    assert!(lax.revoke_token(ISSUER, "2", NOW).await.is_err(), "nobody believes it was revoked");

    setup.shared.down.store(false, Ordering::Relaxed);
    assert!(verify(&strict, &token).await.is_ok());
}

#[tokio::test]
async fn a_revocation_lasts_as_long_as_the_token_could() {
    let setup = Setup::new();
    let here = setup.process();
    let verifier = setup.over(&here);
    let token = setup.token(json!({"exp": NOW + 3600}));
    here.revoke_token(ISSUER, "1", NOW + 3600).await.unwrap();
    setup.clock.advance(SECOND * 3629);
    assert_eq!(verify(&verifier, &token).await.unwrap_err(), REVOKED);
    // And no longer: by then its own end has it refused.
    setup.clock.advance(SECOND * 700);
    let key =
        setup.stores.pepper().key("revoked-token").with(ISSUER.as_bytes()).with(b"1").finish();
    assert_eq!(setup.shared.facts.get(key).await.unwrap(), None);
}

#[tokio::test]
async fn who_has_no_token_that_holds_causes_no_round_trip() {
    let setup = Setup::new();
    let verifier = setup.over(&setup.process());
    let forged = Key::new(Algorithm::EdDSA).token(&claims(json!({})));
    for token in [forged.as_str(), "x", &setup.token(json!({"exp": NOW - 100}))] {
        assert!(verify(&verifier, token).await.is_err());
    }
    assert_eq!(setup.shared.asked(), 0);
}

#[test]
fn nothing_secret_shows() {
    let setup = Setup::new();
    let stores = setup.stores.clone();
    let shown = format!("{:?}", setup.over(&Revocations::new(&stores)));
    assert!(shown.contains("Secret(..)") && shown.contains("Replica(32768 answers)"), "{shown}");
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn processes_share_revocations_over_redis() {
    use palisade::store::RedisStore;

    let Some(server) = support::redis::RedisServer::start() else { return };
    let setup = Setup::new();
    let process = || {
        let store = RedisStore::builder(&server.url()).deadline(SECOND * 2).build().unwrap();
        let stores = Stores::new(Arc::new(store), Pepper::from_secret("shared"));
        Revocations::new(&stores).clock(setup.clock.clone())
    };
    let (here, there) = (process(), process());
    let verifier = setup.over(&there);
    let (one, two) = (setup.token(json!({})), setup.token(json!({"jti": "2"})));
    assert!(verify(&verifier, &one).await.is_ok());
    here.revoke_token(ISSUER, "1", NOW + 300).await.unwrap();
    setup.clock.advance(SECOND * 10);
    assert_eq!(verify(&verifier, &one).await.unwrap_err(), REVOKED);
    assert!(verify(&verifier, &two).await.is_ok());
    here.revoke_before(ISSUER, "alice", NOW, DAY).await.unwrap();
    setup.clock.advance(SECOND * 10);
    assert_eq!(verify(&verifier, &two).await.unwrap_err(), REVOKED);
}

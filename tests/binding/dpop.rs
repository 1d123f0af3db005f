//! RFC 9449: tokens bound to a key, and proofs of having it.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue};
use palisade::{
    BuildError, Secret,
    clock::ManualClock,
    future::ReadyOr,
    jwt::{
        Algorithm, ApiKeyFile, Confirmation, CryptoBackend, DpopOptions, JwtAuthLayer, NewApiKey,
        ResourceServer, Revocations,
    },
    peer_cert::{PeerCertLayer, PeerRule},
    store::{Distinct, FactStore, MemoryStore, Pepper, StoreError, StoreFuture, Stores},
};
use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Answer, ask, challenges, client::*, code, seen};
use crate::{
    jwt_support::*,
    pki::{Authority, GATEWAY},
};

struct Case {
    key: Key,
    client: Client,
    clock: Arc<ManualClock>,
    layer: JwtAuthLayer,
}

impl Case {
    fn new(options: impl FnOnce(DpopOptions) -> DpopOptions) -> Self {
        Self::with(Algorithm::ES256, &Stores::in_memory(), options)
    }

    fn with(
        algorithm: Algorithm,
        stores: &Stores,
        options: impl FnOnce(DpopOptions) -> DpopOptions,
    ) -> Self {
        let (key, client, clock) = (Key::new(Algorithm::EdDSA), Client::new(algorithm), clock());
        let dpop = options(DpopOptions::new(ADDRESS).stores(stores));
        let server = server_at(Arc::clone(&clock)).issuer(key.issuer()).dpop(dpop).build();
        let layer = JwtAuthLayer::new(server.unwrap());
        Self { key, client, clock, layer }
    }

    fn token(&self) -> String {
        self.key.token(&self.client.bound())
    }

    async fn send(&self, request: http::Request<super::Body>) -> Answer {
        ask(None, &self.layer, request).await
    }

    /// With these headers.
    async fn post(&self, headers: &[(&str, &str)]) -> Answer {
        self.send(request(headers)).await
    }

    /// With a proof that has `change` made to its claims.
    async fn prove(&self, change: serde_json::Value) -> Answer {
        let token = self.token();
        let proof = self.client.proof(&token, change);
        self.post(&[("authorization", &format!("DPoP {token}")), ("dpop", &proof)]).await
    }
}

fn nonce(answer: &Answer) -> Option<&str> {
    answer.headers().get("dpop-nonce").map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_token_with_its_proof_passes_by_every_algorithm_and_backend() {
    let backends = [
        #[cfg(feature = "aws-lc-rs")]
        CryptoBackend::aws_lc_rs(),
        #[cfg(feature = "rust-crypto")]
        CryptoBackend::rust_crypto(),
    ];
    for algorithm in
        [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA, Algorithm::RS256, Algorithm::PS512]
    {
        let (key, client) = (Key::new(Algorithm::EdDSA), Client::new(algorithm));
        for backend in backends {
            let stores = Stores::in_memory();
            let dpop = DpopOptions::new(ADDRESS).stores(&stores).algorithms([algorithm]);
            let server = server_at(clock()).issuer(key.issuer()).crypto(backend).dpop(dpop);
            let layer = JwtAuthLayer::new(server.build().unwrap());
            let token = key.token(&client.bound());
            // The second finds the token remembered.
            for id in ["1", "2"] {
                let answer = ask(None, &layer, client.request(&token, id)).await;
                assert_eq!(seen(&answer).subject.as_deref(), Some("alice"), "{algorithm:?}");
                assert!(seen(&answer).headers.is_empty(), "token and proof go no further");
            }
        }
    }
}

#[tokio::test]
async fn a_proof_serves_once() {
    let case = Case::new(|options| options);
    let token = case.token();
    for id in ["1", "2"] {
        assert_eq!(code(&case.send(case.client.request(&token, id)).await), "passed");
        let answer = case.send(case.client.request(&token, id)).await;
        assert_eq!((answer.status().as_u16(), code(&answer)), (401, "invalid_dpop_proof"));
        assert!(challenges(&answer)[1].contains("was used before"));
    }
    case.clock.advance(Duration::from_secs(60));
    let answer = case.send(case.client.request(&token, "1")).await;
    assert!(challenges(&answer)[1].contains("was used before"));
    case.clock.advance(Duration::from_secs(1));
    let answer = case.send(case.client.request(&token, "1")).await;
    assert!(challenges(&answer)[1].contains("was not made just now"));
}

#[tokio::test]
async fn a_proof_serves_once_for_all_servers_that_share_a_store() {
    let stores = Stores::new(Arc::new(MemoryStore::default()), Pepper::from_secret("shared"));
    let (key, client) = (Key::new(Algorithm::EdDSA), Client::new(Algorithm::ES256));
    let layers = [(); 2].map(|()| {
        let dpop = DpopOptions::new(ADDRESS).stores(&stores);
        let server = server_at(clock()).issuer(key.issuer()).dpop(dpop).build().unwrap();
        JwtAuthLayer::new(server)
    });
    let token = key.token(&client.bound());
    assert_eq!(code(&ask(None, &layers[0], client.request(&token, "1")).await), "passed");
    let replayed = ask(None, &layers[1], client.request(&token, "1")).await;
    assert_eq!(code(&replayed), "invalid_dpop_proof");
    assert_eq!(code(&ask(None, &layers[1], client.request(&token, "2")).await), "passed");
    // The ids of one key are none of another's business.
    let other = Client::new(Algorithm::ES256);
    let token = key.token(&other.bound());
    assert_eq!(code(&ask(None, &layers[1], other.request(&token, "1")).await), "passed");
}

#[tokio::test]
async fn a_proof_that_does_not_hold_is_not_used_up() {
    let case = Case::new(|options| options);
    let token = case.token();
    let good = case.client.proof(&token, json!({}));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", base64(&[signature.as_bytes(), b"x"].concat()[..64]));
    let authorization = format!("DPoP {token}");
    let post = async |proof: &str| {
        code(&case.post(&[("authorization", &authorization), ("dpop", proof)]).await)
    };
    assert_eq!(post(&forged).await, "invalid_dpop_proof");
    let early = case.client.proof(&token, json!({"htm": "GET"}));
    assert_eq!(post(&early).await, "invalid_dpop_proof");
    assert_eq!(post(&good).await, "passed");
}

#[tokio::test]
async fn no_downgrade_either_way() {
    let case = Case::new(|options| options);
    let token = case.token();
    let proof = case.client.proof(&token, json!({}));
    for headers in [
        &[("authorization", &*format!("Bearer {token}")), ("dpop", &proof)][..],
        &[("authorization", &format!("Bearer {token}"))],
        &[("x-api-key", &token)],
    ] {
        let answer = case.post(headers).await;
        assert_eq!((answer.status().as_u16(), code(&answer)), (401, "invalid_token"));
        let [bearer, dpop] = challenges(&answer)[..] else { panic!("two challenges") };
        assert!(bearer.starts_with("Bearer realm=\"inference\", error=\"invalid_token\""));
        assert_eq!(dpop, "DPoP algs=\"RS256 PS256 ES256 EdDSA\"");
    }
    let unbound = case.key.token(&claims(json!({})));
    let answer = case.send(case.client.request(&unbound, "2")).await;
    assert_eq!((answer.status().as_u16(), code(&answer)), (401, "invalid_token"));
    let [bearer, dpop] = challenges(&answer)[..] else { panic!("two challenges") };
    assert_eq!(bearer, "Bearer realm=\"inference\"");
    assert!(dpop.starts_with("DPoP error=\"invalid_token\", error_description="), "{dpop}");
    // As a bearer token it is what it says, and remembered as no more than that.
    let bearer = format!("Bearer {unbound}");
    assert_eq!(code(&case.post(&[("authorization", &bearer)]).await), "passed");
    let answer = case.send(case.client.request(&unbound, "3")).await;
    assert_eq!(code(&answer), "invalid_token");
}

#[tokio::test]
async fn a_remembered_token_still_needs_its_proof() {
    let case = Case::new(|options| options);
    let token = case.token();
    assert_eq!(code(&case.send(case.client.request(&token, "1")).await), "passed");
    let authorization = format!("DPoP {token}");
    assert_eq!(code(&case.post(&[("authorization", &authorization)]).await), "invalid_dpop_proof");
    let bearer = format!("Bearer {token}");
    assert_eq!(code(&case.post(&[("authorization", &bearer)]).await), "invalid_token");
    let thief = Client::new(Algorithm::ES256);
    let answer = case.send(thief.request(&token, "2")).await;
    assert_eq!((answer.status().as_u16(), code(&answer)), (401, "invalid_token"));
    assert!(challenges(&answer)[1].contains("bound to another key"));
    assert_eq!(code(&case.send(case.client.request(&token, "3")).await), "passed");
}

#[tokio::test]
async fn there_is_exactly_one_proof() {
    let case = Case::new(|options| options);
    let token = case.token();
    let authorization = format!("DPoP {token}");
    let [one, two] = ["1", "2"].map(|id| case.client.proof(&token, json!({ "jti": id })));
    for proofs in [&[][..], &["dpop"], &[&one, &two], &[&one, &one], &[&format!("{one}, {two}")]] {
        let mut request = request(&[("authorization", &authorization)]);
        for proof in proofs {
            request.headers_mut().append("dpop", proof.parse().unwrap());
        }
        let answer = case.send(request).await;
        assert_eq!((answer.status().as_u16(), code(&answer)), (401, "invalid_dpop_proof"));
    }
    let two = [("authorization", &*authorization), ("x-api-key", "k"), ("dpop", &one)];
    assert_eq!(case.post(&two).await.status(), 400);
}

#[tokio::test]
async fn a_proof_is_for_this_request_and_token_and_time() {
    let case = Case::new(|options| options.also("https://other.example/llm"));
    for (change, expected) in [
        (json!({"jti": "a", "htu": "https://LLM.example:443/v1/chat/completions?a=b#c"}), "passed"),
        (json!({"jti": "b", "htu": "https://other.example/llm/v1/chat/completions"}), "passed"),
        (json!({"jti": "c", "iat": NOW - 60}), "passed"),
        (json!({"htm": "GET"}), "invalid_dpop_proof"),
        (json!({"htu": "https://llm.example/v1/completions"}), "invalid_dpop_proof"),
        (json!({"htu": "https://localhost/v1/chat/completions"}), "invalid_dpop_proof"),
        (json!({"ath": base64(&Sha256::digest("other"))}), "invalid_dpop_proof"),
        (json!({"ath": null}), "invalid_dpop_proof"),
        (json!({"jti": null}), "invalid_dpop_proof"),
        (json!({"iat": NOW - 61}), "invalid_dpop_proof"),
    ] {
        assert_eq!(code(&case.prove(change.clone()).await), expected, "{change}");
    }
    let narrow = Case::new(|options| options.window(Duration::from_secs(5)));
    assert_eq!(code(&narrow.prove(json!({"iat": NOW - 5})).await), "passed");
    assert_eq!(code(&narrow.prove(json!({"iat": NOW - 6})).await), "invalid_dpop_proof");
}

#[tokio::test]
async fn an_algorithm_that_is_not_allowed_is_none() {
    let stores = Stores::in_memory();
    let only = |options: DpopOptions| options.algorithms([Algorithm::EdDSA]);
    let case = Case::with(Algorithm::ES256, &stores, only);
    let answer = case.prove(json!({})).await;
    assert_eq!(code(&answer), "invalid_dpop_proof");
    assert!(challenges(&answer)[1].ends_with("algs=\"EdDSA\""));
    let case = Case::with(Algorithm::EdDSA, &stores, only);
    assert_eq!(code(&case.prove(json!({})).await), "passed");
}

#[tokio::test]
async fn the_servers_nonce_is_asked_for_and_renewed() {
    let case = Case::new(|options| options.nonce(Duration::from_secs(100)));
    let missing = case.post(&[]).await;
    assert_eq!(code(&missing), "missing_credentials");
    assert_eq!(challenges(&missing)[1], "DPoP algs=\"RS256 PS256 ES256 EdDSA\"");
    assert!(nonce(&missing).is_some());

    let answer = case.prove(json!({})).await;
    assert_eq!((answer.status().as_u16(), code(&answer)), (401, "use_dpop_nonce"));
    assert_eq!(challenges(&answer)[0], "Bearer realm=\"inference\"");
    assert!(challenges(&answer)[1].starts_with("DPoP error=\"use_dpop_nonce\", "));
    let first = nonce(&answer).unwrap().to_owned();

    // A proof that is refused for its nonce is not used up.
    let passed = case.prove(json!({"nonce": first})).await;
    assert_eq!((code(&passed), nonce(&passed)), ("passed", Some(&*first)));
    let forged = case.prove(json!({"jti": "2", "nonce": format!("{first}x")})).await;
    assert_eq!(code(&forged), "use_dpop_nonce");

    case.clock.advance(Duration::from_secs(100));
    let later = |jti: &str| json!({"jti": jti, "nonce": first, "iat": NOW + 100});
    let passed = case.prove(later("3")).await;
    assert_eq!(code(&passed), "passed");
    let second = nonce(&passed).unwrap().to_owned();
    assert_ne!(first, second);
    case.clock.advance(Duration::from_secs(100));
    let stale = json!({"jti": "4", "nonce": first, "iat": NOW + 200});
    assert_eq!(code(&case.prove(stale).await), "use_dpop_nonce");
    let fresh = json!({"jti": "4", "nonce": second, "iat": NOW + 200});
    assert_eq!(code(&case.prove(fresh).await), "passed");
    // Who does not use DPoP is not bothered with nonces.
    let bearer = format!("Bearer {}", case.key.token(&claims(json!({}))));
    assert_eq!(nonce(&case.post(&[("authorization", &bearer)]).await), None);
}

#[tokio::test]
async fn a_token_bound_to_both_needs_both() {
    let (key, client, ca) =
        (Key::new(Algorithm::EdDSA), Client::new(Algorithm::ES256), Authority::new("ca"));
    let (gateway, renewed) = (ca.workload(GATEWAY), ca.workload(GATEWAY));
    let thumbprint = base64(&Sha256::digest(&gateway.der));
    let cnf = json!({"x5t#S256": thumbprint, "jkt": client.thumbprint()});
    let token = key.token(&claims(json!({ "cnf": cnf })));
    let peers = PeerCertLayer::builder().allow(PeerRule::spiffe(GATEWAY).unwrap()).build().unwrap();
    let layer = |confirmation| {
        let dpop = DpopOptions::new(ADDRESS).stores(&Stores::in_memory());
        let server = server_at(clock()).issuer(key.issuer()).dpop(dpop);
        JwtAuthLayer::new(server.confirmation(confirmation).build().unwrap())
    };
    let enforcing = layer(Confirmation::Enforce);
    let with = |leaf: &crate::pki::Leaf, mut request: http::Request<super::Body>| {
        request.extensions_mut().insert(leaf.chain());
        request
    };
    let both = with(&gateway, client.request(&token, "1"));
    assert_eq!(code(&ask(Some(&peers), &enforcing, both).await), "passed");
    let bearer = format!("Bearer {token}");
    for request in [
        with(&gateway, request(&[("authorization", &bearer)])),
        with(&renewed, client.request(&token, "2")),
    ] {
        assert_eq!(code(&ask(Some(&peers), &enforcing, request).await), "invalid_token");
    }
    // One of the two is not checked here.
    let half = with(&gateway, client.request(&token, "3"));
    let refusing = layer(Confirmation::Refuse);
    assert_eq!(code(&ask(Some(&peers), &refusing, half).await), "invalid_token");
}

#[tokio::test]
async fn without_dpop_its_scheme_and_tokens_are_refused() {
    let (key, client) = (Key::new(Algorithm::EdDSA), Client::new(Algorithm::ES256));
    let layer = JwtAuthLayer::new(server(&key));
    let token = key.token(&client.bound());
    let answer = ask(None, &layer, client.request(&token, "1")).await;
    assert_eq!((answer.status().as_u16(), code(&answer)), (401, "missing_credentials"));
    assert_eq!(challenges(&answer), ["Bearer realm=\"inference\""]);
    let bearer = format!("Bearer {token}");
    let answer = ask(None, &layer, request(&[("authorization", &bearer)])).await;
    assert_eq!(code(&answer), "invalid_token");
}

#[tokio::test]
async fn too_little_scope_is_told_under_the_scheme_that_was_used() {
    let case = Case::new(|options| options);
    let dpop = DpopOptions::new(ADDRESS).stores(&Stores::in_memory());
    let server = server_at(clock()).issuer(case.key.issuer()).dpop(dpop).build().unwrap();
    let layer = JwtAuthLayer::builder(server).require_scopes(["admin"]).build().unwrap();
    let answer = ask(None, &layer, case.client.request(&case.token(), "1")).await;
    assert_eq!((answer.status().as_u16(), code(&answer)), (403, "insufficient_scope"));
    assert_eq!(challenges(&answer)[0], "Bearer realm=\"inference\", scope=\"admin\"");
    assert!(challenges(&answer)[1].contains("error=\"insufficient_scope\""));
    assert!(challenges(&answer)[1].contains("scope=\"admin\", algs="));
}

#[tokio::test]
async fn verifiers_around_the_server_ask_for_proofs_too() {
    let case = Case::new(|options| options);
    let stores = Stores::in_memory();
    let revocations = Revocations::new(&stores);
    let dpop = DpopOptions::new(ADDRESS).stores(&stores);
    let server = server_at(clock()).issuer(case.key.issuer()).dpop(dpop).build().unwrap();
    let folder = concat!(env!("CARGO_TARGET_TMPDIR"), "/binding");
    std::fs::create_dir_all(folder).unwrap();
    let path = format!("{folder}/keys-{}.json", std::process::id());
    let file = ApiKeyFile::new(&path, &Secret::new(b"a pepper for tests".to_vec())).unwrap();
    let key = file.issue(NewApiKey::new("keys", "bob")).unwrap();
    let keys = file.open().unwrap();
    let layer = JwtAuthLayer::builder(revocations.over(keys.or(server))).build().unwrap();
    let token = case.token();
    assert_eq!(code(&ask(None, &layer, case.client.request(&token, "1")).await), "passed");
    let replayed = ask(None, &layer, case.client.request(&token, "1")).await;
    assert_eq!(code(&replayed), "invalid_dpop_proof");
    let key = key.key.expose();
    let bearer = ask(None, &layer, request(&[("authorization", &format!("Bearer {key}"))])).await;
    assert_eq!(seen(&bearer).subject.as_deref(), Some("bob"));
    let proven = ask(None, &layer, case.client.request(key, "2")).await;
    assert_eq!(code(&proven), "invalid_token");
    std::fs::remove_file(path).unwrap();
}

/// A store that can't be asked, sooner or later.
#[derive(Debug)]
struct Down {
    waits: bool,
}

impl Down {
    fn fail<T: Send + 'static>(&self) -> StoreFuture<T> {
        let error = || StoreError::transient("down");
        if self.waits {
            return ReadyOr::pending(async move {
                tokio::task::yield_now().await;
                Err(error())
            });
        }
        ReadyOr::ready(Err(error()))
    }
}

impl FactStore for Down {
    fn first_use(&self, _: palisade::store::Key, _: Duration) -> StoreFuture<bool> {
        self.fail()
    }
    fn raise(&self, _: palisade::store::Key, _: u64, _: Duration) -> StoreFuture<u64> {
        self.fail()
    }
    fn get(&self, _: palisade::store::Key) -> StoreFuture<Option<u64>> {
        self.fail()
    }
    fn distinct(
        &self,
        _: palisade::store::Key,
        _: palisade::store::Key,
        _: Duration,
        _: u32,
    ) -> StoreFuture<Distinct> {
        self.fail()
    }
}

#[tokio::test]
async fn while_the_store_is_down_no_proof_is_believed() {
    for waits in [false, true] {
        let other = Arc::new(MemoryStore::default());
        let down = Arc::new(Down { waits });
        let stores = Stores::separate(other.clone(), down, other, Pepper::random());
        let case = Case::with(Algorithm::ES256, &stores, |options| options);
        let token = case.token();
        for id in ["1", "2"] {
            let answer = case.send(case.client.request(&token, id)).await;
            assert_eq!((answer.status().as_u16(), code(&answer)), (503, "auth_unavailable"));
        }
        // What needs no store is served.
        let bearer = format!("Bearer {}", case.key.token(&claims(json!({}))));
        assert_eq!(code(&case.post(&[("authorization", &bearer)]).await), "passed");
    }
}

#[test]
fn options_that_cannot_be_meant_are_refused() {
    let key = Key::new(Algorithm::EdDSA);
    let stores = Stores::in_memory();
    let build = |options: DpopOptions| -> Result<ResourceServer, BuildError> {
        server_at(clock()).issuer(key.issuer()).dpop(options).build()
    };
    let good = || DpopOptions::new(ADDRESS).stores(&stores);
    let seconds = Duration::from_secs;
    assert!(build(good()).is_ok());
    assert!(build(DpopOptions::new(ADDRESS)).unwrap_err().to_string().contains("stores"));
    for bad in [
        DpopOptions::new("llm.example").stores(&stores),
        DpopOptions::new("http://llm.example").stores(&stores),
        good().also(""),
        good().algorithms([]),
        good().algorithms([Algorithm::ES256, Algorithm::HS256]),
        good().window(seconds(0)),
        good().window(seconds(601)),
        good().nonce(Duration::from_millis(999)),
        good().nonce(seconds(86_401)),
    ] {
        let shown = format!("{bad:?}");
        assert!(build(bad).is_err(), "{shown}");
    }
    let shown = format!("{:?}", build(good()).unwrap());
    assert!(shown.contains("llm.example"), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_proof_makes_it_panic_or_pass(proofs in prop::collection::vec(header_value(), 0..3)) {
        thread_local!(static CASE: (Case, String) = {
            let case = Case::new(|options| options);
            let authorization = format!("DPoP {}", case.token());
            (case, authorization)
        });
        let mut headers = HeaderMap::new();
        for proof in proofs {
            headers.append("dpop", proof);
        }
        let status = CASE.with(|(case, authorization)| {
            let mut request = request(&[("authorization", authorization)]);
            request.headers_mut().extend(headers);
            futures_util::FutureExt::now_or_never(case.send(request)).unwrap().status()
        });
        prop_assert_eq!(status.as_u16(), 401);
    }
}

fn header_value() -> impl Strategy<Value = HeaderValue> {
    let parts = prop::collection::vec("[A-Za-z0-9_=-]{0,40}|eyJ0eXAiOiJkcG9wK2p3dCJ9|e30", 1..5);
    let dotted = parts.prop_map(|parts| parts.join(".").into_bytes());
    prop_oneof![dotted, prop::collection::vec(any::<u8>(), 0..60)]
        .prop_filter_map("no header", |bytes| HeaderValue::from_bytes(&bytes).ok())
}

//! Tokens that do not hold are refused, whatever is wrong with them, by whichever backend.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod jwt_support;

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm as Alg, EncodingKey, crypto::CryptoProvider};
use palisade::{
    BuildError, Secret,
    jwt::{
        AccessTokenProfile, Algorithm, AuthErrorKind, CryptoBackend, Issuer, KeySet, ResourceServer,
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::jwt_support::*;

const ASYMMETRIC: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

fn backends() -> Vec<CryptoBackend> {
    vec![
        #[cfg(feature = "aws-lc-rs")]
        CryptoBackend::aws_lc_rs(),
        #[cfg(feature = "rust-crypto")]
        CryptoBackend::rust_crypto(),
    ]
}

fn description(server: &ResourceServer, token: &str) -> &'static str {
    let error = verify(server, token).expect_err(token);
    assert_eq!(error.kind(), AuthErrorKind::InvalidToken);
    error.description()
}

const UNVERIFIABLE: &str = "The access token cannot be verified.";

#[test]
fn every_algorithm_is_verified_by_every_backend() {
    for algorithm in ASYMMETRIC {
        let key = Key::new(algorithm);
        let token = key.token(&claims(json!({})));
        let (body, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes[7] ^= 1;
        let forged = format!("{body}.{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
        for backend in backends() {
            let server = server_at(clock()).issuer(key.issuer()).crypto(backend).build().unwrap();
            let user = verify(&server, &token).unwrap();
            assert_eq!((user.issuer(), user.subject()), (ISSUER, "alice"));
            assert_eq!(description(&server, &forged), UNVERIFIABLE, "{algorithm:?} {backend:?}");
        }
    }
}

/// Whatever stands in the process-wide default of `jsonwebtoken`, put there by other code, is not ours.
#[test]
fn somebody_elses_provider_is_never_asked() {
    static HOSTILE: CryptoProvider = CryptoProvider {
        signer_factory: |_, _| panic!("asked to sign"),
        verifier_factory: |_, _| panic!("asked to verify"),
        key_utils: jsonwebtoken::crypto::KeyUtils::new_unimplemented(),
    };
    HOSTILE.install_default().expect("nothing here has looked up the default before");
    let key = Key::new(Algorithm::RS256);
    assert!(verify(&server(&key), &key.token(&claims(json!({})))).is_ok());
}

#[test]
fn what_cannot_be_verified_gets_one_answer() {
    let (key, other) = (Key::new(Algorithm::ES256), Key::new(Algorithm::ES256));
    let server = server(&key);
    let good = claims(json!({}));
    let token = key.token(&good);
    let (header, rest) = token.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let richer = BASE64_URL_SAFE_NO_PAD.encode(claims(json!({"scope": "admin"})).to_string());
    let secret = EncodingKey::from_secret(key.public_pem.as_bytes());
    let header_of = |alg: &str, kid: &str| json!({"alg": alg, "kid": kid, "typ": "at+jwt"});
    for (why, token) in [
        ("signed by another key", other.token(&good)),
        ("claims swapped", format!("{header}.{richer}.{signature}")),
        ("no signature", format!("{header}.{}.", rest.split_once('.').unwrap().0)),
        ("alg none", key.sign(&header_of("none", "k"), &good)),
        ("the public key as a secret", {
            sign(Alg::HS256, &secret, &header_of("HS256", "k"), &good)
        }),
        ("an algorithm that is not allowed", key.sign(&header_of("ES384", "k"), &good)),
        ("an unknown algorithm", key.sign(&header_of("ES512", "k"), &good)),
        ("an unknown key", key.sign(&header_of("ES256", "j"), &good)),
        ("an unknown issuer", key.token(&claims(json!({"iss": "https://evil.example"})))),
    ] {
        assert_eq!(description(&server, &token), UNVERIFIABLE, "{why}");
    }
}

#[test]
fn what_the_token_itself_says_is_told() {
    let key = Key::new(Algorithm::EdDSA);
    let server = server(&key);
    let with = |change: Value| description(&server, &key.token(&claims(change)));
    assert!(with(json!({"exp": NOW - 31})).contains("expired"));
    assert!(with(json!({"nbf": NOW + 31})).contains("not valid yet"));
    assert!(with(json!({"aud": "x"})).contains("audience"));
    assert!(with(json!({"aud": null})).contains("malformed"));
    assert!(with(json!({"sub": null})).contains("malformed"));
    for cnf in [json!({"jkt": "x"}), json!({"x5t#S256": "x"}), json!({}), json!(7)] {
        assert!(with(json!({ "cnf": cnf })).contains("bound"), "{cnf}");
    }
    assert!(with(json!({"exp": NOW + 90_000})).contains("too long"));
    let header = |header: Value| description(&server, &key.sign(&header, &claims(json!({}))));
    assert!(header(json!({"alg": "EdDSA", "kid": "k"})).contains("not an access token"));
    assert!(header(json!({"alg": "EdDSA", "kid": "k", "typ": "JWT"})).contains("not an access"));
    let critical = json!({"alg": "EdDSA", "kid": "k", "typ": "at+jwt", "crit": ["x"], "x": 1});
    assert!(header(critical).contains("malformed"));
    assert!(description(&server, &"a".repeat(16 * 1024 + 1)).contains("too long"));
    assert!(description(&server, "a.b.c.d.e").contains("malformed"));
}

#[test]
fn names_that_stand_twice_are_refused_though_signed() {
    let key = Key::new(Algorithm::EdDSA);
    let server = server(&key);
    let (header, body) = (key.header().to_string(), claims(json!({})).to_string());
    assert!(verify(&server, &key.sign_text(&header, &body)).is_ok());
    let twice =
        |json: &str, member: &str| format!("{},{member}}}", json.strip_suffix('}').unwrap());
    for (header, body) in [
        (header.clone(), twice(&body, r#""scope":"admin""#)),
        (header.clone(), twice(&body, r#""nested":{"a":[{"b":1,"b":2}]}"#)),
        (twice(&header, r#""kid":"k""#), body),
    ] {
        let token = key.sign_text(&header, &body);
        assert!(description(&server, &token).contains("malformed"), "{header} {body}");
    }
}

#[test]
fn the_name_of_rfc_9864_is_read_and_headers_own_keys_are_not() {
    let key = Key::new(Algorithm::EdDSA);
    let header = json!({"alg": "Ed25519", "kid": "k", "typ": "at+jwt"});
    assert!(verify(&server(&key), &key.sign(&header, &claims(json!({})))).is_ok());

    let thief = Key::new(Algorithm::EdDSA);
    let mut header = thief.header();
    header["jwk"] = json!({"kty": "OKP", "crv": "Ed25519", "x": "AA"});
    header["jku"] = json!("https://evil.example/keys");
    let token = thief.sign(&header, &claims(json!({})));
    assert_eq!(description(&server(&key), &token), UNVERIFIABLE);
}

#[test]
fn one_issuers_key_never_signs_for_another() {
    let (ours, theirs) = (Key::new(Algorithm::ES256), Key::new(Algorithm::ES256));
    let other = Issuer::jwks("https://other.example", theirs.set()).audience(AUDIENCE);
    let server = server_at(clock()).issuer(ours.issuer()).issuer(other).build().unwrap();
    let by_other = claims(json!({"iss": "https://other.example"}));
    assert_eq!(
        verify(&server, &theirs.token(&by_other)).unwrap().issuer(),
        "https://other.example"
    );
    assert_eq!(description(&server, &theirs.token(&claims(json!({})))), UNVERIFIABLE);
    assert_eq!(description(&server, &ours.token(&by_other)), UNVERIFIABLE);
}

#[test]
fn shared_secrets_serve_where_they_are_named() {
    let bytes = vec![9; 32];
    let secret = Secret::new(bytes.clone());
    let issuer = Issuer::secret(ISSUER, Algorithm::HS256, &secret).audience(AUDIENCE);
    let server = server_at(clock()).issuer(issuer).build().unwrap();
    let key = EncodingKey::from_secret(&bytes);
    let header = json!({"alg": "HS256", "typ": "at+jwt"});
    let token = sign(Alg::HS256, &key, &header, &claims(json!({})));
    assert!(verify(&server, &token).is_ok());

    let set = KeySet::secret(None, Algorithm::HS256, &secret).unwrap();
    let unnamed = Issuer::jwks(ISSUER, set).audience(AUDIENCE);
    assert!(matches!(server_at(clock()).issuer(unnamed).build(), Err(BuildError::Empty(_))));
}

#[test]
fn a_plain_jwt_and_another_audience_claim_are_spelled_out() {
    let key = Key::new(Algorithm::ES256);
    let issuer = Issuer::jwks(ISSUER, key.set())
        .audience_claim("client_id", "app")
        .profile(AccessTokenProfile::Jwt);
    let server = server_at(clock()).issuer(issuer).build().unwrap();
    let header = json!({"alg": "ES256", "kid": "k"});
    let token = |change| key.sign(&header, &claims(change));
    assert!(verify(&server, &token(json!({"aud": null, "jti": null}))).is_ok());
    assert!(verify(&server, &token(json!({"aud": null, "client_id": "other"}))).is_err());
    assert!(verify(&server, &key.token(&claims(json!({})))).is_err());
}

#[test]
fn a_remembered_token_is_held_against_the_clock() {
    let key = Key::new(Algorithm::ES256);
    let clock = clock();
    let server = server_at(clock.clone()).issuer(key.issuer()).build().unwrap();
    let token = key.token(&claims(json!({})));
    assert!(verify(&server, &token).is_ok());
    let first = verify(&server, &token).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &verify(&server.clone(), &token).unwrap()));
    clock.advance(Duration::from_secs(330));
    assert!(description(&server, &token).contains("expired"));
    clock.step_to(Duration::from_secs(NOW - 31));
    assert!(description(&server, &token).contains("not valid yet"));
    clock.step_to(Duration::ZERO);
    assert!(verify(&server, &token).is_err());
}

#[test]
fn a_refusal_is_not_remembered_and_no_cache_is_a_choice() {
    let key = Key::new(Algorithm::ES256);
    let clock = clock();
    let server = server_at(clock.clone()).issuer(key.issuer()).token_cache(0).build().unwrap();
    let token = key.token(&claims(json!({"nbf": NOW + 60})));
    assert!(verify(&server, &token).is_err());
    clock.advance(Duration::from_secs(30));
    let (one, two) = (verify(&server, &token).unwrap(), verify(&server, &token).unwrap());
    assert!(!std::sync::Arc::ptr_eq(&one, &two));
}

#[test]
fn a_configuration_that_could_admit_nothing_or_anything_is_refused() {
    let key = Key::new(Algorithm::ES256);
    let build = |issuer: Issuer| ResourceServer::builder().issuer(issuer).build();
    let short = Secret::new(vec![7; 31]);
    let empty = KeySet::from_json(r#"{"keys":[]}"#).unwrap();
    assert!(ResourceServer::builder().build().is_err());
    assert!(build(key.issuer()).is_ok());
    assert!(build(Issuer::jwks(ISSUER, key.set())).is_err());
    assert!(build(Issuer::jwks("", key.set()).audience(AUDIENCE)).is_err());
    assert!(build(Issuer::jwks(ISSUER, empty).audience(AUDIENCE)).is_err());
    assert!(build(key.issuer().algorithms([])).is_err());
    assert!(build(key.issuer().algorithms([Algorithm::RS256])).is_err());
    assert!(build(key.issuer().audience("")).is_err());
    assert!(build(key.issuer().audience_claim("client_id", "x")).is_err());
    assert!(build(Issuer::jwks(ISSUER, key.set()).audience_claim("", "x")).is_err());
    assert!(build(Issuer::secret(ISSUER, Algorithm::HS256, &short).audience("a")).is_err());
    let twice = ResourceServer::builder().issuer(key.issuer()).issuer(key.issuer());
    assert!(twice.build().is_err());
    let lax = ResourceServer::builder().issuer(key.issuer()).leeway(Duration::from_secs(301));
    assert!(lax.build().is_err());
}

#[test]
fn nothing_secret_is_shown() {
    let secret = Secret::new(b"0123456789abcdef0123456789abcdef".to_vec());
    let issuer = Issuer::secret(ISSUER, Algorithm::HS256, &secret).audience(AUDIENCE);
    let server = ResourceServer::builder().issuer(issuer).build().unwrap();
    let shown = format!("{server:?}");
    assert!(!shown.contains("0123456789abcdef") && !shown.contains("48, 49"), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_string_makes_it_panic_or_pass(text in ".{0,200}", parts in "[A-Za-z0-9_-]{0,40}(\\.[A-Za-z0-9_=-]{0,40}){0,5}") {
        thread_local!(static SERVER: ResourceServer = server(&Key::new(Algorithm::EdDSA)));
        SERVER.with(|server| {
            prop_assert!(verify(server, &text).is_err());
            prop_assert!(verify(server, &parts).is_err());
            Ok(())
        })?;
    }

    #[test]
    fn no_json_makes_it_panic_or_pass(header in json_text(), claims in json_text()) {
        thread_local!(static SERVER: ResourceServer = server(&Key::new(Algorithm::EdDSA)));
        let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let token = format!("{}.{}.AAAA", encode(&header), encode(&claims));
        SERVER.with(|server| {
            prop_assert!(verify(server, &token).is_err());
            Ok(())
        })?;
    }

    #[test]
    fn no_change_of_one_byte_passes(at in 0_usize..1000, byte in any::<u8>()) {
        thread_local!(static CASE: (ResourceServer, String) = {
            let key = Key::new(Algorithm::EdDSA);
            (server(&key), key.token(&claims(json!({}))))
        });
        CASE.with(|(server, token)| {
            let mut bytes = token.clone().into_bytes();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != byte);
            bytes[at] = byte;
            if let Ok(changed) = String::from_utf8(bytes) {
                prop_assert!(verify(server, &changed).is_err());
            }
            Ok(())
        })?;
    }
}

/// JSON-like text around the members that are read.
fn json_text() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "alg", "typ", "kid", "crit", "iss", "aud", "exp", "nbf", "iat", "sub", "scope", "cnf",
    ]);
    let value = prop_oneof![
        Just("\"EdDSA\"".to_owned()),
        Just("\"at+jwt\"".to_owned()),
        Just(format!("\"{ISSUER}\"")),
        Just(format!("[\"{AUDIENCE}\"]")),
        Just("1e999".to_owned()),
        Just("-0.0".to_owned()),
        any::<u64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        Just("{}".to_owned()),
        Just("null".to_owned()),
    ];
    prop::collection::vec((name, value), 0..8).prop_map(|members| {
        let members: Vec<String> =
            members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

//! DPoP proofs: beside a token that holds, any header `DPoP` gets an answer at once, and only a proof that the token's
//! client made for this request is let through, once.
//!
//! An input that starts with `{` is the JSON of a proof's header and, on the next line, of its claims, which are signed
//! here by the client's key. Any other is the header's value as it is.
#![no_main]

use std::sync::LazyLock;

use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use libfuzzer_sys::{Corpus, fuzz_target};
use palisade::{
    jwt::{Algorithm, DpopOptions, Issuer, JwtAuthLayer},
    store::Stores,
};
use palisade_fuzz::{
    AUDIENCE, Answer, NOW, PATH, ask, base64, secret, server, sign_ed25519, sign_hs256, to_sign,
    unambiguous,
};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use url::Url;

static TOKEN: LazyLock<String> = LazyLock::new(|| {
    let claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "app", "jti": "1",
        "iat": NOW, "exp": NOW + 300, "cnf": {"jkt": base64(&Sha256::digest(JWK))},
    });
    sign_hs256(br#"{"alg":"HS256","typ":"at+jwt"}"#, claims.to_string().as_bytes())
});

fuzz_target!(init: the_good_one_passes(), |input: &[u8]| -> Corpus {
    let signed = to_sign(input);
    let value = match signed {
        Some((header, claims)) => sign_ed25519(header, claims).into_bytes(),
        None => input.to_vec(),
    };
    let Ok(proof) = HeaderValue::from_bytes(&value) else { return Corpus::Reject };
    let layer = layer();
    let [first, again] = [&layer; 2].map(|layer| ask_with(layer, &proof));
    let passed = first.user_or_refusal(MESSAGES).is_some();
    if !passed {
        assert_eq!(first, again);
        return Corpus::Keep;
    }
    assert_eq!(again.refusal.unwrap().1, "The DPoP proof was used before.");
    match signed {
        Some((header, claims)) => {
            let (header, claims) = (unambiguous(header).unwrap(), unambiguous(claims).unwrap());
            assert!(may_hold(&header, &claims), "{header:?} {claims:?}");
        }
        None => assert_eq!(input, GOOD.as_bytes()),
    }
    Corpus::Keep
});

fn ask_with(layer: &JwtAuthLayer, proof: &HeaderValue) -> Answer {
    let token = HeaderValue::try_from(format!("DPoP {}", *TOKEN)).unwrap();
    ask(layer, &[(AUTHORIZATION, &token), (HeaderName::from_static("dpop"), proof)])
}

fn the_good_one_passes() {
    assert!(ask_with(&layer(), &HeaderValue::from_static(GOOD)).user.is_some());
}

/// A new one for each input, since proofs serve once.
fn layer() -> JwtAuthLayer {
    let server = server()
        .issuer(Issuer::secret(ISSUER, Algorithm::HS256, &secret()).audience(AUDIENCE))
        .dpop(DpopOptions::new(AUDIENCE).stores(&Stores::in_memory()))
        .token_cache(8);
    JwtAuthLayer::new(server.build().unwrap())
}

/// What must be so of a proof by the client's key that is let through: RFC 9449, section 4.3.
fn may_hold(header: &Map<String, Value>, claims: &Map<String, Value>) -> bool {
    let text = |name| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    let date = |name| claims.get(name).map(|value| value.as_f64().unwrap_or(f64::NAN));
    let now = NOW as f64;
    let jwk: Map<String, Value> = serde_json::from_str(JWK).unwrap();
    let sent = header.get("jwk").and_then(Value::as_object).unwrap();
    let target: Url = text("htu").parse().unwrap();
    let algorithm = header.get("alg").and_then(Value::as_str);
    header.get("typ").is_some_and(|typ| typ == "dpop+jwt")
        && matches!(algorithm, Some("EdDSA" | "Ed25519"))
        && !["crit", "b64", "zip", "enc"].iter().any(|name| header.contains_key(*name))
        && jwk.iter().all(|(name, value)| sent.get(name) == Some(value))
        && !sent.contains_key("d")
        && text("htm") == "POST"
        && target.origin() == Url::parse(AUDIENCE).unwrap().origin()
        && (target.username(), target.password()) == ("", None)
        && percent_decode_str(target.path()).eq(PATH.bytes())
        && date("iat").is_some_and(|at| (at - now).abs() < 61.0)
        && date("exp").is_none_or(|end| end > now)
        && date("nbf").is_none_or(|from| from <= now + 60.0)
        && text("ath") == base64(&Sha256::digest(&*TOKEN))
        && (1..=256).contains(&text("jti").len())
}

/// The one proof that is signed already.
const GOOD: &str = include_str!("../corpus/dpop_proof/good");
const ISSUER: &str = "https://login.example";
/// The client's public key, its members in the order that its thumbprint has (RFC 7638).
const JWK: &str =
    r#"{"crv":"Ed25519","kty":"OKP","x":"6n4ZYKJtaaC6luizbTtZNn2HzOYHsnTPbUhMNZEUZXg"}"#;

const MESSAGES: &[&str] = &[
    "The DPoP proof is too long.",
    "The DPoP proof is malformed or lacks a required claim.",
    "The DPoP proof is of another type than dpop+jwt.",
    "The DPoP proof is signed with an algorithm that is not allowed.",
    "The key of the DPoP proof cannot be used.",
    "The signature of the DPoP proof is not its key's.",
    "The DPoP proof is for another method or address.",
    "The DPoP proof was not made just now.",
    "The DPoP proof is for another access token.",
    "The access token is bound to another key than the DPoP proof's.",
];

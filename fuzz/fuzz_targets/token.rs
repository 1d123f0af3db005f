//! The token front: any `Authorization` gets an answer at once, and only a token that holds is let through.
//!
//! An input that starts with `{` is the JSON of a token's header and, on the next line, of its claims, which are signed
//! here by the key of two issuers: so it gets as far as its claims deserve. Any other is the header's value as it is.
#![no_main]

use std::sync::LazyLock;

use http::{HeaderValue, header::AUTHORIZATION};
use libfuzzer_sys::{Corpus, fuzz_target};
use palisade::{
    jwt::{AccessTokenProfile, Algorithm, DpopOptions, Issuer, JwtAuthLayer},
    store::Stores,
};
use palisade_fuzz::{
    AUDIENCE, NOW, ask, public_keys, secret, server, sign_hs256, to_sign, unambiguous,
};
use serde_json::{Map, Value};

static WITH_CACHE: LazyLock<JwtAuthLayer> = LazyLock::new(|| layer(1024));
static WITHOUT_CACHE: LazyLock<JwtAuthLayer> = LazyLock::new(|| layer(0));

fuzz_target!(init: the_known_pass(), |input: &[u8]| -> Corpus {
    let signed = to_sign(input);
    let value = match signed {
        Some((header, claims)) => format!("Bearer {}", sign_hs256(header, claims)).into_bytes(),
        None => input.to_vec(),
    };
    let Ok(value) = HeaderValue::from_bytes(&value) else { return Corpus::Reject };
    let [first, again, anew] = [&WITH_CACHE, &WITH_CACHE, &WITHOUT_CACHE]
        .map(|layer| ask(layer, &[(AUTHORIZATION, &value)]));
    assert_eq!(first, again);
    assert_eq!(first, anew);
    let Some(user) = first.user_or_refusal(MESSAGES) else { return Corpus::Keep };
    match signed {
        Some((header, claims)) => {
            let (header, claims) = (unambiguous(header).unwrap(), unambiguous(claims).unwrap());
            assert!(may_hold(&header, &claims), "{header:?} {claims:?}");
            assert_eq!(user.issuer, text(&claims, "iss"));
            assert_eq!(user.subject, text(&claims, "sub"));
            assert_eq!(user.expires_at, claims["exp"].as_f64().map(|end| end as u64));
        }
        // Nobody can sign here but who has signed these.
        None => {
            let token = token_of(value.to_str().unwrap());
            assert!(KNOWN.iter().any(|known| token_of(known) == token));
        }
    }
    Corpus::Keep
});

fn layer(cache: usize) -> JwtAuthLayer {
    let secret = |name| Issuer::secret(name, Algorithm::HS256, &secret()).audience(AUDIENCE);
    let server = server()
        .issuer(Issuer::jwks("https://keys.example", public_keys()).audience(AUDIENCE))
        .issuer(secret(STRICT))
        .issuer(secret(PLAIN).profile(AccessTokenProfile::Jwt))
        .dpop(DpopOptions::new(AUDIENCE).stores(&Stores::in_memory()))
        .token_cache(cache);
    let layer = JwtAuthLayer::builder(server.build().unwrap()).require_scopes(["llm:infer"]);
    layer.build().unwrap()
}

/// What must be so of a token by the secret that is let through: by the RFCs, not by the code.
fn may_hold(header: &Map<String, Value>, claims: &Map<String, Value>) -> bool {
    let is_text = |name| claims.get(name).is_some_and(Value::is_string);
    let date = |name| claims.get(name).map(|value| value.as_f64().unwrap_or(f64::NAN));
    let has = |name, value: &str| match claims.get(name) {
        Some(Value::Array(list)) => list.iter().any(|item| item == value),
        one => one.and_then(Value::as_str) == Some(value),
    };
    let now = NOW as f64;
    let of_type = |name: &str| {
        let typ = text(header, "typ").to_ascii_lowercase();
        typ == name || typ == format!("application/{name}")
    };
    let is_access_token = match text(claims, "iss") {
        STRICT => {
            let required = is_text("client_id") && is_text("jti") && claims.contains_key("iat");
            of_type("at+jwt") && required
        }
        PLAIN => {
            let of_others = ["at_hash", "c_hash", "events"];
            (!header.contains_key("typ") || of_type("jwt"))
                && !of_others.iter().any(|name| claims.contains_key(*name))
        }
        _ => false,
    };
    let scopes = text(claims, "scope").split(' ').chain(text(claims, "scp").split(' '));
    let is_granted =
        scopes.into_iter().any(|scope| scope == "llm:infer") || has("scp", "llm:infer");
    text(header, "alg") == "HS256"
        && !["crit", "b64", "zip", "enc"].iter().any(|name| header.contains_key(*name))
        && is_access_token
        && has("aud", AUDIENCE)
        && !text(claims, "sub").is_empty()
        && date("exp").is_some_and(|end| end > now - 30.0)
        && date("exp").unwrap() - date("iat").unwrap_or(now) < 86_400.0 + 31.0
        && date("iat").is_none_or(|at| at <= now + 30.0)
        && date("nbf").is_none_or(|from| from <= now + 30.0)
        && is_granted
        && !claims.contains_key("cnf")
}

/// Seeds whose tokens hold, and of one of them a second form that anybody can make: signatures of ES256 are malleable.
const KNOWN: [&str; 5] = [
    include_str!("../corpus/token/bearer_ed25519"),
    include_str!("../corpus/token/bearer_es256"),
    include_str!("../corpus/token/bearer_es256_other_signature"),
    include_str!("../corpus/token/bearer_rs256"),
    include_str!("../corpus/token/bearer_hs256"),
];

fn token_of(value: &str) -> &str {
    value.rsplit(' ').next().unwrap()
}

fn the_known_pass() {
    for value in KNOWN {
        let value = HeaderValue::from_static(value);
        assert!(ask(&WITHOUT_CACHE, &[(AUTHORIZATION, &value)]).user.is_some(), "{value:?}");
    }
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

const STRICT: &str = "https://strict.example";
const PLAIN: &str = "https://plain.example";

const MESSAGES: &[&str] = &[
    "An access token is required.",
    "The credential of the request is malformed.",
    "The access token is too long.",
    "The access token is malformed or lacks a required claim.",
    "The access token cannot be verified.",
    "The token is not an access token.",
    "The access token is for another audience.",
    "The access token has expired.",
    "The access token is not valid yet.",
    "The access token is valid for too long.",
    "The access token is bound to a key, which this server does not check.",
    "The access token is bound to a key, and needs the scheme DPoP.",
    "The access token is not bound to a key of DPoP.",
    "The access token does not grant a scope that is needed here.",
];

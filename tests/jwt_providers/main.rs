//! The README's settings for identity providers, held against tokens as these document theirs: headers and claims
//! by their reference pages, signed by keys that are made here. Metadata and keys are fetched from
//! where the providers have them, by a fetch that answers for their hosts.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod auth0;
mod cognito;
mod entra;
#[path = "../jwt_support/mod.rs"]
mod jwt_support;
mod keycloak;

use std::{collections::HashMap, sync::Arc};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use jsonwebtoken::{Algorithm as Alg, EncodingKey};
use jwt_support::{NOW, clock, server_at, sign};
use palisade::{
    future::ReadyOr,
    identity::UserIdentity,
    jwt::{
        AccessTokenProfile, Algorithm, FetchError, Issuer, KeySetFetch, Presented, ResourceServer,
        TokenVerifier,
    },
};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

const API: &str = "https://llm.example";
const NOT_AN_ACCESS_TOKEN: &str = "The token is not an access token.";
const ANOTHER_AUDIENCE: &str = "The access token is for another audience.";
const CLAIM_IS_MISSING: &str = "The access token is malformed or lacks a required claim.";
const CANNOT_BE_VERIFIED: &str = "The access token cannot be verified.";

#[test]
fn the_readme_has_these_settings() {
    let squeezed = |text: &str| text.split_whitespace().collect::<String>();
    let readme = squeezed(include_str!("../../README.md"));
    for source in [
        include_str!("keycloak.rs"),
        include_str!("auth0.rs"),
        include_str!("entra.rs"),
        include_str!("cognito.rs"),
    ] {
        let (_, body) = source.split_once("fn settings() -> Issuer {\n").unwrap();
        let (body, _) = body.split_once("\n}\n").unwrap();
        assert!(readme.contains(&squeezed(body)), "the README has not what is tested: {body}");
    }
}

/// An RSA key, of which a key set tells no more than it must.
struct Key {
    id: &'static str,
    private: EncodingKey,
    modulus: String,
}

impl Key {
    fn new(id: &'static str) -> Self {
        let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let private = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
        let pem = pair.public_key_pem();
        let pem: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = BASE64_STANDARD.decode(pem).unwrap();
        // RFC 8017, appendix A.1.1: the modulus, and then 65537 in five bytes.
        let (rest, exponent) = der.split_last_chunk::<5>().unwrap();
        assert_eq!(exponent, &[2, 3, 1, 0, 1]);
        let modulus = BASE64_URL_SAFE_NO_PAD.encode(rest.last_chunk::<256>().unwrap());
        Self { id, private, modulus }
    }

    fn jwk(&self) -> Value {
        json!({"kty": "RSA", "use": "sig", "kid": self.id, "n": self.modulus, "e": "AQAB"})
    }

    /// With an `alg`, as most sets have it.
    fn jwk_for_rs256(&self) -> Value {
        with(&self.jwk(), json!({"alg": "RS256"}))
    }

    /// A token whose header has this `typ`, or none.
    fn token(&self, typ: Option<&str>, claims: &Value) -> String {
        self.token_by(Alg::RS256, typ, claims)
    }

    fn token_by(&self, algorithm: Alg, typ: Option<&str>, claims: &Value) -> String {
        let mut header = json!({"alg": format!("{algorithm:?}"), "kid": self.id});
        if let Some(typ) = typ {
            header["typ"] = typ.into();
        }
        sign(algorithm, &self.private, &header, claims)
    }
}

/// What providers publish, by URL.
#[derive(Debug)]
struct Published(HashMap<String, Bytes>);

impl Published {
    /// The metadata of this issuer, which name themselves, and the key set that they name.
    fn new(issuer: &str, named: &str, jwks_uri: &str, keys: &[Value]) -> Self {
        let metadata = json!({"issuer": named, "jwks_uri": jwks_uri}).to_string();
        let at = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let set = json!({"keys": keys}).to_string();
        Self(HashMap::from([(at, metadata.into()), (jwks_uri.to_owned(), set.into())]))
    }
}

impl KeySetFetch for Published {
    fn fetch(&self, url: &str) -> ReadyOr<Result<Bytes, FetchError>> {
        let found = self.0.get(url).cloned();
        ReadyOr::ready(found.ok_or_else(|| FetchError::new("not found")))
    }
}

fn server(issuer: Issuer, published: Published) -> ResourceServer {
    server_at(clock()).issuer(issuer).fetch(published).build().unwrap()
}

/// The caller, or why the token is refused.
async fn verdict(server: &ResourceServer, token: &str) -> Result<Arc<UserIdentity>, &'static str> {
    let verdict = server.verify(&Presented::alone(token)).await;
    verdict.map_err(|error| error.description())
}

async fn refused(server: &ResourceServer, token: &str) -> &'static str {
    verdict(server, token).await.expect_err("it is accepted")
}

/// Claims with others put in; null takes one away.
fn with(claims: &Value, change: Value) -> Value {
    let mut claims = claims.clone();
    let members = claims.as_object_mut().unwrap();
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => members.remove(name),
            value => members.insert(name.clone(), value.clone()),
        };
    }
    claims
}

//! Issuers for tests: keys made at run time, and tokens signed with them.
#![allow(dead_code)]

use std::{sync::Arc, time::Duration};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use futures_util::FutureExt as _;
use jsonwebtoken::{Algorithm as Alg, EncodingKey, crypto::aws_lc::DEFAULT_PROVIDER};
use palisade::{
    clock::ManualClock,
    identity::UserIdentity,
    jwt::{
        Algorithm, AuthError, Issuer, KeySet, Presented, ResourceServer, ResourceServerBuilder,
        TokenVerifier,
    },
};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
    RsaKeySize,
};
use serde_json::{Value, json};

pub(crate) const ISSUER: &str = "https://login.example";
pub(crate) const AUDIENCE: &str = "https://llm.example";
pub(crate) const NOW: u64 = 1_800_000_000;

/// One key pair of an issuer, named `k`.
pub(crate) struct Key {
    pub(crate) algorithm: Algorithm,
    key: EncodingKey,
    pub(crate) public_pem: String,
}

impl Key {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let pair = match algorithm {
            Algorithm::ES256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Algorithm::ES384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            Algorithm::EdDSA => KeyPair::generate_for(&PKCS_ED25519),
            _ => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        }
        .unwrap();
        let pem = pair.serialize_pem();
        let key = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
            _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
        };
        Self { algorithm, key: key.unwrap(), public_pem: pair.public_key_pem() }
    }

    pub(crate) fn set(&self) -> KeySet {
        KeySet::pem(Some("k"), self.algorithm, &self.public_pem).unwrap()
    }

    /// An Ed25519 key as a member of a key set.
    pub(crate) fn jwk(&self, id: &str) -> Value {
        let pem: String = self.public_pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = BASE64_STANDARD.decode(pem).unwrap();
        let x = BASE64_URL_SAFE_NO_PAD.encode(der.last_chunk::<32>().unwrap());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "use": "sig", "alg": "EdDSA", "x": x})
    }

    /// Signed by the key of this name.
    pub(crate) fn token_by(&self, id: &str, claims: &Value) -> String {
        let mut header = self.header();
        header.as_object_mut().unwrap().insert("kid".into(), id.into());
        self.sign(&header, claims)
    }

    pub(crate) fn issuer(&self) -> Issuer {
        Issuer::jwks(ISSUER, self.set()).audience(AUDIENCE).algorithms([self.algorithm])
    }

    pub(crate) fn header(&self) -> Value {
        json!({"alg": self.algorithm.name(), "kid": "k", "typ": "at+jwt"})
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        self.sign(&self.header(), claims)
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        sign(backend_algorithm(self.algorithm), &self.key, header, claims)
    }

    /// Signs JSON as it stands, with whatever is wrong with it.
    pub(crate) fn sign_text(&self, header: &str, claims: &str) -> String {
        sign_text(backend_algorithm(self.algorithm), &self.key, header, claims)
    }
}

/// Signs through a provider of its own: the process-wide default stays unset, so that a test
/// notices whoever looks it up.
pub(crate) fn sign(algorithm: Alg, key: &EncodingKey, header: &Value, claims: &Value) -> String {
    sign_text(algorithm, key, &header.to_string(), &claims.to_string())
}

fn sign_text(algorithm: Alg, key: &EncodingKey, header: &str, claims: &str) -> String {
    let encode = |part: &str| BASE64_URL_SAFE_NO_PAD.encode(part);
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signer = (DEFAULT_PROVIDER.signer_factory)(&algorithm, key).unwrap();
    let signature = signer.try_sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn backend_algorithm(algorithm: Algorithm) -> Alg {
    algorithm.name().parse().unwrap()
}

/// Claims that hold at `NOW`, for five minutes, with `change` made to them: null takes one away.
pub(crate) fn claims(change: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW + 300, "iat": NOW,
        "jti": "1", "client_id": "app", "scope": "llm:infer",
    });
    let members = claims.as_object_mut().unwrap();
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => members.remove(name),
            value => members.insert(name.clone(), value.clone()),
        };
    }
    claims
}

pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Duration::from_secs(NOW)))
}

pub(crate) fn server_at(clock: Arc<ManualClock>) -> ResourceServerBuilder {
    ResourceServer::builder().clock(clock)
}

pub(crate) fn server(key: &Key) -> ResourceServer {
    server_at(clock()).issuer(key.issuer()).build().unwrap()
}

pub(crate) fn verify(
    verifier: &impl TokenVerifier,
    token: &str,
) -> Result<Arc<UserIdentity>, AuthError> {
    verifier
        .verify(&Presented::alone(token))
        .now_or_never()
        .expect("nothing is waited for where the keys are there")
}

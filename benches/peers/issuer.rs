//! An issuer: keys made at run time, and tokens signed with them.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use http::HeaderValue;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, jwk::Jwk};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
    RsaKeySize,
};
use serde_json::json;

pub(crate) const ISSUER: &str = "https://login.example";
pub(crate) const AUDIENCE: &str = "https://llm.example";

/// One key for each algorithm, named after it.
pub(crate) struct TestIssuer {
    keys: HashMap<Algorithm, Key>,
    issued: AtomicU64,
}

struct Key {
    secret: EncodingKey,
    public: DecodingKey,
}

impl TestIssuer {
    pub(crate) fn new(algorithms: &[Algorithm]) -> Self {
        let keys = algorithms.iter().map(|&algorithm| (algorithm, Key::new(algorithm))).collect();
        Self { keys, issued: AtomicU64::new(0) }
    }

    /// The key set (RFC 7517) as text.
    pub(crate) fn key_set(&self) -> String {
        let jwk = |(&algorithm, key): (&Algorithm, &Key)| {
            let mut jwk = Jwk::from_decoding_key(&key.public, Some(algorithm)).unwrap();
            jwk.common.key_id = Some(key_id(algorithm));
            jwk
        };
        json!({ "keys": self.keys.iter().map(jwk).collect::<Vec<_>>() }).to_string()
    }

    /// The header of a request with a token that was never issued before.
    pub(crate) fn bearer(&self, algorithm: Algorithm) -> HeaderValue {
        self.sign(algorithm, &key_id(algorithm), &self.keys[&algorithm])
    }

    /// With the signature of another token: another key's may be refused for its size already, where
    /// the algorithm is RSA.
    pub(crate) fn forged(&self, algorithm: Algorithm) -> HeaderValue {
        let (own, others) = (self.bearer(algorithm), self.bearer(algorithm));
        let split = |bearer: &HeaderValue| {
            let (signed, signature) = bearer.to_str().unwrap().rsplit_once('.').unwrap();
            (signed.to_owned(), signature.to_owned())
        };
        let ((signed, _), (_, signature)) = (split(&own), split(&others));
        HeaderValue::from_str(&format!("{signed}.{signature}")).unwrap()
    }

    /// With the name of a key that is not in the set.
    pub(crate) fn unknown(&self, algorithm: Algorithm) -> HeaderValue {
        self.sign(algorithm, "another", &self.keys[&algorithm])
    }

    /// An access token as RFC 9068 has it, for an hour.
    fn sign(&self, algorithm: Algorithm, key_id: &str, key: &Key) -> HeaderValue {
        let mut header = Header::new(algorithm);
        header.typ = Some("at+jwt".into());
        header.kid = Some(key_id.into());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let id = self.issued.fetch_add(1, Ordering::Relaxed);
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "app", "scope": "llm:infer",
            "jti": format!("{id:032x}"), "iat": now, "nbf": now, "exp": now + 3600,
        });
        let token = jsonwebtoken::encode(&header, &claims, &key.secret).unwrap();
        HeaderValue::from_str(&format!("Bearer {token}")).unwrap()
    }
}

fn key_id(algorithm: Algorithm) -> String {
    format!("{algorithm:?}")
}

impl Key {
    fn new(algorithm: Algorithm) -> Self {
        let pair = match algorithm {
            Algorithm::ES256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Algorithm::ES384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            Algorithm::EdDSA => KeyPair::generate_for(&PKCS_ED25519),
            _ => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        };
        let pair = pair.unwrap();
        let (secret, public) = (pair.serialize_pem(), pair.public_key_pem());
        let (secret, public) = (secret.as_bytes(), public.as_bytes());
        let (secret, public) = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => {
                (EncodingKey::from_ec_pem(secret), DecodingKey::from_ec_pem(public))
            }
            Algorithm::EdDSA => {
                (EncodingKey::from_ed_pem(secret), DecodingKey::from_ed_pem(public))
            }
            _ => (EncodingKey::from_rsa_pem(secret), DecodingKey::from_rsa_pem(public)),
        };
        Self { secret: secret.unwrap(), public: public.unwrap() }
    }
}

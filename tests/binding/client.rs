//! A client with a DPoP key.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderValue, Request};
use jsonwebtoken::{Algorithm as Alg, EncodingKey, crypto::aws_lc::DEFAULT_PROVIDER};
use palisade::jwt::Algorithm;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
    PublicKeyData as _, RsaKeySize,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Body;
use crate::jwt_support::*;

pub(crate) const ADDRESS: &str = "https://llm.example";
pub(crate) const PATH: &str = "/v1/chat/completions";

pub(crate) struct Client {
    algorithm: Algorithm,
    key: EncodingKey,
    jwk: Value,
}

impl Client {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let pair = match algorithm {
            Algorithm::ES256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Algorithm::ES384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            Algorithm::EdDSA => KeyPair::generate_for(&PKCS_ED25519),
            _ => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        }
        .unwrap();
        let pem = pair.serialize_pem();
        let raw = pair.der_bytes();
        let (key, jwk) = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => {
                let crv = if algorithm == Algorithm::ES256 { "P-256" } else { "P-384" };
                let (x, y) = raw[1..].split_at(raw.len() / 2);
                let jwk = json!({"kty": "EC", "crv": crv, "x": base64(x), "y": base64(y)});
                (EncodingKey::from_ec_pem(pem.as_bytes()), jwk)
            }
            Algorithm::EdDSA => {
                let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": base64(raw)});
                (EncodingKey::from_ed_pem(pem.as_bytes()), jwk)
            }
            _ => {
                let components = DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key;
                let (n, e) = components(raw).unwrap();
                let jwk = json!({"kty": "RSA", "n": base64(&n), "e": base64(&e)});
                (EncodingKey::from_rsa_pem(pem.as_bytes()), jwk)
            }
        };
        Self { algorithm, key: key.unwrap(), jwk }
    }

    /// The thumbprint of the key: serde_json keeps members in the order of their names.
    pub(crate) fn thumbprint(&self) -> String {
        base64(&Sha256::digest(self.jwk.to_string()))
    }

    /// Claims of a token that is bound to the key.
    pub(crate) fn bound(&self) -> Value {
        claims(json!({"cnf": {"jkt": self.thumbprint()}}))
    }

    /// A proof for `POST PATH` at `NOW`, with `change` made to its claims: null takes one away.
    pub(crate) fn proof(&self, token: &str, change: Value) -> String {
        let mut claims = json!({
            "jti": "1", "htm": "POST", "htu": format!("{ADDRESS}{PATH}"), "iat": NOW,
            "ath": base64(&Sha256::digest(token)),
        });
        let members = claims.as_object_mut().unwrap();
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => members.remove(name),
                value => members.insert(name.clone(), value.clone()),
            };
        }
        let algorithm: Alg = self.algorithm.name().parse().unwrap();
        let name = self.algorithm.name();
        let header = json!({"typ": "dpop+jwt", "alg": name, "jwk": self.jwk});
        sign(algorithm, &self.key, &header, &claims)
    }

    /// A request with the token and a proof of this id.
    pub(crate) fn request(&self, token: &str, id: &str) -> Request<Body> {
        let proof = self.proof(token, json!({ "jti": id }));
        request(&[("authorization", &format!("DPoP {token}")), ("dpop", &proof)])
    }
}

pub(crate) fn request(headers: &[(&str, &str)]) -> Request<Body> {
    let builder = headers.iter().fold(Request::post(PATH), |builder, (name, value)| {
        builder.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
    });
    builder.body(Body::new()).unwrap()
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

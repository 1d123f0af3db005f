//! One key of a set: RFC 7517, and RFC 7518, section 6.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{Algorithm, strength};

/// A key that can verify.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    /// What it may verify: never empty, and one family only.
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) material: DecodingKey,
}

/// Why a key is of no use here.
pub(crate) type Unusable = &'static str;

impl Key {
    /// Reads one member of a set's `keys`.
    pub(crate) fn read(jwk: &Map<String, Value>) -> Result<Self, Unusable> {
        let id = optional(jwk, "kid")?.map(str::to_owned);
        if optional(jwk, "use")?.is_some_and(|usage| usage != "sig") {
            return Err("its use is not sig");
        }
        if let Some(operations) = jwk.get("key_ops") {
            let operations = operations.as_array().ok_or("its key_ops is no list")?;
            if !operations.iter().any(|operation| operation == "verify") {
                return Err("its key_ops lack verify");
            }
        }
        let (mut algorithms, material) = match required(jwk, "kty")? {
            "RSA" => rsa(&bytes(jwk, "n")?, &bytes(jwk, "e")?)?,
            "EC" => elliptic(required(jwk, "crv")?, &bytes(jwk, "x")?, &bytes(jwk, "y")?)?,
            "OKP" => edwards(required(jwk, "crv")?, &bytes(jwk, "x")?)?,
            "oct" => secret(&Zeroizing::new(bytes(jwk, "k")?))?,
            _ => return Err("its kty is not supported"),
        };
        // The key's own word on its algorithm binds (RFC 8725, section 3.1).
        if let Some(name) = optional(jwk, "alg")? {
            let named = Algorithm::from_name(name).ok_or("its alg is not supported")?;
            algorithms.retain(|algorithm| *algorithm == named);
            if algorithms.is_empty() {
                return Err("its alg does not fit its kty, crv or length");
            }
        }
        Ok(Self { id, algorithms, material })
    }
}

pub(crate) type Material = (Vec<Algorithm>, DecodingKey);

pub(crate) fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Material, Unusable> {
    let modulus = strength::check_rsa(modulus, exponent)?;
    let algorithms = vec![
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
    ];
    Ok((algorithms, DecodingKey::from_rsa_raw_components(modulus, exponent)))
}

fn elliptic(curve: &str, x: &[u8], y: &[u8]) -> Result<Material, Unusable> {
    let (algorithm, len) = match curve {
        "P-256" => (Algorithm::ES256, 32),
        "P-384" => (Algorithm::ES384, 48),
        _ => return Err("its crv is not supported"),
    };
    // Full length, zeros included: RFC 7518, section 6.2.1.2.
    if x.len() != len || y.len() != len {
        return Err("its point is not as long as its crv demands");
    }
    Ok((vec![algorithm], DecodingKey::from_ec_der(&[&[4], x, y].concat())))
}

/// The shortened `x` would make a backend panic, the lengthened one would be cut.
pub(crate) fn edwards(curve: &str, x: &[u8]) -> Result<Material, Unusable> {
    if curve != "Ed25519" {
        return Err("its crv is not supported");
    }
    if x.len() != 32 {
        return Err("its point is not as long as its crv demands");
    }
    Ok((vec![Algorithm::EdDSA], DecodingKey::from_ed_der(x)))
}

pub(crate) fn secret(secret: &[u8]) -> Result<Material, Unusable> {
    let long_enough =
        |algorithm: &Algorithm| algorithm.secret_len().is_some_and(|floor| secret.len() >= floor);
    let algorithms: Vec<_> = Algorithm::ALL.into_iter().filter(long_enough).collect();
    if algorithms.is_empty() {
        return Err("its secret is shorter than 32 bytes");
    }
    Ok((algorithms, DecodingKey::from_secret(secret)))
}

/// The point of a PEM public key, which says its curve by its length alone.
pub(crate) fn elliptic_point(point: &[u8]) -> Result<Material, Unusable> {
    let (curve, len) = match point.len() {
        65 => ("P-256", 32),
        97 => ("P-384", 48),
        _ => return Err("its curve is neither P-256 nor P-384"),
    };
    match point.split_first() {
        Some((4, rest)) => {
            let (x, y) = rest.split_at_checked(len).ok_or("its point can't be read")?;
            elliptic(curve, x, y)
        }
        _ => Err("its point is compressed"),
    }
}

fn optional<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Unusable> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err("a member that must be a string is none"),
    }
}

fn required<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<&'a str, Unusable> {
    optional(jwk, name)?.ok_or("a member that its kty demands is missing")
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, Unusable> {
    let text = required(jwk, name)?;
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| "a member is not base64url")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn algorithms(jwk: &Value) -> Result<Vec<Algorithm>, Unusable> {
        Key::read(jwk.as_object().unwrap()).map(|key| key.algorithms)
    }

    fn text(len: usize) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(vec![0x5a; len])
    }

    #[test]
    fn a_key_fits_only_what_its_type_curve_and_alg_say() {
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": text(32)});
        assert_eq!(algorithms(&ed), Ok(vec![Algorithm::EdDSA]));
        let ec = json!({"kty": "EC", "crv": "P-384", "x": text(48), "y": text(48)});
        assert_eq!(algorithms(&ec), Ok(vec![Algorithm::ES384]));
        let oct = json!({"kty": "oct", "k": text(48)});
        assert_eq!(algorithms(&oct), Ok(vec![Algorithm::HS256, Algorithm::HS384]));
        let oct = json!({"kty": "oct", "k": text(64), "alg": "HS512", "use": "sig"});
        assert_eq!(algorithms(&oct), Ok(vec![Algorithm::HS512]));
    }

    #[test]
    fn keys_that_are_wrong_in_any_member_are_of_no_use() {
        for bad in [
            json!({"kty": "OKP", "crv": "Ed25519", "x": text(31)}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": text(33)}),
            json!({"kty": "OKP", "crv": "P-256", "x": text(32)}),
            json!({"kty": "OKP", "crv": "Ed448", "x": text(57)}),
            json!({"kty": "EC", "crv": "P-256", "x": text(31), "y": text(32)}),
            json!({"kty": "EC", "crv": "P-256", "x": text(32), "y": text(33)}),
            json!({"kty": "EC", "crv": "P-521", "x": text(66), "y": text(66)}),
            json!({"kty": "EC", "crv": "P-256", "x": text(32)}),
            json!({"kty": "EC", "crv": "P-256", "x": text(32), "y": text(32), "alg": "ES384"}),
            json!({"kty": "EC", "crv": "P-256", "x": text(32), "y": text(32), "use": "enc"}),
            json!({"kty": "EC", "crv": "P-256", "x": text(32), "y": text(32), "use": 1}),
            json!({"kty": "EC", "crv": "P-256", "x": text(32), "y": text(32), "key_ops": []}),
            json!({"kty": "EC", "crv": "P-256", "x": text(32), "y": text(32), "key_ops": "verify"}),
            json!({"kty": "EC", "crv": "P-256", "x": text(32), "y": text(32), "kid": 7}),
            json!({"kty": "oct", "k": ""}),
            json!({"kty": "oct", "k": text(31)}),
            json!({"kty": "oct", "k": text(42), "alg": "HS512"}),
            json!({"kty": "oct", "k": text(32), "alg": "A256KW"}),
            json!({"kty": "RSA", "n": text(128), "e": "AQAB"}),
            json!({"kty": "RSA", "n": "!", "e": "AQAB"}),
            json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": text(32)}),
            json!({"kty": 1}),
            json!({}),
        ] {
            assert!(algorithms(&bad).is_err(), "{bad}");
        }
    }
}

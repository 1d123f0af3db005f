//! JWK thumbprints: RFC 7638, with SHA-256.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// The thumbprint of a public key that was read and found good: its members are then plain text
/// without anything that JSON would escape. `None` for other types of key.
pub(super) fn of(jwk: &Map<String, Value>) -> Option<[u8; 32]> {
    // In the order of their names.
    let members: &[&str] = match text(jwk, "kty")? {
        "RSA" => &["e", "kty", "n"],
        "EC" => &["crv", "kty", "x", "y"],
        "OKP" => &["crv", "kty", "x"],
        _ => return None,
    };
    let mut hasher = Sha256::new();
    for (index, name) in members.iter().enumerate() {
        let opening = if index == 0 { '{' } else { ',' };
        hasher.update(format!("{opening}\"{name}\":\"{}\"", text(jwk, name)?));
    }
    hasher.update("}");
    Some(hasher.finalize().into())
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    jwk.get(name)?.as_str()
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    use serde_json::json;

    use super::*;

    fn thumbprint(jwk: &Value) -> Option<String> {
        of(jwk.as_object().unwrap()).map(|digest| BASE64_URL_SAFE_NO_PAD.encode(digest))
    }

    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        // RFC 7638, section 3.1.
        let rsa = json!({
            "kty": "RSA", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR\
                  1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0\
                  h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91\
                  CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44\
                  -csFCur-kEgU8awapJzKnqDKgw",
        });
        assert_eq!(thumbprint(&rsa).unwrap(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        // RFC 8037, appendix A.3.
        let okp = json!({
            "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        });
        assert_eq!(thumbprint(&okp).unwrap(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        // RFC 9449, sections 4.1 and 6.1.
        let ec = json!({
            "kty": "EC", "crv": "P-256", "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
            "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
        });
        assert_eq!(thumbprint(&ec).unwrap(), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    }

    #[test]
    fn other_keys_have_none() {
        for jwk in [json!({}), json!({"kty": "oct", "k": "AA"}), json!({"kty": "EC", "x": "AA"})] {
            assert_eq!(thumbprint(&jwk), None, "{jwk}");
        }
    }
}

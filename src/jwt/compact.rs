//! A token's outer form: JWS compact serialization (RFC 7515, section 7.1), strictly read.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{Algorithm, Reason, json};

/// A token taken apart: nothing in it is verified.
#[derive(Debug)]
pub(crate) struct Compact<'a> {
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
    /// Header and payload with the dot between: what is signed.
    signed: &'a str,
}

impl<'a> Compact<'a> {
    /// Exactly three parts. Five are a JWE, which nobody here decrypts (CVE-2023-51774).
    pub(crate) fn split(token: &'a str) -> Result<Self, Reason> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Reason::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Reason::Malformed)?;
        if payload.contains('.') {
            return Err(Reason::Malformed);
        }
        Ok(Self { header, payload, signature, signed })
    }

    /// Whether this is a JWS, good or bad, and not a token that only its issuer understands.
    pub(crate) fn is_jws(token: &'a str) -> bool {
        Self::split(token).is_ok_and(|parts| parts.members().is_ok())
    }

    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fn header(&self) -> Result<Header, Reason> {
        Header::of(&self.members()?)
    }

    /// The header, every member of it.
    pub(crate) fn members(&self) -> Result<Map<String, Value>, Reason> {
        json::parse_object(&decode(self.header)?).ok_or(Reason::Malformed)
    }

    pub(crate) fn payload(&self) -> Result<Vec<u8>, Reason> {
        decode(self.payload)
    }

    pub(crate) fn claims(&self) -> Result<Map<String, Value>, Reason> {
        json::parse_object(&self.payload()?).ok_or(Reason::Malformed)
    }

    pub(crate) fn signature(&self) -> Result<Vec<u8>, Reason> {
        decode(self.signature)
    }

    pub(crate) fn signed(&self) -> &'a [u8] {
        self.signed.as_bytes()
    }
}

/// What of a token's header is read. Keys in a token's, or links to keys (`jwk`, `jku`, `x5c`, `x5u`), are
/// never looked at: they are the sender's word (RFC 8725, section 3.10).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<String>,
    pub(crate) token_type: Option<String>,
}

impl Header {
    pub(crate) fn of(members: &Map<String, Value>) -> Result<Self, Reason> {
        // `crit` lists what must be understood, and no extension is: RFC 7515, section 4.1.11. The
        // others change what the signature or the payload means.
        if ["crit", "b64", "zip", "enc"].iter().any(|name| members.contains_key(*name)) {
            return Err(Reason::Malformed);
        }
        let name = string(members, "alg")?.ok_or(Reason::Malformed)?;
        Ok(Self {
            // The same answer as to a bad signature: it is about what cannot be verified.
            algorithm: Algorithm::from_name(&name).ok_or(Reason::Unverifiable)?,
            key_id: string(members, "kid")?,
            token_type: string(members, "typ")?,
        })
    }
}

fn string(members: &Map<String, Value>, name: &str) -> Result<Option<String>, Reason> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Reason::Malformed),
    }
}

/// No padding, no whitespace, no stray bits in the last character: one text for one value.
fn decode(part: &str) -> Result<Vec<u8>, Reason> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| Reason::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(json: &str) -> Result<Header, Reason> {
        let token = format!("{}.e30.AA", BASE64_URL_SAFE_NO_PAD.encode(json));
        Compact::split(&token).unwrap().header()
    }

    #[test]
    fn a_token_has_three_parts() {
        assert!(Compact::split("a.b.c").is_ok());
        let many = ".".repeat(10_000);
        for bad in ["", "a", "a.b", "a.b.c.d", "a.b.c.d.e", "....", &many] {
            assert_eq!(Compact::split(bad).unwrap_err(), Reason::Malformed, "{bad}");
        }
    }

    #[test]
    fn base64url_is_strict() {
        assert_eq!(decode("Zm8").unwrap(), b"fo");
        for bad in ["Zm8=", "Zm9", "Zm 8", "Zm8\n", "Zm8 ", "Zm+/", "Z", "Zm8.", "Zmé"] {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_header_is_read_or_refused_whole() {
        let read = header(r#"{"alg":"Ed25519","kid":"k","typ":"at+jwt","jwk":{},"jku":7}"#);
        let expected = Header {
            algorithm: Algorithm::EdDSA,
            key_id: Some("k".into()),
            token_type: Some("at+jwt".into()),
        };
        assert_eq!(read, Ok(expected));
        for bad in [
            r#"{"alg":"ES256","crit":["exp"]}"#,
            r#"{"alg":"ES256","crit":[]}"#,
            r#"{"alg":"ES256","b64":true}"#,
            r#"{"alg":"ES256","zip":"DEF"}"#,
            r#"{"alg":"ES256","enc":"A128GCM"}"#,
            r#"{"alg":"ES256","kid":7}"#,
            r#"{"alg":"ES256","typ":["JWT"]}"#,
            r#"{"alg":["ES256"]}"#,
            r#"{"alg":"ES256","alg":"ES256"}"#,
            r#"{"kid":"k"}"#,
            r#"["ES256"]"#,
        ] {
            assert_eq!(header(bad), Err(Reason::Malformed), "{bad}");
        }
        for unknown in ["none", "NONE", "es256", ""] {
            let json = format!(r#"{{"alg":"{unknown}"}}"#);
            assert_eq!(header(&json), Err(Reason::Unverifiable), "{unknown}");
        }
    }
}

//! An issuer for development: a signing key of its own, its key set, and tokens by it.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use palisade::BoxError;
use rcgen::{KeyPair, PKCS_ED25519, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The scope that every token is given.
pub(crate) const SCOPE: &str = "inference";

const LIFETIME_SECONDS: u64 = 3600;

/// An Ed25519 key that signs access tokens as RFC 9068 has them.
#[derive(Debug)]
pub(crate) struct Issuer {
    key: KeyPair,
    issuer: String,
    audience: String,
}

impl Issuer {
    /// With a new key, which nobody else ever sees.
    pub(crate) fn new(issuer: &str, audience: &str) -> Result<Self, BoxError> {
        Ok(Self::with_key(KeyPair::generate_for(&PKCS_ED25519)?, issuer, audience))
    }

    /// With the key in this file; a new one if there is no such file yet, which only its owner may
    /// read.
    pub(crate) fn from_file(path: &Path, issuer: &str, audience: &str) -> Result<Self, BoxError> {
        let key = match fs::read_to_string(path) {
            Ok(pem) => KeyPair::from_pem(&pem)
                .map_err(|_| format!("{}: not a private key in PEM", path.display()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let key = KeyPair::generate_for(&PKCS_ED25519)?;
                write_private(path, &key.serialize_pem())
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                key
            }
            Err(error) => return Err(format!("{}: {error}", path.display()).into()),
        };
        if key.algorithm() != &PKCS_ED25519 {
            return Err(format!("{}: not an Ed25519 key", path.display()).into());
        }
        Ok(Self::with_key(key, issuer, audience))
    }

    /// The public key as a JSON Web Key Set (RFC 7517, RFC 8037).
    pub(crate) fn key_set(&self) -> String {
        let key = json!({
            "kty": "OKP", "crv": "Ed25519", "x": self.public_key(), "kid": self.key_id(),
            "alg": "EdDSA", "use": "sig",
        });
        json!({"keys": [key]}).to_string()
    }

    /// An access token (RFC 9068) of this tier for this subject, good for an hour from now.
    pub(crate) fn token(&self, tier: &str, subject: &str) -> Result<String, BoxError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let header = json!({"typ": "at+jwt", "alg": "EdDSA", "kid": self.key_id()});
        let claims = json!({
            "iss": self.issuer, "aud": self.audience, "sub": subject, "client_id": "palisade-dev",
            "iat": now.as_secs(), "exp": now.as_secs() + LIFETIME_SECONDS,
            "jti": format!("{:x}-{tier}-{subject}", now.as_nanos()),
            "scope": SCOPE, "tier": tier,
        });
        let signed = format!("{}.{}", encoded(&header), encoded(&claims));
        let signature = self.key.sign(signed.as_bytes())?;
        Ok(format!("{signed}.{}", BASE64URL.encode(signature)))
    }

    fn with_key(key: KeyPair, issuer: &str, audience: &str) -> Self {
        Self { key, issuer: issuer.to_owned(), audience: audience.to_owned() }
    }

    /// The key's thumbprint (RFC 7638), so that a new key has a new id.
    fn key_id(&self) -> String {
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, self.public_key());
        BASE64URL.encode(Sha256::digest(members))
    }

    fn public_key(&self) -> String {
        BASE64URL.encode(self.key.public_key_raw())
    }
}

fn encoded(part: &Value) -> String {
    BASE64URL.encode(part.to_string())
}

/// Writes a file that was not there, for its owner's eyes alone.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}

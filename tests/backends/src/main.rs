//! Verifies tokens of every algorithm by each signature backend that is compiled in: `scripts/backends` runs it with
//! either alone and with both, with and without a default that another crate installed.
//!
//! `palisade-backends FOLDER [install]`, where the folder has `rsa.pem`, `p256.pem`, `p384.pem` and `ed25519.pem`
//! (private keys) and `*.pub.pem`.

use std::{fs, path::Path};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm as Alg, EncodingKey, crypto::CryptoProvider};
use palisade::{
    Secret,
    jwt::{
        Algorithm, AuthErrorKind, CryptoBackend, Issuer, KeySet, Presented, ResourceServer,
        TokenVerifier,
    },
};

type Failed = Box<dyn std::error::Error>;

const ISSUER: &str = "https://login.example";
const SECRET: [u8; 64] = [7; 64];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("a folder with keys is needed")?;
    let all = backends();
    let installs = arguments.next().is_some();
    if let (true, Some((_, _, provider))) = (installs, all.first()) {
        provider.install_default().map_err(|_| "a default was installed before")?;
    }
    let mut verified = 0;
    for (name, backend, provider) in &all {
        for algorithm in ALGORITHMS {
            let file = file_of(algorithm);
            let (key, keys) = match file {
                None => {
                    let secret = Secret::new(SECRET.to_vec());
                    (
                        EncodingKey::from_secret(&SECRET),
                        KeySet::secret(Some("k"), algorithm, &secret)?,
                    )
                }
                Some(file) => {
                    let read = |name: String| fs::read(Path::new(&folder).join(name));
                    let private = read(format!("{file}.pem"))?;
                    let public = String::from_utf8(read(format!("{file}.pub.pem"))?)?;
                    (private_key(algorithm, &private)?, KeySet::pem(Some("k"), algorithm, &public)?)
                }
            };
            let issuer = Issuer::jwks(ISSUER, keys).audience("api").algorithms([algorithm]);
            let server = ResourceServer::builder().issuer(issuer).crypto(*backend).build()?;
            let token = token(provider, algorithm, &key)?;
            let verdict = server.verify(&Presented::alone(&token)).await;
            let user = verdict.map_err(|error| format!("{name}, {}: {error}", algorithm.name()))?;
            if user.subject() != "alice" {
                return Err("somebody else".into());
            }
            // The first character of the signature, for the last may carry stray bits alone.
            let at = token.rfind('.').ok_or("no signature")? + 1;
            let other = if token[at..].starts_with('A') { 'B' } else { 'A' };
            let forged = format!("{}{other}{}", &token[..at], &token[at + 1..]);
            let verdict = server.verify(&Presented::alone(&forged)).await;
            if verdict.err().map(|error| error.kind()) != Some(AuthErrorKind::InvalidToken) {
                return Err(format!("{name}, {}: a forged token holds", algorithm.name()).into());
            }
            verified += 1;
        }
    }
    if verified == 0 {
        return Err("no backend is compiled in".into());
    }
    let names: Vec<&str> = all.iter().map(|(name, ..)| *name).collect();
    let installed = if installs { "installed" } else { "none" };
    println!("{}, default {installed}: {verified} algorithms verified", names.join(" and "));
    Ok(())
}

const ALGORITHMS: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

fn file_of(algorithm: Algorithm) -> Option<&'static str> {
    match algorithm.name() {
        "ES256" => Some("p256"),
        "ES384" => Some("p384"),
        "EdDSA" => Some("ed25519"),
        name if name.starts_with("HS") => None,
        _ => Some("rsa"),
    }
}

fn private_key(algorithm: Algorithm, pem: &[u8]) -> Result<EncodingKey, Failed> {
    Ok(match algorithm.name() {
        "ES256" | "ES384" => EncodingKey::from_ec_pem(pem)?,
        "EdDSA" => EncodingKey::from_ed_pem(pem)?,
        _ => EncodingKey::from_rsa_pem(pem)?,
    })
}

fn token(
    provider: &CryptoProvider,
    algorithm: Algorithm,
    key: &EncodingKey,
) -> Result<String, Failed> {
    let name = algorithm.name();
    let now = std::time::UNIX_EPOCH.elapsed()?.as_secs();
    let header = format!(r#"{{"alg":"{name}","typ":"at+jwt","kid":"k"}}"#);
    let claims = format!(
        r#"{{"iss":"{ISSUER}","aud":"api","sub":"alice","client_id":"c","jti":"1","iat":{now},"exp":{}}}"#,
        now + 60
    );
    let signed = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
    let signer = (provider.signer_factory)(&name.parse::<Alg>()?, key)?;
    let signature = signer.try_sign(signed.as_bytes())?;
    Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
}

type Backend = (&'static str, CryptoBackend, &'static CryptoProvider);

fn backends() -> Vec<Backend> {
    vec![
        #[cfg(feature = "aws-lc-rs")]
        ("aws-lc-rs", CryptoBackend::aws_lc_rs(), &jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER),
        #[cfg(feature = "rust-crypto")]
        (
            "rust-crypto",
            CryptoBackend::rust_crypto(),
            &jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER,
        ),
    ]
}

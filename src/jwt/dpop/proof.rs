//! One DPoP proof: RFC 9449, sections 4.2 and 4.3, as plain functions on plain data.

use std::time::Duration;

use http::{Method, Uri};
use serde_json::{Map, Value};

use super::{target::Base, thumbprint};
use crate::{
    jwt::{
        Algorithm, AuthError, AuthErrorKind, CryptoBackend, Reason,
        cache::Digest,
        claims,
        compact::{Compact, Header},
        confirmation::sha256_of,
        jwk::Key,
        keys::PRIVATE_MEMBERS,
    },
    secret,
};

/// A proof as it was read: nothing in it is verified but its form.
pub(crate) struct Proof<'a> {
    compact: Compact<'a>,
    pub(super) algorithm: Algorithm,
    key: Key,
    thumbprint: [u8; 32],
    claims: Map<String, Value>,
}

/// What is wrong with a proof. All of it can be read off the request, so that telling it apart gives
/// nothing away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// There is none.
    Missing,
    /// There are several.
    Several,
    /// Longer than the cap, or its `jti` is.
    TooLong,
    /// Not a JWS in compact form, or a member or claim is missing or of the wrong type.
    Malformed,
    /// Its `typ` is not `dpop+jwt`.
    WrongType,
    /// Its `alg` is not allowed.
    Algorithm,
    /// Its `jwk` is private, weak, unusable, or does not fit the `alg`.
    Key,
    /// Its signature is not its key's.
    Signature,
    /// It was made for another method or address.
    Target,
    /// It was made too long ago, or will be.
    Time,
    /// It was made for another access token.
    Token,
    /// Its key is not the one that the access token is bound to.
    WrongKey,
    /// It lacks the server's nonce, or has an old one.
    Nonce,
    /// It was used before.
    Used,
}

impl<'a> Proof<'a> {
    /// Reads a proof strictly, and finds its key fit to verify it.
    pub(super) fn read(text: &'a str) -> Result<Self, Flaw> {
        if text.len() > MAX_PROOF_BYTES {
            return Err(Flaw::TooLong);
        }
        let compact = Compact::split(text)?;
        let members = compact.members()?;
        let header = Header::of(&members)?;
        if header.token_type.as_deref() != Some("dpop+jwt") {
            return Err(Flaw::WrongType);
        }
        let jwk = members.get("jwk").and_then(Value::as_object).ok_or(Flaw::Malformed)?;
        // A client that sends its private key has lost it.
        if PRIVATE_MEMBERS.iter().chain(&["k"]).any(|name| jwk.contains_key(*name)) {
            return Err(Flaw::Key);
        }
        let key = Key::read(jwk).map_err(|_| Flaw::Key)?;
        if !key.algorithms.contains(&header.algorithm) {
            return Err(Flaw::Key);
        }
        let thumbprint = thumbprint::of(jwk).ok_or(Flaw::Key)?;
        let claims = compact.claims()?;
        Ok(Self { compact, algorithm: header.algorithm, key, thumbprint, claims })
    }

    /// Whether it is by the key that the access token is bound to.
    pub(super) fn check_key(&self, bound: &[u8; 32]) -> Result<(), Flaw> {
        holds(secret::constant_time_eq(&self.thumbprint, bound), Flaw::WrongKey)
    }

    /// Whether it was made for this request: method, and address without query.
    pub(super) fn check_target(
        &self,
        bases: &[Base],
        method: &Method,
        path: &str,
    ) -> Result<(), Flaw> {
        let (htm, htu) = (self.required("htm")?, self.required("htu")?);
        let htu: Uri = htu.parse().map_err(|_| Flaw::Malformed)?;
        holds(htm == method.as_str(), Flaw::Target)?;
        holds(bases.iter().any(|base| base.is_target(&htu, path)), Flaw::Target)
    }

    /// Whether it was made at most a `window` ago, or by a clock that is at most as much ahead.
    pub(super) fn check_time(&self, now: Duration, window: Duration) -> Result<(), Flaw> {
        let date = |name, round| claims::date(&self.claims, name, round).map_err(Flaw::from);
        let now = now.as_secs();
        let issued_at = date("iat", f64::floor)?.ok_or(Flaw::Malformed)?;
        holds(now.abs_diff(issued_at) <= window.as_secs(), Flaw::Time)?;
        // Not asked for, but binding where they are: RFC 7519, sections 4.1.4 and 4.1.5.
        holds(date("exp", f64::floor)?.is_none_or(|end| now < end), Flaw::Time)?;
        let latest = now.saturating_add(window.as_secs());
        holds(date("nbf", f64::ceil)?.is_none_or(|start| start <= latest), Flaw::Time)
    }

    /// Whether it was made for this access token.
    pub(super) fn check_token(&self, token: &Digest) -> Result<(), Flaw> {
        let hash = sha256_of(self.required("ath")?).ok_or(Flaw::Malformed)?;
        holds(secret::constant_time_eq(&hash, token), Flaw::Token)
    }

    /// What names it among the proofs by its key.
    pub(super) fn id(&self) -> Result<&str, Flaw> {
        let id = self.required("jti")?;
        holds(id.len() <= MAX_ID_BYTES, Flaw::TooLong)?;
        Ok(id)
    }

    pub(super) fn nonce(&self) -> Result<Option<&str>, Flaw> {
        Ok(claims::string(&self.claims, "nonce")?)
    }

    pub(super) fn check_signature(&self, crypto: CryptoBackend) -> Result<(), Flaw> {
        let signature = self.compact.signature()?;
        let signed = self.compact.signed();
        let is_its = crypto.verifies(self.algorithm, &self.key.material, signed, &signature);
        holds(is_its, Flaw::Signature)
    }

    fn required(&self, name: &str) -> Result<&str, Flaw> {
        let text = claims::string(&self.claims, name)?;
        text.filter(|text| !text.is_empty()).ok_or(Flaw::Malformed)
    }
}

impl Flaw {
    pub(crate) const fn error(self) -> AuthError {
        let kind = match self {
            Self::Nonce => AuthErrorKind::UseDpopNonce,
            // As in the example of RFC 9449, section 7.1: the proof is good, the token is not its.
            Self::WrongKey => AuthErrorKind::InvalidToken,
            _ => AuthErrorKind::InvalidDpopProof,
        };
        AuthError::new(kind, self.description())
    }

    pub(crate) const fn description(self) -> &'static str {
        match self {
            Self::Missing => "The request has no DPoP proof.",
            Self::Several => "The request has more than one DPoP proof.",
            Self::TooLong => "The DPoP proof is too long.",
            Self::Malformed => "The DPoP proof is malformed or lacks a required claim.",
            Self::WrongType => "The DPoP proof is of another type than dpop+jwt.",
            Self::Algorithm => "The DPoP proof is signed with an algorithm that is not allowed.",
            Self::Key => "The key of the DPoP proof cannot be used.",
            Self::Signature => "The signature of the DPoP proof is not its key's.",
            Self::Target => "The DPoP proof is for another method or address.",
            Self::Time => "The DPoP proof was not made just now.",
            Self::Token => "The DPoP proof is for another access token.",
            Self::WrongKey => "The access token is bound to another key than the DPoP proof's.",
            Self::Nonce => "The DPoP proof needs the nonce that this server gives.",
            Self::Used => "The DPoP proof was used before.",
        }
    }
}

/// What is wrong with the form is wrong with the proof, not with the token.
impl From<Reason> for Flaw {
    fn from(reason: Reason) -> Self {
        match reason {
            // An `alg` that is not known.
            Reason::Unverifiable => Self::Algorithm,
            _ => Self::Malformed,
        }
    }
}

fn holds(condition: bool, otherwise: Flaw) -> Result<(), Flaw> {
    if condition { Ok(()) } else { Err(otherwise) }
}

/// An RSA key of 8192 bits and its signature, encoded, take about 4 KiB.
const MAX_PROOF_BYTES: usize = 8 * 1024;
/// A UUID has 36.
const MAX_ID_BYTES: usize = 256;

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;

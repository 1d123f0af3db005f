//! Sets that are dangerous as a whole.

use serde_json::{Map, Value};

/// A published private key signs for everybody, and secrets beside public keys invite a public key
/// to be taken for a secret (RFC 8725, section 2.1). Both are the set's fault, not one key's.
pub(super) fn refuse_dangerous<'a>(
    objects: impl Iterator<Item = &'a Map<String, Value>> + Clone,
) -> Result<(), &'static str> {
    let is_private =
        |jwk: &Map<String, Value>| PRIVATE_MEMBERS.iter().any(|name| jwk.contains_key(*name));
    if objects.clone().any(is_private) {
        return Err("it holds a private key");
    }
    if objects.clone().any(is_secret) && !objects.clone().all(is_secret) {
        return Err(MIXED);
    }
    let clash =
        |(index, jwk)| objects.clone().skip(index + 1).any(|other| is_ambiguous(jwk, other));
    if objects.clone().enumerate().any(clash) {
        return Err(AMBIGUOUS);
    }
    Ok(())
}

pub(super) fn is_secret(jwk: &Map<String, Value>) -> bool {
    jwk.get("kty").is_some_and(|kty| kty == "oct")
}

/// Whether a token could mean either key, going by what the keys say of themselves: one that turns
/// out to be unusable still leaves open which of them the issuer meant.
fn is_ambiguous(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    let same = |name| one.get(name) == other.get(name);
    let signs = |jwk: &Map<String, Value>| jwk.get("use").is_none_or(|usage| usage == "sig");
    let may_share_algorithm = match (one.get("alg"), other.get("alg")) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    };
    one.contains_key("kid")
        && ["kid", "kty", "crv"].into_iter().all(same)
        && signs(one)
        && signs(other)
        && may_share_algorithm
}

pub(super) const AMBIGUOUS: &str = "two keys have the same kid and fit the same algorithm";
pub(super) const MIXED: &str = "it holds secrets beside public keys";

/// Of RSA, EC, OKP and AKP keys: RFC 7518, section 6; RFC 8037; the ML-DSA draft.
pub(crate) const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "priv"];

//! Sets that are dangerous as a whole.

use std::collections::{HashMap, HashSet};

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
    if is_ambiguous(objects) { Err(AMBIGUOUS) } else { Ok(()) }
}

pub(super) fn is_secret(jwk: &Map<String, Value>) -> bool {
    jwk.get("kty").is_some_and(|kty| kty == "oct")
}

/// Whether a token could mean either of two keys, going by what the keys say of themselves: one that turns
/// out to be unusable still leaves open which of them the issuer meant.
///
/// One pass: 512 KiB have room for 50,000 keys, and each with each would be a billion comparisons.
fn is_ambiguous<'a>(objects: impl Iterator<Item = &'a Map<String, Value>>) -> bool {
    let signs = |jwk: &Map<String, Value>| jwk.get("use").is_none_or(|usage| usage == "sig");
    let mut algorithms_of = HashMap::<_, HashSet<_>>::new();
    let mut named = objects.filter(|jwk| jwk.contains_key("kid") && signs(jwk));
    named.any(|jwk| {
        let key = ["kid", "kty", "crv"].map(|name| jwk.get(name));
        let others = algorithms_of.entry(key).or_default();
        // One that names no algorithm may be meant for any.
        let may_share = match jwk.get("alg") {
            None => !others.is_empty(),
            named => others.contains(&None) || others.contains(&named),
        };
        others.insert(jwk.get("alg"));
        may_share
    })
}

pub(super) const AMBIGUOUS: &str = "two keys have the same kid and fit the same algorithm";
pub(super) const MIXED: &str = "it holds secrets beside public keys";

/// Of RSA, EC, OKP and AKP keys: RFC 7518, section 6; RFC 8037; the ML-DSA draft.
pub(crate) const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "priv"];

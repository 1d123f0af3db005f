//! An issuer's keys.

mod danger;
#[cfg(test)]
mod tests;

use std::{collections::HashSet, fmt, fs, path::Path, sync::Arc};

use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

pub(crate) use self::danger::PRIVATE_MEMBERS;
use self::danger::{AMBIGUOUS, MIXED, is_secret, refuse_dangerous};
use super::{
    Algorithm, json,
    jwk::{self, Key},
    pem,
};
use crate::{BuildError, Secret};

/// The keys that one issuer signs with. Cheap to clone.
///
/// A key that can't be used, for its type, its weakness or its purpose, is set aside, and
/// [`skipped`](Self::skipped) says why; the others still serve. A set that is dangerous as a whole is
/// refused.
#[derive(Clone)]
pub struct KeySet(Arc<Inner>);

struct Inner {
    keys: Vec<Key>,
    skipped: Vec<SkippedKey>,
}

impl KeySet {
    /// A JSON Web Key Set (RFC 7517) as text.
    ///
    /// Secrets (`kty` `oct`) are read too, for sets from a file that nobody else reads; no issuer
    /// uses them unless its [`algorithms`](super::Issuer::algorithms) name an `HS` one.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for text that is no key set, and for a set that holds a private
    /// key, secrets and public keys at once, or two keys of one `kid` that fit the same algorithm.
    pub fn from_json(text: &str) -> Result<Self, BuildError> {
        Self::read(text.as_bytes(), Secrets::Used).map_err(invalid)
    }

    /// A set that was fetched. Secrets in it are set aside: what is published is none.
    pub(crate) fn from_network(text: &[u8]) -> Result<Self, &'static str> {
        Self::read(text, Secrets::SetAside)
    }

    /// A JSON Web Key Set in a file.
    ///
    /// # Errors
    /// [`BuildError::File`] when the file can't be read, or its text is refused by
    /// [`from_json`](Self::from_json).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, BuildError> {
        let path = path.as_ref();
        let file = |source| BuildError::File { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(|error| file(error.into()))?;
        Self::from_json(&text).map_err(|error| file(error.into()))
    }

    /// One public key in PEM (`PUBLIC KEY` or `RSA PUBLIC KEY`), for tokens signed with `algorithm`.
    /// With a `key_id`, not for tokens that name another.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for anything else than a public key, and for one that is weak or of
    /// another kind than `algorithm` needs.
    pub fn pem(key_id: Option<&str>, algorithm: Algorithm, text: &str) -> Result<Self, BuildError> {
        let wrong = |reason| BuildError::invalid("public key", reason);
        let (algorithms, material) = pem::read(algorithm, text).map_err(wrong)?;
        Self::single(key_id, algorithm, &algorithms, material).map_err(wrong)
    }

    /// One shared secret of at least the algorithm's hash length: 32, 48 or 64 bytes, random. Who can
    /// verify with it can also sign.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for a shorter secret, and for an algorithm that has none.
    pub fn secret(
        key_id: Option<&str>,
        algorithm: Algorithm,
        secret: &Secret<Vec<u8>>,
    ) -> Result<Self, BuildError> {
        let wrong = |reason| BuildError::invalid("shared secret", reason);
        let (algorithms, material) = jwk::secret(secret.expose()).map_err(wrong)?;
        Self::single(key_id, algorithm, &algorithms, material).map_err(wrong)
    }

    /// The keys of both.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] when both have a key of the same `kid` for the same algorithm, or
    /// one holds secrets and the other public keys.
    pub fn and(self, other: &Self) -> Result<Self, BuildError> {
        let join = |of: fn(&Inner) -> &[Key]| [of(&self.0), of(&other.0)].concat();
        let skipped = [self.0.skipped.as_slice(), &other.0.skipped].concat();
        Self::new(join(|inner| &inner.keys), skipped).map_err(invalid)
    }

    /// How many keys can be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.keys.len()
    }

    /// Whether no key can be used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.keys.is_empty()
    }

    /// The keys that were set aside, and why.
    #[must_use]
    pub fn skipped(&self) -> &[SkippedKey] {
        &self.0.skipped
    }

    /// The one key that a token may be verified with, or none where a choice is to be made. A token
    /// that names a key gets the one of that name, or else the one that has no name; a token that
    /// names none gets any.
    pub(crate) fn choose(&self, key_id: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let fitting = || self.0.keys.iter().filter(|key| key.algorithms.contains(&algorithm));
        if key_id.is_none() {
            return only(fitting());
        }
        let named = fitting().find(|key| key.id.as_deref() == key_id);
        named.or_else(|| only(fitting().filter(|key| key.id.is_none())))
    }

    /// Whether a key has this `kid`, be it one that can't be used.
    pub(crate) fn mentions(&self, key_id: &str) -> bool {
        let mut used = self.0.keys.iter().map(|key| key.id.as_deref());
        let mut skipped = self.0.skipped.iter().map(|key| key.id.as_deref());
        used.any(|id| id == Some(key_id)) || skipped.any(|id| id == Some(key_id))
    }

    /// Whether a token of one of these algorithms could ever be verified.
    pub(crate) fn serves(&self, algorithms: &[Algorithm]) -> bool {
        let mut all = self.0.keys.iter().flat_map(|key| &key.algorithms);
        all.any(|algorithm| algorithms.contains(algorithm))
    }

    fn single(
        key_id: Option<&str>,
        algorithm: Algorithm,
        fitting: &[Algorithm],
        material: DecodingKey,
    ) -> Result<Self, jwk::Unusable> {
        if !fitting.contains(&algorithm) {
            return Err("it does not fit the algorithm");
        }
        let key = Key { id: key_id.map(str::to_owned), algorithms: vec![algorithm], material };
        Ok(Self(Arc::new(Inner { keys: vec![key], skipped: Vec::new() })))
    }

    fn read(text: &[u8], secrets: Secrets) -> Result<Self, &'static str> {
        let set = json::parse_object(text).ok_or("not a JSON object")?;
        let Some(Value::Array(members)) = set.get("keys") else {
            return Err("it has no list of keys");
        };
        let is_left_out = |jwk: &Map<String, Value>| secrets == Secrets::SetAside && is_secret(jwk);
        refuse_dangerous(
            members.iter().filter_map(Value::as_object).filter(|jwk| !is_left_out(jwk)),
        )?;
        let (mut keys, mut skipped) = (Vec::new(), Vec::new());
        for (index, member) in members.iter().enumerate() {
            let read = match member.as_object() {
                None => Err("it is no object"),
                Some(jwk) if is_left_out(jwk) => Err("a secret that was published is none"),
                Some(jwk) => Key::read(jwk),
            };
            match read {
                Ok(key) => keys.push(key),
                Err(reason) => {
                    let id = member.get("kid").and_then(Value::as_str).map(str::to_owned);
                    skipped.push(SkippedKey { index, id, reason });
                }
            }
        }
        Self::new(keys, skipped)
    }

    fn new(keys: Vec<Key>, skipped: Vec<SkippedKey>) -> Result<Self, &'static str> {
        let symmetric = |key: &Key| key.algorithms.iter().any(|algorithm| algorithm.is_symmetric());
        if keys.iter().any(symmetric) && !keys.iter().all(symmetric) {
            return Err(MIXED);
        }
        let named = keys.iter().filter_map(|key| Some((key.id.as_deref()?, &key.algorithms)));
        let mut fitting = named.flat_map(|(id, list)| list.iter().map(move |one| (id, one)));
        let mut seen = HashSet::new();
        if fitting.any(|id_and_algorithm| !seen.insert(id_and_algorithm)) {
            return Err(AMBIGUOUS);
        }
        Ok(Self(Arc::new(Inner { keys, skipped })))
    }
}

/// Counts keys, never shows them.
impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet")
            .field("keys", &self.0.keys.len())
            .field("skipped", &self.0.skipped)
            .finish()
    }
}

/// What is done with secrets in a set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrets {
    Used,
    SetAside,
}

/// A key of a set that can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedKey {
    index: usize,
    id: Option<String>,
    reason: &'static str,
}

impl SkippedKey {
    /// Its place in the set, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its `kid`.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Why it can't be used.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

/// The next one, if it is also the last.
fn only<'a>(mut keys: impl Iterator<Item = &'a Key>) -> Option<&'a Key> {
    let first = keys.next()?;
    keys.next().is_none().then_some(first)
}

fn invalid(reason: &'static str) -> BuildError {
    BuildError::invalid("key set", reason)
}

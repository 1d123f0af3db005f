//! What a token says.

use std::fmt;

use serde_json::Value;

/// The claims of a token, by name (`tier`) or by JSON pointer (`/realm_access/roles`, RFC 6901).
#[derive(Clone)]
pub struct Claims(Value);

impl Claims {
    pub(super) fn none() -> Self {
        Self(Value::Null)
    }

    pub(super) fn new(claims: Value) -> Self {
        Self(claims)
    }

    /// A claim that is a string.
    #[must_use]
    pub fn str(&self, claim: &str) -> Option<&str> {
        self.value(claim)?.as_str()
    }

    /// A claim that is a whole number of at least zero.
    #[must_use]
    pub fn u64(&self, claim: &str) -> Option<u64> {
        self.value(claim)?.as_u64()
    }

    /// A claim that is true or false.
    #[must_use]
    pub fn bool(&self, claim: &str) -> Option<bool> {
        self.value(claim)?.as_bool()
    }

    /// The strings of a claim that is a list. Anything else is an empty list.
    pub fn strs(&self, claim: &str) -> impl Iterator<Item = &str> {
        let list = self.value(claim).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str)
    }

    /// All claims as a type of the application's own, which borrows nothing.
    ///
    /// # Errors
    /// [`ClaimsMismatch`] when they don't fit the type.
    #[cfg(any(feature = "jwt", feature = "serde"))]
    pub fn get<T: serde::de::DeserializeOwned>(&self) -> Result<T, ClaimsMismatch> {
        T::deserialize(&self.0).map_err(|_| ClaimsMismatch(()))
    }

    /// One claim as a type of the application's own. A claim that is not there reads as null, which
    /// an `Option` takes for `None`.
    ///
    /// # Errors
    /// [`ClaimsMismatch`] when it does not fit the type.
    #[cfg(any(feature = "jwt", feature = "serde"))]
    pub fn get_claim<T: serde::de::DeserializeOwned>(
        &self,
        claim: &str,
    ) -> Result<T, ClaimsMismatch> {
        let value = self.value(claim).unwrap_or(&Value::Null);
        T::deserialize(value).map_err(|_| ClaimsMismatch(()))
    }

    /// Whether the claim is there at all.
    #[must_use]
    pub fn contains(&self, claim: &str) -> bool {
        self.value(claim).is_some()
    }

    fn value(&self, claim: &str) -> Option<&Value> {
        if claim.starts_with('/') { self.0.pointer(claim) } else { self.0.get(claim) }
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims(..)")
    }
}

/// The claims don't fit the type that was asked for. Does not say where, since that would show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the claims don't fit the type that was asked for")]
pub struct ClaimsMismatch(());

//! A new key, and what is kept of it.

use std::time::Duration;

use super::{ApiKeyError, ApiKeyRecord, NewApiKey, form::Form};
use crate::Secret;

/// A key just made, and its record: the only time that the key is seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IssuedApiKey {
    /// The key, to be handed to its subject.
    pub key: Secret<String>,
    /// What is kept of it.
    pub record: ApiKeyRecord,
}

impl Form {
    /// Makes a key. It counts once its record is kept.
    pub(super) fn issue(&self, new: NewApiKey, now: Duration) -> Result<IssuedApiKey, ApiKeyError> {
        let key = self.make().map_err(|_| ApiKeyError::NoRandomness)?;
        let hash = self.hash(key.expose()).ok_or(ApiKeyError::NoRandomness)?;
        let record = new.record(hash, now);
        record.check().map_err(ApiKeyError::Unfit)?;
        Ok(IssuedApiKey { key, record })
    }
}

//! What is kept of a key: whose it is, and until when.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ApiKeyError, form::KeyHash};
use crate::{identity::UserIdentity, store::StoreError};

/// What is known of a key. The key itself is not among it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ApiKeyRecord {
    /// The key's name, by which it is revoked. No secret.
    pub id: String,
    pub(super) hash: KeyHash,
    /// Who vouches for the subject, as a token's `iss` does.
    pub issuer: String,
    /// Whose key it is.
    pub subject: String,
    /// The tier: what a token has in the claim `tier`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// What the key grants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// When it was made, in seconds since the Unix epoch.
    pub created_at: u64,
    /// When it ends, in seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// For how many seconds it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<u64>,
    /// When it was revoked, in seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<u64>,
    /// A remark for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Whether a key counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApiKeyState {
    /// It does.
    Active,
    /// It has ended.
    Expired,
    /// It was revoked.
    Revoked,
}

impl ApiKeyRecord {
    /// Whether the key counts at `now`, a time since the Unix epoch.
    #[must_use]
    pub fn state(&self, now: Duration) -> ApiKeyState {
        if self.revoked_at.is_some() {
            ApiKeyState::Revoked
        } else if self.expires_at.is_some_and(|end| end <= now.as_secs()) {
            ApiKeyState::Expired
        } else {
            ApiKeyState::Active
        }
    }

    /// As the store keeps it.
    pub(super) fn to_bytes(&self) -> Result<Bytes, StoreError> {
        serde_json::to_vec(self).map(Bytes::from).map_err(StoreError::permanent)
    }

    /// Reads what the store keeps. Errors say nothing of it.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, StoreError> {
        let record = serde_json::from_slice(bytes).ok();
        let record = record.filter(|record: &Self| record.check().is_ok());
        record.ok_or_else(|| StoreError::permanent("an API key's record can't be read"))
    }

    /// Ends it for good.
    pub(super) fn revoke(&mut self, now: Duration) {
        self.revoked_at.get_or_insert(now.as_secs());
    }

    /// Ends it then, unless it ends before.
    pub(super) fn end_by(&mut self, end: Duration) {
        let end = end.as_secs();
        self.expires_at = Some(self.expires_at.map_or(end, |before| before.min(end)));
    }

    /// A key like it, for as long as it was made for.
    pub(super) fn heir(&self) -> Result<NewApiKey, ApiKeyError> {
        if self.revoked_at.is_some() {
            return Err(ApiKeyError::Revoked);
        }
        Ok(NewApiKey {
            issuer: self.issuer.clone(),
            subject: self.subject.clone(),
            tier: self.tier.clone(),
            scopes: self.scopes.clone(),
            lifetime: self.lifetime.map(Duration::from_secs),
            note: self.note.clone(),
        })
    }

    /// Says what keeps it from being read, or listed a line each.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let texts = [&self.id, &self.issuer, &self.subject];
        if texts.iter().any(|text| text.is_empty()) {
            return Err("lacks an id, an issuer or a subject");
        }
        let shown = texts.into_iter().chain(&self.tier).chain(&self.scopes).chain(&self.note);
        if shown.flat_map(|text| text.chars()).any(char::is_control) {
            return Err("has control characters in its texts");
        }
        Ok(())
    }

    /// The caller whose key it is.
    pub(super) fn user(&self) -> Arc<UserIdentity> {
        let mut claims = Map::new();
        claims.insert("iat".into(), self.created_at.into());
        if let Some(tier) = &self.tier {
            claims.insert("tier".into(), tier.as_str().into());
        }
        let mut user = UserIdentity::asserted(&self.issuer, &self.subject)
            .with_token_id(&self.id)
            .with_scopes(&self.scopes)
            .with_claims_value(Value::Object(claims));
        if let Some(end) = self.expires_at {
            user = user.with_expiry(end);
        }
        Arc::new(user)
    }
}

/// A key to be made: for whom, and for what.
#[derive(Clone, Debug)]
#[must_use]
pub struct NewApiKey {
    pub(super) issuer: String,
    pub(super) subject: String,
    pub(super) tier: Option<String>,
    pub(super) scopes: Vec<String>,
    pub(super) lifetime: Option<Duration>,
    pub(super) note: Option<String>,
}

impl NewApiKey {
    /// A key for `subject`, which is unique within `issuer`, a label as `iss` is: limits and rules that
    /// name a subject name both. Without a tier, without scopes, without an end.
    pub fn new(issuer: impl Into<String>, subject: impl Into<String>) -> Self {
        let (issuer, subject) = (issuer.into(), subject.into());
        Self { issuer, subject, tier: None, scopes: Vec::new(), lifetime: None, note: None }
    }

    /// In this tier.
    pub fn tier(mut self, tier: impl Into<String>) -> Self {
        self.tier = Some(tier.into());
        self
    }

    /// Granting these scopes.
    pub fn scopes<T: Into<String>>(mut self, scopes: impl IntoIterator<Item = T>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// For so long from now on. By default until it is revoked.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// With a remark for people.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// A record of it, under this hash.
    pub(super) fn record(self, hash: KeyHash, now: Duration) -> ApiKeyRecord {
        ApiKeyRecord {
            id: hash.id().map(char::from).iter().collect(),
            hash,
            issuer: self.issuer,
            subject: self.subject,
            tier: self.tier,
            scopes: self.scopes,
            created_at: now.as_secs(),
            expires_at: self.lifetime.map(|lifetime| now.saturating_add(lifetime).as_secs()),
            lifetime: self.lifetime.map(|lifetime| lifetime.as_secs()),
            revoked_at: None,
            note: self.note,
        }
    }
}

/// The file: one JSON object, so that half a file is no file.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Records {
    pub(super) keys: Vec<ApiKeyRecord>,
}

impl Records {
    /// Reads a file's text. Errors say where, and nothing of what stands there.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let records: Self = serde_json::from_slice(text).map_err(|error| {
            format!("not a list of keys: line {}, column {}", error.line(), error.column())
        })?;
        records.check()?;
        Ok(records)
    }

    pub(super) fn to_text(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Two records of one key would leave open which one counts.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut ids = HashSet::new();
        let mut hashes = HashSet::new();
        for (index, key) in self.keys.iter().enumerate() {
            key.check().map_err(|reason| format!("the key at {index} {reason}"))?;
            if !ids.insert(&key.id) || !hashes.insert(key.hash) {
                return Err(format!("the key at {index} is there twice"));
            }
        }
        Ok(())
    }
}

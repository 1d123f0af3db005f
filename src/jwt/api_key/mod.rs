//! API keys: opaque credentials of this server's own, for clients that know nothing else.
//!
//! A key is a prefix, 256 random bits and a checksum: `sk-pal-…`. A file or the shared store keeps, under a
//! pepper, its HMAC-SHA-256 alone. See [`ApiKeyFile`] and [`ApiKeyStore`] for making them, [`ApiKeys`] for
//! accepting them.

mod error;
mod file;
mod form;
mod issue;
mod record;
mod store;
mod usage;

use std::{sync::Arc, time::Duration};

pub use self::{
    error::ApiKeyError,
    file::ApiKeyFile,
    issue::IssuedApiKey,
    record::{ApiKeyRecord, ApiKeyState, NewApiKey},
    store::{ApiKeyListing, ApiKeyStore, ListedApiKey},
    usage::ApiKeyUse,
};
use self::{file::Watched, form::Form, store::Served, usage::Uses};
use super::{AnyOf, AuthError, AuthErrorKind, Presented, TokenVerifier};
use crate::{future::ReadyOr, identity::UserIdentity, store::StoreError};

/// The API keys of a file or of the shared store. Cheap to clone.
///
/// A key gives the same identity as a token: issuer and subject as in its record, its id as the token's
/// id, its scopes, its end, and the claims `tier` and `iat`.
///
/// ```
/// use palisade::{Secret, jwt::{ApiKeyFile, JwtAuthLayer, NewApiKey, Presented, TokenVerifier}};
///
/// # let folder = std::env::temp_dir().join(format!("palisade-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let path = folder.join("keys.json");
/// let pepper = Secret::new(std::env::var("PEPPER").unwrap_or("at least 16 bytes".into()).into_bytes());
/// let file = ApiKeyFile::new(path, &pepper)?;
/// let new = NewApiKey::new("https://llm.example", "alice").tier("paid").scopes(["llm:infer"]);
/// let issued = file.issue(new)?; // Or by `examples/api_keys.rs`.
///
/// let keys = file.open()?;
/// // `JwtAuthLayer::builder(keys.or(resource_server))` accepts tokens as well.
/// let layer = JwtAuthLayer::builder(keys.clone()).require_scopes(["llm:infer"]).build()?;
/// let user = keys.verify(&Presented::alone(issued.key.expose())).try_now().unwrap()?;
/// assert_eq!(user.subject(), "alice");
/// # std::fs::remove_dir_all(folder)?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # When keys change
/// Those of a **file**: at most once a second a request looks at the file's date, size and place; if they
/// changed, it and those after it wait until the new records are read. A file that can't be read, or is no
/// list of keys, changes nothing: the old records stay, and an error is logged.
///
/// Those of the **store**: in the process that changes one through its [`ApiKeyStore`] at once, in others within
/// the [staleness](ApiKeyStore::with_staleness), 10 seconds by default. The store's last answers count so long;
/// one that is half as old is renewed in the background, so that a key in use costs no round trip. When the
/// store does not answer and no such answer is there, a key is refused with 503.
///
/// `palisade_api_key_reads_total{outcome="read"|"failed"}` counts how often the file was read or the store asked,
/// and [`failed_reads`](Self::failed_reads) how often in vain.
#[derive(Clone, Debug)]
pub struct ApiKeys(Source);

#[derive(Clone, Debug)]
enum Source {
    File(Arc<Watched>),
    Store(Arc<Served>),
}

impl ApiKeys {
    /// Accepts these keys, and what `other` accepts: a credential with the keys' prefix is only ever
    /// tried as a key, every other one never.
    #[must_use]
    pub fn or(self, other: impl TokenVerifier) -> AnyOf {
        AnyOf::new(self, Box::new(other))
    }

    /// How often this process accepted each key since it began, and when last. Of the store's keys, those
    /// that it remembers.
    #[must_use]
    pub fn uses(&self) -> Vec<ApiKeyUse> {
        match &self.0 {
            Source::File(keys) => keys.uses(),
            Source::Store(keys) => keys.uses(),
        }
    }

    /// How often the file had changed and could not be used, or the store was asked in vain.
    #[must_use]
    pub fn failed_reads(&self) -> u64 {
        match &self.0 {
            Source::File(keys) => keys.failed_reads(),
            Source::Store(keys) => keys.failed_reads(),
        }
    }

    /// Writes the uses of the store's keys that are not yet written to the store: before a shutdown. Else they
    /// are written about once a minute.
    ///
    /// # Errors
    /// When the store can't be asked. The uses are still to be written then.
    pub async fn flush(&self) -> Result<(), StoreError> {
        match &self.0 {
            Source::File(_) => Ok(()),
            Source::Store(keys) => keys.flush().await,
        }
    }

    pub(super) fn claims(&self, token: &str) -> bool {
        self.form().claims(token)
    }

    fn form(&self) -> &Form {
        match &self.0 {
            Source::File(keys) => keys.form(),
            Source::Store(keys) => keys.form(),
        }
    }
}

impl TokenVerifier for ApiKeys {
    /// Ready at once, but for a request that finds the file changed, or no answer of the store new enough.
    fn verify(&self, presented: &Presented<'_>) -> ReadyOr<Result<Arc<UserIdentity>, AuthError>> {
        match (self.form().hash(presented.token), &self.0) {
            (None, _) => ReadyOr::ready(Err(MALFORMED)),
            (Some(hash), Source::File(keys)) => keys.verify(hash),
            (Some(hash), Source::Store(keys)) => keys.verify(hash),
        }
    }

    /// A key that is known costs a lookup, as a token that is remembered does, and is no guess.
    fn remembers(&self, presented: &Presented<'_>) -> bool {
        self.form().hash(presented.token).is_some_and(|hash| match &self.0 {
            Source::File(keys) => keys.holds(&hash),
            Source::Store(keys) => keys.holds(&hash),
        })
    }
}

type Verdict = Result<Arc<UserIdentity>, AuthError>;

/// A key that is known.
#[derive(Debug)]
struct Entry {
    record: ApiKeyRecord,
    user: Arc<UserIdentity>,
    uses: Arc<Uses>,
}

impl Entry {
    fn new(record: ApiKeyRecord, uses: Arc<Uses>) -> Self {
        Self { user: record.user(), record, uses }
    }

    /// Whether it counts, and one use more if it does.
    fn verdict(&self, now: Duration) -> Verdict {
        match self.record.state(now) {
            ApiKeyState::Active => {
                self.uses.count(now);
                Ok(Arc::clone(&self.user))
            }
            ApiKeyState::Expired => Err(EXPIRED),
            ApiKeyState::Revoked => Err(REVOKED),
        }
    }

    fn used(&self) -> ApiKeyUse {
        self.uses.told(&self.record.id)
    }
}

const MALFORMED: AuthError = refusal("The API key is malformed.");
const UNKNOWN: AuthError = refusal("The API key is not known.");
const EXPIRED: AuthError = refusal("The API key has expired.");
const REVOKED: AuthError = refusal("The API key was revoked.");

const fn refusal(description: &'static str) -> AuthError {
    AuthError::new(AuthErrorKind::InvalidToken, description)
}

//! Keys in the shared store, and how they are changed: one by one, each by who has seen its latest record.

mod ledger;
mod listing;
mod served;

use std::{sync::Arc, time::Duration};

pub use self::listing::{ApiKeyListing, ListedApiKey};
pub(super) use self::served::Served;
use self::{ledger::Ledger, served::Answers};
use super::{ApiKeyError, ApiKeyRecord, ApiKeys, IssuedApiKey, NewApiKey, Source, form::Form};
use crate::{
    BuildError, Secret,
    clock::{Clock, SystemClock},
    store::{Key, MAX_RECORD_BYTES, Pepper, RecordStore, StoreError, Stores},
};

/// API keys in the shared store: makes, lists, revokes and rotates them, and opens them for servers, of which
/// many may share millions. Cheap to clone.
///
/// The store gets a record of each key under a keyed hash, and in it the key's HMAC-SHA-256 under the pepper,
/// never the key. Subject, tier, scopes and remark stand in the record as they are, for [`records`](Self::records)
/// to tell: who may read the store reads them. A store that loses its records loses the keys; none is accepted then.
///
/// ```
/// use palisade::{Secret, jwt::{ApiKeyStore, JwtAuthLayer, NewApiKey}, store::Stores};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pepper = Secret::new(std::env::var("PEPPER").unwrap_or("at least 16 bytes".into()).into_bytes());
/// let store = ApiKeyStore::new(&Stores::in_memory(), &pepper)?; // Or those of a `RedisStore`.
/// let layer = JwtAuthLayer::builder(store.open()).require_scopes(["llm:infer"]).build()?;
///
/// // Elsewhere, say in an administrator's handler, or by `examples/api_keys.rs`.
/// let new = NewApiKey::new("https://llm.example", "alice").tier("paid").scopes(["llm:infer"]);
/// let issued = store.issue(new).await?;
/// store.revoke(&issued.record.id).await?;
///
/// let mut records = store.records();
/// while let Some(key) = records.next().await? {
///     println!("{} of {}: used {} times", key.record.id, key.record.subject, key.uses.count);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Changes at the same time
/// A record is replaced only by who has seen its latest state, so that of two administrators who change one key
/// neither undoes the other's change. A revocation is never undone.
///
/// # Uses
/// A server that accepts keys counts their uses in its memory, and adds them to the store about once a minute, off
/// the way of requests: of each key, how often it was used by any server, and when last. They stand in records
/// of their own. What a server has not written when it ends is lost ([`ApiKeys::flush`] writes it), and where an answer
/// of the store is lost, uses may count twice: this is no meter. `palisade_api_key_uses_unwritten_total` counts
/// how often the store could not be reached for it.
#[derive(Clone, Debug)]
pub struct ApiKeyStore(Arc<Served>);

#[derive(Clone, Debug)]
struct Settings {
    records: Arc<dyn RecordStore>,
    pepper: Pepper,
    form: Form,
    clock: Arc<dyn Clock>,
    staleness: Duration,
    answers: usize,
}

impl ApiKeyStore {
    /// The keys in the [`RecordStore`] of these stores, hashed under `pepper`: at least 16 bytes, secret, the
    /// same for all that share the keys, as the stores' own pepper is. With another one no key is known.
    ///
    /// # Errors
    /// [`BuildError`] for a short pepper.
    pub fn new(stores: &Stores, pepper: &Secret<Vec<u8>>) -> Result<Self, BuildError> {
        Ok(Self::with(Settings {
            records: Arc::clone(stores.records()),
            pepper: stores.pepper().clone(),
            form: Form::new(pepper)?,
            clock: Arc::new(SystemClock),
            staleness: DEFAULT_STALENESS,
            answers: DEFAULT_ANSWERS,
        }))
    }

    /// What every key begins with: see [`ApiKeyFile::with_prefix`](super::ApiKeyFile::with_prefix).
    ///
    /// # Errors
    /// [`BuildError`] for a prefix that can't be told from other text.
    pub fn with_prefix(self, prefix: impl Into<String>) -> Result<Self, BuildError> {
        let settings = self.settings();
        let form = settings.form.clone().with_prefix(prefix.into())?;
        Ok(Self::with(Settings { form, ..settings.clone() }))
    }

    /// The time. By default the machine's. This and the next two are to be said before the handle is cloned or
    /// [opened](Self::open): what was made before goes on with answers of its own.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self::with(Settings { clock, ..self.settings().clone() })
    }

    /// How old an answer of the store may be, so that a change made elsewhere may go unnoticed for so long. By
    /// default 10 seconds. Zero asks for every request.
    #[must_use]
    pub fn with_staleness(self, staleness: Duration) -> Self {
        Self::with(Settings { staleness, ..self.settings().clone() })
    }

    /// How many keys are remembered, at about 1 KiB each. By default 32768. Their uses are counted, and those of half
    /// as many more until they are written. What the store does not know is remembered apart, in an eighth of that, so that no flood of made-up
    /// keys pushes out one that holds.
    #[must_use]
    pub fn with_answers(self, answers: usize) -> Self {
        Self::with(Settings { answers, ..self.settings().clone() })
    }

    /// The keys, for a server to accept. The store is asked when one is used.
    #[must_use]
    pub fn open(&self) -> ApiKeys {
        ApiKeys(Source::Store(Arc::clone(&self.0)))
    }

    /// Every key there is, revoked and expired ones included, one after the other, with its uses. One that is made
    /// meanwhile may be missing.
    pub fn records(&self) -> ApiKeyListing {
        ApiKeyListing::new(self.settings().clone())
    }

    /// Makes a key.
    ///
    /// # Errors
    /// [`ApiKeyError`] for empty names, control characters, and a record of more than 4 KiB; when the store
    /// can't be asked. A key of which nobody knows may be listed then.
    pub async fn issue(&self, new: NewApiKey) -> Result<IssuedApiKey, ApiKeyError> {
        let settings = self.settings();
        for _ in 0..TRIES {
            let issued = settings.form.issue(new.clone(), settings.clock.unix())?;
            let record = issued.record.to_bytes()?;
            if record.len() + ROOM_FOR_CHANGES > MAX_RECORD_BYTES {
                return Err(ApiKeyError::Unfit("has more texts than the store takes"));
            }
            let key = settings.key(&issued.record.id);
            if settings.records.compare_and_swap(KEYS, key, None, record).await? {
                return Ok(issued);
            }
        }
        // As many names that were all taken are no chance.
        Err(ApiKeyError::NoRandomness)
    }

    /// Ends a key for good. Servers know within their [staleness](Self::with_staleness). Revoking it again
    /// changes nothing.
    ///
    /// # Errors
    /// [`ApiKeyError`] when there is no such key or the store can't be asked: whether it is revoked is not known
    /// then, and it is to be revoked again.
    pub async fn revoke(&self, id: &str) -> Result<ApiKeyRecord, ApiKeyError> {
        let now = self.settings().clock.unix();
        self.change(id, |record| {
            record.revoke(now);
            Ok(())
        })
        .await
    }

    /// Makes a key like this one, for as long as this one was made for. The old one ends after
    /// `overlap`, unless it does so before: until then both hold.
    ///
    /// # Errors
    /// [`ApiKeyError`] when there is no such key, when it was revoked, and when the store can't be asked. Then the
    /// old key may end all the same, and is to be rotated again; and one of which nobody knows may be listed.
    pub async fn rotate(&self, id: &str, overlap: Duration) -> Result<IssuedApiKey, ApiKeyError> {
        let settings = self.settings();
        let (_, old) = settings.find(id).await?;
        // The heir first: a rotation that breaks off must not leave its subject without a key.
        let heir = self.issue(old.heir()?).await?;
        let end = settings.clock.unix().saturating_add(overlap);
        let ended = self.change(id, |record| {
            if record.revoked_at.is_some() {
                return Err(ApiKeyError::Revoked);
            }
            record.end_by(end);
            Ok(())
        });
        if let Err(error) = ended.await {
            // Nobody gets to know it. It counts even so, until it is revoked.
            drop(self.revoke(&heir.record.id).await);
            return Err(error);
        }
        Ok(heir)
    }

    /// Changes a record, once no other change comes between.
    async fn change(
        &self,
        id: &str,
        change: impl Fn(&mut ApiKeyRecord) -> Result<(), ApiKeyError> + Send + Sync,
    ) -> Result<ApiKeyRecord, ApiKeyError> {
        let settings = self.settings();
        let key = settings.key(id);
        for _ in 0..TRIES {
            let asked_at = settings.clock.monotonic();
            let (old, before) = settings.find(id).await?;
            let mut record = before.clone();
            change(&mut record)?;
            if record == before {
                self.0.learn(key, Some(record.clone()), asked_at);
                return Ok(record);
            }
            let new = record.to_bytes()?;
            if settings.records.compare_and_swap(KEYS, key, Some(old), new).await? {
                // A revocation is final: later than every question so far, whose answer may be on its way.
                let at = match record.revoked_at {
                    Some(_) => settings.clock.monotonic().saturating_add(Duration::from_nanos(1)),
                    None => asked_at,
                };
                self.0.learn(key, Some(record.clone()), at);
                return Ok(record);
            }
        }
        Err(busy().into())
    }

    fn with(settings: Settings) -> Self {
        let answers = Answers::new(settings.answers);
        let ledger = Ledger::new(settings.answers.saturating_add(settings.answers / 2));
        Self(Arc::new(Served::new(settings, answers, ledger)))
    }

    fn settings(&self) -> &Settings {
        self.0.settings()
    }
}

impl Settings {
    /// Under which key the records of the key of this name are. The name is a part of the key's hash.
    fn key(&self, id: impl AsRef<[u8]>) -> Key {
        self.pepper.key("api-key").with(id.as_ref()).finish()
    }

    /// The record of the key of this name, as it is and as it says.
    async fn find(&self, id: &str) -> Result<(bytes::Bytes, ApiKeyRecord), ApiKeyError> {
        let found = self.records.read(KEYS, self.key(id)).await?.ok_or(ApiKeyError::NoSuchKey)?;
        let record = ApiKeyRecord::from_bytes(&found)?;
        if record.id != id {
            return Err(ApiKeyError::NoSuchKey);
        }
        Ok((found, record))
    }
}

fn busy() -> StoreError {
    StoreError::transient("the record keeps changing")
}

/// The tables of the store.
const KEYS: &str = "api-keys";
const USES: &str = "api-key-uses";

const DEFAULT_STALENESS: Duration = Duration::from_secs(10);
const DEFAULT_ANSWERS: usize = 32 * 1024;
/// Of several who change a record at once, one gets further each time.
const TRIES: usize = 64;
/// What a revocation and a rotation add to a record, in bytes, and more than that.
const ROOM_FOR_CHANGES: usize = 128;

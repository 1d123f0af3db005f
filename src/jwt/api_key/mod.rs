//! API keys: opaque credentials of this server's own, for clients that know nothing else.
//!
//! A key is a prefix, 256 random bits and a checksum: `sk-pal-…`. A file keeps, under a pepper, its
//! HMAC-SHA-256 alone. See [`ApiKeyFile`] for making them, [`ApiKeys`] for accepting them.

mod file;
mod form;
mod record;
mod usage;

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

pub use self::{
    file::{ApiKeyError, ApiKeyFile, IssuedApiKey},
    record::{ApiKeyRecord, ApiKeyState, NewApiKey},
    usage::ApiKeyUse,
};
use self::{
    form::{Form, KeyHash},
    record::Records,
    usage::Uses,
};
use super::{AnyOf, AuthError, AuthErrorKind, Presented, TokenVerifier};
use crate::{BuildError, clock::Clock, future::ReadyOr, identity::UserIdentity, observe, runtime};

/// The API keys of a file, which is read again when it changes. Cheap to clone.
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
/// # When the file changes
/// At most once a second a request looks at the file's date, size and place; if they changed, it and
/// those after it wait until the new records are read. A file that can't be read, or is no list of keys,
/// changes nothing: the old records stay, an error is logged, and
/// `palisade_api_key_reads_total{outcome="failed"}` and [`failed_reads`](Self::failed_reads) count it.
#[derive(Clone, Debug)]
pub struct ApiKeys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    form: Form,
    clock: Arc<dyn Clock>,
    known: RwLock<Known>,
    /// The file as it was when it was last read.
    seen: Mutex<Option<Stamp>>,
    /// When to look at the file next, in milliseconds of the monotonic clock.
    next_look: AtomicU64,
    /// The file has changed and is not read yet.
    changed: AtomicBool,
    failed_reads: AtomicU64,
}

type Known = HashMap<KeyHash, Entry>;

#[derive(Debug)]
struct Entry {
    record: ApiKeyRecord,
    user: Arc<UserIdentity>,
    uses: Arc<Uses>,
}

impl ApiKeys {
    /// Accepts these keys, and what `other` accepts: a credential with the keys' prefix is only ever
    /// tried as a key, every other one never.
    #[must_use]
    pub fn or(self, other: impl TokenVerifier) -> AnyOf {
        AnyOf::new(self, Box::new(other))
    }

    /// How often each key was used since this process began, and when last.
    #[must_use]
    pub fn uses(&self) -> Vec<ApiKeyUse> {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        known.values().map(|entry| entry.uses.told(&entry.record.id)).collect()
    }

    /// How often the file had changed and could not be used.
    #[must_use]
    pub fn failed_reads(&self) -> u64 {
        self.0.failed_reads.load(Ordering::Relaxed)
    }

    pub(super) fn claims(&self, token: &str) -> bool {
        self.0.form.claims(token)
    }

    fn open(path: PathBuf, form: Form, clock: Arc<dyn Clock>) -> Result<Self, BuildError> {
        let (stamp, records) = read(&path);
        let records = match records {
            Ok(records) => records,
            Err(source) => return Err(BuildError::File { path, source: source.into() }),
        };
        let next_look = AtomicU64::new(milliseconds(clock.monotonic()) + LOOK_EVERY);
        Ok(Self(Arc::new(Inner {
            path,
            form,
            clock,
            known: RwLock::new(known(records, &Known::new())),
            seen: Mutex::new(stamp),
            next_look,
            changed: AtomicBool::new(false),
            failed_reads: AtomicU64::new(0),
        })))
    }
}

impl TokenVerifier for ApiKeys {
    /// Ready at once, but for a request that finds the file changed.
    fn verify(&self, presented: &Presented<'_>) -> ReadyOr<Result<Arc<UserIdentity>, AuthError>> {
        let Some(hash) = self.0.form.hash(presented.token) else {
            return ReadyOr::ready(Err(MALFORMED));
        };
        if !self.0.is_outdated() {
            return ReadyOr::ready(self.0.find(&hash));
        }
        let inner = Arc::clone(&self.0);
        ReadyOr::pending(async move {
            let reader = Arc::clone(&inner);
            match runtime::unblock(move || reader.read_again()).await {
                Some(()) => inner.find(&hash),
                None => Err(AuthError::unavailable()),
            }
        })
    }

    /// A key that is known costs a lookup, as a token that is remembered does.
    fn remembers(&self, presented: &Presented<'_>) -> bool {
        let hash = self.0.form.hash(presented.token);
        hash.is_some_and(|hash| self.0.holds(&hash))
    }
}

impl Inner {
    /// The hash is keyed, so that how long the comparison of two takes tells nothing of a key.
    fn find(&self, hash: &KeyHash) -> Result<Arc<UserIdentity>, AuthError> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let entry = known.get(hash).ok_or(UNKNOWN)?;
        let now = self.clock.unix();
        match entry.record.state(now) {
            ApiKeyState::Active => {
                entry.uses.count(now);
                Ok(Arc::clone(&entry.user))
            }
            ApiKeyState::Expired => Err(EXPIRED),
            ApiKeyState::Revoked => Err(REVOKED),
        }
    }

    fn holds(&self, hash: &KeyHash) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).contains_key(hash)
    }

    /// Whether the file is known to have changed since it was read. Looks only once in a while.
    fn is_outdated(&self) -> bool {
        let now = milliseconds(self.clock.monotonic());
        let due = self.next_look.load(Ordering::Relaxed);
        let look = now >= due
            && self
                .next_look
                .compare_exchange(due, now + LOOK_EVERY, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if look {
            let changed = match self.seen.try_lock() {
                Ok(seen) => *seen != Stamp::at(&self.path),
                Err(TryLockError::Poisoned(_)) => true,
                // It is being read this moment.
                Err(TryLockError::WouldBlock) => false,
            };
            if changed {
                self.changed.store(true, Ordering::Release);
            }
        }
        self.changed.load(Ordering::Acquire)
    }

    fn read_again(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.changed.load(Ordering::Acquire) {
            return;
        }
        let (stamp, records) = read(&self.path);
        *seen = stamp;
        match records {
            Ok(records) => {
                let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
                *known = self::known(records, &known);
                observe::count("palisade_api_key_reads_total", &[("outcome", "read")]);
            }
            Err(_) => {
                self.failed_reads.fetch_add(1, Ordering::Relaxed);
                observe::count("palisade_api_key_reads_total", &[("outcome", "failed")]);
                observe::error("jwt", "the file of API keys can't be used: the old keys stay");
            }
        }
        self.changed.store(false, Ordering::Release);
    }
}

/// A file as it lies there. A new file in the place of the old one has another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    number: u64,
}

impl Stamp {
    /// `None` when there is no file.
    fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }

    fn of(metadata: &fs::Metadata) -> Self {
        #[cfg(unix)]
        let number = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let number = 0;
        Self { modified: metadata.modified().ok(), length: metadata.len(), number }
    }
}

/// The file's records, and the stamp of the very file that they were read from.
fn read(path: &Path) -> (Option<Stamp>, Result<Records, String>) {
    let opened = || {
        let file = File::open(path)?;
        let stamp = Stamp::of(&file.metadata()?);
        Ok::<_, io::Error>((file, stamp))
    };
    let (mut file, stamp) = match opened() {
        Ok((file, stamp)) => (file, stamp),
        Err(error) => return (None, Err(error.to_string())),
    };
    let mut text = Vec::new();
    let records = match file.read_to_end(&mut text) {
        Ok(_) => Records::parse(&text),
        Err(error) => Err(error.to_string()),
    };
    (Some(stamp), records)
}

/// The records by hash. Uses that were counted go on counting.
fn known(records: Records, before: &Known) -> Known {
    let entry = |record: ApiKeyRecord| {
        let uses = before.get(&record.hash).map(|entry| Arc::clone(&entry.uses));
        let entry = Entry { user: record.user(), uses: uses.unwrap_or_default(), record };
        (entry.record.hash, entry)
    };
    records.keys.into_iter().map(entry).collect()
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// In milliseconds.
const LOOK_EVERY: u64 = 1000;

const MALFORMED: AuthError = refusal("The API key is malformed.");
const UNKNOWN: AuthError = refusal("The API key is not known.");
const EXPIRED: AuthError = refusal("The API key has expired.");
const REVOKED: AuthError = refusal("The API key was revoked.");

const fn refusal(description: &'static str) -> AuthError {
    AuthError::new(AuthErrorKind::InvalidToken, description)
}

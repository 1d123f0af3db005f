//! The keys of a file, which is read again when it changes.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::super::{
    ApiKeyRecord, ApiKeyUse, Entry, UNKNOWN, Verdict,
    form::{Form, KeyHash},
    record::Records,
};
use crate::{
    BuildError, clock::Clock, future::ReadyOr, jwt::AuthError, observe, runtime, watch::Stamp,
};

#[derive(Debug)]
pub(crate) struct Watched {
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

impl Watched {
    pub(crate) fn open(
        path: PathBuf,
        form: Form,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BuildError> {
        let (stamp, records) = read(&path);
        let records = match records {
            Ok(records) => records,
            Err(source) => return Err(BuildError::File { path, source: source.into() }),
        };
        let next_look = AtomicU64::new(milliseconds(clock.monotonic()) + LOOK_EVERY);
        Ok(Self {
            path,
            form,
            clock,
            known: RwLock::new(known(records, &Known::new())),
            seen: Mutex::new(stamp),
            next_look,
            changed: AtomicBool::new(false),
            failed_reads: AtomicU64::new(0),
        })
    }

    pub(crate) fn form(&self) -> &Form {
        &self.form
    }

    /// Ready at once, but for a request that finds the file changed.
    pub(crate) fn verify(self: &Arc<Self>, hash: KeyHash) -> ReadyOr<Verdict> {
        if !self.is_outdated() {
            return ReadyOr::ready(self.find(&hash));
        }
        let this = Arc::clone(self);
        ReadyOr::pending(async move {
            let reader = Arc::clone(&this);
            match runtime::unblock(move || reader.read_again()).await {
                Some(()) => this.find(&hash),
                None => Err(AuthError::unavailable()),
            }
        })
    }

    pub(crate) fn uses(&self) -> Vec<ApiKeyUse> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.values().map(Entry::used).collect()
    }

    pub(crate) fn failed_reads(&self) -> u64 {
        self.failed_reads.load(Ordering::Relaxed)
    }

    /// The hash is keyed, so that how long the comparison of two takes tells nothing of a key.
    fn find(&self, hash: &KeyHash) -> Verdict {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(hash).ok_or(UNKNOWN)?.verdict(self.clock.unix())
    }

    pub(crate) fn holds(&self, hash: &KeyHash) -> bool {
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
        (record.hash, Entry::new(record, uses.unwrap_or_default()))
    };
    records.keys.into_iter().map(entry).collect()
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// In milliseconds.
const LOOK_EVERY: u64 = 1000;

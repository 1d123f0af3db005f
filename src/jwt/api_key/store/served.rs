//! The keys that a process was asked about, as the store last told them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use super::{
    super::{
        ApiKeyRecord, ApiKeyUse, Entry, UNKNOWN, Verdict,
        form::{Form, KeyHash},
    },
    KEYS, Ledger, Settings,
};
use crate::{
    future::ReadyOr,
    jwt::{
        AuthError,
        replica::{Replica, Standing},
    },
    observe, runtime,
    store::{Key, StoreError},
};

#[derive(Debug)]
pub(crate) struct Served {
    settings: Settings,
    answers: Answers,
    ledger: Ledger,
    failed_reads: AtomicU64,
    /// The last question got no answer.
    failing: AtomicBool,
}

/// What the store answered. Whoever may send keys can have it say no as often as they like, and must not
/// push out a key that holds thereby.
#[derive(Debug)]
pub(super) struct Answers {
    known: Replica<Arc<Entry>>,
    unknown: Replica<()>,
}

impl Served {
    pub(super) fn new(settings: Settings, answers: Answers, ledger: Ledger) -> Self {
        let (failed_reads, failing) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { settings, answers, ledger, failed_reads, failing }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn form(&self) -> &Form {
        &self.settings.form
    }

    /// Ready at once, if the store or its last answer is.
    pub(crate) fn verify(self: &Arc<Self>, hash: KeyHash) -> ReadyOr<Verdict> {
        let key = self.settings.key(hash.id());
        if let Some(answer) = self.known(key) {
            return ReadyOr::ready(self.judge(answer.as_deref(), &hash));
        }
        // The answer is as old as the question.
        let asked_at = self.settings.clock.monotonic();
        match self.settings.records.read(KEYS, key).try_now() {
            Ok(answer) => ReadyOr::ready(self.judge_by(answer, key, asked_at, &hash)),
            Err(pending) => {
                let this = Arc::clone(self);
                ReadyOr::pending(async move { this.judge_by(pending.await, key, asked_at, &hash) })
            }
        }
    }

    pub(crate) fn holds(&self, hash: &KeyHash) -> bool {
        let entry = self.answers.known.last(self.settings.key(hash.id()));
        entry.is_some_and(|entry| entry.record.hash == *hash)
    }

    pub(crate) fn uses(&self) -> Vec<ApiKeyUse> {
        self.ledger.told()
    }

    pub(crate) fn failed_reads(&self) -> u64 {
        self.failed_reads.load(Ordering::Relaxed)
    }

    pub(crate) async fn flush(&self) -> Result<(), StoreError> {
        self.ledger.write(&*self.settings.records).await
    }

    /// Takes over what the store holds under this key, unless something newer is known.
    pub(super) fn learn(
        &self,
        key: Key,
        record: Option<ApiKeyRecord>,
        asked_at: Duration,
    ) -> Option<Arc<Entry>> {
        let Answers { known, unknown } = &self.answers;
        let Some(record) = record else {
            known.remove(key, asked_at);
            unknown.put(key, (), asked_at);
            return None;
        };
        let uses = self.ledger.uses(key, &record.id);
        let entry = Arc::new(Entry::new(record, uses));
        known.put(key, Arc::clone(&entry), asked_at);
        Some(entry)
    }

    /// The last answer, if it is not too old. One about a key that is there is renewed before it will be.
    #[allow(clippy::option_option)]
    fn known(self: &Arc<Self>, key: Key) -> Option<Option<Arc<Entry>>> {
        let (now, staleness) = (self.settings.clock.monotonic(), self.settings.staleness);
        match self.answers.known.get(key, now, staleness) {
            Standing::Fresh(entry) => return Some(Some(entry)),
            Standing::Ageing(entry) => {
                let this = Arc::clone(self);
                // Without a runtime nothing is renewed ahead: the next request waits.
                drop(runtime::spawn(async move {
                    let asked_at = this.settings.clock.monotonic();
                    let answer = this.settings.records.read(KEYS, key).await;
                    // A failure is counted, and the next one tries.
                    drop(this.hear(answer, key, asked_at));
                }));
                return Some(Some(entry));
            }
            Standing::Unknown => {}
        }
        match self.answers.unknown.get(key, now, staleness) {
            Standing::Fresh(()) | Standing::Ageing(()) => Some(None),
            Standing::Unknown => None,
        }
    }

    fn judge_by(
        self: &Arc<Self>,
        answer: Result<Option<Bytes>, StoreError>,
        key: Key,
        asked_at: Duration,
        hash: &KeyHash,
    ) -> Verdict {
        let entry = self.hear(answer, key, asked_at).map_err(|_| AuthError::unavailable())?;
        self.judge(entry.as_deref(), hash)
    }

    fn judge(self: &Arc<Self>, entry: Option<&Entry>, hash: &KeyHash) -> Verdict {
        // The name that led here is a part of the hash alone.
        let entry = entry.filter(|entry| entry.record.hash == *hash).ok_or(UNKNOWN)?;
        let user = entry.verdict(self.settings.clock.unix())?;
        self.keep_written();
        Ok(user)
    }

    /// Sees that uses are written to the store now and then, as long as somebody counts some.
    fn keep_written(self: &Arc<Self>) {
        let Some(turn) = self.ledger.begin() else { return };
        let this = Arc::downgrade(self);
        // Without a runtime the turn ends here.
        drop(runtime::spawn(async move {
            let _turn = turn;
            loop {
                runtime::sleep(WRITE_EVERY).await;
                let Some(this) = this.upgrade() else { return };
                if this.flush().await.is_err() {
                    observe::count("palisade_api_key_uses_unwritten_total", &[]);
                }
            }
        }));
    }

    fn hear(
        &self,
        answer: Result<Option<Bytes>, StoreError>,
        key: Key,
        asked_at: Duration,
    ) -> Result<Option<Arc<Entry>>, StoreError> {
        let record = answer
            .and_then(|found| found.map(|record| ApiKeyRecord::from_bytes(&record)).transpose());
        match record {
            Ok(record) => {
                observe::count("palisade_api_key_reads_total", &[("outcome", "read")]);
                self.failing.store(false, Ordering::Relaxed);
                Ok(self.learn(key, record, asked_at))
            }
            Err(error) => {
                observe::count("palisade_api_key_reads_total", &[("outcome", "failed")]);
                self.failed_reads.fetch_add(1, Ordering::Relaxed);
                // The first of several in a row is told loudly.
                if !self.failing.swap(true, Ordering::Relaxed) {
                    observe::error("jwt", "the store can't be asked about API keys");
                }
                Err(error)
            }
        }
    }
}

impl Answers {
    pub(super) fn new(answers: usize) -> Self {
        Self { known: Replica::new(answers), unknown: Replica::new(answers / 8) }
    }
}

const WRITE_EVERY: Duration = Duration::from_secs(60);

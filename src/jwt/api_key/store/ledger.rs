//! Uses that this process has counted, and those in the store that they are added to.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    super::{ApiKeyUse, usage::Uses},
    TRIES, USES, busy,
};
use crate::store::{Key, RecordStore, StoreError};

/// The uses of the keys that are remembered, and of those that were until lately.
#[derive(Debug)]
pub(super) struct Ledger {
    accounts: Mutex<HashMap<Key, Account>>,
    capacity: usize,
    is_kept: Arc<AtomicBool>,
}

#[derive(Clone, Debug)]
struct Account {
    id: String,
    uses: Arc<Uses>,
}

/// What the store keeps of a key's uses, by all servers.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Written {
    count: u64,
    last_at: u64,
}

/// Whoever has it writes the uses to the store now and then. When its runtime ends, the next use begins
/// another.
pub(super) struct Turn(Arc<AtomicBool>);

impl Ledger {
    pub(super) fn new(capacity: usize) -> Self {
        Self { accounts: Mutex::default(), capacity, is_kept: Arc::default() }
    }

    /// Where the uses of a key are counted. Beyond the capacity nobody hears of them.
    pub(super) fn uses(&self, key: Key, id: &str) -> Arc<Uses> {
        let mut accounts = self.accounts();
        if let Some(account) = accounts.get(&key) {
            return Arc::clone(&account.uses);
        }
        let uses = Arc::<Uses>::default();
        if accounts.len() < self.capacity {
            accounts.insert(key, Account { id: id.to_owned(), uses: Arc::clone(&uses) });
        }
        uses
    }

    pub(super) fn told(&self) -> Vec<ApiKeyUse> {
        self.accounts().values().map(|account| account.uses.told(&account.id)).collect()
    }

    /// A turn, unless somebody has one.
    pub(super) fn begin(&self) -> Option<Turn> {
        let is_kept =
            self.is_kept.load(Ordering::Relaxed) || self.is_kept.swap(true, Ordering::Relaxed);
        (!is_kept).then(|| Turn(Arc::clone(&self.is_kept)))
    }

    /// Adds to the store what is not written there yet, as far as it answers.
    pub(super) async fn write(&self, records: &dyn RecordStore) -> Result<(), StoreError> {
        let unwritten: Vec<_> = {
            let accounts = self.accounts();
            let unwritten = accounts.iter().filter(|(_, account)| account.uses.are_unwritten());
            unwritten.map(|(key, account)| (*key, Arc::clone(&account.uses))).collect()
        };
        for (key, uses) in unwritten {
            let (more, last_at) = uses.take_unwritten();
            if let Err(error) = add(records, key, more, last_at).await {
                uses.put_back(more);
                return Err(error);
            }
        }
        self.accounts()
            .retain(|_, Account { uses, .. }| uses.are_unwritten() || Arc::strong_count(uses) > 1);
        Ok(())
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<Key, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Written {
    /// What cannot be read counts for nothing: this is no meter.
    pub(super) fn read(record: Option<&Bytes>) -> Self {
        record.and_then(|record| serde_json::from_slice(record).ok()).unwrap_or_default()
    }

    pub(super) fn told(&self, id: String) -> ApiKeyUse {
        let last_at = (self.count > 0).then_some(self.last_at);
        ApiKeyUse { id, count: self.count, last_at }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

async fn add(
    records: &dyn RecordStore,
    key: Key,
    more: u64,
    last_at: u64,
) -> Result<(), StoreError> {
    for _ in 0..TRIES {
        let old = records.read(USES, key).await?;
        let mut written = Written::read(old.as_ref());
        written.count = written.count.saturating_add(more);
        written.last_at = written.last_at.max(last_at);
        let new = serde_json::to_vec(&written).map_err(StoreError::permanent)?;
        if records.compare_and_swap(USES, key, old, new.into()).await? {
            return Ok(());
        }
    }
    Err(busy())
}

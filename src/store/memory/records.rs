//! Records: kept for good, in order, so that pages of them need no more than a key to go on from.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Bound,
    sync::{PoisonError, RwLock},
};

use bytes::Bytes;

use crate::store::{
    Key, RecordPage, StoreError,
    records::{self, PAGE},
};

pub(super) struct Records {
    tables: RwLock<Tables>,
    capacity: usize,
}

type Tables = HashMap<&'static str, BTreeMap<Key, Bytes>>;

impl Records {
    pub(super) fn new(capacity: usize) -> Self {
        Self { tables: RwLock::default(), capacity }
    }

    pub(super) fn read(&self, table: &str, key: Key) -> Option<Bytes> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.get(table)?.get(&key).cloned()
    }

    pub(super) fn compare_and_swap(
        &self,
        table: &'static str,
        key: Key,
        old: Option<&Bytes>,
        new: Bytes,
    ) -> Result<bool, StoreError> {
        records::check(&new)?;
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let is_full = tables.values().map(BTreeMap::len).sum::<usize>() >= self.capacity;
        let table = tables.entry(table).or_default();
        if table.get(&key) != old {
            return Ok(false);
        }
        if is_full && old.is_none() {
            return Err(StoreError::permanent("there is no room for more records"));
        }
        table.insert(key, new);
        Ok(true)
    }

    pub(super) fn page(
        &self,
        table: &str,
        cursor: Option<&Bytes>,
    ) -> Result<RecordPage, StoreError> {
        let after = match cursor.map(|cursor| <[u8; 16]>::try_from(cursor.as_ref())) {
            None => Bound::Unbounded,
            Some(Ok(key)) => Bound::Excluded(Key::from_bytes(key)),
            Some(Err(_)) => return Err(records::no_cursor()),
        };
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let Some(table) = tables.get(table) else { return Ok(RecordPage::default()) };
        let mut rest = table.range((after, Bound::Unbounded));
        let found: Vec<_> = (&mut rest).take(PAGE).map(|(key, it)| (*key, it.clone())).collect();
        let more = rest.next().is_some();
        let last = found.last().filter(|_| more);
        let next = last.map(|(key, _)| Bytes::copy_from_slice(key.as_bytes()));
        Ok(RecordPage::new(found, next))
    }
}

/// Hides what the records say.
impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

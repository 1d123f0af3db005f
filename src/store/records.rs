//! Records that are kept for good.

use std::fmt::{self, Debug};

use bytes::Bytes;

use super::{Key, StoreError, StoreFuture};

/// Keeps records for good: what must not be forgotten, such as API keys.
///
/// A record is a few bytes that mean nothing to the store, under a key, in a table. A table's name is of
/// lower-case letters and hyphens. Reading one takes a round trip: what every request needs, its reader
/// keeps a copy of for a while.
///
/// A backend is held to `conformance` (feature `test-util`).
pub trait RecordStore: Debug + Send + Sync + 'static {
    /// The record under `key`, as it is now.
    ///
    /// # Errors
    /// When the store can't be asked.
    fn read(&self, table: &'static str, key: Key) -> StoreFuture<Option<Bytes>>;

    /// Puts `new` under `key` if what is there is `old`, or nothing for `None`. Tells whether it did: of
    /// several who change the same record at once one does, and the others have to look again.
    ///
    /// # Errors
    /// When the store can't be asked: whether it did is not known then. When it is full, or `new` is
    /// longer than [`MAX_RECORD_BYTES`]: it did not.
    fn compare_and_swap(
        &self,
        table: &'static str,
        key: Key,
        old: Option<Bytes>,
        new: Bytes,
    ) -> StoreFuture<bool>;

    /// Some of a table's records, for people and never for requests: from its beginning, or from where the
    /// page with this cursor ended. A record that is there all the while is on one page at least, and
    /// may be on two; one that comes meanwhile may be on none.
    ///
    /// # Errors
    /// When the store can't be asked, or the cursor is none of its own.
    fn page(&self, table: &'static str, cursor: Option<Bytes>) -> StoreFuture<RecordPage>;
}

/// Some of a table's records.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct RecordPage {
    /// The records, in no order.
    pub records: Vec<(Key, Bytes)>,
    /// Where the next page begins. `None`: this is the last.
    pub next: Option<Bytes>,
}

impl RecordPage {
    /// These records, and where to go on.
    #[must_use]
    pub const fn new(records: Vec<(Key, Bytes)>, next: Option<Bytes>) -> Self {
        Self { records, next }
    }
}

/// Hides what the records say.
impl Debug for RecordPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordPage").field("records", &self.records.len()).finish_non_exhaustive()
    }
}

/// The longest record that every backend takes, in bytes.
pub const MAX_RECORD_BYTES: usize = 4096;

/// # Errors
/// When the record is longer than a backend may take.
pub(super) fn check(record: &Bytes) -> Result<(), StoreError> {
    if record.len() > MAX_RECORD_BYTES {
        return Err(StoreError::permanent("the record is longer than 4096 bytes"));
    }
    Ok(())
}

pub(super) fn no_cursor() -> StoreError {
    StoreError::permanent("this is no cursor of the store's")
}

/// How many records a page has, or about so many.
pub(super) const PAGE: usize = 100;

//! All keys, one after the other.

use std::{collections::HashSet, fmt};

use bytes::Bytes;

use super::{
    super::{ApiKeyError, ApiKeyRecord, ApiKeyUse},
    KEYS, Settings, USES,
    ledger::Written,
};
use crate::store::Key;

/// The keys of the store, in no order: see [`ApiKeyStore::records`](super::ApiKeyStore::records). They are read page
/// by page as they are asked for. Remembers 16 bytes of each, so that none comes twice.
pub struct ApiKeyListing {
    settings: Settings,
    page: Vec<(Key, Bytes)>,
    seen: HashSet<Key>,
    next: Next,
}

enum Next {
    Page(Option<Bytes>),
    End,
}

/// A key, and how all servers that share it have used it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedApiKey {
    /// What is kept of the key.
    pub record: ApiKeyRecord,
    /// Its uses, but those of about the last minute.
    pub uses: ApiKeyUse,
}

impl ApiKeyListing {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, page: Vec::new(), seen: HashSet::new(), next: Next::Page(None) }
    }

    /// The next key. `None` when there are no more.
    ///
    /// # Errors
    /// [`ApiKeyError`] when the store can't be asked or holds anything else. Asking again goes on there.
    pub async fn next(&mut self) -> Result<Option<ListedApiKey>, ApiKeyError> {
        let records = &self.settings.records;
        loop {
            while let Some((key, record)) = self.page.last() {
                if !self.seen.contains(key) {
                    let record = ApiKeyRecord::from_bytes(record)?;
                    let uses = records.read(USES, *key).await?;
                    let uses = Written::read(uses.as_ref()).told(record.id.clone());
                    self.seen.insert(*key);
                    self.page.pop();
                    return Ok(Some(ListedApiKey { record, uses }));
                }
                self.page.pop();
            }
            let Next::Page(cursor) = &self.next else { return Ok(None) };
            let page = records.page(KEYS, cursor.clone()).await?;
            self.page = page.records;
            self.next = page.next.map_or(Next::End, |cursor| Next::Page(Some(cursor)));
        }
    }
}

/// Hides the records.
impl fmt::Debug for ApiKeyListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeyListing").field("seen", &self.seen.len()).finish_non_exhaustive()
    }
}

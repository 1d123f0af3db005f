//! The stores of a server, and the pepper that goes with them.

use std::sync::Arc;

use super::{FactStore, LimiterStore, MemoryStore, Pepper, RecordStore};

/// The store that all layers of a server share, with the pepper that keys what they keep in it.
/// Cheap to clone.
///
/// ```
/// use palisade::store::Stores;
///
/// let stores = Stores::in_memory();
/// let key = stores.pepper().key("subject").with(b"alice").finish();
/// ```
#[derive(Clone, Debug)]
pub struct Stores {
    limiter: Arc<dyn LimiterStore>,
    facts: Arc<dyn FactStore>,
    records: Arc<dyn RecordStore>,
    pepper: Pepper,
}

impl Stores {
    /// A store for this process alone, under a random pepper.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::new(Arc::new(MemoryStore::default()), Pepper::random())
    }

    /// One store for limits, facts and records. Processes that share it share the pepper.
    #[must_use]
    pub fn new<S>(store: Arc<S>, pepper: Pepper) -> Self
    where
        S: LimiterStore + FactStore + RecordStore,
    {
        Self::separate(Arc::clone(&store) as _, Arc::clone(&store) as _, store, pepper)
    }

    /// Limits, facts and records in a store each.
    #[must_use]
    pub fn separate(
        limiter: Arc<dyn LimiterStore>,
        facts: Arc<dyn FactStore>,
        records: Arc<dyn RecordStore>,
        pepper: Pepper,
    ) -> Self {
        Self { limiter, facts, records, pepper }
    }

    /// Where limits are kept.
    #[must_use]
    pub fn limiter(&self) -> &Arc<dyn LimiterStore> {
        &self.limiter
    }

    /// Where facts are kept.
    #[must_use]
    pub fn facts(&self) -> &Arc<dyn FactStore> {
        &self.facts
    }

    /// Where records are kept.
    #[must_use]
    pub fn records(&self) -> &Arc<dyn RecordStore> {
        &self.records
    }

    /// What keys every hash.
    #[must_use]
    pub fn pepper(&self) -> &Pepper {
        &self.pepper
    }
}

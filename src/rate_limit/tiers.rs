//! All tiers together: by name, replaced while the server runs, and those of single callers.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use super::{fair::FairAdmission, limit::invalid, ready_tier::ReadyTier, tier::Tier};
use crate::{
    BoxError, BuildError,
    identity::Identity,
    observe,
    watch::{self, Files, Look, Watcher},
};

/// This part's name in logs.
const LAYER: &str = "rate_limit";
const READS: &str = "palisade_tier_reads_total";

/// The tiers of a layer.
#[derive(Debug)]
pub(super) struct Tiers {
    current: Arc<Current>,
    file: Option<Arc<Watched>>,
}

#[derive(Debug)]
struct Current {
    table: RwLock<Arc<Table>>,
    terms: Terms,
}

/// What holds for all tables of a layer.
#[derive(Debug)]
pub(super) struct Terms {
    /// The tier of callers who have none.
    pub(super) fallback: Option<String>,
    /// Whether the layer stands outside of what tells callers.
    pub(super) of_nobody: bool,
    /// Where every tier has to have a share.
    pub(super) fair: Option<FairAdmission>,
}

/// Tiers by name, and that of callers who have none.
#[derive(Debug)]
struct Table {
    named: HashMap<Arc<str>, Arc<ReadyTier>>,
    fallback: Option<Arc<ReadyTier>>,
}

type Named = Vec<(String, Tier)>;

impl Tiers {
    pub(super) fn given(tiers: &Named, terms: Terms) -> Result<Self, BuildError> {
        Ok(Self { current: Arc::new(Current::new(tiers, terms)?), file: None })
    }

    /// Those of a file, beside those that are given.
    pub(super) fn of_file(file: TiersFile, given: Named, terms: Terms) -> Result<Self, BuildError> {
        let files = Files::at(vec![file.path.clone()]);
        let current = Arc::new(Current::new(&file.read(&given)?, terms)?);
        let watcher = Watcher::new();
        watcher.has_looked();
        let (files, watched) = (Mutex::new(files), Arc::clone(&current));
        let watched = Watched { file, given, files, watcher, current: watched };
        Ok(Self { current, file: Some(Arc::new(watched)) })
    }

    /// The tier of this name, or else of those who have none.
    pub(super) fn get(&self, name: Option<&str>) -> Option<Arc<ReadyTier>> {
        if let Some(file) = &self.file {
            watch::watch(file);
        }
        let table = self.current.table.read().unwrap_or_else(PoisonError::into_inner);
        let named = name.and_then(|name| table.named.get(name));
        named.or(table.fallback.as_ref()).map(Arc::clone)
    }

    pub(super) fn replace(&self, tiers: &Named) -> Result<(), BuildError> {
        if self.file.is_some() {
            return Err(BuildError::invalid("replace_tiers", "the tiers come from a file"));
        }
        self.current.replace(tiers)
    }
}

impl Current {
    fn new(tiers: &Named, terms: Terms) -> Result<Self, BuildError> {
        let table = RwLock::new(Arc::new(Table::ready(tiers, &terms)?));
        Ok(Self { table, terms })
    }

    fn replace(&self, tiers: &Named) -> Result<(), BuildError> {
        let table = Arc::new(Table::ready(tiers, &self.terms)?);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
        Ok(())
    }
}

impl Table {
    fn ready(tiers: &Named, terms: &Terms) -> Result<Self, BuildError> {
        if terms.of_nobody && tiers.iter().any(|(_, tier)| tier.needs_callers()) {
            return Err(BuildError::invalid(
                "before_authentication",
                "a limit counts tokens, or is per subject or organisation",
            ));
        }
        if tiers.is_empty() {
            return Err(BuildError::Empty("the list of tiers"));
        }
        let mut named = HashMap::with_capacity(tiers.len());
        for (name, tier) in tiers {
            let ready = Arc::new(match &terms.fair {
                Some(fair) if fair.has(name) => tier.ready_with_share(name)?,
                Some(_) => return Err(invalid(name, "it has no share of the fair admission")),
                None => tier.ready(name)?,
            });
            if named.insert(Arc::clone(&ready.name), ready).is_some() {
                return Err(invalid(name, "there are two of it"));
            }
        }
        let existing = |name: &str| {
            named.get(name).map(Arc::clone).ok_or_else(|| {
                BuildError::invalid("fallback_tier", format!("{name}: there is no such tier"))
            })
        };
        let fallback = terms.fallback.as_deref().map(existing).transpose()?;
        Ok(Self { named, fallback })
    }
}

/// A file of tiers, and how it is read.
pub(super) struct TiersFile {
    path: PathBuf,
    parse: Box<Parse>,
}

type Parse = dyn Fn(&str) -> Result<Named, BoxError> + Send + Sync;

impl TiersFile {
    pub(super) fn new(
        path: PathBuf,
        parse: impl Fn(&str) -> Result<Named, BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self { path, parse: Box::new(parse) }
    }

    /// All tiers: `given`, and the file's.
    fn read(&self, given: &Named) -> Result<Named, BuildError> {
        let read = || {
            let text = String::from_utf8(watch::read(&self.path)?)?;
            let tiers = (self.parse)(&text)?;
            Ok(given.iter().cloned().chain(tiers).collect())
        };
        read().map_err(|source| BuildError::File { path: self.path.clone(), source })
    }
}

impl fmt::Debug for TiersFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TiersFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A file that is read again when it changes.
#[derive(Debug)]
struct Watched {
    file: TiersFile,
    given: Named,
    files: Mutex<Files>,
    watcher: Watcher,
    current: Arc<Current>,
}

impl Look for Watched {
    fn look(&self) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let read = || self.file.read(&self.given).and_then(|tiers| self.current.replace(&tiers));
        let Some(read) = files.read_changed(read) else { return };
        if let Err(error) = &read {
            observe::error(LAYER, &format!("the tiers used before stay: {error}"));
        }
        observe::count(READS, &[("outcome", if read.is_ok() { "read" } else { "failed" })]);
    }

    fn watcher(&self) -> &Watcher {
        &self.watcher
    }
}

/// Gives single callers a tier of their own, in the place of the one that their token names: a customer with a
/// contract, or one whose limits are lowered for a while.
///
/// ```
/// use palisade::{identity::Identity, rate_limit::{PreparedTier, Tier, TierOverrides}};
/// use std::{collections::HashMap, sync::RwLock};
///
/// #[derive(Debug, Default)]
/// struct Contracts(RwLock<HashMap<String, PreparedTier>>);
///
/// impl TierOverrides for Contracts {
///     fn tier(&self, identity: &Identity, _: Option<&str>) -> Option<PreparedTier> {
///         self.0.read().unwrap().get(identity.user()?.subject()).cloned()
///     }
/// }
///
/// let contracts = Contracts::default();
/// let own = Tier::new().tokens_per_minute(5_000_000).prepare("acme")?;
/// contracts.0.write().unwrap().insert("acme-service".into(), own);
/// # Ok::<(), palisade::BuildError>(())
/// ```
pub trait TierOverrides: fmt::Debug + Send + Sync + 'static {
    /// The tier of this caller, whose own, if any, is called `tier`. `None`: that one. Asked for every request, so it
    /// neither waits nor blocks. What a caller has used of a limit is kept when his tier changes.
    fn tier(&self, identity: &Identity, tier: Option<&str>) -> Option<PreparedTier>;
}

/// A [`Tier`] that was found to make sense. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PreparedTier(Arc<ReadyTier>);

impl PreparedTier {
    pub(super) fn ready(self) -> Arc<ReadyTier> {
        self.0
    }
}

impl Tier {
    /// Checks the tier, for [`TierOverrides`]. `name` is what [`Identity::tier`] says then.
    ///
    /// # Errors
    /// When it can't be kept.
    pub fn prepare(&self, name: &str) -> Result<PreparedTier, BuildError> {
        Ok(PreparedTier(Arc::new(self.ready(name)?)))
    }
}

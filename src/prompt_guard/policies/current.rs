//! The policies of a layer as they are now: given, or from a file that is read again when it changes.

use std::sync::Arc;
#[cfg(feature = "rule-packs")]
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use super::{
    Policy,
    choice::{Chosen, Policies},
};
#[cfg(feature = "rule-packs")]
use super::{PolicyFile, file::Source};
use crate::BuildError;
#[cfg(feature = "rule-packs")]
use crate::{
    observe,
    prompt_guard::turn::LAYER,
    watch::{self, Files, Look, Watcher},
};

/// The policies of a layer.
#[derive(Debug)]
pub(crate) enum Current {
    Given(Arc<Policies>),
    #[cfg(feature = "rule-packs")]
    Watched(Arc<Watched>),
}

impl Current {
    pub(crate) fn new(chosen: Chosen, default: Policy) -> Result<Self, BuildError> {
        let policies = chosen.ready(&default)?;
        #[cfg(feature = "rule-packs")]
        if let Some(source) = chosen.file.as_ref().and_then(PolicyFile::source) {
            let watched = Watched::new(chosen.clone(), default, source.clone(), policies);
            return Ok(Self::Watched(watched));
        }
        Ok(Self::Given(Arc::new(policies)))
    }

    /// Those that the next request is held to.
    pub(crate) fn get(&self) -> Arc<Policies> {
        match self {
            Self::Given(policies) => Arc::clone(policies),
            #[cfg(feature = "rule-packs")]
            Self::Watched(watched) => {
                watch::watch(watched);
                watched.current()
            }
        }
    }

    /// Reads the file again, if there is one.
    #[cfg(feature = "rule-packs")]
    pub(crate) fn reload(&self) -> Result<(), BuildError> {
        match self {
            Self::Given(_) => Ok(()),
            Self::Watched(watched) => watched.files().read_now(|| watched.read()),
        }
    }
}

#[cfg(feature = "rule-packs")]
#[derive(Debug)]
pub(crate) struct Watched {
    /// What the builder was told besides.
    chosen: Chosen,
    default: Policy,
    source: Source,
    current: RwLock<Arc<Policies>>,
    /// Held while the file is read, so that one does at a time. Requests never wait for it.
    files: Mutex<Files>,
    watcher: Watcher,
}

#[cfg(feature = "rule-packs")]
impl Watched {
    fn new(chosen: Chosen, default: Policy, source: Source, policies: Policies) -> Arc<Self> {
        // Read once more by the first look if it has changed since.
        let files = Mutex::new(source.files.clone());
        let current = RwLock::new(Arc::new(policies));
        let watched = Self { chosen, default, source, current, files, watcher: Watcher::new() };
        watched.watcher.has_looked();
        let watched = Arc::new(watched);
        watch::watch(&watched);
        watched
    }

    fn current(&self) -> Arc<Policies> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever calls this holds `files`.
    fn read(&self) -> Result<(), BuildError> {
        let read = self.source.read().and_then(|file| self.put(file));
        observe::count(READS, &[("outcome", if read.is_ok() { "read" } else { "failed" })]);
        read
    }

    fn put(&self, file: PolicyFile) -> Result<(), BuildError> {
        let (name, version) = (file.name().to_owned(), file.version().to_owned());
        let mut chosen = self.chosen.clone();
        chosen.file = Some(file);
        let policies = chosen.ready(&self.default)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policies);
        observe::info(LAYER, &format!("policy file {name}, version {version}, is in use"));
        Ok(())
    }
}

#[cfg(feature = "rule-packs")]
impl Look for Watched {
    fn look(&self) {
        let mut files = self.files();
        if let Some(Err(error)) = files.read_changed(|| self.read()) {
            observe::error(LAYER, &format!("the policies before stay: {error}"));
        }
    }

    fn watcher(&self) -> &Watcher {
        &self.watcher
    }
}

/// How reading went: `palisade_guard_policy_reads_total{outcome}`.
#[cfg(feature = "rule-packs")]
const READS: &str = "palisade_guard_policy_reads_total";

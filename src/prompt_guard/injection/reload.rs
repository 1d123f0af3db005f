//! Rules that are replaced at run time.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use super::{InjectionRules, RulePack};
use crate::{
    BuildError,
    inference::Segment,
    observe,
    prompt_guard::{Detector, Finding, RulesVersion, Views},
    watch::{self, Files, Look, Watcher},
};

/// This part's name in logs.
const LAYER: &str = "prompt_guard";
/// How reading went: `palisade_guard_pack_reads_total{outcome}`.
const READS: &str = "palisade_guard_pack_reads_total";

/// [`InjectionRules`] of a [`RulePack`] that is replaced without a restart: through this handle, or because its file has changed,
/// which is looked at once a second in the background. Cheap to clone; all clones are one.
///
/// A request and its answer keep the pack that stood when the request came, and none waits while a pack is read. A pack that can't be
/// used changes nothing: the one before stays, an event at level error names the line, and
/// `palisade_guard_pack_reads_total{outcome = "failed"}` counts it.
#[derive(Clone)]
pub struct ReloadingRules(Arc<Inner>);

struct Inner {
    current: RwLock<Arc<Loaded>>,
    /// Held while a pack is read and compiled, so that one does at a time. Requests never wait for it.
    source: Mutex<Option<Source>>,
    /// Whether `source` is a file.
    has_file: bool,
    watcher: Watcher,
}

struct Source {
    path: PathBuf,
    files: Files,
}

#[derive(Debug)]
struct Loaded {
    pack: RulePack,
    rules: Arc<InjectionRules>,
}

impl ReloadingRules {
    /// Compiles a pack, to be [replaced](Self::replace) later.
    ///
    /// # Errors
    /// Those of [`InjectionRules::with_pack`].
    pub fn new(pack: RulePack) -> Result<Self, BuildError> {
        Ok(Self::of(Loaded::new(pack)?, None))
    }

    /// Reads a pack from a file, and again whenever the file has changed and was left alone for a second. Blocks.
    ///
    /// # Errors
    /// Those of [`RulePack::from_file`] and [`InjectionRules::with_pack`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, BuildError> {
        let path = path.as_ref().to_owned();
        let files = Files::at(vec![path.clone()]);
        let loaded = Loaded::new(RulePack::from_file(&path)?)?;
        let rules = Self::of(loaded, Some(Source { path, files }));
        watch::watch(&rules.0);
        Ok(rules)
    }

    fn of(loaded: Loaded, source: Option<Source>) -> Self {
        let watcher = Watcher::new();
        watcher.has_looked();
        let has_file = source.is_some();
        let current = RwLock::new(Arc::new(loaded));
        Self(Arc::new(Inner { current, source: Mutex::new(source), has_file, watcher }))
    }

    /// From the next request on, this pack. Blocks while it is compiled, some tens of milliseconds. The file, if there is one, is
    /// still looked at, and read when it changes.
    ///
    /// # Errors
    /// Those of [`InjectionRules::with_pack`]. Then all stays as it was.
    pub fn replace(&self, pack: RulePack) -> Result<(), BuildError> {
        let _one_at_a_time = self.0.source();
        self.0.put(Ok(pack))
    }

    /// Reads the file again, now. It need not have changed. Blocks. Without a file it does nothing.
    ///
    /// # Errors
    /// Those of [`from_file`](Self::from_file). Then all stays as it was.
    pub fn reload(&self) -> Result<(), BuildError> {
        let mut source = self.0.source();
        let Some(Source { path, files }) = source.as_mut() else { return Ok(()) };
        files.read_now(|| self.0.put(RulePack::from_file(path)))
    }

    /// The pack that the next request gets.
    #[must_use]
    pub fn pack(&self) -> RulePack {
        self.0.current().pack.clone()
    }
}

impl Loaded {
    fn new(pack: RulePack) -> Result<Self, BuildError> {
        let rules = Arc::new(InjectionRules::with_pack(&pack)?);
        Ok(Self { pack, rules })
    }
}

impl Inner {
    fn current(&self) -> Arc<Loaded> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn source(&self) -> MutexGuard<'_, Option<Source>> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever calls this holds `source`.
    fn put(&self, pack: Result<RulePack, BuildError>) -> Result<(), BuildError> {
        let loaded = pack.and_then(Loaded::new).inspect_err(|_| {
            observe::count(READS, &[("outcome", "failed")]);
        })?;
        observe::count(READS, &[("outcome", "read")]);
        let (name, version) = (loaded.pack.name(), loaded.pack.version());
        observe::info(LAYER, &format!("rule pack {name}, version {version}, is in use"));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
        Ok(())
    }
}

impl Look for Inner {
    fn look(&self) {
        let mut source = self.source();
        let Some(Source { path, files }) = source.as_mut() else { return };
        let read = || self.put(RulePack::from_file(path));
        if let Some(Err(error)) = files.read_changed(read) {
            observe::error(LAYER, &format!("the rule pack before stays: {error}"));
        }
    }

    fn watcher(&self) -> &Watcher {
        &self.watcher
    }
}

impl Detector for ReloadingRules {
    fn name(&self) -> &'static str {
        "injection"
    }

    fn scan(&self, segment: &Segment<'_>, views: &Views<'_>, findings: &mut Vec<Finding>) {
        self.0.current().rules.scan(segment, views, findings);
    }

    fn rules_version(&self) -> Option<RulesVersion> {
        self.0.current().rules.rules_version()
    }

    fn pinned(&self) -> Option<Arc<dyn Detector>> {
        if self.0.has_file {
            watch::watch(&self.0);
        }
        Some(Arc::clone(&self.0.current().rules) as Arc<dyn Detector>)
    }
}

impl fmt::Debug for ReloadingRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let current = self.0.current();
        f.debug_struct("ReloadingRules")
            .field("pack", &current.pack.name())
            .field("version", &current.pack.version())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::Origin;

    fn pack(version: u32, word: &str) -> String {
        format!(
            "format = 1\nname = 'acme'\nversion = '{version}'\n[[rules]]\nid = 'x'\nweight = 1\nkeywords = ['{word}']\n"
        )
    }

    fn finds(rules: &dyn Detector, text: &str) -> bool {
        let mut findings = Vec::new();
        rules.scan(&Segment::new(0, text, Origin::User, 0), &Views::of(text), &mut findings);
        !findings.is_empty()
    }

    #[test]
    fn what_was_pinned_stays_and_a_bad_pack_changes_nothing() {
        let path = std::env::temp_dir().join(format!("palisade-pack-{}", std::process::id()));
        std::fs::write(&path, pack(1, "bluebird")).unwrap();
        let rules = ReloadingRules::from_file(&path).unwrap();
        let before = rules.pinned().unwrap();
        std::fs::write(&path, pack(2, "magpie")).unwrap();
        rules.reload().unwrap();
        assert_eq!(rules.pack().version(), "2");
        assert!(finds(&*before, "bluebird") && !finds(&*before, "magpie"));
        assert!(finds(&rules, "magpie") && !finds(&rules, "bluebird"));
        std::fs::write(&path, pack(3, "magpie").replace("weight", "wait")).unwrap();
        let error = rules.reload().unwrap_err();
        assert!(error.to_string().contains("line 6: unknown field"), "{error}");
        assert_eq!(rules.pack().version(), "2");
        rules.replace(RulePack::from_toml(&pack(4, "heron")).unwrap()).unwrap();
        assert!(finds(&rules, "heron"));
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_changes_is_read_again() {
        let path = std::env::temp_dir().join(format!("palisade-watched-{}", std::process::id()));
        std::fs::write(&path, pack(1, "bluebird")).unwrap();
        let rules = ReloadingRules::from_file(&path).unwrap();
        std::fs::write(&path, pack(20, "magpie")).unwrap();
        while rules.pack().version() != "20" {
            tokio::time::sleep(watch::LOOK_EVERY).await;
        }
        assert!(finds(&rules, "magpie"));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_scan_does_not_wait_for_a_pack_that_is_being_read() {
        let rules =
            ReloadingRules::new(RulePack::from_toml(&pack(1, "bluebird")).unwrap()).unwrap();
        let _reading = rules.0.source();
        assert!(finds(&*rules.pinned().unwrap(), "bluebird"));
    }
}

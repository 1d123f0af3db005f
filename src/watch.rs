//! Files that are read again when they change: looked at once a second in the background, so that no request
//! ever waits for a disk.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::{
    BuildError,
    clock::{Clock as _, SystemClock},
    runtime,
};

/// How often files are looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The largest file that is read, in bytes: 16 MiB.
pub(crate) const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Something that wants to look at its files once in a while.
pub(crate) trait Look: Send + Sync + 'static {
    /// Looks, and reads what has changed. May block.
    fn look(&self);

    /// The state of what makes it look.
    fn watcher(&self) -> &Watcher;
}

/// Whether a task looks once a second, and when somebody looked last.
#[derive(Debug)]
pub(crate) struct Watcher {
    runs: AtomicBool,
    /// When to look next if no task does, in milliseconds of the monotonic clock.
    due: AtomicU64,
}

/// Sees to it that `this` looks once a second, until it is dropped. Cheap once a task runs. Without a runtime, and
/// where the one that ran the task has ended, the caller looks itself when it is due.
pub(crate) fn watch<T: Look>(this: &Arc<T>) {
    let watcher = this.watcher();
    if watcher.runs.load(Ordering::Acquire) {
        return;
    }
    if runtime::is_here() && !watcher.runs.swap(true, Ordering::AcqRel) {
        let running = Running(Arc::downgrade(this));
        // Dropped where it can't be run, which resets the mark.
        let _ = runtime::spawn(async move {
            loop {
                runtime::sleep(LOOK_EVERY).await;
                let Some(this) = running.0.upgrade() else { return };
                if runtime::unblock(move || this.look()).await.is_none() {
                    return;
                }
            }
        });
    }
    if watcher.is_due() {
        this.look();
    }
}

impl Watcher {
    pub(crate) const fn new() -> Self {
        Self { runs: AtomicBool::new(false), due: AtomicU64::new(0) }
    }

    /// Nobody needs to look for a second.
    pub(crate) fn has_looked(&self) {
        self.due.store(now() + LOOK_EVERY_MS, Ordering::Relaxed);
    }

    fn is_due(&self) -> bool {
        let (now, due) = (now(), self.due.load(Ordering::Relaxed));
        let next = now + LOOK_EVERY_MS;
        now >= due
            && self.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// The task that looks: when it ends, whyever, another may begin.
struct Running<T: Look>(Weak<T>);

impl<T: Look> Drop for Running<T> {
    fn drop(&mut self) {
        if let Some(this) = self.0.upgrade() {
            this.watcher().runs.store(false, Ordering::Release);
        }
    }
}

/// Files, and how they lay there when they were last read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    paths: Vec<PathBuf>,
    /// `None` where they are to be read again though they have not changed.
    seen: Option<Vec<Option<Stamp>>>,
    /// A change that may not be complete yet.
    settling: Option<Vec<Option<Stamp>>>,
}

impl Files {
    /// To be called before the files are read, so that a change in between is noticed.
    pub(crate) fn at(paths: Vec<PathBuf>) -> Self {
        let seen = paths.iter().map(|path| Stamp::at(path)).collect();
        Self { paths, seen: Some(seen), settling: None }
    }

    /// Reads the files, changed or not. If that fails, what has changed since they were read last still counts as changed.
    pub(crate) fn read_now(
        &mut self,
        read: impl FnOnce() -> Result<(), BuildError>,
    ) -> Result<(), BuildError> {
        let now = Self::at(self.paths.clone());
        read()?;
        *self = now;
        Ok(())
    }

    /// Reads the files if they have changed, and were left alone since the look before: one that is being written is not
    /// read. Of each change once, unless the system could not read it for now. What came of it, if they were read.
    pub(crate) fn read_changed(
        &mut self,
        read: impl FnOnce() -> Result<(), BuildError>,
    ) -> Option<Result<(), BuildError>> {
        let read = self.have_changed().then(read);
        if let Some(Err(BuildError::File { source, .. })) = &read
            && source.downcast_ref().is_some_and(may_pass)
        {
            self.seen = None;
        }
        read
    }

    fn have_changed(&mut self) -> bool {
        let now: Vec<_> = self.paths.iter().map(|path| Stamp::at(path)).collect();
        if self.seen.as_ref() == Some(&now) {
            self.settling = None;
            return false;
        }
        if self.settling.as_ref() != Some(&now) {
            self.settling = Some(now);
            return false;
        }
        self.settling = None;
        self.seen = Some(now);
        true
    }
}

/// Whether it may go otherwise soon, with the file as it is: there are too many open files, say.
fn may_pass(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, IsADirectory, NotFound, PermissionDenied};
    !matches!(error.kind(), FileTooLarge | IsADirectory | NotFound | PermissionDenied)
}

/// A file as it lies there. A new file in the place of the old one has another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    /// Device, number, and when anything of it changed last, in seconds and nanoseconds.
    place: [u64; 4],
}

impl Stamp {
    /// `None` when there is no file.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }

    pub(crate) fn of(metadata: &fs::Metadata) -> Self {
        #[cfg(unix)]
        let place = {
            use std::os::unix::fs::MetadataExt as _;
            let (seconds, nanoseconds) = (metadata.ctime(), metadata.ctime_nsec());
            // Only compared: what a cast does to times before 1970 does not matter.
            [metadata.dev(), metadata.ino(), seconds as u64, nanoseconds as u64]
        };
        #[cfg(not(unix))]
        let place = [0; 4];
        Self { modified: metadata.modified().ok(), length: metadata.len(), place }
    }
}

/// The whole of a file of at most [`MAX_FILE`] bytes.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut text)?;
    match u64::try_from(text.len()) {
        Ok(length) if length <= MAX_FILE => Ok(text),
        _ => Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 16 MiB")),
    }
}

fn now() -> u64 {
    u64::try_from(SystemClock::default().monotonic().as_millis()).unwrap_or(u64::MAX / 2)
}

const LOOK_EVERY_MS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_it_has_settled() {
        let folder = std::env::temp_dir().join(format!("palisade-watch-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("file");
        fs::write(&path, "one").unwrap();
        let mut files = Files::at(vec![path.clone()]);
        assert!(!files.have_changed());
        fs::write(&path, "half").unwrap();
        assert!(!files.have_changed(), "it may still be written");
        fs::write(&path, "half and the other half").unwrap();
        assert!(!files.have_changed(), "it was still being written");
        assert!(files.have_changed());
        assert!(!files.have_changed(), "it tells of a change once");
        fs::remove_file(&path).unwrap();
        assert!(!files.have_changed());
        assert!(files.have_changed());
        // Of the same size, in its place: an atomic replacement.
        fs::write(folder.join("new"), "half and the other half").unwrap();
        fs::rename(folder.join("new"), &path).unwrap();
        assert!(!files.have_changed());
        assert!(files.have_changed());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_can_not_be_read_for_now_is_read_later() {
        let path = std::env::temp_dir().join(format!("palisade-later-{}", std::process::id()));
        fs::write(&path, "one").unwrap();
        let failed = |source: crate::BoxError| {
            move || Err(BuildError::File { path: PathBuf::new(), source })
        };
        let mut files = Files::at(vec![path.clone()]);
        let mut look = |source: crate::BoxError| files.read_changed(failed(source)).is_some();
        fs::write(&path, "another").unwrap();
        assert!(!look("unread".into()), "it may still be written");
        const EMFILE: i32 = 24;
        assert!(look(io::Error::from_raw_os_error(EMFILE).into()));
        assert!(!look("unread".into()));
        // It can be read again, and is not what it should be: until it changes, that stays so.
        assert!(look("no PEM".into()));
        assert!(!look("unread".into()) && !look("unread".into()));
        fs::remove_file(&path).unwrap();
        assert!(!look("unread".into()));
        assert!(look(read(&path).unwrap_err().into()));
        assert!(!look("unread".into()) && !look("unread".into()));
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let path = std::env::temp_dir().join(format!("palisade-large-{}", std::process::id()));
        let file = fs::File::create(&path).unwrap();
        file.set_len(MAX_FILE).unwrap();
        assert!(read(&path).is_ok());
        file.set_len(MAX_FILE + 1).unwrap();
        assert!(read(&path).is_err());
        fs::remove_file(path).unwrap();
    }

    struct Counter(Watcher, AtomicU64);

    impl Counter {
        fn new() -> Self {
            Self(Watcher::new(), AtomicU64::new(0))
        }
    }

    impl Look for Counter {
        fn look(&self) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }

        fn watcher(&self) -> &Watcher {
            &self.0
        }
    }

    #[test]
    fn without_a_runtime_the_caller_looks_at_most_once_a_second() {
        let counter = Arc::new(Counter::new());
        for _ in 0..10 {
            watch(&counter);
        }
        assert_eq!(counter.1.load(Ordering::Relaxed), 1);
        assert!(!counter.0.runs.load(Ordering::Relaxed));
    }

    #[test]
    fn the_task_outlives_no_runtime_and_begins_again() {
        let runtime = || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
        };
        let counter = Arc::new(Counter::new());
        counter.0.has_looked();
        for _ in 0..2 {
            runtime().block_on(async {
                watch(&counter);
                assert!(counter.0.runs.load(Ordering::Relaxed));
            });
            assert!(!counter.0.runs.load(Ordering::Relaxed));
        }
        assert_eq!(counter.1.load(Ordering::Relaxed), 0, "the caller need not look");
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_looks_once_a_second_and_ends_with_what_it_looks_for() {
        let counter = Arc::new(Counter::new());
        counter.0.has_looked();
        watch(&counter);
        while counter.1.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let weak = Arc::downgrade(&counter);
        drop(counter);
        while weak.upgrade().is_some() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

//! The file of keys, and how it is changed: whole, by one at a time.

mod watched;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub(super) use self::watched::Watched;
use super::{
    ApiKeyError, ApiKeyRecord, ApiKeys, IssuedApiKey, NewApiKey, Source, form::Form,
    record::Records,
};
use crate::{
    BuildError, Secret,
    clock::{Clock, SystemClock},
};

/// A file of API keys: makes, lists, revokes and rotates them, and opens them for a server.
///
/// The file is JSON, for its owner's eyes alone. A change replaces it as a whole, so that a reader never
/// sees half of one; two that would change it at once are told apart by a file beside it, `.lock`.
#[derive(Clone, Debug)]
pub struct ApiKeyFile {
    path: PathBuf,
    form: Form,
    clock: Arc<dyn Clock>,
}

impl ApiKeyFile {
    /// The keys of this file, hashed under `pepper`: at least 16 bytes, secret, the same for all that
    /// read the file, and kept elsewhere. With another pepper no key is known any more. The file may be
    /// missing as long as no server has opened it.
    ///
    /// # Errors
    /// [`BuildError`] for a short pepper.
    pub fn new(path: impl Into<PathBuf>, pepper: &Secret<Vec<u8>>) -> Result<Self, BuildError> {
        let (path, form) = (path.into(), Form::new(pepper)?);
        Ok(Self { path, form, clock: Arc::new(SystemClock) })
    }

    /// What every key begins with. By default `sk-pal-`. Keys made with another prefix don't count.
    ///
    /// # Errors
    /// [`BuildError`] unless it is of up to 32 letters, digits, hyphens and underscores, ends in one of
    /// the last two, and no JWT may begin with it.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Result<Self, BuildError> {
        self.form = self.form.with_prefix(prefix.into())?;
        Ok(self)
    }

    /// The time. By default the machine's.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The keys, for a server to accept.
    ///
    /// # Errors
    /// [`BuildError`] when the file can't be read or holds anything else than keys.
    pub fn open(&self) -> Result<ApiKeys, BuildError> {
        let (path, clock) = (self.path.clone(), Arc::clone(&self.clock));
        let watched = Watched::open(path, self.form.clone(), clock)?;
        Ok(ApiKeys(Source::File(Arc::new(watched))))
    }

    /// Every key there is, revoked and expired ones included. None when there is no file.
    ///
    /// # Errors
    /// [`ApiKeyError`] when the file can't be read or holds anything else.
    pub fn records(&self) -> Result<Vec<ApiKeyRecord>, ApiKeyError> {
        Ok(self.read()?.keys)
    }

    /// Makes a key.
    ///
    /// # Errors
    /// [`ApiKeyError`] when the file can't be changed, and for empty names or control characters.
    pub fn issue(&self, new: NewApiKey) -> Result<IssuedApiKey, ApiKeyError> {
        let issued = self.form.issue(new, self.clock.unix())?;
        self.change(|records| {
            records.keys.push(issued.record.clone());
            Ok(issued)
        })
    }

    /// Ends a key for good. Servers know within about a second. Revoking it again changes nothing.
    ///
    /// # Errors
    /// [`ApiKeyError`] when there is no such key or the file can't be changed.
    pub fn revoke(&self, id: &str) -> Result<ApiKeyRecord, ApiKeyError> {
        let now = self.clock.unix();
        self.change(|records| {
            let record = find(records, id)?;
            record.revoke(now);
            Ok(record.clone())
        })
    }

    /// Makes a key like this one, for as long as this one was made for. The old one ends after
    /// `overlap`, unless it does so before: until then both hold.
    ///
    /// # Errors
    /// [`ApiKeyError`] when there is no such key, when it was revoked, and when the file can't be
    /// changed.
    pub fn rotate(&self, id: &str, overlap: Duration) -> Result<IssuedApiKey, ApiKeyError> {
        let now = self.clock.unix();
        self.change(|records| {
            let old = find(records, id)?;
            let heir = self.form.issue(old.heir()?, now)?;
            old.end_by(now.saturating_add(overlap));
            records.keys.push(heir.record.clone());
            Ok(heir)
        })
    }

    /// Replaces the file by a changed one. The new one is written where nobody else can make one at the
    /// same time, and takes the old one's place when it is whole and on the disk.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Records) -> Result<T, ApiKeyError>,
    ) -> Result<T, ApiKeyError> {
        let lock = Lock::take(beside(&self.path))?;
        let mut records = self.read()?;
        let changed = change(&mut records)?;
        records.check().map_err(|reason| self.invalid(reason))?;
        let text = records.to_text().map_err(|error| self.invalid(error.to_string()))?;
        lock.replace(&self.path, &text).map_err(|source| self.io(source))?;
        Ok(changed)
    }

    fn read(&self) -> Result<Records, ApiKeyError> {
        match fs::read(&self.path) {
            Ok(text) => Records::parse(&text).map_err(|reason| self.invalid(reason)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Records::default()),
            Err(source) => Err(self.io(source)),
        }
    }

    fn io(&self, source: io::Error) -> ApiKeyError {
        ApiKeyError::Io { path: self.path.clone(), source }
    }

    fn invalid(&self, reason: String) -> ApiKeyError {
        ApiKeyError::Invalid { path: self.path.clone(), reason }
    }
}

fn find<'a>(records: &'a mut Records, id: &str) -> Result<&'a mut ApiKeyRecord, ApiKeyError> {
    records.keys.iter_mut().find(|record| record.id == id).ok_or(ApiKeyError::NoSuchKey)
}

/// The new file, which is the lock as long as it is not the file. Removed unless it became it.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    file: File,
    placed: bool,
}

impl Lock {
    fn take(path: PathBuf) -> Result<Self, ApiKeyError> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(&path) {
            Ok(file) => Ok(Self { path, file, placed: false }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(ApiKeyError::Busy(path)),
            Err(source) => Err(ApiKeyError::Io { path, source }),
        }
    }

    fn replace(mut self, path: &Path, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())?;
        self.file.sync_all()?;
        fs::rename(&self.path, path)?;
        self.placed = true;
        // That the new name is on the disk too: a revocation must not be undone by a power cut.
        #[cfg(unix)]
        File::open(folder(path))?.sync_all()?;
        Ok(())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if !self.placed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(unix)]
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

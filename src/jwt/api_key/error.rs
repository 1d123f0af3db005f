//! What can go wrong with keys.

use std::{io, path::PathBuf};

use crate::store::StoreError;

/// Why keys could not be read or changed. Nothing was changed then, unless the store did not answer: then
/// it is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiKeyError {
    /// The file can't be read or replaced.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else than keys.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong. Holds nothing of the file.
        reason: String,
    },
    /// Another change is under way, or broke off: then this file is left, and may be removed.
    #[error("another change is under way; if there is none, remove {}", .0.display())]
    Busy(PathBuf),
    /// The store can't be asked, or holds something else than keys.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The new key's record is one that could not be read again.
    #[error("the key {0}")]
    Unfit(&'static str),
    /// There is no key of this name.
    #[error("there is no such key")]
    NoSuchKey,
    /// A key that was revoked can't be rotated: make a new one.
    #[error("the key was revoked")]
    Revoked,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoRandomness,
}

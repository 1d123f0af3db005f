//! What can go wrong while a layer is built.

use std::{borrow::Cow, path::PathBuf};

/// An error of unknown type that may cross threads.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a builder's `build()` refused its configuration. Always the embedding application's fault:
/// nothing a client sends reaches it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// An option that has no safe default was not given.
    #[error("{0} is required")]
    Missing(&'static str),
    /// An allow list is empty, so nothing could ever pass.
    #[error("{0} is empty: nothing could ever be admitted")]
    Empty(&'static str),
    /// An option's value can't be used.
    #[error("{what} is invalid: {reason}")]
    Invalid {
        /// The option.
        what: &'static str,
        /// What is wrong with it. Never holds a secret.
        reason: Cow<'static, str>,
    },
    /// A file can't be read or holds something else than expected.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why it can't be used.
        source: BoxError,
    },
}

impl BuildError {
    /// An [`Invalid`](Self::Invalid) of `what`, because of `reason`.
    pub(crate) fn invalid(what: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid { what, reason: reason.into() }
    }
}

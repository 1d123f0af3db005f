//! What a store is made of.

use std::{
    borrow::Cow,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::TrustStore;
use crate::{BuildError, watch};

/// Builds a [`TrustStore`].
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct TrustStoreBuilder(Parts);

/// What a store is read from.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    pub(super) parts: Vec<Part>,
    pub(super) options: Options,
}

#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) source: Source,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    TrustDomain(String),
    General,
    Crl,
}

#[derive(Clone)]
pub(super) enum Source {
    Text(Arc<[u8]>),
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    pub(super) leaf_revocation_only: bool,
    pub(super) allow_unknown_revocation: bool,
    pub(super) allow_missing_usage: bool,
}

impl TrustStoreBuilder {
    /// Authorities that vouch for the SPIFFE IDs of a trust domain such as `prod.example`, and for nothing else, neither
    /// for DNS names beside them: one or more certificates in PEM. Adds to those given before.
    pub fn trust_domain(self, name: impl Into<String>, pem: impl AsRef<[u8]>) -> Self {
        self.with(Kind::TrustDomain(name.into()), Source::text(pem.as_ref()))
    }

    /// [`trust_domain`](Self::trust_domain), from a file that is read again when it changes.
    pub fn trust_domain_file(self, name: impl Into<String>, path: impl AsRef<Path>) -> Self {
        self.with(Kind::TrustDomain(name.into()), Source::file(path.as_ref()))
    }

    /// Authorities that vouch for certificates without a SPIFFE ID, and for the other names in those that have one: one
    /// or more certificates in PEM. Adds to those given before.
    pub fn anchors(self, pem: impl AsRef<[u8]>) -> Self {
        self.with(Kind::General, Source::text(pem.as_ref()))
    }

    /// [`anchors`](Self::anchors), from a file that is read again when it changes.
    pub fn anchors_file(self, path: impl AsRef<Path>) -> Self {
        self.with(Kind::General, Source::file(path.as_ref()))
    }

    /// A certificate revocation list, in DER, or one or more of them in PEM. Adds to those given before. With none at
    /// all, revocation is not checked; with one, every authority on every path needs one that is in date.
    pub fn crl(self, pem_or_der: impl AsRef<[u8]>) -> Self {
        self.with(Kind::Crl, Source::text(pem_or_der.as_ref()))
    }

    /// [`crl`](Self::crl), from a file that is read again when it changes.
    pub fn crl_file(self, path: impl AsRef<Path>) -> Self {
        self.with(Kind::Crl, Source::file(path.as_ref()))
    }

    /// Asks only whether the leaf is revoked, and of its issuer alone for a revocation list. Intermediate authorities
    /// that were revoked go unnoticed. By default the whole path is asked for.
    pub fn insecure_check_leaf_revocation_only(mut self) -> Self {
        self.0.options.leaf_revocation_only = true;
        self
    }

    /// Lets pass what no revocation list speaks for, and believes lists that are out of date. By default both are
    /// refused, so that who holds back a list does not undo what it revokes.
    pub fn insecure_allow_unknown_revocation(mut self) -> Self {
        self.0.options.allow_unknown_revocation = true;
        self
    }

    /// Lets pass leaves that do not say what their key may be used for. By default a leaf needs the extended key usage
    /// `clientAuth`; one with other usages alone never passes.
    pub fn insecure_allow_missing_usage(mut self) -> Self {
        self.0.options.allow_missing_usage = true;
        self
    }

    /// The store. Reads the files.
    ///
    /// # Errors
    /// [`BuildError::Empty`] without an authority; [`BuildError::File`] for a file that can't be read, is larger than
    /// 16 MiB, or holds something else than expected; [`BuildError::Invalid`] for such a text, for a certificate that
    /// is no authority's, and for a name that is no trust domain's.
    pub fn build(self) -> Result<TrustStore, BuildError> {
        TrustStore::new(self.into_parts()?)
    }

    pub(super) fn into_parts(self) -> Result<Parts, BuildError> {
        for part in &self.0.parts {
            if let Kind::TrustDomain(name) = &part.kind {
                check_trust_domain(name)?;
            }
        }
        Ok(self.0)
    }

    fn with(mut self, kind: Kind, source: Source) -> Self {
        self.0.parts.push(Part { kind, source });
        self
    }
}

impl Parts {
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let files = self.parts.iter().filter_map(|part| match &part.source {
            Source::File(path) => Some(path.clone()),
            Source::Text(_) => None,
        });
        files.collect()
    }
}

impl Part {
    /// The error that its content is not what it should be.
    pub(super) fn invalid(&self, reason: &'static str) -> BuildError {
        match (&self.source, &self.kind) {
            (Source::File(path), _) => {
                BuildError::File { path: path.clone(), source: reason.into() }
            }
            (_, Kind::Crl) => BuildError::invalid("a certificate revocation list", reason),
            _ => BuildError::invalid("a trust anchor", reason),
        }
    }
}

impl Source {
    fn text(text: &[u8]) -> Self {
        Self::Text(text.into())
    }

    fn file(path: &Path) -> Self {
        Self::File(path.to_owned())
    }

    pub(super) fn read(&self) -> Result<Cow<'_, [u8]>, BuildError> {
        match self {
            Self::Text(text) => Ok(text.as_ref().into()),
            Self::File(path) => watch::read(path)
                .map(Cow::Owned)
                .map_err(|error| BuildError::File { path: path.clone(), source: error.into() }),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{} bytes", text.len()),
            Self::File(path) => path.fmt(f),
        }
    }
}

/// SPIFFE-ID, section 2.1. In any other form it would fit no certificate.
fn check_trust_domain(name: &str) -> Result<(), BuildError> {
    let known = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if !name.is_empty() && name.len() <= 255 && name.bytes().all(known) {
        return Ok(());
    }
    let reason = "it may hold only a-z, 0-9, dots, dashes and underscores, at most 255 of them";
    Err(BuildError::invalid("a trust domain", reason))
}

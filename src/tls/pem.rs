//! Certificates and keys in PEM.

use std::path::{Path, PathBuf};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{BuildError, Secret};

/// PEM, or where to find it.
#[derive(Debug)]
pub(super) enum Pem {
    Text(Secret<Vec<u8>>),
    File(PathBuf),
}

impl Pem {
    pub(super) fn text(text: &[u8]) -> Self {
        Self::Text(Secret::new(text.to_vec()))
    }

    pub(super) fn file(path: &Path) -> Self {
        Self::File(path.to_owned())
    }

    /// The file, if it is one.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Text(_) => None,
            Self::File(path) => Some(path),
        }
    }

    pub(super) fn certificates(
        &self,
        what: &'static str,
    ) -> Result<Vec<CertificateDer<'static>>, BuildError> {
        let text = self.read()?;
        let certificates: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(text.expose()).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            _ => Err(BuildError::invalid(what, self.is_no("certificate"))),
        }
    }

    pub(super) fn private_key(
        &self,
        what: &'static str,
    ) -> Result<PrivateKeyDer<'static>, BuildError> {
        let text = self.read()?;
        PrivateKeyDer::from_pem_slice(text.expose())
            .map_err(|_| BuildError::invalid(what, self.is_no("private key")))
    }

    fn read(&self) -> Result<Secret<Vec<u8>>, BuildError> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::File(path) => std::fs::read(path)
                .map(Secret::new)
                .map_err(|error| BuildError::File { path: path.clone(), source: error.into() }),
        }
    }

    /// Never with a part of the text, which may be a key put in the wrong place.
    fn is_no(&self, kind: &str) -> String {
        match self {
            Self::Text(_) => format!("the text holds no {kind} in PEM"),
            Self::File(path) => format!("{} holds no {kind} in PEM", path.display()),
        }
    }
}

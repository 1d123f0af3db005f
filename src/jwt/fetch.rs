//! How documents are fetched from an issuer.

use std::{fmt::Debug, sync::Arc};

use bytes::Bytes;

use crate::{BoxError, future::ReadyOr};

/// Fetches an issuer's documents: its metadata and its key set. `HttpFetch` (feature `http-client`) is one.
///
/// ```
/// use palisade::{future::ReadyOr, jwt::{FetchError, KeySetFetch}};
///
/// /// Key sets that another process keeps up to date on this machine.
/// #[derive(Debug)]
/// struct Mirror;
///
/// impl KeySetFetch for Mirror {
///     fn fetch(&self, url: &str) -> ReadyOr<Result<bytes::Bytes, FetchError>> {
///         let name = url.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
///         let text = std::fs::read(format!("/run/mirror/{name}"));
///         ReadyOr::ready(text.map(Into::into).map_err(FetchError::new))
///     }
/// }
/// ```
pub trait KeySetFetch: Debug + Send + Sync + 'static {
    /// The document at `url`, which starts with `https://`, or with `http://` and a loopback host if the issuer
    /// was told to allow that.
    ///
    /// What implements this keeps to the following, since nobody else can:
    /// - It answers within a few seconds, 5 where nothing speaks against it. After 15 it is given up.
    /// - It reads at most 512 KiB and then fails. What returns more is not believed.
    /// - It fails on every status but 200, and follows no redirect.
    /// - It sends nothing but the request: no credential, nothing of a token.
    fn fetch(&self, url: &str) -> ReadyOr<Result<Bytes, FetchError>>;
}

/// The longest document that is read, in bytes: 512 KiB. Some real key sets are over 50.
pub(crate) const MAX_BYTES: usize = 512 * 1024;

#[deny(clippy::missing_trait_methods)]
impl<T: KeySetFetch + ?Sized> KeySetFetch for Arc<T> {
    fn fetch(&self, url: &str) -> ReadyOr<Result<Bytes, FetchError>> {
        (**self).fetch(url)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<T: KeySetFetch + ?Sized> KeySetFetch for Box<T> {
    fn fetch(&self, url: &str) -> ReadyOr<Result<Bytes, FetchError>> {
        (**self).fetch(url)
    }
}

/// A document could not be fetched. Nobody's fault here: it is logged, and tried again later.
#[derive(Debug, thiserror::Error)]
#[error("the document can't be fetched: {0}")]
pub struct FetchError(#[source] BoxError);

impl FetchError {
    /// Because of this.
    pub fn new(source: impl Into<BoxError>) -> Self {
        Self(source.into())
    }
}

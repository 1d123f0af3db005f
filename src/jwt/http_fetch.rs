//! Fetches over HTTP.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, header};

use super::{
    FetchError, IntrospectionClient, IntrospectionRequest, KeySetFetch, discovery, fetch::MAX_BYTES,
};
use crate::{
    BuildError,
    future::ReadyOr,
    outbound::{Client, Failure},
};

/// Fetches, and asks about tokens, over HTTPS, with the certificates that the system trusts: at most 512 KiB, status 200 alone, no
/// redirect followed, nothing sent but the request. Heeds `HTTPS_PROXY` and `NO_PROXY`. Needs tokio.
///
/// Plain HTTP only from a loopback address, and only for issuers that allow it.
#[derive(Clone, Debug)]
pub struct HttpFetch(Client);

impl HttpFetch {
    /// With a time limit of 5 seconds for each document.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] when TLS can't be set up.
    pub fn new() -> Result<Self, BuildError> {
        Self::with_time_limit(DEFAULT_TIME_LIMIT)
    }

    /// With another time limit for each document, from the connection to the last byte.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] when TLS can't be set up.
    pub fn with_time_limit(limit: Duration) -> Result<Self, BuildError> {
        let client =
            Client::new(Some(limit)).map_err(|_| BuildError::invalid("HttpFetch", "no TLS"))?;
        Ok(Self(client))
    }
}

impl KeySetFetch for HttpFetch {
    fn fetch(&self, url: &str) -> ReadyOr<Result<Bytes, FetchError>> {
        if let Err(reason) = discovery::check_url(url, true) {
            return ReadyOr::ready(Err(FetchError::new(reason)));
        }
        ReadyOr::pending(fetched(self.0.get(url, MAX_BYTES)))
    }
}

impl IntrospectionClient for HttpFetch {
    fn introspect(&self, request: &IntrospectionRequest<'_>) -> ReadyOr<Result<Bytes, FetchError>> {
        if let Err(reason) = discovery::check_url(request.url, true) {
            return ReadyOr::ready(Err(FetchError::new(reason)));
        }
        let mut headers = vec![
            (header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
            (header::ACCEPT, HeaderValue::from_static("application/json")),
        ];
        headers.extend(request.authorization.map(|value| (header::AUTHORIZATION, value.clone())));
        let form = Bytes::copy_from_slice(request.form.as_bytes());
        ReadyOr::pending(fetched(self.0.post(request.url, &headers, form, MAX_BYTES)))
    }
}

async fn fetched(
    answer: impl Future<Output = Result<Bytes, Failure>>,
) -> Result<Bytes, FetchError> {
    answer.await.map_err(FetchError::new)
}

const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(5);

//! Fetches over HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::header;
use reqwest::{Client, StatusCode, redirect::Policy};

use super::{
    FetchError, IntrospectionClient, IntrospectionRequest, KeySetFetch, discovery, fetch::MAX_BYTES,
};
use crate::{BuildError, future::ReadyOr};

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
        let client = Client::builder().redirect(Policy::none()).referer(false).timeout(limit);
        let client = client.build().map_err(|_| BuildError::invalid("HttpFetch", "no TLS"))?;
        Ok(Self(client))
    }
}

impl KeySetFetch for HttpFetch {
    fn fetch(&self, url: &str) -> ReadyOr<Result<Bytes, FetchError>> {
        if let Err(reason) = discovery::check_url(url, true) {
            return ReadyOr::ready(Err(FetchError::new(reason)));
        }
        ReadyOr::pending(read(self.0.get(url)))
    }
}

impl IntrospectionClient for HttpFetch {
    fn introspect(&self, request: &IntrospectionRequest<'_>) -> ReadyOr<Result<Bytes, FetchError>> {
        if let Err(reason) = discovery::check_url(request.url, true) {
            return ReadyOr::ready(Err(FetchError::new(reason)));
        }
        let mut post = self
            .0
            .post(request.url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(request.form.to_owned());
        if let Some(authorization) = request.authorization {
            post = post.header(header::AUTHORIZATION, authorization);
        }
        ReadyOr::pending(read(post))
    }
}

async fn read(request: reqwest::RequestBuilder) -> Result<Bytes, FetchError> {
    let mut response = request.send().await.map_err(failed)?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::new(format!("status {}", response.status().as_u16())));
    }
    // The length that a server states may be missing or a lie: what comes is counted.
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_BYTES {
            return Err(FetchError::new("more than 512 KiB"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// Without the URL, which may say more than a log should.
fn failed(error: reqwest::Error) -> FetchError {
    FetchError::new(error.without_url())
}

const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(5);

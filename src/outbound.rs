//! What goes out to other servers: which addresses are asked, and the one HTTP client.

use http::Uri;

/// Whether a server may be asked there: over TLS, or on this machine if that is allowed.
pub(crate) fn check_url(url: &str, http_loopback: bool) -> Result<(), &'static str> {
    check(url, |host| http_loopback && is_loopback(host))
}

/// The same, and over plain HTTP on any machine if `plain` says so.
#[cfg(all(feature = "http-client", feature = "prompt-guard"))]
pub(crate) fn check_url_or_plain(url: &str, plain: bool) -> Result<(), &'static str> {
    check(url, |host| plain || is_loopback(host))
}

fn check(url: &str, plain: impl Fn(&str) -> bool) -> Result<(), &'static str> {
    let uri: Uri = url.parse().map_err(|_| NO_URL)?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(NO_URL);
    };
    if authority.as_str().contains('@') {
        return Err("a URL with a user name in it is not fetched");
    }
    match scheme {
        "https" => Ok(()),
        "http" if plain(authority.host()) => Ok(()),
        _ => Err("only https:// is fetched"),
    }
}

/// By what it says of itself: no name is looked up.
fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost"
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

const NO_URL: &str = "not a URL";

#[cfg(feature = "http-client")]
pub(crate) use self::client::{Client, Failure};

#[cfg(feature = "http-client")]
mod client {
    use std::{future::Future, time::Duration};

    use bytes::Bytes;
    use http::{HeaderName, HeaderValue};
    use reqwest::{StatusCode, redirect::Policy};

    use crate::BuildError;

    /// Asks over HTTPS, with the certificates that the system trusts: status 200 alone, no redirect
    /// followed, nothing sent but the request. Heeds `HTTPS_PROXY` and `NO_PROXY`. Needs tokio.
    #[derive(Clone, Debug)]
    pub(crate) struct Client(reqwest::Client);

    /// Why there is no answer. Never holds a part of the request, nor its address.
    #[derive(Debug, thiserror::Error)]
    pub(crate) enum Failure {
        /// It answered with another status than 200.
        #[error("status {0}")]
        Status(u16),
        /// It answered more than it may.
        #[error("more than {} KiB", .0 / 1024)]
        TooLarge(usize),
        /// It can't be reached, or broke off.
        #[error(transparent)]
        Transport(reqwest::Error),
    }

    impl Client {
        /// With this time limit for each answer, from the connection to its last byte, or with none.
        pub(crate) fn new(limit: Option<Duration>) -> Result<Self, BuildError> {
            let mut client = reqwest::Client::builder().redirect(Policy::none()).referer(false);
            if let Some(limit) = limit {
                client = client.timeout(limit);
            }
            let client = client.build();
            Ok(Self(client.map_err(|_| BuildError::invalid("the HTTP client", "no TLS"))?))
        }

        /// The document at `url`, of at most `most` bytes.
        pub(crate) fn get(
            &self,
            url: &str,
            most: usize,
        ) -> impl Future<Output = Result<Bytes, Failure>> + Send + use<> {
            read(self.0.get(url), most)
        }

        /// The answer to `body`, of at most `most` bytes.
        pub(crate) fn post(
            &self,
            url: &str,
            headers: &[(HeaderName, HeaderValue)],
            body: Bytes,
            most: usize,
        ) -> impl Future<Output = Result<Bytes, Failure>> + Send + use<> {
            let mut post = self.0.post(url).body(body);
            for (name, value) in headers {
                post = post.header(name, value);
            }
            read(post, most)
        }
    }

    async fn read(request: reqwest::RequestBuilder, most: usize) -> Result<Bytes, Failure> {
        let mut response = request.send().await.map_err(transport)?;
        if response.status() != StatusCode::OK {
            return Err(Failure::Status(response.status().as_u16()));
        }
        // The length that a server states may be missing or a lie: what comes is counted.
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if body.len() + chunk.len() > most {
                return Err(Failure::TooLarge(most));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    }

    /// Without the URL, which may say more than a log should.
    fn transport(error: reqwest::Error) -> Failure {
        Failure::Transport(error.without_url())
    }
}

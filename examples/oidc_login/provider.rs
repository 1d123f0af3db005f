//! The provider's metadata: OpenID Connect Discovery 1.0 and RFC 8414.

use http::{Request, StatusCode};
use oauth2::{
    AuthUrl, TokenUrl,
    url::{Host, Url},
};
use palisade::BoxError;
use reqwest::Client;
use serde::Deserialize;

use crate::{http_client, printable, with_causes};

/// What of them is needed to log in.
#[derive(Debug, Deserialize)]
pub(crate) struct Provider {
    pub(crate) issuer: String,
    pub(crate) authorization_endpoint: AuthUrl,
    pub(crate) token_endpoint: TokenUrl,
    /// Whether redirects name the issuer: RFC 9207, section 3.
    #[serde(default)]
    pub(crate) authorization_response_iss_parameter_supported: bool,
    code_challenge_methods_supported: Option<Vec<String>>,
}

impl Provider {
    /// Looks where OpenID Connect puts the metadata, and then where RFC 8414 does.
    pub(crate) async fn discover(
        client: &Client,
        issuer: &str,
        http_loopback: bool,
    ) -> Result<Self, BoxError> {
        check_url("--issuer", issuer, http_loopback)?;
        let mut failures = String::new();
        for url in locations(issuer)? {
            let answer = http_client::send(client, Request::get(&url).body(Vec::new())?).await;
            let why = match answer {
                Ok(answer) if answer.status() == StatusCode::OK => {
                    return Self::read(answer.body(), issuer, http_loopback);
                }
                Ok(answer) => answer.status().to_string(),
                Err(error) => with_causes(&error),
            };
            failures = format!("{failures}\n  {url}: {why}");
        }
        Err(format!("the issuer's metadata can't be had:{failures}").into())
    }

    fn read(document: &[u8], issuer: &str, http_loopback: bool) -> Result<Self, BoxError> {
        let provider: Self = serde_json::from_slice(document)
            .map_err(|error| format!("the issuer's metadata can't be read: {error}"))?;
        // To the byte: else one provider's login could end at another (Discovery, section 4.3;
        // RFC 8414, section 3.3).
        if provider.issuer != issuer {
            let named = printable(&provider.issuer);
            return Err(format!("the metadata are of another issuer, {named}").into());
        }
        let endpoints = [
            ("authorization_endpoint", provider.authorization_endpoint.as_str()),
            ("token_endpoint", provider.token_endpoint.as_str()),
        ];
        for (name, url) in endpoints {
            check_url(name, url, http_loopback)?;
        }
        // Some providers have PKCE and do not say so. One that says what it has must have S256.
        let methods = provider.code_challenge_methods_supported.as_deref();
        if methods.is_some_and(|methods| !methods.iter().any(|method| method == "S256")) {
            return Err("the provider does not have PKCE with S256".into());
        }
        Ok(provider)
    }
}

/// Whether a token may go there: over TLS, or to this machine if that is allowed.
pub(crate) fn check_url(name: &str, text: &str, http_loopback: bool) -> Result<Url, BoxError> {
    let text = printable(text);
    let url: Url = text.parse().map_err(|_| format!("{name}: not a URL: {text}"))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) && http_loopback => Ok(url),
        "http" if is_loopback(&url) => {
            Err(format!("{name}: not https, and no --insecure-http-loopback: {text}").into())
        }
        _ => Err(format!("{name}: only https is safe: {text}").into()),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn locations(issuer: &str) -> Result<[String; 2], BoxError> {
    let url: Url = issuer.parse()?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("--issuer: an issuer has neither query nor fragment".into());
    }
    let (origin, path) = (url.origin().ascii_serialization(), url.path().trim_end_matches('/'));
    Ok([
        format!("{origin}{path}/.well-known/openid-configuration"),
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
    ])
}

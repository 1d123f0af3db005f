//! Where to get a token for this server: RFC 9728, OAuth 2.0 protected resource metadata.

use std::{
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use serde_json::{Map, Value};
use tower_service::Service;

use crate::BuildError;

/// What a client needs to know to get a token for this server, as MCP clients do.
///
/// Given to [`JwtAuthLayerBuilder::resource_metadata`](super::JwtAuthLayerBuilder::resource_metadata), the
/// layer answers requests for it itself and names it in its challenges. [`build`](Self::build) makes a
/// service of it, to be mounted by hand.
///
/// ```
/// use palisade::jwt::ProtectedResourceMetadata;
///
/// let metadata = ProtectedResourceMetadata::new("https://llm.example/mcp")
///     .authorization_servers(["https://login.example"])
///     .scopes_supported(["llm:infer"])
///     .build()?;
/// assert_eq!(metadata.url(), "https://llm.example/.well-known/oauth-protected-resource/mcp");
/// # Ok::<_, palisade::BuildError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ProtectedResourceMetadata {
    resource: String,
    authorization_servers: Vec<String>,
    scopes_supported: Vec<String>,
    name: Option<String>,
    documentation: Option<String>,
}

impl ProtectedResourceMetadata {
    /// Of the server that clients know by this URL: `https`, or `http` on the loopback, without a query and
    /// a fragment. Clients compare it byte for byte with the URL that their user typed.
    pub fn new(resource: impl Into<String>) -> Self {
        Self {
            resource: resource.into(),
            authorization_servers: Vec::new(),
            scopes_supported: Vec::new(),
            name: None,
            documentation: None,
        }
    }

    /// The issuers whose tokens are accepted here. At least one is required: clients have nowhere to go
    /// without.
    pub fn authorization_servers<T: Into<String>>(
        mut self,
        issuers: impl IntoIterator<Item = T>,
    ) -> Self {
        self.authorization_servers = issuers.into_iter().map(Into::into).collect();
        self
    }

    /// The scopes that a client may ask for. By default none are listed.
    pub fn scopes_supported<T: Into<String>>(
        mut self,
        scopes: impl IntoIterator<Item = T>,
    ) -> Self {
        self.scopes_supported = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// What people call the server. By default not said.
    pub fn resource_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The URL of documentation for developers. By default not said.
    pub fn resource_documentation(mut self, url: impl Into<String>) -> Self {
        self.documentation = Some(url.into());
        self
    }

    /// The service that answers with it.
    ///
    /// # Errors
    /// [`BuildError`] for a URL that is not `https` (or `http` on the loopback), or has a query or a fragment, and
    /// when there is no authorization server.
    pub fn build(self) -> Result<MetadataService, BuildError> {
        let resource = url("resource_metadata", &self.resource)?;
        if self.authorization_servers.is_empty() {
            return Err(BuildError::Empty("authorization_servers"));
        }
        for issuer in &self.authorization_servers {
            url("authorization_servers", issuer)?;
        }
        // Section 3.1: between the host and the path, of which a lone slash is none.
        let suffix = if resource.path() == "/" { "" } else { resource.path() };
        let path = format!("{WELL_KNOWN}{suffix}");
        let (scheme, host) =
            (resource.scheme_str(), resource.authority().map(|host| host.as_str()));
        let url = format!("{}://{}{path}", scheme.unwrap_or_default(), host.unwrap_or_default());
        Ok(MetadataService(Arc::new(Served { document: self.document(), path, url })))
    }

    fn document(self) -> String {
        let list = |list: Vec<String>| Value::from_iter(list);
        let mut document = Map::new();
        let mut say = |name: &str, value: Value| drop(document.insert(name.into(), value));
        say("resource", self.resource.into());
        say("authorization_servers", list(self.authorization_servers));
        if !self.scopes_supported.is_empty() {
            say("scopes_supported", list(self.scopes_supported));
        }
        say("bearer_methods_supported", list(vec!["header".into()]));
        if let Some(name) = self.name {
            say("resource_name", name.into());
        }
        if let Some(url) = self.documentation {
            say("resource_documentation", url.into());
        }
        Value::Object(document).to_string()
    }
}

/// Answers with a server's [`ProtectedResourceMetadata`], whatever the path. Cheap to clone.
#[derive(Clone)]
pub struct MetadataService(Arc<Served>);

#[derive(Debug)]
struct Served {
    document: String,
    path: String,
    url: String,
}

impl MetadataService {
    /// Where clients look for it: what challenges name as `resource_metadata`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// The path of that URL, to mount it at. The same at
    /// [`WELL_KNOWN`](Self::WELL_KNOWN) serves the clients that look there first.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// The path without the resource's own: `/.well-known/oauth-protected-resource`.
    pub const WELL_KNOWN: &'static str = WELL_KNOWN;

    /// The answer, if the request is one for the metadata.
    pub(crate) fn answers<B>(&self, request: &Request<B>) -> Option<Response<String>> {
        let path = request.uri().path();
        let ours = path == self.0.path || path == WELL_KNOWN;
        ours.then(|| self.respond(request.method()))
    }

    /// Public, and the same for everybody. Browsers may read it from any page, and ask first since
    /// MCP clients send a header of their own.
    fn respond(&self, method: &Method) -> Response<String> {
        let mut response = Response::new(String::new());
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        match *method {
            Method::GET | Method::HEAD => {
                let json = HeaderValue::from_static("application/json");
                headers.insert(header::CONTENT_TYPE, json);
                let cache = HeaderValue::from_static("public, max-age=300");
                headers.insert(header::CACHE_CONTROL, cache);
                if *method == Method::GET {
                    self.0.document.clone_into(response.body_mut());
                } else {
                    headers.insert(header::CONTENT_LENGTH, self.0.document.len().into());
                }
            }
            Method::OPTIONS => {
                let methods = HeaderValue::from_static("GET, HEAD");
                headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*"));
                *response.status_mut() = StatusCode::NO_CONTENT;
            }
            _ => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
                *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            }
        }
        response
    }
}

impl<B> Service<Request<B>> for MetadataService {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.respond(request.method())))
    }
}

impl fmt::Debug for MetadataService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MetadataService").field(&self.0.url).finish()
    }
}

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

fn url(what: &'static str, text: &str) -> Result<Uri, BuildError> {
    let invalid = |reason: &'static str| BuildError::invalid(what, reason);
    let uri: Uri = text.parse().map_err(|_| invalid("not a URL"))?;
    let authority = uri.authority().ok_or_else(|| invalid("not an absolute URL"))?;
    if text.contains(['#', '?', '"', '\\']) || authority.as_str().contains('@') {
        return Err(invalid("it must have no user, query or fragment"));
    }
    let loopback = matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if loopback => Ok(uri),
        _ => Err(invalid("it must be https, or http on the loopback")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(resource: &str) -> Result<MetadataService, BuildError> {
        let metadata = ProtectedResourceMetadata::new(resource);
        metadata.authorization_servers(["https://login.example"]).build()
    }

    #[test]
    fn the_well_known_part_stands_between_host_and_path() {
        for (resource, url) in [
            ("https://a.example", "https://a.example/.well-known/oauth-protected-resource"),
            ("https://a.example/", "https://a.example/.well-known/oauth-protected-resource"),
            ("https://a.example/v1", "https://a.example/.well-known/oauth-protected-resource/v1"),
            (
                "https://a.example:8/v/w/",
                "https://a.example:8/.well-known/oauth-protected-resource/v/w/",
            ),
            (
                "http://localhost:3000/m",
                "http://localhost:3000/.well-known/oauth-protected-resource/m",
            ),
        ] {
            assert_eq!(metadata(resource).unwrap().url(), url);
        }
    }

    #[test]
    fn urls_that_clients_would_not_trust_are_refused() {
        for bad in [
            "http://a.example",
            "http://localhost.example",
            "ftp://a.example",
            "/v1",
            "a.example",
            "https://a.example/?q",
            "https://a.example/#f",
            "https://u@a.example/",
            "",
        ] {
            assert!(metadata(bad).is_err(), "{bad}");
            let server = ProtectedResourceMetadata::new("https://a.example");
            assert!(server.authorization_servers([bad]).build().is_err(), "{bad}");
        }
        assert!(ProtectedResourceMetadata::new("https://a.example").build().is_err());
    }

    #[test]
    fn the_resource_is_said_as_it_was_given() {
        let metadata = ProtectedResourceMetadata::new("https://a.example/");
        let served = metadata
            .authorization_servers(["https://login.example"])
            .scopes_supported(["a", "b"])
            .resource_name("A \"b\"")
            .resource_documentation("https://a.example/docs")
            .build()
            .unwrap();
        let document: Value = serde_json::from_str(&served.0.document).unwrap();
        let expected = serde_json::json!({
            "resource": "https://a.example/",
            "authorization_servers": ["https://login.example"],
            "scopes_supported": ["a", "b"],
            "bearer_methods_supported": ["header"],
            "resource_name": "A \"b\"",
            "resource_documentation": "https://a.example/docs",
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn browsers_may_read_it_and_nobody_may_write_it() {
        let served = metadata("https://a.example/v1").unwrap();
        let head = served.respond(&Method::HEAD);
        assert_eq!((head.status(), head.body().len()), (StatusCode::OK, 0));
        let preflight = served.respond(&Method::OPTIONS);
        assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
        assert_eq!(preflight.headers()["access-control-allow-headers"], "*");
        let post = served.respond(&Method::POST);
        assert_eq!((post.status(), post.body().len()), (StatusCode::METHOD_NOT_ALLOWED, 0));
        for (path, ours) in [
            ("/.well-known/oauth-protected-resource", true),
            ("/.well-known/oauth-protected-resource/v1", true),
            ("/.well-known/oauth-protected-resource/v1/", false),
            ("/.well-known/oauth-protected-resource/admin", false),
            ("/v1/.well-known/oauth-protected-resource", false),
            ("//.well-known/oauth-protected-resource", false),
        ] {
            let request = Request::get(path).body(()).unwrap();
            assert_eq!(served.answers(&request).is_some(), ours, "{path}");
        }
    }
}

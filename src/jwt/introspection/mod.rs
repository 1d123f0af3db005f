//! Tokens that say nothing by themselves: RFC 7662, whether one holds is asked of its issuer.

mod answer;
mod client;
mod flight;

use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::HeaderValue;

pub use self::client::{IntrospectionClient, IntrospectionRequest};
pub(crate) use self::flight::{Flights, ask};
use super::{discovery, fetch::FetchError};
use crate::{BuildError, Secret};

/// Where and how an issuer is asked about tokens: RFC 7662. Given to
/// [`Issuer::introspection`](super::Issuer::introspection) or
/// [`Issuer::introspected`](super::Issuer::introspected).
///
/// What the issuer answers is held against the same rules as a JWT: `active` is true; `iss`, where it is stated,
/// is the issuer; the audience is the API's; `exp`, `nbf` and `iat`, where they are stated, hold now; what `cnf`
/// binds the token to is shown. How long the token lives is the issuer's affair, since it is asked again.
/// A token that `token_type` or `token_use` calls anything but an access token is refused, and so is one without a
/// `sub`: see [`clients_as_subjects`](Self::clients_as_subjects).
///
/// ```
/// use palisade::{Secret, jwt::{Introspection, Issuer, ResourceServer}};
///
/// # #[cfg(feature = "http-client")] {
/// let secret = Secret::new(String::from("of the client that this server is"));
/// let introspection = Introspection::endpoint("https://login.example/introspect")
///     .client_secret_basic("llm-server", &secret);
/// let issuer = Issuer::introspected("https://login.example", introspection)
///     .audience("https://llm.example");
/// let server = ResourceServer::builder().issuer(issuer).build()?;
/// # }
/// # Ok::<_, palisade::BuildError>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Introspection {
    endpoint: String,
    authentication: Option<Authentication>,
    max_age: Duration,
    max_concurrent: usize,
    clients_as_subjects: bool,
}

/// How this server shows the issuer who it is.
#[derive(Clone)]
enum Authentication {
    /// In the header `Authorization`.
    Header(Secret<String>),
    /// In the form, as these further fields.
    Form(Secret<String>),
    /// By what the client does itself.
    Client,
}

impl Introspection {
    /// Asks at this URL, `https://`, or a loopback one where
    /// [`insecure_http_loopback`](super::Issuer::insecure_http_loopback) says so. One of the ways to show who asks
    /// has to be chosen too.
    pub fn endpoint(url: impl Into<String>) -> Self {
        Self {
            endpoint: url.into(),
            authentication: None,
            max_age: DEFAULT_MAX_AGE,
            max_concurrent: DEFAULT_MAX_CONCURRENT,
            clients_as_subjects: false,
        }
    }

    /// Asks as this OAuth client, with its secret in the header `Authorization`: RFC 6749, section 2.3.1.
    pub fn client_secret_basic(self, client_id: &str, secret: &Secret<String>) -> Self {
        let pair = Secret::new(format!("{}:{}", encoded(client_id), encoded(secret.expose())));
        let value = format!("Basic {}", BASE64_STANDARD.encode(pair.expose()));
        self.authenticated(Authentication::Header(Secret::new(value)))
    }

    /// Asks as this OAuth client, with its secret in the form, for issuers that want it there.
    pub fn client_secret_post(self, client_id: &str, secret: &Secret<String>) -> Self {
        let (id, secret) = (encoded(client_id), encoded(secret.expose()));
        let fields = format!("&client_id={id}&client_secret={secret}");
        self.authenticated(Authentication::Form(Secret::new(fields)))
    }

    /// Asks with an access token of this server's own.
    pub fn bearer(self, token: &Secret<String>) -> Self {
        let value = Secret::new(format!("Bearer {}", token.expose()));
        self.authenticated(Authentication::Header(value))
    }

    /// Leaves it to the [`IntrospectionClient`] to show who asks: by a client certificate, say.
    pub fn authenticated_by_client(self) -> Self {
        self.authenticated(Authentication::Client)
    }

    /// How long an answer counts: a token that was revoked may pass for so long. By default 30 seconds; at most an
    /// hour. Zero asks for every request. Answers stand in the
    /// [`token_cache`](super::ResourceServerBuilder::token_cache), those that a token does not hold nowhere.
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self
    }

    /// About how many tokens the issuer is asked at a time. What is beyond gets 503 at once. Requests that show the
    /// same token share one question. By default 256.
    pub fn max_concurrent(mut self, questions: usize) -> Self {
        self.max_concurrent = questions;
        self
    }

    /// Takes the `client_id` for the subject of a token that has no `sub`: one that a client got for itself (RFC
    /// 9068, section 2.2). By default such tokens are refused, since where clients may choose their names, or
    /// users theirs, one could be taken for the other (RFC 9068, section 5).
    pub fn clients_as_subjects(mut self) -> Self {
        self.clients_as_subjects = true;
        self
    }

    fn authenticated(mut self, by: Authentication) -> Self {
        self.authentication = Some(by);
        self
    }

    /// # Errors
    /// [`BuildError`] for a URL that is not to be asked, when nothing is said of who asks, and for limits that make
    /// no sense.
    pub(crate) fn build(
        self,
        client: Option<&Arc<dyn IntrospectionClient>>,
        http_loopback: bool,
    ) -> Result<Introspector, BuildError> {
        const WHAT: &str = "introspection";
        discovery::check_url(&self.endpoint, http_loopback)
            .map_err(|reason| BuildError::invalid(WHAT, reason))?;
        if self.max_age > MAX_MAX_AGE {
            return Err(BuildError::invalid(WHAT, "max_age is more than an hour"));
        }
        if self.max_concurrent == 0 {
            return Err(BuildError::invalid(WHAT, "max_concurrent is 0"));
        }
        let (authorization, fields) = match self.authentication {
            None => return Err(BuildError::Missing("who asks: a client's secret, or another way")),
            Some(Authentication::Header(value)) => (Some(header(&value)?), None),
            Some(Authentication::Form(fields)) => (None, Some(fields)),
            Some(Authentication::Client) => (None, None),
        };
        let client = client.ok_or(BuildError::Missing(
            "a way to introspect: the feature http-client, or ResourceServerBuilder::introspect_by",
        ))?;
        Ok(Introspector {
            client: Arc::clone(client),
            endpoint: self.endpoint,
            authorization,
            fields,
            max_age: self.max_age,
            clients_as_subjects: self.clients_as_subjects,
            flights: Flights::new(self.max_concurrent),
        })
    }
}

/// Hides how this server authenticates.
impl fmt::Debug for Introspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introspection").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// An [`Introspection`] that was found to make sense.
pub(crate) struct Introspector {
    client: Arc<dyn IntrospectionClient>,
    endpoint: String,
    authorization: Option<HeaderValue>,
    fields: Option<Secret<String>>,
    max_age: Duration,
    clients_as_subjects: bool,
    pub(crate) flights: Flights,
}

impl Introspector {
    /// What the issuer says of the token: RFC 7662, section 2.1.
    async fn question(&self, token: &str) -> Result<bytes::Bytes, FetchError> {
        let fields = self.fields.as_ref().map_or("", |fields| fields.expose());
        let token = Secret::new(encoded(token));
        let form =
            Secret::new(format!("token={}&token_type_hint=access_token{fields}", token.expose()));
        let request = IntrospectionRequest {
            url: &self.endpoint,
            authorization: self.authorization.as_ref(),
            form: form.expose(),
        };
        self.client.introspect(&request).await
    }
}

impl fmt::Debug for Introspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introspector").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// As `application/x-www-form-urlencoded` has it.
fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn header(value: &Secret<String>) -> Result<HeaderValue, BuildError> {
    let value = HeaderValue::from_str(value.expose());
    let mut value = value.map_err(|_| {
        BuildError::invalid("introspection", "a token that no header can carry authenticates it")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

const DEFAULT_MAX_AGE: Duration = Duration::from_secs(30);
const MAX_MAX_AGE: Duration = Duration::from_secs(60 * 60);
const DEFAULT_MAX_CONCURRENT: usize = 256;

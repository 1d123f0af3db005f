//! The layer and its builder.

use std::{sync::Arc, time::Duration};

use tower_layer::Layer;

use super::{
    MetadataService, Policy, ProtectedResourceMetadata, ResourceServer, TokenVerifier,
    challenge::Challenger,
    scopes::AccessRules,
    service::JwtAuth,
    throttle::{Throttle, ThrottleOptions},
};
use crate::{
    BuildError, Routes,
    clock::{Clock, SystemClock},
    network::ClientAddress,
    store::Stores,
};

/// Lets only requests through that carry an access token which holds. See the [module](super).
#[derive(Clone, Debug)]
pub struct JwtAuthLayer(Arc<Config>);

#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) verifier: Box<dyn TokenVerifier>,
    pub(crate) routes: Routes,
    pub(crate) access: AccessRules,
    pub(crate) challenger: Challenger,
    pub(crate) metadata: Option<MetadataService>,
    pub(crate) throttle: Option<Arc<Throttle>>,
    /// Whether answers end with their tokens, and by which clock.
    pub(crate) ends_streams: Option<Arc<dyn Clock>>,
    pub(crate) optional: bool,
    pub(crate) strip_token: bool,
    pub(crate) api_key_header: bool,
}

impl JwtAuthLayer {
    /// With every default: all routes guarded, no scopes asked for.
    #[must_use]
    pub fn new(resource_server: ResourceServer) -> Self {
        let builder = Self::builder(resource_server);
        Self(Arc::new(builder.into_config(Challenger::default(), None)))
    }

    /// With options.
    pub fn builder(verifier: impl TokenVerifier) -> JwtAuthLayerBuilder {
        JwtAuthLayerBuilder {
            verifier: Box::new(verifier),
            routes: Routes::guard_all(),
            access: AccessRules::default(),
            realm: None,
            metadata: None,
            throttle: None,
            ends_streams: false,
            client: ClientAddress::default(),
            clock: Arc::new(SystemClock),
            optional: false,
            strip_token: true,
            api_key_header: true,
        }
    }
}

impl<S> Layer<S> for JwtAuthLayer {
    type Service = JwtAuth<S>;

    fn layer(&self, inner: S) -> JwtAuth<S> {
        JwtAuth::new(inner, Arc::clone(&self.0))
    }
}

/// Builds a [`JwtAuthLayer`].
#[derive(Debug)]
#[must_use]
pub struct JwtAuthLayerBuilder {
    verifier: Box<dyn TokenVerifier>,
    routes: Routes,
    access: AccessRules,
    realm: Option<String>,
    metadata: Option<ProtectedResourceMetadata>,
    throttle: Option<ThrottleOptions>,
    client: ClientAddress,
    ends_streams: bool,
    clock: Arc<dyn Clock>,
    optional: bool,
    strip_token: bool,
    api_key_header: bool,
}

impl JwtAuthLayerBuilder {
    /// Which requests are guarded. By default all; see [`Routes`].
    pub fn routes(mut self, routes: Routes) -> Self {
        self.routes = routes;
        self
    }

    /// Asks of every guarded request that its token grants all of these scopes. By default none.
    pub fn require_scopes<T: Into<String>>(self, scopes: impl IntoIterator<Item = T>) -> Self {
        self.with_rule("require_scopes", None, Policy::all_scopes(scopes))
    }

    /// Asks of requests whose path ends in `suffix`, whole segments only, that their token grants
    /// all of these scopes. See [`require_at`](Self::require_at).
    pub fn require_scopes_at<T: Into<String>>(
        self,
        suffix: impl Into<String>,
        scopes: impl IntoIterator<Item = T>,
    ) -> Self {
        self.with_rule("require_scopes_at", Some(suffix.into()), Policy::all_scopes(scopes))
    }

    /// Asks of every guarded request that its caller satisfies the policy. Adds to what is asked for
    /// already. By default nothing is.
    pub fn require(self, policy: Policy) -> Self {
        self.with_rule("require", None, policy)
    }

    /// Asks of requests whose path ends in `suffix`, whole segments only, that their caller satisfies the
    /// policy. Adds to every other rule that fits. Held against the path as it came, as it reads once
    /// decoded, and against the router's pattern for it. [`RequireAccess`](super::RequireAccess) asks on the
    /// route itself, whatever its path.
    pub fn require_at(self, suffix: impl Into<String>, policy: Policy) -> Self {
        self.with_rule("require_at", Some(suffix.into()), policy)
    }

    /// Names this server's metadata in challenges, as MCP clients need it to find the issuer, and answers
    /// requests for it, which need no token: at its path, and at
    /// [`MetadataService::WELL_KNOWN`]. By default there is none. Layers outside this one have to
    /// exempt those paths.
    pub fn resource_metadata(mut self, metadata: ProtectedResourceMetadata) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// Lets every network get `quota` tokens wrong at once, and one more after each `window / quota`; the `window` is a
    /// second to a day. Beyond that its requests are answered with 429 before their tokens are
    /// verified, but for tokens that held before and are remembered. By default nothing is counted.
    ///
    /// A network is an IPv4 address or an IPv6 /64, of the connection's other end; with a proxy in front all clients
    /// are of the proxy's network, unless [`client_address`](Self::client_address) says how to tell them apart. Where
    /// the server does not tell the address, nothing is counted. Failures are counted
    /// in the store, for all processes together; each learns that a quota is used up with its own next failure.
    /// Missing credentials, tokens that grant too little and outages are no failures. While the store is out
    /// of reach, tokens are verified and failures go uncounted.
    pub fn throttle_failures(mut self, stores: &Stores, quota: u64, window: Duration) -> Self {
        self.throttle = Some(ThrottleOptions::new(stores, quota, window));
        self
    }

    /// How the throttle finds a client's address. By default it is that of the connection's other end.
    pub fn client_address(mut self, client: ClientAddress) -> Self {
        self.client = client;
        self
    }

    /// Ends an answer that still runs 30 seconds after the `exp` of its token, or after the request if that
    /// came later, and drops what produces it. An event stream ends with an error event in the endpoint's shape, gRPC with the status 16, and any
    /// other answer is cut off: with a `Content-Length`, its client sees an error. By default an answer that has
    /// begun may run to its end.
    pub fn end_streams_at_expiry(mut self) -> Self {
        self.ends_streams = true;
        self
    }

    /// The time, for the options that need it. By default the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The realm that challenges name: printable ASCII. By default `inference`.
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        self.realm = Some(realm.into());
        self
    }

    /// Lets requests without any credential through as nobody: `Identity::user` is then `None`, and
    /// whatever stands behind must cope. A credential that is there must still hold, and scopes that
    /// are required are not waived. By default a token is required.
    pub fn insecure_optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Whether the token is taken out of the request before it goes on. By default it is: a token is
    /// for this server alone, and a model server behind has no use for it. If it stays, its header
    /// is marked sensitive.
    pub fn strip_token(mut self, strip: bool) -> Self {
        self.strip_token = strip;
        self
    }

    /// Whether a token may also come in `x-api-key`, as Anthropic's clients send it, in the place of
    /// `Authorization`. By default it may. If not, that header is none of our business, and stays.
    pub fn api_key_header(mut self, accept: bool) -> Self {
        self.api_key_header = accept;
        self
    }

    /// The layer.
    ///
    /// # Errors
    /// [`BuildError`] for a realm that no header can carry, for scopes that no token can be
    /// granted, for policies that are empty, and for metadata and a throttle that make no sense.
    pub fn build(mut self) -> Result<JwtAuthLayer, BuildError> {
        self.access.check()?;
        if let Some(throttle) = &self.throttle {
            throttle.check()?;
        }
        let mut challenger =
            self.realm.take().map_or_else(|| Ok(Challenger::default()), Challenger::new)?;
        let metadata = self.metadata.take().map(ProtectedResourceMetadata::build).transpose()?;
        if let Some(metadata) = &metadata {
            challenger = challenger.with_resource_metadata(metadata.url());
        }
        Ok(JwtAuthLayer(Arc::new(self.into_config(challenger, metadata))))
    }

    fn with_rule(mut self, option: &'static str, suffix: Option<String>, policy: Policy) -> Self {
        self.access.push(option, suffix, policy);
        self
    }

    fn into_config(self, challenger: Challenger, metadata: Option<MetadataService>) -> Config {
        let clock = self.clock;
        Config {
            verifier: self.verifier,
            routes: self.routes,
            access: self.access,
            challenger,
            metadata,
            ends_streams: self.ends_streams.then(|| Arc::clone(&clock)),
            throttle: self.throttle.map(|throttle| Arc::new(throttle.with(self.client, clock))),
            optional: self.optional,
            strip_token: self.strip_token,
            api_key_header: self.api_key_header,
        }
    }
}

//! The layer and its builder.

use std::sync::Arc;

use tower_layer::Layer;

use super::{
    ResourceServer, TokenVerifier, challenge::Challenger, scopes::ScopeRules, service::JwtAuth,
};
use crate::{BuildError, Routes};

/// Lets only requests through that carry an access token which holds. See the [module](super).
#[derive(Clone, Debug)]
pub struct JwtAuthLayer(Arc<Config>);

#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) verifier: Box<dyn TokenVerifier>,
    pub(crate) routes: Routes,
    pub(crate) scopes: ScopeRules,
    pub(crate) challenger: Challenger,
    pub(crate) optional: bool,
    pub(crate) strip_token: bool,
    pub(crate) api_key_header: bool,
}

impl JwtAuthLayer {
    /// With every default: all routes guarded, no scopes asked for.
    #[must_use]
    pub fn new(resource_server: ResourceServer) -> Self {
        let builder = Self::builder(resource_server);
        let challenger = Challenger::default();
        Self(Arc::new(builder.into_config(challenger)))
    }

    /// With options.
    pub fn builder(verifier: impl TokenVerifier) -> JwtAuthLayerBuilder {
        JwtAuthLayerBuilder {
            verifier: Box::new(verifier),
            routes: Routes::guard_all(),
            scopes: ScopeRules::default(),
            realm: None,
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
    scopes: ScopeRules,
    realm: Option<String>,
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
        self.with_scopes(None, scopes)
    }

    /// Asks of requests whose path ends in `suffix`, whole segments only, that their token grants
    /// all of these scopes. Adds to every other rule that fits. Held against the path as it came, as
    /// it reads once decoded, and against the router's pattern for it.
    pub fn require_scopes_at<T: Into<String>>(
        self,
        suffix: impl Into<String>,
        scopes: impl IntoIterator<Item = T>,
    ) -> Self {
        self.with_scopes(Some(suffix.into()), scopes)
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
    /// granted, and for rules without scopes.
    pub fn build(mut self) -> Result<JwtAuthLayer, BuildError> {
        self.scopes.check()?;
        let challenger =
            self.realm.take().map_or_else(|| Ok(Challenger::default()), Challenger::new)?;
        Ok(JwtAuthLayer(Arc::new(self.into_config(challenger))))
    }

    fn with_scopes<T: Into<String>>(
        mut self,
        suffix: Option<String>,
        scopes: impl IntoIterator<Item = T>,
    ) -> Self {
        self.scopes.push(suffix, scopes.into_iter().map(Into::into).collect());
        self
    }

    fn into_config(self, challenger: Challenger) -> Config {
        Config {
            verifier: self.verifier,
            routes: self.routes,
            scopes: self.scopes,
            challenger,
            optional: self.optional,
            strip_token: self.strip_token,
            api_key_header: self.api_key_header,
        }
    }
}

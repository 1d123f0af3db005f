//! A policy on one route.

use std::sync::Arc;

use http::Extensions;
use tower_layer::Layer;

use super::{
    Policy,
    challenge::{Asked, Challenger},
};
use crate::{
    BuildError, Rejection, RejectionKind, Routes,
    gate::{Gate, Requirement},
    identity::{self, Identity},
};

/// Lets only callers through who satisfy a [`Policy`]: a layer for single routes, inside
/// [`JwtAuthLayer`](super::JwtAuthLayer), which told who the caller is. It verifies nothing itself, so that
/// it costs next to nothing; without that layer outside, it refuses with 500.
///
/// ```
/// use axum::{Router, routing::post};
/// use palisade::jwt::{JwtAuthLayer, Policy, RequireAccess};
///
/// # fn app(auth: JwtAuthLayer) -> Result<Router, palisade::BuildError> {
/// let admins = RequireAccess::builder(Policy::role("admin")).build()?;
/// let app = Router::new()
///     .route("/admin/reload", post(async || "reloaded"))
///     .route_layer(admins)
///     .route("/generate", post(async || "text"))
///     .layer(auth);
/// # Ok(app)
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RequireAccess(Arc<Config>);

#[derive(Debug)]
struct Config {
    policy: Policy,
    routes: Routes,
    challenger: Challenger,
}

impl RequireAccess {
    /// With options.
    pub fn builder(policy: Policy) -> RequireAccessBuilder {
        RequireAccessBuilder {
            policy,
            routes: Routes::guard_all(),
            realm: None,
            resource_metadata: None,
        }
    }
}

impl<S> Layer<S> for RequireAccess {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate::new(inner, Arc::clone(&self.0) as _)
    }
}

/// Builds a [`RequireAccess`].
#[derive(Debug)]
#[must_use]
pub struct RequireAccessBuilder {
    policy: Policy,
    routes: Routes,
    realm: Option<String>,
    resource_metadata: Option<String>,
}

impl RequireAccessBuilder {
    /// Which requests are guarded, and how refusals are shaped. By default all; see [`Routes`].
    pub fn routes(mut self, routes: Routes) -> Self {
        self.routes = routes;
        self
    }

    /// The realm that challenges name: printable ASCII. By default `inference`.
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        self.realm = Some(realm.into());
        self
    }

    /// The URL of the server's metadata, for challenges to name:
    /// [`MetadataService::url`](super::MetadataService::url). By default they name none.
    pub fn resource_metadata(mut self, url: impl Into<String>) -> Self {
        self.resource_metadata = Some(url.into());
        self
    }

    /// The layer.
    ///
    /// # Errors
    /// [`BuildError`] for a policy that is empty or asks for what no token can be granted, and for a realm
    /// that no header can carry.
    pub fn build(self) -> Result<RequireAccess, BuildError> {
        self.policy.check("policy")?;
        let mut challenger =
            self.realm.map_or_else(|| Ok(Challenger::default()), Challenger::new)?;
        if let Some(url) = self.resource_metadata {
            challenger = challenger.with_resource_metadata(&url);
        }
        let (policy, routes) = (self.policy, self.routes);
        Ok(RequireAccess(Arc::new(Config { policy, routes, challenger })))
    }
}

impl Requirement for Config {
    fn layer(&self) -> &'static str {
        "jwt"
    }

    fn routes(&self) -> &Routes {
        &self.routes
    }

    fn check(&self, extensions: &Extensions) -> Result<(), Rejection> {
        let identity = Identity::of(extensions).ok_or_else(identity::wrong_order)?;
        match identity.known_user() {
            Ok(user) => {
                let missing = self.policy.decide(user);
                missing.map_err(|missing| {
                    let asked = Asked { scope: &missing.list(), ..Asked::default() };
                    self.challenger.insufficient(&missing, asked)
                })
            }
            Err(rejection) if rejection.kind() == RejectionKind::Unauthenticated => {
                let scope = &self.policy.missing(None).list();
                Err(self.challenger.missing(Asked { scope, ..Asked::default() }))
            }
            Err(rejection) => Err(rejection),
        }
    }
}

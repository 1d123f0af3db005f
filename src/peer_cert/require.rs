//! Rules on one route.

use std::sync::Arc;

use http::Extensions;
use tower_layer::Layer;

use super::{PeerRule, PeerRules, refusal::Why, rules::Verdict};
use crate::{
    BuildError, Rejection, Routes,
    gate::{Gate, Requirement},
    identity::{self, Identity},
};

/// Lets only workloads through that these rules name too: a layer for single routes, inside
/// [`PeerCertLayer`](super::PeerCertLayer), which told who the peer is. It reads no certificate itself, so that it costs
/// next to nothing; without that layer outside, it refuses with 500.
///
/// Whom the rules don't admit it refuses with 403, gRPC 7, `client_not_allowed`. So it does whom the layer
/// outside let pass without an identity, as in its dry run.
///
/// ```
/// use axum::{Router, routing::post};
/// use palisade::peer_cert::{PeerCertLayer, PeerRule, RequirePeer};
///
/// # fn app(peers: PeerCertLayer) -> Result<Router, palisade::BuildError> {
/// let operators = RequirePeer::builder()
///     .allow(PeerRule::spiffe_glob("spiffe://prod.example/ns/ops/sa/*")?)
///     .build()?;
/// let app = Router::new()
///     .route("/admin/reload", post(async || "reloaded"))
///     .route_layer(operators)
///     .route("/generate", post(async || "text"))
///     .layer(peers);
/// # Ok(app)
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RequirePeer(Arc<Config>);

#[derive(Debug)]
struct Config {
    rules: PeerRules,
    routes: Routes,
}

impl RequirePeer {
    /// A layer that admits nobody yet.
    pub fn builder() -> RequirePeerBuilder {
        RequirePeerBuilder { rules: PeerRules::new(), routes: Routes::guard_all() }
    }
}

impl<S> Layer<S> for RequirePeer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate::new(inner, Arc::clone(&self.0) as _)
    }
}

/// Builds a [`RequirePeer`].
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct RequirePeerBuilder {
    rules: PeerRules,
    routes: Routes,
}

impl RequirePeerBuilder {
    /// Admits the workloads that this rule fits. At least one is required; with several, one that
    /// fits is enough.
    pub fn allow(mut self, rule: PeerRule) -> Self {
        self.rules = self.rules.allow(rule);
        self
    }

    /// Refuses the workloads that this rule fits, whatever else admits them. None by default. It
    /// never admits anyone.
    pub fn deny(mut self, rule: PeerRule) -> Self {
        self.rules = self.rules.deny(rule);
        self
    }

    /// Adds several rules, from a file for one (feature `serde`).
    pub fn rules(mut self, rules: PeerRules) -> Self {
        self.rules = self.rules.join(rules);
        self
    }

    /// Which requests are guarded, and how refusals are shaped. By default all; see [`Routes`].
    pub fn routes(mut self, routes: Routes) -> Self {
        self.routes = routes;
        self
    }

    /// The layer.
    ///
    /// # Errors
    /// [`BuildError::Empty`] where nothing is allowed; [`BuildError::Invalid`] where rules say who may carry
    /// tokens, which only `PeerCertLayer` holds to.
    pub fn build(self) -> Result<RequirePeer, BuildError> {
        if self.rules.allow.is_empty() {
            return Err(BuildError::Empty("the allow list of RequirePeer"));
        }
        if !self.rules.carriers.is_empty() {
            let reason = "who may carry tokens is for PeerCertLayer to say";
            return Err(BuildError::invalid("the rules of RequirePeer", reason));
        }
        Ok(RequirePeer(Arc::new(Config { rules: self.rules, routes: self.routes })))
    }
}

impl Requirement for Config {
    fn layer(&self) -> &'static str {
        "peer_cert"
    }

    fn routes(&self) -> &Routes {
        &self.routes
    }

    fn check(&self, extensions: &Extensions) -> Result<(), Rejection> {
        let identity = Identity::of(extensions).ok_or_else(identity::wrong_order)?;
        match identity.known_peer()? {
            Some(peer) if matches!(self.rules.verdict(peer), Verdict::Allowed(_)) => Ok(()),
            _ => Err(Why::NotAllowed.rejection()),
        }
    }
}

//! A policy on one route.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    Policy,
    challenge::{Asked, Challenger},
};
use crate::{
    BuildError, Rejection, RejectionKind, Routes,
    body::ResponseBody,
    identity::{self, Identity},
    route::{Endpoint, Route},
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
    type Service = RequireAccessService<S>;

    fn layer(&self, inner: S) -> RequireAccessService<S> {
        RequireAccessService { inner, config: Arc::clone(&self.0) }
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

impl Config {
    fn admit<B>(&self, request: &Request<B>) -> Result<(), Rejection> {
        let identity = Identity::of(request.extensions()).ok_or_else(identity::wrong_order)?;
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

/// The service of [`RequireAccess`].
#[derive(Clone)]
pub struct RequireAccessService<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S, B, R> Service<Request<B>> for RequireAccessService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = RequireAccessFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> RequireAccessFuture<S::Future> {
        if let Route::Guarded(endpoint) = self.config.routes.classify(&request)
            && let Err(rejection) = self.config.admit(&request)
        {
            let (rejection, config) = (Some(rejection), Arc::clone(&self.config));
            return RequireAccessFuture { state: State::Refused { rejection, config, endpoint } };
        }
        RequireAccessFuture { state: State::Inner { future: self.inner.call(request) } }
    }
}

impl<S: fmt::Debug> fmt::Debug for RequireAccessService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireAccessService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// The answer of [`RequireAccessService`].
    pub struct RequireAccessFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Refused { rejection: Option<Rejection>, config: Arc<Config>, endpoint: Endpoint },
        Inner { #[pin] future: F },
    }
}

impl<F, R, E> Future for RequireAccessFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Inner { future } => {
                future.poll(cx).map_ok(|response| response.map(ResponseBody::inner))
            }
            StateProj::Refused { rejection, config, endpoint } => {
                let Some(rejection) = rejection.take() else { return Poll::Pending };
                let format = endpoint.error_format();
                Poll::Ready(Ok(rejection.into_response("jwt", format, &config.routes)))
            }
        }
    }
}

impl<F> fmt::Debug for RequireAccessFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequireAccessFuture(..)")
    }
}

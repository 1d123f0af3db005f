//! The service of the layers for single routes, such as `RequireAccess` and `RequirePeer`: they ask only what the
//! layers outside of them have found out.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Extensions, Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{
    body::ResponseBody,
    reject::Rejection,
    route::{Endpoint, Route, Routes},
};

/// What a layer for single routes asks.
pub(crate) trait Requirement: fmt::Debug + Send + Sync + 'static {
    /// The layer's name in metrics and logs.
    fn layer(&self) -> &'static str;

    /// Which requests it asks, and how refusals are shaped.
    fn routes(&self) -> &Routes;

    /// Whether a request may pass, by what stands in its extensions.
    fn check(&self, extensions: &Extensions) -> Result<(), Rejection>;
}

/// Passes on the requests that may pass, and refuses the others. Never waits: it is ready when the inner service is.
#[derive(Clone)]
pub struct Gate<S> {
    inner: S,
    requirement: Arc<dyn Requirement>,
}

impl<S> Gate<S> {
    pub(crate) fn new(inner: S, requirement: Arc<dyn Requirement>) -> Self {
        Self { inner, requirement }
    }
}

impl<S, B, R> Service<Request<B>> for Gate<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = GateFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> GateFuture<S::Future> {
        if let Route::Guarded(endpoint) = self.requirement.routes().classify(&request)
            && let Err(rejection) = self.requirement.check(request.extensions())
        {
            let (rejection, requirement) = (Some(rejection), Arc::clone(&self.requirement));
            return GateFuture { state: State::Refused { rejection, requirement, endpoint } };
        }
        GateFuture { state: State::Inner { future: self.inner.call(request) } }
    }
}

impl<S: fmt::Debug> fmt::Debug for Gate<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("inner", &self.inner).finish_non_exhaustive()
    }
}

pin_project! {
    /// The answer of a [`Gate`]: the inner service's, or a refusal.
    #[must_use = "futures do nothing unless polled"]
    pub struct GateFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Refused { rejection: Option<Rejection>, requirement: Arc<dyn Requirement>, endpoint: Endpoint },
        Inner { #[pin] future: F },
    }
}

impl<F, R, E> Future for GateFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Inner { future } => {
                future.poll(cx).map_ok(|response| response.map(ResponseBody::inner))
            }
            StateProj::Refused { rejection, requirement, endpoint } => {
                let Some(rejection) = rejection.take() else { return Poll::Pending };
                let (layer, format) = (requirement.layer(), endpoint.error_format());
                Poll::Ready(Ok(rejection.into_response(layer, format, requirement.routes())))
            }
        }
    }
}

impl<F> fmt::Debug for GateFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GateFuture(..)")
    }
}

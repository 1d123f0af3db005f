//! The future of an answer: waits for the store, drives the inner service, holds what is reserved.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    body::{MeteredBody, outcome_of_head},
    layer::Config,
    reservation::{Reservation, SettleOnDrop},
    service::leave_meter,
};
use crate::{
    body::ResponseBody,
    future::Oneshot,
    reject::Rejection,
    route::Endpoint,
    store::{Decision, StoreError, StoreFuture},
};

pin_project! {
    /// The answer of a [`TieredRateLimit`](super::TieredRateLimit).
    pub struct TieredRateLimitFuture<S, B> where S: Service<Request<B>> {
        config: Arc<Config>,
        endpoint: Endpoint,
        method: Method,
        #[pin]
        state: State<S, B>,
    }
}

impl<S: Service<Request<B>>, B> TieredRateLimitFuture<S, B> {
    pub(super) fn new(
        config: Arc<Config>,
        endpoint: Endpoint,
        method: Method,
        state: State<S, B>,
    ) -> Self {
        Self { config, endpoint, method, state }
    }
}

pin_project! {
    #[project = StateProj]
    pub(super) enum State<S, B> where S: Service<Request<B>> {
        /// For the store. Dropping its answer gives back what it took.
        Waiting { answer: StoreFuture<Decision>, waiting: Option<Waiting<S, B>> },
        /// For the inner service. Dropping this settles.
        Calling { #[pin] future: Oneshot<S, Request<B>>, settle: Option<SettleOnDrop> },
        Refused { rejection: Option<Rejection> },
    }
}

impl<S: Service<Request<B>>, B> State<S, B> {
    pub(super) fn waiting(answer: StoreFuture<Decision>, waiting: Waiting<S, B>) -> Self {
        Self::Waiting { answer, waiting: Some(waiting) }
    }

    pub(super) fn unmetered(service: S, request: Request<B>) -> Self {
        Self::Calling { future: Oneshot::new(service, request), settle: None }
    }

    pub(super) fn refused(rejection: Rejection) -> Self {
        Self::Refused { rejection: Some(rejection) }
    }
}

/// A request whose admission is decided elsewhere.
pub(super) struct Waiting<S, B> {
    pub(super) service: S,
    pub(super) request: Request<B>,
    pub(super) reservation: Arc<Reservation>,
}

impl<S: Service<Request<B>>, B> Waiting<S, B> {
    pub(super) fn decided(
        self,
        decision: &Result<Decision, StoreError>,
        config: &Config,
    ) -> State<S, B> {
        let Self { service, mut request, reservation } = self;
        let reservation = match reservation.decided(decision) {
            Ok(Some(reservation)) => reservation,
            Ok(None) => return State::unmetered(service, request),
            Err(rejection) => return State::refused(rejection),
        };
        if !config.is_before_authentication() {
            leave_meter(&mut request, &reservation);
        }
        let settle = Some(SettleOnDrop::new(reservation));
        State::Calling { future: Oneshot::new(service, request), settle }
    }
}

impl<S, B, R> Future for TieredRateLimitFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = bytes::Bytes>,
{
    type Output = Result<Response<ResponseBody<MeteredBody<R>>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Waiting { answer, waiting } => {
                    let decision = ready!(Pin::new(answer).poll(cx));
                    let Some(waiting) = waiting.take() else { return Poll::Pending };
                    waiting.decided(&decision, this.config)
                }
                StateProj::Refused { rejection } => {
                    let Some(rejection) = rejection.take() else { return Poll::Pending };
                    let format = this.endpoint.error_format();
                    let routes = &this.config.routes;
                    return Poll::Ready(Ok(rejection.into_response("rate_limit", format, routes)));
                }
                StateProj::Calling { future, settle } => {
                    let answer = ready!(future.poll(cx));
                    let settle = settle.take();
                    return Poll::Ready(answered(answer, settle, this.config, this.method));
                }
            };
            this.state.set(next);
        }
    }
}

/// Moves what is reserved from the future into the body of the answer.
fn answered<R, E>(
    answer: Result<Response<R>, E>,
    settle: Option<SettleOnDrop>,
    config: &Config,
    method: &Method,
) -> Result<Response<ResponseBody<MeteredBody<R>>>, E>
where
    R: Body<Data = bytes::Bytes>,
{
    let Some(mut settle) = settle else {
        return answer
            .map(|response| response.map(MeteredBody::unmetered).map(ResponseBody::inner));
    };
    let mut response = match answer {
        Ok(response) => response,
        Err(error) => {
            settle.set(super::settlement::Outcome::Failed);
            return Err(error);
        }
    };
    settle.set(outcome_of_head(response.status(), response.headers()));
    if config.headers {
        settle.reservation().write_headers(response.headers_mut());
    }
    let (parts, body) = response.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS
        || (method == Method::CONNECT && parts.status.is_success())
    {
        settle.leave_to_meter();
        return Ok(Response::from_parts(parts, ResponseBody::inner(MeteredBody::unmetered(body))));
    }
    let body = MeteredBody::new(body, settle, &parts, method == Method::HEAD);
    Ok(Response::from_parts(parts, ResponseBody::inner(body)))
}

impl<S: Service<Request<B>>, B> fmt::Debug for TieredRateLimitFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredRateLimitFuture").finish_non_exhaustive()
    }
}

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
    fair::{Asking, Entry, FairAdmission, Permit, Queued, Watch},
    layer::Config,
    reservation::{Reservation, SettleOnDrop},
    service::leave_meter,
    settlement::Outcome,
};
use crate::{
    body::{Ending, ResponseBody},
    future::Oneshot,
    observe,
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
        /// For the engine. Dropping this leaves the queue.
        Queued { queued: Queued, entering: Option<Entering<S, B>> },
        /// For the inner service. Dropping this settles.
        Calling {
            #[pin] future: Oneshot<S, Request<B>>, settle: Option<SettleOnDrop>, watch: Option<Arc<Watch>>,
        },
        Refused { rejection: Option<Rejection> },
    }
}

impl<S: Service<Request<B>>, B> State<S, B> {
    pub(super) fn waiting(answer: StoreFuture<Decision>, waiting: Waiting<S, B>) -> Self {
        Self::Waiting { answer, waiting: Some(waiting) }
    }

    pub(super) fn unmetered(service: S, request: Request<B>) -> Self {
        Self::Calling { future: Oneshot::new(service, request), settle: None, watch: None }
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
    /// What it asks for of the engine then, where that is shared.
    pub(super) asking: Option<Asking>,
}

impl<S: Service<Request<B>>, B> Waiting<S, B> {
    pub(super) fn decided(
        self,
        decision: &Result<Decision, StoreError>,
        config: &Config,
    ) -> State<S, B> {
        let Self { service, request, reservation, asking } = self;
        let reservation = match reservation.decided(decision) {
            Ok(Some(reservation)) => reservation,
            Ok(None) => return State::unmetered(service, request),
            Err(rejection) => return State::refused(rejection),
        };
        let entering = Entering { service, request, settle: SettleOnDrop::new(reservation) };
        match config.fair.as_ref().zip(asking) {
            Some((fair, asking)) => entering.enter(fair, asking, config),
            None => entering.call(config),
        }
    }
}

/// A request that is within its limits.
pub(super) struct Entering<S, B> {
    service: S,
    request: Request<B>,
    settle: SettleOnDrop,
}

impl<S: Service<Request<B>>, B> Entering<S, B> {
    fn enter(mut self, fair: &FairAdmission, asking: Asking, config: &Config) -> State<S, B> {
        match fair.enter(asking) {
            Ok(Entry::Admitted(permit)) => self.decided(Ok(permit), config),
            Ok(Entry::Queued(queued)) => {
                // Who leaves now has used nothing but his turn.
                self.settle.set(Outcome::Refused);
                State::Queued { queued, entering: Some(self) }
            }
            Err(rejection) => self.decided(Err(rejection), config),
        }
    }

    /// What becomes of it by the engine's capacity.
    fn decided(mut self, decided: Result<Permit, Rejection>, config: &Config) -> State<S, B> {
        match decided {
            Ok(permit) => {
                self.settle.reservation().hold(permit);
                self.settle.set(Outcome::Abandoned);
                self.call(config)
            }
            Err(rejection) => {
                self.settle.set(Outcome::Unserved);
                State::refused(rejection)
            }
        }
    }

    fn call(self, config: &Config) -> State<S, B> {
        let Self { service, mut request, settle } = self;
        observe::admitted("rate_limit");
        if !config.is_before_authentication() {
            leave_meter(&mut request, settle.reservation());
        }
        let watch = settle.reservation().tell_engine(request.extensions_mut());
        State::Calling { future: Oneshot::new(service, request), settle: Some(settle), watch }
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
                StateProj::Queued { queued, entering } => {
                    let decided = ready!(queued.poll(cx));
                    let Some(entering) = entering.take() else { return Poll::Pending };
                    entering.decided(decided, this.config)
                }
                StateProj::Calling { future, settle, watch } => {
                    match watch.as_ref().map(|watch| watch.poll_revoked(cx)) {
                        // What runs is dropped before what it holds.
                        Some(Poll::Ready(rejection)) => State::refused(rejection),
                        _ => {
                            let answer = ready!(future.poll(cx));
                            let (settle, watch) = (settle.take(), watch.take());
                            let answer = answered(answer, settle, this.config, this.method);
                            return Poll::Ready(
                                answer.map(|answer| ending(answer, watch, *this.endpoint)),
                            );
                        }
                    }
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
) -> Result<Response<MeteredBody<R>>, E>
where
    R: Body<Data = bytes::Bytes>,
{
    let Some(mut settle) = settle else {
        return answer.map(|response| response.map(MeteredBody::unmetered));
    };
    let mut response = match answer {
        Ok(response) => response,
        Err(error) => {
            settle.set(Outcome::Failed);
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
        settle.reservation().begin_answer(false);
        settle.leave_to_meter();
        return Ok(Response::from_parts(parts, MeteredBody::unmetered(body)));
    }
    let body = MeteredBody::new(body, settle, &parts, method == Method::HEAD);
    Ok(Response::from_parts(parts, body))
}

/// The answer, which ends when its request is broken off, where it may be.
fn ending<R>(
    answer: Response<MeteredBody<R>>,
    watch: Option<Arc<Watch>>,
    endpoint: Endpoint,
) -> Response<ResponseBody<MeteredBody<R>>> {
    let watch = watch.filter(|_| answer.body().is_metered());
    let ending = watch.map(|watch| {
        Box::new(Ending::when(move |cx| watch.poll_revoked(cx), endpoint.error_format()))
    });
    ResponseBody::until(answer, ending)
}

impl<S: Service<Request<B>>, B> fmt::Debug for TieredRateLimitFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredRateLimitFuture").finish_non_exhaustive()
    }
}

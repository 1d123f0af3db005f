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
    fair::{Asking, Entry, Permit, Queued, Watch},
    layer::Config,
    reservation::{Reservation, SettleOnDrop},
    service::leave_meter,
    settlement::Outcome,
};
use crate::{
    body::{Ending, ResponseBody},
    future::Oneshot,
    inference::UsageReader,
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
        /// For the store. Boxed, as what is rare: the state of each request is moved as often as its future.
        Waiting { waiting: Option<Box<Waiting<S, B>>> },
        /// For the engine.
        Queued { entering: Option<Box<Entering<S, B>>> },
        /// For the inner service. Dropping this settles.
        Calling {
            #[pin] future: Oneshot<S, Request<B>>, settle: Option<SettleOnDrop>, watch: Option<Arc<Watch>>,
        },
        Refused { rejection: Option<Rejection> },
    }
}

impl<S: Service<Request<B>>, B> State<S, B> {
    pub(super) fn waiting(waiting: Waiting<S, B>) -> Self {
        Self::Waiting { waiting: Some(Box::new(waiting)) }
    }

    /// Of a request that was decided on.
    pub(super) fn of(next: Next, service: S, request: Request<B>) -> Self {
        match next {
            Next::Call { settle, watch } => {
                Self::Calling { future: Oneshot::new(service, request), settle, watch }
            }
            Next::Queue { queued, settle } => Self::Queued {
                entering: Some(Box::new(Entering { queued, settle, service, request })),
            },
            Next::Refuse { rejection } => Self::refused(rejection),
        }
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
    /// Dropped, it gives back what it took.
    pub(super) answer: StoreFuture<Decision>,
    pub(super) reservation: Arc<Reservation>,
    /// What it asks for of the engine then, where that is shared.
    pub(super) asking: Option<Asking>,
    pub(super) service: S,
    pub(super) request: Request<B>,
}

/// A request that is within its limits, and waits for the engine.
pub(super) struct Entering<S, B> {
    /// Dropped, it leaves the queue.
    queued: Queued,
    settle: SettleOnDrop,
    service: S,
    request: Request<B>,
}

/// What becomes of a request that was decided on: without the request, which is large to move.
pub(super) enum Next {
    Call { settle: Option<SettleOnDrop>, watch: Option<Arc<Watch>> },
    Queue { queued: Queued, settle: SettleOnDrop },
    Refuse { rejection: Rejection },
}

impl Next {
    /// By the store's decision.
    pub(super) fn of<B>(
        decision: &Result<Decision, StoreError>,
        reservation: Arc<Reservation>,
        asking: Option<Asking>,
        request: &mut Request<B>,
        config: &Config,
    ) -> Self {
        let mut settle = match reservation.decided(decision) {
            Ok(Some(reservation)) => SettleOnDrop::new(reservation),
            Ok(None) => return Self::Call { settle: None, watch: None },
            Err(rejection) => return Self::Refuse { rejection },
        };
        let Some((fair, asking)) = config.fair.as_ref().zip(asking) else {
            return Self::call(settle, request, config);
        };
        match fair.enter(asking) {
            Ok(Entry::Admitted(permit)) => Self::entered(Ok(permit), settle, request, config),
            Ok(Entry::Queued(queued)) => {
                // Who leaves now has used nothing but his turn.
                settle.set(Outcome::Refused);
                Self::Queue { queued, settle }
            }
            Err(rejection) => Self::entered(Err(rejection), settle, request, config),
        }
    }

    /// By the engine's capacity.
    fn entered<B>(
        decided: Result<Permit, Rejection>,
        mut settle: SettleOnDrop,
        request: &mut Request<B>,
        config: &Config,
    ) -> Self {
        match decided {
            Ok(permit) => {
                settle.reservation().hold(permit);
                settle.set(Outcome::Abandoned);
                Self::call(settle, request, config)
            }
            Err(rejection) => {
                settle.set(Outcome::Unserved);
                Self::Refuse { rejection }
            }
        }
    }

    fn call<B>(settle: SettleOnDrop, request: &mut Request<B>, config: &Config) -> Self {
        observe::admitted("rate_limit");
        if !config.is_before_authentication() {
            leave_meter(request, settle.reservation());
        }
        let watch = settle.reservation().tell_engine(request.extensions_mut());
        Self::Call { settle: Some(settle), watch }
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
                StateProj::Waiting { waiting: slot } => {
                    let Some(waiting) = slot else { return Poll::Pending };
                    let decision = ready!(Pin::new(&mut waiting.answer).poll(cx));
                    let Some(waiting) = slot.take() else { return Poll::Pending };
                    let Waiting { reservation, asking, service, mut request, .. } = *waiting;
                    let next = Next::of(&decision, reservation, asking, &mut request, this.config);
                    State::of(next, service, request)
                }
                StateProj::Refused { rejection } => {
                    let Some(rejection) = rejection.take() else { return Poll::Pending };
                    let format = this.endpoint.error_format();
                    let routes = &this.config.routes;
                    return Poll::Ready(Ok(rejection.into_response("rate_limit", format, routes)));
                }
                StateProj::Queued { entering: slot } => {
                    let Some(entering) = slot else { return Poll::Pending };
                    let decided = ready!(entering.queued.poll(cx));
                    let Some(entering) = slot.take() else { return Poll::Pending };
                    let Entering { settle, service, mut request, .. } = *entering;
                    let next = Next::entered(decided, settle, &mut request, this.config);
                    State::of(next, service, request)
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
    // Before what the layer adds to the headers, in which nothing of usage stands.
    let (status, reader) = (response.status(), UsageReader::new(response.headers()));
    if config.headers {
        settle.reservation().write_headers(response.headers_mut());
    }
    if status == StatusCode::SWITCHING_PROTOCOLS
        || (method == Method::CONNECT && status.is_success())
    {
        settle.reservation().begin_answer(false);
        settle.leave_to_meter();
        return Ok(response.map(MeteredBody::unmetered));
    }
    let head_only = method == Method::HEAD;
    Ok(response.map(|body| MeteredBody::new(body, settle, reader, status, head_only)))
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

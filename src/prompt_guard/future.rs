//! The future of a guarded request: what it waits for, one thing after another.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, request, response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    ScannedBody,
    answer::Kind,
    count::Counted,
    read::{Reader, Unreadable, why},
    reply::{Answered, Judged},
    turn::{Held, Next, Scanned, Turn},
    waiting::Waiting,
};
use crate::{
    BoxError,
    body::{RequestBody, ResponseBody},
    future::{Oneshot, ReadyOr},
    inference::Prompt,
    reject::Rejection,
    reservation::Refined,
};

pin_project! {
    /// The future of [`PromptGuard`](super::PromptGuard). Dropping it at any point stops whatever it waits
    /// for: the upload, the reservation, the detectors or the inner service.
    #[must_use = "futures do nothing unless polled"]
    pub struct PromptGuardFuture<S, B, R>
    where
        S: Service<Request<RequestBody<B>>>,
    {
        #[pin]
        state: State<S, B, R>,
        turn: Turn,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, R>
    where
        S: Service<Request<RequestBody<B>>>,
    {
        /// The request body arrives.
        Reading { #[pin] body: B, reader: Reader, waits: Option<(S, request::Parts)> },
        /// The tokens of a long prompt are counted on another thread.
        Counting { count: ReadyOr<Counted>, held: Option<Held<S>> },
        /// The limiter reserves what the prompt needs.
        Refining { refined: Refined, held: Option<(Held<S>, Prompt)> },
        /// A long prompt is scanned on another thread.
        Scanning { scan: ReadyOr<Option<Scanned>>, held: Option<Held<S>> },
        /// Detectors that have to wait answer.
        Waiting { waiting: Waiting, held: Option<Held<S>> },
        /// The inner service answers.
        Calling { #[pin] future: Oneshot<S, Request<RequestBody<B>>> },
        /// The answer is read whole.
        Collecting { #[pin] body: R, reader: Reader, head: Option<(response::Parts, Kind)> },
        /// A long answer is scanned on another thread.
        Judging { judged: Judged, head: Option<(response::Parts, Option<HeaderMap>)> },
        /// Nothing more is waited for.
        Refused { rejection: Option<Rejection> },
    }
}

impl<S, B, R> PromptGuardFuture<S, B, R>
where
    S: Service<Request<RequestBody<B>>>,
{
    /// Passed on and answered as if no guard were there.
    pub(crate) fn exempt(turn: Turn, service: S, request: Request<B>) -> Self {
        let request = request.map(RequestBody::untouched);
        Self { state: State::Calling { future: Oneshot::new(service, request) }, turn }
    }

    /// Passed on unread; the answer is scanned.
    pub(crate) fn unread(mut turn: Turn, service: S, request: Request<B>) -> Self {
        turn.leaves(request.extensions());
        let request = request.map(RequestBody::untouched);
        Self { state: State::Calling { future: Oneshot::new(service, request) }, turn }
    }

    /// Read first.
    pub(crate) fn read(turn: Turn, service: S, request: Request<B>, reader: Reader) -> Self {
        let (parts, body) = request.into_parts();
        Self { state: State::Reading { body, reader, waits: Some((service, parts)) }, turn }
    }

    /// Refused at once.
    pub(crate) fn refused(turn: Turn, rejection: Rejection) -> Self {
        Self { state: State::refused(rejection), turn }
    }
}

impl<S, B, R> State<S, B, R>
where
    S: Service<Request<RequestBody<B>>>,
{
    fn refused(rejection: Rejection) -> Self {
        Self::Refused { rejection: Some(rejection) }
    }
}

impl<S, B, R> From<Next<S>> for State<S, B, R>
where
    S: Service<Request<RequestBody<B>>>,
{
    fn from(next: Next<S>) -> Self {
        match next {
            Next::Refuse(rejection) => Self::refused(rejection),
            Next::Count(count, held) => Self::Counting { count, held: Some(held) },
            Next::Refine(refined, held, prompt) => {
                Self::Refining { refined, held: Some((held, prompt)) }
            }
            Next::Scan(scan, held) => Self::Scanning { scan, held: Some(held) },
            Next::Wait(waiting, held) => Self::Waiting { waiting, held: Some(held) },
            Next::Call(service, parts, whole) => {
                let body = RequestBody::replayed(whole.data, whole.trailers);
                let request = Request::from_parts(parts, body);
                Self::Calling { future: Oneshot::new(service, request) }
            }
        }
    }
}

impl<S, B, R> Future for PromptGuardFuture<S, B, R>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody<ScannedBody<R>>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next: State<S, B, R> = match this.state.as_mut().project() {
                StateProj::Reading { body, reader, waits } => {
                    let read = ready!(reader.poll(cx, body, why));
                    let Some((service, parts)) = waits.take() else { return Poll::Pending };
                    this.turn.take_in(service, parts, read).into()
                }
                StateProj::Counting { count, held } => {
                    let counted = ready!(Pin::new(count).poll(cx));
                    let Some(held) = held.take() else { return Poll::Pending };
                    this.turn.counted(held, counted).into()
                }
                StateProj::Refining { refined, held } => {
                    let refined = ready!(Pin::new(refined).poll(cx));
                    let Some((held, prompt)) = held.take() else { return Poll::Pending };
                    this.turn.refined(held, prompt, refined).into()
                }
                StateProj::Scanning { scan, held } => {
                    let scanned = ready!(Pin::new(scan).poll(cx));
                    let Some(held) = held.take() else { return Poll::Pending };
                    this.turn.scanned(held, scanned).into()
                }
                StateProj::Waiting { waiting, held } => {
                    let (prompt, gathered) = ready!(waiting.poll(this.turn.remotes(), cx));
                    let Some(held) = held.take() else { return Poll::Pending };
                    this.turn.conclude(held, &prompt, gathered).into()
                }
                StateProj::Calling { future } => {
                    match this.turn.answered(ready!(future.poll(cx))?) {
                        Answered::Pass(response) => return Poll::Ready(Ok(response)),
                        Answered::Refuse(rejection) => State::refused(rejection),
                        Answered::Collect(head, kind, body, reader) => {
                            State::Collecting { body, reader, head: Some((head, kind)) }
                        }
                    }
                }
                StateProj::Collecting { body, reader, head } => {
                    let read = ready!(reader.poll(cx, body, |_| Unreadable::Failed));
                    let Some((head, kind)) = head.take() else { return Poll::Pending };
                    match this.turn.collected(kind, read) {
                        Ok((judged, trailers)) => {
                            State::Judging { judged, head: Some((head, trailers)) }
                        }
                        Err(rejection) => State::refused(rejection),
                    }
                }
                StateProj::Judging { judged, head } => {
                    let judged = ready!(Pin::new(judged).poll(cx));
                    let Some((head, trailers)) = head.take() else { return Poll::Pending };
                    match this.turn.judged(head, trailers, judged) {
                        Ok(response) => return Poll::Ready(Ok(response)),
                        Err(rejection) => State::refused(rejection),
                    }
                }
                StateProj::Refused { rejection } => {
                    let Some(rejection) = rejection.take() else { return Poll::Pending };
                    return Poll::Ready(Ok(this.turn.refuse(rejection)));
                }
            };
            this.state.set(next);
        }
    }
}

impl<S, B, R> fmt::Debug for PromptGuardFuture<S, B, R>
where
    S: Service<Request<RequestBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Reading { .. } => "PromptGuardFuture::Reading(..)",
            State::Counting { .. } => "PromptGuardFuture::Counting(..)",
            State::Refining { .. } => "PromptGuardFuture::Refining(..)",
            State::Scanning { .. } => "PromptGuardFuture::Scanning(..)",
            State::Waiting { .. } => "PromptGuardFuture::Waiting(..)",
            State::Calling { .. } => "PromptGuardFuture::Calling(..)",
            State::Collecting { .. } => "PromptGuardFuture::Collecting(..)",
            State::Judging { .. } => "PromptGuardFuture::Judging(..)",
            State::Refused { .. } => "PromptGuardFuture::Refused(..)",
        })
    }
}

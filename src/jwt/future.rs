//! The future of a request.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{Scheme, dpop::NONCE, layer::Config, service::Verdict};
use crate::{
    Rejection,
    body::{Ending, ResponseBody},
    future::{Oneshot, ReadyOr},
    route::Endpoint,
};

pin_project! {
    /// The answer of [`JwtAuth`](super::JwtAuth). Dropping it while the verifier is waited for gives
    /// up the request and nothing else: nothing was taken for it yet.
    pub struct JwtAuthFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        Waiting { pending: Option<Pending<S, B>> },
        Answered { answer: Option<Response<String>> },
        Refused { rejection: Option<Rejection>, config: Arc<Config>, endpoint: Endpoint },
        Inner {
            #[pin]
            oneshot: Oneshot<S, Request<B>>,
            nonce: Option<HeaderValue>,
            ending: Option<Box<Ending>>,
        },
    }
}

/// A request whose token is being verified elsewhere.
pub(crate) struct Pending<S, B> {
    answer: ReadyOr<Verdict>,
    inner: S,
    request: Request<B>,
    config: Arc<Config>,
    endpoint: Endpoint,
    scheme: Scheme,
}

impl<S, B> Pending<S, B> {
    pub(crate) fn new(
        answer: ReadyOr<Verdict>,
        inner: S,
        request: Request<B>,
        config: Arc<Config>,
        endpoint: Endpoint,
        scheme: Scheme,
    ) -> Self {
        Self { answer, inner, request, config, endpoint, scheme }
    }
}

impl<S: Service<Request<B>>, B> JwtAuthFuture<S, B> {
    pub(crate) fn inner(inner: S, request: Request<B>, ending: Option<Box<Ending>>) -> Self {
        let oneshot = Oneshot::new(inner, request);
        Self { state: State::Inner { oneshot, nonce: None, ending } }
    }

    /// Tells this nonce in the answer.
    pub(crate) fn with_nonce(mut self, told: Option<HeaderValue>) -> Self {
        if let State::Inner { nonce, .. } = &mut self.state {
            *nonce = told;
        }
        self
    }

    pub(crate) fn refused(rejection: Rejection, config: &Arc<Config>, endpoint: Endpoint) -> Self {
        let (rejection, config) = (Some(rejection), Arc::clone(config));
        Self { state: State::Refused { rejection, config, endpoint } }
    }

    /// Answered by the layer itself, without being refused.
    pub(crate) fn answered(answer: Response<String>) -> Self {
        Self { state: State::Answered { answer: Some(answer) } }
    }

    pub(crate) fn waiting(pending: Pending<S, B>) -> Self {
        Self { state: State::Waiting { pending: Some(pending) } }
    }
}

impl<S, B, R> Future for JwtAuthFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Output = Result<Response<ResponseBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let verified = match state.as_mut().project() {
                StateProj::Inner { oneshot, nonce, ending } => {
                    let mut response = ready!(oneshot.poll(cx))?;
                    if let Some(nonce) = nonce.take() {
                        response.headers_mut().insert(NONCE, nonce);
                    }
                    return Poll::Ready(Ok(ResponseBody::until(response, ending.take())));
                }
                StateProj::Refused { rejection, config, endpoint } => {
                    let Some(rejection) = rejection.take() else { return Poll::Pending };
                    let format = endpoint.error_format();
                    let response = rejection.into_response("jwt", format, &config.routes);
                    return Poll::Ready(Ok(response));
                }
                StateProj::Answered { answer } => {
                    let Some(answer) = answer.take() else { return Poll::Pending };
                    return Poll::Ready(Ok(answer.map(|text| ResponseBody::refusal(text.into()))));
                }
                StateProj::Waiting { pending: slot } => {
                    let Some(pending) = slot.as_mut() else { return Poll::Pending };
                    let verdict = ready!(Pin::new(&mut pending.answer).poll(cx));
                    let Some(pending) = slot.take() else { return Poll::Pending };
                    pending.resume(verdict)
                }
            };
            state.set(verified);
        }
    }
}

impl<S: Service<Request<B>>, B> Pending<S, B> {
    fn resume(mut self, verdict: Verdict) -> State<S, B> {
        match self.config.admit(&mut self.request, self.scheme, Some(verdict)) {
            Ok(()) => State::Inner {
                nonce: self.config.nonce(self.scheme),
                ending: self.config.ending(&self.request, self.endpoint),
                oneshot: Oneshot::new(self.inner, self.request),
            },
            Err(rejection) => State::Refused {
                rejection: Some(rejection),
                config: self.config,
                endpoint: self.endpoint,
            },
        }
    }
}

impl<S: Service<Request<B>>, B> fmt::Debug for JwtAuthFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JwtAuthFuture(..)")
    }
}

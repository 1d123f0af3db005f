//! The future of the service.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;
use pin_project_lite::pin_project;

use crate::body::{Ending, ResponseBody};

pin_project! {
    /// The answer of a [`PeerCert`](super::PeerCert): the inner service's, or a
    /// refusal.
    #[must_use = "futures do nothing unless polled"]
    pub struct PeerCertFuture<F, R> {
        #[pin]
        kind: Kind<F, R>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<F, R> {
        Inner { #[pin] future: F, ending: Option<Box<Ending>> },
        Refused { response: Option<Response<ResponseBody<R>>> },
    }
}

impl<F, R> PeerCertFuture<F, R> {
    pub(super) fn inner(future: F, ending: Option<Box<Ending>>) -> Self {
        Self { kind: Kind::Inner { future, ending } }
    }

    pub(super) fn refused(response: Response<ResponseBody<R>>) -> Self {
        Self { kind: Kind::Refused { response: Some(response) } }
    }
}

impl<F, R, E> Future for PeerCertFuture<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProj::Inner { future, ending } => {
                future.poll(cx).map_ok(|response| ResponseBody::until(response, ending.take()))
            }
            KindProj::Refused { response } => {
                response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(response)))
            }
        }
    }
}

impl<F, R> fmt::Debug for PeerCertFuture<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerCertFuture(..)")
    }
}

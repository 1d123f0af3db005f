//! The two futures that every layer is made of.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

/// An answer that is there already, or a boxed future of it that owns what it needs.
///
/// What lets a trait object answer from memory without an allocation and from a network alike.
#[must_use = "futures do nothing unless polled"]
pub struct ReadyOr<T>(Inner<T>);

enum Inner<T> {
    Ready(Option<T>),
    Pending(Pin<Box<dyn Future<Output = T> + Send>>),
}

impl<T> ReadyOr<T> {
    /// The answer itself.
    #[inline]
    pub fn ready(value: T) -> Self {
        Self(Inner::Ready(Some(value)))
    }

    /// An answer that is still to come.
    pub fn pending(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Inner::Pending(Box::pin(future)))
    }

    /// The answer, if it is there: to be read, or changed, where it is.
    #[inline]
    pub fn now(&mut self) -> Option<&mut T> {
        match &mut self.0 {
            Inner::Ready(value) => value.as_mut(),
            Inner::Pending(_) => None,
        }
    }

    /// The answer, or the future back if there is none yet.
    ///
    /// # Errors
    /// The future itself, unchanged, when its answer is not there yet.
    #[inline]
    pub fn try_now(self) -> Result<T, Self> {
        match self.0 {
            Inner::Ready(Some(value)) => Ok(value),
            other => Err(Self(other)),
        }
    }
}

impl<T> Unpin for ReadyOr<T> {}

impl<T> Future for ReadyOr<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match &mut self.0 {
            // Polled again after its answer, it stays pending, as a fused future would.
            Inner::Ready(value) => value.take().map_or(Poll::Pending, Poll::Ready),
            Inner::Pending(future) => future.as_mut().poll(cx),
        }
    }
}

impl<T> fmt::Debug for ReadyOr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Inner::Ready(_) => "ReadyOr::Ready(..)",
            Inner::Pending(_) => "ReadyOr::Pending(..)",
        })
    }
}

pin_project! {
    /// Drives a clone of a service to readiness, then calls it.
    ///
    /// A layer that waits before its inner service must not hold it readied meanwhile: that pins a
    /// permit of an inner `ConcurrencyLimit`. So it answers `Ready` and drives a clone here.
    #[project = OneshotProj]
    pub(crate) enum Oneshot<S, Q> where S: Service<Q> {
        NotReady { service: S, request: Option<Q> },
        Called { #[pin] future: S::Future },
    }
}

impl<S: Service<Q>, Q> Oneshot<S, Q> {
    pub(crate) fn new(service: S, request: Q) -> Self {
        Self::NotReady { service, request: Some(request) }
    }
}

impl<S: Service<Q>, Q> Future for Oneshot<S, Q> {
    type Output = Result<S::Response, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let future = match self.as_mut().project() {
                OneshotProj::NotReady { service, request } => {
                    ready!(service.poll_ready(cx))?;
                    match request.take() {
                        Some(request) => service.call(request),
                        None => return Poll::Pending,
                    }
                }
                OneshotProj::Called { future } => return future.poll(cx),
            };
            self.set(Self::Called { future });
        }
    }
}

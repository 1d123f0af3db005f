//! Calls that are heard to their end.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use crate::runtime;

/// A call that goes on in the background when nobody waits for it any more, so that its answer is heard, and what it took
/// is given back.
pub(super) struct Waited<T: Send + 'static> {
    /// `None` once it is answered.
    call: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    begun: bool,
}

impl<T: Send + 'static> Waited<T> {
    pub(super) fn new(call: impl Future<Output = T> + Send + 'static) -> Self {
        Self { call: Some(Box::pin(call)), begun: false }
    }
}

impl<T: Send + 'static> Future for Waited<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.begun = true;
        let Some(call) = &mut self.call else { return Poll::Pending };
        let answer = call.as_mut().poll(cx);
        if answer.is_ready() {
            self.call = None;
        }
        answer
    }
}

impl<T: Send + 'static> Drop for Waited<T> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take().filter(|_| self.begun) {
            // Without a runtime there is no connection either.
            drop(runtime::spawn(async move { drop(call.await) }));
        }
    }
}

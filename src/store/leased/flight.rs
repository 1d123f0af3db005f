//! A lease on its way, and who waits for it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::Shared;
use crate::store::{Charge, Inline, LimiterStore};

/// A lease that was asked for. Dropped when it has arrived or never will: then who waits goes on.
pub(super) struct Flight<S: LimiterStore> {
    shared: Arc<Shared<S>>,
    number: u64,
    charges: Inline<Charge>,
}

/// Ready when the lease has arrived or never will.
pub(super) struct Waiting<S: LimiterStore> {
    shared: Arc<Shared<S>>,
    flight: u64,
}

impl<S: LimiterStore> Flight<S> {
    pub(super) fn new(shared: Arc<Shared<S>>, number: u64, charges: Inline<Charge>) -> Self {
        Self { shared, number, charges }
    }
}

impl<S: LimiterStore> Drop for Flight<S> {
    fn drop(&mut self) {
        let waiting = self.shared.table().arrive(self.number, self.charges.as_slice());
        for waker in waiting {
            waker.wake();
        }
    }
}

impl<S: LimiterStore> Waiting<S> {
    pub(super) fn new(shared: Arc<Shared<S>>, flight: u64) -> Self {
        Self { shared, flight }
    }
}

impl<S: LimiterStore> Future for Waiting<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.shared.table().has_arrived(self.flight, cx.waker()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

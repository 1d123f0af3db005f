//! Wakers, taken out of the lock.

use std::task::Waker;

/// Wakers to be called, and others to be dropped, once the lock is free: either may run anything, also what takes the lock.
#[derive(Debug, Default)]
pub(in crate::rate_limit) struct Wakes {
    wake: Few,
    spent: Few,
}

/// Seldom more than one.
#[derive(Debug, Default)]
struct Few {
    first: Option<Waker>,
    more: Vec<Waker>,
}

impl Wakes {
    /// Calls them: to be done when the lock is free.
    #[inline]
    pub(in crate::rate_limit) fn wake(self) {
        if let Some(first) = self.wake.first {
            first.wake();
            self.wake.more.into_iter().for_each(Waker::wake);
        }
    }

    pub(super) fn push(&mut self, waker: Option<Waker>) {
        self.wake.push(waker);
    }

    pub(super) fn drop_later(&mut self, waker: Option<Waker>) {
        self.spent.push(waker);
    }

    /// Keeps `waker` in the place of another.
    pub(super) fn keep(&mut self, kept: &mut Option<Waker>, waker: &Waker) {
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            self.drop_later(kept.replace(waker.clone()));
        }
    }
}

impl Few {
    #[inline]
    fn push(&mut self, waker: Option<Waker>) {
        if waker.is_none() {
            return;
        }
        match &mut self.first {
            None => self.first = waker,
            Some(_) => self.more.extend(waker),
        }
    }
}

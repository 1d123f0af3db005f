//! How long a wait will be, by how fast a tier's waiters were let in lately.

use std::time::Duration;

/// The time between one waiter of a tier and the next, while there always was one.
#[derive(Debug, Default)]
pub(super) struct Gap {
    last: Option<Duration>,
    mean: Option<Duration>,
    /// When a gap was measured last.
    measured: Duration,
}

impl Gap {
    /// A waiter was let in, and others wait on, or not.
    pub(super) fn let_in(&mut self, now: Duration, others_wait: bool) {
        if let Some(last) = self.last {
            let gap = now.saturating_sub(last);
            let mean = self.mean.unwrap_or(gap);
            self.mean = Some(mean - mean / MEMORY + gap / MEMORY);
            self.measured = now;
        }
        self.last = others_wait.then_some(now);
    }

    /// The last of them has gone otherwise.
    pub(super) fn none_waits(&mut self) {
        self.last = None;
    }

    /// How long it takes to let in so many. Nothing, as long as nothing is known, and when nothing has come to confirm it
    /// for long: better let one wait in vain than refuse one that could have been served.
    pub(super) fn of(&self, waiters: u64, now: Duration) -> Duration {
        let mean = self.mean.unwrap_or_default();
        if now.saturating_sub(self.measured) > mean.saturating_mul(MEMORY) {
            return Duration::ZERO;
        }
        mean.saturating_mul(u32::try_from(waiters).unwrap_or(u32::MAX))
    }
}

/// Gaps that the mean is of, about, and in the time of how many it is out of date.
const MEMORY: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_as_many_gaps_as_are_before() {
        let second = Duration::from_secs(1);
        let mut gap = Gap::default();
        assert_eq!(gap.of(100, second), Duration::ZERO);
        for n in 0..20 {
            gap.let_in(second * n, true);
        }
        assert_eq!(gap.of(3, second * 20), second * 3);
        // No one waited for a while: that says nothing of how fast waiters are let in.
        gap.let_in(second * 20, false);
        gap.let_in(second * 26, true);
        assert_eq!(gap.of(3, second * 26), second * 3);
        gap.none_waits();
        gap.let_in(second * 28, true);
        assert_eq!(gap.of(3, second * 28), second * 3);
        // A clock that was read too early.
        gap.let_in(second * 27, true);
        assert!(gap.of(8, second * 28) <= second * 8);
        // What nobody has confirmed for long.
        assert_eq!(gap.of(8, second * 40), Duration::ZERO);
    }
}

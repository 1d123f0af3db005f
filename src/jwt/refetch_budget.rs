//! How often requests may cause a fetch.

use std::time::Duration;

/// A token bucket. What a request asks for beyond the schedule counts, whether it then succeeds or
/// not: else an attacker with made-up key ids would have the issuer flooded while it is down.
#[derive(Debug)]
pub(crate) struct RefetchBudget {
    left: u32,
    /// When `left` was last right.
    since: Duration,
}

impl Default for RefetchBudget {
    fn default() -> Self {
        Self { left: BURST, since: Duration::ZERO }
    }
}

impl RefetchBudget {
    /// Takes one, if there is one at the monotonic time `now`.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.since).as_secs() / EVERY.as_secs();
        let earned = u32::try_from(passed).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(earned).min(BURST);
        self.since = if self.left == BURST { now } else { self.since + EVERY * earned };
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }
}

/// Enough for a rotation and its neighbour.
const BURST: u32 = 3;

/// Short, since it is also how long somebody who spends the budget on purpose can keep a key out that
/// was published in this moment.
const EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_gets_the_burst_and_then_one_in_ten_seconds() {
        let mut budget = RefetchBudget::default();
        let mut taken = |second| budget.take(Duration::from_secs(second));
        assert_eq!((0..100).filter(|_| taken(1000)).count(), 3);
        assert_eq!((1000..1100).filter(|second| taken(*second)).count(), 9);
        assert_eq!((0..100).filter(|_| taken(5000)).count(), 3);
        assert!(!taken(4000));
    }
}

//! A sliding window, by two counters: what was used in the window before counts by as much of it as the
//! last window's length still reaches into.
//!
//! Windows stand end to end since the store's origin. At the start of one, all of `before` counts; at its end, none.
//! If `Q` is the quota and `W` the window, then in any stretch of time `d` at most `Q (1 + d/W)` units pass: with `f` of a
//! window gone, its units and `before (1 - f)` are within `Q`, so that both together are within `Q + before f`, and each full window
//! between is within `Q`.
//!
//! **Exact in doubles**, so that a script may multiply and divide: of whole numbers below 2^53, the rounded quotient is
//! never rounded across a whole number, so its floor and its ceiling are exact; so are multiples of a power of
//! two. The weight is counted in less than 2^26 parts of the window: `before = high * parts + low`, and both
//! `high * rest` and `low * rest` are below 2^53.

use std::time::Duration;

use super::{Correction, GRAIN, LATEST_GRAIN, MOST, State, time::window_ticks};

/// A window, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) ticks: u64,
    /// The ticks of a part, a power of two.
    pub(crate) part: u64,
    /// How many parts there are.
    pub(crate) parts: u64,
}

impl Window {
    pub(in crate::store) const fn of(window: Duration) -> Self {
        let ticks = window_ticks(window, LONGEST_WINDOW).next_multiple_of(GRAIN);
        let bits = u64::BITS - ticks.leading_zeros();
        let part = 1 << bits.saturating_sub(PART_BITS);
        Self { ticks, part, parts: ticks / part }
    }

    /// The two counters as of now. `level` is the end of the window after this one.
    pub(super) fn seen(self, state: State, now: u64) -> State {
        let start = self.start(state, now);
        let level = (start + 2 * self.ticks).min(LATEST_GRAIN);
        if state.level <= now {
            State { level, mark: 0, used: 0 }
        } else if state.level > start + self.ticks {
            State { level, ..state }
        } else {
            State { level, mark: state.used, used: 0 }
        }
    }

    pub(super) fn taken(self, seen: State, now: u64) -> u64 {
        seen.used + self.weighed(seen.mark, self.rest(seen, now))
    }

    /// Until there is room for a cost beside which `left` units may be taken.
    pub(super) fn wait(self, seen: State, left: u64, now: u64) -> u64 {
        let end = self.end(seen, now);
        let (before, left, end) = match left.checked_sub(seen.used) {
            Some(left) => (seen.mark, left, end),
            // Not in this window, whose units are those before the next.
            None => (seen.used, left, end + self.ticks),
        };
        // The parts that may be left of the window for `before` to weigh no more than `left`.
        let product = u128::from(left) * u128::from(self.parts);
        let parts = product / u128::from(before.max(1));
        let rest = match u64::try_from(parts) {
            Ok(parts) if parts < self.parts => parts * self.part,
            _ => self.ticks,
        };
        end - rest - now
    }

    /// Until nothing counts any more.
    pub(super) fn reset(self, seen: State, now: u64) -> u64 {
        let end = self.end(seen, now);
        match (seen.used, seen.mark) {
            (0, 0) => 0,
            (0, _) => end - now,
            _ => end + self.ticks - now,
        }
    }

    /// Gives back to the window that was charged, if it still counts. What was used beyond is charged to this one.
    pub(super) fn settle(
        self,
        state: State,
        correction: Correction,
        charged: State,
        now: u64,
    ) -> State {
        let charged = charged.level;
        let mut seen = self.seen(state, now);
        if charged == seen.level {
            seen.used = seen.used.saturating_sub(correction.give_back);
        } else if charged.saturating_add(self.ticks) == seen.level {
            seen.mark = seen.mark.saturating_sub(correction.give_back);
        }
        seen.used = (seen.used + correction.add).min(MOST);
        seen
    }

    /// When this window began. It is ahead of now where the limit's window was longer before, or a clock went back:
    /// until then, all of both counters counts.
    fn start(self, state: State, now: u64) -> u64 {
        let level = state.level.next_multiple_of(self.ticks);
        (now - now % self.ticks).max(level.saturating_sub(2 * self.ticks))
    }

    fn end(self, seen: State, now: u64) -> u64 {
        self.start(seen, now) + self.ticks
    }

    /// What is left of the window: from one tick to all of it.
    fn rest(self, seen: State, now: u64) -> u64 {
        (self.end(seen, now) - now).min(self.ticks)
    }

    /// What `before` weighs with `rest` of the window left, rounded up.
    fn weighed(self, before: u64, rest: u64) -> u64 {
        let rest = rest.div_ceil(self.part).min(self.parts);
        let (high, low) = (before / self.parts, before % self.parts);
        high * rest + (low * rest).div_ceil(self.parts)
    }
}

/// Two years.
const LONGEST_WINDOW: u64 = 1 << 50;
/// The bits of the number of parts.
const PART_BITS: u32 = 26;

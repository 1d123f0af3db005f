//! A calendar quota: a plain count, which begins anew with each period that a caller names.
//!
//! Its state is the period's number, the units used in it, and when it is over for certain.

use std::time::Duration;

use super::{
    Correction, GRAIN, LATEST_GRAIN, LONGEST, MOST, State, lesser,
    time::{SECOND, window_ticks},
};

/// Which period it is by the caller's calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) number: u64,
    /// Until it is over, in ticks.
    pub(crate) ends_in: u64,
}

impl Period {
    pub(in crate::store) const fn of(number: u64, ends_in: Duration) -> Self {
        let ends_in = window_ticks(ends_in, LONGEST - REMEMBERED);
        Self { number: lesser(number, MOST), ends_in }
    }

    /// How long its count is kept.
    pub(crate) fn kept_for(self) -> u64 {
        self.ends_in + REMEMBERED
    }

    /// A later period than the record's begins at nothing; an earlier one, which a caller names whose clock is
    /// behind, is taken for the record's.
    pub(super) fn seen(self, state: State, now: u64) -> State {
        let until = now + self.kept_for();
        let until = (until - until % GRAIN + GRAIN).min(LATEST_GRAIN);
        if state.level <= now || state.mark < self.number {
            State { level: until, mark: self.number, used: 0 }
        } else if state.mark == self.number {
            State { level: state.level.max(until), ..state }
        } else {
            state
        }
    }
}

/// Counts within the period that was charged, and is nothing after it.
pub(super) fn settle(state: State, correction: Correction, charged: State, now: u64) -> State {
    let State { level: until, mark: period, .. } = charged;
    if state.level > now && state.mark >= period {
        if state.mark > period {
            return state;
        }
        let used = state.used.saturating_sub(correction.give_back) + correction.add;
        return State { used: used.min(MOST), ..state };
    }
    // Nothing was charged yet, or the store has lost it.
    if correction.add > 0 && until > now {
        return State {
            level: until.min(LATEST_GRAIN),
            mark: period.min(MOST),
            used: correction.add,
        };
    }
    state
}

/// How long the count of a period that is over is remembered, for callers whose clocks are behind: the
/// difference of clocks that Kerberos allows (RFC 4120, section 8.2).
const REMEMBERED: u64 = 300 * SECOND;

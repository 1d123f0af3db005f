//! A rate, by GCRA (ITU-T I.371).
//!
//! Its state is its theoretical arrival time: when all that was charged has drained. A charge of `n` units
//! moves it on by `n * window / quota`, rounded up, and fits when it then is no further ahead of now
//! than the burst's worth. To give back safely, only the part of a reservation that has not drained yet is
//! taken off, less what earlier refunds have moved it by already; anything more would let a window pass beyond its quota.

use std::time::Duration;

use super::{Correction, LATEST, LONGEST, State, lesser, time::window_ticks};

/// Shifts count modulo this: only differences are ever looked at.
pub(crate) const SHIFT_MODULUS: u64 = 1 << 52;

/// A rate, but for its quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// In ticks.
    pub(in crate::store) window: u64,
    pub(in crate::store) burst: u64,
    /// The burst in ticks.
    pub(in crate::store) room: u64,
    /// The ticks of a unit times `2^shift`, rounded down: 62 bits or more, so that a charge takes no division.
    ratio: u64,
    shift: u32,
    /// What one unit costs: most limits count requests.
    unit: u64,
}

impl Rate {
    pub(in crate::store) const fn of(quota: u64, window: Duration, burst: u64) -> Self {
        Self::of_ticks(quota, window_ticks(window, LONGEST), burst)
    }

    pub(in crate::store) const fn with_quota(self, quota: u64) -> Self {
        Self::of_ticks(quota, self.window, quota)
    }

    pub(in crate::store) const fn with_burst(self, quota: u64, burst: u64) -> Self {
        Self::of_ticks(quota, self.window, burst)
    }

    const fn of_ticks(quota: u64, window: u64, burst: u64) -> Self {
        let divisor = if quota == 0 { 1 } else { quota };
        let shift = shift(window, divisor);
        let ratio = ((window as u128) << shift) / divisor as u128;
        let rate = Self { window, burst, room: 0, ratio: ratio as u64, shift, unit: 0 };
        let rate = Self { unit: rate.steps_of(1, quota), ..rate };
        // Each of a burst's charges may be rounded up by a tick; room for that, which is always less than a unit, keeps
        // a quota of 7 from being used up by 6.
        let rounding = lesser(burst, (window / divisor).saturating_sub(1));
        let whole = if burst == quota { window } else { rate.steps(burst, quota) };
        Self { room: lesser(whole + rounding, LONGEST), ..rate }
    }

    /// What `units` of the quota cost in ticks, rounded up.
    #[inline]
    pub(super) const fn steps(&self, units: u64, quota: u64) -> u64 {
        if units == 1 { self.unit } else { self.steps_of(units, quota) }
    }

    const fn steps_of(&self, units: u64, quota: u64) -> u64 {
        let divisor = if quota == 0 { 1 } else { quota };
        // At most one less than the quotient, as long as that is below `LONGEST`.
        let floor = (units as u128 * self.ratio as u128) >> self.shift;
        if floor >= LONGEST as u128 {
            return LONGEST;
        }
        let floor = floor as u64;
        // Less than twice the divisor, which but for absurd ones is told by the lower halves of both products.
        let rest = units.wrapping_mul(self.window).wrapping_sub(floor.wrapping_mul(divisor));
        let (any, more) = if divisor <= u64::MAX / 2 {
            (rest > 0, rest > divisor)
        } else {
            let rest = units as u128 * self.window as u128 - floor as u128 * divisor as u128;
            (rest > 0, rest > divisor as u128)
        };
        lesser(floor + any as u64 + more as u64, LONGEST)
    }

    /// How many units of the quota so many ticks are worth.
    pub(super) fn units(&self, ticks: u64, quota: u64) -> u64 {
        match ticks.checked_mul(quota) {
            Some(product) => product / self.window,
            None => {
                let units = u128::from(ticks) * u128::from(quota) / u128::from(self.window);
                u64::try_from(units).unwrap_or(u64::MAX)
            }
        }
    }
}

/// As many bits as the divisor is longer than the window, and 63: then the ratio has 63 or 64.
const fn shift(window: u64, divisor: u64) -> u32 {
    63 + window.leading_zeros() - divisor.leading_zeros()
}

pub(super) fn settle(state: State, correction: Correction, reserved: State, now: u64) -> State {
    let State { level: tail, mark: shift_then, .. } = reserved;
    // Where the reservation's tail is now, after all that was given back before it.
    let moved = (state.mark + SHIFT_MODULUS).saturating_sub(shift_then) % SHIFT_MODULUS;
    let tail = tail.saturating_sub(moved);
    let undrained = tail.saturating_sub(now.max(tail.saturating_sub(correction.give_back)));
    let refund = undrained.min(state.level.saturating_sub(now));
    let mut level = state.level - refund;
    if correction.add > 0 {
        level = (level.max(now) + correction.add).min(LATEST);
    }
    State { level, mark: (state.mark + refund) % SHIFT_MODULUS, ..state }
}

/// All that has not drained is given back: what was reserved before gives back nothing more.
pub(crate) fn forget(state: State, now: u64) -> State {
    let undrained = state.level.saturating_sub(now);
    State { level: state.level.min(now), mark: (state.mark + undrained) % SHIFT_MODULUS, ..state }
}

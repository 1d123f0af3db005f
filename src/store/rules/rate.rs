//! A rate, by GCRA (ITU-T I.371).
//!
//! Its state is its theoretical arrival time: when all that was charged has drained. A charge of `n` units
//! moves it on by `n * window / quota`, rounded up, and fits when it then is no further ahead of now
//! than the burst's worth. To give back safely, only the part of a reservation that has not drained yet is
//! taken off, less what earlier refunds have moved it by already; anything more would let a window pass beyond its quota.

use std::time::Duration;

use super::{Correction, LATEST, LONGEST, Receipt, State, time::window_ticks};

/// Shifts count modulo this: only differences are ever looked at.
pub(crate) const SHIFT_MODULUS: u64 = 1 << 52;

pub(super) fn settle(state: State, correction: Correction, receipt: Receipt, now: u64) -> State {
    let Receipt([tail, shift_then]) = receipt;
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

/// What `units` cost in ticks, rounded up.
pub(super) fn steps(units: u64, quota: u64, window: Duration) -> u64 {
    let (window, quota) = (window_ticks(window, LONGEST), quota.max(1));
    match units.checked_mul(window) {
        Some(product) => product.div_ceil(quota).min(LONGEST),
        None => {
            let ticks = (u128::from(units) * u128::from(window)).div_ceil(u128::from(quota));
            u64::try_from(ticks).map_or(LONGEST, |ticks| ticks.min(LONGEST))
        }
    }
}

/// How many units so many ticks are worth.
pub(super) fn units(ticks: u64, quota: u64, window: Duration) -> u64 {
    let window = window_ticks(window, LONGEST);
    match ticks.checked_mul(quota) {
        Some(product) => product / window,
        None => {
            let units = u128::from(ticks) * u128::from(quota) / u128::from(window);
            u64::try_from(units).unwrap_or(u64::MAX)
        }
    }
}

/// The burst in ticks. Each of a burst's charges may be rounded up by a tick; room for that, which is always
/// less than a unit, keeps a quota of 7 from being used up by 6.
pub(super) fn room(quota: u64, window: Duration, burst: u64) -> u64 {
    let ticks = window_ticks(window, LONGEST);
    let rounding = burst.min((ticks / quota.max(1)).saturating_sub(1));
    let whole = if burst == quota { ticks } else { steps(burst, quota, window) };
    (whole + rounding).min(LONGEST)
}

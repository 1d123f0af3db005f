//! Time in ticks of 1/16 microsecond.

use std::time::Duration;

/// Ticks in a second.
pub(crate) const SECOND: u64 = 16_000_000;
/// The latest time there is: 17 years after the origin.
pub(crate) const LATEST: u64 = (1 << 53) - 1;

/// The ticks of a time, rounded down.
pub(crate) fn ticks(time: Duration) -> u64 {
    let below_a_second = u64::from(time.subsec_nanos()) * 2 / 125;
    time.as_secs().saturating_mul(SECOND).saturating_add(below_a_second).min(LATEST)
}

/// The time of so many ticks, rounded up.
pub(crate) fn duration(ticks: u64) -> Duration {
    Duration::from_secs(ticks / SECOND) + Duration::from_nanos(((ticks % SECOND) * 125).div_ceil(2))
}

/// The ticks of a window, rounded up: from one to `longest`.
pub(super) fn window_ticks(window: Duration, longest: u64) -> u64 {
    let below_a_second = (u64::from(window.subsec_nanos()) * 2).div_ceil(125);
    let ticks = window.as_secs().saturating_mul(SECOND).saturating_add(below_a_second);
    ticks.clamp(1, longest)
}

//! Time in ticks of 1/16 microsecond.

use std::time::Duration;

use super::lesser;

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
pub(crate) const fn duration(ticks: u64) -> Duration {
    Duration::new(ticks / SECOND, ((ticks % SECOND) * 125).div_ceil(2) as u32)
}

/// The ticks of a window, rounded up: from one to `longest`.
pub(super) const fn window_ticks(window: Duration, longest: u64) -> u64 {
    let below_a_second = (window.subsec_nanos() as u64 * 2).div_ceil(125);
    let ticks = window.as_secs().saturating_mul(SECOND).saturating_add(below_a_second);
    match ticks {
        0 => 1,
        _ => lesser(ticks, longest),
    }
}

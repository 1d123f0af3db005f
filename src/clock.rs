//! The time that every decision is made by, injected so that tests never sleep.

use std::{
    fmt::Debug,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Tells the time: [`SystemClock`], or in tests `ManualClock` (feature `test-util`).
pub trait Clock: Debug + Send + Sync + 'static {
    /// Time since the Unix epoch, as the machine believes it to be. May step, also backwards.
    /// Tokens and certificates are valid by it.
    fn unix(&self) -> Duration;

    /// Time since an origin that is fixed for the life of the process. Never goes back. Limits and
    /// caches count by it.
    fn monotonic(&self) -> Duration;

    /// The monotonic time, or an earlier one, by no more than [`coarseness`](Self::coarseness), where that takes less to
    /// tell. Default: the time itself.
    fn monotonic_coarse(&self) -> Duration {
        self.monotonic()
    }

    /// By how much [`monotonic_coarse`](Self::monotonic_coarse) may be behind, always the same. Default: by nothing.
    fn coarseness(&self) -> Duration {
        Duration::ZERO
    }
}

/// The machine's clock. Its coarse time (Linux with the feature `rate-limit`: `CLOCK_MONOTONIC_COARSE`, clock_gettime(2)) is
/// that of the kernel's last tick, and takes a fifth of the time to tell. It is taken to be at most two ticks behind: it may be
/// further where a hypervisor stops the processor that keeps the time, and not the one that asks.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix(&self) -> Duration {
        // A clock before 1970 reads as 1970: every token is then not yet valid, which fails closed.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn monotonic(&self) -> Duration {
        kernel::monotonic()
    }

    fn monotonic_coarse(&self) -> Duration {
        kernel::monotonic_coarse()
    }

    fn coarseness(&self) -> Duration {
        kernel::coarseness()
    }
}

#[cfg(all(target_os = "linux", feature = "rate-limit"))]
mod kernel {
    use std::time::Duration;

    use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

    #[inline]
    pub(super) fn monotonic() -> Duration {
        duration(clock_gettime(ClockId::Monotonic))
    }

    #[inline]
    pub(super) fn monotonic_coarse() -> Duration {
        duration(clock_gettime(ClockId::MonotonicCoarse))
    }

    /// Two ticks: the next may come a while after it is due.
    pub(super) fn coarseness() -> Duration {
        duration(clock_getres(ClockId::MonotonicCoarse)) * 2
    }

    #[inline]
    fn duration(Timespec { tv_sec, tv_nsec }: Timespec) -> Duration {
        // Since the machine was started, and so never before zero.
        Duration::new(tv_sec.unsigned_abs(), u32::try_from(tv_nsec).unwrap_or_default())
    }
}

#[cfg(not(all(target_os = "linux", feature = "rate-limit")))]
mod kernel {
    use std::{
        sync::OnceLock,
        time::{Duration, Instant},
    };

    pub(super) fn monotonic() -> Duration {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        ORIGIN.get_or_init(Instant::now).elapsed()
    }

    pub(super) fn monotonic_coarse() -> Duration {
        monotonic()
    }

    pub(super) fn coarseness() -> Duration {
        Duration::ZERO
    }
}

/// A clock that stands still until it is moved.
///
/// ```
/// use palisade::clock::{Clock, ManualClock};
/// use std::time::Duration;
///
/// let clock = ManualClock::at(Duration::from_secs(1_800_000_000));
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.unix().as_secs(), 1_800_000_060);
/// assert_eq!(clock.monotonic().as_secs(), 60);
/// ```
#[cfg(any(test, feature = "test-util"))]
#[derive(Debug, Default)]
pub struct ManualClock(std::sync::Mutex<(Duration, Duration)>);

#[cfg(any(test, feature = "test-util"))]
impl ManualClock {
    /// A clock at `unix` since the epoch, its monotonic time at zero.
    #[must_use]
    pub fn at(unix: Duration) -> Self {
        Self(std::sync::Mutex::new((unix, Duration::ZERO)))
    }

    /// Moves both times on.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now();
        now.0 += by;
        now.1 += by;
    }

    /// Sets the wall clock alone, as an administrator or NTP would.
    pub fn step_to(&self, unix: Duration) {
        self.now().0 = unix;
    }

    fn now(&self) -> std::sync::MutexGuard<'_, (Duration, Duration)> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Clock for ManualClock {
    fn unix(&self) -> Duration {
        self.now().0
    }

    fn monotonic(&self) -> Duration {
        self.now().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarse_time_is_never_ahead() {
        let clock = SystemClock;
        for _ in 0..100_000 {
            let (coarse, time) = (clock.monotonic_coarse(), clock.monotonic());
            assert!(coarse <= time, "{coarse:?} {time:?}");
        }
        assert!(clock.coarseness() <= Duration::from_millis(20), "a tick is at most 10 ms");
    }
}

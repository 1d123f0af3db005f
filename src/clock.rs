//! The time that every decision is made by, injected so that tests never sleep.

use std::{
    fmt::Debug,
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Tells the time: [`SystemClock`], or in tests `ManualClock` (feature `test-util`).
pub trait Clock: Debug + Send + Sync + 'static {
    /// Time since the Unix epoch, as the machine believes it to be. May step, also backwards.
    /// Tokens and certificates are valid by it.
    fn unix(&self) -> Duration;

    /// Time since an origin that is fixed for the life of the process. Never goes back. Limits and
    /// caches count by it.
    fn monotonic(&self) -> Duration;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix(&self) -> Duration {
        // A clock before 1970 reads as 1970: every token is then not yet valid, which fails closed.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn monotonic(&self) -> Duration {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        ORIGIN.get_or_init(Instant::now).elapsed()
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

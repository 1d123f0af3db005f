//! In what time a quota may be used.

use std::{fmt, time::Duration};

use super::Calendar;

/// In what time a quota may be used: any stretch of time of one length, or each period of a calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Window {
    /// Any stretch of time of this length.
    Rolling(Duration),
    /// Each period of a calendar.
    Calendar(Calendar),
}

impl From<Duration> for Window {
    fn from(window: Duration) -> Self {
        Self::Rolling(window)
    }
}

impl From<Calendar> for Window {
    fn from(calendar: Calendar) -> Self {
        Self::Calendar(calendar)
    }
}

/// As a sentence has it.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rolling(window) => write!(f, "{} s", window.as_secs()),
            Self::Calendar(calendar) => f.write_str(calendar.name()),
        }
    }
}

impl Window {
    pub(super) fn seconds(self) -> Option<u64> {
        match self {
            Self::Rolling(window) => Some(window.as_secs()),
            Self::Calendar(calendar) => calendar.seconds(),
        }
    }
}

//! Periods of a calendar, for quotas that begin anew at midnight or with the month.

use std::time::Duration;

/// Periods by the calendar of a time zone. For [`TierLimit`](super::TierLimit), in the place of a window.
///
/// ```
/// use palisade::rate_limit::{Calendar, Tier, TierLimit};
///
/// let free = Tier::new()
///     .limit(TierLimit::requests(1_000, Calendar::day()))
///     // By days in India.
///     .limit(TierLimit::tokens(100_000, Calendar::day().utc_offset_minutes(330)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calendar {
    kind: Kind,
    offset: i16,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Day,
    Month,
    By(fn(Duration) -> CalendarPeriod),
}

/// One period of a [`Calendar`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // Applications make them.
pub struct CalendarPeriod {
    /// A number that grows from each period to the next.
    pub number: u64,
    /// Until it ends.
    pub ends_in: Duration,
}

impl Calendar {
    /// From midnight to midnight, in UTC.
    #[must_use]
    pub const fn day() -> Self {
        Self { kind: Kind::Day, offset: 0 }
    }

    /// From the first of a month to the next, in UTC.
    #[must_use]
    pub const fn month() -> Self {
        Self { kind: Kind::Month, offset: 0 }
    }

    /// By a function of the time since the Unix epoch: for billing periods, and for zones with summer time.
    #[must_use]
    pub const fn by(period: fn(Duration) -> CalendarPeriod) -> Self {
        Self { kind: Kind::By(period), offset: 0 }
    }

    /// In a zone that is so many minutes ahead of UTC, all year. Default: 0.
    #[must_use]
    pub const fn utc_offset_minutes(self, minutes: i16) -> Self {
        Self { offset: minutes, ..self }
    }

    /// The period that it is at `unix`.
    pub(super) fn period(self, unix: Duration) -> CalendarPeriod {
        let offset = Duration::from_secs(60 * u64::from(self.offset.unsigned_abs()));
        let local =
            if self.offset < 0 { unix.saturating_sub(offset) } else { unix.saturating_add(offset) };
        let of_day = Duration::new(local.as_secs() % DAY, local.subsec_nanos());
        let left_of_day = Duration::from_secs(DAY).saturating_sub(of_day);
        let day = local.as_secs() / DAY;
        match self.kind {
            Kind::Day => CalendarPeriod { number: day, ends_in: left_of_day },
            Kind::Month => {
                let month_of = |day| {
                    let (year, month, _) = civil_date(day);
                    year * 12 + month
                };
                let month = month_of(day);
                let more_days =
                    (1..=31).find(|days| month_of(day + days) != month).unwrap_or(1) - 1;
                let ends_in = left_of_day + Duration::from_secs(more_days * DAY);
                CalendarPeriod { number: month, ends_in }
            }
            Kind::By(period) => period(local),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self.kind {
            Kind::Day => "calendar-day",
            Kind::Month => "calendar-month",
            Kind::By(_) => "calendar",
        }
    }

    /// Its length in seconds, where all are as long.
    pub(super) fn seconds(self) -> Option<u64> {
        matches!(self.kind, Kind::Day).then_some(DAY)
    }
}

/// Functions are compared by their addresses, which may tell equal ones apart: for tests.
impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Day, Self::Day) | (Self::Month, Self::Month) => true,
            (Self::By(a), Self::By(b)) => std::ptr::fn_addr_eq(*a, *b),
            _ => false,
        }
    }
}

impl Eq for Kind {}

/// The Gregorian date of a day since 1970-01-01: years are taken to begin in March, so that the
/// leap day is the last, and to repeat every 146,097 days.
pub(super) fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

const DAY: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_end_where_the_calendar_says() {
        let secs = Duration::from_secs;
        // 2024-02-28T23:59:59.5Z
        let unix = Duration::from_millis(1_709_164_799_500);
        let half = Duration::from_millis(500);
        let day = Calendar::day().period(unix);
        assert_eq!(day, CalendarPeriod { number: 19_781, ends_in: half });
        let month = Calendar::month().period(unix);
        assert_eq!(month, CalendarPeriod { number: 2024 * 12 + 2, ends_in: half + secs(DAY) });
        let india = Calendar::day().utc_offset_minutes(330);
        assert_eq!(india.period(unix).number, 19_782);
        assert_eq!(india.period(unix).ends_in, half + secs(DAY - 5 * 3600 - 1800));
        let march = unix + secs(DAY + 1);
        let west = Calendar::month().utc_offset_minutes(-600).period(march);
        assert_eq!(west.number, 2024 * 12 + 2);
        assert_eq!(Calendar::month().period(march).number, 2024 * 12 + 3);
        let december = Calendar::month().period(secs(1_735_689_599));
        assert_eq!(december, CalendarPeriod { number: 2024 * 12 + 12, ends_in: secs(1) });
        assert_eq!(Calendar::month().period(secs(1_735_689_600)).number, 2025 * 12 + 1);
        fn hour(unix: Duration) -> CalendarPeriod {
            CalendarPeriod { number: unix.as_secs() / 3600, ends_in: Duration::from_secs(1) }
        }
        assert_eq!(Calendar::by(hour).period(unix).number, 474_767);
    }
}

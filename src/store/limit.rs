//! Limits: what a store counts, and how.

use std::time::Duration;

use super::{
    Key,
    rules::{Kind, Period, Rate, Window},
};

/// Names one limit within a record, the same in every process and after every reload: what a record has used of
/// it is kept when its rate, quota or window changes, but not when it counts by another rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LimitId(u32);

impl LimitId {
    /// The id of the limit of this name: FNV-1a, which a configuration checks for collisions.
    #[must_use]
    pub const fn of(name: &str) -> Self {
        let bytes = name.as_bytes();
        let mut hash = 0x811c_9dc5_u32;
        let mut at = 0;
        while at < bytes.len() {
            #[allow(clippy::indexing_slicing)]
            let byte = bytes[at];
            hash = (hash ^ byte as u32).wrapping_mul(0x0100_0193);
            at += 1;
        }
        Self(hash)
    }

    /// The id as a number, for a store to write down.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// One limit on one record, readied so that to charge it takes no division: to be made once, not for each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub(super) id: LimitId,
    pub(super) outage: Outage,
    /// Units of a window or of a period, or those that are held at a time.
    pub(super) quota: u64,
    pub(super) kind: Kind,
    /// Of all of it: limits of the same digest are taken to be the same where that is asked a million times a second.
    pub(super) digest: u64,
}

/// What becomes of a limit while its store is out of reach, in a [`BreakerStore`](super::BreakerStore).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Outage {
    /// Whatever it counts is refused, with 503.
    #[default]
    Refuse,
    /// Each process keeps its share of it.
    LocalShare,
    /// It is not kept.
    InsecureAdmit,
}

impl Limit {
    /// `quota` units in each `window`, all of which may come at once: see [`Rule::Rate`].
    #[must_use]
    pub const fn rate(id: LimitId, quota: u64, window: Duration) -> Self {
        Self::by(id, quota, Kind::Rate(Rate::of(quota, window, quota)))
    }

    /// At most `max` at a time: see [`Rule::Slots`]. In a shared store, the slots of a process that died are free again
    /// within seconds.
    #[must_use]
    pub const fn slots(id: LimitId, max: u64) -> Self {
        Self::by(id, max, Kind::Slots)
    }

    /// With what becomes of it while the store is out of reach. Default: [`Outage::Refuse`].
    #[must_use]
    pub const fn on_outage(mut self, outage: Outage) -> Self {
        self.outage = outage;
        self.digested()
    }

    /// `quota` units in each period of a calendar, which is now in `period` and leaves it in `ends_in`: see
    /// [`Rule::Calendar`].
    ///
    /// ```
    /// use palisade::store::{Limit, LimitId};
    /// use std::time::Duration;
    ///
    /// // A thousand a day, by days in UTC.
    /// let unix = Duration::from_secs(1_800_000_000);
    /// let (day, gone) = (unix.as_secs() / 86_400, unix.as_secs() % 86_400);
    /// let left = Duration::from_secs(86_400 - gone);
    /// let limit = Limit::calendar(LimitId::of("requests-per-day"), 1000, day, left);
    /// assert_eq!(limit.capacity(), 1000);
    /// ```
    #[must_use]
    pub const fn calendar(id: LimitId, quota: u64, period: u64, ends_in: Duration) -> Self {
        Self::by(id, quota, Kind::Calendar(Period::of(period, ends_in)))
    }

    /// `quota` units in a `window` that slides: see [`Rule::Sliding`].
    #[must_use]
    pub const fn sliding(id: LimitId, quota: u64, window: Duration) -> Self {
        Self::by(id, quota, Kind::Sliding(Window::of(window)))
    }

    const fn by(id: LimitId, quota: u64, kind: Kind) -> Self {
        Self { id, outage: Outage::Refuse, quota, kind, digest: 0 }.digested()
    }

    const fn digested(mut self) -> Self {
        let head = self.id.0 as u64 | (self.outage as u64) << 32 | (self.kind.code() as u64) << 40;
        let [one, other] = match self.kind {
            // The rest follows from these and the quota.
            Kind::Rate(rate) => [rate.window, rate.burst],
            Kind::Slots => [0, 0],
            Kind::Calendar(period) => [period.number, period.ends_in],
            Kind::Sliding(window) => [window.ticks, 0],
        };
        self.digest = mixed(mixed(mixed(head, self.quota), one), other);
        self
    }

    /// With a burst other than the quota: how many units of a rate may come at once. The other rules have none.
    #[must_use]
    pub const fn with_burst(mut self, units: u64) -> Self {
        if let Kind::Rate(rate) = self.kind {
            self.kind = Kind::Rate(rate.with_burst(self.quota, units));
        }
        self.digested()
    }

    /// With another quota, counted by the same rule. Of a rate, it is the burst, too.
    #[must_use]
    pub const fn with_quota(mut self, quota: u64) -> Self {
        self.quota = quota;
        if let Kind::Rate(rate) = self.kind {
            self.kind = Kind::Rate(rate.with_quota(quota));
        }
        self.digested()
    }

    /// The same limit in another period of its calendar. The other rules have none.
    #[must_use]
    pub const fn in_period(mut self, period: u64, ends_in: Duration) -> Self {
        if let Kind::Calendar(_) = self.kind {
            self.kind = Kind::Calendar(Period::of(period, ends_in));
        }
        self.digested()
    }

    /// Which limit of its record this is.
    #[must_use]
    pub const fn id(&self) -> LimitId {
        self.id
    }

    /// What becomes of it while the store is out of reach, if that is a [`BreakerStore`](super::BreakerStore).
    #[must_use]
    pub const fn outage(&self) -> Outage {
        self.outage
    }

    pub(crate) fn is_slots(&self) -> bool {
        self.kind == Kind::Slots
    }

    /// How it counts. Windows are rounded up to 62.5 nanoseconds, those that slide to 64 microseconds.
    #[must_use]
    pub const fn rule(&self) -> Rule {
        self.kind.rule(self.quota)
    }

    /// The most that can ever be admitted at once.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.kind.capacity(self.quota)
    }
}

/// How a limit counts.
///
/// What is used beyond a reservation is always charged, and is debt where it does not fit. The bounds are on what was
/// reserved and on what of it was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// `quota` units in each `window`, of which `burst` may come at once, by GCRA (ITU-T I.371). What was used drains
    /// steadily, and a debt with it.
    ///
    /// Bound: in any stretch of time `d` at most `burst + quota * d / window` units. The rule to choose unless another
    /// is asked for: what is used up comes back unit by unit, and nobody waits for a border.
    Rate {
        /// Units that drain in a window.
        quota: u64,
        /// The window.
        window: Duration,
        /// Units that may come at once.
        burst: u64,
    },
    /// `max` at a time, each held until it is settled.
    Slots {
        /// How many.
        max: u64,
    },
    /// `quota` units in each period of a calendar, such as a day in the customer's time zone: a plain count, which
    /// begins anew at the border. The store knows no calendar; the caller says which period it is.
    ///
    /// Bound: at most `quota` units in a period, so up to twice as many around a border. To choose where a contract or
    /// a bill counts by the calendar, and where everybody should know when there is more.
    ///
    /// The period of a record never goes back: a caller who names an earlier one, because its clock is behind, is charged in
    /// the record's, and is told when its own ends. After its end a period is remembered for 5 minutes: processes whose
    /// clocks differ by less share one quota. What is given back, or used beyond what was charged, counts within the
    /// period that was charged and is forgotten with it.
    Calendar {
        /// Units in a period. More than 2^41 - 1 count as that.
        quota: u64,
        /// The number of the period that it is: one that grows from each period to the next, such as a day's number
        /// since 1970. Numbers beyond 2^41 - 1 are one period.
        period: u64,
        /// Until the period ends.
        ends_in: Duration,
    },
    /// `quota` units in a `window` that slides, by two counters: windows stand end to end by the store's clock (in
    /// Redis since 2024-01-01 UTC, so that a minute is a clock's), and of what was used in the one before, as much counts as
    /// the last `window` still reaches into, were it spread evenly.
    ///
    /// Bound: in any stretch of time `d` at most `quota * (1 + d / window)` units, and in each of the store's windows at
    /// most `quota`. To choose where another limiter must be matched that counts by such windows, as many gateways and
    /// vendors do: what was used up comes back from the next window on, not at once as with a rate of the same bound.
    ///
    /// What is given back is taken off the window that was charged, as long as it counts. What was used beyond is charged when that is
    /// told, and counts until the end of the next window.
    Sliding {
        /// Units in a window. More than 2^41 - 1 count as that.
        quota: u64,
        /// The window, rounded up to 64 microseconds. At most two years.
        window: Duration,
    },
}

/// A cost to be charged to one limit of one record. Charges on the same record stand side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Charge {
    /// Whose limit.
    pub record: Key,
    /// Which limit.
    pub limit: Limit,
    /// How many units. Zero means: refuse if in debt.
    pub cost: u64,
}

impl Charge {
    /// `cost` units of `limit`, on `record`.
    #[must_use]
    pub const fn new(record: Key, limit: Limit, cost: u64) -> Self {
        Self { record, limit, cost }
    }
}

/// Adds a word to a digest, so that each bit of both counts: a multiplication, by the golden ratio, and its upper half.
const fn mixed(digest: u64, word: u64) -> u64 {
    let mixed = (digest ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}

/// Stands where there is no charge yet.
pub(crate) const NO_CHARGE: Charge =
    Charge::new(Key::from_bytes([0; 16]), Limit::slots(LimitId(0), 0), 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_differ_have_other_digests() {
        let (id, other) = (LimitId::of("requests"), LimitId::of("tokens"));
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let rate = Limit::rate(id, 10, minute);
        let all = [
            rate,
            Limit::rate(other, 10, minute),
            Limit::rate(id, 60, minute),
            Limit::rate(id, 10, second),
            rate.with_burst(60),
            rate.on_outage(Outage::LocalShare),
            rate.on_outage(Outage::InsecureAdmit),
            Limit::slots(id, 10),
            Limit::slots(id, 60),
            Limit::sliding(id, 10, minute),
            Limit::sliding(id, 10, second),
            Limit::calendar(id, 10, 1, minute),
            Limit::calendar(id, 10, 2, minute),
            Limit::calendar(id, 10, 1, second),
        ];
        for (at, one) in all.iter().enumerate() {
            for (other_at, other) in all.iter().enumerate() {
                assert_eq!(one == other, at == other_at);
                assert_eq!(one.digest == other.digest, at == other_at, "{one:?}, {other:?}");
            }
        }
        // However one came to be the same.
        assert_eq!(all[2].digest, rate.with_quota(60).digest);
        assert_eq!(rate.digest, rate.with_burst(60).with_burst(10).digest);
        assert_eq!(all[12].digest, all[13].in_period(2, minute).digest);
    }
}

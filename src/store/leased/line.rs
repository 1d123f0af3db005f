//! What a lease is worth: a stretch of its limit's line of time, kept as a leaky bucket of its own.

use crate::store::{
    Limit,
    rules::{Kind, Rate},
};

/// The part of a limit's line that a lease was charged for.
///
/// Exact: a place on the line is a tick times the quota, and a unit takes a window's ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    quota: u64,
    window: u64,
    /// Units that the inner store charged.
    units: u64,
    /// Units that admissions hold or have used.
    used: u64,
    /// Where all that was taken has drained.
    level: u128,
    /// By how much the level was moved back so far.
    shift: u128,
    end: u128,
}

/// Where a taking stood, to give it back safely.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    level: u128,
    shift: u128,
}

impl Line {
    /// `units` of `limit` that the inner store was asked for at the tick `since`. `None`: it can't be leased.
    pub(super) fn new(limit: &Limit, units: u64, since: u64) -> Option<Self> {
        let (quota, window) = rate(limit)?;
        let level = u128::from(since) * u128::from(quota);
        let end = level + u128::from(units) * u128::from(window);
        Some(Self { quota, window, units, used: 0, level, shift: 0, end })
    }

    /// Units that may still be taken.
    pub(super) fn left(&self, now: u64) -> u64 {
        self.units_in(self.end.saturating_sub(self.level.max(self.at(now))))
    }

    /// Takes `cost` units. `None`, and nothing taken, when they are not there; no units are when none is.
    pub(super) fn take(&mut self, cost: u64, now: u64) -> Option<Tail> {
        if self.left(now) < cost.max(1) {
            return None;
        }
        self.charge(cost, now);
        Some(Tail { level: self.level, shift: self.shift })
    }

    /// Takes `cost` units, there or not.
    pub(super) fn charge(&mut self, cost: u64, now: u64) {
        self.level = self.level.max(self.at(now)) + u128::from(cost) * u128::from(self.window);
        self.used = self.used.saturating_add(cost);
    }

    /// Gives `unused` units of a taking back: what of them has not drained may be taken again. As `rules::settle`.
    pub(super) fn give_back(&mut self, unused: u64, tail: Tail, now: u64) {
        self.used = self.used.saturating_sub(unused);
        let now = self.at(now);
        let tail = tail.level.saturating_sub(self.shift - tail.shift);
        let begin = tail.saturating_sub(u128::from(unused) * u128::from(self.window));
        let undrained = tail.saturating_sub(begin.max(now));
        let refund = undrained.min(self.level.saturating_sub(now));
        self.level -= refund;
        self.shift += refund;
    }

    /// Whether more was used than was charged for.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.level > self.end
    }

    /// Units to settle the inner store's charge to.
    pub(super) fn due(&self, now: u64) -> u64 {
        if self.is_overdrawn() {
            let beyond = (self.level - self.end).div_ceil(u128::from(self.window));
            return self.units.saturating_add(u64::try_from(beyond).unwrap_or(u64::MAX));
        }
        let unused = self.units.saturating_sub(self.used);
        if self.level <= self.at(now) {
            // All that was used has drained: whatever else has not, nobody needs.
            return self.units - unused;
        }
        self.units - unused.min(self.units_in(self.end - self.level))
    }

    /// Units that a settlement now would give back.
    pub(super) fn unused(&self, now: u64) -> u64 {
        self.units.saturating_sub(self.due(now))
    }

    fn at(&self, tick: u64) -> u128 {
        u128::from(tick) * u128::from(self.quota)
    }

    fn units_in(&self, stretch: u128) -> u64 {
        u64::try_from(stretch / u128::from(self.window)).unwrap_or(u64::MAX)
    }
}

/// Units of `limit` that drain in so many ticks. `None`: it can't be leased.
pub(super) fn drained(limit: &Limit, ticks: u64) -> Option<u64> {
    let (quota, window) = rate(limit)?;
    u64::try_from(u128::from(ticks) * u128::from(quota) / u128::from(window)).ok()
}

/// How long so many units of `limit` take to drain, in ticks. `None`: it can't be leased.
pub(super) fn ticks(limit: &Limit, units: u64) -> Option<u64> {
    let (quota, window) = rate(limit)?;
    u64::try_from(u128::from(units) * u128::from(window) / u128::from(quota)).ok()
}

/// The quota, and the ticks of its window. `None` for what is no rate, or one beyond all measure, which
/// the inner store may count otherwise.
fn rate(limit: &Limit) -> Option<(u64, u64)> {
    let Kind::Rate(Rate { window, room, .. }) = limit.kind else { return None };
    (limit.quota > 0 && window.max(room) < 1 << 50).then_some((limit.quota, window))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::store::LimitId;

    const UNITS: u64 = 20;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        /// At no time is more under way of what was really used than is left of the stretch, nor would be if
        /// the unused were given back to the inner store.
        #[test]
        fn a_lease_is_a_leaky_bucket_on_its_stretch(
            steps in prop::collection::vec((0_u64..8, 0_u64..12, 0_u64..12, 0_u64..30), 1..40),
        ) {
            // A unit drains in four ticks.
            let limit = Limit::rate(LimitId::of("rate"), crate::store::rules::SECOND / 4, Duration::from_secs(1));
            let mut line = Line::new(&limit, UNITS, 0).unwrap();
            let (mut now, mut under_way) = (0, 0);
            let mut open: Vec<(u64, u64, u64, Tail)> = Vec::new();
            for (pause, cost, used, takes) in steps {
                let used = used.min(cost);
                now += pause;
                under_way = u64::saturating_sub(under_way, pause);
                while let Some(at) = open.iter().position(|(end, ..)| *end <= now) {
                    let (_, cost, used, tail) = open.remove(at);
                    line.give_back(cost - used, tail, now);
                }
                if let Some(tail) = line.take(cost, now) {
                    open.push((now + takes, cost, used, tail));
                    under_way += 4 * used;
                }
                let end = 4 * UNITS;
                prop_assert!(under_way <= end.saturating_sub(now));
                prop_assert!(under_way <= (4 * line.due(now)).saturating_sub(now));
            }
        }
    }

    #[test]
    fn a_limit_that_is_no_rate_or_beyond_measure_is_not_leased() {
        let id = LimitId::of("limit");
        let (second, never) = (Duration::from_secs(1), Duration::MAX);
        for limit in [
            Limit::slots(id, 5),
            Limit::rate(id, 0, second),
            Limit::rate(id, 1, never),
            Limit::rate(id, 1, second).with_burst(u64::MAX),
        ] {
            assert!(Line::new(&limit, 1, 0).is_none(), "{limit:?}");
            assert_eq!(drained(&limit, 1), None);
        }
        let odd = Line::new(&Limit::rate(id, 7, second), 7, 5).unwrap();
        assert_eq!((odd.left(5), odd.left(6)), (7, 6));
    }
}

//! What is known of a limit.

use super::{block::Place, line};
use crate::store::{Limit, Standing, rules};

/// What is known of a limit.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) limit: Limit,
    pub(super) touched: u64,
    pub(super) lease: Option<Place>,
    pub(super) flight: Option<u64>,
    pub(super) hold: Option<Hold>,
    /// Where the inner store said that it stands, and when.
    pub(super) standing: Option<(Standing, u64)>,
    pub(super) demand: Demand,
    pub(super) refunds: Refunds,
}

/// A refusal that is remembered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    pub(super) cost: u64,
    pub(super) until: u64,
    pub(super) retry_at: u64,
}

/// Admissions and units asked for in this stretch of time ahead, and in the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demand {
    stretch: u64,
    now: (u64, u64),
    before: (u64, u64),
}

/// Of the units that were settled lately, how many were given back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refunds {
    settlements: u8,
    settled: u64,
    given_back: u64,
}

impl Entry {
    pub(super) fn new(limit: Limit) -> Self {
        Self {
            limit,
            touched: 0,
            lease: None,
            flight: None,
            hold: None,
            standing: None,
            demand: Demand::default(),
            refunds: Refunds::default(),
        }
    }

    /// Where the inner store would say that it stands, if nobody else had charged it since.
    pub(super) fn standing_now(&self, now: u64) -> Option<Standing> {
        let (standing, at) = self.standing?;
        let passed = now.saturating_sub(at);
        let drained = line::drained(&self.limit, passed).unwrap_or(0);
        let remaining = standing.remaining.saturating_add(drained);
        let remaining = remaining.min(self.limit.capacity().max(standing.remaining));
        Some(Standing::new(remaining, standing.reset.saturating_sub(rules::duration(passed))))
    }
}

impl Demand {
    pub(super) fn add(&mut self, units: u64, stretch: u64) {
        if stretch != self.stretch {
            let is_next = stretch == self.stretch + 1;
            self.before = if is_next { self.now } else { (0, 0) };
            (self.now, self.stretch) = ((0, 0), stretch);
        }
        self.now = (self.now.0 + 1, self.now.1.saturating_add(units));
    }

    /// Admissions and units, of the busier of both.
    pub(super) fn most(&self) -> (u64, u64) {
        (self.now.0.max(self.before.0), self.now.1.max(self.before.1))
    }
}

impl Refunds {
    pub(super) fn add(&mut self, cost: u64, used: u64) {
        if self.settlements >= 64 {
            (self.settlements, self.settled, self.given_back) =
                (32, self.settled / 2, self.given_back / 2);
        }
        self.settlements += 1;
        self.settled = self.settled.saturating_add(cost);
        self.given_back = self.given_back.saturating_add(cost.saturating_sub(used));
    }

    /// How many of so many units are to be expected back.
    pub(super) fn expected(&self, units: u64) -> u64 {
        let expected = u128::from(units) * u128::from(self.given_back);
        u64::try_from(expected / u128::from(self.settled.max(1))).unwrap_or(u64::MAX)
    }
}

//! The decision itself: GCRA and slots, as plain functions on plain data.
//!
//! Integers only. Time counts in ticks of 1/16 microsecond, and every number stays below 2^53, so
//! that a Lua script, whose numbers are doubles, decides exactly alike. All multiplying and dividing
//! happens here; a script only adds and compares.
//!
//! A rate's state is its theoretical arrival time: when all that was charged has drained. A charge of `n` units
//! moves it on by `n * window / quota`, rounded up, and fits when it then is no further ahead of now
//! than the burst's worth. To give back safely, only the part of a reservation that has not drained yet is
//! taken off, less what earlier refunds have moved it by already; anything more would let a window pass beyond its quota.

use std::time::Duration;

use super::{
    Admission, Charge, Decision, Grant, Inline, Receipt, Refusal, Rule, Standing, StoreError,
};

/// Ticks in a second.
pub(crate) const SECOND: u64 = 16_000_000;
/// The latest time there is: 17 years after the origin.
pub(crate) const LATEST: u64 = (1 << 53) - 1;
/// The longest step and the greatest burst: beyond, they count as this.
const LONGEST: u64 = 1 << 52;
/// Shifts count modulo this: only differences are ever looked at.
pub(crate) const SHIFT_MODULUS: u64 = 1 << 52;

/// Where a limit stands. The default is an idle one, which equals an absent one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Of a rate: the tick at which all of it has drained. Of slots: how many are held.
    pub(crate) level: u64,
    /// Of a rate: by how much refunds have moved it so far.
    pub(crate) shift: u64,
}

/// What a charge asks of its limit: ticks of a rate, or units of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) slots: bool,
    /// The cost is beyond the capacity.
    pub(crate) never: bool,
    pub(crate) step: u64,
    pub(crate) room: u64,
}

/// What a settlement changes: ticks of a rate, or units of slots. At most one is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Correction {
    pub(crate) slots: bool,
    pub(crate) give_back: u64,
    pub(crate) add: u64,
}

impl Ask {
    pub(crate) fn of(charge: &Charge) -> Self {
        let never = charge.cost > capacity(charge.limit.rule);
        match charge.limit.rule {
            Rule::Rate { quota, window, burst } => Self {
                slots: false,
                never,
                step: steps(charge.cost, quota, window),
                room: room(quota, window, burst),
            },
            Rule::Slots { max } => {
                Self { slots: true, never, step: charge.cost.min(LONGEST), room: max.min(LONGEST) }
            }
        }
    }

    fn fits(&self, state: State, now: u64) -> bool {
        !self.never && self.start(state, now) + self.step <= self.floor(now) + self.room
    }

    fn granted(&self, state: State, now: u64) -> State {
        let level = (self.start(state, now) + self.step).min(LATEST);
        State { level, ..state }
    }

    /// Ticks or units by which it does not fit.
    fn lacks(&self, state: State, now: u64) -> u64 {
        (self.start(state, now) + self.step).saturating_sub(self.floor(now) + self.room)
    }

    fn start(&self, state: State, now: u64) -> u64 {
        state.level.max(self.floor(now))
    }

    fn floor(&self, now: u64) -> u64 {
        if self.slots { 0 } else { now }
    }
}

impl Correction {
    /// From what was charged to what was really used.
    pub(crate) fn of(charge: &Charge, used: u64) -> Self {
        let cost = charge.cost;
        match charge.limit.rule {
            Rule::Rate { quota, window, .. } => Self {
                slots: false,
                give_back: steps(cost, quota, window).saturating_sub(steps(used, quota, window)),
                add: steps(used.saturating_sub(cost), quota, window),
            },
            Rule::Slots { .. } => Self { slots: true, give_back: cost.min(LONGEST), add: 0 },
        }
    }

    pub(crate) fn changes_nothing(self) -> bool {
        self.give_back == 0 && self.add == 0
    }
}

/// Whether an admission can be decided at all.
pub(crate) fn check(admission: &Admission<'_>) -> Result<(), StoreError> {
    let charges = admission.charges;
    if charges.len() > super::MAX_CHARGES {
        return Err(StoreError::permanent("an admission names too many limits"));
    }
    let twice = |(at, charge): (usize, &Charge)| {
        charges
            .iter()
            .skip(at + 1)
            .any(|other| other.limit.id == charge.limit.id && other.record == charge.record)
    };
    if charges.iter().enumerate().any(twice) {
        return Err(StoreError::permanent("an admission names a limit twice"));
    }
    Ok(())
}

/// Charges all of `states`, which stand in the order of `charges`, or none.
pub(crate) fn decide(charges: &[Charge], states: &mut [State], now: u64) -> Decision {
    let now = now.min(LATEST);
    let mut asks = Inline::new(Ask { slots: false, never: true, step: 0, room: 0 });
    let mut fits = true;
    for (charge, state) in charges.iter().zip(&*states) {
        let ask = Ask::of(charge);
        fits = fits && ask.fits(*state, now) && asks.push(ask);
    }
    if fits {
        for (ask, state) in asks.as_slice().iter().zip(&mut *states) {
            *state = ask.granted(*state, now);
        }
    }
    decision(fits, charges, states, now)
}

/// The decision that left `states` so.
pub(crate) fn decision(admitted: bool, charges: &[Charge], states: &[State], now: u64) -> Decision {
    if !admitted {
        return Decision::Refused(refusal(charges, states, now));
    }
    let mut receipts = Inline::default();
    for state in states {
        receipts.push(Receipt([state.level, state.shift]));
    }
    Decision::Admitted(Grant::new(standings(charges, states, now), receipts))
}

/// Where each limit stands.
pub(crate) fn standings(charges: &[Charge], states: &[State], now: u64) -> Inline<Standing> {
    let mut standings = Inline::default();
    for (charge, state) in charges.iter().zip(states) {
        standings.push(standing(charge, *state, now));
    }
    standings
}

/// The state after a settlement.
pub(crate) fn settle(state: State, correction: Correction, receipt: Receipt, now: u64) -> State {
    if correction.slots {
        return State { level: state.level.saturating_sub(correction.give_back), ..state };
    }
    let Receipt([tail, shift_then]) = receipt;
    // Where the reservation's tail is now, after all that was given back before it.
    let moved = (state.shift + SHIFT_MODULUS).saturating_sub(shift_then) % SHIFT_MODULUS;
    let tail = tail.saturating_sub(moved);
    let undrained = tail.saturating_sub(now.max(tail.saturating_sub(correction.give_back)));
    let refund = undrained.min(state.level.saturating_sub(now));
    let mut level = state.level - refund;
    if correction.add > 0 {
        level = (level.max(now) + correction.add).min(LATEST);
    }
    State { level, shift: (state.shift + refund) % SHIFT_MODULUS }
}

/// The ticks of a time, rounded down.
pub(crate) fn ticks(time: Duration) -> u64 {
    let below_a_second = u64::from(time.subsec_nanos()) * 2 / 125;
    time.as_secs().saturating_mul(SECOND).saturating_add(below_a_second).min(LATEST)
}

/// The time of so many ticks, rounded up.
pub(crate) fn duration(ticks: u64) -> Duration {
    Duration::from_secs(ticks / SECOND) + Duration::from_nanos(((ticks % SECOND) * 125).div_ceil(2))
}

fn refusal(charges: &[Charge], states: &[State], now: u64) -> Refusal {
    let mut worst = (0_u8, 0_u64, 0_usize);
    for (index, (charge, state)) in charges.iter().zip(states).enumerate() {
        let ask = Ask::of(charge);
        if ask.fits(*state, now) {
            continue;
        }
        // What never fits counts most; a wait that is known counts more than one that is not.
        let rank = if ask.never {
            3
        } else if ask.slots {
            1
        } else {
            2
        };
        let lacks = ask.lacks(*state, now);
        if (rank, lacks) > (worst.0, worst.1) {
            worst = (rank, lacks, index);
        }
    }
    let retry_after = (worst.0 == 2).then(|| duration(worst.1));
    Refusal::new(worst.2, retry_after, standings(charges, states, now))
}

fn standing(charge: &Charge, state: State, now: u64) -> Standing {
    match charge.limit.rule {
        Rule::Slots { max } => Standing::new(max.saturating_sub(state.level), Duration::ZERO),
        Rule::Rate { quota, window, burst } => {
            let level = state.level.max(now);
            let left = (now + room(quota, window, burst)).saturating_sub(level);
            let most = capacity(charge.limit.rule);
            let remaining = units(left, quota, window).min(most);
            Standing::new(remaining, duration(level - now))
        }
    }
}

fn capacity(rule: Rule) -> u64 {
    match rule {
        Rule::Rate { quota: 0, .. } => 0,
        Rule::Rate { burst, .. } => burst,
        Rule::Slots { max } => max,
    }
}

/// What `units` cost in ticks, rounded up.
fn steps(units: u64, quota: u64, window: Duration) -> u64 {
    let (window, quota) = (window_ticks(window), quota.max(1));
    match units.checked_mul(window) {
        Some(product) => product.div_ceil(quota).min(LONGEST),
        None => {
            let ticks = (u128::from(units) * u128::from(window)).div_ceil(u128::from(quota));
            u64::try_from(ticks).map_or(LONGEST, |ticks| ticks.min(LONGEST))
        }
    }
}

/// How many units so many ticks are worth.
fn units(ticks: u64, quota: u64, window: Duration) -> u64 {
    let window = window_ticks(window);
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
fn room(quota: u64, window: Duration, burst: u64) -> u64 {
    let unit = window_ticks(window) / quota.max(1);
    let rounding = burst.min(unit.saturating_sub(1));
    (steps(burst, quota, window) + rounding).min(LONGEST)
}

fn window_ticks(window: Duration) -> u64 {
    let below_a_second = (u64::from(window.subsec_nanos()) * 2).div_ceil(125);
    let ticks = window.as_secs().saturating_mul(SECOND).saturating_add(below_a_second);
    ticks.clamp(1, LONGEST)
}

#[cfg(test)]
mod tests;

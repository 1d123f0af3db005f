//! The decision itself: how each [`Rule`] counts, as plain functions on plain data.
//!
//! Integers only. Time counts in ticks of 1/16 microsecond, and every number stays below 2^53, so
//! that a Lua script, whose numbers are doubles, decides exactly alike. Multiplying and dividing
//! happens here; a script adds and compares, but for a sliding window: see [`sliding`].
//!
//! A limit sees its state as it is now ([`Kind::seen`]), which tells how much is taken ([`Kind::taken`]); a charge
//! fits when that and its own step are within the room. A state whose time is over is seen as an absent one.

mod calendar;
mod rate;
mod sliding;
mod time;

#[cfg(test)]
pub(crate) use self::time::SECOND;
pub(crate) use self::{
    calendar::Period,
    rate::forget as forget_rate,
    sliding::Window,
    time::{LATEST, duration, ticks},
};
use super::{
    Admission, Charge, Decision, Grant, Inline, Receipt, Refusal, Rule, Standing, StoreError,
};

/// Where a limit stands. The default is an idle one, which equals an absent one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Of slots: how many are held. Of all others: the tick from which on it equals an absent one, which of a rate
    /// is when all of it has drained.
    pub(crate) level: u64,
    /// Of a rate: by how much refunds have moved it so far. Of a calendar: the period's number. Of a sliding
    /// window: the units of the window before.
    pub(crate) mark: u64,
    /// Of a calendar and of a sliding window: the units of this period or window.
    pub(crate) used: u64,
}

/// How a limit counts, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rate,
    Slots,
    Calendar(Period),
    Sliding(Window),
}

/// What a charge asks of its limit: ticks of a rate, units of all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) kind: Kind,
    /// The cost is beyond the capacity.
    pub(crate) never: bool,
    pub(crate) step: u64,
    pub(crate) room: u64,
}

/// What a settlement changes: ticks of a rate, units of all others. At most one is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Correction {
    pub(crate) kind: Kind,
    pub(crate) give_back: u64,
    pub(crate) add: u64,
}

impl Kind {
    pub(crate) fn of(rule: Rule) -> Self {
        match rule {
            Rule::Rate { .. } => Self::Rate,
            Rule::Slots { .. } => Self::Slots,
            Rule::Calendar { period, ends_in, .. } => Self::Calendar(Period::of(period, ends_in)),
            Rule::Sliding { window, .. } => Self::Sliding(Window::of(window)),
        }
    }

    /// The state as it is now: what no longer counts is gone from it.
    fn seen(self, state: State, now: u64) -> State {
        match self {
            Self::Rate => State { level: state.level.max(now), ..state },
            Self::Slots => state,
            Self::Calendar(period) => period.seen(state, now),
            Self::Sliding(window) => window.seen(state, now),
        }
    }

    /// How much of the room is taken in a state that was seen now.
    fn taken(self, seen: State, now: u64) -> u64 {
        match self {
            Self::Rate => seen.level - now,
            Self::Slots => seen.level,
            Self::Calendar(_) => seen.used,
            Self::Sliding(window) => window.taken(seen, now),
        }
    }
}

impl Ask {
    pub(crate) fn of(charge: &Charge) -> Self {
        let (kind, cost) = (Kind::of(charge.limit.rule), charge.cost);
        let never = cost > charge.limit.capacity();
        match charge.limit.rule {
            Rule::Rate { quota, window, burst } => {
                let step = rate::steps(cost, quota, window);
                Self { kind, never, step, room: rate::room(quota, window, burst) }
            }
            Rule::Slots { max } => {
                Self { kind, never, step: cost.min(LONGEST), room: max.min(LONGEST) }
            }
            Rule::Calendar { .. } | Rule::Sliding { .. } => {
                Self { kind, never, step: cost.min(MOST), room: charge.limit.capacity() }
            }
        }
    }

    fn fits(&self, state: State, now: u64) -> bool {
        !self.never && self.taken(state, now) + self.step <= self.room
    }

    fn taken(&self, state: State, now: u64) -> u64 {
        self.kind.taken(self.kind.seen(state, now), now)
    }

    /// A charge of nothing changes nothing.
    fn granted(&self, state: State, now: u64) -> State {
        let seen = self.kind.seen(state, now);
        match self.kind {
            _ if self.step == 0 => state,
            Kind::Rate | Kind::Slots => {
                State { level: (seen.level + self.step).min(LATEST), ..seen }
            }
            Kind::Calendar(_) | Kind::Sliding(_) => {
                State { used: (seen.used + self.step).min(MOST), ..seen }
            }
        }
    }

    /// The ticks until it fits, or the slots by which it does not.
    fn lacks(&self, state: State, now: u64) -> u64 {
        match self.kind {
            Kind::Rate | Kind::Slots => {
                (self.taken(state, now) + self.step).saturating_sub(self.room)
            }
            Kind::Calendar(period) => period.ends_in,
            Kind::Sliding(window) => {
                window.wait(window.seen(state, now), self.room.saturating_sub(self.step), now)
            }
        }
    }
}

impl Correction {
    /// From what was charged to what was really used.
    pub(crate) fn of(charge: &Charge, used: u64) -> Self {
        let (kind, cost) = (Kind::of(charge.limit.rule), charge.cost);
        match charge.limit.rule {
            Rule::Rate { quota, window, .. } => {
                let steps = |units| rate::steps(units, quota, window);
                let give_back = steps(cost).saturating_sub(steps(used));
                Self { kind, give_back, add: steps(used.saturating_sub(cost)) }
            }
            Rule::Slots { .. } => Self { kind, give_back: cost.min(LONGEST), add: 0 },
            Rule::Calendar { .. } | Rule::Sliding { .. } => {
                let give_back = cost.min(MOST).saturating_sub(used);
                Self { kind, give_back, add: used.saturating_sub(cost).min(MOST) }
            }
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
    let asks = asks(charges);
    let asks = asks.as_slice();
    let fits = asks.len() == charges.len()
        && asks.iter().zip(&*states).all(|(ask, state)| ask.fits(*state, now));
    if fits {
        for (ask, state) in asks.iter().zip(&mut *states) {
            *state = ask.granted(*state, now);
        }
    }
    decided(fits, charges, asks, states, now)
}

/// The decision that left `states` so.
pub(crate) fn decision(admitted: bool, charges: &[Charge], states: &[State], now: u64) -> Decision {
    decided(admitted, charges, asks(charges).as_slice(), states, now)
}

/// Where each limit stands.
pub(crate) fn standings(charges: &[Charge], states: &[State], now: u64) -> Inline<Standing> {
    standing_all(charges, asks(charges).as_slice(), states, now)
}

/// What each charge asks. There are no more of them than an admission may name.
fn asks(charges: &[Charge]) -> Inline<Ask> {
    let none = Ask { kind: Kind::Slots, never: true, step: 0, room: 0 };
    Inline::collect(none, charges.iter().map(Ask::of))
}

fn decided(
    admitted: bool,
    charges: &[Charge],
    asks: &[Ask],
    states: &[State],
    now: u64,
) -> Decision {
    if !admitted {
        return Decision::Refused(refusal(charges, asks, states, now));
    }
    let receipts = asks.iter().zip(states).map(|(ask, state)| {
        let State { level, mark, .. } = ask.kind.seen(*state, now);
        Receipt([level, mark])
    });
    let receipts = Inline::collect(Receipt::default(), receipts);
    Decision::Admitted(Grant::new(standing_all(charges, asks, states, now), receipts))
}

fn standing_all(charges: &[Charge], asks: &[Ask], states: &[State], now: u64) -> Inline<Standing> {
    let limits = charges.iter().zip(asks).zip(states);
    let standings = limits.map(|((charge, ask), state)| standing(charge, ask, *state, now));
    Inline::collect(Standing::default(), standings)
}

/// The state after a settlement.
pub(crate) fn settle(state: State, correction: Correction, receipt: Receipt, now: u64) -> State {
    match correction.kind {
        Kind::Slots => State { level: state.level.saturating_sub(correction.give_back), ..state },
        Kind::Rate => rate::settle(state, correction, receipt, now),
        Kind::Calendar(_) => calendar::settle(state, correction, receipt, now),
        Kind::Sliding(window) => window.settle(state, correction, receipt, now),
    }
}

/// The most that can be admitted at once.
pub(super) const fn capacity(rule: Rule) -> u64 {
    match rule {
        Rule::Rate { quota: 0, .. } => 0,
        Rule::Rate { burst, .. } => burst,
        Rule::Slots { max } => max,
        Rule::Calendar { quota, .. } | Rule::Sliding { quota, .. } => {
            if quota < MOST {
                quota
            } else {
                MOST
            }
        }
    }
}

/// The longest step and the greatest burst: beyond, they count as this.
const LONGEST: u64 = 1 << 52;
/// The most units that a calendar or a sliding window counts, and the last period: so that each state fits into 16 bytes.
pub(crate) const MOST: u64 = (1 << 41) - 1;
/// For the same end, the times of these are whole multiples of 64 microseconds.
pub(crate) const GRAIN: u64 = 1 << 10;
/// The latest of these times.
const LATEST_GRAIN: u64 = LATEST - LATEST % GRAIN;

fn refusal(charges: &[Charge], asks: &[Ask], states: &[State], now: u64) -> Refusal {
    let mut worst = (0_u8, 0_u64, 0_usize);
    for (index, (ask, state)) in asks.iter().zip(states).enumerate() {
        if ask.fits(*state, now) {
            continue;
        }
        // What never fits counts most; a wait that is known counts more than one that is not.
        let rank = match ask.kind {
            _ if ask.never => 3,
            Kind::Slots => 1,
            _ => 2,
        };
        let lacks = ask.lacks(*state, now);
        if (rank, lacks) > (worst.0, worst.1) {
            worst = (rank, lacks, index);
        }
    }
    let retry_after = (worst.0 == 2).then(|| duration(worst.1));
    Refusal::new(worst.2, retry_after, standing_all(charges, asks, states, now))
}

fn standing(charge: &Charge, ask: &Ask, state: State, now: u64) -> Standing {
    let seen = ask.kind.seen(state, now);
    let taken = ask.kind.taken(seen, now);
    let most = charge.limit.capacity();
    match (charge.limit.rule, ask.kind) {
        (Rule::Rate { quota, window, .. }, _) => {
            let left = ask.room.saturating_sub(taken);
            Standing::new(rate::units(left, quota, window).min(most), duration(taken))
        }
        (_, kind) => {
            let reset = match kind {
                Kind::Calendar(period) if taken > 0 => period.ends_in,
                Kind::Sliding(window) => window.reset(seen, now),
                _ => 0,
            };
            Standing::new(most.saturating_sub(taken), duration(reset))
        }
    }
}

#[cfg(test)]
mod tests;

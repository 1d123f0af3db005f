//! The decision itself: how each [`Rule`] counts, as plain functions on plain data.
//!
//! Integers only. Time counts in ticks of 1/16 microsecond, and every number stays below 2^53, so
//! that a Lua script, whose numbers are doubles, decides exactly alike. Multiplying and dividing
//! happens here; a script adds and compares, but for a sliding window: see [`sliding`].
//!
//! A limit sees its state as it is now ([`Kind::seen`]), which tells how much is taken ([`Kind::taken`]); a charge
//! fits when that and its own step are within the room. A state whose time is over is seen as an absent one.

mod again;
mod calendar;
mod rate;
mod sliding;
mod state;
mod time;

use self::state::LEVEL;
pub(crate) use self::{
    again::Again,
    calendar::Period,
    rate::{Rate, forget as forget_rate},
    sliding::Window,
    state::{CALENDAR, Form, RATE, SLIDING, SLOTS, State},
    time::{LATEST, SECOND, duration, ticks},
};

use super::{
    Charge, Inline, Limit, MAX_CHARGES, Receipt, Refusal, Rule, Seen, Standing, StoreError,
};

/// How a limit counts, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rate(Rate),
    Slots,
    Calendar(Period),
    Sliding(Window),
}

/// What a charge asks of its limit: ticks of a rate, units of all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// [`NEVER`](Self::NEVER) when the cost is beyond the capacity.
    pub(crate) step: u64,
    pub(crate) room: u64,
}

/// What a settlement changes: ticks of a rate, units of all others. At most one is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Correction {
    pub(crate) give_back: u64,
    pub(crate) add: u64,
}

impl Kind {
    pub(super) const fn rule(&self, quota: u64) -> Rule {
        match self {
            Self::Rate(Rate { window, burst, .. }) => {
                Rule::Rate { quota, window: duration(*window), burst: *burst }
            }
            Self::Slots => Rule::Slots { max: quota },
            Self::Calendar(Period { number, ends_in }) => {
                Rule::Calendar { quota, period: *number, ends_in: duration(*ends_in) }
            }
            Self::Sliding(window) => Rule::Sliding { quota, window: duration(window.ticks) },
        }
    }

    /// The most that can be admitted at once.
    pub(super) const fn capacity(&self, quota: u64) -> u64 {
        match self {
            Self::Rate(_) if quota == 0 => 0,
            Self::Rate(rate) => rate.burst,
            Self::Slots => quota,
            Self::Calendar(_) | Self::Sliding(_) => lesser(quota, MOST),
        }
    }

    /// What stores call it.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Rate(_) => RATE,
            Self::Slots => SLOTS,
            Self::Calendar(_) => CALENDAR,
            Self::Sliding(_) => SLIDING,
        }
    }

    pub(crate) const fn form(&self) -> Form {
        Form::of(self.code())
    }

    /// The state as it is now: what no longer counts is gone from it.
    #[inline]
    fn seen(&self, state: State, now: u64) -> State {
        match self {
            Self::Rate(_) => State { level: state.level.max(now), ..state },
            Self::Slots => state,
            Self::Calendar(period) => period.seen(state, now),
            Self::Sliding(window) => window.seen(state, now),
        }
    }

    /// How much of the room is taken in a state that was seen now.
    #[inline]
    fn taken(&self, seen: State, now: u64) -> u64 {
        match self {
            Self::Rate(_) => seen.level - now,
            Self::Slots => seen.level,
            Self::Calendar(_) => seen.used,
            Self::Sliding(window) => window.taken(seen, now),
        }
    }

    /// A seen state that so much is charged to. A charge of nothing changes nothing.
    #[inline]
    fn charged(&self, seen: State, step: u64) -> State {
        match self {
            Self::Rate(_) | Self::Slots => State { level: (seen.level + step).min(LATEST), ..seen },
            Self::Calendar(_) | Self::Sliding(_) => {
                State { used: (seen.used + step).min(MOST), ..seen }
            }
        }
    }

    /// Charges a limit that stands so. Whether it fits.
    #[inline(always)]
    fn charge(&self, receipt: &mut Receipt, ask: &Ask, now: u64) -> bool {
        let Receipt([low, high]) = receipt;
        match self {
            // Of these, only the level moves, and nothing need be unpacked.
            Self::Rate(_) => {
                let level = (*low & LEVEL).max(now);
                *low = *low & !LEVEL | (level + ask.step).min(LATEST);
                ask.fits(level - now)
            }
            Self::Slots => {
                let level = *high & LEVEL;
                *high = (level + ask.step).min(LATEST);
                ask.fits(level)
            }
            Self::Calendar(_) | Self::Sliding(_) => self.charge_unpacked(receipt, ask, now),
        }
    }

    /// The same, of any rule.
    fn charge_unpacked(&self, receipt: &mut Receipt, ask: &Ask, now: u64) -> bool {
        let seen = self.seen(receipt.state(self), now);
        *receipt = self.charged(seen, ask.step).receipt(self);
        ask.fits(self.taken(seen, now))
    }

    /// The state after a settlement of what was charged to `charged`.
    pub(crate) fn settle(
        &self,
        state: State,
        correction: Correction,
        charged: Receipt,
        now: u64,
    ) -> State {
        let charged = charged.state(self);
        match self {
            Self::Rate(_) => rate::settle(state, correction, charged, now),
            Self::Slots => {
                State { level: state.level.saturating_sub(correction.give_back), ..state }
            }
            Self::Calendar(_) => calendar::settle(state, correction, charged, now),
            Self::Sliding(window) => window.settle(state, correction, charged, now),
        }
    }
}

impl Ask {
    /// More than any room.
    pub(crate) const NEVER: u64 = u64::MAX / 2;

    #[inline]
    pub(crate) fn of(charge: &Charge) -> Self {
        let Charge { limit, cost, .. } = charge;
        let never = *cost > limit.capacity();
        let (step, room) = match &limit.kind {
            Kind::Rate(rate) => (rate.steps(*cost, limit.quota), rate.room),
            Kind::Slots => ((*cost).min(LONGEST), limit.quota.min(LONGEST)),
            Kind::Calendar(_) | Kind::Sliding(_) => ((*cost).min(MOST), limit.capacity()),
        };
        Self { step: if never { Self::NEVER } else { step }, room }
    }

    #[inline]
    fn fits(&self, taken: u64) -> bool {
        taken + self.step <= self.room
    }

    /// The ticks until it fits, or the slots by which it does not.
    fn lacks(&self, kind: &Kind, seen: State, now: u64) -> u64 {
        match kind {
            Kind::Rate(_) | Kind::Slots => {
                (kind.taken(seen, now) + self.step).saturating_sub(self.room)
            }
            Kind::Calendar(period) => period.ends_in,
            Kind::Sliding(window) => window.wait(seen, self.room.saturating_sub(self.step), now),
        }
    }
}

impl Correction {
    /// From what was charged to what was really used.
    pub(crate) fn of(charge: &Charge, used: u64) -> Self {
        let Charge { limit, cost, .. } = charge;
        match &limit.kind {
            Kind::Slots => Self { give_back: (*cost).min(LONGEST), add: 0 },
            _ if used == *cost => Self::default(),
            Kind::Rate(rate) => {
                let steps = |units| rate.steps(units, limit.quota);
                let give_back = steps(*cost).saturating_sub(steps(used));
                Self { give_back, add: steps(used.saturating_sub(*cost)) }
            }
            Kind::Calendar(_) | Kind::Sliding(_) => {
                let give_back = (*cost).min(MOST).saturating_sub(used);
                Self { give_back, add: used.saturating_sub(*cost).min(MOST) }
            }
        }
    }

    pub(crate) fn changes_nothing(self) -> bool {
        self.give_back == 0 && self.add == 0
    }
}

/// Whether an admission of these charges can be decided at all.
pub(crate) fn check(charges: &[Charge]) -> Result<(), StoreError> {
    if charges.len() > MAX_CHARGES {
        return Err(StoreError::permanent("an admission names too many limits"));
    }
    let mut rest = charges;
    while let Some((charge, others)) = rest.split_first() {
        let id = charge.limit.id();
        if others.iter().any(|other| other.limit.id() == id && other.record == charge.record) {
            return Err(StoreError::permanent("an admission names a limit twice"));
        }
        rest = others;
    }
    Ok(())
}

/// What each charge asks, in their order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asks([Ask; MAX_CHARGES]);

impl Asks {
    #[inline]
    pub(crate) fn of(charges: &[Charge]) -> Self {
        let mut asks = [Ask { step: Ask::NEVER, room: 0 }; MAX_CHARGES];
        for (ask, charge) in asks.iter_mut().zip(charges) {
            *ask = Ask::of(charge);
        }
        Self(asks)
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Ask> {
        self.0.iter()
    }
}

/// Whether they charge the same. Compared without a branch for each word: a busy key's admissions are told by it.
#[inline]
pub(crate) fn are_same(charges: &[Charge], others: &[Charge]) -> bool {
    let is_same = |(one, other): (&Charge, &Charge)| {
        (one.record == other.record)
            & (one.limit.digest == other.limit.digest)
            & (one.cost == other.cost)
    };
    charges.len() == others.len() && charges.iter().zip(others).all(is_same)
}

/// Charges a limit that stands as the receipt says. Whether it fits.
#[inline(always)]
pub(crate) fn charge(charge: &Charge, receipt: &mut Receipt, now: u64) -> bool {
    charge.limit.kind.charge(receipt, &Ask::of(charge), now)
}

/// Charges all of the limits that stand as `receipts` say, or none. Whether it did: then these are what is to be kept, but
/// for charges of nothing, which change nothing.
pub(crate) fn decide(charges: &[Charge], asks: &Asks, receipts: &mut [Receipt], now: u64) -> bool {
    let fits = charges.iter().zip(asks.iter()).zip(&*receipts).all(|((charge, ask), receipt)| {
        let kind = &charge.limit.kind;
        ask.fits(kind.taken(kind.seen(receipt.state(kind), now), now))
    });
    charge_times(charges, asks, receipts, u64::from(fits), now);
    fits
}

/// Sees the limits as they are now.
pub(crate) fn see(charges: &[Charge], receipts: &mut [Receipt], now: u64) {
    for (charge, receipt) in charges.iter().zip(receipts) {
        let kind = &charge.limit.kind;
        *receipt = kind.seen(receipt.state(kind), now).receipt(kind);
    }
}

/// Charges it so many times.
pub(crate) fn charge_times(
    charges: &[Charge],
    asks: &Asks,
    receipts: &mut [Receipt],
    times: u64,
    now: u64,
) {
    for ((charge, ask), receipt) in charges.iter().zip(asks.iter()).zip(receipts) {
        let kind = &charge.limit.kind;
        let seen = kind.seen(receipt.state(kind), now);
        *receipt = kind.charged(seen, ask.step * times).receipt(kind);
    }
}

/// How many more times all of the charges fit into a part of what is left of each limit, if they are made by `until`.
/// None where a limit must be asked each time: one that counts by the clock's borders, or that is asked for its debt alone.
pub(crate) fn times_ahead(
    charges: &[Charge],
    asks: &Asks,
    receipts: &[Receipt],
    part: u64,
    now: u64,
    until: u64,
) -> u64 {
    let parts = charges.iter().zip(asks.iter()).zip(receipts);
    let times = parts.map(|((charge, ask), receipt)| {
        let kind = &charge.limit.kind;
        if !matches!(kind, Kind::Rate(_) | Kind::Slots) || ask.step == 0 {
            return 0;
        }
        // Seen then, and counted now: of a rate, what will have drained by then is not there yet.
        let taken = kind.taken(kind.seen(receipt.state(kind), until), now);
        ask.room.saturating_sub(taken) / part / ask.step
    });
    times.min().unwrap_or(0)
}

/// What is seen of `states` that were decided on elsewhere.
#[cfg(feature = "redis")]
pub(crate) fn seen(charges: &[Charge], states: &[State], now: u64) -> Seen {
    let parts = charges.iter().map(|charge| &charge.limit.kind).zip(states);
    let receipts = parts.map(|(kind, state)| kind.seen(*state, now).receipt(kind));
    Seen::new(Inline::collect(Receipt::default(), receipts), now)
}

/// The refusal of charges to limits that were `seen` so.
pub(crate) fn refusal(charges: &[Charge], asks: &Asks, seen: Seen) -> Refusal {
    let mut worst = (0_u8, 0_u64, 0_usize);
    let parts = charges.iter().zip(asks.iter()).zip(seen.receipts.as_slice());
    for (index, ((charge, ask), receipt)) in parts.enumerate() {
        let kind = &charge.limit.kind;
        let state = receipt.state(kind);
        if ask.fits(kind.taken(state, seen.at)) {
            continue;
        }
        // What never fits counts most; a wait that is known counts more than one that is not.
        let rank = match kind {
            _ if ask.step == Ask::NEVER => 3,
            Kind::Slots => 1,
            _ => 2,
        };
        let lacks = ask.lacks(kind, state, seen.at);
        if (rank, lacks) > (worst.0, worst.1) {
            worst = (rank, lacks, index);
        }
    }
    Refusal::new(worst.2, (worst.0 == 2).then(|| duration(worst.1)), seen)
}

/// Where each limit stood when it was `seen`.
pub(crate) fn standings(charges: &[Charge], seen: &Seen) -> Inline<Standing> {
    let standings = charges.iter().zip(seen.receipts.as_slice()).map(|(charge, receipt)| {
        standing(&charge.limit, receipt.state(&charge.limit.kind), seen.at)
    });
    Inline::collect(Standing::default(), standings)
}

fn standing(limit: &Limit, state: State, now: u64) -> Standing {
    let kind = &limit.kind;
    let seen = kind.seen(state, now);
    let taken = kind.taken(seen, now);
    let most = limit.capacity();
    let (remaining, reset) = match kind {
        Kind::Rate(rate) => {
            let left = rate.units(rate.room.saturating_sub(taken), limit.quota);
            return Standing::new(left.min(most), duration(taken));
        }
        Kind::Calendar(period) if taken > 0 => (most.saturating_sub(taken), period.ends_in),
        Kind::Sliding(window) => (most.saturating_sub(taken), window.reset(seen, now)),
        Kind::Slots | Kind::Calendar(_) => (most.saturating_sub(taken), 0),
    };
    Standing::new(remaining, duration(reset))
}

/// The longest step and the greatest burst: beyond, they count as this.
const LONGEST: u64 = 1 << 52;
/// The most units that a calendar or a sliding window counts, and the last period: so that each state fits into 16 bytes.
pub(crate) const MOST: u64 = (1 << 41) - 1;
/// For the same end, the times of these are whole multiples of 64 microseconds.
pub(crate) const GRAIN: u64 = 1 << 10;
/// The latest of these times.
const LATEST_GRAIN: u64 = LATEST - LATEST % GRAIN;

/// As `min`, which is not `const`.
const fn lesser(a: u64, b: u64) -> u64 {
    if a < b { a } else { b }
}

#[cfg(test)]
mod tests;

//! What is kept of one key: all its limits, in place.

use crate::store::{
    Charge, Inline, LimitId, MAX_CHARGES, Rule,
    rules::{self, GRAIN, MOST, State},
};

/// All limits of one key. A million of them are kept: each byte counts.
#[derive(Debug)]
pub(super) struct Record {
    /// The furthest that any level ever was ahead, but of slots. Before that, a reservation may still be given back that
    /// knows its place by the rate's shift; after it, an absent record and this one are the same.
    until: u64,
    /// The limits of a tier that has many.
    more: Option<Box<[Entry; MAX_CHARGES - FEW]>>,
    few: [Entry; FEW],
    len: u8,
}

/// Where a limit stands, in 20 bytes.
#[derive(Clone, Copy, Debug)]
struct Entry {
    limit: LimitId,
    /// A [`State`] in 16 bytes: of a rate and of slots the level, below 2^53, and the mark; of all others the level in
    /// grains, the mark and the units, below 2^43 and 2^41. The top two bits tell the rule.
    packed: [u32; 4],
}

impl Record {
    pub(super) const fn new() -> Self {
        Self { until: 0, more: None, few: [UNUSED; FEW], len: 0 }
    }

    /// Whether forgetting it would change nothing.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        self.until <= now
            && self.entries().all(|entry| !entry.is_slots() || entry.state().level == 0)
    }

    /// Where the limit of `charge` stands, if it has a place.
    pub(super) fn find(&self, charge: &Charge) -> Option<State> {
        self.entries().find(|entry| entry.is_of(charge)).map(Entry::state)
    }

    /// Sees that the limit of each of `charges` has a place. False: more limits than there are places are in use.
    pub(super) fn make_places<'a>(
        &mut self,
        charges: impl Iterator<Item = &'a Charge> + Clone,
        now: u64,
    ) -> bool {
        for charge in charges.clone() {
            if self.find(charge).is_some() {
                continue;
            }
            if usize::from(self.len) == MAX_CHARGES {
                let until = self.until;
                self.retain(|entry| {
                    charges.clone().any(|charge| entry.is_of(charge)) || !entry.is_idle(until, now)
                });
            }
            if !self.push(Entry::new(charge, State::default())) {
                return false;
            }
        }
        true
    }

    /// Sets where the limit of `charge` stands, which has a place.
    pub(super) fn set(&mut self, charge: &Charge, state: State) {
        let Some(entry) = self.entries_mut().find(|entry| entry.is_of(charge)) else { return };
        *entry = Entry::new(charge, state);
        if !entry.is_slots() {
            self.until = self.until.max(state.level);
        }
    }

    /// Forgets what was used of all limits but slots.
    pub(super) fn forget(&mut self, now: u64) {
        for entry in self.entries_mut() {
            let (rule, state) = (entry.rule(), entry.state());
            let state = match rule {
                SLOTS => state,
                RATE => rules::forget_rate(state, now),
                CALENDAR => State { used: 0, ..state },
                _ => State { mark: 0, used: 0, ..state },
            };
            entry.packed = pack(rule, state);
        }
    }

    fn push(&mut self, entry: Entry) -> bool {
        let at = usize::from(self.len);
        let place = match at.checked_sub(FEW) {
            None => self.few.get_mut(at),
            Some(at) => self.more.get_or_insert_with(|| Box::new([UNUSED; _])).get_mut(at),
        };
        let Some(place) = place else { return false };
        *place = entry;
        self.len += 1;
        true
    }

    fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        let mut kept = Inline::new(UNUSED);
        for entry in self.entries().filter(|entry| keep(entry)) {
            kept.push(*entry);
        }
        (self.len, self.more) = (0, None);
        for entry in kept.as_slice() {
            self.push(*entry);
        }
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        let more = self.more.iter().flat_map(|more| more.iter());
        self.few.iter().chain(more).take(self.len.into())
    }

    fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        let more = self.more.iter_mut().flat_map(|more| more.iter_mut());
        self.few.iter_mut().chain(more).take(self.len.into())
    }
}

impl Entry {
    fn new(charge: &Charge, state: State) -> Self {
        Self { limit: charge.limit.id, packed: pack(rule(charge), state) }
    }

    fn state(&self) -> State {
        let packed = whole(self.packed);
        match self.rule() {
            RATE | SLOTS => State {
                level: packed as u64 & ((1 << LEVEL_BITS) - 1),
                mark: (packed >> LEVEL_BITS) as u64 & ((1 << LEVEL_BITS) - 1),
                used: 0,
            },
            _ => State {
                level: (packed as u64 & ((1 << GRAIN_BITS) - 1)) * GRAIN,
                mark: (packed >> GRAIN_BITS) as u64 & MOST,
                used: (packed >> USED_FROM) as u64 & MOST,
            },
        }
    }

    fn rule(&self) -> u8 {
        let [.., last] = self.packed;
        (last >> (RULE_FROM - 96)) as u8
    }

    fn is_slots(&self) -> bool {
        self.rule() == SLOTS
    }

    fn is_of(&self, charge: &Charge) -> bool {
        self.limit == charge.limit.id && self.rule() == rule(charge)
    }

    fn is_idle(&self, until: u64, now: u64) -> bool {
        let State { level, mark, .. } = self.state();
        match self.rule() {
            SLOTS => level == 0,
            // With nothing ever given back, no reservation reaches beyond the level.
            RATE => until <= now || (level <= now && mark == 0),
            _ => level <= now,
        }
    }
}

/// How many limits a record has room for in place: as many as most tiers have.
const FEW: usize = 4;
const UNUSED: Entry = Entry { limit: LimitId::of(""), packed: [0; 4] };
const LEVEL_BITS: u32 = 53;
const GRAIN_BITS: u32 = LEVEL_BITS - GRAIN.trailing_zeros();
const USED_FROM: u32 = GRAIN_BITS + (u64::BITS - MOST.leading_zeros());
const RULE_FROM: u32 = 126;
const RATE: u8 = 0;
const SLOTS: u8 = 1;
const CALENDAR: u8 = 2;
const SLIDING: u8 = 3;

const fn rule(charge: &Charge) -> u8 {
    match charge.limit.rule {
        Rule::Rate { .. } => RATE,
        Rule::Slots { .. } => SLOTS,
        Rule::Calendar { .. } => CALENDAR,
        Rule::Sliding { .. } => SLIDING,
    }
}

fn pack(rule: u8, State { level, mark, used }: State) -> [u32; 4] {
    let state = match rule {
        RATE | SLOTS => u128::from(level) | u128::from(mark) << LEVEL_BITS,
        _ => {
            let level = level.div_ceil(GRAIN);
            u128::from(level) | u128::from(mark) << GRAIN_BITS | u128::from(used) << USED_FROM
        }
    };
    words(state | u128::from(rule) << RULE_FROM)
}

/// In words, so that an entry is no wider than they are.
const fn words(number: u128) -> [u32; 4] {
    [number as u32, (number >> 32) as u32, (number >> 64) as u32, (number >> 96) as u32]
}

const fn whole([a, b, c, d]: [u32; 4]) -> u128 {
    a as u128 | (b as u128) << 32 | (c as u128) << 64 | (d as u128) << 96
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::{Key, Limit};

    #[test]
    fn the_greatest_numbers_of_many_limits_are_kept_apart() {
        let mut record = Record::new();
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let charges = names.map(|name| {
            let (id, day) = (LimitId::of(name), Duration::from_secs(86_400));
            let limit = match name {
                "a" | "e" => Limit::rate(id, 1, day),
                "b" | "f" => Limit::slots(id, 1),
                "c" | "g" => Limit::calendar(id, 1, 1, day),
                _ => Limit::sliding(id, 1, day),
            };
            Charge::new(Key::from_bytes([1; 16]), limit, 1)
        });
        assert!(record.make_places(charges.iter(), 0));
        let state = |n: usize, charge: &Charge| match charge.limit.rule {
            Rule::Rate { .. } | Rule::Slots { .. } => {
                State { level: rules::LATEST - n as u64, mark: (1 << 52) - 1, used: 0 }
            }
            _ => State {
                level: rules::LATEST - rules::LATEST % GRAIN - n as u64 * GRAIN,
                mark: MOST,
                used: MOST - n as u64,
            },
        };
        for (n, charge) in charges.iter().enumerate() {
            record.set(charge, state(n, charge));
        }
        for (n, charge) in charges.iter().enumerate() {
            assert_eq!(record.find(charge), Some(state(n, charge)));
        }
        assert!(!record.is_idle(rules::LATEST));
    }

    #[test]
    fn a_limit_that_counts_by_another_rule_is_another() {
        let mut record = Record::new();
        let (id, key) = (LimitId::of("quota"), Key::from_bytes([1; 16]));
        let day = Duration::from_secs(86_400);
        let limits = [
            Limit::rate(id, 1, day),
            Limit::slots(id, 1),
            Limit::calendar(id, 1, 1, day),
            Limit::sliding(id, 1, day),
        ];
        for (at, limit) in limits.into_iter().enumerate() {
            let charge = Charge::new(key, limit, 1);
            assert_eq!(record.find(&charge), None, "{at}");
            assert!(record.make_places(std::iter::once(&charge), 0));
        }
    }
}

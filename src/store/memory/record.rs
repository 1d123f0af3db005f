//! What is kept of one key: all its limits, in place.

use crate::store::{Charge, Inline, LimitId, MAX_CHARGES, Rule, gcra::State};

/// All limits of one key. A million of them are kept: each byte counts.
#[derive(Debug)]
pub(super) struct Record {
    /// The furthest that any rate ever was ahead. Before that, a reservation may still be given back that
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
    /// The numbers of a [`State`], which are below 2^53, in halves. The top bit of the level tells slots.
    level: [u32; 2],
    shift: [u32; 2],
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
            if !self.push(Entry::of(charge)) {
                return false;
            }
        }
        true
    }

    /// Sets where the limit of `charge` stands, which has a place.
    pub(super) fn set(&mut self, charge: &Charge, state: State) {
        let Some(entry) = self.entries_mut().find(|entry| entry.is_of(charge)) else { return };
        entry.set(state);
        if !entry.is_slots() {
            self.until = self.until.max(state.level);
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
    fn of(charge: &Charge) -> Self {
        let slots = if is_of_slots(charge) { SLOTS } else { 0 };
        Self { limit: charge.limit.id, level: [0, slots], shift: [0; 2] }
    }

    fn is_slots(&self) -> bool {
        self.level[1] & SLOTS != 0
    }

    fn state(&self) -> State {
        let [low, high] = self.level;
        State { level: whole([low, high & !SLOTS]), shift: whole(self.shift) }
    }

    fn set(&mut self, state: State) {
        let slots = self.level[1] & SLOTS;
        let [low, high] = halves(state.level);
        (self.level, self.shift) = ([low, high | slots], halves(state.shift));
    }

    fn is_of(&self, charge: &Charge) -> bool {
        self.limit == charge.limit.id && self.is_slots() == is_of_slots(charge)
    }

    fn is_idle(&self, until: u64, now: u64) -> bool {
        let State { level, shift } = self.state();
        if self.is_slots() {
            level == 0
        } else {
            // With nothing ever given back, no reservation reaches beyond the level.
            until <= now || (level <= now && shift == 0)
        }
    }
}

/// How many limits a record has room for in place: as many as most tiers have.
const FEW: usize = 4;
const UNUSED: Entry = Entry { limit: LimitId::of(""), level: [0; 2], shift: [0; 2] };
const SLOTS: u32 = 1 << 31;

fn is_of_slots(charge: &Charge) -> bool {
    matches!(charge.limit.rule, Rule::Slots { .. })
}

const fn whole([low, high]: [u32; 2]) -> u64 {
    (high as u64) << 32 | low as u64
}

const fn halves(number: u64) -> [u32; 2] {
    [number as u32, (number >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Key, Limit, gcra};

    #[test]
    fn the_greatest_numbers_of_many_limits_are_kept_apart() {
        let mut record = Record::new();
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let charges = names.map(|name| {
            Charge::new(Key::from_bytes([1; 16]), Limit::slots(LimitId::of(name), 1), 1)
        });
        assert!(record.make_places(charges.iter(), 0));
        let state = |n: usize| State { level: gcra::LATEST - n as u64, shift: (1 << 52) - 1 };
        for (n, charge) in charges.iter().enumerate() {
            record.set(charge, state(n));
        }
        for (n, charge) in charges.iter().enumerate() {
            assert_eq!(record.find(charge), Some(state(n)));
        }
        assert!(!record.is_idle(gcra::LATEST));
    }
}

//! What is kept of one key: all its limits, in place.

use crate::store::{Charge, LimitId, MAX_CHARGES, Rule, gcra::State};

/// All limits of one key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// The furthest that any rate ever was ahead. Before that, a reservation may still be given back that
    /// knows its place by the rate's shift; after it, an absent record and this one are the same.
    until: u64,
    len: u8,
    entries: [Entry; MAX_CHARGES],
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    limit: LimitId,
    slots: bool,
    state: State,
}

impl Record {
    pub(super) const fn new() -> Self {
        let unused =
            Entry { limit: LimitId::of(""), slots: false, state: State { level: 0, shift: 0 } };
        Self { until: 0, len: 0, entries: [unused; MAX_CHARGES] }
    }

    /// Whether forgetting it would change nothing.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        self.until <= now
            && self.entries().iter().all(|entry| !entry.slots || entry.state.level == 0)
    }

    /// Where the limit of `charge` stands, if it has a place.
    pub(super) fn find(&self, charge: &Charge) -> Option<State> {
        self.entries().iter().find(|entry| entry.is_of(charge)).map(|entry| entry.state)
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
        let entry = self.entries_mut().iter_mut().find(|entry| entry.is_of(charge));
        if let Some(entry) = entry {
            entry.state = state;
            if !entry.slots {
                self.until = self.until.max(state.level);
            }
        }
    }

    fn push(&mut self, entry: Entry) -> bool {
        match self.entries.get_mut(usize::from(self.len)) {
            Some(place) => {
                *place = entry;
                self.len += 1;
                true
            }
            None => false,
        }
    }

    fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        let all = *self;
        self.len = 0;
        for entry in all.entries().iter().filter(|entry| keep(entry)) {
            self.push(*entry);
        }
    }

    fn entries(&self) -> &[Entry] {
        self.entries.get(..usize::from(self.len)).unwrap_or_default()
    }

    fn entries_mut(&mut self) -> &mut [Entry] {
        self.entries.get_mut(..usize::from(self.len)).unwrap_or_default()
    }
}

impl Entry {
    fn of(charge: &Charge) -> Self {
        let slots = matches!(charge.limit.rule, Rule::Slots { .. });
        Self { limit: charge.limit.id, slots, state: State::default() }
    }

    fn is_of(&self, charge: &Charge) -> bool {
        self.limit == charge.limit.id
            && self.slots == matches!(charge.limit.rule, Rule::Slots { .. })
    }

    fn is_idle(&self, until: u64, now: u64) -> bool {
        if self.slots {
            self.state.level == 0
        } else {
            // With nothing ever given back, no reservation reaches beyond the level.
            until <= now || (self.state.level <= now && self.state.shift == 0)
        }
    }
}

//! What is kept of one key: all its limits, in place.

use crate::store::{
    Charge, Inline, Key, Limit, MAX_CHARGES, Receipt,
    rules::{self, CALENDAR, Form, RATE, SLOTS, State},
};

/// All limits of one key, in the words of a slab: the key, how long it is to be kept and how many limits there are, and
/// the limits. A million of them are kept: each byte counts.
#[derive(Debug)]
pub(super) struct Record<'a>(pub(super) &'a mut [u32]);

/// Where a limit stands, in 20 bytes: its id, and a [`State`] in 16, of which the top two bits tell the rule.
#[derive(Clone, Copy, Debug)]
struct Entry([u32; ENTRY]);

impl Record<'_> {
    /// Makes it an empty one of `key`.
    pub(super) fn begin(&mut self, key: &Key) {
        self.0.fill(0);
        for (word, number) in self.0.iter_mut().zip(key_words(key)) {
            *word = number;
        }
    }

    pub(super) fn key(&self) -> Key {
        key(self.0)
    }

    /// Whether forgetting it would change nothing.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        self.until() <= now
            && self.entries().all(|entry| !entry.is_slots() || entry.state().level == 0)
    }

    /// The place of a limit, which may be the one at `hint`, and where the limit stands.
    #[inline]
    pub(super) fn find(&self, limit: &Limit, hint: usize) -> Option<(usize, Receipt)> {
        let at_hint = self.entry(hint).filter(|entry| entry.is_of(limit));
        let found = at_hint.map(|entry| (hint, entry));
        let found = found.or_else(|| self.entries().enumerate().find(|(_, it)| it.is_of(limit)));
        found.map(|(at, entry)| (at, Receipt(entry.halves())))
    }

    /// What charges make of limits that stand where they do. False: another limit does, or not all of it fits.
    #[inline]
    pub(super) fn charge_in_place(
        &self,
        charges: &[Charge],
        receipts: &mut [Receipt],
        now: u64,
    ) -> bool {
        let mut fits = charges.len() <= self.len();
        let (entries, _) = self.0.get(HEAD..).unwrap_or_default().as_chunks();
        for ((charge, receipt), words) in charges.iter().zip(receipts).zip(entries) {
            let entry = Entry(*words);
            if !entry.is_of(&charge.limit) {
                return false;
            }
            *receipt = Receipt(entry.halves());
            fits &= rules::charge(charge, receipt, now);
        }
        fits
    }

    /// Keeps what charges made of limits that stand where they do, but for charges of nothing, which change nothing.
    #[inline]
    pub(super) fn keep(&mut self, charges: &[Charge], receipts: &[Receipt]) {
        let (mut until, len) = (self.until(), self.len());
        let (entries, _) = self.0.get_mut(HEAD..).unwrap_or_default().as_chunks_mut();
        for ((charge, receipt), words) in charges.iter().zip(receipts).zip(entries) {
            if charge.cost > 0 {
                let Charge { limit, .. } = charge;
                if !limit.is_slots() {
                    until = until.max(receipt.state(&limit.kind).level);
                }
                *words = Entry::new(limit.id().get(), limit.kind.code(), *receipt).0;
            }
        }
        self.set_head(until, len);
    }

    /// Sees that the limit of each of `charges` has a place. False: more limits than there are places are in use.
    pub(super) fn make_places<'a>(
        &mut self,
        charges: impl Iterator<Item = &'a Charge> + Clone,
        now: u64,
    ) -> bool {
        for charge in charges.clone() {
            if self.find(&charge.limit, 0).is_some() {
                continue;
            }
            if self.len() == self.room() {
                let until = self.until();
                self.retain(|entry| {
                    charges.clone().any(|charge| entry.is_of(&charge.limit))
                        || !entry.is_idle(until, now)
                });
            }
            if !self.push(Entry::new(
                charge.limit.id().get(),
                charge.limit.kind.code(),
                Receipt::default(),
            )) {
                return false;
            }
        }
        true
    }

    /// Sets where the limit at a place stands.
    pub(super) fn set(&mut self, at: usize, limit: &Limit, state: Receipt) -> bool {
        let level = state.state(&limit.kind).level;
        if !limit.is_slots() && level > self.until() {
            self.set_head(level, self.len());
        }
        self.put(at, Entry::new(limit.id().get(), limit.kind.code(), state))
    }

    /// Forgets what was used of all limits but slots.
    pub(super) fn forget(&mut self, now: u64) {
        for at in 0..self.len() {
            let Some(entry) = self.entry(at) else { return };
            let (rule, state) = (entry.rule(), entry.state());
            let state = match rule {
                SLOTS => state,
                RATE => rules::forget_rate(state, now),
                CALENDAR => State { used: 0, ..state },
                _ => State { mark: 0, used: 0, ..state },
            };
            let [id, ..] = entry.0;
            self.put(at, Entry::new(id, rule, Receipt(state.packed(Form::of(rule)))));
        }
    }

    fn push(&mut self, entry: Entry) -> bool {
        let len = self.len();
        let pushed = len < self.room() && self.put(len, entry);
        if pushed {
            self.set_head(self.until(), len + 1);
        }
        pushed
    }

    fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        let mut kept = Inline::new(Entry([0; ENTRY]));
        for entry in self.entries().filter(|entry| keep(entry)) {
            kept.push(entry);
        }
        self.set_head(self.until(), 0);
        for entry in kept.as_slice() {
            self.push(*entry);
        }
    }

    /// The furthest that any level ever was ahead, but of slots. Before that, a reservation may still be given back that
    /// knows its place by the rate's shift; after it, an absent record and this one are the same.
    fn until(&self) -> u64 {
        self.head() & ((1 << LEVEL_BITS) - 1)
    }

    fn len(&self) -> usize {
        (self.head() >> LEVEL_BITS) as usize
    }

    fn head(&self) -> u64 {
        match &*self.0 {
            [_, _, _, _, low, high, ..] => u64::from(*high) << 32 | u64::from(*low),
            _ => 0,
        }
    }

    fn set_head(&mut self, until: u64, len: usize) {
        let head = until | (len as u64) << LEVEL_BITS;
        if let [_, _, _, _, low, high, ..] = self.0 {
            (*low, *high) = (head as u32, (head >> 32) as u32);
        }
    }

    fn room(&self) -> usize {
        (self.0.len() - HEAD) / ENTRY
    }

    fn put(&mut self, at: usize, entry: Entry) -> bool {
        let place = self.0.get_mut(HEAD + at * ENTRY..HEAD + (at + 1) * ENTRY);
        place.map(|place| place.copy_from_slice(&entry.0)).is_some()
    }

    fn entry(&self, at: usize) -> Option<Entry> {
        let words = self.0.get(HEAD + at * ENTRY..)?.first_chunk()?;
        (at < self.len()).then_some(Entry(*words))
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        let (entries, _) = self.0.get(HEAD..).unwrap_or_default().as_chunks();
        entries.iter().take(self.len()).map(|words| Entry(*words))
    }
}

/// The words of a record without its limits.
pub(super) const HEAD: usize = 6;
/// The words of a limit.
pub(super) const ENTRY: usize = 5;
/// The words of a record of the most limits.
pub(super) const WIDEST: usize = HEAD + MAX_CHARGES * ENTRY;

/// Whether these are the words of the record of `key`.
pub(super) fn is_of(words: &[u32], key: &Key) -> bool {
    words.starts_with(&key_words(key))
}

/// Whose record these words are.
pub(super) fn key(words: &[u32]) -> Key {
    let [a, b, c, d] = words.first_chunk().copied().unwrap_or_default();
    let whole = u128::from(joined(c, d)) << 64 | u128::from(joined(a, b));
    Key::from_bytes(whole.to_le_bytes())
}

fn key_words(key: &Key) -> [u32; 4] {
    let whole = u128::from_le_bytes(*key.as_bytes());
    [whole as u32, (whole >> 32) as u32, (whole >> 64) as u32, (whole >> 96) as u32]
}

impl Entry {
    fn new(id: u32, rule: u8, state: Receipt) -> Self {
        let Receipt([low, high]) = state;
        let high = (high & ((1 << RULE_FROM) - 1)) | u64::from(rule) << RULE_FROM;
        Self([id, low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32])
    }

    fn halves(&self) -> [u64; 2] {
        let [_, a, b, c, d] = self.0;
        [joined(a, b), joined(c, d) & ((1 << RULE_FROM) - 1)]
    }

    fn state(&self) -> State {
        State::unpacked(self.halves(), Form::of(self.rule()))
    }

    fn rule(&self) -> u8 {
        let [.., last] = self.0;
        (last >> (RULE_FROM - 32)) as u8
    }

    fn is_slots(&self) -> bool {
        self.rule() == SLOTS
    }

    fn is_of(&self, limit: &Limit) -> bool {
        let [id, ..] = self.0;
        id == limit.id().get() && self.rule() == limit.kind.code()
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

/// In the head, the bits of a time.
const LEVEL_BITS: u32 = 53;
/// In the second half of a state, the bits that it leaves free.
const RULE_FROM: u32 = 62;

const fn joined(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::{
        LimitId,
        rules::{GRAIN, Kind, MOST},
    };

    #[test]
    fn the_greatest_numbers_of_many_limits_are_kept_apart() {
        let mut words = [0; WIDEST];
        let mut record = Record(&mut words);
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
        let state = |n: usize, charge: &Charge| match charge.limit.kind {
            Kind::Rate(_) => {
                State { level: rules::LATEST - n as u64, mark: (1 << 52) - 1, used: 0 }
            }
            Kind::Slots => State { level: rules::LATEST - n as u64, mark: 0, used: 0 },
            _ => State {
                level: rules::LATEST - rules::LATEST % GRAIN - n as u64 * GRAIN,
                mark: MOST,
                used: MOST - n as u64,
            },
        };
        for (n, charge) in charges.iter().enumerate() {
            let receipt = state(n, charge).receipt(&charge.limit.kind);
            record.set(n, &charge.limit, receipt);
        }
        for (n, charge) in charges.iter().enumerate() {
            let (at, receipt) = record.find(&charge.limit, 0).unwrap();
            assert_eq!((at, receipt.state(&charge.limit.kind)), (n, state(n, charge)));
        }
        assert!(!record.is_idle(rules::LATEST));
    }

    #[test]
    fn a_limit_that_counts_by_another_rule_is_another() {
        let mut words = [0; WIDEST];
        let mut record = Record(&mut words);
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
            assert_eq!(record.find(&charge.limit, 0), None, "{at}");
            assert!(record.make_places(std::iter::once(&charge), 0));
        }
    }
}

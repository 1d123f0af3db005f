//! What is kept of one key: all its limits, in place.

use super::layouts::{Layout, Layouts};
use crate::store::{
    Charge, Inline, Key, Limit, MAX_CHARGES, Receipt,
    rules::{self, CALENDAR, Form, GRAIN, RATE, SLOTS, State},
};

/// All limits of one key, in the words of a slab: the key; how long it is to be kept, and which limits it has; and where
/// these stand. A million of them are kept: each byte counts.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) words: &'a mut [u64],
    pub(super) layouts: &'a mut Layouts,
}

/// Where a limit stands: a [`State`] in 16 bytes, of which the top two bits tell the rule.
#[derive(Clone, Copy, Debug)]
struct Entry([u64; ENTRY]);

impl Record<'_> {
    /// Makes it one of `key` with the limits that are charged, of which nothing is used yet.
    pub(super) fn begin(&mut self, key: &Key, layout: u16, charges: &[Charge]) {
        for (word, half) in self.words.iter_mut().zip(key.halves()) {
            *word = half;
        }
        self.set_head(0, layout);
        for (at, charge) in charges.iter().enumerate() {
            self.put(at, Entry::new(charge.limit.kind.code(), Receipt::default()));
        }
    }

    /// Tells that it is no more.
    pub(super) fn release(self) {
        self.layouts.release(self.number());
    }

    pub(super) fn key(&self) -> Key {
        key(self.words)
    }

    /// Whether forgetting it would change nothing.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        self.until() <= now
            && self.entries().all(|entry| !entry.is_slots() || entry.state().level == 0)
    }

    /// The place of a limit, which may be the one at `hint`, and where the limit stands.
    pub(super) fn find(&self, limit: &Limit, hint: usize) -> Option<(usize, Receipt)> {
        let id = limit.id().get();
        let ids = self.ids();
        let is_it = |at: &usize| {
            ids.get(*at) == Some(&id) && self.entry(*at).is_some_and(|entry| entry.is_of(limit))
        };
        let at = Some(hint).filter(is_it).or_else(|| (0..ids.len()).find(is_it))?;
        Some((at, Receipt(self.entry(at)?.halves())))
    }

    /// Notes what charges make of limits that stand side by side as they do. From where on they stand, and whether all of it
    /// fits. `None`: others stand there, or what is charged may be charged twice.
    #[inline(never)]
    pub(super) fn charge_in_place(
        &self,
        charges: &[Charge],
        receipts: &mut [Receipt],
        now: u64,
    ) -> Option<(usize, bool)> {
        let layout = self.layout().filter(|it| !it.has_namesakes())?;
        let (ids, first) = (layout.ids(), charges.first()?.limit.id().get());
        // Mostly so. What stands there is fetched before that is known.
        let from = if ids.first() == Some(&first) { 0 } else { position(ids, first)? };
        let ids = ids.get(from..from + charges.len())?;
        let (entries, _) = self.words.get(HEAD + from * ENTRY..)?.as_chunks();
        let mut fits = true;
        for ((charge, receipt), (id, words)) in
            charges.iter().zip(receipts).zip(ids.iter().zip(entries))
        {
            let entry = Entry(*words);
            if *id != charge.limit.id().get() || !entry.is_of(&charge.limit) {
                return None;
            }
            *receipt = Receipt(entry.halves());
            fits &= rules::charge(charge, receipt, now);
        }
        Some((from, fits))
    }

    /// Notes how the limits of charges stand, which begin at a place.
    pub(super) fn see(&self, from: usize, charges: &[Charge], receipts: &mut [Receipt], now: u64) {
        let entries = self.words.get(HEAD + from * ENTRY..).unwrap_or_default();
        let (entries, _) = entries.as_chunks();
        for (receipt, words) in receipts.iter_mut().zip(entries) {
            *receipt = Receipt(Entry(*words).halves());
        }
        rules::see(charges, receipts, now);
    }

    /// Keeps what charges made of limits that begin at a place, but for charges of nothing, which change nothing.
    #[inline(never)]
    pub(super) fn keep(&mut self, from: usize, charges: &[Charge], receipts: &[Receipt]) {
        let (mut until, from) = (0, HEAD + from * ENTRY);
        let (entries, _) = self.words.get_mut(from..).unwrap_or_default().as_chunks_mut();
        for ((charge, receipt), words) in charges.iter().zip(receipts).zip(entries) {
            if charge.cost > 0 {
                let kind = &charge.limit.kind;
                if !charge.limit.is_slots() {
                    until = until.max(receipt.state(kind).level);
                }
                *words = Entry::new(kind.code(), *receipt).0;
            }
        }
        self.keep_until(until);
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
            if self.ids().len() == self.room() {
                let limits = charges.clone().map(|charge| &charge.limit);
                self.drop_idle(limits, now);
            }
            if !self.push(&charge.limit) {
                return false;
            }
        }
        true
    }

    /// Sets where the limit at a place stands.
    pub(super) fn set(&mut self, at: usize, limit: &Limit, state: Receipt) {
        if !limit.is_slots() {
            self.keep_until(state.state(&limit.kind).level);
        }
        self.put(at, Entry::new(limit.kind.code(), state));
    }

    /// Forgets what was used of all limits but slots.
    pub(super) fn forget(&mut self, now: u64) {
        for at in 0..self.ids().len() {
            let Some(entry) = self.entry(at) else { return };
            let (rule, state) = (entry.rule(), entry.state());
            let state = match rule {
                SLOTS => state,
                RATE => rules::forget_rate(state, now),
                CALENDAR => State { used: 0, ..state },
                _ => State { mark: 0, used: 0, ..state },
            };
            self.put(at, Entry::new(rule, Receipt(state.packed(Form::of(rule)))));
        }
    }

    fn push(&mut self, limit: &Limit) -> bool {
        let len = self.ids().len();
        if len == self.room() {
            return false;
        }
        let layout = self.layout().copied().unwrap_or_default().with(limit.id().get());
        self.change_layout(layout)
            && self.put(len, Entry::new(limit.kind.code(), Receipt::default()))
    }

    /// Drops limits that are idle, but for these.
    fn drop_idle<'a>(&mut self, but: impl Iterator<Item = &'a Limit> + Clone, now: u64) {
        let (mut layout, mut entries) = (Layout::default(), Inline::new(Entry([0; ENTRY])));
        let until = self.until();
        for (id, entry) in self.ids().iter().zip(self.entries()) {
            let mut wanted = but.clone().filter(|limit| limit.id().get() == *id);
            if wanted.any(|limit| entry.is_of(limit)) || !entry.is_idle(until, now) {
                layout = layout.with(*id);
                entries.push(entry);
            }
        }
        if self.change_layout(layout) {
            for (at, entry) in entries.as_slice().iter().enumerate() {
                self.put(at, *entry);
            }
        }
    }

    fn change_layout(&mut self, layout: Layout) -> bool {
        let Some(new) = self.layouts.take(layout) else { return false };
        self.layouts.release(self.number());
        self.set_head(self.head() & UNTIL, new);
        true
    }

    /// The furthest that any level ever was ahead, but of slots, and up to 64 microseconds more. Before that, a reservation
    /// may still be given back that knows its place by the rate's shift; after it, an absent record and this one are the same.
    fn until(&self) -> u64 {
        (self.head() & UNTIL) * GRAIN
    }

    #[inline]
    fn keep_until(&mut self, level: u64) {
        let until = level.div_ceil(GRAIN);
        if until > self.head() & UNTIL {
            self.set_head(until, self.number());
        }
    }

    /// The number of its layout.
    #[inline]
    fn number(&self) -> u16 {
        (self.head() >> UNTIL_BITS) as u16
    }

    #[inline]
    fn layout(&self) -> Option<&Layout> {
        self.layouts.get(self.number())
    }

    #[inline]
    fn ids(&self) -> &[u32] {
        self.layout().map_or(&[], Layout::ids)
    }

    #[inline]
    fn head(&self) -> u64 {
        self.words.get(KEY).copied().unwrap_or_default()
    }

    #[inline]
    fn set_head(&mut self, until: u64, layout: u16) {
        if let Some(head) = self.words.get_mut(KEY) {
            *head = until | u64::from(layout) << UNTIL_BITS;
        }
    }

    fn room(&self) -> usize {
        (self.words.len() - HEAD) / ENTRY
    }

    fn put(&mut self, at: usize, entry: Entry) -> bool {
        let place = self.words.get_mut(HEAD + at * ENTRY..HEAD + (at + 1) * ENTRY);
        place.map(|place| place.copy_from_slice(&entry.0)).is_some()
    }

    fn entry(&self, at: usize) -> Option<Entry> {
        let words = self.words.get(HEAD + at * ENTRY..)?.first_chunk()?;
        Some(Entry(*words))
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        let (entries, _) = self.words.get(HEAD..).unwrap_or_default().as_chunks();
        entries.iter().take(self.ids().len()).map(|words| Entry(*words))
    }
}

/// The words of a key, and those of a record without its limits.
const KEY: usize = 2;
const HEAD: usize = KEY + 1;
/// The words of a limit.
const ENTRY: usize = 2;
/// The words of a record of the most limits.
pub(super) const WIDEST: usize = width(MAX_CHARGES - 1);

/// The words of a record of a slab.
pub(super) const fn width(slab: usize) -> usize {
    HEAD + (slab + 1) * ENTRY
}

#[cold]
fn position(ids: &[u32], id: u32) -> Option<usize> {
    ids.iter().position(|it| *it == id)
}

/// Whether these are the words of the record of `key`.
#[inline]
pub(super) fn is_of(words: &[u64], key: &Key) -> bool {
    words.first_chunk() == Some(&key.halves())
}

/// Whose record these words are.
pub(super) fn key(words: &[u64]) -> Key {
    let [low, high] = words.first_chunk().copied().unwrap_or_default();
    Key::from_bytes((u128::from(high) << u64::BITS | u128::from(low)).to_le_bytes())
}

impl Entry {
    #[inline]
    fn new(rule: u8, state: Receipt) -> Self {
        let Receipt([low, high]) = state;
        Self([low, high & ((1 << RULE_FROM) - 1) | u64::from(rule) << RULE_FROM])
    }

    #[inline]
    fn halves(&self) -> [u64; 2] {
        let [low, high] = self.0;
        [low, high & ((1 << RULE_FROM) - 1)]
    }

    fn state(&self) -> State {
        State::unpacked(self.halves(), Form::of(self.rule()))
    }

    #[inline]
    fn rule(&self) -> u8 {
        let [_, high] = self.0;
        (high >> RULE_FROM) as u8
    }

    fn is_slots(&self) -> bool {
        self.rule() == SLOTS
    }

    #[inline]
    fn is_of(&self, limit: &Limit) -> bool {
        self.rule() == limit.kind.code()
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

/// In the head, the bits of a time in grains.
const UNTIL_BITS: u32 = 44;
const UNTIL: u64 = (1 << UNTIL_BITS) - 1;
/// In the second half of a state, the bits that it leaves free.
const RULE_FROM: u32 = 62;

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
        let (mut words, mut layouts) = ([0; WIDEST], Layouts::default());
        let mut record = Record { words: &mut words, layouts: &mut layouts };
        let empty = record.layouts.take(Layout::default()).unwrap();
        record.begin(&Key::from_bytes([1; 16]), empty, &[]);
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
        let (mut words, mut layouts) = ([0; WIDEST], Layouts::default());
        let mut record = Record { words: &mut words, layouts: &mut layouts };
        let empty = record.layouts.take(Layout::default()).unwrap();
        record.begin(&Key::from_bytes([1; 16]), empty, &[]);
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

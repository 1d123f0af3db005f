//! A heap from which anything can be taken, and in which anything may change: each flow knows its place in it.

/// A flow in line: the least counter goes first, and of equal ones the one that has been in line for longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) counter: u64,
    pub(super) order: u64,
    pub(super) flow: u32,
}

#[derive(Debug, Default)]
pub(super) struct Heap(Vec<Entry>);

/// Children of an entry: four of them are in one or two lines of the cache.
const ARITY: usize = 4;

/// `moved` is told of each flow that has another place.
impl Heap {
    pub(super) fn first(&self) -> Option<Entry> {
        self.0.first().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, entry: Entry, moved: &mut impl FnMut(u32, u32)) {
        self.0.push(entry);
        self.up(self.0.len() - 1, entry, moved);
    }

    pub(super) fn remove(&mut self, place: u32, moved: &mut impl FnMut(u32, u32)) {
        let Some(last) = self.0.pop() else { return };
        if (place as usize) < self.0.len() {
            self.fit(place as usize, last, moved);
        }
    }

    /// The counter of the flow at `place` is another.
    pub(super) fn change(&mut self, place: u32, counter: u64, moved: &mut impl FnMut(u32, u32)) {
        let Some(entry) = self.0.get(place as usize).copied() else { return };
        self.fit(place as usize, Entry { counter, ..entry }, moved);
    }

    /// Lowers all counters. None is less.
    pub(super) fn lower(&mut self, by: u64) {
        self.0.iter_mut().for_each(|entry| entry.counter = entry.counter.saturating_sub(by));
    }

    fn fit(&mut self, at: usize, entry: Entry, moved: &mut impl FnMut(u32, u32)) {
        match at.checked_sub(1).and_then(|at| self.0.get(at / ARITY)) {
            Some(parent) if entry < *parent => self.up(at, entry, moved),
            _ => self.down(at, entry, moved),
        }
    }

    fn up(&mut self, mut at: usize, entry: Entry, moved: &mut impl FnMut(u32, u32)) {
        while let Some(above) = at.checked_sub(1).map(|at| at / ARITY)
            && let Some(parent) = self.0.get(above).copied()
            && entry < parent
        {
            self.put(at, parent, moved);
            at = above;
        }
        self.put(at, entry, moved);
    }

    fn down(&mut self, mut at: usize, entry: Entry, moved: &mut impl FnMut(u32, u32)) {
        loop {
            let first = at * ARITY + 1;
            let below = self.0.get(first..self.0.len().min(first + ARITY)).unwrap_or_default();
            let least = below.iter().copied().zip(first..).min();
            match least {
                Some((child, from)) if child < entry => {
                    self.put(at, child, moved);
                    at = from;
                }
                _ => break,
            }
        }
        self.put(at, entry, moved);
    }

    fn put(&mut self, at: usize, entry: Entry, moved: &mut impl FnMut(u32, u32)) {
        if let Some(place) = self.0.get_mut(at) {
            *place = entry;
            // There are no more flows than `u32` has.
            moved(entry.flow, at as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The first is always the least, and each flow knows its place, whatever comes, changes or goes.
        #[test]
        fn the_first_is_the_least(steps in prop::collection::vec((0..3_u8, 0..40_u32, 0..50_u64), 1..400)) {
            let (mut heap, mut model) = (Heap::default(), BTreeSet::<Entry>::new());
            let mut places = [0; 40];
            for (order, (step, flow, counter)) in (0..).zip(steps) {
                let known = model.iter().find(|entry| entry.flow == flow).copied();
                let mut moved = |flow: u32, place: u32| places[flow as usize] = place;
                match (step, known) {
                    (0, None) => {
                        heap.push(Entry { counter, order, flow }, &mut moved);
                        model.insert(Entry { counter, order, flow });
                    }
                    (1, Some(known)) => {
                        let place = places[flow as usize];
                        heap.change(place, counter, &mut |flow, place| places[flow as usize] = place);
                        model.remove(&known);
                        model.insert(Entry { counter, ..known });
                    }
                    (2, Some(known)) => {
                        let place = places[flow as usize];
                        heap.remove(place, &mut |flow, place| places[flow as usize] = place);
                        model.remove(&known);
                    }
                    _ => {}
                }
                prop_assert_eq!(heap.first(), model.first().copied());
                for entry in &model {
                    prop_assert_eq!(heap.0[places[entry.flow as usize] as usize], *entry);
                }
            }
        }
    }
}

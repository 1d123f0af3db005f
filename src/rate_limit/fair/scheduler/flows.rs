//! Who is served next within a tier: virtual token counters (VTC, arXiv 2401.00588), of groups first, then of the subjects
//! of a group.
//!
//! A tree of three levels: tiers, their groups, their subjects. A flow is in its parent's heap of those in line while
//! requests of its own wait; among the idle while it has none that waits or runs; spent when nothing would change if it had
//! never been.

use std::collections::VecDeque;

use hashbrown::HashTable;

use super::{
    heap::{Entry, Heap},
    lengths::Lengths,
    queue::List,
    slab::{NONE, Slab},
};

/// A tier, a group or a subject.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub(super) parent: u32,
    key: Option<u64>,
    /// Cost of what it was let in with so far, as corrected since.
    pub(super) counter: u64,
    order: u64,
    /// Its requests that wait, and those that run.
    pub(super) queued: u32,
    pub(super) flying: u32,
    home: Home,
    // Of a tier or a group:
    ready: Heap,
    idle: Heap,
    /// What a child had when it was last let in. None that comes anew has less: time in which it asked for nothing is no
    /// credit.
    floor: u64,
    pub(super) lengths: Lengths,
    // Of a group or a subject: its neighbours among those with queues as long as its own.
    pub(super) longer: u32,
    pub(super) shorter: u32,
    // Of a subject:
    pub(super) queue: List,
    /// The tier in which it is found whatever its group; `NONE` if it is not.
    found_in: u32,
}

/// What is done to a heap.
#[derive(Clone, Copy, Debug)]
enum Step {
    Push(Entry),
    Remove(u32),
    Change(u32, u64),
}

/// The heap of its parent that a flow is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Home {
    /// Requests wait.
    Ready,
    /// None waits, some run.
    #[default]
    None,
    /// It has none at all.
    Idle,
    /// And it is as if it had never had any.
    Spent,
}

impl Flow {
    fn heap(&mut self, home: Home) -> Option<&mut Heap> {
        match home {
            Home::Ready => Some(&mut self.ready),
            Home::None | Home::Spent => None,
            Home::Idle => Some(&mut self.idle),
        }
    }
}

/// All flows. The tiers are the first of them.
#[derive(Debug)]
pub(super) struct Flows {
    pub(super) flows: Slab<Flow>,
    /// Groups and subjects, by their parents and keys.
    known: HashTable<u32>,
    /// Of those the subjects that stay in their groups, by their tiers and keys.
    subjects: HashTable<u32>,
    /// Of those, how many are spent; and which became so lately, by their order then. They are forgotten in that order, and
    /// not at once: most callers come again, and are found more quickly than made.
    spent: usize,
    lately_spent: VecDeque<(u32, u64)>,
    most: usize,
    /// Where each flow is in its parent's heap: side by side, since of those that are moved nothing else is touched.
    places: Vec<u32>,
    orders: u64,
}

impl Flows {
    /// For so many tiers, and at most so many groups and subjects.
    pub(super) fn new(tiers: usize, most: usize) -> Self {
        let mut flows = Slab::<Flow>::default();
        for _ in 0..tiers {
            let tier = flows.take();
            flows.at_mut(tier).parent = NONE;
        }
        Self {
            flows,
            known: HashTable::new(),
            subjects: HashTable::new(),
            spent: 0,
            lately_spent: VecDeque::new(),
            most,
            places: vec![0; tiers],
            orders: 0,
        }
    }

    /// The flow of a subject that has a request, lifted to what others have by now if it had none that waits. One that
    /// `stays` keeps the group in which it is in line: it has no turns in several at a time.
    pub(super) fn enter(&mut self, tier: u32, group: u64, subject: u64, stays: bool) -> u32 {
        if stays && let Some(subject) = self.in_line(tier, subject) {
            let group = self.flows.at(subject).parent;
            self.lift(group, self.flows.at(tier).floor);
            self.lift(subject, self.flows.at(group).floor);
            return subject;
        }
        // All those for whom there is no room share one flow, so that none is remembered for ever.
        let group = self.child(tier, group, NONE);
        self.child(group, subject, if stays { tier } else { NONE })
    }

    /// The flow of a subject of a tier, in whichever group, if it is not spent.
    fn in_line(&self, tier: u32, subject: u64) -> Option<u32> {
        let is_it = |place: &u32| {
            let flow = self.flows.at(*place);
            flow.found_in == tier && flow.key == Some(subject) && flow.home != Home::Spent
        };
        self.subjects.find(hash(tier, Some(subject)), is_it).copied()
    }

    fn child(&mut self, parent: u32, key: u64, found_in: u32) -> u32 {
        let has_room = self.remembered() < self.most;
        let known = self.find(parent, Some(key));
        let known = if has_room { known } else { known.or_else(|| self.find(parent, None)) };
        let floor = self.flows.at(parent).floor;
        let Some(place) = known else {
            return self.make(parent, Some(key).filter(|_| has_room), floor, found_in);
        };
        self.lift(place, floor);
        place
    }

    fn lift(&mut self, place: u32, floor: u64) {
        let flow = self.flows.at_mut(place);
        if flow.home == Home::Spent {
            self.spent = self.spent.saturating_sub(1);
            (flow.home, flow.counter, flow.floor) = (Home::None, floor, 0);
        } else if flow.queued == 0 && flow.counter < floor {
            flow.counter = floor;
        }
    }

    fn find(&self, parent: u32, key: Option<u64>) -> Option<u32> {
        let is_it = |place: &u32| {
            let flow = self.flows.at(*place);
            flow.parent == parent && flow.key == key
        };
        self.known.find(hash(parent, key), is_it).copied()
    }

    fn make(&mut self, parent: u32, key: Option<u64>, floor: u64, found_in: u32) -> u32 {
        let place = self.flows.take();
        let flow = self.flows.at_mut(place);
        // All else is as it was left: nothing is in its heaps, its lists or its queue.
        debug_assert!(flow.queued == 0 && flow.flying == 0 && flow.home == Home::None);
        debug_assert!(flow.ready.len() == 0 && flow.idle.len() == 0);
        (flow.parent, flow.key, flow.counter, flow.floor) = (parent, key, floor, 0);
        flow.found_in = found_in;
        if self.places.len() <= place as usize {
            self.places.push(0);
        }
        let flows = &self.flows;
        let again = |place: &u32| {
            let flow = flows.at(*place);
            hash(flow.parent, flow.key)
        };
        self.known.insert_unique(hash(parent, key), place, again);
        if found_in != NONE {
            let again = |place: &u32| {
                let flow = flows.at(*place);
                hash(flow.found_in, flow.key)
            };
            self.subjects.insert_unique(hash(found_in, key), place, again);
        }
        place
    }

    /// The subject of a tier whose turn it is.
    pub(super) fn next(&self, tier: u32) -> Option<u32> {
        let group = self.flows.at(tier).ready.first()?.flow;
        Some(self.flows.at(group).ready.first()?.flow)
    }

    /// The subject of a tier with the longest queue, of the group with the longest.
    pub(super) fn longest(&self, tier: u32) -> Option<u32> {
        self.longest_in(self.flows.at(tier).lengths.first()?)
    }

    /// The subject of a group with the longest queue.
    pub(super) fn longest_in(&self, group: u32) -> Option<u32> {
        self.flows.at(group).lengths.first()
    }

    /// One more of a subject's requests waits, or one less.
    pub(super) fn queued(&mut self, subject: u32, more: bool) {
        let path = self.path(subject);
        for (flow, parent) in path {
            let queued = &mut self.flows.at_mut(flow).queued;
            let before = one_more(queued, more);
            let now = *queued;
            self.set_length(flow, parent, before, now);
        }
        let [_, (_, tier)] = path;
        one_more(&mut self.flows.at_mut(tier).queued, more);
    }

    /// A request of a subject is let in, and thought to cost so much.
    pub(super) fn let_in(&mut self, subject: u32, cost: u64) {
        for (flow, parent) in self.path(subject) {
            let flow = self.flows.at_mut(flow);
            flow.flying += 1;
            let counter = flow.counter;
            flow.counter = counter.saturating_add(cost);
            let floor = &mut self.flows.at_mut(parent).floor;
            *floor = counter.max(*floor);
        }
    }

    /// A request of a subject that was charged `from` is gone, and has cost `to`.
    pub(super) fn done(&mut self, subject: u32, from: u64, to: u64) {
        for (flow, parent) in self.path(subject) {
            one_more(&mut self.flows.at_mut(flow).flying, false);
            self.recount(flow, parent, from, to);
        }
    }

    /// What a subject was charged `from` costs `to`.
    pub(super) fn correct(&mut self, subject: u32, from: u64, to: u64) {
        for (flow, parent) in self.path(subject) {
            self.recount(flow, parent, from, to);
        }
    }

    fn recount(&mut self, flow: u32, parent: u32, from: u64, to: u64) {
        let counter = &mut self.flows.at_mut(flow).counter;
        *counter = counter.saturating_add(to).saturating_sub(from);
        if *counter > HIGH {
            self.lower(parent);
        }
    }

    /// Puts a subject and its group where they belong, after any of the above, and forgets those who are as if they had never
    /// been: the idle ones that are no longer ahead, and where nobody waits, all of them. Those are ahead by one request at
    /// most, since the floor is where anybody who had more was last let in.
    pub(super) fn settle(&mut self, subject: u32) {
        for (flow, parent) in self.path(subject) {
            self.rehome(flow, parent);
            self.forget(parent);
        }
    }

    /// How many groups and subjects are remembered, those aside that are spent.
    pub(super) fn remembered(&self) -> usize {
        self.known.len().saturating_sub(self.spent)
    }

    /// How many subjects take their turns before one that has just had its own, at least.
    pub(super) fn turns(&self, subject: u32) -> u64 {
        let beside = |(_, parent)| self.flows.at(parent).ready.len().max(1) as u64;
        self.path(subject).map(beside).into_iter().fold(1, u64::saturating_mul)
    }

    /// A subject and its group, each with its parent.
    fn path(&self, subject: u32) -> [(u32, u32); 2] {
        let group = self.flows.at(subject).parent;
        [(subject, group), (group, self.flows.at(group).parent)]
    }

    fn rehome(&mut self, place: u32, parent: u32) {
        let flow = self.flows.at(place);
        let home = match () {
            () if flow.queued > 0 => Home::Ready,
            () if flow.flying > 0 => Home::None,
            () => Home::Idle,
        };
        let (from, counter) = (flow.home, flow.counter);
        if from == home && home == Home::None {
            return;
        }
        let at = self.places.get(place as usize).copied().unwrap_or_default();
        if home == Home::Idle && self.is_past(parent, counter) {
            self.heap(parent, from, Step::Remove(at));
            return self.spend(place);
        }
        let flow = self.flows.at_mut(place);
        if from == home {
            // A refund is found at once, not when the flow's turn comes: else others get twice as far ahead.
            return self.heap(parent, home, Step::Change(at, counter));
        }
        if home == Home::Ready {
            self.orders += 1;
            flow.order = self.orders;
        }
        let entry = Entry { counter, order: flow.order, flow: place };
        flow.home = home;
        self.heap(parent, from, Step::Remove(at));
        self.heap(parent, home, Step::Push(entry));
    }

    #[inline]
    fn heap(&mut self, parent: u32, home: Home, step: Step) {
        if home != Home::None {
            self.step(parent, home, step);
        }
    }

    fn step(&mut self, parent: u32, home: Home, step: Step) {
        let Some(heap) = self.flows.at_mut(parent).heap(home) else { return };
        let mut heap = std::mem::take(heap);
        let places = &mut self.places;
        let mut moved = |flow: u32, place| {
            if let Some(at) = places.get_mut(flow as usize) {
                *at = place;
            }
        };
        match step {
            Step::Push(entry) => heap.push(entry, &mut moved),
            Step::Remove(place) => heap.remove(place, &mut moved),
            Step::Change(place, counter) => heap.change(place, counter, &mut moved),
        }
        if let Some(taken) = self.flows.at_mut(parent).heap(home) {
            *taken = heap;
        }
    }

    /// Whether an idle child with so much is as good as none.
    fn is_past(&self, parent: u32, counter: u64) -> bool {
        let parent = self.flows.at(parent);
        parent.queued == 0 || counter <= parent.floor
    }

    #[inline]
    fn forget(&mut self, parent: u32) {
        while let Some(first) = self.flows.at(parent).idle.first()
            && self.is_past(parent, first.counter)
        {
            self.heap(parent, Home::Idle, Step::Remove(0));
            self.spend(first.flow);
        }
    }

    /// A flow that is in no heap is as if it had never been.
    fn spend(&mut self, place: u32) {
        self.orders += 1;
        let flow = self.flows.at_mut(place);
        debug_assert!(flow.home != Home::Spent, "spent twice");
        (flow.home, flow.order) = (Home::Spent, self.orders);
        self.spent += 1;
        self.lately_spent.push_back((place, self.orders));
        if self.lately_spent.len() > MOST_SPENT
            && let Some((place, order)) = self.lately_spent.pop_front()
        {
            self.drop(place, order);
        }
    }

    /// Forgets a flow that has been spent since.
    fn drop(&mut self, place: u32, since: u64) {
        let flow = self.flows.at_mut(place);
        if flow.home != Home::Spent || flow.order != since {
            return;
        }
        flow.home = Home::None;
        let (by_parent, by_tier) = (hash(flow.parent, flow.key), hash(flow.found_in, flow.key));
        for (table, hash) in [(&mut self.known, by_parent), (&mut self.subjects, by_tier)] {
            if let Ok(known) = table.find_entry(hash, |known| *known == place) {
                known.remove();
            }
        }
        self.spent = self.spent.saturating_sub(1);
        self.flows.give_back(place);
    }

    #[cfg(test)]
    pub(super) fn assert_consistent(&self) {
        let subjects = self.known.iter().filter(|place| self.flows.at(**place).found_in != NONE);
        assert_eq!(subjects.count(), self.subjects.len());
        for place in &self.subjects {
            let flow = self.flows.at(*place);
            assert_eq!(self.flows.at(flow.parent).parent, flow.found_in);
            assert_eq!(self.find(flow.parent, flow.key), Some(*place));
        }
    }

    /// Lowers the counters of all children by what all have, before they overflow.
    fn lower(&mut self, parent: u32) {
        let above = self.flows.at_mut(parent);
        let least = above.ready.first().map_or(above.floor, |first| first.counter);
        let by = least.min(above.floor);
        above.floor -= by;
        above.ready.lower(by);
        above.idle.lower(by);
        for flow in self.flows.iter_mut().filter(|flow| flow.parent == parent) {
            flow.counter = flow.counter.saturating_sub(by);
        }
    }
}

/// Counts one more, or one less. How many there were.
fn one_more(count: &mut u32, more: bool) -> u32 {
    let before = *count;
    *count = if more { before + 1 } else { before.saturating_sub(1) };
    before
}

/// Spent flows that are known.
pub(super) const MOST_SPENT: usize = 1 << 10;

/// Where counters are lowered. A single request adds far less than what is left above.
const HIGH: u64 = 1 << 62;

/// Keys are keyed hashes already: they are only spread over all bits, as places and small numbers are not.
fn hash(parent: u32, key: Option<u64>) -> u64 {
    // Those for whom there was no room have none.
    let key = key.map_or(1, |key| key.rotate_left(32));
    let hash = (key ^ u64::from(parent)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 32)
}

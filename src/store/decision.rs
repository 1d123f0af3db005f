//! What a store is asked, and what it answers.

use std::time::Duration;

use super::{Charge, MAX_CHARGES};

/// Names a reservation within its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReservationId(pub(crate) u64);

impl ReservationId {
    /// A new one, unlike all others of this process.
    #[must_use]
    pub fn next() -> Self {
        use std::{
            cell::Cell,
            sync::atomic::{AtomicU64, Ordering},
        };
        /// Taken at a time by a thread, so that threads do not wait for each other.
        const BLOCK: u64 = 1024;
        static BLOCKS: AtomicU64 = AtomicU64::new(1);
        thread_local! {
            static NEXT: Cell<u64> = const { Cell::new(0) };
        }
        NEXT.with(|next| {
            let mut id = next.get();
            if id % BLOCK == 0 {
                id = BLOCKS.fetch_add(1, Ordering::Relaxed) * BLOCK;
            }
            next.set(id + 1);
            Self(id)
        })
    }

    /// The id as a number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

/// A wish to charge several limits, all or none.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Admission<'a> {
    /// What is to be admitted.
    pub id: ReservationId,
    /// At most [`MAX_CHARGES`].
    pub charges: &'a [Charge],
}

impl<'a> Admission<'a> {
    /// All of `charges`, or none.
    #[must_use]
    pub const fn new(id: ReservationId, charges: &'a [Charge]) -> Self {
        Self { id, charges }
    }
}

/// Up to [`MAX_CHARGES`] items, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inline<T> {
    len: u8,
    items: [T; MAX_CHARGES],
}

/// Where a limit stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// Units that can still be admitted now.
    pub remaining: u64,
    /// Until all of the limit is there again.
    pub reset: Duration,
}

impl Standing {
    /// `remaining` units now, and all of them after `reset`.
    #[must_use]
    pub const fn new(remaining: u64, reset: Duration) -> Self {
        Self { remaining, reset }
    }
}

/// Where each limit of an admission stands, in its order.
pub type Standings = Inline<Standing>;

/// What a store needs to give a charge back safely. Opaque to all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // Stores make them.
pub struct Receipt(pub [u64; 2]);

/// What a store wrote down of a decision: for itself, but for `degraded`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// One per charge. Those of a grant are handed back in the settlement.
    pub receipts: Inline<Receipt>,
    /// When it was, by the store's clock.
    pub at: u64,
    /// Whether it was decided without the store, which is out of reach.
    pub degraded: bool,
}

impl Seen {
    /// Receipts of a decision at a time of the store's.
    #[must_use]
    pub const fn new(receipts: Inline<Receipt>, at: u64) -> Self {
        Self { receipts, at, degraded: false }
    }

    /// The same, decided without the store.
    #[must_use]
    pub const fn as_degraded(mut self) -> Self {
        self.degraded = true;
        self
    }
}

/// An admission that was refused. Nothing was charged.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// The charge that did not fit: of several, the one that must wait longest.
    pub index: usize,
    /// When it would fit, if nothing else were charged. `None`: never, the cost is beyond the limit's capacity;
    /// or nobody knows, as for a slot.
    pub retry_after: Option<Duration>,
    /// What [`LimiterStore::standings`](super::LimiterStore::standings) reads.
    pub seen: Seen,
}

impl Refusal {
    /// Refused for the charge at `index`.
    #[must_use]
    pub const fn new(index: usize, retry_after: Option<Duration>, seen: Seen) -> Self {
        Self { index, retry_after, seen }
    }
}

/// What became of an admission.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_enums)]
pub enum Decision {
    /// Everything was charged.
    Admitted(Seen),
    /// Nothing was charged.
    Refused(Refusal),
}

/// What was charged and what was really used.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Settlement<'a> {
    /// The reservation, as admitted.
    pub id: ReservationId,
    /// The charges, as admitted.
    pub charges: &'a [Charge],
    /// The receipts of the grant.
    pub receipts: &'a [Receipt],
    /// Units really used, one per charge. Less is given back as far as it is safe to; more becomes
    /// debt. Slots are given back whatever stands here.
    pub used: &'a [u64],
}

impl<'a> Settlement<'a> {
    /// `used[i]` units of `charges[i]`.
    #[must_use]
    pub const fn new(
        id: ReservationId,
        charges: &'a [Charge],
        receipts: &'a [Receipt],
        used: &'a [u64],
    ) -> Self {
        Self { id, charges, receipts, used }
    }
}

impl<T: Copy> Inline<T> {
    /// None yet. `fill` stands in the unused places and is never seen.
    #[must_use]
    #[inline]
    pub const fn new(fill: T) -> Self {
        Self { len: 0, items: [fill; MAX_CHARGES] }
    }

    /// So many of the same, or as many as there are places for.
    #[inline]
    pub(crate) fn filled(item: T, count: usize) -> Self {
        Self { len: count.min(MAX_CHARGES) as u8, items: [item; MAX_CHARGES] }
    }

    /// Those of `items` that there are places for: all, where there is one for each charge. `fill` is as in
    /// [`new`](Self::new).
    #[inline]
    pub(crate) fn collect(fill: T, items: impl IntoIterator<Item = T>) -> Self {
        let (mut all, mut len) = (Self::new(fill), 0);
        // Counted aside: a count that is kept in memory makes each item wait for the one before.
        for (place, item) in all.items.iter_mut().zip(items) {
            *place = item;
            len += 1;
        }
        Self { len, ..all }
    }

    /// What `of` makes of each, and of what stands in the unused places: all alike, so that it takes no branch, and one by
    /// one, so that each is made where it is to be.
    #[inline]
    pub(crate) fn map_mut<U>(&mut self, mut of: impl FnMut(&mut T) -> U) -> Inline<U> {
        let [a, b, c, d, e, f, g, h] = &mut self.items;
        let items = [of(a), of(b), of(c), of(d), of(e), of(f), of(g), of(h)];
        Inline { len: self.len, items }
    }

    /// Adds as many of the same as are wanting to so many, or to as many as there are places for.
    pub(crate) fn fill_up(&mut self, item: T, count: usize) {
        while usize::from(self.len) < count && self.push(item) {}
    }

    /// So many items, whatever they were, to be written.
    #[inline]
    pub(crate) fn stretched(&mut self, count: usize) -> &mut [T] {
        self.len = count.min(MAX_CHARGES) as u8;
        self.as_mut_slice()
    }

    /// Takes all out.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Adds one more. False, and nothing added, when all places are taken.
    #[inline]
    pub fn push(&mut self, item: T) -> bool {
        match self.items.get_mut(usize::from(self.len)) {
            Some(place) => {
                *place = item;
                self.len += 1;
                true
            }
            None => false,
        }
    }

    /// The items.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[T] {
        self.items.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The items, to change.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        self.items.get_mut(..usize::from(self.len)).unwrap_or_default()
    }
}

impl<T: Copy + Default> Default for Inline<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

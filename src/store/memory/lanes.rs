//! Admissions of a busy key, taken ahead.
//!
//! Where one key is admitted about a million times a second, so that those who ask would wait for each other, a lane (of each thread one, as far as
//! they go) charges many of the same admissions at once and grants them one by one: a lease, by which only its own lane
//! is locked. Of a key whose admissions each cost something else nothing is taken ahead.
//!
//! A lease admits no more than its limits do: it is charged as if all of it were used when it ends, and what it grants
//! counts as if it had been charged alone. It grants by the coarse time, which takes a fifth of the time to tell, and lasts for as long as
//! that may be behind, and a little more. And it keeps nothing from others: before anyone is refused, or a record is
//! looked at or reset, its leases are recalled and give back what is left of them. What an admission is told of where its
//! limits stand may be older than it by as long as a lease lasts; and what a lease gives back counts as any refund does: a
//! reservation that began before it may be given back that much less.
//!
//! Order of locks: lanes as they are numbered, then shards.

use std::sync::{
    PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use super::slabs::hash;
use crate::{
    store::{
        Charge, Inline, Key, NO_CHARGE, Receipt, Seen,
        rules::{self, Again, Asks},
    },
    sync::{AtomicU64, Mutex, MutexGuard, thread_local},
};

#[derive(Debug)]
pub(super) struct Lanes(Box<[Lane]>);

/// In lines of a processor's cache of its own, and their neighbours, which are fetched with them.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane {
    /// Of the busy key whose admissions are to be looked for here.
    tag: AtomicU64,
    lease: Mutex<Lease>,
}

/// Admissions of the same charges, to be granted by and by.
#[derive(Debug)]
pub(super) struct Lease {
    /// Of each admission. None: there is no lease.
    charges: Inline<Charge>,
    asks: Asks,
    /// Where the limits would stand if only what is granted had been charged.
    again: Inline<Again>,
    /// The latest time at which it granted, or began.
    at: u64,
    /// Where they stood when all of it was.
    receipts: Inline<Receipt>,
    /// By how much of each rate's time it was charged as if later than when it began: what had drained by then.
    early: Inline<u64>,
    /// How many it took, but those that it gave back, and what is left of them.
    taken: u64,
    left: u64,
    /// So many granted show that it is in demand.
    enough: u64,
    /// Other charges of its key were asked for.
    in_vain: bool,
    /// The tick with which it ends.
    until: u64,
    /// Grows from lease to lease.
    number: usize,
}

/// What a lease that is no more did not grant.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) charges: Inline<Charge>,
    pub(super) receipts: Inline<Receipt>,
    /// Of each limit so much is to be given back.
    pub(super) unused: Inline<u64>,
    /// The tick with which the lease ended.
    pub(super) ended: u64,
    number: usize,
}

impl Default for Lanes {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self((0..threads.clamp(2, MOST).next_power_of_two()).map(|_| Lane::default()).collect())
    }
}

impl Lanes {
    /// None: nothing is taken ahead.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(Box::default())
    }

    /// The lane of this thread, locked, if admissions of the key are to be looked for in it.
    #[inline]
    pub(super) fn of(&self, key: &Key) -> Option<MutexGuard<'_, Lease>> {
        let lane = self.mine()?;
        (lane.tag.load(Ordering::Relaxed) == hash(key)).then(|| lane.lock())
    }

    /// Has admissions of the key looked for in this thread's lane from now on.
    pub(super) fn look_for(&self, key: &Key) {
        if let Some(lane) = self.mine() {
            lane.tag.store(hash(key), Ordering::Relaxed);
        }
    }

    /// Ends the leases of all lanes that it `concerns`, and has `give_back` what they did not grant, in the order in which
    /// they began: what is given back of a rate moves what was charged before. Until all of it is given back, whoever
    /// else wants to end one waits. Not to be called with a lane locked.
    pub(super) fn recall(
        &self,
        now: u64,
        concerns: impl Fn(&Lease) -> bool,
        mut give_back: impl FnMut(&Rest),
    ) {
        let lanes = self.0.iter().map(Lane::lock);
        let mut held: Vec<_> = lanes.filter(|lease| concerns(lease)).collect();
        let mut rests: Vec<_> = held.iter_mut().filter_map(|lease| lease.end(now)).collect();
        rests.sort_by_key(|rest| rest.number);
        rests.iter().for_each(&mut give_back);
    }

    fn mine(&self) -> Option<&Lane> {
        let mask = self.0.len().checked_sub(1)?;
        self.0.get(NUMBER.with(|number| *number) & mask)
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Lease> {
        // A panic while it was held, which nothing here can cause, left a whole lease behind.
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Grants one admission of these charges, if there is one, by a time that may be so much behind. What was seen of it.
    #[inline]
    pub(super) fn grant(&mut self, charges: &[Charge], now: u64, behind: u64) -> Option<Seen> {
        if self.left == 0 || now + behind > self.until {
            return None;
        }
        if !rules::are_same(charges, self.charges.as_slice()) {
            self.in_vain = true;
            return None;
        }
        let now = now.max(self.at);
        self.left -= 1;
        self.at = now;
        Some(Seen::new(self.again.map_mut(|again| again.charge(now)), now))
    }

    /// Begins one of `count` admissions after one that was just granted as `seen`, which are charged as `receipts` say.
    pub(super) fn begin(
        &mut self,
        charges: &[Charge],
        seen: &Seen,
        receipts: Inline<Receipt>,
        count: u64,
        until: u64,
    ) {
        self.charges = Inline::collect(NO_CHARGE, charges.iter().copied());
        self.asks = Asks::of(charges);
        let again = Again::all(charges, &self.asks, seen.receipts.as_slice());
        self.again = Inline::collect(Again::default(), again);
        self.early =
            Inline::collect(0, self.again.as_slice().iter().map(|it| it.drained_by(until)));
        (self.at, self.receipts) = (seen.at, receipts);
        (self.taken, self.left, self.until) = (count, count, until);
        (self.enough, self.in_vain) = (count.min(BUSY.into()), false);
        self.number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends it. What it did not grant is to be given back.
    pub(super) fn end(&mut self, now: u64) -> Option<Rest> {
        let Self { charges, receipts, left, until, number, .. } = *self;
        if charges.as_slice().is_empty() {
            return None;
        }
        let ended = until.min(now.max(self.at));
        let parts = self.asks.iter().zip(self.early.as_slice());
        let unused = parts.map(|(ask, early)| ask.step * left + (*early).min(until - ended));
        let unused = Inline::collect(0, unused);
        self.taken -= left;
        self.left = 0;
        self.charges.clear();
        Some(Rest { charges, receipts, unused, ended, number })
    }

    /// Whether there is nothing to give back.
    pub(super) fn is_used_up(&self) -> bool {
        self.left == 0
    }

    /// Whether it granted as many as make a key a busy one, or all that it had: then more will be wanted; or was in vain,
    /// as where each admission of a key costs something else. `None`: neither, or that is long ago.
    pub(super) fn was_in_demand(&self, now: u64) -> Option<bool> {
        let is_recent = now <= self.until + LONGEST;
        let was_granted = self.taken - self.left >= self.enough;
        (is_recent && (was_granted || self.in_vain)).then_some(was_granted)
    }

    /// Whether it grants nothing more, or keeps something of a record that is charged.
    pub(super) fn concerns(&self, record: impl Fn(&Key) -> bool, now: u64) -> bool {
        let charges = self.charges.as_slice();
        self.left == 0 || now > self.until || charges.iter().any(|charge| record(&charge.record))
    }
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            charges: Inline::new(NO_CHARGE),
            asks: Asks::of(&[]),
            again: Inline::default(),
            at: 0,
            receipts: Inline::default(),
            early: Inline::default(),
            taken: 0,
            left: 0,
            enough: 1,
            in_vain: false,
            until: 0,
            number: 0,
        }
    }
}

/// So many admissions of one key, in no more time than a lease lasts, make it a busy one.
pub(super) const BUSY: u32 = if cfg!(palisade_shuttle) { 1 } else { 32 };
/// The most lanes.
const MOST: usize = 64;
/// How long a lease lasts, in ticks, and besides for as long as its clock may be behind: 40 microseconds. The drain of so long a
/// time is what it may cost.
pub(super) const LONGEST: u64 = rules::SECOND / 25_000;

static NUMBERS: AtomicUsize = AtomicUsize::new(1);
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
}

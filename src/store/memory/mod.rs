//! The store of one process.

mod bucket;
mod facts;
mod lanes;
mod layouts;
mod limits;
mod locked;
mod record;
mod records;
mod shard;
mod slabs;
mod table;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use self::{facts::Facts, lanes::Lease, limits::Limits, records::Records};
use super::{
    Admission, Charge, Decision, Distinct, FactStore, Key, LimiterStore, RecordPage, RecordStore,
    Seen, Settlement, Standings, StoreFuture, rules,
};
use crate::{
    clock::{Clock, SystemClock},
    error::BuildError,
    future::ReadyOr,
    sync::MutexGuard,
};

/// Limits, facts and records in the memory of this process.
///
/// Every answer is ready at once: an admission counts as granted when `acquire` returns. An admission on
/// known keys allocates nothing.
///
/// **Busy keys.** Threads that ask for the same of one key a million times a second take admissions ahead, for at most as long as the
/// clock's coarse time may be behind ([`Clock::coarseness`]: two ticks of the kernel's, 8 ms on most machines) and 40 microseconds, and
/// do not wait for each other. Only rates and slots are taken so, nobody is refused for it, and no more is admitted than the limits
/// allow: at the most, what drains of a limit in so short a time is not there yet.
///
/// **Bounded.** A record takes about 30 bytes and 19 for each of its limits, room to grow included, whatever its key (125 with
/// five limits), and is reclaimed only when it is idle: when it equals an absent one. So no flood of other keys resets a limit that is in use.
/// A shard that is full grows by an eighth while its lock is held: with a million records of five limits in the default 64 shards, for half a millisecond.
/// When all records are in use, charges of further keys go, limit by limit, to records that all
/// such keys share (`palisade_store_overflow_total` counts them): strict, and bounded. When there is no
/// room for a further fact, for a further record of a [`RecordStore`], or for one more set of limits that records have (65,000 in a
/// shard), the store answers with an error, and its caller refuses.
///
/// ```
/// use palisade::store::MemoryStore;
///
/// let store = MemoryStore::builder().max_records(100_000).build()?;
/// # Ok::<(), palisade::BuildError>(())
/// ```
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    limits: Limits,
    facts: Facts,
    records: Records,
}

/// Builds a [`MemoryStore`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct MemoryStoreBuilder {
    clock: Arc<dyn Clock>,
    max_records: usize,
    max_facts: usize,
    max_kept_records: usize,
    shards: usize,
}

impl MemoryStore {
    /// Begins a store with the defaults that each option states.
    pub fn builder() -> MemoryStoreBuilder {
        MemoryStoreBuilder {
            clock: Arc::new(SystemClock),
            max_records: MAX_RECORDS,
            max_facts: MAX_FACTS,
            max_kept_records: MAX_KEPT_RECORDS,
            shards: SHARDS,
        }
    }

    fn now(&self) -> u64 {
        rules::ticks(self.clock.monotonic())
    }

    /// Apart, so that what is granted ahead is granted quickly.
    #[inline(never)]
    fn acquire_where_kept(
        &self,
        admission: &Admission<'_>,
        now: u64,
        lane: Option<MutexGuard<'_, Lease>>,
    ) -> StoreFuture<Decision> {
        let mut seen = Seen::default();
        match self.limits.acquire(admission, now, &mut seen, lane) {
            Ok(None) => ReadyOr::ready(Ok(Decision::Admitted(seen))),
            Ok(Some(refusal)) => ReadyOr::ready(Ok(Decision::Refused(refusal))),
            Err(error) => ReadyOr::ready(Err(error)),
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::builder().into_store()
    }
}

impl MemoryStoreBuilder {
    /// The clock to count by. Default: the machine's.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// How many keys' limits are kept, at about 30 bytes each and 19 for each limit: rounded up to
    /// fill all shards evenly, at most 2,000,000 in each.
    /// Default: 1,000,000.
    pub fn max_records(self, max_records: usize) -> Self {
        Self { max_records, ..self }
    }

    /// How many facts are kept, at about 100 bytes each: used ids, values, and members of sets.
    /// Default: 1,000,000.
    pub fn max_facts(self, max_facts: usize) -> Self {
        Self { max_facts, ..self }
    }

    /// How many records of a [`RecordStore`] are kept, at up to 4 KiB each. Default: 1,000,000.
    pub fn max_kept_records(self, max_kept_records: usize) -> Self {
        Self { max_kept_records, ..self }
    }

    /// Over how many locks the keys are spread, rounded up to a power of two. Default: 64.
    pub fn shards(self, shards: usize) -> Self {
        Self { shards, ..self }
    }

    /// The store.
    ///
    /// # Errors
    /// When there is no shard, more than 65,536, no room for a record or a fact in each, or more than they can keep.
    pub fn build(self) -> Result<MemoryStore, BuildError> {
        if self.shards == 0 || self.shards > MOST_SHARDS {
            return Err(BuildError::invalid("shards", "must be from 1 to 65536"));
        }
        let shards = self.shards.next_power_of_two();
        if self.max_records < shards || self.max_records > shards * slabs::MOST_RECORDS {
            let range = "must be from 1 to 2,000,000 for each shard";
            return Err(BuildError::invalid("max_records", range));
        }
        let most = shards.saturating_mul(u32::MAX as usize / 2);
        if self.max_facts < shards || self.max_facts > most {
            return Err(BuildError::invalid("max_facts", "must be at least 1 for each shard"));
        }
        Ok(Self { shards, ..self }.into_store())
    }

    /// The store, of options that were looked at.
    fn into_store(self) -> MemoryStore {
        let behind = rules::ticks(self.clock.coarseness());
        MemoryStore {
            clock: self.clock,
            limits: Limits::new(self.shards, self.max_records, behind),
            facts: Facts::new(self.shards, self.max_facts),
            records: Records::new(self.max_kept_records),
        }
    }
}

impl LimiterStore for MemoryStore {
    fn acquire(&self, admission: &Admission<'_>) -> StoreFuture<Decision> {
        let coarse = || rules::ticks(self.clock.monotonic_coarse());
        match self.limits.granted_ahead(admission.charges, coarse) {
            Ok(seen) => ReadyOr::ready(Ok(Decision::Admitted(seen))),
            Err(lane) => self.acquire_where_kept(admission, self.now(), lane),
        }
    }

    fn settle(&self, settlement: &Settlement<'_>) {
        self.limits.settle(settlement, || self.now());
    }

    fn standings(&self, charges: &[Charge], seen: &Seen) -> Standings {
        rules::standings(charges, seen)
    }

    fn peek(&self, admission: &Admission<'_>) -> StoreFuture<Standings> {
        ReadyOr::ready(self.limits.peek(admission, self.now()))
    }

    fn reset(&self, record: Key) -> StoreFuture<()> {
        self.limits.reset(&record, self.now());
        ReadyOr::ready(Ok(()))
    }

    fn flush(&self) -> StoreFuture<()> {
        ReadyOr::ready(Ok(()))
    }
}

impl FactStore for MemoryStore {
    fn first_use(&self, key: Key, ttl: Duration) -> StoreFuture<bool> {
        ReadyOr::ready(self.facts.first_use(key, ttl, self.clock.monotonic()))
    }

    fn raise(&self, key: Key, value: u64, ttl: Duration) -> StoreFuture<u64> {
        ReadyOr::ready(self.facts.raise(key, value, ttl, self.clock.monotonic()))
    }

    fn get(&self, key: Key) -> StoreFuture<Option<u64>> {
        ReadyOr::ready(self.facts.get(key, self.clock.monotonic()))
    }

    fn distinct(&self, key: Key, member: Key, window: Duration, cap: u32) -> StoreFuture<Distinct> {
        ReadyOr::ready(self.facts.distinct(key, member, window, cap, self.clock.monotonic()))
    }
}

impl RecordStore for MemoryStore {
    fn read(&self, table: &'static str, key: Key) -> StoreFuture<Option<Bytes>> {
        ReadyOr::ready(Ok(self.records.read(table, key)))
    }

    fn compare_and_swap(
        &self,
        table: &'static str,
        key: Key,
        old: Option<Bytes>,
        new: Bytes,
    ) -> StoreFuture<bool> {
        ReadyOr::ready(self.records.compare_and_swap(table, key, old.as_ref(), new))
    }

    fn page(&self, table: &'static str, cursor: Option<Bytes>) -> StoreFuture<RecordPage> {
        ReadyOr::ready(self.records.page(table, cursor.as_ref()))
    }
}

const MAX_RECORDS: usize = 1_000_000;
const MAX_FACTS: usize = 1_000_000;
const MAX_KEPT_RECORDS: usize = 1_000_000;
const SHARDS: usize = 64;
const MOST_SHARDS: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::ManualClock,
        store::{Charge, Limit, LimitId, Receipt, ReservationId},
    };

    const HOUR: Duration = Duration::from_secs(3600);

    fn key(n: u64) -> Key {
        let mut bytes = [0; 16];
        let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        bytes[..8].copy_from_slice(&hash);
        bytes[8..].copy_from_slice(&hash);
        Key::from_bytes(bytes)
    }

    fn requests(quota: u64) -> Limit {
        Limit::rate(LimitId::of("requests"), quota, HOUR)
    }

    fn small(clock: &Arc<ManualClock>, max_records: usize) -> MemoryStore {
        let clock = Arc::clone(clock);
        MemoryStore::builder().clock(clock).max_records(max_records).shards(2).build().unwrap()
    }

    fn acquire(store: &MemoryStore, charges: &[Charge]) -> Decision {
        let answer = store.acquire(&Admission::new(ReservationId::next(), charges));
        answer.try_now().expect("ready").expect("answers")
    }

    fn admits(store: &MemoryStore, charges: &[Charge]) -> bool {
        matches!(acquire(store, charges), Decision::Admitted(_))
    }

    fn settle(store: &MemoryStore, charges: &[Charge], receipts: &[Receipt], used: &[u64]) {
        store.settle(&Settlement::new(ReservationId::next(), charges, receipts, used));
    }

    #[test]
    fn a_flood_of_keys_resets_no_limit() {
        let clock = Arc::new(ManualClock::default());
        let store = small(&clock, 1000);
        let victim = [Charge::new(key(0), requests(10), 1)];
        assert_eq!((0..20).filter(|_| admits(&store, &victim)).count(), 10);
        for junk in 1..50_000 {
            admits(&store, &[Charge::new(key(junk), requests(10), 1)]);
        }
        assert!(!admits(&store, &victim));
    }

    /// Its limit has drained, but a reservation that was moved by a refund could still be given back too much.
    #[test]
    fn a_record_is_kept_while_a_reservation_may_be_given_back() {
        let clock = Arc::new(ManualClock::default());
        let store = small(&clock, 10_000);
        let limit = Limit::rate(LimitId::of("rate"), 100, Duration::from_secs(100)).with_burst(200);
        let charges = [Charge::new(key(0), limit, 100)];
        let take = || match acquire(&store, &charges) {
            Decision::Admitted(grant) => grant.receipts,
            Decision::Refused(refusal) => panic!("{refusal:?}"),
        };
        let (first, second) = (take(), take());
        settle(&store, &charges, first.as_slice(), &[0]);
        clock.advance(Duration::from_secs(150));
        for junk in 1..200 {
            admits(&store, &[Charge::new(key(junk), requests(1), 1)]);
        }
        take();
        settle(&store, &charges, second.as_slice(), &[0]);
        let left = store.peek(&Admission::new(ReservationId::next(), &charges));
        assert_eq!(left.try_now().unwrap().unwrap().as_slice()[0].remaining, 100);
    }

    #[test]
    fn keys_without_a_place_share_a_strict_record_until_the_live_ones_are_idle() {
        let clock = Arc::new(ManualClock::default());
        let store = small(&clock, 100);
        let charges = |n| [Charge::new(key(n), requests(10), 1)];
        let admitted = (0..10_000).filter(|n| admits(&store, &charges(*n))).count();
        // 100 records, or what their shards took of them, and one shared record of 10 in each shard.
        assert_eq!(admitted, 120);
        clock.advance(HOUR);
        let admitted = (20_000..20_100).filter(|n| admits(&store, &charges(*n))).count();
        assert!(admitted >= 80, "{admitted}");
    }

    #[test]
    fn one_limit_of_two_records_that_overflow_is_not_charged_as_one() {
        let store = small(&Arc::default(), 2);
        for n in 0..100 {
            admits(&store, &[Charge::new(key(n), requests(1), 1)]);
        }
        let (mut refused, other) = (0, Limit::rate(LimitId::of("other"), 5, HOUR));
        for n in 1000..1100 {
            let charges = [Charge::new(key(n), other, 4), Charge::new(key(n + 2), other, 4)];
            let answer = store.acquire(&Admission::new(ReservationId::next(), &charges));
            refused += u64::from(answer.try_now().unwrap().is_err());
        }
        assert!(refused > 0, "none of them were of one shard");
    }

    #[test]
    fn what_overflowed_is_given_back_where_it_was_taken() {
        let clock = Arc::new(ManualClock::default());
        let store = small(&clock, 2);
        let slot = Limit::slots(LimitId::of("slots"), 1);
        for n in 0..100 {
            admits(&store, &[Charge::new(key(n), requests(1), 1)]);
        }
        for n in 1000..1100 {
            let charges = [Charge::new(key(n), slot, 1)];
            let Decision::Admitted(grant) = acquire(&store, &charges) else {
                panic!("the slot was not given back")
            };
            assert!(!admits(&store, &charges));
            settle(&store, &charges, grant.receipts.as_slice(), &[0]);
        }
    }

    #[test]
    fn more_limits_than_a_record_has_places_are_refused_until_one_is_idle() {
        let clock = Arc::new(ManualClock::default());
        let store = small(&clock, 100);
        let limit = |n: u64| Limit::rate(LimitId::of(&format!("limit {n}")), 10, HOUR);
        for n in 0..8 {
            assert!(admits(&store, &[Charge::new(key(1), limit(n), 1)]));
        }
        let ninth = [Charge::new(key(1), limit(8), 1)];
        let answer = store.acquire(&Admission::new(ReservationId::next(), &ninth));
        assert!(!answer.try_now().unwrap().unwrap_err().is_transient());
        clock.advance(HOUR);
        assert!(admits(&store, &ninth));
    }

    #[test]
    fn facts_are_bounded_and_the_expired_make_room() {
        let clock = Arc::new(ManualClock::default());
        let store = MemoryStore::builder()
            .clock(Arc::clone(&clock) as _)
            .max_facts(100)
            .shards(1)
            .build()
            .unwrap();
        let first_use = |n| store.first_use(key(n), HOUR).try_now().unwrap();
        for n in 0..100 {
            assert!(first_use(n).unwrap());
        }
        assert!(first_use(100).is_err());
        assert!(!first_use(5).unwrap());
        assert!(store.raise(key(1), 1, HOUR).try_now().unwrap().is_err());
        assert!(store.distinct(key(1), key(2), HOUR, 5).try_now().unwrap().is_err());
        clock.advance(HOUR);
        assert!(first_use(100).unwrap());
        assert!(first_use(5).unwrap());
    }

    #[test]
    fn kept_records_are_bounded_over_all_tables_and_can_still_be_changed() {
        let store = MemoryStore::builder().max_kept_records(3).build().unwrap();
        let put = |table, n, old: Option<&'static str>| {
            let old = old.map(Bytes::from);
            store.compare_and_swap(table, key(n), old, Bytes::from("new")).try_now().unwrap()
        };
        assert!(put("a", 1, None).unwrap() && put("a", 2, None).unwrap());
        assert!(put("b", 1, None).unwrap());
        assert!(!put("b", 2, None).unwrap_err().is_transient());
        assert!(put("a", 1, Some("new")).unwrap());
        assert!(!put("a", 1, None).unwrap());
    }
}

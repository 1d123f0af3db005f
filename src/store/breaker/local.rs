//! What is kept here while the store is out of reach.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::{
    BuildError,
    clock::Clock,
    store::{
        Admission, Charge, Decision, Inline, Key, Limit, LimitId, LimiterStore as _, MemoryStore,
        NO_CHARGE, Outage, Receipt, ReservationId, Rule, Seen, Settlement, Standing, Standings,
    },
};

/// This process's share of the limits that are kept without the store.
#[derive(Debug)]
pub(super) struct Local {
    store: MemoryStore,
    instances: u64,
    max_records: usize,
    /// What was admitted here, until it is settled.
    held: Mutex<HashMap<ReservationId, Inline<Receipt>>>,
    /// How many there are, so that a settlement locks nothing while there are none.
    count: AtomicUsize,
    /// What the store has not been told of yet, limit by limit.
    missed: Mutex<HashMap<(Key, LimitId), Missed>>,
    /// Whether there is any, so that nothing is locked to ask.
    is_behind: AtomicBool,
}

/// Units of a limit that have counted here alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missed {
    pub(super) charge: Charge,
    pub(super) units: u64,
}

impl Local {
    pub(super) fn new(
        instances: u64,
        max_records: usize,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BuildError> {
        let store = MemoryStore::builder().max_records(max_records).clock(clock).build()?;
        Ok(Self {
            store,
            instances,
            max_records,
            held: Mutex::default(),
            count: AtomicUsize::new(0),
            missed: Mutex::default(),
            is_behind: AtomicBool::new(false),
        })
    }

    /// `None` where a limit is not kept without the store, or there is no room to.
    pub(super) fn acquire(&self, admission: &Admission<'_>) -> Option<Decision> {
        if admission.charges.iter().any(|charge| charge.limit.outage() == Outage::Refuse) {
            return None;
        }
        let charges = self.shares(admission.charges);
        if !self.has_room(admission.charges) {
            return None;
        }
        let local = Admission::new(admission.id, charges.as_slice());
        match self.store.acquire(&local).try_now().ok()?.ok()? {
            Decision::Admitted(grant) => {
                for charge in admission.charges {
                    self.miss(Missed { charge: *charge, units: charge.cost });
                }
                self.held().insert(admission.id, grant.receipts);
                self.count.fetch_add(1, Ordering::Release);
                let receipts = Inline::filled(Receipt::default(), admission.charges.len());
                Some(Decision::Admitted(Seen::new(receipts, grant.at).as_degraded()))
            }
            Decision::Refused(mut refusal) => {
                let kept =
                    admission.charges.iter().enumerate().filter(|(_, charge)| is_kept(charge));
                refusal.index = kept.map(|(index, _)| index).nth(refusal.index)?;
                refusal.seen = refusal.seen.as_degraded();
                Some(Decision::Refused(refusal))
            }
        }
    }

    /// Where all limits stand: those that are not kept, as if nothing were used.
    pub(super) fn standings(&self, charges: &[Charge]) -> Standings {
        let shares = self.shares(charges);
        let kept = self.store.peek(&Admission::new(ReservationId::next(), shares.as_slice()));
        let kept = kept.try_now().ok().and_then(Result::ok).unwrap_or_default();
        let mut kept = kept.as_slice().iter();
        let standings = charges.iter().map(|charge| {
            let standing = if is_kept(charge) { kept.next().copied() } else { None };
            standing.unwrap_or_else(|| Standing::new(charge.limit.capacity(), Default::default()))
        });
        Inline::collect(Standing::default(), standings)
    }

    /// False for what was not admitted here.
    pub(super) fn settle(&self, settlement: &Settlement<'_>) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let Some(receipts) = self.held().remove(&settlement.id) else { return false };
        self.count.fetch_sub(1, Ordering::Release);
        let charges = self.shares(settlement.charges);
        let used = settlement.charges.iter().zip(settlement.used);
        let used = used.filter(|(charge, _)| is_kept(charge)).map(|(_, amount)| *amount);
        let used = Inline::collect(0, used);
        let (charges, receipts) = (charges.as_slice(), receipts.as_slice());
        self.store.settle(&Settlement::new(settlement.id, charges, receipts, used.as_slice()));
        // After that: of what was missed, only what has not drained is told.
        for (charge, used) in settlement.charges.iter().zip(settlement.used) {
            if *used > charge.cost {
                self.miss(Missed { charge: *charge, units: used - charge.cost });
            } else if let Some(missed) = self.missed().get_mut(&place(charge)) {
                missed.units = missed.units.saturating_sub(charge.cost - used);
            }
        }
        true
    }

    pub(super) fn reset(&self, record: Key) {
        self.missed().retain(|(missed, _), _| *missed != record);
        // It is in memory, and answers at once.
        drop(self.store.reset(record));
    }

    /// Whether there is anything that the store has to be told.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Acquire)
    }

    /// What the store has to be told: of what it has missed, the units that have not drained. It is told of each once.
    pub(super) fn take_missed(&self) -> Vec<Missed> {
        let missed = {
            let mut missed = self.missed();
            self.is_behind.store(false, Ordering::Release);
            std::mem::take(&mut *missed)
        };
        let still = |Missed { charge, units }: Missed| {
            let share = self.shares(&[charge]);
            let standings =
                self.store.peek(&Admission::new(ReservationId::next(), share.as_slice()));
            let standings = standings.try_now().ok()?.ok()?;
            let units = units
                .min(undrained(&share.as_slice().first()?.limit, standings.as_slice().first()?));
            (units > 0).then_some(Missed { charge, units })
        };
        missed.into_values().filter_map(still).collect()
    }

    /// The store could not be told of these.
    pub(super) fn put_back(&self, missed: Vec<Missed>) {
        missed.into_iter().for_each(|missed| self.miss(missed));
    }

    fn miss(&self, missed: Missed) {
        if !counts_later(&missed.charge) {
            return;
        }
        let mut all = self.missed();
        let known = all.entry(place(&missed.charge)).or_insert(Missed { units: 0, ..missed });
        known.units = known.units.saturating_add(missed.units);
        self.is_behind.store(true, Ordering::Release);
    }

    fn has_room(&self, charges: &[Charge]) -> bool {
        let missed = self.missed();
        missed.len() < self.max_records
            || charges
                .iter()
                .filter(|charge| counts_later(charge))
                .all(|charge| missed.contains_key(&place(charge)))
    }

    /// The charges that are kept here, on this process's share of their limits.
    fn shares(&self, charges: &[Charge]) -> Inline<Charge> {
        let kept = charges.iter().filter(|charge| is_kept(charge));
        let shares = kept.map(|charge| Charge { limit: self.share(&charge.limit), ..*charge });
        Inline::collect(NO_CHARGE, shares)
    }

    fn share(&self, limit: &Limit) -> Limit {
        let part = |units: u64| (units / self.instances).max(1);
        match limit.rule() {
            Rule::Rate { quota, burst, .. } => {
                limit.with_quota(part(quota)).with_burst(part(burst))
            }
            Rule::Slots { max: quota }
            | Rule::Calendar { quota, .. }
            | Rule::Sliding { quota, .. } => limit.with_quota(part(quota)),
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<ReservationId, Inline<Receipt>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn missed(&self) -> MutexGuard<'_, HashMap<(Key, LimitId), Missed>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Units that a limit has counted and that have not drained, a debt with them.
fn undrained(limit: &Limit, standing: &Standing) -> u64 {
    let used = limit.capacity().saturating_sub(standing.remaining);
    match limit.rule() {
        _ if standing.remaining > 0 => used,
        Rule::Rate { quota, window, .. } => {
            let all = standing.reset.as_nanos().saturating_mul(u128::from(quota));
            let all = all.div_ceil(window.as_nanos().max(1));
            used.max(u64::try_from(all).unwrap_or(u64::MAX))
        }
        // Of these a debt can't be told from what fits.
        _ => u64::MAX,
    }
}

fn place(charge: &Charge) -> (Key, LimitId) {
    (charge.record, charge.limit.id())
}

fn is_kept(charge: &Charge) -> bool {
    charge.limit.outage() == Outage::LocalShare
}

/// A slot is over when its request is.
fn counts_later(charge: &Charge) -> bool {
    is_kept(charge) && !charge.limit.is_slots()
}

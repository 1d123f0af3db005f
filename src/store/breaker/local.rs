//! What is kept here while the store is out of reach.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
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
    /// The limits that have counted here since the store was last told.
    touched: Mutex<HashMap<(Key, LimitId), Charge>>,
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
            touched: Mutex::default(),
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
                self.touch(admission.charges);
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
        true
    }

    pub(super) fn reset(&self, record: Key) {
        self.touched().retain(|(touched, _), _| *touched != record);
        // It is in memory, and answers at once.
        drop(self.store.reset(record));
    }

    /// What the store has missed: for each limit that has counted here, the units that have not drained. Told once.
    pub(super) fn missed(&self) -> Vec<(Charge, u64)> {
        let touched = std::mem::take(&mut *self.touched());
        let undrained = |charge: Charge| {
            let share = self.shares(&[charge]);
            let standings =
                self.store.peek(&Admission::new(ReservationId::next(), share.as_slice()));
            let standings = standings.try_now().ok()?.ok()?;
            let left = standings.as_slice().first()?.remaining;
            let used = share.as_slice().first()?.limit.capacity().saturating_sub(left);
            (used > 0).then_some((charge, used))
        };
        touched.into_values().filter_map(undrained).collect()
    }

    /// The store could not be told of these.
    pub(super) fn put_back(&self, missed: Vec<(Charge, u64)>) {
        for (charge, _) in missed {
            self.touched().insert((charge.record, charge.limit.id()), charge);
        }
    }

    fn touch(&self, charges: &[Charge]) {
        let mut touched = self.touched();
        for charge in charges.iter().filter(|charge| counts_later(charge)) {
            touched.insert((charge.record, charge.limit.id()), *charge);
        }
    }

    fn has_room(&self, charges: &[Charge]) -> bool {
        let touched = self.touched();
        touched.len() < self.max_records
            || charges
                .iter()
                .filter(|charge| counts_later(charge))
                .all(|charge| touched.contains_key(&(charge.record, charge.limit.id())))
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

    fn touched(&self) -> MutexGuard<'_, HashMap<(Key, LimitId), Charge>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_kept(charge: &Charge) -> bool {
    charge.limit.outage() == Outage::LocalShare
}

/// A slot is over when its request is.
fn counts_later(charge: &Charge) -> bool {
    is_kept(charge) && !charge.limit.is_slots()
}

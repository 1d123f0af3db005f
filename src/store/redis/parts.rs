//! Admissions over several places: each part is decided by itself.

use std::{sync::Arc, time::Duration};

use super::{
    Inner, Taken, is_of_slots,
    lanes::Place,
    script::{Answer, Change, Records},
};
use crate::{
    runtime,
    store::{
        Charge, Decision, Inline, Receipt, Refusal, Seen, Settlement, StoreError,
        rules::{self, Asks},
    },
};

/// Charges that one script decides together, and where they stand among all.
#[derive(Debug)]
pub(super) struct Part {
    places: Inline<usize>,
    pub(super) charges: Vec<Charge>,
}

impl Part {
    /// All of `charges`, or where they are `spread`, one for each group, in the order of their first charges.
    pub(super) fn of(charges: &[Charge], spread: bool) -> Vec<Self> {
        let mut parts: Vec<Self> = Vec::with_capacity(1);
        for (at, charge) in charges.iter().enumerate() {
            let group = charge.record.group();
            let same =
                |part: &Self| part.charges.first().is_some_and(|it| it.record.group() == group);
            let known = parts.iter().position(|part| !spread || same(part));
            let part = match known.and_then(|known| parts.get_mut(known)) {
                Some(part) => part,
                None => {
                    parts.push(Self {
                        places: Inline::new(0),
                        charges: Vec::with_capacity(charges.len()),
                    });
                    let Some(part) = parts.last_mut() else { continue };
                    part
                }
            };
            part.places.push(at);
            part.charges.push(*charge);
        }
        parts
    }

    /// Adds what a server saw of the part's charges. Of several servers' clocks the latest counts: what is told of where limits
    /// stand is off by as much as they differ.
    fn put_seen(&self, some: &Seen, all: &mut Seen) {
        self.put(some.receipts.as_slice(), &mut all.receipts);
        all.at = all.at.max(some.at);
    }

    /// Puts what is true of the part's charges where they stand among all.
    pub(super) fn put<T: Copy>(&self, items: &[T], all: &mut Inline<T>) {
        for (at, item) in self.places.as_slice().iter().zip(items) {
            if let Some(place) = all.as_mut_slice().get_mut(*at) {
                *place = *item;
            }
        }
    }

    /// Of what is true of all, what is of the part's charges.
    pub(super) fn of_its_own<T: Copy>(&self, all: &[T]) -> impl Iterator<Item = T> {
        self.places.as_slice().iter().filter_map(|at| all.get(*at).copied())
    }

    fn place(&self, index: usize) -> usize {
        self.places.as_slice().get(index).copied().unwrap_or_default()
    }
}

impl Inner {
    /// Asks for the parts one after another, and gives back what was granted when one is refused or can't be asked.
    pub(super) async fn take_parts(
        self: Arc<Self>,
        charges: Vec<Charge>,
        parts: Vec<Part>,
        mut places: Vec<Place>,
    ) -> Result<Taken, StoreError> {
        if let ([_], Some(place)) = (parts.as_slice(), places.pop_if(|_| parts.len() == 1)) {
            return self.take(charges, place).await;
        }
        let mut seen = Seen::new(Inline::filled(Receipt::default(), charges.len()), 0);
        let mut taken = Vec::with_capacity(parts.len());
        for (at, (part, place)) in parts.iter().zip(places).enumerate() {
            let one = Arc::clone(&self).take(part.charges.clone(), place).await?;
            match &one.decision {
                Decision::Admitted(grant) => {
                    part.put_seen(grant, &mut seen);
                    taken.push(one);
                }
                Decision::Refused(refusal) => {
                    // Gives back.
                    drop(taken);
                    part.put_seen(&refusal.seen, &mut seen);
                    let refused = (part.place(refusal.index), refusal.retry_after);
                    let (before, rest) = parts.split_at_checked(at).unwrap_or_default();
                    let others = (before, rest.get(1..).unwrap_or_default());
                    let refusal = self.look_at(&charges, others, refused, seen).await;
                    return Ok(Taken { decision: Decision::Refused(refusal), to_give_back: None });
                }
            }
        }
        for one in taken {
            let _ = one.keep();
        }
        let decision = Decision::Admitted(seen);
        Ok(Taken { decision, to_give_back: Some((self, charges)) })
    }

    /// Settles each part by itself.
    pub(super) fn settle(&self, settlement: &Settlement<'_>) {
        if !self.link.is_spread() {
            let (receipts, used) = (settlement.receipts.iter(), settlement.used.iter());
            return self.settle_part(settlement.charges, receipts.copied(), used.copied());
        }
        for part in Part::of(settlement.charges, true) {
            let (receipts, used) =
                (part.of_its_own(settlement.receipts), part.of_its_own(settlement.used));
            self.settle_part(&part.charges, receipts, used);
        }
    }

    fn settle_part(
        &self,
        charges: &[Charge],
        receipts: impl Iterator<Item = Receipt>,
        used: impl Iterator<Item = u64>,
    ) {
        let records = Records::of(charges);
        let mut changes = Vec::with_capacity(charges.len());
        for ((charge, receipt), used) in charges.iter().zip(receipts).zip(used) {
            changes.extend(Change::of(charge, receipt, used, &records));
            if is_of_slots(charge) {
                self.slots.let_go(charge.record, receipt.0[0], charge.cost);
            }
        }
        match charges.first() {
            Some(first) if !changes.is_empty() => {
                self.queue.push(self.link.lane(&first.record), &self.link, records, changes);
            }
            _ => self.queue.free_place(),
        }
    }

    /// The refusal, when what was granted before it has been given back, and where the others stand: as far as all that comes
    /// soon.
    async fn look_at(
        &self,
        charges: &[Charge],
        (given_back, not_asked): (&[Part], &[Part]),
        mut refused: (usize, Option<Duration>),
        mut seen: Seen,
    ) -> Refusal {
        let looking = async {
            for first in given_back.iter().filter_map(|part| part.charges.first()) {
                self.queue.applied(self.link.lane(&first.record), &self.link).await;
            }
            for part in not_asked.iter().chain(given_back) {
                let Ok(Answer { admitted, states, now }) =
                    self.decide(&part.charges, 0, false).await
                else {
                    continue;
                };
                let some = rules::seen(&part.charges, states.as_slice(), now);
                part.put_seen(&some, &mut seen);
                if !admitted {
                    let refusal = rules::refusal(&part.charges, &Asks::of(&part.charges), some);
                    let another = (part.place(refusal.index), refusal.retry_after);
                    if weight(charges, another) > weight(charges, refused) {
                        refused = another;
                    }
                }
            }
        };
        // The refusal stands anyhow.
        let _ = runtime::timeout(self.deadline / 2, looking).await;
        Refusal::new(refused.0, refused.1, seen)
    }
}

/// Of several refusals the heaviest is told: what never fits, then the longest wait, then one that nobody knows.
fn weight(charges: &[Charge], (index, wait): (usize, Option<Duration>)) -> (u8, Option<Duration>) {
    let never = charges.get(index).is_some_and(|charge| charge.cost > charge.limit.capacity());
    let rank = if never { 3 } else { 1 + u8::from(wait.is_some()) };
    (rank, wait)
}

//! Leases that were charged together, and what is due for them.

use super::{line::Line, table::Slot};
use crate::store::{Charge, Inline, LimiterStore, Receipt, ReservationId, Settlement};

/// The part of a block that one limit leases.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) block: u64,
    pub(super) part: usize,
}

/// Leases that one admission of the inner store was charged for, and that one settlement ends.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) id: ReservationId,
    pub(super) charges: Inline<Charge>,
    pub(super) receipts: Inline<Receipt>,
    pub(super) parts: Vec<Part>,
    /// Its charges were settled early: what admissions from it still use beyond is owed to a new grant of nothing.
    pub(super) settled: bool,
    pub(super) settling: bool,
}

#[derive(Debug)]
pub(super) struct Part {
    pub(super) slot: Slot,
    pub(super) line: Line,
    pub(super) live: bool,
    /// Admissions that are not settled yet, and their units.
    pub(super) open: (u64, u64),
    pub(super) owed: u64,
}

/// What is to be done with the inner store once the table is free again.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) settlements: Vec<Due>,
    /// Blocks to be settled while some of their admissions are not.
    pub(super) early: Vec<u64>,
}

#[derive(Debug)]
pub(super) struct Due {
    pub(super) id: ReservationId,
    pub(super) charges: Inline<Charge>,
    pub(super) receipts: Inline<Receipt>,
    pub(super) used: Inline<u64>,
}

impl Work {
    pub(super) fn settle(&mut self, inner: &impl LimiterStore) {
        for due in self.settlements.drain(..) {
            let (charges, receipts) = (due.charges.as_slice(), due.receipts.as_slice());
            inner.settle(&Settlement::new(due.id, charges, receipts, due.used.as_slice()));
        }
    }
}

impl Block {
    pub(super) fn settlement(&self, now: u64) -> Due {
        let due = |part: &Part| if self.settled { part.owed } else { part.line.due(now) };
        let used = Inline::collect(0, self.parts.iter().map(due));
        Due { id: self.id, charges: self.charges, receipts: self.receipts, used }
    }
}

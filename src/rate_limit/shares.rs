//! A request's grants, and what each pays of what is due.

use crate::store::{
    Charge, Inline, LimiterStore, MAX_CHARGES, NO_CHARGE, ReservationId, Seen, Settlement,
};

/// What is asked of some of a tier's limits at once.
#[derive(Debug)]
pub(super) struct Charges {
    /// Which limits, as bits by their places in the tier.
    limits: u8,
    /// One for each, in their order.
    list: Inline<Charge>,
}

impl Charges {
    pub(super) fn none() -> Self {
        Self { limits: 0, list: Inline::new(NO_CHARGE) }
    }

    /// Adds the charge of the limit at `index`, which is beyond those before.
    pub(super) fn push(&mut self, index: usize, charge: Charge) {
        self.limits |= 1 << index;
        self.list.push(charge);
    }

    pub(super) fn as_slice(&self) -> &[Charge] {
        self.list.as_slice()
    }

    /// The limits that are charged, in order.
    pub(super) fn indices(&self) -> impl Iterator<Item = usize> + use<> {
        let limits = self.limits;
        (0..MAX_CHARGES).filter(move |index| limits & (1 << index) != 0)
    }

    /// Whether the limit at `index` is charged, if only nothing.
    pub(super) fn charges(&self, index: usize) -> bool {
        self.limits & (1 << index) != 0
    }

    /// Units of the limit at `index`.
    pub(super) fn of(&self, index: usize) -> u64 {
        let before = self.limits & ((1 << index) - 1);
        let charge =
            self.as_slice().get(before.count_ones() as usize).filter(|_| self.charges(index));
        charge.map_or(0, |charge| charge.cost)
    }
}

/// One grant of the store.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) id: ReservationId,
    pub(super) charges: Charges,
    pub(super) seen: Seen,
}

/// Units of the limit at `index` that these hold. `None`: none of them charges it.
pub(super) fn held<'a>(parts: impl Iterator<Item = &'a Part>, index: usize) -> Option<u64> {
    let charging = parts.map(|part| &part.charges).filter(|charges| charges.charges(index));
    charging.map(|charges| charges.of(index)).reduce(u64::saturating_add)
}

/// Splits `due` over grants, in their order. What is used beyond all of them is the debt of the first that charged the
/// limit.
pub(super) fn shares<'a>(
    parts: impl Iterator<Item = &'a Part> + Clone,
    due: Inline<u64>,
) -> impl Iterator<Item = (&'a Part, Inline<u64>)> {
    let mut left = due;
    let is_one = parts.clone().nth(1).is_none();
    parts.clone().enumerate().map(move |(at, part)| {
        let charges = part.charges.indices().zip(part.charges.as_slice());
        let used = charges.map(|(index, charge)| {
            let Some(left) = left.as_mut_slice().get_mut(index) else { return 0 };
            if is_one {
                return *left;
            }
            let charged_before = parts.clone().take(at).any(|part| part.charges.charges(index));
            let held = held(parts.clone(), index).unwrap_or(0);
            let debt = if charged_before { 0 } else { left.saturating_sub(held) };
            let used = (*left).min(charge.cost) + debt;
            *left -= used;
            used
        });
        (part, Inline::collect(0, used))
    })
}

/// Settles one grant to what was used of it, charge by charge.
pub(super) fn give_back(store: &dyn LimiterStore, part: &Part, used: &Inline<u64>) {
    let (charges, receipts) = (part.charges.as_slice(), part.seen.receipts.as_slice());
    if !charges.is_empty() {
        store.settle(&Settlement::new(part.id, charges, receipts, used.as_slice()));
    }
}

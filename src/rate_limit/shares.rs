//! A request's grants, and what each pays of what is due.

use super::{
    models::Told,
    ready_tier::{Amounts, ReadyTier},
};
use crate::store::{Inline, Key, LimiterStore, ReservationId, Seen, Settlement};

/// One grant of the store.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) id: ReservationId,
    pub(super) amounts: Amounts,
    pub(super) seen: Seen,
}

impl Part {
    /// Units of the limit at `index`.
    pub(super) fn of(&self, index: usize) -> u64 {
        self.amounts.as_slice().get(index).copied().flatten().unwrap_or(0)
    }

    /// Whether it charges the limit at `index`, if only nothing.
    pub(super) fn charges(&self, index: usize) -> bool {
        self.amounts.as_slice().get(index).is_some_and(Option::is_some)
    }

    /// The limits that it charges, in order.
    pub(super) fn indices(&self) -> impl Iterator<Item = usize> {
        let amounts = self.amounts.as_slice().iter().enumerate();
        amounts.filter(|(_, amount)| amount.is_some()).map(|(index, _)| index)
    }
}

/// Splits `due` over grants, in their order. What is used beyond all of them is the debt of the first that charged the
/// limit.
pub(super) fn shares<'a>(
    parts: impl Iterator<Item = &'a Part> + Clone,
    due: Amounts,
) -> impl Iterator<Item = (&'a Part, Amounts)> {
    let mut left = due;
    parts.clone().enumerate().map(move |(at, part)| {
        let amounts = part.amounts.as_slice().iter().enumerate().map(|(index, own)| {
            let own = (*own)?;
            let left = left.as_mut_slice().get_mut(index)?.as_mut()?;
            let charged_before = parts.clone().take(at).any(|part| part.charges(index));
            let held = parts.clone().map(|part| part.of(index)).fold(0, u64::saturating_add);
            let debt = if charged_before { 0 } else { left.saturating_sub(held) };
            let used = (*left).min(own) + debt;
            *left -= used;
            Some(used)
        });
        (part, Inline::collect(None, amounts))
    })
}

/// Settles one grant to what was used of it.
pub(super) fn give_back(
    store: &dyn LimiterStore,
    tier: &ReadyTier,
    keys: &Inline<Key>,
    model: Option<&Told>,
    part: &Part,
    used: &Amounts,
) {
    let charges = tier.charges(keys, model, &part.amounts, std::time::Duration::ZERO);
    if charges.as_slice().is_empty() {
        return;
    }
    let of_limit = |index| used.as_slice().get(index).copied().flatten().unwrap_or(0);
    let of_charges = Inline::collect(0, part.indices().map(of_limit));
    let (charges, used) = (charges.as_slice(), of_charges.as_slice());
    store.settle(&Settlement::new(part.id, charges, part.seen.receipts.as_slice(), used));
}

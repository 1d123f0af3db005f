//! The same charge over and over.

use super::{Ask, Asks, Charge, Kind, LATEST, Receipt, State};

/// A rate or slots that are charged the same over and over, readied so that to charge them takes no branch and nothing
/// is unpacked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Again {
    level: u64,
    step: u64,
    /// All bits of a rate, which drains as time goes by; none of slots. In a receipt, the level of a rate is in the
    /// first half, that of slots in the second.
    drains: u64,
    /// The receipt of all but the level.
    rest: [u64; 2],
}

impl Again {
    /// Of limits that stand as `receipts` say.
    pub(crate) fn all<'a>(
        charges: &'a [Charge],
        asks: &'a Asks,
        receipts: &'a [Receipt],
    ) -> impl Iterator<Item = Self> + 'a {
        let parts = charges.iter().zip(asks.iter()).zip(receipts);
        parts.map(|((charge, ask), receipt)| Self::of(&charge.limit.kind, ask, receipt))
    }

    fn of(kind: &Kind, ask: &Ask, receipt: &Receipt) -> Self {
        let state = receipt.state(kind);
        let Receipt(rest) = State { level: 0, ..state }.receipt(kind);
        let drains = if matches!(kind, Kind::Slots) { 0 } else { u64::MAX };
        Self { level: state.level, step: ask.step, drains, rest }
    }

    /// How much of a rate's time will have drained by then, beyond what was charged.
    pub(crate) fn drained_by(&self, then: u64) -> u64 {
        then.saturating_sub(self.level) & self.drains
    }

    /// Charges what is known to fit. Where the limit stands then.
    #[inline(always)]
    pub(crate) fn charge(&mut self, now: u64) -> Receipt {
        let Self { step, drains, rest: [low, high], .. } = *self;
        self.level = (self.level.max(now & drains) + step).min(LATEST);
        Receipt([low | (self.level & drains), high | (self.level & !drains)])
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::store::{Key, Limit, LimitId, rules};

    proptest! {
        #[test]
        fn it_charges_as_one_at_a_time_does(
            states in prop::array::uniform2((0..=LATEST, 0..1_u64 << 52)),
            cost in 0..1000_u64,
            waits in prop::collection::vec(0..1_u64 << 45, 1..20),
        ) {
            let [rate, slots] = states;
            let limits = [
                Limit::rate(LimitId::of("rate"), 1_000_000, Duration::from_secs(60)),
                Limit::slots(LimitId::of("slots"), 1_000_000),
            ];
            let charges = limits.map(|limit| Charge::new(Key::from_bytes([1; 16]), limit, cost));
            let asks = Asks::of(&charges);
            let rate = State { level: rate.0, mark: rate.1, used: 0 };
            let slots = State { level: slots.0 % 1_000_000, mark: 0, used: 0 };
            let [of_rate, of_slots] = charges.each_ref().map(|charge| &charge.limit.kind);
            let mut receipts = [rate.receipt(of_rate), slots.receipt(of_slots)];
            let mut again: Vec<_> = Again::all(&charges, &asks, &receipts).collect();
            let mut now = 0;
            for wait in waits {
                now = (now + wait).min(LATEST);
                rules::charge_times(&charges, &asks, &mut receipts, 1, now);
                let charged: Vec<_> = again.iter_mut().map(|again| again.charge(now)).collect();
                prop_assert_eq!(&charged, &receipts);
            }
        }
    }
}

//! Where a limit stands, and that in 126 bits: a million of them are kept.

use super::{GRAIN, Kind, MOST};
use crate::store::Receipt;

/// Where a limit stands. The default is an idle one, which equals an absent one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Of slots: how many are held. Of all others: the tick from which on it equals an absent one, which of a rate
    /// is when all of it has drained.
    pub(crate) level: u64,
    /// Of a rate: by how much refunds have moved it so far. Of a calendar: the period's number. Of a sliding
    /// window: the units of the window before.
    pub(crate) mark: u64,
    /// Of a calendar and of a sliding window: the units of this period or window.
    pub(crate) used: u64,
}

/// How a state is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Of a rate: the level and the mark, below 2^53.
    Rate,
    /// Of slots: the level alone, in the second half.
    Slots,
    /// Of all others: the level in grains, below 2^43, the mark and the units, below 2^41.
    Units,
}

/// What stores call a rule where they write it down.
pub(crate) const RATE: u8 = 0;
pub(crate) const SLOTS: u8 = 1;
pub(crate) const CALENDAR: u8 = 2;
pub(crate) const SLIDING: u8 = 3;

impl Form {
    /// Of the rule that is called so.
    pub(crate) const fn of(rule: u8) -> Self {
        match rule {
            RATE => Self::Rate,
            SLOTS => Self::Slots,
            _ => Self::Units,
        }
    }
}

impl State {
    /// As two words. The top two bits are free.
    #[inline]
    pub(crate) const fn packed(self, form: Form) -> [u64; 2] {
        let Self { level, mark, used } = self;
        match form {
            Form::Rate => halves(level as u128 | (mark as u128) << LEVEL_BITS),
            Form::Slots => [0, level],
            Form::Units => {
                let level = level.div_ceil(GRAIN) as u128;
                halves(level | (mark as u128) << GRAIN_BITS | (used as u128) << USED_FROM)
            }
        }
    }

    /// What was packed so, whatever stands in the top two bits.
    #[inline]
    pub(crate) const fn unpacked(halves: [u64; 2], form: Form) -> Self {
        let [low, high] = halves;
        let whole = low as u128 | (high as u128) << u64::BITS;
        match form {
            Form::Rate => {
                Self { level: low & LEVEL, mark: (whole >> LEVEL_BITS) as u64 & LEVEL, used: 0 }
            }
            Form::Slots => Self { level: high & LEVEL, mark: 0, used: 0 },
            Form::Units => Self {
                level: (low & ((1 << GRAIN_BITS) - 1)) * GRAIN,
                mark: (whole >> GRAIN_BITS) as u64 & MOST,
                used: (whole >> USED_FROM) as u64 & MOST,
            },
        }
    }

    /// The receipt that it is of a limit of this kind.
    #[inline]
    pub(crate) const fn receipt(self, kind: &Kind) -> Receipt {
        Receipt(self.packed(kind.form()))
    }
}

impl Receipt {
    /// The state that it is of a limit of this kind.
    #[inline]
    pub(crate) const fn state(&self, kind: &Kind) -> State {
        State::unpacked(self.0, kind.form())
    }
}

const fn halves(whole: u128) -> [u64; 2] {
    [whole as u64, (whole >> u64::BITS) as u64]
}

const LEVEL_BITS: u32 = 53;
/// The greatest level, which is the latest time.
pub(super) const LEVEL: u64 = (1 << LEVEL_BITS) - 1;
const GRAIN_BITS: u32 = LEVEL_BITS - GRAIN.trailing_zeros();
const USED_FROM: u32 = GRAIN_BITS + (u64::BITS - MOST.leading_zeros());

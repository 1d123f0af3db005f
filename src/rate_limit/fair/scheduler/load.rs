//! The three numbers of a capacity.

use std::ops::{AddAssign, SubAssign};

use crate::rate_limit::fair::plan::{Capacity, part};

/// Slots, tokens in flight, and tokens of prompts whose answers have not begun: what there is, or what is used of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) slots: u64,
    pub(super) tokens: u64,
    pub(super) prefill: u64,
}

impl Load {
    /// All that an engine has.
    pub(super) fn of(capacity: Capacity) -> Self {
        // What is not bounded is more than all slots can use.
        let unbounded = u64::MAX / 4;
        Self {
            slots: capacity.slots as u64,
            tokens: capacity.tokens.unwrap_or(unbounded),
            prefill: capacity.prefill.unwrap_or(unbounded),
        }
    }

    /// So many hundredths of it, rounded down.
    pub(super) fn percent(self, percent: u32) -> Self {
        Self {
            slots: part(self.slots, percent),
            tokens: part(self.tokens, percent),
            prefill: part(self.prefill, percent),
        }
    }

    /// Less so many slots, and as great a part of the tokens.
    pub(super) fn without(self, slots: u64) -> Self {
        let left = self.slots.saturating_sub(slots);
        let slots = self.slots.max(1);
        // Only what is not bounded overflows.
        let tokens = self.tokens.checked_mul(left).map_or(self.tokens, |tokens| tokens / slots);
        Self { slots: left, tokens, ..self }
    }

    /// Whether slots and tokens of `more` fit beside those of `used`.
    pub(super) fn holds(self, used: Self, more: Self) -> bool {
        used.slots + more.slots <= self.slots && used.tokens + more.tokens <= self.tokens
    }

    /// Whether its prompt fits beside those pending. One that is alone does.
    pub(super) fn holds_prefill(self, used: Self, more: Self) -> bool {
        more.prefill == 0 || used.prefill == 0 || used.prefill + more.prefill <= self.prefill
    }
}

impl AddAssign for Load {
    fn add_assign(&mut self, other: Self) {
        self.slots += other.slots;
        self.tokens += other.tokens;
        self.prefill += other.prefill;
    }
}

impl SubAssign for Load {
    fn sub_assign(&mut self, other: Self) {
        debug_assert!(self.slots >= other.slots && self.tokens >= other.tokens);
        debug_assert!(self.prefill >= other.prefill);
        self.slots = self.slots.saturating_sub(other.slots);
        self.tokens = self.tokens.saturating_sub(other.tokens);
        self.prefill = self.prefill.saturating_sub(other.prefill);
    }
}

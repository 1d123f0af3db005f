//! What the share-out of an engine looks like from outside: `palisade_fair_*`, by tier.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    observe::{self, Tiered},
    sync::Mutex,
};

/// The metrics of one tier.
#[derive(Debug)]
pub(super) struct TierMetrics {
    in_use: Tiered,
    borrowed: Tiered,
    waiting: Tiered,
    waited: Tiered,
    tokens: Tiered,
}

impl TierMetrics {
    pub(super) fn new(tier: &Arc<str>) -> Self {
        let of = |name| Tiered::new(name, tier);
        Self {
            in_use: of("palisade_fair_in_use"),
            borrowed: of("palisade_fair_borrowed"),
            waiting: of("palisade_fair_waiting"),
            waited: of("palisade_fair_waited_seconds"),
            tokens: of("palisade_fair_tokens_total"),
        }
    }

    /// A request was let in after so long.
    pub(super) fn waited(&self, wait: Duration) {
        self.waited.histogram(wait.as_secs_f64());
    }

    /// A request has ended, and used so many tokens.
    pub(super) fn served(&self, tokens: u64) {
        self.tokens.count(tokens);
    }

    fn set(&self, (in_use, borrowed, waiting): (u64, u64, u64)) {
        self.in_use.gauge(in_use);
        self.borrowed.gauge(borrowed);
        self.waiting.gauge(waiting);
    }
}

/// Sets the gauges of all tiers. Whoever comes while another does it leaves it to him, so that what is told last is what
/// is so, and nobody waits.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    stale: AtomicBool,
    setting: Mutex<()>,
}

impl Gauges {
    /// Tells how many requests of each of `tiers` run, run on borrowed slots, and wait, by its place; and up to how many
    /// slots something is lent, where that is adapted.
    pub(super) fn tell<'a>(
        &self,
        tiers: impl Iterator<Item = &'a TierMetrics> + Clone,
        standing: impl Fn(usize) -> (u64, u64, u64),
        limit: impl Fn() -> Option<u64>,
    ) {
        if !observe::HAS_METRICS {
            return;
        }
        self.stale.store(true, Ordering::SeqCst);
        while self.stale.load(Ordering::SeqCst) {
            // He who has it looks again when he has let go.
            let Ok(_setting) = self.setting.try_lock() else { return };
            while self.stale.swap(false, Ordering::SeqCst) {
                for (index, tier) in tiers.clone().enumerate() {
                    tier.set(standing(index));
                }
                if let Some(limit) = limit() {
                    observe::gauge("palisade_fair_borrow_limit", limit);
                }
            }
        }
    }
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use super::*;

    /// A recorder that looks at the tiers itself, as from within a scrape, neither waits nor goes round in circles.
    #[test]
    fn what_comes_while_gauges_are_set_is_told_too() {
        let (gauges, tiers) = (Gauges::default(), [TierMetrics::new(&"free".into())]);
        let told = std::cell::RefCell::new(Vec::new());
        let truth = std::cell::Cell::new(1);
        let standing = |_| {
            let in_use = truth.get();
            told.borrow_mut().push(in_use);
            if in_use < 3 {
                truth.set(in_use + 1);
                gauges.tell(tiers.iter(), |_| unreachable!("set twice at a time"), || None);
            }
            (in_use, 0, 0)
        };
        gauges.tell(tiers.iter(), standing, || None);
        assert_eq!(told.into_inner(), [1, 2, 3]);
    }
}

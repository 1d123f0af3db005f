//! The refusals of fair admission: the server's want of capacity, and once the caller's fault.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::scheduler::Shed;
use crate::reject::{Rejection, RejectionKind};

/// The refusal of a request of this tier, which is to come again after so long.
pub(super) fn rejection(shed: Shed, tier: &str, again: Duration) -> Rejection {
    let message = match shed {
        Shed::PromptTooLong => return prompt_too_long(tier),
        Shed::QueueFull => format!(
            "The server is at its capacity, and as many requests of tier {tier} wait as may. Try again soon."
        ),
        Shed::Deadline => format!(
            "The server is at its capacity: no place for tier {tier} in the time that the request may wait. \
             Try again soon."
        ),
        Shed::TooLarge => format!(
            "The server is at its capacity for a request as large as this: more tokens than tier {tier} has a share of. \
             Make the prompt or max_tokens smaller, or try again soon."
        ),
        Shed::Revoked => format!(
            "The server is at its capacity: others needed the place that tier {tier} had borrowed. \
             Try again soon."
        ),
    };
    Rejection::new(RejectionKind::AtCapacity, code(shed), message).with_retry_after(again)
}

/// The caller's fault: such a prompt is never let in.
fn prompt_too_long(tier: &str) -> Rejection {
    let message =
        format!("The prompt is longer than those of tier {tier} may be. Make it shorter.");
    Rejection::new(RejectionKind::BadRequest, code(Shed::PromptTooLong), message)
}

/// The refusal where an override names a tier that has no share.
pub(super) fn no_share(tier: &str) -> Rejection {
    let message = format!("Tier {tier} has no share of the server's capacity.");
    Rejection::new(RejectionKind::Misconfigured, "no_share", message)
}

/// The reason for programs.
pub(super) const fn code(shed: Shed) -> &'static str {
    match shed {
        Shed::QueueFull => "queue_full",
        Shed::Deadline => "deadline",
        Shed::PromptTooLong => "prompt_too_long",
        Shed::TooLarge => "too_large",
        Shed::Revoked => "revoked",
    }
}

/// Spreads what was refused at once over some time, so that it does not come again at once.
#[derive(Debug)]
pub(super) struct Spread(AtomicU64);

impl Spread {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(RandomState::new().hash_one(0_u8)))
    }

    /// When to come again, where what waits drains in `drain`: no sooner, and up to half as long later, or a second.
    pub(super) fn over(&self, drain: Duration) -> Duration {
        let at_least = drain.clamp(SHORTEST, LONGEST);
        let spread = (at_least / 2).max(SHORTEST);
        at_least + spread.mul_f64(self.fraction())
    }

    /// Of one, by SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    fn fraction(&self) -> f64 {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(GOLDEN, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // 53 bits are a double's.
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

const SHORTEST: Duration = Duration::from_secs(1);
/// The SDKs sleep for as long as they are told.
const LONGEST: Duration = Duration::from_secs(40);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn those_refused_at_once_are_told_different_times() {
        let spread = Spread::new();
        for (drain, least, most) in
            [(0, 1000, 2000), (20_000, 20_000, 30_000), (9_000_000, 40_000, 60_000)]
        {
            let told: Vec<_> =
                (0..1000).map(|_| spread.over(Duration::from_millis(drain)).as_millis()).collect();
            assert!(told.iter().all(|told| (least..=most).contains(told)), "{drain}");
            let tenths: HashSet<_> =
                told.iter().map(|told| (told - least) * 10 / (most - least)).collect();
            assert!(tenths.len() >= 10, "{drain}: {tenths:?}");
        }
        // Two servers that start together do not tell the same.
        assert_ne!(spread.over(SHORTEST), Spread::new().over(SHORTEST));
    }
}

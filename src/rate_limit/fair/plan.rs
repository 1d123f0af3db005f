//! How an engine's capacity is divided: what the builder is told, and whether it can be.

use std::{sync::Arc, time::Duration};

use crate::{BuildError, rate_limit::TokenWeights};

/// How much an engine takes at a time, in up to three numbers, each of which is shared between the tiers.
///
/// ```
/// use palisade::rate_limit::fair::Capacity;
///
/// let capacity = Capacity::slots(64).tokens_in_flight(80_000).prefill_pending(4_096);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Capacity {
    pub(super) slots: usize,
    pub(super) tokens: Option<u64>,
    pub(super) prefill: Option<u64>,
}

impl Capacity {
    /// So many requests at a time: no more than the engine itself runs (`max_num_seqs`, `--parallel`), else they wait
    /// there, where nothing is fair.
    pub const fn slots(slots: usize) -> Self {
        Self { slots, tokens: None, prefill: None }
    }

    /// And so many tokens, of prompts and granted answers together, in all requests that run. Default: no bound. Where
    /// an engine batches, long requests slow all others, also those of the slots that a tier has to itself: so many as
    /// `slots` ordinary requests have is a good number. A request that has more tokens than its tier's share of them is let in
    /// when they are to be borrowed at once, and refused otherwise: it never waits, so it stands in nobody's way.
    pub const fn tokens_in_flight(self, tokens: u64) -> Self {
        Self { tokens: Some(tokens), ..self }
    }

    /// And so many tokens of prompts whose answers have not begun. Default: no bound. It bounds for how long a prompt
    /// waits behind others within the engine. A tier below its share is held to its own part of this, any other to what all
    /// together have pending; a tier's share of it should hold three of its ordinary prompts. A prompt that is longer
    /// is let through alone.
    pub const fn prefill_pending(self, tokens: u64) -> Self {
        Self { prefill: Some(tokens), ..self }
    }
}

/// Slots that nobody may borrow, so that a tier whose share is not used up finds one free at once; and as great a part of the
/// tokens in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Headroom(pub(super) Option<usize>);

impl Headroom {
    /// As many as make it rare, once in a hundred requests, that one of a tier below its share has to wait: told from
    /// how fast such requests come, and how fast slots come free. At most a quarter of the slots. The default.
    pub const fn automatic() -> Self {
        Self(None)
    }

    /// So many. None at all where the engine honours [`YieldSignal`](super::YieldSignal).
    pub const fn slots(slots: usize) -> Self {
        Self(Some(slots))
    }
}

/// How long an engine may take for a token before less of it is lent.
///
/// Once a second what may be borrowed is lowered when tokens took longer than that on average, and raised by a slot when
/// they did not and somebody waits for it. What a tier has of its own is never touched: when nothing is lent any more and
/// the engine is still too slow, more is guaranteed than it can do, which the counter `palisade_fair_oversold_total`
/// says, and nothing else can mend.
///
/// What is timed is the engine: from one frame of an answer to the next, of those that the server waited for. Not the
/// first, whose prompt had to be read; not while a client is slow to read, or a stream is parked. A frame counts for a token:
/// where an engine sends several in one, this is the time that they take together.
///
/// ```
/// use palisade::rate_limit::fair::{Adaptive, Capacity, FairAdmission, Share};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), palisade::BuildError> {
/// let fair = FairAdmission::builder()
///     .capacity(Capacity::slots(64))
///     .adaptive(Adaptive::per_token(Duration::from_millis(30)))
///     .tier("enterprise", Share::percent(50))
///     .tier("free", Share::percent(15))
///     .build()?;
/// // Until something is measured, all that nobody uses is lent.
/// assert_eq!(fair.snapshot().adaptive.map(|adaptive| adaptive.limit), Some(64));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Adaptive {
    /// `None`: to be found.
    pub(super) target: Option<Duration>,
}

impl Adaptive {
    /// So long, on average over all answers.
    pub const fn per_token(target: Duration) -> Self {
        Self { target: Some(target) }
    }

    /// Half as long again as when little runs: the lowest tenth of what was measured in the last 64 seconds with at most a
    /// quarter of the slots taken. It takes ten of those; until then all is lent that may be, also under load. A line in the log
    /// says what was found, and when it moves.
    pub const fn automatic() -> Self {
        Self { target: None }
    }
}

/// What a tier has of an engine's capacity: a share that is its own, what it may borrow, and who may wait for it.
///
/// ```
/// use palisade::rate_limit::fair::{Revoke, Share};
/// use std::time::Duration;
///
/// let free = Share::percent(15)
///     .borrow_up_to_percent(60)
///     .max_prompt_tokens(8_000)
///     .queue(256)
///     .queue_bytes(8 << 20)
///     .max_wait(Duration::from_secs(20))
///     .revocable(Revoke::BeforeFirstByte);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Share {
    pub(super) percent: u32,
    pub(super) borrow_up_to_percent: u32,
    pub(in crate::rate_limit) max_prompt_tokens: Option<u64>,
    pub(super) queue: usize,
    pub(super) queue_bytes: u64,
    pub(in crate::rate_limit) max_wait: Duration,
    pub(in crate::rate_limit) revocable: Revoke,
}

impl Share {
    /// A share of so many hundredths of every number of the [`Capacity`], rounded down. All shares together are at most
    /// 100. What is nobody's is lent.
    ///
    /// It has to hold what the tier needs when the engine is full and slow, not when it is empty: requests a second times the
    /// seconds that one takes then, and some to spare.
    pub const fn percent(percent: u32) -> Self {
        Self {
            percent,
            borrow_up_to_percent: 100,
            max_prompt_tokens: None,
            queue: 1024,
            queue_bytes: 16 << 20,
            max_wait: Duration::from_secs(30),
            revocable: Revoke::Never,
        }
    }

    /// How much the tier may have in all, in hundredths of the capacity, when others leave it theirs. Default: 100.
    pub const fn borrow_up_to_percent(self, percent: u32) -> Self {
        Self { borrow_up_to_percent: percent, ..self }
    }

    /// The longest prompt that is let in, in tokens: 400 beyond. Default: any. By the estimate of the admission,
    /// `Content-Length` in tokens, and again when that is refined. Where prompts carry pictures, it has to hold them as if
    /// they were text.
    pub const fn max_prompt_tokens(self, tokens: u64) -> Self {
        Self { max_prompt_tokens: Some(tokens), ..self }
    }

    /// How many requests may wait. Default: 1024. Zero: none, what does not fit at once is refused. When as many wait,
    /// the newest of the caller who has most of them goes.
    pub const fn queue(self, requests: usize) -> Self {
        Self { queue: requests, ..self }
    }

    /// How many bytes of requests may wait: their headers, and what the server may have read of their bodies, at most
    /// 1 MiB of each. Default: 16 MiB.
    pub const fn queue_bytes(self, bytes: u64) -> Self {
        Self { queue_bytes: bytes, ..self }
    }

    /// For how long a request may wait. Default: 30 seconds. One that says `x-request-timeout` or `grpc-timeout` may wait
    /// for less, never for longer; and one that can't be served in time is refused when it comes.
    pub const fn max_wait(self, wait: Duration) -> Self {
        Self { max_wait: wait, ..self }
    }

    /// Whether a request of the tier may be broken off when another tier needs the slot that it has borrowed. Default:
    /// [`Revoke::Never`].
    pub const fn revocable(self, revoke: Revoke) -> Self {
        Self { revocable: revoke, ..self }
    }
}

/// Whether a running request may be broken off, while its tier has more than its share and another waits for less than
/// its own. Only where the engine stops working for a client that is gone does it free anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Revoke {
    /// Never.
    #[default]
    Never,
    /// As long as nothing of the answer's body has come. With 503; where the head of the answer is out already, the
    /// stream ends with an error in its own form. The caller is charged nothing.
    BeforeFirstByte,
    /// At any time. An answer that has begun ends with an error in its own form, and is charged like one that the caller
    /// leaves.
    Always,
}

/// All that the scheduler goes by.
#[derive(Clone, Debug)]
pub(in crate::rate_limit) struct Plan {
    pub(in crate::rate_limit) capacity: Capacity,
    pub(in crate::rate_limit) headroom: Headroom,
    pub(in crate::rate_limit) adaptive: Option<Adaptive>,
    pub(in crate::rate_limit) weights: TokenWeights,
    /// The engine parks a stream when it is asked to.
    pub(in crate::rate_limit) yields: bool,
    pub(in crate::rate_limit) tiers: Vec<(Arc<str>, Share)>,
}

impl Plan {
    /// The plan, if it can be kept.
    pub(in crate::rate_limit) fn check(self) -> Result<Self, BuildError> {
        if self.tiers.is_empty() {
            return Err(BuildError::Empty("tiers"));
        }
        let percent = self.tiers.iter().map(|(_, share)| u64::from(share.percent)).sum::<u64>();
        if percent > 100 {
            let reason = format!("all shares are {percent} % together, more than there is");
            return Err(BuildError::invalid("tier", reason));
        }
        for (at, (name, share)) in self.tiers.iter().enumerate() {
            let fault =
                |reason: &str| Err(BuildError::invalid("tier", format!("{name}: {reason}")));
            if self.tiers.iter().take(at).any(|(other, _)| other == name) {
                return fault("there are two of this name");
            }
            if !(share.percent..=100).contains(&share.borrow_up_to_percent) {
                return fault("it may borrow up to less than its share, or more than there is");
            }
            if share.max_wait.is_zero() && share.queue > 0 {
                return fault("its requests may wait, but for no time");
            }
            if share.max_prompt_tokens == Some(0) {
                return fault("no prompt is short enough");
            }
        }
        if self.adaptive.and_then(|adaptive| adaptive.target).is_some_and(|target| target.is_zero())
        {
            return Err(BuildError::invalid("adaptive", "no engine takes no time for a token"));
        }
        self.check_capacity(self.capacity)?;
        Ok(self)
    }

    /// Whether `capacity` can be shared so.
    pub(super) fn check_capacity(&self, capacity: Capacity) -> Result<(), BuildError> {
        let slots = capacity.slots;
        if self.headroom.0.is_some_and(|headroom| headroom >= slots) {
            return Err(BuildError::invalid("headroom", "it leaves no slot to borrow"));
        }

        if slots as u64 > MOST
            || capacity.tokens.max(capacity.prefill).is_some_and(|tokens| tokens > MOST)
        {
            return Err(BuildError::invalid("capacity", "it is more than any engine has"));
        }
        for (name, share) in &self.tiers {
            let none = |of: u64| part(of, share.percent) == 0;
            let tokens = none(capacity.tokens.unwrap_or(MOST));
            if none(slots as u64) || tokens || none(capacity.prefill.unwrap_or(MOST)) {
                let reason = format!("the share of {name} comes to nothing of it");
                return Err(BuildError::invalid("capacity", reason));
            }
        }
        Ok(())
    }
}

/// So many hundredths, rounded down: rounded up, the parts would be more than the whole.
pub(super) fn part(of: u64, percent: u32) -> u64 {
    u64::try_from(u128::from(of) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

/// The greatest capacity, and the most tokens that one request counts for: sums of them never overflow.
pub(super) const MOST: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(tiers: &[(&str, Share)]) -> Plan {
        let tiers = tiers.iter().map(|(name, share)| (Arc::from(*name), *share)).collect();
        Plan {
            capacity: Capacity::slots(64),
            headroom: Headroom::automatic(),
            adaptive: None,
            weights: TokenWeights::new(1000, 4000),
            yields: false,
            tiers,
        }
    }

    fn fault(plan: Plan) -> String {
        plan.check().unwrap_err().to_string()
    }

    #[test]
    fn a_plan_that_cant_be_kept_is_refused() {
        let share = Share::percent;
        assert!(plan(&[("paid", share(60)), ("free", share(40))]).check().is_ok());
        assert!(fault(plan(&[])).contains("empty"));
        assert!(fault(plan(&[("paid", share(60)), ("free", share(41))])).contains("101 %"));
        assert!(
            fault(plan(&[("paid", share(60)), ("paid", share(1))])).contains("two of this name")
        );
        assert!(fault(plan(&[("paid", share(60).borrow_up_to_percent(59))])).contains("borrow"));
        assert!(fault(plan(&[("paid", share(60).borrow_up_to_percent(101))])).contains("borrow"));
        assert!(fault(plan(&[("paid", share(60).max_wait(Duration::ZERO))])).contains("no time"));
        assert!(fault(plan(&[("paid", share(60).max_prompt_tokens(0))])).contains("short enough"));
    }

    #[test]
    fn a_share_of_no_slot_is_refused_since_it_would_never_admit() {
        assert!(fault(plan(&[("free", Share::percent(1))])).contains("free comes to nothing"));
        assert!(fault(plan(&[("free", Share::percent(0))])).contains("free comes to nothing"));
        let few = Plan {
            capacity: Capacity::slots(64).prefill_pending(19),
            ..plan(&[("free", Share::percent(5))])
        };
        assert!(fault(few).contains("free comes to nothing"));
    }

    #[test]
    fn headroom_leaves_something_to_borrow() {
        let with = |slots| Plan {
            headroom: Headroom::slots(slots),
            ..plan(&[("paid", Share::percent(100))])
        };
        assert!(with(63).check().is_ok());
        assert!(fault(with(64)).contains("headroom"));
    }

    #[test]
    fn a_target_is_some_time() {
        let adaptive = Some(Adaptive::per_token(Duration::ZERO));
        let plan = Plan { adaptive, ..plan(&[("paid", Share::percent(100))]) };
        assert!(fault(plan).contains("adaptive"));
    }

    #[test]
    fn shares_are_rounded_down_so_that_they_never_sum_past_the_whole() {
        for slots in 1..300 {
            let shares = [34, 33, 33].map(|percent| part(slots, percent));
            assert!(shares.iter().sum::<u64>() <= slots);
        }
    }
}

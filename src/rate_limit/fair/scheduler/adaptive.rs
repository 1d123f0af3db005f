//! Up to how many slots are lent, by how long the engine takes for a token: a control loop, told what was measured and what
//! time it is. What is a tier's own it never touches.

use std::{collections::VecDeque, time::Duration};

use super::{Scheduler, Wakes, snapshot::AdaptiveSnapshot};
use crate::rate_limit::fair::plan::Adaptive;

/// What the frames of one answer have taken since it was last told.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::rate_limit) struct Measured {
    pub(in crate::rate_limit) time: Duration,
    /// Tokens that came in that time, and gaps that it is the sum of.
    pub(in crate::rate_limit) tokens: u32,
    pub(in crate::rate_limit) gaps: u32,
}

/// What a window has shown that an operator should know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::rate_limit) struct Finding {
    /// A target that was found, or has moved.
    pub(in crate::rate_limit) target: Option<Duration>,
    /// Nothing is lent, and the engine is still too slow.
    pub(in crate::rate_limit) oversold: bool,
}

/// The limit, what it goes by, and what was measured since it was last looked at.
#[derive(Debug)]
pub(super) struct BorrowLimit {
    slots: u64,
    /// Something is lent as long as fewer run in all.
    limit: u64,
    target: Option<Duration>,
    /// What the target is found by, where none was given.
    quiet: Option<Quiet>,
    window: Window,
    per_token: Option<Duration>,
    oversold: u64,
}

#[derive(Debug, Default)]
struct Window {
    since: Option<Duration>,
    time: Duration,
    tokens: u64,
    gaps: u64,
    /// The most requests that were seen to run.
    most: u64,
    /// Somebody was not lent a slot for this limit alone.
    bound: bool,
}

impl BorrowLimit {
    pub(super) fn new(adaptive: Adaptive, slots: u64) -> Self {
        Self {
            slots,
            limit: slots,
            target: adaptive.target,
            quiet: adaptive.target.is_none().then(Quiet::default),
            window: Window::default(),
            per_token: None,
            oversold: 0,
        }
    }

    /// For another capacity, of which as great a part may be lent.
    pub(super) fn resize(&mut self, slots: u64) {
        let limit = u128::from(self.limit) * u128::from(slots) / u128::from(self.slots.max(1));
        self.limit = u64::try_from(limit).unwrap_or(slots).min(slots);
        (self.slots, self.window) = (slots, Window::default());
    }

    pub(super) fn get(&self) -> u64 {
        self.limit
    }

    /// Slots that nobody may borrow for it.
    pub(super) fn kept_free(&self) -> u64 {
        self.slots.saturating_sub(self.limit)
    }

    /// Somebody is not lent a slot, for this limit alone.
    pub(super) fn holds_back(&mut self) {
        self.window.bound = true;
    }

    /// Takes what was measured while so many ran. Whether the window is over.
    fn add(&mut self, measured: Measured, running: u64, now: Duration) -> bool {
        let window = &mut self.window;
        let since = *window.since.get_or_insert(now);
        window.time = window.time.saturating_add(measured.time);
        window.tokens += u64::from(measured.tokens);
        window.gaps += u64::from(measured.gaps);
        window.most = window.most.max(running);
        window.gaps >= FEWEST && now.saturating_sub(since) >= WINDOW
    }

    /// Ends the window. While it is `draining`, more is lent than the limit allows: a cut has yet to show, and another
    /// would change nothing but overshoot.
    fn judge(&mut self, draining: bool, now: Duration) -> Finding {
        let next = Window { since: Some(now), ..Window::default() };
        let window = std::mem::replace(&mut self.window, next);
        if window.tokens == 0 {
            return Finding::default();
        }
        let seconds = window.time.as_secs_f64() / window.tokens as f64;
        let per_token = Duration::try_from_secs_f64(seconds).unwrap_or(window.time);
        self.per_token = Some(per_token);
        let mut finding = Finding::default();
        if let Some(quiet) = &mut self.quiet
            && window.most <= (self.slots / QUIET_PART).max(1)
        {
            finding.target = quiet.learn(per_token, self.target);
            self.target = finding.target.or(self.target);
        }
        let Some(target) = self.target.map(|target| target.as_secs_f64()) else { return finding };
        if seconds > target * TOO_SLOW {
            if self.limit > 0 && !draining {
                let cut = (target / seconds).sqrt().max(DEEPEST_CUT);
                self.limit = (self.limit as f64 * cut) as u64;
            } else if !draining {
                finding.oversold = true;
                self.oversold = self.oversold.saturating_add(1);
            }
        } else if seconds < target * FAST_ENOUGH && window.bound {
            self.limit = (self.limit + 1).min(self.slots);
        }
        finding
    }

    pub(super) fn snapshot(&self) -> AdaptiveSnapshot {
        AdaptiveSnapshot {
            limit: self.limit,
            target: self.target,
            per_token: self.per_token,
            oversold: self.oversold,
        }
    }
}

/// What a token took when little ran, lately.
#[derive(Debug, Default)]
struct Quiet(VecDeque<Duration>);

impl Quiet {
    /// A target that is new, or far enough from the one before. The lowest decile: what disturbs the engine only ever makes
    /// it slower.
    fn learn(&mut self, per_token: Duration, before: Option<Duration>) -> Option<Duration> {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(per_token);
        if self.0.len() < ENOUGH {
            return None;
        }
        let mut sorted: Vec<_> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let target = *sorted.get(sorted.len() / 10)? * 3 / 2;
        let moved = before.is_none_or(|before| target.abs_diff(before) * 10 >= before);
        (moved && !target.is_zero()).then_some(target)
    }
}

impl Scheduler {
    /// Takes what was measured of an answer.
    pub(in crate::rate_limit) fn measured(
        &mut self,
        measured: Measured,
        now: Duration,
        wakes: &mut Wakes,
    ) -> Finding {
        let running = self.total.slots;
        let lends = self.tiers.iter().any(|tier| tier.excess().is_some());
        let Some(limit) = &mut self.limit else { return Finding::default() };
        if !limit.add(measured, running, now) {
            return Finding::default();
        }
        let finding = limit.judge(lends && running > limit.get(), now);
        // Also finds who waits on for no other reason, though nothing comes or goes in the next window.
        self.dispatch(now, wakes);
        finding
    }

    /// Up to how many slots something is lent, where that is adapted.
    pub(in crate::rate_limit) fn borrow_limit(&self) -> Option<u64> {
        self.limit.as_ref().map(BorrowLimit::get)
    }
}

/// How long is measured before the limit moves, and of how many gaps at least.
const WINDOW: Duration = Duration::from_secs(1);
const FEWEST: u64 = 8;
/// Parts of the target between which the limit stays.
const TOO_SLOW: f64 = 1.05;
const FAST_ENOUGH: f64 = 0.95;
/// What is left of the limit by the deepest cut of one window.
const DEEPEST_CUT: f64 = 0.7;
/// One in so many slots taken is little.
const QUIET_PART: u64 = 4;
/// Windows of little load that are remembered, and that a target takes.
const REMEMBERED: usize = 64;
const ENOUGH: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A limit, and the time.
    struct Loop(BorrowLimit, Duration);

    impl Loop {
        fn new(adaptive: Adaptive, slots: u64) -> Self {
            Self(BorrowLimit::new(adaptive, slots), Duration::ZERO)
        }

        /// A second in which so many ran, and each token took so long.
        fn second(&mut self, running: u64, per_token: Duration, bound: bool) -> Finding {
            let measured = Measured { time: per_token * 8, tokens: 8, gaps: 8 };
            self.0.add(Measured::default(), running, self.1);
            if bound {
                self.0.holds_back();
            }
            self.1 += WINDOW;
            assert!(self.0.add(measured, running, self.1));
            self.0.judge(false, self.1)
        }
    }

    #[test]
    fn a_slow_engine_lends_less_and_a_fast_one_more_again_if_that_is_wanted() {
        let mut limit = Loop::new(Adaptive::per_token(20 * MS), 64);
        assert_eq!(limit.0.get(), 64);
        // A cut as deep as one may be, and one by the root.
        limit.second(64, 200 * MS, false);
        assert_eq!(limit.0.get(), 44);
        limit.second(64, 25 * MS, false);
        assert_eq!(limit.0.get(), 39);
        // Near the target it stays, wanted or not.
        limit.second(64, 20 * MS + MS / 2, true);
        limit.second(64, 20 * MS - MS / 2, true);
        assert_eq!(limit.0.get(), 39);
        limit.second(64, 10 * MS, false);
        assert_eq!(limit.0.get(), 39);
        limit.second(64, 10 * MS, true);
        assert_eq!(limit.0.get(), 40);
        assert_eq!(limit.0.kept_free(), 24);
    }

    #[test]
    fn an_engine_that_is_slow_with_nothing_lent_is_oversold() {
        let mut limit = Loop::new(Adaptive::per_token(20 * MS), 4);
        for left in [2, 1, 0] {
            assert!(!limit.second(4, 50 * MS, true).oversold);
            assert_eq!(limit.0.get(), left);
        }
        assert!(limit.second(4, 50 * MS, true).oversold);
        assert_eq!((limit.0.get(), limit.0.snapshot().oversold), (0, 1));
        // Not while what was lent before still runs.
        limit.0.window.gaps = 8;
        limit.0.window.tokens = 8;
        limit.0.window.time = 400 * MS;
        assert!(!limit.0.judge(true, limit.1).oversold);
    }

    #[test]
    fn a_cut_is_not_followed_by_another_before_it_shows() {
        let mut limit = Loop::new(Adaptive::per_token(20 * MS), 64);
        limit.second(64, 50 * MS, false);
        let cut = limit.0.get();
        limit.0.add(Measured { time: 400 * MS, tokens: 8, gaps: 8 }, 64, limit.1 + WINDOW);
        limit.0.judge(true, limit.1 + WINDOW);
        assert_eq!(limit.0.get(), cut);
    }

    #[test]
    fn a_window_takes_a_second_and_eight_gaps() {
        let mut limit = BorrowLimit::new(Adaptive::per_token(20 * MS), 64);
        let gap = Measured { time: 50 * MS, tokens: 1, gaps: 1 };
        for n in 0..7 {
            assert!(!limit.add(gap, 1, WINDOW * n));
        }
        assert!(limit.add(gap, 1, WINDOW * 7));
        limit.judge(false, WINDOW * 7);
        for n in 0..20 {
            assert!(!limit.add(gap, 1, WINDOW * 7 + MS * n));
        }
        assert!(limit.add(gap, 1, WINDOW * 8));
    }

    #[test]
    fn a_target_is_found_when_little_runs() {
        let mut limit = Loop::new(Adaptive::automatic(), 64);
        // None of these is little, and without a target nothing moves.
        for _ in 0..20 {
            assert_eq!(limit.second(17, 500 * MS, true), Finding::default());
        }
        assert_eq!((limit.0.get(), limit.0.snapshot().target), (64, None));
        for _ in 0..9 {
            assert_eq!(limit.second(16, 10 * MS, true).target, None);
        }
        assert_eq!(limit.second(16, 40 * MS, true).target, Some(15 * MS));
        // Told once, until it moves.
        for _ in 0..20 {
            assert_eq!(limit.second(1, 10 * MS + MS / 2, false).target, None);
        }
        let moved: Vec<_> =
            (0..80).filter_map(|_| limit.second(1, 20 * MS, false).target).collect();
        assert_eq!(moved, [30 * MS]);
        limit.second(64, 60 * MS, false);
        assert!(limit.0.get() < 64);
    }

    #[test]
    fn another_capacity_lends_as_great_a_part() {
        let mut limit = Loop::new(Adaptive::per_token(20 * MS), 64);
        limit.0.resize(32);
        assert_eq!(limit.0.get(), 32);
        limit.second(32, 200 * MS, false);
        assert_eq!(limit.0.get(), 22);
        limit.0.resize(64);
        assert_eq!(limit.0.get(), 44);
        limit.0.resize(1);
        assert_eq!(limit.0.get(), 0);
    }

    proptest! {
        #[test]
        fn the_limit_is_of_the_slots_and_rises_only_where_it_holds_somebody_back(
            target in 1..100_u32,
            automatic: bool,
            slots in 1..200_u64,
            steps in prop::collection::vec((0..200_u64, 0..200_u32, any::<bool>(), 0..10_u8), 1..100),
        ) {
            let adaptive =
                if automatic { Adaptive::automatic() } else { Adaptive::per_token(target * MS) };
            let mut limit = Loop::new(adaptive, slots);
            for (running, per_token, bound, resized) in steps {
                if resized == 0 {
                    limit.0.resize(running + 1);
                    prop_assert!(limit.0.get() <= running + 1);
                }
                let before = limit.0.get();
                limit.second(running, per_token * MS, bound);
                let after = limit.0.get();
                prop_assert!(after <= limit.0.slots);
                prop_assert!(after <= before || (bound && after == before + 1));
                prop_assert!(after + 1 >= before * 7 / 10);
            }
        }
    }
}

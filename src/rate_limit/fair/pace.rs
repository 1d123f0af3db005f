//! How long the engine takes for each token of one answer, and nobody else.

use std::{mem, sync::Arc, time::Duration};

use super::{FairAdmission, scheduler::Measured, signal::Watch};

/// Times the frames of an answer, and tells the scheduler a few times a second.
pub(in crate::rate_limit) struct Pace {
    fair: FairAdmission,
    watch: Option<Arc<Watch>>,
    gaps: Gaps,
    /// What was not told yet.
    measured: Measured,
    told: Duration,
}

impl Pace {
    pub(super) fn new(fair: FairAdmission, watch: Option<Arc<Watch>>) -> Self {
        let told = fair.now();
        Self { fair, watch, gaps: Gaps::default(), measured: Measured::default(), told }
    }

    /// The inner body is asked for its next frame.
    pub(in crate::rate_limit) fn asks(&mut self) {
        if self.gaps.yielded.is_some() {
            self.gaps.asks(self.fair.now());
        }
    }

    /// It has none yet.
    pub(in crate::rate_limit) fn waits(&mut self) {
        self.gaps.waited = true;
    }

    /// It has one, with a token or without.
    pub(in crate::rate_limit) fn came(&mut self, token: bool) {
        let now = self.fair.now();
        let Some((gap, tokens)) = self.gaps.came(now, token) else { return };
        // While it was parked, the engine was at other streams.
        if self.watch.as_ref().is_some_and(|watch| watch.has_rested()) {
            return;
        }
        self.measured.time += gap;
        self.measured.tokens += tokens;
        self.measured.gaps += 1;
        if now.saturating_sub(self.told) >= TELLS {
            self.told = now;
            self.fair.measured(mem::take(&mut self.measured));
        }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        if self.measured.gaps > 0 {
            self.fair.measured(self.measured);
        }
    }
}

/// The time between one token that was waited for and the next. What was there when it was asked for came with the one
/// before, or while the client was slow to ask: in either case, when is not known.
#[derive(Debug, Default)]
struct Gaps {
    /// When the inner body last yielded something, until it is asked for more.
    yielded: Option<Duration>,
    /// Nothing was there when it was asked.
    waited: bool,
    /// When the last token came that was waited for, how many came since, and how long nobody asked.
    last: Option<Duration>,
    tokens: u32,
    away: Duration,
}

impl Gaps {
    fn asks(&mut self, now: Duration) {
        let yielded = self.yielded.take().unwrap_or(now);
        self.away = self.away.saturating_add(now.saturating_sub(yielded));
    }

    /// The time and the tokens since the last one that was waited for, if this one was, and the time is the engine's own.
    fn came(&mut self, now: Duration, token: bool) -> Option<(Duration, u32)> {
        self.yielded = Some(now);
        if !token {
            return None;
        }
        self.tokens = self.tokens.saturating_add(1);
        if !mem::take(&mut self.waited) {
            return None;
        }
        let (tokens, away) = (mem::take(&mut self.tokens), mem::take(&mut self.away));
        let gap = now.saturating_sub(self.last.replace(now)?);
        (away.saturating_mul(AWAY_PART) <= gap).then_some((gap, tokens))
    }
}

/// How often an answer tells.
const TELLS: Duration = Duration::from_millis(250);
/// One part in so many of a gap may be the client's.
const AWAY_PART: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A frame that is asked for, waited for or not, and comes.
    fn frame(gaps: &mut Gaps, asked: u32, waited: bool, came: u32) -> Option<(Duration, u32)> {
        gaps.asks(asked * MS);
        gaps.waited |= waited;
        gaps.came(came * MS, true)
    }

    #[test]
    fn tokens_after_the_first_are_timed() {
        let mut gaps = Gaps::default();
        assert_eq!(frame(&mut gaps, 0, true, 900), None);
        assert_eq!(frame(&mut gaps, 900, true, 920), Some((20 * MS, 1)));
        assert_eq!(frame(&mut gaps, 921, true, 945), Some((25 * MS, 1)));
    }

    #[test]
    fn tokens_that_come_together_share_a_gap() {
        let mut gaps = Gaps::default();
        frame(&mut gaps, 0, true, 100);
        assert_eq!(frame(&mut gaps, 100, false, 100), None);
        assert_eq!(frame(&mut gaps, 100, false, 100), None);
        assert_eq!(frame(&mut gaps, 100, true, 160), Some((60 * MS, 3)));
    }

    #[test]
    fn what_is_no_token_is_part_of_the_gap() {
        let mut gaps = Gaps::default();
        frame(&mut gaps, 0, true, 100);
        gaps.asks(100 * MS);
        gaps.waited = true;
        assert_eq!(gaps.came(110 * MS, false), None);
        assert_eq!(frame(&mut gaps, 110, true, 120), Some((20 * MS, 1)));
    }

    #[test]
    fn a_slow_client_is_not_timed() {
        let mut gaps = Gaps::default();
        frame(&mut gaps, 0, true, 100);
        // It asks a second later: for what is there, or what an engine makes only when it is asked.
        assert_eq!(frame(&mut gaps, 1100, false, 1100), None);
        assert_eq!(frame(&mut gaps, 2100, true, 2120), None);
        // The next that it is quick to ask for is timed.
        assert_eq!(frame(&mut gaps, 2120, true, 2140), Some((20 * MS, 1)));
    }
}

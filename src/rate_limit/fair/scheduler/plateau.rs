//! Whether an engine runs fewer requests at a time than it was given: the rest wait within it, where nothing is fair.
//!
//! From here, one of those looks like one whose prompt is long. But an engine that runs `n` at a time begins an answer only
//! when another has ended: whenever one begins while another is still to begin, `n` are under way, and never more.
//! Where prompts are what takes the time, that number goes up and down. Only answers that are streamed tell
//! anything: of the others, the first byte is the last.

use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(super) struct Plateau {
    /// Answers that began so far.
    begun: u64,
    /// Those of which nobody has shown yet that another waited, by their number, and how many were under way then.
    open: VecDeque<(u64, u64)>,
    /// The most that were under way at a time; how many began while another waited, and of these, how many were the last
    /// of as many.
    most: u64,
    beside_another: u32,
    at_most: u32,
    found: Option<u64>,
    told: Option<u64>,
}

impl Plateau {
    /// How many requests the engine runs at a time, if that is fewer than it was given.
    pub(super) fn found(&self) -> Option<u64> {
        self.found
    }

    /// The number of the next answer that begins, for a request that is let in.
    pub(super) fn next(&self) -> u64 {
        self.begun
    }

    /// A streamed answer begins: so many are under way with it, and its request was let in when `next` was the next. What is
    /// found by it, if that is new.
    pub(super) fn begins(&mut self, under_way: u64, next: u64) -> Option<u64> {
        if under_way > self.most {
            self.found = self.found.filter(|found| under_way <= *found);
            (self.most, self.beside_another, self.at_most) = (under_way, 0, 0);
        }
        // All that began since then began while this one waited.
        while let Some((_, under_way)) =
            self.open.back().copied().filter(|(number, _)| *number >= next)
        {
            self.open.pop_back();
            self.beside_another += 1;
            self.at_most += u32::from(under_way == self.most);
        }
        if self.open.len() == WINDOW as usize {
            self.open.pop_front();
        }
        self.open.push_back((self.begun, under_way));
        self.begun += 1;
        if self.beside_another < WINDOW {
            return None;
        }
        let is_flat = self.at_most * FLAT_PART >= WINDOW && self.most > 1;
        self.found = is_flat.then_some(self.most);
        (self.most, self.beside_another, self.at_most) = (0, 0, 0);
        let is_new = self.found.is_some() && self.found != self.told;
        self.told = self.found.or(self.told);
        self.found.filter(|_| is_new)
    }
}

/// Answers that begin beside others between one verdict and the next.
const WINDOW: u32 = 64;
/// One in so many of them is the last of the most under way, where these are bounded: several may end before others begin.
const FLAT_PART: u32 = 4;

//! Who asks for what, and when: the same for the same seed.

use std::time::Duration;

use rand::{SeedableRng as _, rngs::StdRng};
use rand_distr::{Distribution as _, Exp, LogNormal};

/// A request to come.
#[derive(Clone, Debug)]
pub struct Ask {
    pub tier: &'static str,
    pub account: String,
    /// Whether it is of those who flood.
    pub floods: bool,
    pub at: Duration,
    pub prompt: usize,
    pub answer: usize,
}

/// What stands beside the enterprise tier's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Nothing.
    Alone,
    /// The other tiers, and so many ordinary requests of the free one that the engine is full.
    Full,
    /// The other tiers, and a flood of long prompts from one account.
    Flood,
    /// The same from fifty accounts of one organisation.
    Farm,
}

/// All requests of a run, in the order of their times.
pub fn asks(load: Load, seed: u64, lasts: Duration) -> Vec<Ask> {
    let mut asks = Vec::new();
    let mut add = |stream: Stream| asks.extend(stream.asks(seed, lasts));
    for n in 0..2 {
        add(Stream::ordinary("enterprise", format!("e{n}"), 5.0));
    }
    if load != Load::Alone {
        for n in 0..8 {
            add(Stream::ordinary("paid", format!("p{n}"), 1.0));
            add(Stream::ordinary("free", format!("f{n}"), 0.25));
        }
    }
    let flood = |account, per_second| Stream {
        floods: true,
        per_second,
        prompt: 6000.0,
        answer: 500.0,
        spread: 0.2,
        ..Stream::ordinary("free", account, 0.0)
    };
    match load {
        Load::Alone => (),
        Load::Full => {
            for n in 0..8 {
                add(Stream { floods: true, ..Stream::ordinary("free", format!("x{n}"), 65.0) });
            }
        }
        Load::Flood => add(flood("x".into(), 100.0)),
        Load::Farm => (0..50).for_each(|n| add(flood(format!("x{n}"), 2.0))),
    }
    asks.sort_by_key(|ask| ask.at);
    asks
}

/// The requests of one account.
struct Stream {
    tier: &'static str,
    account: String,
    floods: bool,
    per_second: f64,
    prompt: f64,
    answer: f64,
    spread: f64,
}

impl Stream {
    fn ordinary(tier: &'static str, account: String, per_second: f64) -> Self {
        Self { tier, account, floods: false, per_second, prompt: 600.0, answer: 200.0, spread: 0.6 }
    }

    fn asks(self, seed: u64, lasts: Duration) -> impl Iterator<Item = Ask> {
        let bytes = self.account.bytes().map(u64::from);
        let seed = bytes.fold(seed, |seed, byte| seed.wrapping_mul(0x100_0000_01b3) ^ byte);
        let mut random = StdRng::seed_from_u64(seed);
        let pause = Exp::new(self.per_second).expect("a rate");
        let tokens = |mean: f64| {
            let middle = mean.ln() - self.spread * self.spread / 2.0;
            LogNormal::new(middle, self.spread).expect("a spread")
        };
        let (prompt, answer) = (tokens(self.prompt), tokens(self.answer));
        let mut at = Duration::ZERO;
        std::iter::from_fn(move || {
            at += Duration::from_secs_f64(pause.sample(&mut random));
            let prompt = prompt.sample(&mut random).clamp(16.0, 8000.0) as usize;
            let answer = answer.sample(&mut random).clamp(4.0, MOST_ANSWER as f64) as usize;
            let (tier, account, floods) = (self.tier, self.account.clone(), self.floods);
            (at < lasts).then_some(Ask { tier, account, floods, at, prompt, answer })
        })
    }
}

/// What any answer may have at the most.
pub const MOST_ANSWER: usize = 800;

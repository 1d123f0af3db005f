//! Who asks for how much, and when: drawn from a seed, so that every guard meets the same requests.

use std::{f64::consts::TAU, net::Ipv4Addr, time::Duration};

use serde::Serialize;

/// What a caller pays for, and what share of the engine is his by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tier {
    Enterprise,
    Paid,
    Free,
}

impl Tier {
    pub(crate) const ALL: [Self; 3] = [Self::Enterprise, Self::Paid, Self::Free];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Enterprise => "enterprise",
            Self::Paid => "paid",
            Self::Free => "free",
        }
    }

    pub(crate) fn percent(self) -> u8 {
        match self {
            Self::Enterprise => 50,
            Self::Paid => 35,
            Self::Free => 15,
        }
    }

    /// That share of `slots`.
    pub(crate) fn slots(self, slots: usize) -> usize {
        slots * usize::from(self.percent()) / 100
    }

    /// How many honest accounts it has, and the requests that they make together, in a second.
    pub(crate) fn honest(self) -> (u16, f64) {
        match self {
            Self::Enterprise => (2, 2.0),
            Self::Paid => (8, 1.6),
            Self::Free => (8, 0.4),
        }
    }
}

/// Who asks beside whom.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scene {
    /// The enterprise's users, and nobody else.
    Alone,
    /// All three tiers, and nobody who asks for too much.
    Calm,
    /// As much honest work as the engine can do and more: so many ordinary requests a second from fifty more free users.
    Full(u16),
    /// So many long requests a second from as many accounts of one network.
    Flood { rate: u16, accounts: u16 },
}

impl Scene {
    /// Tokens of the prompts of those who wait: of whoever comes most.
    pub(crate) fn prompt(self) -> u64 {
        let kind = if matches!(self, Self::Flood { .. }) { LONG } else { ORDINARY };
        kind.prompt.0 as u64
    }
}

/// The tokens that an answer may have (`max_tokens`), for everybody.
pub(crate) const MAX_ANSWER: u32 = 800;
/// When the flood begins, and what fills the engine honestly.
pub(crate) const BEGINS: Duration = Duration::from_secs(10);
const LONGEST_PROMPT: u32 = 8_000;

/// One request that somebody will make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) tier: Tier,
    pub(crate) abuse: bool,
    pub(crate) account: u16,
    pub(crate) network: Ipv4Addr,
    pub(crate) at: Duration,
    pub(crate) prompt: u32,
    /// Tokens after which the model ends its answer, which nobody knows before.
    pub(crate) answer: u32,
}

/// All requests of a run, in the order of time. Abuse ends at `leaves`.
pub(crate) fn requests(scene: Scene, seed: u64, span: Duration, leaves: Duration) -> Vec<Ask> {
    let mut all = Vec::new();
    for tier in Tier::ALL {
        if scene == Scene::Alone && tier != Tier::Enterprise {
            continue;
        }
        let (accounts, rate) = tier.honest();
        for account in 0..accounts {
            let caller = Caller { tier, abuse: false, account, network: network(tier, account) };
            caller.asks(ORDINARY, rate / f64::from(accounts), seed, Duration::ZERO..span, &mut all);
        }
    }
    let (rate, accounts, kind) = match scene {
        Scene::Alone | Scene::Calm => (0, 0, ORDINARY),
        Scene::Full(rate) => (rate, 50, ORDINARY),
        Scene::Flood { rate, accounts } => (rate, accounts, LONG),
    };
    for account in 0..accounts {
        let (tier, abuse) = (Tier::Free, matches!(scene, Scene::Flood { .. }));
        let network =
            if abuse { Ipv4Addr::new(203, 0, 113, 9) } else { network(tier, 100 + account) };
        let caller = Caller { tier, abuse, account: 100 + account, network };
        let span = BEGINS..if abuse { leaves.min(span) } else { span };
        caller.asks(kind, f64::from(rate) / f64::from(accounts), seed, span, &mut all);
    }
    all.sort_by_key(|ask| ask.at);
    all
}

/// Every honest user sits in a network of his own.
fn network(tier: Tier, account: u16) -> Ipv4Addr {
    let [high, low] = account.to_be_bytes();
    Ipv4Addr::new(10, tier.percent(), high.wrapping_mul(8).wrapping_add(low), 1)
}

/// Lengths are lognormal: a mean and the standard deviation of the logarithm.
#[derive(Clone, Copy)]
struct Kind {
    prompt: (f64, f64),
    answer: (f64, f64),
}

const ORDINARY: Kind = Kind { prompt: (600.0, 0.6), answer: (200.0, 0.7) };
const LONG: Kind = Kind { prompt: (6_000.0, 0.2), answer: (500.0, 0.2) };

#[derive(Clone, Copy)]
struct Caller {
    tier: Tier,
    abuse: bool,
    account: u16,
    network: Ipv4Addr,
}

impl Caller {
    fn asks(
        self,
        kind: Kind,
        rate: f64,
        seed: u64,
        span: std::ops::Range<Duration>,
        all: &mut Vec<Ask>,
    ) {
        let Self { tier, abuse, account, network } = self;
        let mut dice = Dice::new(seed, u64::from(tier.percent()) << 32 | u64::from(account));
        let mut at = span.start;
        loop {
            at += Duration::from_secs_f64(dice.exponential() / rate);
            if at >= span.end {
                return;
            }
            let length = |dice: &mut Dice, (mean, sigma)| dice.lognormal(mean, sigma);
            let prompt = (length(&mut dice, kind.prompt) as u32).clamp(16, LONGEST_PROMPT);
            let answer = (length(&mut dice, kind.answer) as u32).clamp(4, MAX_ANSWER);
            // The runtime's timers count whole milliseconds.
            let at = Duration::from_millis(at.as_millis() as u64);
            all.push(Ask { tier, abuse, account, network, at, prompt, answer });
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014): the same figures on every machine, and with every version of any crate.
struct Dice(u64);

impl Dice {
    fn new(seed: u64, stream: u64) -> Self {
        let mut dice = Self(seed);
        dice.0 = dice.next() ^ stream;
        dice.0 = dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In (0, 1].
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }

    fn lognormal(&mut self, mean: f64, sigma: f64) -> f64 {
        let normal = (-2.0 * self.uniform().ln()).sqrt() * (TAU * self.uniform()).cos();
        (mean.ln() - sigma * sigma / 2.0 + sigma * normal).exp()
    }
}

//! The table, for people and for machines.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use crate::{
    guards::Guard,
    reading::{Reading, TierReading},
    run::Machine,
    workload::{Scene, Tier},
};

/// A guard in a scene, and what came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) guard: Guard,
    pub(crate) scene: Scene,
    pub(crate) reading: Reading,
}

/// All lines of one engine.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) machine: Machine,
    pub(crate) lines: Vec<Line>,
}

impl Table {
    pub(crate) fn line(&self, guard: Guard, scene: Scene) -> Option<&Reading> {
        let is = |line: &&Line| line.guard == guard && line.scene == scene;
        self.lines.iter().find(is).map(|line| &line.reading)
    }

    pub(crate) fn alone(&self) -> Option<&Reading> {
        self.line(Guard::None, Scene::Alone)
    }

    pub(crate) fn full(&self, guard: Guard) -> Option<&Reading> {
        self.line(guard, Scene::Full(self.machine.full))
    }

    fn row(&self, f: &mut Formatter<'_>, line: &Line) -> fmt::Result {
        let reading = &line.reading;
        let enterprise = reading.tier(Tier::Enterprise);
        let of = |figure: fn(&TierReading) -> f64, reference: Option<&Reading>| {
            let reference =
                reference.and_then(|reading| reading.tier(Tier::Enterprise)).map(figure);
            Times(enterprise.map(figure).zip(reference))
        };
        let figure = |figure: fn(&TierReading) -> f64| enterprise.map_or(0.0, figure);
        let (alone, full) = (self.alone(), self.full(line.guard));
        write!(f, "| {} | {} |", Name(line.scene), Titled(line.guard))?;
        write!(
            f,
            " {:.0} / {:.0} |",
            figure(|tier| tier.first_p50),
            figure(|tier| tier.first_p99)
        )?;
        write!(f, " {} | {} |", of(|tier| tier.first_p99, alone), of(|tier| tier.first_p99, full))?;
        write!(f, " {:.1} |", figure(|tier| tier.token_p99))?;
        write!(f, " {} | {} |", of(|tier| tier.token_p99, alone), of(|tier| tier.token_p99, full))?;
        write!(f, " {:.0} |", figure(|tier| tier.gap_p99))?;
        write!(f, " {} |", Of(reading, alone, Tier::Enterprise))?;
        write!(f, " {} |", Of(reading, self.line(Guard::None, Scene::Calm), Tier::Paid))?;
        match reading.tier(Tier::Free).filter(|free| free.requests > 0) {
            Some(free) => write!(f, " {:.3} |", free.served)?,
            None => write!(f, " |")?,
        }
        write!(f, " {:.1} | ", reading.slots)?;
        match reading.conserved {
            Some(conserved) => writeln!(f, "{conserved:.3} |"),
            None => writeln!(f, "|"),
        }
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Machine { name, speed, capacity, .. } = &self.machine;
        writeln!(f, "\n## {name}\n\n{speed:?}\n{capacity:?}\n")?;
        writeln!(
            f,
            "| scene | guard | first token p50 / p99 ms | x alone | x full | per token p99 ms | x alone | x full | gap p99 ms \
             | enterprise tokens | paid tokens | free served | slots taken | of usable, while one waits |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")?;
        self.lines.iter().try_for_each(|line| self.row(f, line))
    }
}

/// A figure over its reference.
struct Times(Option<(f64, f64)>);

impl Display for Times {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((figure, reference)) if figure > 0.0 && reference > 0.0 => {
                write!(f, "{:.2}", figure / reference)
            }
            _ => Ok(()),
        }
    }
}

/// A tier's tokens of those that it had in another scene.
struct Of<'a>(&'a Reading, Option<&'a Reading>, Tier);

impl Display for Of<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match share_of_tokens(self.0, self.1, self.2) {
            Some(share) => write!(f, "{share:.3}"),
            None => Ok(()),
        }
    }
}

pub(crate) fn share_of_tokens(reading: &Reading, of: Option<&Reading>, tier: Tier) -> Option<f64> {
    let (reading, of) = (reading.tier(tier)?, of?.tier(tier)?);
    let is_there = reading.requests > 0 && of.tokens_per_second > 0.0;
    is_there.then(|| reading.tokens_per_second / of.tokens_per_second)
}

struct Name(Scene);

impl Display for Name {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Scene::Alone => f.write_str("enterprise alone"),
            Scene::Calm => f.write_str("three tiers, no flood"),
            Scene::Full(_) => f.write_str("full of ordinary requests"),
            Scene::Flood { accounts: 1, .. } => f.write_str("**flood** from one account"),
            Scene::Flood { accounts, .. } => write!(f, "**flood** from {accounts} accounts"),
        }
    }
}

struct Titled(Guard);

impl Display for Titled {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Guard::None => "none",
            Guard::Quotas => "quotas, sold 4 times over",
            Guard::Fifo => "one `ConcurrencyLimit`",
            Guard::Partition => "a `ConcurrencyLimit` for each tier",
            Guard::Fair => "**fair admission**",
            Guard::FairYields => "**fair admission**, engine yields",
        })
    }
}

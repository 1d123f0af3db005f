//! What the README promises, held against the figures.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use crate::{
    guards::Guard,
    reading::{Reading, TierReading},
    report::{Table, share_of_tokens},
    workload::{Scene, Tier},
};

/// A figure, and what it may be.
#[derive(Debug, Serialize)]
pub(crate) struct Promise {
    engine: &'static str,
    what: String,
    /// None: there is nothing to tell it from, which is no better than broken.
    figure: Option<f64>,
    bound: Bound,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Promise {
    pub(crate) fn holds(&self) -> bool {
        match (self.figure, self.bound) {
            (Some(figure), Bound::AtMost(most)) => figure <= most,
            (Some(figure), Bound::AtLeast(least)) => figure >= least,
            (None, _) => false,
        }
    }
}

impl Display for Promise {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let verdict = if self.holds() { "holds " } else { "BROKEN" };
        write!(f, "{verdict}  {}, {}: ", self.engine, self.what)?;
        match self.figure {
            Some(figure) => write!(f, "{figure:.3}")?,
            None => write!(f, "not measured")?,
        }
        match self.bound {
            Bound::AtMost(most) => write!(f, ", at most {most:.2}"),
            Bound::AtLeast(least) => write!(f, ", at least {least:.2}"),
        }
    }
}

/// What is promised of slots of constant speed: that the flood is not there, beside an enterprise that is alone.
pub(crate) fn of_slots(table: &Table, guard: Guard) -> Vec<Promise> {
    let flood = table.line(guard, table.machine.flood(1));
    let mut list = List { table, guard, promises: Vec::new() };
    list.enterprise(flood, table.alone(), "alone", [1.10, 1.02, 1.05]);
    let slots = table.machine.speed.sequences as f64;
    let taken = flood.map(|flood| flood.slots / slots);
    list.add("slots taken", taken, Bound::AtLeast(0.97));
    list.others();
    list.promises
}

/// What is promised of continuous batching: that the flood is no more than as much ordinary work.
pub(crate) fn of_batching(table: &Table, guard: Guard) -> Vec<Promise> {
    let (flood, full) = (table.line(guard, table.machine.flood(1)), table.full(guard));
    let mut list = List { table, guard, promises: Vec::new() };
    let first = match guard {
        // The engine takes prompts in their order, however long.
        Guard::Fair => {
            bound(table).zip(enterprise(full)).map_or(0.0, |(most, full)| most / full.first_p99)
        }
        _ => 1.10,
    };
    list.enterprise(flood, full, "honestly full", [first, 1.20, 1.05]);
    list.others();
    list.promises
}

fn enterprise(reading: Option<&Reading>) -> Option<&TierReading> {
    reading?.tier(Tier::Enterprise)
}

struct List<'a> {
    table: &'a Table,
    guard: Guard,
    promises: Vec<Promise>,
}

impl List<'_> {
    fn add(&mut self, what: impl Into<String>, figure: Option<f64>, bound: Bound) {
        let what = what.into();
        let what = if self.guard == Guard::FairYields { what + ", engine yields" } else { what };
        self.promises.push(Promise { engine: self.table.machine.name, what, figure, bound });
    }

    /// The enterprise beside the flood: time to the first token, per token, between tokens, and tokens in all.
    fn enterprise(
        &mut self,
        flood: Option<&Reading>,
        reference: Option<&Reading>,
        name: &str,
        [first, token, gap]: [f64; 3],
    ) {
        let times = |figure: fn(&TierReading) -> f64| {
            let (flood, reference) = (enterprise(flood)?, enterprise(reference)?);
            let is_there = flood.requests > 0 && figure(reference) > 0.0;
            is_there.then(|| figure(flood) / figure(reference))
        };
        let beside = |what: &str| format!("{what} beside {name}");
        self.add(beside("first token p99"), times(|tier| tier.first_p99), Bound::AtMost(first));
        self.add(beside("time per token p99"), times(|tier| tier.token_p99), Bound::AtMost(token));
        self.add(beside("gap p99"), times(|tier| tier.gap_p99), Bound::AtMost(gap));
        let tokens = flood.and_then(|flood| share_of_tokens(flood, reference, Tier::Enterprise));
        self.add(beside("enterprise tokens"), tokens, Bound::AtLeast(0.99));
    }

    /// The other tiers, and what is left idle.
    fn others(&mut self) {
        let Self { table, guard, .. } = *self;
        let calm = table.line(Guard::None, Scene::Calm);
        for (accounts, least) in [(1, 0.95), (50, 0.90)] {
            let flood = table.line(guard, table.machine.flood(accounts));
            let beside = |what: &str| format!("{what} beside {accounts} abusing");
            let paid = flood.and_then(|flood| share_of_tokens(flood, calm, Tier::Paid));
            self.add(beside("paid tokens"), paid, Bound::AtLeast(0.97));
            let free = flood.and_then(|flood| flood.tier(Tier::Free));
            let served = free.filter(|free| free.requests > 0).map(|free| free.served);
            self.add(beside("honest free requests served"), served, Bound::AtLeast(least));
            let conserved = flood.and_then(|flood| flood.conserved);
            self.add(beside("capacity in use while one waits"), conserved, Bound::AtLeast(0.97));
        }
    }
}

/// For how long the first token of an enterprise's prompt can take, in milliseconds, behind an engine that takes prompts in
/// their order: its own prompt, the prompts that are pending or the longest that is let through alone, and two steps, the
/// one that runs and its own; at the pace of steps that decode all other slots.
pub(crate) fn bound(table: &Table) -> Option<f64> {
    let machine = &table.machine;
    let (speed, capacity) = (machine.speed, machine.capacity);
    let pending = capacity.prefill_pending?.max(LONGEST_OF_FLOOD);
    let decoding = capacity.slots.min(speed.chunk.saturating_sub(1));
    let read = (speed.chunk - decoding) as u64;
    let step = speed.step(decoding, capacity.tokens_in_flight?, read);
    let steps = (pending + LONGEST_OF_ENTERPRISE).div_ceil(read) + 2;
    Some(steps as f64 * step)
}

/// Tokens of prompts that one in a hundred is longer than: six thousand and 0.2, six hundred and 0.6, lognormal.
const LONGEST_OF_FLOOD: u64 = 8_000;
const LONGEST_OF_ENTERPRISE: u64 = 2_024;

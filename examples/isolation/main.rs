//! Abuse in one tier slows no other: a flood of long prompts in the free tier, and what different guards make of it.
//!
//! ```sh
//! cargo run --release --example isolation
//! ```
//!
//! drives requests through palisade's real layers, and through tower's, into a model of an engine, on the runtime's
//! paused clock: hours of traffic in seconds, and the same figures every time. It prints a table for each engine;
//! `--json` prints the same for a machine, `--picture FILE` draws a minute of it, and `--check` fails unless what the
//! README promises holds.

mod client;
mod engine;
mod guards;
mod picture;
mod promises;
mod reading;
mod report;
mod run;
mod workload;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Mutex,
    thread,
};

use clap::Parser;
use palisade::BoxError;
use serde::Serialize;

use crate::{
    engine::Speed,
    guards::{Capacity, Guard},
    promises::Promise,
    reading::Reading,
    report::{Line, Table},
    run::{Machine, Span, run},
    workload::Scene,
};

/// Floods the free tier of a modelled inference engine, and measures what the other tiers feel of it.
#[derive(Debug, Parser)]
#[command(name = "isolation")]
struct Arguments {
    /// Prints the figures as JSON.
    #[arg(long)]
    json: bool,

    /// Fails unless what is promised holds; runs only what that takes.
    #[arg(long)]
    check: bool,

    /// Runs only what else could stand before the batching engine.
    #[arg(long, conflicts_with_all = ["check", "engine"])]
    instead: bool,

    /// Draws a minute of the batching engine into an SVG file, and does nothing else.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "check"])]
    picture: Option<PathBuf>,

    /// Which engine: all, if none is named.
    #[arg(long, value_enum)]
    engine: Option<Named>,

    /// How long each run takes on its own clock; the first 40 seconds don't count.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = clap::value_parser!(u64).range(90..=3600))]
    seconds: u64,

    /// How many runs each line is made of.
    #[arg(long, value_name = "NUMBER", default_value = "3", value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Named {
    #[value(name = "slots64")]
    Slots64,
    #[value(name = "slots256")]
    Slots256,
    Batching,
}

impl Named {
    /// The guards of which something is promised. 64 slots are few: without the engine's help 6 of them are headroom, and
    /// idle.
    const fn guards(self) -> &'static [Guard] {
        match self {
            Self::Slots64 => &[Guard::FairYields],
            Self::Slots256 => &[Guard::Fair],
            Self::Batching => &[Guard::Fair, Guard::FairYields],
        }
    }

    fn promises(self, table: &Table) -> Vec<Promise> {
        let of = if self == Self::Batching { promises::of_batching } else { promises::of_slots };
        self.guards().iter().flat_map(|guard| of(table, *guard)).collect()
    }

    const ALL: [Self; 3] = [Self::Slots64, Self::Slots256, Self::Batching];

    const fn machine(self) -> Machine {
        match self {
            Self::Slots64 => SLOTS_64,
            Self::Slots256 => SLOTS_256,
            Self::Batching => BATCHING,
        }
    }
}

const fn slots(slots: usize, tokens_per_minute: u64) -> Capacity {
    Capacity { slots, tokens_in_flight: None, prefill_pending: None, tokens_per_minute }
}

const SLOTS_64: Machine = Machine {
    name: "64 slots of constant speed",
    speed: Speed::slots(64),
    capacity: slots(64, 768_000),
    flood: 20,
    full: 30,
};

const SLOTS_256: Machine = Machine {
    name: "256 slots of constant speed",
    speed: Speed::slots(256),
    capacity: slots(256, 3_072_000),
    flood: 40,
    full: 100,
};

const BATCHING: Machine = Machine {
    name: "continuous batching",
    speed: Speed::batching(),
    capacity: Capacity {
        slots: 60,
        tokens_in_flight: Some(80_000),
        prefill_pending: Some(4_096),
        tokens_per_minute: 340_000,
    },
    flood: 20,
    full: 40,
};

fn main() -> ExitCode {
    match report(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "isolation: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(arguments: &Arguments) -> Result<(), BoxError> {
    if let Some(file) = &arguments.picture {
        return picture::draw(&BATCHING, SEEDS_OF_PICTURE, file);
    }
    let span = Span::seconds(arguments.seconds);
    let (mut tables, mut promises) = (Vec::new(), Vec::new());
    for engine in Named::ALL {
        let only = if arguments.instead { Some(Named::Batching) } else { arguments.engine };
        if only.is_some_and(|only| only != engine) {
            continue;
        }
        let mut lines = if arguments.instead { Vec::new() } else { promised(engine) };
        if !arguments.check {
            lines.extend(beside(engine));
        }
        let table = measure(engine.machine(), &lines, arguments.seeds, span)?;
        if !arguments.instead {
            promises.extend(engine.promises(&table));
        }
        tables.push(table);
    }
    let mut out = io::stdout().lock();
    if arguments.json {
        serde_json::to_writer_pretty(&mut out, &Report { tables, promises: &promises })?;
        writeln!(out)?;
    } else {
        tables.iter().try_for_each(|table| write!(out, "{table}"))?;
        writeln!(out)?;
        promises.iter().try_for_each(|promise| writeln!(out, "{promise}"))?;
    }
    let broken = promises.iter().filter(|promise| !promise.holds()).count();
    if arguments.check && broken > 0 {
        return Err(format!("{broken} of {} promises do not hold", promises.len()).into());
    }
    Ok(())
}

#[derive(Serialize)]
struct Report<'a> {
    tables: Vec<Table>,
    promises: &'a [Promise],
}

/// What the promises are told from.
fn promised(engine: Named) -> Vec<(Guard, Scene)> {
    let machine = engine.machine();
    let mut lines = vec![(Guard::None, Scene::Alone), (Guard::None, Scene::Calm)];
    for &guard in engine.guards() {
        if engine == Named::Batching {
            lines.push((guard, Scene::Full(machine.full)));
        }
        lines.extend([1, 50].map(|accounts| (guard, machine.flood(accounts))));
    }
    lines
}

/// What else there is, to compare.
fn beside(engine: Named) -> Vec<(Guard, Scene)> {
    let machine = engine.machine();
    let mut lines = vec![(Guard::None, machine.flood(1))];
    match engine {
        Named::Slots64 => lines.push((Guard::Fair, machine.flood(1))),
        Named::Slots256 => {}
        Named::Batching => lines.extend([
            (Guard::Quotas, machine.flood(1)),
            (Guard::Quotas, machine.flood(50)),
            (Guard::Fifo, machine.flood(1)),
            (Guard::Partition, machine.flood(1)),
        ]),
    }
    lines
}

/// Runs every line with every seed, on all processors.
fn measure(
    machine: Machine,
    lines: &[(Guard, Scene)],
    seeds: u64,
    span: Span,
) -> Result<Table, BoxError> {
    let next = Mutex::new(lines.iter().enumerate());
    let work = || {
        let mut done = Vec::new();
        while let Some((at, &(guard, scene))) = next.lock().map_err(|_| PANICKED)?.next() {
            let runs = (1..=seeds).map(|seed| run(&machine, guard, scene, seed, span));
            let outcomes = runs.collect::<Result<Vec<_>, _>>()?;
            done.push((at, Line { guard, scene, reading: Reading::of(&outcomes, span) }));
        }
        Ok::<_, BoxError>(done)
    };
    let mut done = thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let mut done = Vec::new();
        for worker in workers {
            done.extend(worker.join().map_err(|_| PANICKED)??);
        }
        Ok::<_, BoxError>(done)
    })?;
    done.sort_by_key(|(at, _)| *at);
    Ok(Table { machine, lines: done.into_iter().map(|(_, line)| line).collect() })
}

/// The 99th percentile of two seconds needs many requests.
const SEEDS_OF_PICTURE: u64 = 40;
const PANICKED: &str = "a run panicked";

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
mod reading;
mod report;
mod run;
mod workload;

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::Mutex,
    thread,
};

use clap::Parser;
use palisade::BoxError;

use crate::{
    engine::Speed,
    guards::{Capacity, Guard},
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

    /// How long each run takes on its own clock; the first 40 seconds don't count.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = clap::value_parser!(u64).range(90..=3600))]
    seconds: u64,

    /// How many runs each line is made of.
    #[arg(long, value_name = "NUMBER", default_value = "3", value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
}

const SLOTS_64: Machine = Machine {
    name: "64 slots of constant speed",
    speed: Speed::slots(64),
    capacity: Capacity {
        slots: 64,
        tokens_in_flight: None,
        prefill_pending: None,
        tokens_per_minute: 1_500_000,
    },
    flood: 20,
    full: 60,
};

const SLOTS_256: Machine = Machine {
    name: "256 slots of constant speed",
    speed: Speed::slots(256),
    capacity: Capacity {
        slots: 256,
        tokens_in_flight: None,
        prefill_pending: None,
        tokens_per_minute: 6_000_000,
    },
    flood: 80,
    full: 240,
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
    let span = Span::seconds(arguments.seconds);
    let mut tables = Vec::new();
    for machine in [SLOTS_64, SLOTS_256, BATCHING] {
        tables.push(measure(machine, &lines(&machine), arguments.seeds, span)?);
    }
    let mut out = io::stdout().lock();
    if arguments.json {
        serde_json::to_writer_pretty(&mut out, &tables)?;
        writeln!(out)?;
    } else {
        tables.iter().try_for_each(|table| write!(out, "{table}"))?;
    }
    Ok(())
}

fn lines(machine: &Machine) -> Vec<(Guard, Scene)> {
    let flood = |accounts| Scene::Flood { rate: machine.flood, accounts };
    vec![
        (Guard::None, Scene::Alone),
        (Guard::None, Scene::Calm),
        (Guard::None, flood(1)),
        (Guard::Quotas, flood(1)),
        (Guard::Quotas, flood(50)),
        (Guard::Fifo, flood(1)),
        (Guard::Partition, flood(1)),
        (Guard::Fair, Scene::Full(machine.full)),
        (Guard::Fair, flood(1)),
        (Guard::Fair, flood(50)),
        (Guard::FairYields, Scene::Full(machine.full)),
        (Guard::FairYields, flood(1)),
        (Guard::FairYields, flood(50)),
    ]
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

const PANICKED: &str = "a run panicked";

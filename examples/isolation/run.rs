//! One run: so many requests through a guard to an engine, on a clock that moves when nobody has anything to do.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use palisade::BoxError;
use serde::Serialize;
use tokio::{runtime, time::sleep};

use crate::{
    client::{self, Call, Log, PATIENCE},
    engine::{Engine, Speed, Tally},
    guards::{Capacity, Guard},
    workload::{Scene, requests},
};

/// An engine, what its guards are told of it, and what it takes to fill it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) name: &'static str,
    pub(crate) speed: Speed,
    pub(crate) capacity: Capacity,
    /// Long requests a second of the flood.
    pub(crate) flood: u16,
    /// Ordinary requests a second that are more than it can do.
    pub(crate) full: u16,
}

/// How long to run, and when to look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) end: Duration,
    /// What happens before is not counted.
    pub(crate) warm: Duration,
    /// When the flood ends, and drops all that it has.
    pub(crate) leaves: Duration,
}

impl Span {
    pub(crate) fn seconds(end: u64) -> Self {
        let end = Duration::from_secs(end);
        Self { end, warm: WARM, leaves: end }
    }

    /// Whether a request came when it was counted, and could run out of patience before the end.
    pub(crate) fn counts(&self, at: Duration) -> bool {
        at > self.warm && at + PATIENCE < self.end
    }
}

const WARM: Duration = Duration::from_secs(40);

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) calls: Vec<Call>,
    pub(crate) tally: Tally,
}

pub(crate) fn run(
    machine: &Machine,
    guard: Guard,
    scene: Scene,
    seed: u64,
    span: Span,
) -> Result<Outcome, BoxError> {
    let log = Log::default();
    let runtime =
        runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let gauge = runtime.block_on(async {
        let engine = Engine::start(machine.speed, span.warm);
        let gauge = Arc::clone(&engine.gauge);
        let front = guard.before(engine, machine.capacity)?;
        let asks = requests(scene, seed, span.end, span.leaves);
        tokio::spawn(client::all(asks, front, Arc::clone(&gauge), Arc::clone(&log), span.leaves));
        sleep(span.end).await;
        Ok::<_, BoxError>(gauge)
    })?;
    // Whoever still waits is written down as he stands.
    drop(runtime);
    let calls = std::mem::take(&mut *log.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Outcome { calls, tally: gauge.tally() })
}

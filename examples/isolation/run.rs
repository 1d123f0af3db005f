//! One run: so many requests through a guard to an engine, on a clock that moves when nobody has anything to do.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use palisade::{BoxError, rate_limit::fair::FairAdmission};
use serde::Serialize;
use tokio::{
    runtime,
    time::{Instant, interval, sleep},
};

use crate::{
    client::{self, Call, Log, PATIENCE},
    engine::{Engine, Speed, Tally},
    guards::{Capacity, Guard},
    workload::{MAX_ANSWER, Scene, Tier, requests},
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

impl Machine {
    pub(crate) fn flood(&self, accounts: u16) -> Scene {
        Scene::Flood { rate: self.flood, accounts }
    }
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
    /// Of fair admission alone.
    pub(crate) looks: Vec<Look>,
}

/// How the capacity stood at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) at: Duration,
    /// The share in use of what may be, of the number of which least is left: slots, tokens in flight, prompts pending. What
    /// is kept free for owners may not be; and what is less than one more request of those that wait takes, in tokens, is as
    /// good as used.
    pub(crate) used: f64,
    pub(crate) waiting: u64,
    /// Tokens in flight that each tier had beyond its share, in the order of [`Tier::ALL`](crate::workload::Tier::ALL).
    pub(crate) borrowed: Vec<u64>,
}

/// The share of a number that is used, all of it when no more than `next` is left.
fn part(used: u64, of: Option<u64>, next: u64) -> f64 {
    match of {
        Some(of) if used > 0 && used + next > of => 1.0,
        Some(of) => used as f64 / of as f64,
        None => 0.0,
    }
}

/// Looks now and then, at odds with the engine's steps.
async fn watch(fair: FairAdmission, capacity: Capacity, prompt: u64, looks: Arc<Mutex<Vec<Look>>>) {
    let origin = Instant::now();
    let mut ticks = interval(Duration::from_millis(47));
    loop {
        ticks.tick().await;
        let now = fair.snapshot();
        let usable = 1.0 - now.headroom as f64 / now.slots as f64;
        let tokens = now.tokens.map(|tokens| (tokens as f64 * usable) as u64);
        let slots = now.in_use as f64 / (now.slots as f64 * usable);
        let used = slots
            .max(part(now.tokens_in_flight, tokens, prompt + u64::from(MAX_ANSWER)))
            .max(part(now.prefill_pending, capacity.prefill_pending, prompt));
        looks.lock().unwrap_or_else(PoisonError::into_inner).push(Look {
            at: origin.elapsed(),
            used: used.min(1.0),
            waiting: now.tiers.iter().map(|tier| tier.waiting).sum(),
            borrowed: now
                .tiers
                .iter()
                .zip(Tier::ALL)
                .map(|(now, tier)| {
                    let share = capacity
                        .tokens_in_flight
                        .map_or(u64::MAX, |of| of * u64::from(tier.percent()) / 100);
                    now.tokens_in_flight.saturating_sub(share)
                })
                .collect(),
        });
    }
}

pub(crate) fn run(
    machine: &Machine,
    guard: Guard,
    scene: Scene,
    seed: u64,
    span: Span,
) -> Result<Outcome, BoxError> {
    let (log, looks) = (Log::default(), Arc::default());
    let runtime =
        runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let gauge = runtime.block_on(async {
        let engine = Engine::start(machine.speed, span.warm);
        let gauge = Arc::clone(&engine.gauge);
        let (front, fair) = guard.before(engine, machine.capacity)?;
        if let Some(fair) = fair {
            tokio::spawn(watch(fair, machine.capacity, scene.prompt(), Arc::clone(&looks)));
        }
        let asks = requests(scene, seed, span.end, span.leaves);
        tokio::spawn(client::all(asks, front, Arc::clone(&gauge), Arc::clone(&log), span.leaves));
        sleep(span.end).await;
        Ok::<_, BoxError>(gauge)
    })?;
    // Whoever still waits is written down as he stands.
    drop(runtime);
    Ok(Outcome { calls: taken(&log), tally: gauge.tally(), looks: taken(&looks) })
}

fn taken<T>(from: &Mutex<Vec<T>>) -> Vec<T> {
    mem::take(&mut *from.lock().unwrap_or_else(PoisonError::into_inner))
}

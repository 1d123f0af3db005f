//! The isolation of tiers in front of a real inference server: furnace, its scheduler and its OpenAI API, with a model
//! that takes its time. The same three loads as in `examples/isolation`, in real time.
//!
//! Times are printed, and hold for this machine and this minute; what is checked is what does not depend on them.

mod client;
mod engine;
mod load;

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use furnace::Server;
use futures_util::future::join_all;
use palisade::rate_limit::fair::{Capacity, FairAdmission, FairAdmissionLayer, Share};
use tokio::time::{Instant, sleep, timeout};

use self::{
    client::{End, Seen},
    engine::{Live, Model},
    load::Load,
};

#[derive(Parser)]
struct Arguments {
    /// Seconds that each load lasts.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Of the requests' times and sizes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { seconds, seed } = Arguments::parse();
    let lasts = Duration::from_secs(seconds);
    println!("{}", Row::HEAD);
    let mut broken = Vec::new();
    for (load, is_guarded) in [
        (Load::Alone, false),
        (Load::Full, true),
        (Load::Flood, true),
        (Load::Farm, true),
        (Load::Flood, false),
    ] {
        let run = Run::of(load, is_guarded, seed, lasts).await;
        println!("{}", run.row());
        broken.extend(run.broken());
    }
    for promise in &broken {
        eprintln!("broken: {promise}");
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A load, and what came of it.
struct Run {
    load: Load,
    is_guarded: bool,
    seen: Vec<Seen>,
    /// The most streams that the engine had at once.
    most: usize,
    /// Streams that it had, and requests that the layer held, some time after all clients had gone.
    left: usize,
    held: u64,
}

impl Run {
    async fn of(load: Load, is_guarded: bool, seed: u64, lasts: Duration) -> Self {
        let model = Model::default();
        let live = Arc::clone(&model.live);
        let router = Server::new().llm(engine::scheduled(model)).router().expect("a server");
        let fair = fair();
        let router = if is_guarded { router.layer(guard(&fair)) } else { router };
        let begun = Instant::now();
        let clients = load::asks(load, seed, lasts)
            .into_iter()
            .map(|ask| tokio::spawn(client::send(router.clone(), ask, begun)));
        let seen = join_all(clients).await;
        let seen = seen.into_iter().map(|seen| seen.expect("a client")).collect();
        let left = all_gone(&live).await;
        let held = fair.snapshot().tiers.iter().map(|tier| tier.in_use + tier.waiting).sum();
        Self { load, is_guarded, seen, most: live.most(), left, held }
    }

    fn row(&self) -> Row<'_> {
        Row(self)
    }

    /// What is promised however fast the machine is.
    fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut hold = |holds: bool, promise: &str| {
            if !holds {
                let guard = if self.is_guarded { "fair" } else { "nothing" };
                broken.push(format!("{:?}, {guard}: {promise}", self.load));
            }
        };
        hold(self.left == 0, "a client that has gone leaves no stream in the engine");
        hold(self.held == 0, "a client that has gone leaves nothing in the layer");
        if self.is_guarded {
            hold(self.most <= SLOTS, "the engine never has more streams than there are slots");
            let (enterprise, free) = (self.served("enterprise"), self.served("free"));
            hold(enterprise >= 0.99, "enterprise is served");
            hold(self.served("paid") >= 0.97, "paid is served");
            let least = if self.load == Load::Farm { 0.90 } else { 0.95 };
            hold(free >= least, "honest free callers are served");
        }
        broken
    }

    fn honest(&self, tier: &str) -> impl Iterator<Item = &Seen> {
        self.seen.iter().filter(move |seen| seen.ask.tier == tier && !seen.ask.floods)
    }

    /// The share of a tier's honest requests that got all of their answers. Of none: all.
    fn served(&self, tier: &str) -> f64 {
        let all = self.honest(tier).count();
        let served = self.honest(tier).filter(|seen| seen.end == End::Served).count();
        if all == 0 { 1.0 } else { served as f64 / all as f64 }
    }

    /// The time that a part of the enterprise tier's requests, of those that have one, stay within.
    fn percentile(&self, part: f64, of: impl Fn(&Seen) -> Option<Duration>) -> f64 {
        let mut times: Vec<Duration> = self.honest("enterprise").filter_map(of).collect();
        times.sort_unstable();
        let at = (times.len() as f64 * part) as usize;
        let time = times.get(at.min(times.len().saturating_sub(1)));
        time.map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    }
}

struct Row<'a>(&'a Run);

impl Row<'_> {
    const HEAD: &'static str = "| load | in front | first token p50 ms | p99 ms | per token p50 ms | p99 ms | gap p99 ms \
                                | enterprise served | paid | honest free | most streams |\n\
                                |---|---|---|---|---|---|---|---|---|---|---|";
}

impl std::fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(run) = self;
        let per_token = |seen: &Seen| {
            let between = u32::try_from(seen.tokens).ok()?.checked_sub(1).filter(|n| *n > 0)?;
            Some(seen.streamed / between)
        };
        let gap = |seen: &Seen| Some(seen.gap);
        write!(
            f,
            "| {:?} | {} | {:.0} | {:.0} | {:.2} | {:.2} | {:.0} | {:.3} | {:.3} | {:.3} | {} |",
            run.load,
            if run.is_guarded { "fair admission" } else { "nothing" },
            run.percentile(0.5, |seen| seen.first),
            run.percentile(0.99, |seen| seen.first),
            run.percentile(0.5, per_token),
            run.percentile(0.99, per_token),
            run.percentile(0.99, gap),
            run.served("enterprise"),
            run.served("paid"),
            run.served("free"),
            run.most,
        )
    }
}

/// Four fewer than the engine can decode at once.
const SLOTS: usize = engine::SEQUENCES - 4;

fn fair() -> FairAdmission {
    FairAdmission::builder()
        .capacity(Capacity::slots(SLOTS).tokens_in_flight(80_000).prefill_pending(4096))
        .tier("enterprise", Share::percent(50))
        .tier("paid", Share::percent(35))
        .tier("free", Share::percent(15).max_wait(Duration::from_secs(6)))
        .build()
        .expect("settings")
}

fn guard(fair: &FairAdmission) -> FairAdmissionLayer {
    FairAdmissionLayer::builder(fair)
        .bytes_per_token(1)
        .default_output_tokens(load::MOST_ANSWER as u64)
        .build()
        .expect("settings")
}

/// Streams that the engine still has when it had time to see that their clients have gone.
async fn all_gone(live: &Live) -> usize {
    let gone = async {
        while live.now() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let _ = timeout(Duration::from_secs(10), gone).await;
    live.now()
}

//! What a guard made of a scene, in figures.

use serde::Serialize;

use crate::{
    client::{Call, PATIENCE},
    run::{Outcome, Span},
    workload::Tier,
};

/// The honest users of a tier.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TierReading {
    pub(crate) tier: Tier,
    pub(crate) requests: usize,
    /// The share of the requests that got a token within the patience of who asked.
    pub(crate) served: f64,
    /// Time to the first token; of a request without any, the patience. Milliseconds.
    pub(crate) first_p50: f64,
    pub(crate) first_p99: f64,
    /// An answer's mean time per token after the first, over answers. Milliseconds.
    pub(crate) token_p99: f64,
    /// Between two tokens. Milliseconds.
    pub(crate) gap_p99: f64,
    pub(crate) tokens_per_second: f64,
}

/// All of a scene.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Reading {
    pub(crate) tiers: Vec<TierReading>,
    /// Milliseconds of the fullest batch's steps that a second's tokens are worth, over a thousand.
    pub(crate) work: f64,
    /// Slots of the engine that were taken, on average.
    pub(crate) slots: f64,
    /// The share of the capacity in use while anybody waits. Of fair admission alone.
    pub(crate) conserved: Option<f64>,
}

impl Reading {
    /// Of several runs with different seeds, taken together.
    pub(crate) fn of(outcomes: &[Outcome], span: Span) -> Self {
        let milliseconds = (span.end - span.warm).as_secs_f64() * 1000.0 * outcomes.len() as f64;
        let tiers = Tier::ALL.map(|tier| TierReading::of(tier, outcomes, span));
        Self {
            tiers: tiers.into(),
            work: outcomes.iter().map(|outcome| outcome.tally.work).sum::<f64>() / milliseconds,
            slots: outcomes.iter().map(|outcome| outcome.tally.slots).sum::<f64>() / milliseconds,
            conserved: conserved(outcomes, span),
        }
    }

    pub(crate) fn tier(&self, tier: Tier) -> Option<&TierReading> {
        self.tiers.iter().find(|reading| reading.tier == tier)
    }
}

impl TierReading {
    fn of(tier: Tier, outcomes: &[Outcome], span: Span) -> Self {
        let honest = |call: &&Call| call.ask.tier == tier && !call.ask.abuse;
        let calls = || outcomes.iter().flat_map(|outcome| &outcome.calls).filter(honest);
        let counted = || calls().filter(|call| span.counts(call.ask.at));
        let mut firsts: Vec<_> = counted().map(first_token).collect();
        let mut paces: Vec<_> = counted().filter_map(pace).collect();
        let warm = span.warm.as_micros() as u32;
        let mut gaps: Vec<_> = calls()
            .flat_map(|call| call.tokens.iter().zip(call.tokens.iter().skip(1)))
            .filter(|(before, _)| **before > warm)
            .map(|(before, after)| f64::from(after - before) / 1000.0)
            .collect();
        let tokens = calls().flat_map(|call| &call.tokens).filter(|at| **at > warm).count();
        let served = counted().filter(|call| !call.tokens.is_empty()).count();
        let seconds = (span.end - span.warm).as_secs_f64() * outcomes.len() as f64;
        Self {
            tier,
            requests: firsts.len(),
            served: served as f64 / firsts.len().max(1) as f64,
            first_p50: percentile(&mut firsts, 0.50),
            first_p99: percentile(&mut firsts, 0.99),
            token_p99: percentile(&mut paces, 0.99),
            gap_p99: percentile(&mut gaps, 0.99),
            tokens_per_second: tokens as f64 / seconds,
        }
    }
}

fn conserved(outcomes: &[Outcome], span: Span) -> Option<f64> {
    let looks = outcomes.iter().flat_map(|outcome| &outcome.looks);
    let used = looks.filter(|look| look.at > span.warm && look.waiting > 0).map(|look| look.used);
    let (sum, count) = used.fold((0.0, 0), |(sum, count), used| (sum + used, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// Milliseconds to the first token.
pub(crate) fn first_token(call: &Call) -> f64 {
    let patience = PATIENCE.as_secs_f64() * 1000.0;
    let came = call.ask.at.as_secs_f64() * 1000.0;
    call.tokens.first().map_or(patience, |first| f64::from(*first) / 1000.0 - came)
}

/// Milliseconds per token of a finished answer that is long enough to tell.
fn pace(call: &Call) -> Option<f64> {
    let (first, last) = (call.tokens.first()?, call.tokens.last()?);
    let steps = call.tokens.len() - 1;
    (call.finished && steps >= 8).then(|| f64::from(last - first) / 1000.0 / steps as f64)
}

/// 0 of nothing.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let at = (values.len() as f64 * share) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

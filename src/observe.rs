//! Events and metrics, through the `tracing` and `metrics` facades where their features are on, and
//! nowhere where they are not. No call site is conditional.
//!
//! Labels come from closed sets. No token, key, address or prompt text ever gets here.

use crate::reject::{Rejection, RejectionKind};

/// A layer refused a request: `palisade_refused_total{layer, code}`.
pub(crate) fn refused(layer: &'static str, rejection: &Rejection) {
    count("palisade_refused_total", &[("layer", layer), ("code", rejection.code())]);
    if rejection.kind() == RejectionKind::Misconfigured {
        error(layer, rejection.message());
    } else {
        debug(layer, rejection.code());
    }
}

/// A layer let a request through: `palisade_admitted_total{layer}`.
#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(crate) fn admitted(layer: &'static str) {
    // Only a metric whose labels are literals is counted without an allocation.
    #[cfg(feature = "metrics")]
    match layer {
        "peer_cert" => metrics::counter!("palisade_admitted_total", "layer" => "peer_cert"),
        "jwt" => metrics::counter!("palisade_admitted_total", "layer" => "jwt"),
        "rate_limit" => metrics::counter!("palisade_admitted_total", "layer" => "rate_limit"),
        _ => metrics::counter!("palisade_admitted_total", "layer" => "prompt_guard"),
    }
    .increment(1);
}

/// A limit that is only counted would have refused a request: `palisade_shadow_refused_total{limit}`. Names come from the
/// configuration.
#[cfg(feature = "rate-limit")]
#[cfg_attr(not(all(feature = "metrics", feature = "tracing")), allow(unused_variables))]
pub(crate) fn shadow_refused(tier: &str, limit: &str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("palisade_shadow_refused_total", "limit" => limit.to_owned()).increment(1);
    #[cfg(feature = "tracing")]
    tracing::debug!(target: "palisade", layer = "rate_limit", tier, limit, "a shadow limit would have refused");
}

/// Fair admission refused a request, or broke it off: `palisade_fair_refused_total{tier, reason}`. Tiers come from the
/// configuration.
#[cfg(feature = "rate-limit")]
#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(crate) fn fair_refused(tier: &std::sync::Arc<str>, reason: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("palisade_fair_refused_total", "tier" => tier.clone(), "reason" => reason)
        .increment(1);
}

/// Whether anybody sees metrics.
pub(crate) const HAS_METRICS: bool = cfg!(feature = "metrics");

/// A metric of one tier, whose name comes from the configuration: made once, so that no request pays for its label.
#[cfg(feature = "rate-limit")]
#[derive(Debug)]
pub(crate) struct Tiered {
    #[cfg(feature = "metrics")]
    key: metrics::Key,
}

#[cfg(feature = "rate-limit")]
#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
impl Tiered {
    pub(crate) fn new(name: &'static str, tier: &std::sync::Arc<str>) -> Self {
        Self {
            #[cfg(feature = "metrics")]
            key: metrics::Key::from_parts(name, vec![metrics::Label::new("tier", tier.clone())]),
        }
    }

    /// Counts so many more.
    pub(crate) fn count(&self, by: u64) {
        #[cfg(feature = "metrics")]
        metrics::with_recorder(|to| to.register_counter(&self.key, &METADATA).increment(by));
    }

    /// Sets what it stands at.
    pub(crate) fn gauge(&self, value: u64) {
        #[cfg(feature = "metrics")]
        metrics::with_recorder(|to| to.register_gauge(&self.key, &METADATA).set(value as f64));
    }

    /// Adds one to many values.
    pub(crate) fn histogram(&self, value: f64) {
        #[cfg(feature = "metrics")]
        metrics::with_recorder(|to| to.register_histogram(&self.key, &METADATA).record(value));
    }
}

#[cfg(all(feature = "metrics", feature = "rate-limit"))]
static METADATA: metrics::Metadata<'static> =
    metrics::Metadata::new("palisade", metrics::Level::INFO, Some(module_path!()));

/// Counts one more under `name`.
#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(crate) fn count(name: &'static str, labels: &[(&'static str, &'static str)]) {
    add(name, labels, 1);
}

/// Counts one more under `name`, of one of the guard's policies. Their names come from the configuration.
#[cfg(feature = "prompt-guard")]
#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(crate) fn count_by_policy(
    name: &'static str,
    policy: &std::sync::Arc<str>,
    labels: &[(&'static str, &'static str)],
) {
    #[cfg(feature = "metrics")]
    {
        let own = metrics::Label::new("policy", std::sync::Arc::clone(policy));
        let labels: Vec<_> = labels.iter().map(Into::into).chain([own]).collect();
        metrics::counter!(name, labels).increment(1);
    }
}

/// Counts `by` more under `name`.
#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(crate) fn add(name: &'static str, labels: &[(&'static str, &'static str)], by: u64) {
    #[cfg(feature = "metrics")]
    metrics::counter!(name, labels).increment(by);
}

/// Sets what `name` stands at.
#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(crate) fn gauge(name: &'static str, value: u64) {
    // Exact up to 2^53, which as seconds is no date.
    #[cfg(feature = "metrics")]
    metrics::gauge!(name).set(value as f64);
}

/// Something is wrong that an operator must mend.
#[cfg_attr(not(feature = "tracing"), allow(unused_variables))]
pub(crate) fn error(layer: &'static str, message: &str) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: "palisade", layer, "{message}");
}

/// Something an operator should know.
#[cfg_attr(not(feature = "tracing"), allow(unused_variables))]
pub(crate) fn warn(layer: &'static str, message: &str) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: "palisade", layer, "{message}");
}

/// Something happened as it should, that an operator may want to see.
#[cfg(any(feature = "rate-limit", feature = "rule-packs"))]
#[cfg_attr(not(feature = "tracing"), allow(unused_variables))]
pub(crate) fn info(layer: &'static str, message: &str) {
    #[cfg(feature = "tracing")]
    tracing::info!(target: "palisade", layer, "{message}");
}

/// What happens all the time.
#[cfg_attr(not(feature = "tracing"), allow(unused_variables))]
pub(crate) fn debug(layer: &'static str, message: &str) {
    #[cfg(feature = "tracing")]
    tracing::debug!(target: "palisade", layer, "{message}");
}

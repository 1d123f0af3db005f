//! One limit of a tier: how much of what, in what time, and who shares it.

use std::{fmt, time::Duration};

use super::{
    Window,
    cost::CostTable,
    models::{ByModel, Models},
    ready::ReadyLimit,
    scope::{Scope, Scopes},
    unit::Unit,
};
use crate::{
    BuildError,
    store::{Limit, LimitId, Outage},
};

/// One limit of a [`Tier`](super::Tier): how much of what, in what time, and who shares it. By default each caller has
/// it to himself.
///
/// ```
/// use palisade::rate_limit::{Scope, Tier, TierLimit};
/// use std::time::Duration;
///
/// const MINUTE: Duration = Duration::from_secs(60);
/// let paid = Tier::new()
///     .requests_per_minute(600)
///     .limit(TierLimit::output_tokens(20_000, MINUTE).burst(5_000))
///     .limit(TierLimit::tokens(1_000_000, MINUTE).per([Scope::Organisation]))
///     .limit(TierLimit::requests(30, MINUTE).per([Scope::Subject, Scope::Network]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize),
    serde(try_from = "super::file::LimitFile")
)]
#[must_use]
pub struct TierLimit {
    unit: Unit,
    quota: u64,
    window: Window,
    burst: Option<u64>,
    sliding: bool,
    scopes: Scopes,
    name: Option<String>,
    outage: Option<Outage>,
    shadow: bool,
    models: ByModel,
    costs: CostTable,
}

impl TierLimit {
    /// At most `quota` requests in any `window`: a [`Duration`] of whole seconds, or the
    /// periods of a [`Calendar`](super::Calendar).
    pub fn requests(quota: u64, window: impl Into<Window>) -> Self {
        Self::new(Unit::Requests, quota, window.into())
    }

    /// At most `quota` tokens, of prompts and answers together, in any `window`: a [`Duration`] of whole seconds, or the
    /// periods of a [`Calendar`](super::Calendar).
    pub fn tokens(quota: u64, window: impl Into<Window>) -> Self {
        Self::new(Unit::Tokens, quota, window.into())
    }

    /// At most `quota` tokens of prompts in any `window`: a [`Duration`] of whole seconds, or the
    /// periods of a [`Calendar`](super::Calendar).
    pub fn input_tokens(quota: u64, window: impl Into<Window>) -> Self {
        Self::new(Unit::InputTokens, quota, window.into())
    }

    /// At most `quota` tokens of answers in any `window`: a [`Duration`] of whole seconds, or the
    /// periods of a [`Calendar`](super::Calendar).
    pub fn output_tokens(quota: u64, window: impl Into<Window>) -> Self {
        Self::new(Unit::OutputTokens, quota, window.into())
    }

    /// At most `quota` units of cost in any `window`, where tokens cost what `costs` says, by model and by kind: a
    /// [`Duration`] of whole seconds, or the periods of a [`Calendar`](super::Calendar). What is charged for a request is rounded up to a
    /// unit. Until the request's model is told, it is charged as one that `costs` does not name.
    pub fn cost(quota: u64, window: impl Into<Window>, costs: CostTable) -> Self {
        Self { costs, ..Self::new(Unit::Cost, quota, window.into()) }
    }

    /// At most `max` requests at a time, each counted until the last byte of its answer.
    pub fn concurrent_requests(max: u64) -> Self {
        Self::new(Unit::Slots, max, Window::Rolling(Duration::ZERO))
    }

    /// Who shares the limit. Of several, each combination has the limit to itself: a caller in each of his networks,
    /// for one. Default: [`Scope::Subject`].
    pub fn per(self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        Self { scopes: Scopes::of(scopes), ..self }
    }

    /// Counts only requests for these models, all of them together: whole names, or prefixes that end in `*`, as the
    /// request writes them. Requests for others, which callers may invent, and for none are for another limit to count.
    ///
    /// The model is known when the body was parsed: by `PromptGuardLayer`, or by a handler that says it
    /// ([`UsageMeter::refine_for`](crate::UsageMeter::refine_for)). The limit is charged then, together with the rest of
    /// that refinement, all or none. Where nobody says it the limit does not hold, and
    /// `palisade_model_not_told_total` counts the request: one without a body, or one that the guard does not read.
    ///
    /// ```
    /// use palisade::rate_limit::{Tier, TierLimit};
    /// use std::time::Duration;
    ///
    /// const MINUTE: Duration = Duration::from_secs(60);
    /// let paid = Tier::new()
    ///     .requests_per_minute(600)
    ///     .limit(TierLimit::requests(10, MINUTE).only_models(["gpt-4o", "o3*"]).named("dear"))
    ///     .limit(TierLimit::tokens(50_000, MINUTE).each_model(["gpt-4o", "llama-*"]));
    /// ```
    pub fn only_models(self, models: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { models: ByModel::Only(Models::of(models)), ..self }
    }

    /// Counts requests for each of these models by itself, beside who shares the limit: whole names, or prefixes that
    /// end in `*`, which count what begins so together. All models that are not named count as one, and so do requests
    /// that name none: who invents names of models gets no more. Charged as with [`only_models`](Self::only_models).
    pub fn each_model(self, models: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { models: ByModel::Each(Models::of(models)), ..self }
    }

    /// How many units may come at once; what was used drains steadily over the window. Default: the quota.
    pub fn burst(self, units: u64) -> Self {
        Self { burst: Some(units), ..self }
    }

    /// Counts by two windows that stand end to end, as many gateways do, in the place of a steady drain: see
    /// [`Rule::Sliding`](crate::store::Rule::Sliding) for the difference. There is no burst then.
    pub fn sliding(self) -> Self {
        Self { sliding: true, ..self }
    }

    /// The limit's name in headers, metrics and the store: ASCII letters, digits, `-`, `_` and `.`. What was used is
    /// kept for as long as the name is. Default: who shares it, what it counts and its window, such as
    /// `organisation-tokens-minute`.
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// What becomes of the limit while the store is out of reach: see [`Tier::on_outage`](super::Tier::on_outage), which
    /// is the default.
    pub fn on_outage(self, outage: Outage) -> Self {
        Self { outage: Some(outage), ..self }
    }

    /// Counts and never refuses, to try the limit on live traffic. What it would have refused is counted in
    /// `palisade_shadow_refused_total{limit}` and told in an event of the level debug, and the caller's headers say
    /// nothing of it.
    ///
    /// It counts as if it were enforced, and alone: a request that it would have refused is not charged to it, and so it is in
    /// debt only by what requests used beyond their reservation. It sees the requests that the enforced limits
    /// admit, is asked for right after them, in the background if the store is across a network, and while the store is
    /// out of reach it is not kept. At most eight in a tier, beside the enforced ones. Its default name begins with `shadow-`.
    /// It counts in records of its own, and begins anew when it is enforced.
    ///
    /// ```
    /// use palisade::rate_limit::{Tier, TierLimit};
    /// use std::time::Duration;
    ///
    /// const MINUTE: Duration = Duration::from_secs(60);
    /// let free = Tier::new()
    ///     .tokens_per_minute(100_000)
    ///     .limit(TierLimit::tokens(50_000, MINUTE).shadow());
    /// ```
    pub fn shadow(self) -> Self {
        Self { shadow: true, ..self }
    }

    #[cfg(feature = "serde")]
    pub(super) fn with_costs(self, costs: CostTable) -> Self {
        Self { costs, ..self }
    }

    pub(super) fn is_shadow(&self) -> bool {
        self.shadow
    }

    pub(super) fn new(unit: Unit, quota: u64, window: Window) -> Self {
        Self {
            unit,
            quota,
            window,
            burst: None,
            sliding: false,
            scopes: Scopes::SUBJECT,
            name: None,
            outage: None,
            shadow: false,
            models: ByModel::No,
            costs: CostTable::default(),
        }
    }

    pub(super) fn needs_callers(&self) -> bool {
        let counts_what_is_within = self.unit.counts_tokens() || !self.models.is_no();
        counts_what_is_within || self.scopes.need_a_user()
    }

    /// Checks the limit and readies it for requests. The error says what is wrong.
    pub(super) fn ready(&self, outage: Outage) -> Result<ReadyLimit, String> {
        let name = self.name.clone().unwrap_or_else(|| self.default_name());
        let wrong = |what: &str| Err(format!("{name}: {what}"));
        if !is_name(&name) {
            return wrong("a name is made of ASCII letters, digits, '-', '_' and '.'");
        }
        if self.quota == 0 || self.burst == Some(0) {
            return wrong("the quota is zero");
        }
        if self.scopes.is_empty() {
            return wrong("nobody shares it");
        }
        if let Some(fault) = self.models.fault().or_else(|| self.costs.fault()) {
            return wrong(fault);
        }
        if self.unit != Unit::Cost && self.costs != CostTable::default() {
            return wrong("only a cost has weights");
        }
        let (id, quota) = (LimitId::of(&name), self.quota);
        let limit = match (self.unit, self.window) {
            (Unit::Slots, window) if window != Window::Rolling(Duration::ZERO) => {
                return wrong("requests at a time have no window");
            }
            (_, Window::Calendar(_)) | (Unit::Slots, _) if self.burst.is_some() || self.sliding => {
                return wrong("only a rate has a burst, and only its window slides");
            }
            (Unit::Slots, _) => Limit::slots(id, quota),
            // Which period it is, each request says.
            (_, Window::Calendar(_)) => Limit::calendar(id, quota, 0, Duration::ZERO),
            (_, Window::Rolling(window)) if window < SECOND || window.subsec_nanos() != 0 => {
                return wrong("the window is not of whole seconds");
            }
            (_, Window::Rolling(_)) if self.sliding && self.burst.is_some() => {
                return wrong("a sliding window has no burst");
            }
            (_, Window::Rolling(window)) if self.sliding => Limit::sliding(id, quota, window),
            (_, Window::Rolling(window)) => {
                Limit::rate(id, quota, window).with_burst(self.burst.unwrap_or(quota))
            }
        };
        let limit = limit.on_outage(self.outage.unwrap_or(outage));
        let Self { unit, window, scopes, .. } = *self;
        let (models, costs) = (self.models.clone(), self.costs.clone());
        Ok(ReadyLimit { limit, unit, quota, window, scopes, record: 0, name, models, costs })
    }

    fn default_name(&self) -> String {
        let mut whose = if self.shadow { String::from("shadow-") } else { String::new() };
        if self.scopes != Scopes::SUBJECT {
            whose += &self.scopes.name();
            whose.push('-');
        }
        if let ByModel::Each(_) = self.models {
            whose += "model-";
        }
        let what = self.unit.name();
        let seconds = match self.window {
            Window::Calendar(calendar) => return format!("{whose}{what}-{}", calendar.name()),
            Window::Rolling(window) => window.as_secs(),
        };
        match (self.unit, seconds) {
            (Unit::Slots, _) => format!("{whose}{what}"),
            (_, 1) => format!("{whose}{what}-second"),
            (_, 60) => format!("{whose}{what}-minute"),
            (_, 3600) => format!("{whose}{what}-hour"),
            (_, 86_400) => format!("{whose}{what}-day"),
            (_, seconds) => format!("{whose}{what}-{seconds}s"),
        }
    }
}

pub(super) fn is_name(name: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.bytes().all(is_of_name)
}

/// For builders that answer with [`BuildError`].
pub(super) fn invalid(tier: &str, reason: impl fmt::Display) -> BuildError {
    BuildError::invalid("tier", format!("{tier}: {reason}"))
}

const SECOND: Duration = Duration::from_secs(1);

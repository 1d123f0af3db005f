//! One limit of a tier: how much of what, in what time, and who shares it.

use std::{fmt, time::Duration};

use super::{
    Calendar, CalendarPeriod,
    scope::{Scope, Scopes},
    settlement::Due,
};
use crate::{
    BuildError,
    reservation::TokenUsage,
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
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
pub(super) enum Unit {
    Requests,
    /// Of prompt and answer together.
    Tokens,
    InputTokens,
    OutputTokens,
    /// Requests at a time.
    #[cfg_attr(feature = "serde", serde(rename = "concurrent_requests"))]
    Slots,
}

impl TierLimit {
    /// At most `quota` requests in any `window`: a [`Duration`] of whole seconds, or the
    /// periods of a [`Calendar`].
    pub fn requests(quota: u64, window: impl Into<Window>) -> Self {
        Self::new(Unit::Requests, quota, window.into())
    }

    /// At most `quota` tokens, of prompts and answers together, in any `window`: a [`Duration`] of whole seconds, or the
    /// periods of a [`Calendar`].
    pub fn tokens(quota: u64, window: impl Into<Window>) -> Self {
        Self::new(Unit::Tokens, quota, window.into())
    }

    /// At most `quota` tokens of prompts in any `window`: a [`Duration`] of whole seconds, or the
    /// periods of a [`Calendar`].
    pub fn input_tokens(quota: u64, window: impl Into<Window>) -> Self {
        Self::new(Unit::InputTokens, quota, window.into())
    }

    /// At most `quota` tokens of answers in any `window`: a [`Duration`] of whole seconds, or the
    /// periods of a [`Calendar`].
    pub fn output_tokens(quota: u64, window: impl Into<Window>) -> Self {
        Self::new(Unit::OutputTokens, quota, window.into())
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
    /// out of reach it is not kept. At most eight in a tier, beside the enforced ones. Its default name begins with `shadow-`;
    /// what it has counted is kept when it is enforced under the same name.
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
        }
    }

    pub(super) fn needs_callers(&self) -> bool {
        self.unit.of(TokenUsage::default()).is_some() || self.scopes.need_a_user()
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
        Ok(ReadyLimit { limit, unit, quota, window, scopes, record: 0, name })
    }

    fn default_name(&self) -> String {
        let mut whose = if self.shadow { String::from("shadow-") } else { String::new() };
        if self.scopes != Scopes::SUBJECT {
            whose += &self.scopes.name();
            whose.push('-');
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

/// A limit as requests need it.
#[derive(Debug)]
pub(super) struct ReadyLimit {
    pub(super) limit: Limit,
    pub(super) unit: Unit,
    pub(super) quota: u64,
    pub(super) window: Window,
    pub(super) scopes: Scopes,
    /// Which of the tier's records counts it.
    pub(super) record: usize,
    pub(super) name: String,
}

impl ReadyLimit {
    /// The limit as a charge at `unix` names it.
    pub(super) fn at(&self, unix: Duration) -> Limit {
        let Window::Calendar(calendar) = self.window else { return self.limit };
        let CalendarPeriod { number, ends_in } = calendar.period(unix);
        self.limit.in_period(number, ends_in)
    }

    /// Units of it that a request pays in the end. Slots are given back whatever it says.
    pub(super) fn due(&self, due: Due) -> u64 {
        match self.unit {
            Unit::Requests => due.requests,
            unit => unit.of(due.tokens).unwrap_or(0),
        }
    }
}

/// In what time a quota may be used: any stretch of time of one length, or each period of a calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Window {
    /// Any stretch of time of this length.
    Rolling(Duration),
    /// Each period of a calendar.
    Calendar(Calendar),
}

impl From<Duration> for Window {
    fn from(window: Duration) -> Self {
        Self::Rolling(window)
    }
}

impl From<Calendar> for Window {
    fn from(calendar: Calendar) -> Self {
        Self::Calendar(calendar)
    }
}

/// As a sentence has it.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rolling(window) => write!(f, "{} s", window.as_secs()),
            Self::Calendar(calendar) => f.write_str(calendar.name()),
        }
    }
}

impl Window {
    pub(super) fn seconds(self) -> Option<u64> {
        match self {
            Self::Rolling(window) => Some(window.as_secs()),
            Self::Calendar(calendar) => calendar.seconds(),
        }
    }
}

impl Unit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input-tokens",
            Self::OutputTokens => "output-tokens",
            Self::Slots => "concurrent-requests",
        }
    }

    /// As a sentence has it.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Requests | Self::Slots => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "tokens of prompts",
            Self::OutputTokens => "tokens of answers",
        }
    }

    /// Units that `usage` is. `None` for what does not count tokens.
    pub(super) fn of(self, usage: TokenUsage) -> Option<u64> {
        match self {
            Self::Requests | Self::Slots => None,
            Self::Tokens => Some(usage.total()),
            Self::InputTokens => Some(usage.input),
            Self::OutputTokens => Some(usage.output),
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

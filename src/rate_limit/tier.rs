//! Tiers: what a caller of each kind may use.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use http::HeaderValue;

use crate::{
    BuildError,
    store::{Charge, Inline, Key, Limit, LimitId, MAX_CHARGES},
};

/// The limits of one tier, all of which hold at once: a request is admitted if every one of them has
/// room, and a refused one uses up none. At most eight.
///
/// ```
/// use palisade::rate_limit::Tier;
/// use std::time::Duration;
///
/// let paid = Tier::new()
///     .requests_per_minute(600)
///     .tokens_per_minute(200_000)
///     .tokens(5_000_000, Duration::from_secs(86_400))
///     .concurrent_requests(20);
/// ```
///
/// With the feature `serde`, a tier can be read from a file: a table with the names of the methods below,
/// `requests_per_minute = 600` and so on, and `tokens = { quota = 5_000_000, seconds = 86_400 }` for another window.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(from = "super::file::TierFile"))]
pub struct Tier {
    limits: Vec<Wanted>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    unit: Unit,
    quota: u64,
    window: Duration,
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Requests,
    /// Tokens of prompt and answer together.
    Tokens,
    /// Requests at a time.
    Slots,
}

impl Tier {
    /// No limits yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// At most `quota` requests in any `window`, of whole seconds. They may come all at once.
    #[must_use]
    pub fn requests(self, quota: u64, window: Duration) -> Self {
        self.with(Unit::Requests, quota, window)
    }

    /// At most `quota` requests in any second.
    #[must_use]
    pub fn requests_per_second(self, quota: u64) -> Self {
        self.requests(quota, SECOND)
    }

    /// At most `quota` requests in any minute.
    #[must_use]
    pub fn requests_per_minute(self, quota: u64) -> Self {
        self.requests(quota, MINUTE)
    }

    /// At most `quota` requests in any 24 hours.
    #[must_use]
    pub fn requests_per_day(self, quota: u64) -> Self {
        self.requests(quota, DAY)
    }

    /// At most `quota` tokens, of prompts and answers together, in any `window`, of whole seconds.
    #[must_use]
    pub fn tokens(self, quota: u64, window: Duration) -> Self {
        self.with(Unit::Tokens, quota, window)
    }

    /// At most `quota` tokens in any second.
    #[must_use]
    pub fn tokens_per_second(self, quota: u64) -> Self {
        self.tokens(quota, SECOND)
    }

    /// At most `quota` tokens in any minute.
    #[must_use]
    pub fn tokens_per_minute(self, quota: u64) -> Self {
        self.tokens(quota, MINUTE)
    }

    /// At most `quota` tokens in any 24 hours.
    #[must_use]
    pub fn tokens_per_day(self, quota: u64) -> Self {
        self.tokens(quota, DAY)
    }

    /// At most `max` requests at a time, each counted until the last byte of its answer.
    #[must_use]
    pub fn concurrent_requests(self, max: u64) -> Self {
        self.with(Unit::Slots, max, Duration::ZERO)
    }

    fn with(mut self, unit: Unit, quota: u64, window: Duration) -> Self {
        self.limits.push(Wanted { unit, quota, window });
        self
    }

    /// Checks the tier and readies it for requests.
    pub(super) fn ready(&self, name: &str) -> Result<ReadyTier, BuildError> {
        let reject = |reason: String| Err(BuildError::invalid("tier", format!("{name}: {reason}")));
        if name.is_empty()
            || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            return reject("a name is made of ASCII letters, digits, '-', '_' and '.'".into());
        }
        if self.limits.is_empty() {
            return reject("it has no limits".into());
        }
        if self.limits.len() > MAX_CHARGES {
            return reject(format!("it has more than {MAX_CHARGES} limits"));
        }
        let mut limits = Vec::with_capacity(self.limits.len());
        for wanted in &self.limits {
            let limit = wanted.ready();
            if wanted.quota == 0 {
                return reject(format!("{}: the quota is zero", limit.name));
            }
            if wanted.unit != Unit::Slots
                && (wanted.window < SECOND || wanted.window.subsec_nanos() != 0)
            {
                return reject(format!("{}: the window is not of whole seconds", limit.name));
            }
            if limits.iter().any(|other: &ReadyLimit| other.limit.id == limit.limit.id) {
                return reject(format!("{}: there are two of it", limit.name));
            }
            limits.push(limit);
        }
        Ok(ReadyTier { name: name.into(), policy: policy_header(&limits)?, limits })
    }
}

impl Wanted {
    fn ready(self) -> ReadyLimit {
        let name = match (self.unit, self.window.as_secs()) {
            (Unit::Slots, _) => "concurrent-requests".into(),
            (unit, 1) => format!("{}-second", unit.plural()),
            (unit, 60) => format!("{}-minute", unit.plural()),
            (unit, 3600) => format!("{}-hour", unit.plural()),
            (unit, 86_400) => format!("{}-day", unit.plural()),
            (unit, seconds) => format!("{}-{seconds}s", unit.plural()),
        };
        let id = LimitId::of(&name);
        let limit = match self.unit {
            Unit::Slots => Limit::slots(id, self.quota),
            Unit::Requests | Unit::Tokens => Limit::rate(id, self.quota, self.window),
        };
        ReadyLimit { limit, unit: self.unit, quota: self.quota, window: self.window, name }
    }
}

impl Unit {
    fn plural(self) -> &'static str {
        match self {
            Self::Requests | Self::Slots => "requests",
            Self::Tokens => "tokens",
        }
    }
}

/// A tier as requests need it.
#[derive(Debug)]
pub(crate) struct ReadyTier {
    pub(crate) name: Arc<str>,
    pub(crate) limits: Vec<ReadyLimit>,
    /// `RateLimit-Policy`, which is the same for every answer.
    pub(crate) policy: HeaderValue,
}

/// A limit as requests need it.
#[derive(Debug)]
pub(crate) struct ReadyLimit {
    pub(crate) limit: Limit,
    pub(crate) unit: Unit,
    pub(crate) quota: u64,
    pub(crate) window: Duration,
    pub(crate) name: String,
}

impl ReadyTier {
    /// What an admission charges: one request, one slot and so many tokens.
    pub(crate) fn charges(&self, record: Key, tokens: u64) -> Inline<Charge> {
        self.charges_of(record, |unit| match unit {
            Unit::Requests | Unit::Slots => Some(1),
            Unit::Tokens => Some(tokens),
        })
    }

    /// What a better estimate charges on top: tokens alone.
    pub(crate) fn token_charges(&self, record: Key, tokens: u64) -> Inline<Charge> {
        self.charges_of(record, |unit| (unit == Unit::Tokens).then_some(tokens))
    }

    fn charges_of(&self, record: Key, cost: impl Fn(Unit) -> Option<u64>) -> Inline<Charge> {
        let mut charges = Inline::new(Charge::new(record, Limit::slots(LimitId::of(""), 0), 0));
        for limit in &self.limits {
            if let Some(cost) = cost(limit.unit) {
                charges.push(Charge::new(record, limit.limit, cost));
            }
        }
        charges
    }

    /// The limits that count tokens, in order.
    pub(crate) fn token_limits(&self) -> impl Iterator<Item = &ReadyLimit> {
        self.limits.iter().filter(|limit| limit.unit == Unit::Tokens)
    }

    /// The most tokens that one request can ever be admitted with.
    pub(crate) fn token_capacity(&self) -> u64 {
        self.token_limits().map(|limit| limit.limit.capacity()).min().unwrap_or(u64::MAX)
    }
}

/// draft-ietf-httpapi-ratelimit-headers, section 3: a list of strings with parameters. Tokens are not
/// among the registered quota units yet; a client that does not know the unit ignores the item.
fn policy_header(limits: &[ReadyLimit]) -> Result<HeaderValue, BuildError> {
    let mut value = String::new();
    for limit in limits {
        let comma = if value.is_empty() { "" } else { ", " };
        let (name, quota, window) = (&limit.name, limit.quota, limit.window.as_secs());
        let _ = match limit.unit {
            Unit::Requests => write!(value, "{comma}\"{name}\";q={quota};w={window}"),
            Unit::Tokens => write!(value, "{comma}\"{name}\";q={quota};w={window};qu=\"tokens\""),
            Unit::Slots => write!(value, "{comma}\"{name}\";q={quota};qu=\"concurrent-requests\""),
        };
    }
    HeaderValue::try_from(value).map_err(|_| BuildError::invalid("tier", "no header can name it"))
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_is_named_limited_and_described() {
        let tier = Tier::new().requests_per_minute(60).tokens_per_day(9).concurrent_requests(2);
        let ready = tier.ready("free").unwrap();
        assert_eq!(
            ready.policy,
            "\"requests-minute\";q=60;w=60, \"tokens-day\";q=9;w=86400;qu=\"tokens\", \
             \"concurrent-requests\";q=2;qu=\"concurrent-requests\""
        );
        let key = Key::from_bytes([1; 16]);
        let costs: Vec<_> = ready.charges(key, 7).as_slice().iter().map(|c| c.cost).collect();
        assert_eq!(costs, [1, 7, 1]);
        assert_eq!(ready.token_charges(key, 7).as_slice().len(), 1);
    }

    #[test]
    fn what_can_not_be_kept_is_refused_at_build() {
        assert!(Tier::new().ready("free").is_err());
        assert!(Tier::new().requests_per_minute(0).ready("free").is_err());
        assert!(Tier::new().requests(1, Duration::from_millis(1500)).ready("free").is_err());
        let twice = Tier::new().requests_per_minute(1).requests(2, MINUTE);
        assert!(twice.ready("free").is_err());
        assert!(Tier::new().requests_per_minute(1).ready("\"free\"").is_err());
    }
}

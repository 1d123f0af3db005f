//! Tiers: what a caller of each kind may use.

use std::{sync::Arc, time::Duration};

use super::{
    limit::{TierLimit, invalid, is_name},
    ready_tier::ReadyTier,
    scope::Records,
};
use crate::{BuildError, store::Outage};

/// The limits of one tier, all of which hold at once: a request is admitted if every one of them has
/// room, and a refused one uses up none. At most eight, and as many [shadows](TierLimit::shadow).
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
/// `requests_per_minute = 600` and so on, `tokens = { quota = 5_000_000, seconds = 86_400 }` for another window, and
/// `limits`, a list of tables for all that [`TierLimit`] can say: `{ unit = "output_tokens", quota = 20_000, seconds =
/// 60, burst = 5_000, per = ["organisation"], name = "answers", on_outage = "local_share" }`. `on_outage` stands beside
/// them for all; in the place of `seconds` there may be `calendar = "day"` or `"month"`, with `utc_offset_minutes`;
/// `sliding = true`; `shadow = true`; `only_models` or `each_model`, lists of names; and, with `unit = "cost"`, `weights = { input =
/// 1000, output = 4000, cached_input = 100, reasoning = 4000 }`, of which the last two may be left out, and
/// `model_weights = { "llama-*" = { … } }`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(from = "super::file::TierFile"))]
pub struct Tier {
    limits: Vec<TierLimit>,
    outage: Outage,
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
        self.limit(TierLimit::requests(quota, window))
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
        self.limit(TierLimit::tokens(quota, window))
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
        self.limit(TierLimit::concurrent_requests(max))
    }

    /// Adds a limit with all that [`TierLimit`] can say: who shares it, bursts, other units.
    #[must_use]
    pub fn limit(mut self, limit: TierLimit) -> Self {
        self.limits.push(limit);
        self
    }

    /// What becomes of the limits of this tier, unless they say themselves, while the store is out of reach. Default:
    /// [`Outage::Refuse`], with 503. [`Outage::LocalShare`] needs a [`BreakerStore`](crate::store::BreakerStore), and is
    /// as good as `Refuse` without. A request whose limits are all [`Outage::InsecureAdmit`] passes unmetered, and is
    /// counted: `palisade_unmetered_total`.
    #[must_use]
    pub fn on_outage(mut self, outage: Outage) -> Self {
        self.outage = outage;
        self
    }

    /// Whether a limit can only be kept once it is known who calls.
    pub(super) fn needs_callers(&self) -> bool {
        self.limits.iter().any(TierLimit::needs_callers)
    }

    /// Checks the tier and readies it for requests.
    pub(super) fn ready(&self, name: &str) -> Result<ReadyTier, BuildError> {
        if self.limits.is_empty() {
            return Err(invalid(name, "it has no limits"));
        }
        self.ready_with_share(name)
    }

    /// The same of a tier that may have no limits, since it has a share of what there is.
    pub(super) fn ready_with_share(&self, name: &str) -> Result<ReadyTier, BuildError> {
        if !is_name(name) {
            return Err(invalid(name, "a name is made of ASCII letters, digits, '-', '_' and '.'"));
        }
        let ready = |limit: &TierLimit| limit.ready(self.outage);
        let limits: Result<Vec<_>, _> = self.limits.iter().map(ready).collect();
        let limits = limits.map_err(|reason| invalid(name, reason))?;
        for (at, limit) in limits.iter().enumerate() {
            if limits.iter().take(at).any(|other| other.limit.id() == limit.limit.id()) {
                return Err(invalid(name, format!("{}: there are two of it", limit.name)));
            }
        }
        let shadows = self.limits.iter().map(TierLimit::is_shadow);
        let (shadows, enforced): (Vec<_>, Vec<_>) =
            shadows.zip(limits).partition(|(is_shadow, _)| *is_shadow);
        let enforced = enforced.into_iter().map(|(_, limit)| limit);
        let mut tier = ReadyTier::of(name, enforced, Records::of)?;
        if !shadows.is_empty() {
            let shadows = shadows.into_iter().map(|(_, limit)| limit);
            let shadows = ReadyTier::of(name, shadows, Records::of_shadows)?;
            tier.shadow = Some(Arc::new(shadows));
        }
        Ok(tier)
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::{
        super::{scope::Scope, shares::Charges},
        *,
    };
    use crate::{
        clock::SystemClock,
        reservation::TokenUsage,
        store::{Inline, Key},
    };

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
        let mut keys = Inline::new(key);
        keys.push(key);
        let costs = |charges: &Charges| -> Vec<_> {
            charges.as_slice().iter().map(|charge| charge.cost).collect()
        };
        let mut charges = Charges::none();
        ready.charge_admission(&mut charges, &keys, TokenUsage::new(3, 4), &SystemClock);
        assert_eq!(costs(&charges), [1, 7, 1]);
        let missing = ready.missing(TokenUsage::new(1, 1), None, |_| Some(1));
        assert_eq!(costs(&ready.charges(&keys, None, &missing, &SystemClock)), [1]);
    }

    #[test]
    fn what_can_not_be_kept_is_refused_at_build() {
        assert!(Tier::new().ready("free").is_err());
        assert!(Tier::new().requests_per_minute(0).ready("free").is_err());
        assert!(Tier::new().requests(1, Duration::from_millis(1500)).ready("free").is_err());
        let twice = Tier::new().requests_per_minute(1).requests(2, MINUTE);
        assert!(twice.ready("free").is_err());
        assert!(Tier::new().requests_per_minute(1).ready("\"free\"").is_err());
        let with = |limit| Tier::new().limit(limit).ready("free");
        assert!(with(TierLimit::requests(1, MINUTE).per([])).is_err());
        assert!(with(TierLimit::requests(1, MINUTE).burst(0)).is_err());
        assert!(with(TierLimit::requests(1, MINUTE).named("a b")).is_err());
        assert!(with(TierLimit::concurrent_requests(1).burst(2)).is_err());
        let twice = Tier::new().requests_per_minute(1).limit(
            TierLimit::requests(2, MINUTE).per([Scope::Organisation]).named("requests-minute"),
        );
        assert!(twice.ready("free").is_err());
    }

    #[test]
    fn limits_are_named_after_who_shares_them_and_grouped_by_it() {
        let organisation = [Scope::Organisation];
        let tier = Tier::new()
            .limit(TierLimit::tokens(10, MINUTE).per(organisation))
            .limit(TierLimit::output_tokens(5, SECOND).burst(50))
            .limit(TierLimit::requests(3, MINUTE).per([Scope::Network, Scope::Subject]))
            .limit(TierLimit::concurrent_requests(2).per(organisation))
            .limit(TierLimit::concurrent_requests(9).per([Scope::Tier]));
        let ready = tier.ready("free").unwrap();
        let limits: Vec<_> =
            ready.limits.iter().map(|limit| (limit.record, limit.name.as_str())).collect();
        assert_eq!(
            limits,
            [
                (0, "organisation-tokens-minute"),
                (0, "organisation-concurrent-requests"),
                (1, "output-tokens-second"),
                (2, "subject-network-requests-minute"),
                (3, "tier-concurrent-requests"),
            ]
        );
        // What others use of a shared pool is nobody's business.
        assert!(!ready.policy.to_str().unwrap().contains("tier"));
        let most = ready.clamp(TokenUsage::new(u64::MAX, 100));
        assert_eq!(most, TokenUsage::new(0, 10));
    }
}

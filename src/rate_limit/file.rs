//! Tiers from files (feature `serde`).

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use super::{Calendar, CostTable, Scope, Tier, TierLimit, TokenWeights, Window, unit::Unit};
use crate::store::Outage;

/// A tier as a file has it. An unknown name is an error, not a limit that is silently not kept.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TierFile {
    requests: Option<Windowed>,
    requests_per_second: Option<u64>,
    requests_per_minute: Option<u64>,
    requests_per_day: Option<u64>,
    tokens: Option<Windowed>,
    tokens_per_second: Option<u64>,
    tokens_per_minute: Option<u64>,
    tokens_per_day: Option<u64>,
    concurrent_requests: Option<u64>,
    #[serde(default)]
    limits: Vec<TierLimit>,
    on_outage: Option<Outage>,
}

/// `{ quota = 100, seconds = 10 }`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Windowed {
    quota: u64,
    seconds: u64,
}

/// All that a [`TierLimit`] can say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitFile {
    unit: Unit,
    quota: u64,
    seconds: Option<u64>,
    calendar: Option<CalendarFile>,
    #[serde(default)]
    utc_offset_minutes: i16,
    burst: Option<u64>,
    #[serde(default)]
    sliding: bool,
    per: Option<Vec<Scope>>,
    name: Option<String>,
    on_outage: Option<Outage>,
    #[serde(default)]
    shadow: bool,
    only_models: Option<Vec<String>>,
    each_model: Option<Vec<String>>,
    weights: Option<TokenWeights>,
    #[serde(default)]
    model_weights: BTreeMap<String, TokenWeights>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CalendarFile {
    Day,
    Month,
}

impl TryFrom<LimitFile> for TierLimit {
    type Error = &'static str;

    fn try_from(file: LimitFile) -> Result<Self, &'static str> {
        let window = match (file.calendar, file.seconds) {
            (Some(_), Some(_)) => return Err("a limit has seconds or a calendar, not both"),
            (None, seconds) => Duration::from_secs(seconds.unwrap_or(0)).into(),
            (Some(CalendarFile::Day), None) => Calendar::day().into(),
            (Some(CalendarFile::Month), None) => Calendar::month().into(),
        };
        let window = match window {
            Window::Calendar(calendar) => {
                calendar.utc_offset_minutes(file.utc_offset_minutes).into()
            }
            Window::Rolling(_) if file.utc_offset_minutes != 0 => {
                return Err("only a calendar has a zone");
            }
            window @ Window::Rolling(_) => window,
        };
        let limit = Self::new(file.unit, file.quota, window);
        let limit = match (file.only_models, file.each_model) {
            (Some(_), Some(_)) => return Err("a limit has only_models or each_model, not both"),
            (Some(models), None) => limit.only_models(models),
            (None, Some(models)) => limit.each_model(models),
            (None, None) => limit,
        };
        let costs = CostTable::new(file.weights.unwrap_or_default());
        let add = |costs: CostTable, (model, weights): (String, _)| costs.model(model, weights);
        let limit = limit.with_costs(file.model_weights.into_iter().fold(costs, add));
        let limit = if file.sliding { limit.sliding() } else { limit };
        let limit = if file.shadow { limit.shadow() } else { limit };
        let limit = file.burst.into_iter().fold(limit, Self::burst);
        let limit = file.per.into_iter().fold(limit, Self::per);
        let limit = file.name.into_iter().fold(limit, Self::named);
        Ok(file.on_outage.into_iter().fold(limit, Self::on_outage))
    }
}

impl From<TierFile> for Tier {
    fn from(file: TierFile) -> Self {
        let tier = Self::new()
            .with_some(file.requests, |tier, w| tier.requests(w.quota, w.window()))
            .with_some(file.requests_per_second, Self::requests_per_second)
            .with_some(file.requests_per_minute, Self::requests_per_minute)
            .with_some(file.requests_per_day, Self::requests_per_day)
            .with_some(file.tokens, |tier, w| tier.tokens(w.quota, w.window()))
            .with_some(file.tokens_per_second, Self::tokens_per_second)
            .with_some(file.tokens_per_minute, Self::tokens_per_minute)
            .with_some(file.tokens_per_day, Self::tokens_per_day)
            .with_some(file.concurrent_requests, Self::concurrent_requests)
            .with_some(file.on_outage, Self::on_outage);
        file.limits.into_iter().fold(tier, Self::limit)
    }
}

impl Tier {
    fn with_some<T>(self, value: Option<T>, limit: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => limit(self, value),
            None => self,
        }
    }
}

impl Windowed {
    fn window(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readmes_tiers_are_such_as_can_be_kept() {
        let (_, text) = include_str!("../../README.md").split_once("```toml\n[free]").unwrap();
        let (text, _) = text.split_once("```").unwrap();
        let tiers: BTreeMap<String, Tier> = toml::from_str(&format!("[free]{text}")).unwrap();
        let (_, text) = include_str!("../../README.md").split_once("```toml\n[paid]").unwrap();
        let (text, _) = text.split_once("```").unwrap();
        let paid: BTreeMap<String, Tier> = toml::from_str(&format!("[paid]{text}")).unwrap();
        assert!(paid["paid"].ready("paid").is_ok());
        let ready = tiers["free"].ready("free").unwrap();
        let names: Vec<_> = ready.limits.iter().map(|limit| limit.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "requests-minute",
                "tokens-minute",
                "concurrent-requests",
                "organisation-tokens-calendar-day",
                "network-requests-minute",
                "tier-output-tokens-minute",
            ]
        );
    }

    #[test]
    fn tiers_are_read_and_typing_errors_refused() {
        let text =
            "[free]\nrequests_per_minute = 60\nconcurrent_requests = 2\n[paid]\ntokens_per_day = 9";
        let tiers: BTreeMap<String, Tier> = toml::from_str(text).unwrap();
        let policy = tiers["free"].ready("free").unwrap().policy;
        assert!(policy.to_str().unwrap().starts_with("\"requests-minute\";q=60;w=60, "));
        assert!(tiers["paid"].ready("paid").is_ok());
        let windowed: Tier = toml::from_str("tokens = { quota = 5, seconds = 10 }").unwrap();
        assert_eq!(windowed.ready("x").unwrap().policy, "\"tokens-10s\";q=5;w=10;qu=\"tokens\"");
        let minute = Duration::from_secs(60);
        let limits: Tier = toml::from_str(
            "limits = [{ unit = 'output_tokens', quota = 9, seconds = 60, burst = 3, per = ['organisation', 'network'] }, \
             { unit = 'concurrent_requests', quota = 2, name = 'slots', on_outage = 'local_share' }]\n\
             on_outage = 'insecure_admit'",
        )
        .unwrap();
        let daily: Tier = toml::from_str(
            "limits = [{ unit = 'tokens', quota = 5, calendar = 'day', utc_offset_minutes = -60 }, \
             { unit = 'requests', quota = 7, seconds = 60, sliding = true, shadow = true }]",
        )
        .unwrap();
        let day = Calendar::day().utc_offset_minutes(-60);
        let same = Tier::new()
            .limit(TierLimit::tokens(5, day))
            .limit(TierLimit::requests(7, minute).sliding().shadow());
        assert_eq!(daily, same);
        let by_model: Tier = toml::from_str(
            "[[limits]]\nunit = 'cost'\nquota = 5\nseconds = 60\nweights = { input = 1000, output = 4000, cached_input = 100 }\n\
             [limits.model_weights]\n'llama-*' = { input = 100, output = 200, reasoning = 300 }\n\
             [[limits]]\nunit = 'requests'\nquota = 7\nseconds = 60\nonly_models = ['o3*', 'gpt-4o']\n\
             [[limits]]\nunit = 'tokens'\nquota = 9\nseconds = 60\neach_model = ['gpt-4o']",
        )
        .unwrap();
        let costs = CostTable::new(TokenWeights::new(1000, 4000).cached_input(100))
            .model("llama-*", TokenWeights::new(100, 200).reasoning(300));
        let same = Tier::new()
            .limit(TierLimit::cost(5, minute, costs))
            .limit(TierLimit::requests(7, minute).only_models(["o3*", "gpt-4o"]))
            .limit(TierLimit::tokens(9, minute).each_model(["gpt-4o"]));
        assert_eq!(by_model, same);
        let shared = TierLimit::output_tokens(9, minute).burst(3);
        let same = Tier::new()
            .limit(shared.per([Scope::Organisation, Scope::Network]))
            .limit(TierLimit::concurrent_requests(2).named("slots").on_outage(Outage::LocalShare))
            .on_outage(Outage::InsecureAdmit);
        assert_eq!(limits, same);
        for bad in [
            "limits = [{ unit = 'words', quota = 1, seconds = 1 }]",
            "limits = [{ unit = 'requests', quota = 1, seconds = 1, per = ['planet'] }]",
            "limits = [{ unit = 'requests', quota = 1, second = 1 }]",
            "limits = [{ unit = 'requests', quota = 1, seconds = 1, calendar = 'day' }]",
            "limits = [{ unit = 'requests', quota = 1, seconds = 1, utc_offset_minutes = 60 }]",
            "limits = [{ unit = 'requests', quota = 1, seconds = 1, only_models = [], each_model = [] }]",
            "limits = [{ unit = 'cost', quota = 1, seconds = 1, weights = { input = 1 } }]",
            "limits = [{ unit = 'cost', quota = 1, seconds = 1, weights = { input = -1, output = 1 } }]",
        ] {
            assert!(toml::from_str::<Tier>(bad).is_err(), "{bad}");
        }
        assert!(toml::from_str::<Tier>("request_per_minute = 60").is_err());
        assert!(toml::from_str::<Tier>("requests_per_minute = -1").is_err());
    }
}

//! A tier as requests need it.

use std::{
    fmt::Write as _,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::HeaderValue;

use super::{
    headers::Plan,
    limit::invalid,
    models::{ByModel, Told},
    ready::ReadyLimit,
    refusal,
    scope::{Asker, Records, Scopes},
    settlement::Due,
    shadow::ShadowKeys,
    shares::Charges,
    unit::Unit,
    window::Window,
};
use crate::{
    BuildError,
    clock::Clock,
    observe,
    reject::Rejection,
    reservation::TokenUsage,
    store::{Charge, Inline, Key, MAX_CHARGES, NO_CHARGE, Outage, Pepper, StoreError},
};

/// A tier as requests need it.
#[derive(Debug)]
pub(super) struct ReadyTier {
    pub(super) name: Arc<str>,
    pub(super) limits: Vec<ReadyLimit>,
    /// What counts them.
    records: Vec<Records>,
    /// `RateLimit-Policy`, which is the same for every answer.
    pub(super) policy: HeaderValue,
    /// What callers are told: those of Anthropic's endpoint, and all others.
    pub(super) plan_anthropic: OnceLock<Plan>,
    pub(super) plan: OnceLock<Plan>,
    /// The most that can ever be admitted at once, as far as it is not by model: of all tokens, and those of prompt and answer.
    most: [u64; 3],
    /// The limits that are only counted.
    pub(super) shadow: Option<Arc<Self>>,
    /// Whether charges depend on the day.
    has_calendars: bool,
}

/// So much of each limit of a tier, in their order. `None`: it is left out.
pub(super) type Amounts = Inline<Option<u64>>;

impl ReadyTier {
    pub(super) fn of(
        name: &str,
        all: impl Iterator<Item = ReadyLimit>,
        records_of: fn(Scopes) -> Records,
    ) -> Result<Self, BuildError> {
        let mut limits = Vec::<ReadyLimit>::new();
        let mut records = Vec::<Records>::new();
        for mut limit in all {
            let known = records.iter().position(|records| records.scopes == limit.scopes);
            limit.record = known.unwrap_or(records.len());
            if known.is_none() {
                records.push(records_of(limit.scopes));
            }
            limits.push(limit);
        }
        if limits.len() > MAX_CHARGES {
            return Err(invalid(name, format!("it has more than {MAX_CHARGES} limits")));
        }
        // Charges of one record stand side by side. What an admission leaves out, because its record is known when the
        // model is, stands last.
        limits.sort_by_key(|limit| (limit.is_by_model(), limit.record));
        let policy = policy_header(&limits)?;
        let most = [Unit::Tokens, Unit::InputTokens, Unit::OutputTokens].map(|unit| {
            let limits = limits.iter().filter(|limit| limit.unit == unit && !limit.is_by_model());
            limits.map(|limit| limit.limit.capacity()).min().unwrap_or(u64::MAX)
        });
        let has_calendars = limits.iter().any(|limit| matches!(limit.window, Window::Calendar(_)));
        Ok(Self {
            name: name.into(),
            policy,
            plan_anthropic: OnceLock::new(),
            plan: OnceLock::new(),
            limits,
            records,
            most,
            shadow: None,
            has_calendars,
        })
    }

    /// What becomes of a request that the store can't be asked about: it goes unmetered if no limit has to be kept.
    pub(super) fn without_store(&self, error: &StoreError) -> Result<(), Rejection> {
        let refusal = refusal::unavailable(error);
        if self.limits.iter().any(|limit| limit.limit.outage() != Outage::InsecureAdmit) {
            return Err(refusal);
        }
        observe::count("palisade_unmetered_total", &[("layer", "rate_limit")]);
        Ok(())
    }

    /// The records that count the limits for `asker`, and those that count what is only counted.
    pub(super) fn records(
        &self,
        asker: &Asker<'_>,
    ) -> Result<(Inline<Key>, Option<Box<ShadowKeys>>), Rejection> {
        Ok((self.keys(asker)?, ShadowKeys::of(self, asker)))
    }

    /// The records that count the limits for `asker`.
    pub(super) fn keys(&self, asker: &Asker<'_>) -> Result<Inline<Key>, Rejection> {
        let mut keys = Inline::new(NO_CHARGE.record);
        for records in &self.records {
            keys.push(records.key(asker)?);
        }
        Ok(keys)
    }

    /// The records of a caller's own, which he has to himself or shares with less than a tier.
    pub(super) fn own(&self, pepper: &Pepper, keys: &Inline<Key>) -> impl Iterator<Item = Key> {
        let records = self.records.iter().zip(keys.as_slice());
        let own = records.filter(|(records, _)| records.scopes.is_the_callers());
        let by_model = self.limits.iter().filter(|limit| limit.scopes.is_the_callers());
        let by_model = by_model.flat_map(|limit| self.records_by_model(limit, pepper, keys));
        own.map(|(_, key)| *key).chain(by_model.map(|(_, key)| key))
    }

    /// The records of a limit by model, with what they count.
    fn records_by_model<'a>(
        &self,
        limit: &'a ReadyLimit,
        pepper: &Pepper,
        keys: &Inline<Key>,
    ) -> Vec<(&'a str, Key)> {
        let base = keys.as_slice().get(limit.record).filter(|_| limit.is_by_model());
        let all = base.into_iter().flat_map(|base| {
            limit.models.all().map(|model| (model, limit.key(pepper, base, model)))
        });
        all.collect()
    }

    /// Every limit, and of those by model every one, with the model and a charge of nothing. Those of one record side by
    /// side.
    pub(super) fn all_charges(
        &self,
        pepper: &Pepper,
        keys: &Inline<Key>,
        unix: Duration,
    ) -> Vec<(&ReadyLimit, Option<&str>, Charge)> {
        let all = self.limits.iter().flat_map(|limit| {
            let plain = keys.as_slice().get(limit.record).filter(|_| !limit.is_by_model());
            let plain = plain.map(|key| (None, *key));
            let by_model = self.records_by_model(limit, pepper, keys);
            let by_model = by_model
                .into_iter()
                .map(|(name, key)| (matches!(limit.models, ByModel::Each(_)).then_some(name), key));
            let limit_at = limit.at(unix);
            let charge = move |key| Charge::new(key, limit_at, 0);
            plain.into_iter().chain(by_model).map(move |(model, key)| (limit, model, charge(key)))
        });
        all.collect()
    }

    /// What `usage` takes beyond what is `held` of the limit at an index. `None` there: it is not charged yet.
    pub(super) fn missing(
        &self,
        usage: TokenUsage,
        model: Option<&Told>,
        held: impl Fn(usize) -> Option<u64>,
    ) -> Amounts {
        let amounts = self.limits.iter().enumerate().map(|(index, limit)| {
            if limit.is_by_model() && !model?.counts(index) {
                return None;
            }
            let units = limit.units(usage, limit.weights(model, index)).unwrap_or(1);
            let held = held(index);
            let more = units.saturating_sub(held.unwrap_or(0));
            (held.is_none() || more > 0).then_some(more)
        });
        Inline::collect(None, amounts)
    }

    /// What a request that pays `due` pays of each limit.
    pub(super) fn due(&self, due: Due, model: Option<&Told>) -> Inline<u64> {
        let limits = self.limits.iter().enumerate();
        let units = limits.map(|(index, limit)| limit.due(due, limit.weights(model, index)));
        Inline::collect(0, units)
    }

    /// Adds what an admission takes to none, in their place: one request, one slot, and the tokens of `usage`. Not of limits
    /// by model.
    pub(super) fn charge_admission(
        &self,
        charges: &mut Charges,
        keys: &Inline<Key>,
        usage: TokenUsage,
        clock: &dyn Clock,
    ) {
        self.charge(charges, (keys, None), clock, |_, limit| {
            let units = limit.units(usage, limit.costs.of(None)).unwrap_or(1);
            // A guess at the cost never refuses by itself.
            let most = if limit.unit == Unit::Cost { limit.limit.capacity() } else { u64::MAX };
            Some(units.min(most))
        });
    }

    /// The charges of `amounts`, now.
    pub(super) fn charges(
        &self,
        keys: &Inline<Key>,
        model: Option<&Told>,
        amounts: &Amounts,
        clock: &dyn Clock,
    ) -> Charges {
        let mut charges = Charges::none();
        let amount = |index| amounts.as_slice().get(index).copied().flatten();
        self.charge(&mut charges, (keys, model), clock, |index, _| amount(index));
        charges
    }

    /// Adds as much of each limit as `amount` says of it and its place.
    #[inline]
    fn charge(
        &self,
        charges: &mut Charges,
        (keys, model): (&Inline<Key>, Option<&Told>),
        clock: &dyn Clock,
        amount: impl Fn(usize, &ReadyLimit) -> Option<u64>,
    ) {
        let unix = if self.has_calendars { clock.unix() } else { Duration::ZERO };
        for (index, limit) in self.limits.iter().enumerate() {
            let key = if limit.is_by_model() {
                model.and_then(|model| model.key(index))
            } else {
                keys.as_slice().get(limit.record).copied()
            };
            if let Some((key, amount)) = key.zip(amount(index, limit)) {
                charges.push(index, Charge::new(key, limit.at(unix), amount));
            }
        }
    }

    /// As much of `usage` as can ever be admitted at once.
    pub(super) fn clamp(&self, usage: TokenUsage) -> TokenUsage {
        let [total, most_input, most_output] = self.most;
        let output = usage.output.min(total).min(most_output);
        let input = usage.input.min(total - output).min(most_input);
        TokenUsage::new(input, output)
    }
}

/// draft-ietf-httpapi-ratelimit-headers, section 3: a list of strings with parameters. Tokens are not
/// among the registered quota units yet; a client that does not know the unit ignores the item.
fn policy_header(limits: &[ReadyLimit]) -> Result<HeaderValue, BuildError> {
    let mut value = String::new();
    for limit in limits.iter().filter(|limit| limit.scopes.is_the_callers()) {
        let comma = if value.is_empty() { "" } else { ", " };
        let (name, quota) = (&limit.name, limit.quota);
        let _ = write!(value, "{comma}\"{name}\";q={quota}");
        if let Some(window) = limit.window.seconds().filter(|seconds| *seconds > 0) {
            let _ = write!(value, ";w={window}");
        }
        if limit.unit != Unit::Requests {
            let _ = write!(value, ";qu=\"{}\"", limit.unit.name());
        }
    }
    HeaderValue::try_from(value).map_err(|_| BuildError::invalid("tier", "no header can name it"))
}

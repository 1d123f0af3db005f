//! A limit as requests need it.

use std::time::Duration;

use super::{
    Window,
    calendar::CalendarPeriod,
    cost::{CostTable, TokenWeights},
    models::{ByModel, Told},
    scope::Scopes,
    settlement::Due,
    unit::Unit,
};
use crate::{
    reservation::TokenUsage,
    store::{Key, Limit, Pepper, Standing},
};

/// A limit as requests need it.
#[derive(Debug)]
pub(super) struct ReadyLimit {
    pub(super) limit: Limit,
    pub(super) unit: Unit,
    pub(super) quota: u64,
    pub(super) window: Window,
    pub(super) scopes: Scopes,
    /// Which of the tier's records counts it, or, by model, begins the name of those that do.
    pub(super) record: usize,
    pub(super) name: String,
    pub(super) models: ByModel,
    pub(super) costs: CostTable,
}

/// Where a limit stands that does not count the request.
pub(super) const UNCOUNTED: Standing = Standing::new(u64::MAX, Duration::ZERO);

impl ReadyLimit {
    /// The limit as a charge at `unix` names it.
    pub(super) fn at(&self, unix: Duration) -> Limit {
        let Window::Calendar(calendar) = self.window else { return self.limit };
        let CalendarPeriod { number, ends_in } = calendar.period(unix);
        self.limit.in_period(number, ends_in)
    }

    /// Whether it counts only what is for some models, or separately by model. It is charged once the model is told.
    pub(super) fn is_by_model(&self) -> bool {
        !self.models.is_no()
    }

    /// Whether the model that a request is for makes a difference to it.
    pub(super) fn asks_for_the_model(&self) -> bool {
        self.is_by_model() || self.costs.names_models()
    }

    /// The record that counts it, by model, for who has the record `base`.
    pub(super) fn key(&self, pepper: &Pepper, base: &Key, counted_as: &str) -> Key {
        let key = pepper.key("model").with(base.as_bytes());
        key.with(&self.limit.id().get().to_le_bytes()).with(counted_as.as_bytes()).finish()
    }

    /// What a token costs, for a limit of cost. Its place in the tier is `index`.
    pub(super) fn weights(&self, model: Option<&Told>, index: usize) -> TokenWeights {
        model.and_then(|model| model.weights(index)).unwrap_or_else(|| self.costs.of(None))
    }

    /// Units that `usage` is. `None` for what does not count tokens.
    pub(super) fn units(&self, usage: TokenUsage, weights: TokenWeights) -> Option<u64> {
        match self.unit {
            Unit::Requests | Unit::Slots => None,
            Unit::Tokens => Some(usage.total()),
            Unit::InputTokens => Some(usage.input),
            Unit::OutputTokens => Some(usage.output),
            Unit::Cost => Some(weights.cost(usage)),
        }
    }

    /// Units of it that a request pays in the end. Slots are given back whatever it says.
    pub(super) fn due(&self, due: Due, weights: TokenWeights) -> u64 {
        match self.unit {
            Unit::Requests => due.requests,
            _ => self.units(due.tokens, weights).unwrap_or(0),
        }
    }

    /// How long an answer may be if `units` are there for it and the prompt of `usage`. `None`: there are none for
    /// an answer.
    pub(super) fn output_that_fits(
        &self,
        units: u64,
        usage: TokenUsage,
        weights: TokenWeights,
    ) -> Option<u64> {
        match self.unit {
            Unit::Tokens => units.checked_sub(usage.input),
            Unit::OutputTokens => Some(units),
            Unit::InputTokens => units.checked_sub(usage.input).and(Some(u64::MAX)),
            Unit::Cost => weights.output_that_fits(units, usage),
            Unit::Requests | Unit::Slots => Some(u64::MAX),
        }
    }
}

//! What tokens cost: not all are worth the same.

use super::models::Models;
use crate::reservation::TokenUsage;

/// What the tokens of a model cost, each in thousandths of a unit.
///
/// ```
/// use palisade::rate_limit::TokenWeights;
///
/// // A prompt's token is a unit, a cached one a tenth of it, an answer's token four units.
/// let weights = TokenWeights::new(1000, 4000).cached_input(100);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(deny_unknown_fields))]
#[must_use]
pub struct TokenWeights {
    input: u32,
    output: u32,
    cached_input: Option<u32>,
    reasoning: Option<u32>,
}

/// A unit a token.
impl Default for TokenWeights {
    fn default() -> Self {
        Self::new(THOUSAND, THOUSAND)
    }
}

impl TokenWeights {
    /// What a token of the prompt and one of the answer cost, in thousandths of a unit.
    pub const fn new(input: u32, output: u32) -> Self {
        Self { input, output, cached_input: None, reasoning: None }
    }

    /// What a token of the prompt costs that was read from a cache, in thousandths of a unit. Default: as any of the
    /// prompt's.
    pub const fn cached_input(self, thousandths: u32) -> Self {
        Self { cached_input: Some(thousandths), ..self }
    }

    /// What a token of reasoning costs, in thousandths of a unit. Default: as any of the answer's.
    pub const fn reasoning(self, thousandths: u32) -> Self {
        Self { reasoning: Some(thousandths), ..self }
    }

    /// Units that `usage` costs, rounded up.
    pub(super) fn cost(self, usage: TokenUsage) -> u64 {
        units(self.thousandths(usage))
    }

    /// What `usage` costs, in thousandths of a unit.
    pub(super) fn thousandths(self, usage: TokenUsage) -> u128 {
        self.input_cost(usage) + self.output_cost(usage)
    }

    /// How long an answer may be in `units`, beside the prompt of `usage`. `None`: that alone costs more.
    pub(super) fn output_that_fits(self, units: u64, usage: TokenUsage) -> Option<u64> {
        let left =
            (u128::from(units) * u128::from(THOUSAND)).checked_sub(self.input_cost(usage))?;
        // Nobody knows beforehand how much of it will be reasoning.
        let dearest = self.output.max(self.reasoning.unwrap_or(0));
        let tokens = left.checked_div(u128::from(dearest)).unwrap_or(u128::MAX);
        Some(u64::try_from(tokens).unwrap_or(u64::MAX))
    }

    fn input_cost(self, usage: TokenUsage) -> u128 {
        let cached = usage.cached_input.min(usage.input);
        cost(usage.input - cached, self.input)
            + cost(cached, self.cached_input.unwrap_or(self.input))
    }

    fn output_cost(self, usage: TokenUsage) -> u128 {
        let reasoning = usage.reasoning.min(usage.output);
        let reasoned = cost(reasoning, self.reasoning.unwrap_or(self.output));
        cost(usage.output - reasoning, self.output) + reasoned
    }
}

fn cost(tokens: u64, thousandths: u32) -> u128 {
    u128::from(tokens) * u128::from(thousandths)
}

fn units(thousandths: u128) -> u64 {
    u64::try_from(thousandths.div_ceil(u128::from(THOUSAND))).unwrap_or(u64::MAX)
}

const THOUSAND: u32 = 1000;

/// What tokens cost, by model.
///
/// ```
/// use palisade::rate_limit::{CostTable, Tier, TierLimit, TokenWeights};
/// use std::time::Duration;
///
/// let costs = CostTable::new(TokenWeights::new(1000, 3000))
///     .model("gpt-4o", TokenWeights::new(2500, 10_000).cached_input(1250))
///     .model("llama-*", TokenWeights::new(100, 200));
/// let paid = Tier::new().limit(TierLimit::cost(1_000_000, Duration::from_secs(60), costs));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct CostTable {
    default: TokenWeights,
    models: Models,
    weights: Vec<TokenWeights>,
}

impl CostTable {
    /// With what the tokens cost of models that are not named, and of requests until their model is known. To choose
    /// no less than the dearest, if callers must not get a model cheaper by another name for it.
    pub fn new(default: TokenWeights) -> Self {
        Self { default, ..Self::default() }
    }

    /// With what the tokens of a model cost: of one name, or of all that begin as this one does before its `*`. A whole
    /// name goes before a prefix, and a longer prefix before a shorter.
    pub fn model(mut self, name: impl Into<String>, weights: TokenWeights) -> Self {
        self.models.push(name.into());
        self.weights.push(weights);
        self
    }

    pub(super) fn of(&self, model: Option<&str>) -> TokenWeights {
        let index = model.and_then(|model| self.models.find(model));
        index.and_then(|index| self.weights.get(index)).copied().unwrap_or(self.default)
    }

    pub(super) fn names_models(&self) -> bool {
        !self.models.is_empty()
    }

    pub(super) fn fault(&self) -> Option<&'static str> {
        self.models.fault()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_kind_of_token_has_its_weight() {
        let usage = TokenUsage::new(100, 50).with_cached_input(80).with_reasoning(40);
        assert_eq!(TokenWeights::default().cost(usage), 150);
        assert_eq!(TokenWeights::new(1000, 4000).cost(usage), 300);
        let weights = TokenWeights::new(1000, 4000).cached_input(100).reasoning(2000);
        assert_eq!(weights.cost(usage), 20 + 8 + 40 + 80);
        // Rounded up, once, and of nothing nothing.
        assert_eq!(TokenWeights::new(1, 1).cost(TokenUsage::new(1, 1)), 1);
        assert_eq!(TokenWeights::new(1, 1).cost(TokenUsage::new(600, 401)), 2);
        assert_eq!(TokenWeights::new(1, 1).cost(TokenUsage::default()), 0);
        let most = TokenUsage::new(u64::MAX, u64::MAX);
        assert_eq!(TokenWeights::new(u32::MAX, u32::MAX).cost(most), u64::MAX);
    }

    proptest! {
        /// As long an answer as fits does, and none that is longer.
        #[test]
        fn what_fits_fits_exactly(
            input in 0..1_000_000_u64, units in 0..1_000_000_u64, weights in prop::array::uniform2(1..10_000_u32),
        ) {
            let weights = TokenWeights::new(weights[0], weights[1]);
            let cost = |output| weights.cost(TokenUsage::new(input, output));
            match weights.output_that_fits(units, TokenUsage::new(input, 0)) {
                Some(output) => prop_assert!(cost(output) <= units && cost(output + 1) > units),
                None => prop_assert!(cost(0) > units),
            }
        }
    }
}

//! Names of models, and what a tier's limits make of the one that a request is for.

use std::sync::Arc;

use super::{cost::TokenWeights, ready_tier::ReadyTier};
use crate::store::{Inline, Key, Pepper};

/// Names of models: exact ones, and prefixes that end in `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Models(Vec<String>);

impl Models {
    pub(super) fn of(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }

    pub(super) fn push(&mut self, name: String) {
        self.0.push(name);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// What is wrong with them, if anything.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let is_bad = |name: &String| {
            let stem = name.strip_suffix('*').unwrap_or(name);
            name.is_empty() || stem.contains('*')
        };
        let is_twice = |(at, name)| self.0.iter().take(at).any(|other: &String| other == name);
        if self.0.iter().any(is_bad) {
            return Some("a model's name is empty, or has a '*' before its end");
        }
        self.0.iter().enumerate().any(is_twice).then_some("a model is named twice")
    }

    /// Which of the names `model` is: its own, or else the longest prefix.
    pub(super) fn find(&self, model: &str) -> Option<usize> {
        let fits =
            self.0.iter().enumerate().filter_map(|(index, name)| match name.strip_suffix('*') {
                Some(prefix) => model.starts_with(prefix).then_some((prefix.len(), index)),
                None => (model == name).then_some((usize::MAX, index)),
            });
        fits.max().map(|(_, index)| index)
    }
}

/// Which requests a limit counts, by the models that they are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum ByModel {
    /// All.
    #[default]
    No,
    /// Those for these models, together.
    Only(Models),
    /// Those for each of these models by itself, and for all others together.
    Each(Models),
}

impl ByModel {
    pub(super) fn is_no(&self) -> bool {
        matches!(self, Self::No)
    }

    pub(super) fn fault(&self) -> Option<&'static str> {
        match self {
            Self::No => None,
            Self::Only(models) | Self::Each(models) if models.is_empty() => {
                Some("it names no model")
            }
            Self::Only(models) | Self::Each(models) => models.fault(),
        }
    }

    /// What requests for `model` are counted under. `None`: they are not counted.
    fn counted_as(&self, model: Option<&str>) -> Option<&str> {
        let find = |models: &Self| match models {
            Self::Only(names) | Self::Each(names) => names.find(model?),
            Self::No => None,
        };
        match self {
            Self::No => Some(ALL),
            Self::Only(_) => find(self).map(|_| ALL),
            Self::Each(names) => {
                Some(find(self).and_then(|index| names.iter().nth(index)).unwrap_or(OTHERS))
            }
        }
    }

    /// All that requests may be counted under.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        let (each, rest) = match self {
            Self::Each(names) => (Some(names), OTHERS),
            Self::No | Self::Only(_) => (None, ALL),
        };
        each.into_iter().flat_map(Models::iter).chain([rest])
    }
}

/// What no model can be called.
const ALL: &str = "";
/// All models that a limit does not name: callers may invent as many as they like.
const OTHERS: &str = "*";

/// What the limits of a tier make of a request's model, once it is told.
#[derive(Debug)]
pub(super) struct Told(Inline<Bound>);

/// What one limit makes of it.
#[derive(Clone, Copy, Debug)]
struct Bound {
    counts: bool,
    /// The record that counts it, for a limit by model.
    key: Key,
    weights: TokenWeights,
}

impl Told {
    /// `None`: the tier has nothing to do with models.
    pub(super) fn of(
        tier: &ReadyTier,
        pepper: &Pepper,
        keys: &Inline<Key>,
        model: Option<&str>,
    ) -> Option<Arc<Self>> {
        if !tier.limits.iter().any(|limit| limit.asks_for_the_model()) {
            return None;
        }
        let nothing = Key::from_bytes([0; 16]);
        let bounds = tier.limits.iter().map(|limit| {
            let name = limit.models.counted_as(model);
            let base = keys.as_slice().get(limit.record);
            Bound {
                counts: name.is_some(),
                key: base.zip(name).map_or(nothing, |(base, name)| limit.key(pepper, base, name)),
                weights: limit.costs.of(model),
            }
        });
        let fill = Bound { counts: false, key: nothing, weights: TokenWeights::default() };
        Some(Arc::new(Self(Inline::collect(fill, bounds))))
    }

    pub(super) fn counts(&self, index: usize) -> bool {
        self.0.as_slice().get(index).is_some_and(|bound| bound.counts)
    }

    pub(super) fn key(&self, index: usize) -> Option<Key> {
        self.0.as_slice().get(index).filter(|bound| bound.counts).map(|bound| bound.key)
    }

    pub(super) fn weights(&self, index: usize) -> Option<TokenWeights> {
        self.0.as_slice().get(index).map(|bound| bound.weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_own_name_goes_before_prefixes_and_longer_ones_before_shorter() {
        let models = Models::of(["gpt-4o*", "gpt-4o", "gpt-4o-mini*", "llama*", "*"]);
        for (model, expected) in [
            ("gpt-4o", 1),
            ("gpt-4o-2024-08-06", 0),
            ("gpt-4o-mini-2024", 2),
            ("llama", 3),
            ("GPT-4o", 4),
            ("", 4),
        ] {
            assert_eq!(models.find(model), Some(expected), "{model}");
        }
        assert_eq!(Models::of(["gpt-4o"]).find("gpt-4o-mini"), None);
    }

    #[test]
    fn names_that_mean_nothing_are_faults() {
        for bad in [&["a", "a"][..], &["*a"], &["a**"], &[""]] {
            assert!(Models::of(bad.iter().copied()).fault().is_some(), "{bad:?}");
        }
        assert!(Models::of(["a", "a*", "*"]).fault().is_none());
    }

    #[test]
    fn what_is_not_named_is_one_or_none() {
        let each = ByModel::Each(Models::of(["a", "b*"]));
        assert_eq!(each.counted_as(Some("a")), Some("a"));
        assert_eq!(each.counted_as(Some("b-1")), each.counted_as(Some("b-2")));
        assert_eq!(each.counted_as(Some("invented-1")), Some(OTHERS));
        assert_eq!(each.counted_as(None), Some(OTHERS));
        assert_eq!(each.all().collect::<Vec<_>>(), ["a", "b*", "*"]);
        let only = ByModel::Only(Models::of(["a", "b*"]));
        assert_eq!(only.counted_as(Some("a")), only.counted_as(Some("b-1")));
        assert_eq!(only.counted_as(Some("invented-1")), None);
        assert_eq!(only.counted_as(None), None);
    }
}

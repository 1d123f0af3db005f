//! What a limit counts.

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
pub(super) enum Unit {
    Requests,
    /// Of prompt and answer together.
    Tokens,
    InputTokens,
    OutputTokens,
    /// Tokens by their weights.
    Cost,
    /// Requests at a time.
    #[cfg_attr(feature = "serde", serde(rename = "concurrent_requests"))]
    Slots,
}

impl Unit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input-tokens",
            Self::OutputTokens => "output-tokens",
            Self::Cost => "cost",
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
            Self::Cost => "units of cost",
        }
    }

    pub(super) fn counts_tokens(self) -> bool {
        !matches!(self, Self::Requests | Self::Slots)
    }
}

//! What the guard makes of a prompt or an answer.

use super::Finding;

/// What became of a request, or of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing was found.
    Allow,
    /// Something was found that is only reported.
    Report,
    /// What was found was masked.
    Sanitize,
    /// It was refused.
    Block,
}

impl Outcome {
    /// As it stands in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Report => "report",
            Self::Sanitize => "sanitize",
            Self::Block => "block",
        }
    }
}

/// What the guard makes of a request. Stands in the extensions of the request, for handlers, and of
/// its answer, for outer layers. Rules and places only, never a text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Verdict {
    /// What the policy says, whether or not it is enforced.
    pub action: Outcome,
    /// `false` when the guard only reports: then `action` is what would have been done.
    pub enforced: bool,
    /// The code of the refusal, if `action` is [`Block`](Outcome::Block).
    pub code: Option<&'static str>,
    /// What was found: the first 256 findings.
    pub findings: Vec<Finding>,
    /// Detectors that could not tell: they failed, panicked, ran out of time, or were left alone.
    pub unavailable: Vec<&'static str>,
    /// Those of them whose [`OnUnavailable`](super::OnUnavailable) lets what they did not see pass.
    pub let_through: Vec<&'static str>,
}

/// What the guard found in the answer to a request. Stands in the extensions of an answer that was
/// read whole before its head was sent; what is found in an event stream is only counted.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AnswerVerdict(pub Verdict);

impl Verdict {
    /// The verdict on a request that is refused before anything was looked for.
    pub(crate) fn refused(code: &'static str, enforced: bool) -> Self {
        Self {
            action: Outcome::Block,
            enforced,
            code: Some(code),
            findings: Vec::new(),
            unavailable: Vec::new(),
            let_through: Vec::new(),
        }
    }
}

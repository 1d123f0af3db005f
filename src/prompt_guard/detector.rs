//! What looks for something in a prompt or an answer.

use std::{borrow::Cow, fmt::Debug, ops::Range, sync::Arc};

use crate::{
    BoxError,
    future::ReadyOr,
    inference::{Prompt, Segment},
};

/// What kind of thing a rule finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Category {
    /// An attempt to override the instructions.
    Injection,
    /// A credential.
    Secret,
    /// Personal data.
    PersonalData,
    /// Malicious code, or a wish for it.
    MaliciousCode,
    /// A rule of the application's own.
    Custom,
    /// A link that carries something away.
    Leak,
    /// What the system prompt says, in an answer.
    SystemPrompt,
    /// What is not to be talked about.
    Topic,
}

impl Category {
    /// As it stands in metrics and verdicts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Injection => "injection",
            Self::Secret => "secret",
            Self::PersonalData => "personal_data",
            Self::MaliciousCode => "malicious_code",
            Self::Custom => "custom",
            Self::Leak => "leak",
            Self::SystemPrompt => "system_prompt",
            Self::Topic => "topic",
        }
    }
}

/// A set of categories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Categories(u16);

impl Categories {
    pub(crate) fn of(categories: impl IntoIterator<Item = Category>) -> Self {
        Self(categories.into_iter().fold(0, |all, category| all | 1 << category as u16))
    }

    /// Whether any of them is in the other set, too.
    pub(crate) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Something that was found: which rule, how sure, where. Never the text itself.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Finding {
    /// The rule, `injection.override`: from the detector's closed set.
    pub rule: Cow<'static, str>,
    /// What kind of thing it is.
    pub category: Category,
    /// How sure the detector is, from 0 to 1.
    pub score: f32,
    /// Which segment of the prompt, or `usize::MAX` for the prompt as a whole.
    pub segment: usize,
    /// Where in the segment's text, in bytes, on character borders. `None`: everywhere, or the
    /// detector can't say.
    pub span: Option<Range<usize>>,
}

impl Finding {
    /// A finding in the segment with this index.
    #[must_use]
    pub fn new(
        rule: impl Into<Cow<'static, str>>,
        category: Category,
        score: f32,
        segment: usize,
        span: Option<Range<usize>>,
    ) -> Self {
        Self { rule: rule.into(), category, score, segment, span }
    }
}

/// A detector that runs in process: bounded in time by the length of the text. One that is dear to build
/// is shared as an `Arc`.
pub trait Detector: Debug + Send + Sync + 'static {
    /// Its name, in policies, verdicts and metrics: from a closed set.
    fn name(&self) -> &'static str;

    /// Looks at one segment and adds what it finds. Neighbouring texts of one origin are then put
    /// together and looked at once more; of what is found there only what spans more than one counts,
    /// so only findings that say where they are. What it finds must depend on nothing but the segment's text, origin and turn:
    /// it is [remembered](super::PromptGuardLayerBuilder::remember_texts).
    fn scan(&self, segment: &Segment<'_>, views: &super::Views<'_>, findings: &mut Vec<Finding>);

    /// Looks at a prompt as a whole, after all of its segments, for what no segment alone can tell. What it finds counts,
    /// whatever the origins that a [`Rule`](super::Rule) skips, and has no place to mask. Not for answers. By default it finds
    /// nothing.
    fn scan_prompt(&self, prompt: &Prompt, findings: &mut Vec<Finding>) {
        let _ = (prompt, findings);
    }

    /// The most bytes that what it finds usually has: how much of a text must be seen at once. An event
    /// stream is held back by as much. 256 by default.
    fn lookbehind(&self) -> usize {
        256
    }

    /// The detector as it is now, for one whose rules are replaced at run time: a request and its answer keep what
    /// this gives when the request comes. `None`, the default: it never changes.
    fn pinned(&self) -> Option<Arc<dyn Detector>> {
        None
    }

    /// What looks at the answer to this prompt in its place, for an output detector that has to know what was asked. It
    /// is given the prompt as it was sent, and made before the request goes on. `None`, the default: it looks at all
    /// answers alike.
    fn answering(&self, prompt: &Prompt) -> Option<Arc<dyn Detector>> {
        let _ = prompt;
        None
    }

    /// The rules that it looks with, for one whose rules come from elsewhere: stands in [`Verdict::rules`](super::Verdict::rules).
    /// `None` by default.
    fn rules_version(&self) -> Option<RulesVersion> {
        None
    }
}

/// Name and version of a detector's rules, such as those of a rule pack. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RulesVersion {
    /// The name: `builtin` for those of this crate.
    pub name: Arc<str>,
    /// The version, as their author counts them: that of this crate for its own.
    pub version: Arc<str>,
}

impl RulesVersion {
    /// Of rules with this name and version.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, version: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), version: version.into() }
    }

    /// Those of this crate.
    pub(crate) fn builtin() -> Self {
        Self::new("builtin", env!("CARGO_PKG_VERSION"))
    }
}

/// A detector that has to wait: a model, a remote service. It runs under a time limit.
pub trait AsyncDetector: Debug + Send + Sync + 'static {
    /// Its name, in policies, verdicts and metrics: from a closed set.
    fn name(&self) -> &'static str;

    /// Looks at a whole prompt. What the future needs of it, it keeps by cloning the `Arc`.
    ///
    /// # Errors
    /// When it can't tell. The policy says what then. An error that is due to the prompt and not to the
    /// detector is a [`ScanError::of_prompt`].
    fn scan(&self, prompt: &Arc<Prompt>) -> ReadyOr<Result<Vec<Finding>, BoxError>>;
}

/// Why a detector can't tell. Holds nothing of a prompt: its reason is one of a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}{}", Status(*status))]
pub struct ScanError {
    reason: &'static str,
    status: Option<u16>,
    of_prompt: bool,
}

impl ScanError {
    /// The detector is out of order, whatever it is asked.
    #[must_use]
    pub const fn outage(reason: &'static str) -> Self {
        Self { reason, status: None, of_prompt: false }
    }

    /// The detector can't read this prompt: it is too long, for one. It may be well all the same, so
    /// this doesn't count for its [`breaker`](super::AsyncLimits::breaker).
    #[must_use]
    pub const fn of_prompt(reason: &'static str) -> Self {
        Self { reason, status: None, of_prompt: true }
    }

    /// The status of the answer that says so.
    #[must_use]
    pub const fn with_status(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
    }

    /// Whether it is due to the prompt alone.
    #[must_use]
    pub const fn is_of_prompt(&self) -> bool {
        self.of_prompt
    }

    /// The status of the answer that says so, if there is one.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        self.status
    }
}

struct Status(Option<u16>);

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |status| write!(f, ": status {status}"))
    }
}

macro_rules! forward {
    ($($pointer:ident),+) => {$(
        #[deny(clippy::missing_trait_methods)]
        impl<D: Detector + ?Sized> Detector for $pointer<D> {
            fn name(&self) -> &'static str {
                (**self).name()
            }

            fn scan(
                &self,
                segment: &Segment<'_>,
                views: &super::Views<'_>,
                findings: &mut Vec<Finding>,
            ) {
                (**self).scan(segment, views, findings);
            }

            fn scan_prompt(&self, prompt: &Prompt, findings: &mut Vec<Finding>) {
                (**self).scan_prompt(prompt, findings);
            }

            fn lookbehind(&self) -> usize {
                (**self).lookbehind()
            }

            fn pinned(&self) -> Option<Arc<dyn Detector>> {
                (**self).pinned()
            }

            fn answering(&self, prompt: &Prompt) -> Option<Arc<dyn Detector>> {
                (**self).answering(prompt)
            }

            fn rules_version(&self) -> Option<RulesVersion> {
                (**self).rules_version()
            }
        }

        #[deny(clippy::missing_trait_methods)]
        impl<D: AsyncDetector + ?Sized> AsyncDetector for $pointer<D> {
            fn name(&self) -> &'static str {
                (**self).name()
            }

            fn scan(
                &self,
                prompt: &Arc<Prompt>,
            ) -> ReadyOr<Result<Vec<Finding>, BoxError>> {
                (**self).scan(prompt)
            }
        }
    )+};
}

forward!(Arc, Box);

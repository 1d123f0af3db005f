//! Policies from TOML (feature `rule-packs`).

mod schema;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use self::schema::{File, PolicyTable};
use super::{
    DEFAULT, GuardPolicy, GuardPolicyBuilder, NAME, Policy, When, choice::MOST_POLICIES, is_name,
};
use crate::{
    BuildError,
    clock::SystemClock,
    prompt_guard::{
        Action, AsyncDetector, AsyncLimits, CodeRules, Detector, InjectionRules, OnUnavailable,
        PersonalData, Secrets,
        toml_file::{self, check_head, line},
        waiting::{Asked, How, Remote},
    },
    watch::Files,
};

/// The detectors that a [`PolicyFile`] may name. They are shared by all policies of the file, and by those that take their
/// place when it changes: what a detector that waits has learned of its outages, and how many prompts it looks at, goes on.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct DetectorSet {
    named: BTreeMap<String, Named>,
}

#[derive(Clone, Debug)]
enum Named {
    Local(Arc<dyn Detector>),
    Waits(Remote),
}

impl DetectorSet {
    /// No detector yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of this crate that need no telling: `injection` ([`InjectionRules`]), `secrets` ([`Secrets`]), `personal_data`
    /// ([`PersonalData`]), and for answers `code` ([`CodeRules`]).
    ///
    /// # Errors
    /// None that is known: they are tested.
    pub fn builtin() -> Result<Self, BuildError> {
        Ok(Self::new()
            .detector("injection", InjectionRules::builtin()?)
            .detector("secrets", Secrets::builtin()?)
            .detector("personal_data", PersonalData::builder().build()?)
            .detector("code", CodeRules::builtin()?))
    }

    /// With a detector under this name, for prompts and answers. It takes the place of one that has the name already.
    pub fn detector(mut self, name: impl Into<String>, detector: impl Detector) -> Self {
        self.named.insert(name.into(), Named::Local(Arc::new(detector)));
        self
    }

    /// With a detector that has to wait, for prompts, under these limits: see
    /// [`async_detector`](super::super::PromptGuardLayerBuilder::async_detector).
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for limits that make no sense.
    pub fn async_detector(
        self,
        name: impl Into<String>,
        detector: impl AsyncDetector,
        limits: impl Into<AsyncLimits>,
        on_unavailable: OnUnavailable,
    ) -> Result<Self, BuildError> {
        self.waits(name.into(), How::Future(Arc::new(detector)), limits.into(), on_unavailable)
    }

    /// The same for a detector that computes for long, on a thread of the blocking pool: see
    /// [`blocking_detector`](super::super::PromptGuardLayerBuilder::blocking_detector).
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for limits that make no sense.
    pub fn blocking_detector(
        self,
        name: impl Into<String>,
        detector: impl Detector,
        limits: impl Into<AsyncLimits>,
        on_unavailable: OnUnavailable,
    ) -> Result<Self, BuildError> {
        self.waits(name.into(), How::Thread(Arc::new(detector)), limits.into(), on_unavailable)
    }

    fn waits(
        mut self,
        name: String,
        how: How,
        limits: AsyncLimits,
        on_unavailable: OnUnavailable,
    ) -> Result<Self, BuildError> {
        limits.check()?;
        // Each policy has a rule of its own.
        let asked = Asked::new(how, Action::Report, limits, on_unavailable);
        self.named.insert(name, Named::Waits(Remote::new(asked, Arc::new(SystemClock))));
        Ok(self)
    }
}

/// Policies from a TOML file, for [`policy_file`](super::super::PromptGuardLayerBuilder::policy_file).
///
/// ```
/// use palisade::prompt_guard::{DetectorSet, PolicyFile, PromptGuardLayer};
///
/// # fn main() -> Result<(), palisade::BuildError> {
/// let policies = PolicyFile::from_toml(
///     r#"
///     format = 1                       # of this file's form: always 1
///     name = "acme"
///     version = "2026.11"
///
///     [default]                        # for requests for which there is no other policy
///     max_turns = 100
///     refuse_origins = ["developer"]
///     [default.prompt]                 # detectors, and what is done about what they find
///     injection = { action = "block", threshold = 0.7 }
///     secrets = { action = "redact" }
///     [default.answer]
///     secrets = { action = "redact" }
///
///     [[policies]]                     # the first that fits holds
///     name = "red_team"
///     when = { all = [{ scope = "red-team" }, { not = { path_prefix = "/v1/admin" } }] }
///     report_only = true
///     [policies.prompt]
///     injection = { action = "block" }
///
///     [[policies]]
///     name = "agents"
///     when = { any = [
///         { peer = "spiffe://prod.example/ns/agents/sa/runner" },
///         { claim = { name = "/client/kind", one_of = ["agent", "batch"] } },
///     ] }
///     [policies.prompt]
///     injection = { action = "block", insecure_skip = ["tool_schema"] }
///     personal_data = { action = "redact", dry_run = true }
///     [[policies.except]]              # of a rule, a category, an origin
///     category = "injection"
///     origin = "document"
///     threshold = 0.95                 # or action, or dry_run
///     "#,
///     &DetectorSet::builtin()?,
/// )?;
/// assert_eq!((policies.name(), policies.version()), ("acme", "2026.11"));
/// let guard = PromptGuardLayer::builder().policy_file(policies).build()?;
/// # let _ = guard;
/// # Ok(())
/// # }
/// ```
///
/// Conditions are those of [`When`]: `path`, `path_prefix`, `endpoint` (`chat`, `completions`, `responses`, `embeddings`, `messages`,
/// `generate`, `grpc`, `other`), `tier`, `scope`, `role`, `peer` (a [`PeerRule`](crate::identity::PeerRule) as text), `claim` (with `equals`, `one_of` or
/// `contains`), `all`, `any`, `not`. A policy without one is for [`policy_by`](super::super::PromptGuardLayerBuilder::policy_by). Further options, as the
/// builder's: `max_body`, `max_answer`, `stream_window`, `hold_back = { bytes = 256, milliseconds = 200 }`, `restore_answers`, and
/// `unread`, `unknown_endpoint` and `grpc`, each `refuse` or `insecure_pass`. An unknown name is an error.
///
/// Limits: 1 MiB, 100 policies, 1000 conditions, 1000 exceptions.
#[derive(Clone, Debug)]
#[must_use]
pub struct PolicyFile {
    name: String,
    version: String,
    pub(super) default: Option<Policy>,
    pub(super) policies: Vec<(String, Option<When>, GuardPolicy)>,
    source: Option<Source>,
}

/// Where a file is, to be read again.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// As it lay there before it was read.
    pub(super) files: Files,
    detectors: DetectorSet,
}

impl Source {
    pub(super) fn read(&self) -> Result<PolicyFile, BuildError> {
        PolicyFile::from_file(&self.path, &self.detectors)
    }
}

impl PolicyFile {
    /// Reads policies from text.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] with the line, and the policy if it is known, when the text is no TOML, has an unknown or
    /// missing key, a detector that is not in the set, a policy or a condition that can't be used, a name twice, or exceeds a
    /// limit. It repeats names and keys, no other value.
    pub fn from_toml(text: &str, detectors: &DetectorSet) -> Result<Self, BuildError> {
        let file: File = toml_file::parse(WHAT, text)?;
        check_head(WHAT, file.format, &file.name, &file.version)?;
        let mut default = None;
        if let Some(table) = file.default {
            let at = line(text, table.span().start);
            let fail = |reason: &str| invalid(at, DEFAULT, reason);
            let table = table.into_inner();
            if table.name.is_some() || table.when.is_some() {
                return Err(fail("the default policy has no name and no condition of its own"));
            }
            let policy = policy(text, DEFAULT, table, detectors)?.policy();
            default = Some(policy.map_err(|error| fail(&error.to_string()))?);
        }
        if file.policies.len() > MOST_POLICIES {
            return Err(BuildError::invalid(WHAT, "it has more than 100 policies"));
        }
        let (mut conditions, mut exceptions) = (0, 0);
        let mut policies: Vec<(String, Option<When>, GuardPolicy)> = Vec::new();
        for table in file.policies {
            let at = line(text, table.span().start);
            let mut table = table.into_inner();
            let Some(name) = table.name.take().map(toml::Spanned::into_inner) else {
                return Err(invalid(at, "", "it has no name"));
            };
            if !is_name(&name) {
                return Err(invalid(at, "", &format!("its name is not {}", NAME)));
            }
            let fail = |reason: &str| invalid(at, &name, reason);
            if name == DEFAULT || policies.iter().any(|(known, ..)| *known == name) {
                return Err(fail("its name is taken"));
            }
            exceptions += table.except.len();
            let when = table.when.take().map(|when| when.into_when(&mut conditions));
            if conditions > MOST_CONDITIONS || exceptions > MOST_EXCEPTIONS {
                return Err(fail(
                    "up to here the file has more than 1000 conditions or exceptions",
                ));
            }
            let when = when.transpose().map_err(fail)?;
            when.iter().try_for_each(When::check).map_err(|error| fail(&error.to_string()))?;
            let policy = policy(text, &name, table, detectors)?.build();
            let policy = policy.map_err(|error| fail(&error.to_string()))?;
            policies.push((name, when, policy));
        }
        if default.is_none() && policies.is_empty() {
            return Err(BuildError::Empty(WHAT));
        }
        let (name, version) = (file.name, file.version);
        Ok(Self { name, version, default, policies, source: None })
    }

    /// Reads policies from a file. Blocks. The layer looks at the file once a second in the background and reads it again
    /// when it has changed and was left alone for a second. One that can't be used changes nothing: the policies before stay, an
    /// event at level error names the line, and `palisade_guard_policy_reads_total{outcome = "failed"}` counts it.
    ///
    /// # Errors
    /// [`BuildError::File`] when the file can't be read, is not UTF-8, or holds no policies, for the reasons of
    /// [`from_toml`](Self::from_toml).
    pub fn from_file(path: impl AsRef<Path>, detectors: &DetectorSet) -> Result<Self, BuildError> {
        let path = path.as_ref();
        let files = Files::at(vec![path.to_owned()]);
        let mut file = toml_file::read(path, |text| Self::from_toml(text, detectors))?;
        let (path, detectors) = (path.to_owned(), detectors.clone());
        file.source = Some(Source { path, files, detectors });
        Ok(file)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version, as its author counts them.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    pub(super) fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// The names of its policies, without the default, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.policies.iter().map(|(name, ..)| &**name)
    }
}

/// Builds the policy of a table.
fn policy(
    text: &str,
    name: &str,
    table: PolicyTable,
    detectors: &DetectorSet,
) -> Result<GuardPolicyBuilder, BuildError> {
    let fail = |at: usize, reason: &str| invalid(line(text, at), name, reason);
    let mut policy = GuardPolicy::builder();
    for (detector, rule) in &table.prompt {
        let at = detector.span().start;
        let rule = rule.rule();
        policy = match detectors.named.get(detector.get_ref()) {
            Some(Named::Local(detector)) => policy.detector(Arc::clone(detector), rule),
            Some(Named::Waits(remote)) => policy.shared(remote.ruled(rule)),
            None => return Err(fail(at, &unknown(detector.get_ref()))),
        };
    }
    for (detector, rule) in &table.answer {
        let at = detector.span().start;
        policy = match detectors.named.get(detector.get_ref()) {
            Some(Named::Local(detector)) => {
                policy.output_detector(Arc::clone(detector), rule.rule())
            }
            Some(Named::Waits(_)) => {
                return Err(fail(at, "a detector that waits can't look at answers"));
            }
            None => return Err(fail(at, &unknown(detector.get_ref()))),
        };
    }
    for except in &table.except {
        let settings = except.get_ref().settings();
        let settings = settings.map_err(|reason| fail(except.span().start, reason))?;
        policy = policy.exceptions(settings);
    }
    Ok(table.options(policy))
}

fn unknown(detector: &str) -> String {
    format!("there is no detector {}", detector.escape_debug())
}

fn invalid(line: usize, policy: &str, reason: &str) -> BuildError {
    let of = if policy.is_empty() { String::new() } else { format!(" policy {policy}:") };
    BuildError::invalid(WHAT, format!("line {line}:{of} {reason}"))
}

const WHAT: &str = "policy file";
const MOST_CONDITIONS: usize = 1000;
const MOST_EXCEPTIONS: usize = 1000;

#[cfg(test)]
mod tests;

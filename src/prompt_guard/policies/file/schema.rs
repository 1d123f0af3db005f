//! What stands in a file of policies.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use serde::Deserialize;
use toml::Spanned;

use crate::{
    identity::{ClaimTest, PeerRule},
    inference::Origin,
    prompt_guard::{
        Action, Category, FindingFilter, GuardPolicyBuilder, Rule, Unseen, When,
        rule::{Exception, Setting},
    },
    route::Endpoint,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) format: u32,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) default: Option<Spanned<PolicyTable>>,
    #[serde(default)]
    pub(super) policies: Vec<Spanned<PolicyTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyTable {
    pub(super) name: Option<Spanned<String>>,
    pub(super) when: Option<WhenFile>,
    #[serde(default)]
    report_only: bool,
    max_body: Option<usize>,
    max_turns: Option<usize>,
    max_answer: Option<usize>,
    stream_window: Option<usize>,
    hold_back: Option<HoldBack>,
    #[serde(default)]
    refuse_origins: Vec<Origin>,
    restore_answers: Option<bool>,
    unread: Option<Unseen>,
    unknown_endpoint: Option<Unseen>,
    grpc: Option<Unseen>,
    #[serde(default)]
    pub(super) prompt: BTreeMap<Spanned<String>, RuleFile>,
    #[serde(default)]
    pub(super) answer: BTreeMap<Spanned<String>, RuleFile>,
    #[serde(default)]
    pub(super) except: Vec<Spanned<ExceptFile>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct HoldBack {
    bytes: usize,
    milliseconds: u64,
}

/// A [`Rule`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleFile {
    action: Action,
    threshold: Option<f32>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    insecure_skip: Vec<Origin>,
}

/// Exceptions of one [`FindingFilter`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExceptFile {
    rule: Option<String>,
    category: Option<Category>,
    origin: Option<Origin>,
    action: Option<Action>,
    threshold: Option<f32>,
    #[serde(default)]
    dry_run: bool,
}

/// A [`When`].
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum WhenFile {
    Path(String),
    PathPrefix(String),
    Endpoint(EndpointFile),
    Tier(String),
    Scope(String),
    Role(String),
    Claim(ClaimFile),
    Peer(PeerRule),
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EndpointFile {
    Chat,
    Completions,
    Responses,
    Embeddings,
    Messages,
    Generate,
    Grpc,
    Other,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClaimFile {
    name: String,
    equals: Option<ClaimValue>,
    one_of: Option<Vec<ClaimValue>>,
    contains: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ClaimValue {
    Text(String),
    Number(u64),
    Truth(bool),
}

impl PolicyTable {
    /// The builder with the options that are given.
    pub(super) fn options(&self, policy: GuardPolicyBuilder) -> GuardPolicyBuilder {
        let policy = with(policy, self.max_body, GuardPolicyBuilder::max_body);
        let policy = with(policy, self.max_turns, GuardPolicyBuilder::max_turns);
        let policy = with(policy, self.max_answer, GuardPolicyBuilder::max_answer);
        let policy = with(policy, self.stream_window, GuardPolicyBuilder::stream_window);
        let policy = with(policy, self.hold_back, |policy, HoldBack { bytes, milliseconds }| {
            policy.hold_back(bytes, Duration::from_millis(milliseconds))
        });
        let policy = with(policy, self.restore_answers, GuardPolicyBuilder::restore_answers);
        let policy = with(policy, self.unread, GuardPolicyBuilder::unread);
        let policy = with(policy, self.unknown_endpoint, GuardPolicyBuilder::unknown_endpoint);
        let policy = with(policy, self.grpc, GuardPolicyBuilder::grpc);
        let refused = self.refuse_origins.iter().copied();
        let policy = refused.fold(policy, GuardPolicyBuilder::refuse_origin);
        if self.report_only { policy.report_only() } else { policy }
    }
}

fn with<T>(
    policy: GuardPolicyBuilder,
    value: Option<T>,
    set: impl FnOnce(GuardPolicyBuilder, T) -> GuardPolicyBuilder,
) -> GuardPolicyBuilder {
    match value {
        Some(value) => set(policy, value),
        None => policy,
    }
}

impl RuleFile {
    pub(super) fn rule(&self) -> Rule {
        let rule = self.threshold.map_or_else(|| self.action.into(), |score| self.action.at(score));
        let rule = self.insecure_skip.iter().copied().fold(rule, Rule::insecure_skip);
        if self.dry_run { rule.dry_run() } else { rule }
    }
}

impl ExceptFile {
    pub(super) fn settings(&self) -> Result<impl Iterator<Item = Exception>, &'static str> {
        if self.rule.is_none() && self.category.is_none() && self.origin.is_none() {
            return Err("an exception names no rule, category or origin");
        }
        let settings = [
            self.action.map(Setting::Action),
            self.threshold.map(Setting::Threshold),
            self.dry_run.then_some(Setting::DryRun),
        ];
        if settings.iter().all(Option::is_none) {
            return Err("an exception has no action, threshold or dry run");
        }
        let rule = self.rule.clone().map(Cow::Owned);
        let which = FindingFilter::new(rule, self.category, self.origin);
        let exception = move |setting| Exception(which.clone(), setting);
        Ok(settings.into_iter().flatten().map(exception))
    }
}

impl WhenFile {
    /// The condition. Counts it and all within it.
    pub(super) fn into_when(self, count: &mut usize) -> Result<When, &'static str> {
        *count += 1;
        let mut each = |list: Vec<Self>| {
            list.into_iter().map(|when| when.into_when(count)).collect::<Result<Vec<_>, _>>()
        };
        Ok(match self {
            Self::Path(path) => When::path(path),
            Self::PathPrefix(prefix) => When::path_prefix(prefix),
            Self::Endpoint(endpoint) => When::endpoint(endpoint.into()),
            Self::Tier(tier) => When::tier(tier),
            Self::Scope(scope) => When::scope(scope),
            Self::Role(role) => When::role(role),
            Self::Claim(claim) => {
                let test = claim.test()?;
                When::claim(claim.name, test)
            }
            Self::Peer(rule) => When::peer(rule),
            Self::All(list) => When::all_of(each(list)?),
            Self::Any(list) => When::any_of(each(list)?),
            Self::Not(condition) => When::not(condition.into_when(count)?),
        })
    }
}

impl ClaimFile {
    fn test(&self) -> Result<ClaimTest, &'static str> {
        match (&self.equals, &self.one_of, &self.contains) {
            (Some(value), None, None) => Ok(ClaimTest::equals(value)),
            (None, Some(values), None) => Ok(ClaimTest::one_of(values)),
            (None, None, Some(member)) => Ok(ClaimTest::contains(member)),
            _ => Err("a claim has not one of equals, one_of and contains"),
        }
    }
}

impl From<&ClaimValue> for crate::identity::ClaimValue {
    fn from(value: &ClaimValue) -> Self {
        match value {
            ClaimValue::Text(text) => Self::Text(text.clone()),
            ClaimValue::Number(number) => Self::Number(*number),
            ClaimValue::Truth(truth) => Self::Truth(*truth),
        }
    }
}

impl From<EndpointFile> for Endpoint {
    fn from(endpoint: EndpointFile) -> Self {
        match endpoint {
            EndpointFile::Chat => Self::OpenAiChat,
            EndpointFile::Completions => Self::OpenAiCompletions,
            EndpointFile::Responses => Self::OpenAiResponses,
            EndpointFile::Embeddings => Self::OpenAiEmbeddings,
            EndpointFile::Messages => Self::AnthropicMessages,
            EndpointFile::Generate => Self::Generate,
            EndpointFile::Grpc => Self::Grpc,
            EndpointFile::Other => Self::Other,
        }
    }
}

//! Lists of rules, from code or from a file.

use std::sync::Arc;

use super::PeerRule;
use crate::identity::PeerIdentity;

/// Who may pass, who may not, and who may carry whose tokens.
///
/// With the feature `serde` they can be read from a file, rules by their [text](PeerRule). An unknown name is
/// an error, not a rule that is silently not kept.
///
#[cfg_attr(feature = "serde", doc = "```")]
#[cfg_attr(not(feature = "serde"), doc = "```ignore")]
/// use palisade::peer_cert::{PeerRule, PeerRules};
///
/// let rules: PeerRules = toml::from_str(r#"
///     allow = ["spiffe://prod.example/ns/edge/sa/gateway", "dns:*.edge.svc"]
///     deny = ["dns:test.edge.svc"]
///
///     [[carry]]
///     peer = "spiffe://prod.example/ns/edge/sa/gateway"
///     issuers = ["https://login.example"]
/// "#)?;
///
/// let gateway = PeerRule::spiffe("spiffe://prod.example/ns/edge/sa/gateway")?;
/// let same = PeerRules::new()
///     .allow(gateway.clone())
///     .allow(PeerRule::dns("*.edge.svc")?)
///     .deny(PeerRule::dns("test.edge.svc")?)
///     .may_carry(gateway, ["https://login.example"]);
/// assert_eq!(rules, same);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[must_use = "rules do nothing until a layer has them"]
pub struct PeerRules {
    pub(super) allow: Vec<PeerRule>,
    pub(super) deny: Vec<PeerRule>,
    /// Empty: anybody may carry any token.
    #[cfg_attr(feature = "serde", serde(rename = "carry"))]
    pub(super) carriers: Vec<Carrier>,
}

/// Who may carry the tokens of which issuers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(deny_unknown_fields))]
pub(super) struct Carrier {
    pub(super) peer: PeerRule,
    pub(super) issuers: Vec<String>,
}

impl PeerRules {
    /// No rules yet: they admit nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Admits the workloads that this rule fits; with several, one that fits is enough. `allow` in a file.
    pub fn allow(mut self, rule: PeerRule) -> Self {
        self.allow.push(rule);
        self
    }

    /// Refuses the workloads that this rule fits, whatever else admits them, also by a name that they claim and nobody
    /// vouches for. It never admits anyone. `deny` in a file.
    pub fn deny(mut self, rule: PeerRule) -> Self {
        self.deny.push(rule);
        self
    }

    /// Lets the workloads that this rule fits present access tokens of the users of these issuers: see
    /// [`PeerCertLayerBuilder::may_carry`](super::PeerCertLayerBuilder::may_carry). A table `[[carry]]` of `peer` and
    /// `issuers` in a file.
    pub fn may_carry<T: Into<String>>(
        mut self,
        rule: PeerRule,
        issuers: impl IntoIterator<Item = T>,
    ) -> Self {
        let issuers = issuers.into_iter().map(Into::into).collect();
        self.carriers.push(Carrier { peer: rule, issuers });
        self
    }

    /// Adds those of others.
    pub(super) fn join(mut self, others: Self) -> Self {
        self.allow.extend(others.allow);
        self.deny.extend(others.deny);
        self.carriers.extend(others.carriers);
        self
    }

    /// Whether one of them asks for what only a path that was verified here tells.
    pub(super) fn need_paths(&self) -> bool {
        let carriers = self.carriers.iter().map(|carrier| &carrier.peer);
        self.allow.iter().chain(&self.deny).chain(carriers).any(PeerRule::needs_path)
    }

    /// Whether a workload may pass: a deny rule goes before any allow rule, and what no rule fits may not.
    pub(super) fn verdict(&self, peer: &PeerIdentity) -> Verdict<'_> {
        let fits = |rule: &&PeerRule| rule.matches(peer);
        if let Some(rule) = self.deny.iter().find(|rule| fits(rule) || fits_claim(rule, peer)) {
            return Verdict::Denied(rule);
        }
        self.allow.iter().find(fits).map_or(Verdict::NotAllowed, Verdict::Allowed)
    }

    /// Whether a workload would be allowed if somebody vouched for all of its names.
    pub(super) fn would_allow(&self, peer: &PeerIdentity) -> bool {
        self.allow.iter().any(|rule| fits_claim(rule, peer))
    }
}

/// Whether a rule fits a name that the workload's certificate has, and nobody vouches for.
fn fits_claim(rule: &PeerRule, peer: &PeerIdentity) -> bool {
    peer.claimed.as_ref().is_some_and(|claimed| rule.matches(claimed))
}

/// What rules say of a workload.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict<'a> {
    Allowed(&'a PeerRule),
    Denied(&'a PeerRule),
    NotAllowed,
}

/// Who may carry the tokens of which issuers, at hand for every request.
#[derive(Debug)]
pub(super) struct Carriers(Vec<(PeerRule, Arc<[String]>)>);

impl Carriers {
    pub(super) fn of(rules: &PeerRules) -> Self {
        let shared = |carrier: &Carrier| (carrier.peer.clone(), carrier.issuers.clone().into());
        Self(rules.carriers.iter().map(shared).collect())
    }

    /// The issuers whose tokens a workload may carry. `None`: any, since nothing was said of it.
    pub(super) fn issuers(&self, peer: &PeerIdentity) -> Option<Arc<[String]>> {
        if self.0.is_empty() {
            return None;
        }
        let mut fitting = self.0.iter().filter(|(rule, _)| rule.matches(peer));
        let first = fitting.next().map(|(_, issuers)| Arc::clone(issuers)).unwrap_or_default();
        Some(fitting.fold(first, |all, (_, more)| all.iter().chain(&**more).cloned().collect()))
    }
}

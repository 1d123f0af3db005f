//! Lists of rules, from code or from a file.

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

    /// Refuses the workloads that this rule fits, whatever else admits them. It never admits anyone. `deny` in a file.
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

    /// Whether a workload may pass: a deny rule goes before any allow rule, and what no rule fits may not.
    pub(super) fn admits(&self, peer: &PeerIdentity) -> bool {
        let fits = |rule: &PeerRule| rule.matches(peer);
        !self.deny.iter().any(fits) && self.allow.iter().any(fits)
    }
}

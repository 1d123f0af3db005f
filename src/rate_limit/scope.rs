//! Who shares a limit.

use std::net::IpAddr;

use super::layer::Config;
use crate::{
    identity::{Identity, PeerIdentity, UserIdentity},
    network::Network,
    reject::{Rejection, RejectionKind},
    store::{Key, Keyed},
};

/// Who shares a limit. Facts that a layer of this process verified, never a header's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Scope {
    /// One caller: the token's issuer and subject. Needs `JwtAuthLayer`.
    Subject,
    /// The caller's organisation, by a claim
    /// ([`organisation_from_claim`](super::TieredRateLimitLayerBuilder::organisation_from_claim)). A caller without
    /// one is an organisation of his own. Needs `JwtAuthLayer`.
    ///
    /// With [`Subject`](Self::Subject) it is each member by himself, in the organisation's [group](crate::store::Group): what
    /// a Redis cluster charges together with the organisation's own limits. A limit on the subject alone holds whatever
    /// organisation he comes for, and is a group of its own.
    Organisation,
    /// The workload at the other end: its SPIFFE ID, else its DNS names, else its certificate. Those without an
    /// identity count as one. Needs `PeerCertLayer`.
    Workload,
    /// The client's network: an IPv4 address, or an IPv6 /64
    /// ([`client_address`](super::TieredRateLimitLayerBuilder::client_address)).
    Network,
    /// The client's wider network: an IPv4 /24, or an IPv6 /48.
    Site,
    /// All callers of the tier. Reaching it is the server's want of capacity, not the caller's quota: 503, not 429.
    Tier,
    /// All callers of all tiers that have the same limit. Reaching it is the server's want of capacity too.
    Global,
}

impl Scope {
    const ALL: [Self; 7] = [
        Self::Subject,
        Self::Organisation,
        Self::Workload,
        Self::Network,
        Self::Site,
        Self::Tier,
        Self::Global,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Organisation => "organisation",
            Self::Workload => "workload",
            Self::Network => "network",
            Self::Site => "site",
            Self::Tier => "tier",
            Self::Global => "global",
        }
    }
}

/// A set of scopes. A limit on several counts each combination of them by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scopes(u8);

impl Scopes {
    pub(super) const SUBJECT: Self = Self(1 << Scope::Subject as u8);

    pub(super) fn of(scopes: impl IntoIterator<Item = Scope>) -> Self {
        Self(scopes.into_iter().fold(0, |all, scope| all | 1 << scope as u8))
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether what is left of the limit says nothing of other callers.
    pub(super) fn is_the_callers(self) -> bool {
        const POOLS: u8 = 1 << Scope::Tier as u8 | 1 << Scope::Global as u8;
        self.0 & !POOLS != 0
    }

    /// Whose the records of these scopes are, which makes them one group: an organisation's, else a caller's, else a
    /// workload's, else a site's. A pool stands alone. Never anything that the scopes do not count by: a caller has one
    /// quota, whatever organisation he names.
    fn owner(self) -> Option<Scope> {
        let owners = [Scope::Organisation, Scope::Subject, Scope::Workload];
        let owner = owners.into_iter().find(|scope| self.has(*scope));
        let has_site = self.has(Scope::Network) || self.has(Scope::Site);
        owner.or_else(|| has_site.then_some(Scope::Site))
    }

    pub(super) fn need_a_user(self) -> bool {
        self.iter().any(|scope| matches!(scope, Scope::Subject | Scope::Organisation))
    }

    /// `organisation-network`.
    pub(super) fn name(self) -> String {
        self.iter().map(Scope::name).collect::<Vec<_>>().join("-")
    }

    fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }
}

/// The records that count what some scopes share: one for each combination of them.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) scopes: Scopes,
    name: String,
    /// Whose own record is in the group that they are in. None: they are such records, or stand alone.
    group: Option<Scope>,
}

impl Records {
    pub(super) fn of(scopes: Scopes) -> Self {
        Self::named(scopes.name(), scopes)
    }

    /// Others than those of the enforced limits, which must not want for places in theirs.
    pub(super) fn of_shadows(scopes: Scopes) -> Self {
        Self::named(format!("shadow-{}", scopes.name()), scopes)
    }

    fn named(name: String, scopes: Scopes) -> Self {
        let group = scopes.owner().filter(|owner| owner.name() != name);
        Self { scopes, name, group }
    }

    /// The record of `asker` that counts what these share.
    pub(super) fn key(&self, asker: &Asker<'_>) -> Result<Key, Rejection> {
        let mut key = asker.config.pepper.key(&self.name);
        for scope in self.scopes.iter() {
            asker.add(&mut key, scope)?;
        }
        let Some(owner) = self.group else { return Ok(key.finish()) };
        let mut group = asker.config.pepper.key(owner.name());
        asker.add(&mut group, owner)?;
        Ok(key.finish_in(group.group()))
    }
}

/// Who asks, as far as limits need it.
pub(super) struct Asker<'a> {
    pub(super) config: &'a Config,
    pub(super) identity: &'a Identity,
    pub(super) tier: &'a str,
    /// Tells his address, where it is asked for.
    pub(super) address: &'a dyn Fn() -> Option<IpAddr>,
}

impl Asker<'_> {
    fn user(&self) -> Result<&UserIdentity, Rejection> {
        self.identity.known_user().map(AsRef::as_ref)
    }

    /// Adds what a scope tells of who asks.
    fn add(&self, key: &mut Keyed, scope: Scope) -> Result<(), Rejection> {
        match scope {
            Scope::Subject => add_subject(key, self.user()?),
            Scope::Organisation => {
                let user = self.user()?;
                if !self.add_named_organisation(key, user) {
                    add_caller(key, user);
                }
            }
            Scope::Workload => match self.identity.known_peer()? {
                Some(peer) => add_workload(key, peer),
                None => key.add(b""),
            },
            Scope::Network => key.add(Network::of(self.address()?).as_bytes()),
            Scope::Site => key.add(Network::site_of(self.address()?).as_bytes()),
            Scope::Tier => key.add(self.tier.as_bytes()),
            Scope::Global => {}
        }
        Ok(())
    }

    /// Adds the organisation that the caller's token names. Whether it names one.
    pub(super) fn add_named_organisation(&self, key: &mut Keyed, user: &UserIdentity) -> bool {
        let named = user.claims().str(&self.config.organisation);
        let named = named.filter(|organisation| !organisation.is_empty());
        if let Some(organisation) = named {
            key.add(user.issuer().as_bytes());
            key.add(organisation.as_bytes());
        }
        named.is_some()
    }

    fn address(&self) -> Result<IpAddr, Rejection> {
        (self.address)().ok_or_else(|| {
            const MESSAGE: &str = "The server does not tell the layers the address of its clients.";
            Rejection::new(RejectionKind::Misconfigured, "no_client_address", MESSAGE)
        })
    }
}

pub(super) fn add_subject(key: &mut Keyed, user: &UserIdentity) {
    key.add(user.issuer().as_bytes());
    key.add(user.subject().as_bytes());
}

/// Adds a caller, named as no organisation is.
fn add_caller(key: &mut Keyed, user: &UserIdentity) {
    key.add(user.issuer().as_bytes());
    key.add(b"");
    key.add(user.subject().as_bytes());
}

/// Adds what names a workload for longer than one certificate, where there is such a thing.
pub(super) fn add_workload(key: &mut Keyed, peer: &PeerIdentity) {
    match (&peer.spiffe_id, peer.dns_names.as_slice()) {
        (Some(id), _) => key.add(id.as_bytes()),
        (None, []) => key.add(&peer.leaf_sha256),
        (None, names) => names.iter().for_each(|name| key.add(name.as_bytes())),
    }
}

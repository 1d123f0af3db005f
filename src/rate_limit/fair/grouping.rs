//! Between whom a tier's share is shared.

use super::super::scope::{Asker, Records, Scope, Scopes, with_workload};
use crate::{
    BuildError,
    network::Network,
    reject::Rejection,
    store::{Key, Keyed},
};

/// Who counts as one, before any of its members does.
#[derive(Debug)]
pub(super) enum Grouping {
    /// What is hardest to have many of, of what is known: the organisation, else the network, else the caller himself.
    MostDurable,
    Of(Records),
}

impl Grouping {
    pub(super) fn of(scopes: impl IntoIterator<Item = Scope>) -> Result<Self, BuildError> {
        let scopes = Scopes::of(scopes);
        if scopes.is_empty() {
            return Err(BuildError::invalid("group_by", "no scope: all callers would be one"));
        }
        Ok(Self::Of(Records::of(scopes)))
    }

    /// The group of a caller.
    pub(super) fn group(&self, asker: &Asker<'_>) -> Result<u64, Rejection> {
        if let Self::Of(records) = self {
            return Ok(number(&records.key(asker)?));
        }
        let user = asker.identity.user();
        let organisation = user
            .and_then(|user| asker.with_named_organisation(of(asker, "fair-organisation"), user));
        let network = || {
            let network = Network::of(asker.address?);
            Some(of(asker, "fair-network").with(network.as_bytes()))
        };
        let known = organisation.or_else(network);
        Ok(known.map_or_else(|| subject(asker), |key| number(&key.finish())))
    }
}

/// The caller within the group: the user, else the workload, else the network.
pub(super) fn subject(asker: &Asker<'_>) -> u64 {
    let key = of(asker, "fair-subject");
    let key = match (asker.identity.user(), asker.identity.peer(), asker.address) {
        (Some(user), ..) => key.with(user.issuer().as_bytes()).with(user.subject().as_bytes()),
        (None, Some(peer), _) => with_workload(key, peer),
        (None, None, Some(address)) => key.with(Network::of(address).as_bytes()),
        (None, None, None) => key,
    };
    number(&key.finish())
}

fn of(asker: &Asker<'_>, scope: &str) -> Keyed {
    asker.config.pepper.key(scope)
}

/// Keyed, so that nobody can choose names that share one.
fn number(key: &Key) -> u64 {
    let [number, _] = key.halves();
    number
}

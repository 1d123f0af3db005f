//! Between whom a tier's share is shared.

use super::super::scope::{Asker, Records, Scope, Scopes, add_subject, add_workload};
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
    pub(super) fn group(&self, asker: &Asker<'_>) -> Result<Group, Rejection> {
        let fixed = |key| Group { key, is_place: false };
        if let Self::Of(records) = self {
            return Ok(fixed(number(&records.key(asker)?)));
        }
        let user = asker.identity.user();
        if let Some(user) = user {
            let mut key = of(asker, "fair-organisation");
            if asker.add_named_organisation(&mut key, user) {
                return Ok(fixed(number(&key.finish())));
            }
        }
        let Some(address) = (asker.address)() else { return Ok(fixed(subject(asker))) };
        let key = of(asker, "fair-network").with(Network::of(address).as_bytes()).finish();
        // Who is not known is his network; and a workload may be a proxy, whose clients' address this is.
        Ok(Group { key: number(&key), is_place: user.is_some() })
    }
}

/// A group.
pub(super) struct Group {
    pub(super) key: u64,
    /// It is where a caller comes from, who may come from elsewhere at the same time.
    pub(super) is_place: bool,
}

/// The caller within the group: the user, else the workload, else the network.
pub(super) fn subject(asker: &Asker<'_>) -> u64 {
    let mut key = of(asker, "fair-subject");
    match (asker.identity.user(), asker.identity.peer()) {
        (Some(user), _) => add_subject(&mut key, user),
        (None, Some(peer)) => add_workload(&mut key, peer),
        (None, None) => {
            if let Some(address) = (asker.address)() {
                key.add(Network::of(address).as_bytes());
            }
        }
    }
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

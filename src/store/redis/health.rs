//! How a store's servers are doing.

use super::{RedisStore, RedisWarning};

/// How the servers of a [`RedisStore`] are doing: see [`RedisStore::health`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisHealth {
    pub(super) is_connected: bool,
    pub(super) warnings: Vec<RedisWarning>,
}

impl RedisHealth {
    /// Whether there is a connection: to the server, or to a node of each part of a cluster that was needed so far. A store
    /// connects when it is first used.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// What should be mended, of any of the servers, as they were when the connections to them were made.
    #[must_use]
    pub fn warnings(&self) -> &[RedisWarning] {
        &self.warnings
    }
}

impl RedisStore {
    /// How the servers are doing, as far as is known: asks nobody.
    #[must_use]
    pub fn health(&self) -> RedisHealth {
        let (mut is_connected, mut warnings) = (true, Vec::new());
        let connections = self.inner.link.connections();
        is_connected &= !connections.is_empty();
        for connection in connections {
            is_connected &= connection.is_open();
            for warning in connection.warnings() {
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
        }
        RedisHealth { is_connected, warnings }
    }
}

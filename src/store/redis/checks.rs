//! Whether a server is one that limits can be kept in: looked at whenever a connection is made.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use redis::{aio::MultiplexedConnection, cmd};

use super::{connection::PATIENCE, errors::is_answer};
use crate::{observe, runtime};

/// Something about a Redis server that an operator should mend. Each is logged when it is found, and counted in
/// `palisade_store_warnings_total{store, warning}`; none keeps the store from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RedisWarning {
    /// It is older than Redis 6.2 or Valkey 7.2, the oldest that are tested.
    OldVersion,
    /// It may evict records when its memory is full (`maxmemory` is set, and `maxmemory-policy` is not `noeviction`). An
    /// evicted record is a limit that was reset.
    MayEvict,
    /// It is a replica, which takes no writes.
    Replica,
    /// It is a node of a Redis Cluster, and the store was not built for one
    /// ([`RedisStoreBuilder::cluster`](super::RedisStoreBuilder)).
    ClusterNode,
    /// It does not say what it is like: the user may not ask for `INFO`.
    Unchecked,
}

impl RedisWarning {
    const ALL: [Self; 5] =
        [Self::OldVersion, Self::MayEvict, Self::Replica, Self::ClusterNode, Self::Unchecked];

    fn bit(self) -> u8 {
        1 << self as u8
    }

    fn label(self) -> &'static str {
        match self {
            Self::OldVersion => "old_version",
            Self::MayEvict => "may_evict",
            Self::Replica => "replica",
            Self::ClusterNode => "cluster_node",
            Self::Unchecked => "unchecked",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::OldVersion => "the redis server is older than Redis 6.2 or Valkey 7.2",
            Self::MayEvict => {
                "the redis server may evict records, which resets limits: set maxmemory-policy noeviction"
            }
            Self::Replica => "the redis server is a replica, which takes no writes",
            Self::ClusterNode => {
                "the redis server is a node of a cluster, and the store was not built for one"
            }
            Self::Unchecked => {
                "the redis server does not say what it is like: its version, and whether it may evict records"
            }
        }
    }
}

/// What was found of the server at the other end of a connection.
#[derive(Debug, Default)]
pub(super) struct Checks {
    found: Arc<AtomicU8>,
    is_for_clusters: bool,
}

impl Checks {
    pub(super) fn new(is_for_clusters: bool) -> Self {
        Self { found: Arc::default(), is_for_clusters }
    }

    pub(super) fn found(&self) -> impl Iterator<Item = RedisWarning> {
        let found = self.found.load(Ordering::Relaxed);
        RedisWarning::ALL.into_iter().filter(move |warning| found & warning.bit() != 0)
    }

    /// Looks at the server, in the background.
    pub(super) fn begin(&self, mut connection: MultiplexedConnection) {
        let (found, is_for_clusters) = (Arc::clone(&self.found), self.is_for_clusters);
        drop(runtime::spawn(async move {
            let info = cmd("INFO");
            let asked = runtime::timeout(PATIENCE, info.query_async::<String>(&mut connection));
            let warnings = match asked.await {
                Ok(Ok(info)) => Facts::of(&info).warnings(is_for_clusters),
                Ok(Err(error)) if is_answer(&error) => RedisWarning::Unchecked.bit(),
                // The next connection's server will be asked.
                Ok(Err(_)) | Err(runtime::Elapsed) => return,
            };
            let before = found.swap(warnings, Ordering::Relaxed);
            for warning in RedisWarning::ALL {
                // Once, not at each reconnection.
                if warnings & !before & warning.bit() != 0 {
                    let labels = [("store", "redis"), ("warning", warning.label())];
                    observe::count("palisade_store_warnings_total", &labels);
                    observe::warn("store", warning.message());
                }
            }
        }));
    }
}

/// What a server says of itself.
#[derive(Debug, Default, PartialEq)]
struct Facts<'a> {
    redis: Option<(u32, u32)>,
    valkey: Option<(u32, u32)>,
    max_memory: &'a str,
    policy: &'a str,
    role: &'a str,
    cluster: &'a str,
}

impl<'a> Facts<'a> {
    fn of(info: &'a str) -> Self {
        let mut facts = Self::default();
        for (name, value) in info.lines().filter_map(|line| line.trim().split_once(':')) {
            match name {
                "redis_version" => facts.redis = version(value),
                "valkey_version" => facts.valkey = version(value),
                "maxmemory" => facts.max_memory = value,
                "maxmemory_policy" => facts.policy = value,
                "role" => facts.role = value,
                "cluster_enabled" => facts.cluster = value,
                _ => {}
            }
        }
        facts
    }

    fn warnings(&self, is_for_clusters: bool) -> u8 {
        // Valkey tells a version of Redis too, for the clients that ask for one.
        let is_old = match (self.valkey, self.redis) {
            (Some(valkey), _) => valkey < (7, 2),
            (None, Some(redis)) => redis < (6, 2),
            (None, None) => false,
        };
        let is_unknown = self.redis.is_none() && self.valkey.is_none() || self.policy.is_empty();
        let may_evict = !matches!(self.policy, "" | "noeviction") && self.max_memory != "0";
        let all = [
            (RedisWarning::OldVersion, is_old),
            (RedisWarning::MayEvict, may_evict),
            (RedisWarning::Replica, self.role == "slave"),
            (RedisWarning::ClusterNode, self.cluster == "1" && !is_for_clusters),
            (RedisWarning::Unchecked, is_unknown),
        ];
        all.into_iter().filter(|(_, holds)| *holds).map(|(warning, _)| warning.bit()).sum()
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(info: &str) -> Vec<RedisWarning> {
        let found = Facts::of(info).warnings(false);
        RedisWarning::ALL.into_iter().filter(|it| found & it.bit() != 0).collect()
    }

    #[test]
    fn what_a_server_says_is_understood() {
        let info = |version: &str, memory: &str| {
            format!("# Server\r\n{version}\r\n# Memory\r\n{memory}\r\nrole:master\r\n")
        };
        let (old, new) = ("redis_version:6.0.16", "redis_version:6.2.0");
        let valkey = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.0";
        let (whole, bounded) = ("maxmemory:0\r\nmaxmemory_policy:allkeys-lru", "maxmemory:100");
        let kept = format!("{bounded}\r\nmaxmemory_policy:noeviction");
        let evicts = format!("{bounded}\r\nmaxmemory_policy:volatile-ttl");
        assert_eq!(warnings(&info(new, whole)), []);
        assert_eq!(warnings(&info(new, &kept)), []);
        assert_eq!(warnings(&info(valkey, &kept)), []);
        assert_eq!(warnings(&info("redis_version:10.0.1", &kept)), []);
        assert_eq!(
            warnings(&info("redis_version:7.2.4\r\nvalkey_version:7.0.1", &kept)),
            [RedisWarning::OldVersion]
        );
        assert_eq!(
            warnings(&info(old, &evicts)),
            [RedisWarning::OldVersion, RedisWarning::MayEvict]
        );
        assert_eq!(warnings(&info(new, whole).replace("master", "slave")), [RedisWarning::Replica]);
        assert_eq!(
            warnings(&format!("{}cluster_enabled:1", info(new, whole))),
            [RedisWarning::ClusterNode]
        );
        assert_eq!(warnings(""), [RedisWarning::Unchecked]);
        assert_eq!(warnings("redis_version:x"), [RedisWarning::Unchecked]);
    }
}

//! The way to the server or servers, and the names of its keys.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use redis::{Cmd, FromRedisValue, RedisResult, Value, from_redis_value};

#[cfg(feature = "redis-cluster")]
use super::{
    cluster::Cluster,
    slot_map::{SLOTS, slot_of},
};
use super::{connection::Connection, errors::is_no_script, script::Program};
use crate::store::Key;

/// Commands to whichever server has the key that they are about.
pub(super) struct Link {
    way: Way,
    prefix: String,
    connected: Arc<AtomicU64>,
}

pub(super) enum Way {
    Server(Arc<Connection>),
    #[cfg(feature = "redis-cluster")]
    Cluster(Arc<Cluster>),
}

// Not derived: the connection knows the password.
impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Link {
    /// Along that way, which counts its connections.
    pub(super) fn new(way: Way, prefix: String, connected: Arc<AtomicU64>) -> Self {
        Self { way, prefix, connected }
    }

    /// How often there was a connection to a server that may have forgotten something: it grows with every new one.
    pub(super) fn connected(&self) -> u64 {
        self.connected.load(Ordering::Relaxed)
    }

    /// Whether records of different groups may be in different places, so that no script has them all.
    pub(super) fn is_spread(&self) -> bool {
        !matches!(self.way, Way::Server(_))
    }

    /// In how many lanes settlements go, so that a server that is away delays few that are another's.
    pub(super) fn lanes(&self) -> usize {
        if self.is_spread() { LANES } else { 1 }
    }

    /// The lane of a record. All of a group have the same.
    #[cfg_attr(not(feature = "redis-cluster"), allow(unused_variables))]
    pub(super) fn lane(&self, key: &Key) -> usize {
        match &self.way {
            Way::Server(_) => 0,
            // Masters have stretches of slots.
            #[cfg(feature = "redis-cluster")]
            Way::Cluster(_) => {
                usize::from(slot_of(&self.name(key, ""))) * LANES / usize::from(SLOTS)
            }
        }
    }

    /// The connection to the one server that has all records, if there is one.
    pub(super) fn server(&self) -> Option<&Arc<Connection>> {
        match &self.way {
            Way::Server(connection) => Some(connection),
            #[cfg(feature = "redis-cluster")]
            Way::Cluster(_) => None,
        }
    }

    /// The connections that there are.
    pub(super) fn connections(&self) -> Vec<Arc<Connection>> {
        match &self.way {
            Way::Server(connection) => vec![Arc::clone(connection)],
            #[cfg(feature = "redis-cluster")]
            Way::Cluster(cluster) => cluster.connections(),
        }
    }

    /// The name of a record, or of a fact of a `kind`: `prefix:{group}rest`. The group is a hash tag, so that what
    /// belongs together is in one slot of a cluster.
    pub(super) fn name(&self, key: &Key, kind: &str) -> String {
        let mut name = String::with_capacity(self.prefix.len() + 35 + kind.len());
        name.push_str(&self.prefix);
        name.push_str(":{");
        for (at, byte) in key.as_bytes().iter().enumerate() {
            if at == GROUP {
                name.push('}');
            }
            for digit in [byte >> 4, byte & 15] {
                name.push(char::from_digit(digit.into(), 16).unwrap_or_default());
            }
        }
        name.push_str(kind);
        name
    }

    /// The name of a table of records. No fact's name has its end.
    pub(super) fn table(&self, table: &str) -> String {
        format!("{}:{{{table}}}:records", self.prefix)
    }

    /// Runs a script: by its digest, and whole if the server does not know it.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        program: Program,
        keys: &[String],
        arguments: &[&[u8]],
    ) -> RedisResult<T> {
        let key = keys.first().map_or("", String::as_str);
        match self.send(key, &program.command(false, keys, arguments)).await {
            Err(error) if is_no_script(&error) => {
                self.send(key, &program.command(true, keys, arguments)).await
            }
            answer => answer,
        }
    }

    /// The answer to a command about `key`.
    #[cfg_attr(not(feature = "redis-cluster"), allow(unused_variables))]
    pub(super) async fn send<T: FromRedisValue>(&self, key: &str, command: &Cmd) -> RedisResult<T> {
        let answer = match &self.way {
            Way::Server(connection) => {
                connection.over(async |mut it| command.query_async(&mut it).await).await
            }
            #[cfg(feature = "redis-cluster")]
            Way::Cluster(cluster) => cluster.send(key, command).await,
        };
        Ok(from_redis_value::<T>(answer?)?)
    }

    /// The answers to calls. Of those to one server the first is `whole`, if that is asked for: it teaches the server the
    /// script, which is the same in all.
    pub(super) async fn call_all(&self, calls: Vec<Call>, whole: bool) -> Vec<RedisResult<Value>> {
        match &self.way {
            Way::Server(connection) => connection.send_all(commands(&calls, whole)).await,
            #[cfg(feature = "redis-cluster")]
            Way::Cluster(cluster) => cluster.call_all(calls, whole).await,
        }
    }
}

/// A script to be run.
pub(super) struct Call {
    pub(super) program: Program,
    pub(super) keys: Vec<String>,
    pub(super) arguments: Vec<Vec<u8>>,
}

impl Call {
    pub(super) fn command(&self, whole: bool) -> Cmd {
        let arguments: Vec<&[u8]> = self.arguments.iter().map(Vec::as_slice).collect();
        self.program.command(whole, &self.keys, &arguments)
    }
}

pub(super) fn commands<'a>(calls: impl IntoIterator<Item = &'a Call>, whole: bool) -> Vec<Cmd> {
    let calls = calls.into_iter().enumerate();
    calls.map(|(at, call)| call.command(whole && at == 0)).collect()
}

const LANES: usize = 64;
/// How many bytes of a key are its group.
const GROUP: usize = 4;

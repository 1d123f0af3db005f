//! Finds the master that Redis Sentinels agree on.
//!
//! They are asked whenever a connection is made. After a failover the one to the old master breaks, or is told that
//! it leads to a replica, and the next leads to the new master.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, RedisResult, Value, aio::MultiplexedConnection, cmd, from_redis_value,
};

use super::{
    endpoint::Endpoint,
    errors::{is_answer, no_answer},
};
use crate::runtime;

pub(super) struct Sentinels {
    /// What the sentinels call the master.
    name: String,
    sentinels: Vec<Endpoint>,
    /// All that is known of the master but where it is.
    master: Endpoint,
}

impl Sentinels {
    pub(super) fn new(name: String, sentinels: Vec<Endpoint>, master: Endpoint) -> Self {
        Self { name, sentinels, master }
    }

    /// A connection to the master.
    pub(super) async fn open(
        &self,
        config: AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        let mut failure = no_answer();
        for sentinel in &self.sentinels {
            let opening = async {
                let (host, port) = self.ask(sentinel).await?;
                let connection = self.master.at(&host, port).open(config.clone()).await?;
                is_master(connection.clone()).await?;
                Ok(connection)
            };
            match opening.await {
                Ok(connection) => return Ok(connection),
                // One that does not know yet may stand before one that does.
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn ask(&self, sentinel: &Endpoint) -> RedisResult<(String, u16)> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER));
        let asking = async {
            let mut connection = sentinel.open(config).await?;
            let mut command = cmd("SENTINEL");
            command.arg("get-master-addr-by-name").arg(&self.name);
            let address: Option<(String, u16)> = command.query_async(&mut connection).await?;
            address.ok_or_else(no_answer)
        };
        runtime::timeout(ANSWER, asking).await.unwrap_or_else(|_| Err(no_answer()))
    }
}

/// An error unless it says so, or does not say.
async fn is_master(mut connection: MultiplexedConnection) -> RedisResult<()> {
    let role = cmd("ROLE");
    let asking = role.query_async::<Vec<Value>>(&mut connection);
    match runtime::timeout(ANSWER, asking).await {
        Ok(Ok(answer)) => {
            let role = answer.first().cloned().map(from_redis_value::<String>);
            match role {
                Some(Ok(role)) if role == "master" => Ok(()),
                _ => Err(no_answer()),
            }
        }
        // Not everybody may ask. A replica takes no writes.
        Ok(Err(error)) if is_answer(&error) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(runtime::Elapsed) => Err(no_answer()),
    }
}

/// Within which a sentinel must answer: another may know better.
const ANSWER: Duration = Duration::from_millis(500);

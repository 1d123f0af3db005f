//! What stands for TLS without the feature `redis-tls`.

use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisResult, aio::MultiplexedConnection};

use crate::error::BuildError;

#[derive(Clone, Debug, Default)]
pub(super) struct Options {}

/// There is none.
#[derive(Clone)]
pub(super) enum Tls {}

impl Options {
    pub(super) fn build(&self) -> Result<Tls, BuildError> {
        Err(BuildError::invalid("url", "rediss:// needs the feature redis-tls"))
    }
}

impl Tls {
    pub(super) async fn open(
        &self,
        _: (&str, u16),
        _: &RedisConnectionInfo,
        _: AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        match *self {}
    }
}

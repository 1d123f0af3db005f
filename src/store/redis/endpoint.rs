//! Where a server is, and how a connection to it begins.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    ProtocolVersion, RedisConnectionInfo, RedisResult, aio::MultiplexedConnection,
};

use super::{errors::no_answer, tls};
use crate::{error::BuildError, runtime};

/// A server, and what it is told about who connects.
#[derive(Clone)]
pub(super) struct Endpoint {
    place: ConnectionAddr,
    tls: Option<tls::Tls>,
    settings: RedisConnectionInfo,
}

impl Endpoint {
    /// What `url` names.
    pub(super) fn of(url: &str, options: &tls::Options) -> Result<Self, BuildError> {
        // What the parser says may hold a part of the url, and so of the password.
        let invalid = |why: &'static str| BuildError::invalid("url", why);
        let encrypted = ["rediss://", "valkeys://"].iter().find_map(|it| url.strip_prefix(it));
        let plain = match encrypted {
            // No way to leave out the verification.
            Some(rest) if !rest.contains('#') => format!("redis://{rest}"),
            Some(_) => return Err(invalid("a fragment is not supported")),
            None => url.to_owned(),
        };
        let info = plain.into_connection_info();
        let info =
            info.map_err(|_| invalid("not a redis:// url, or one of an unsupported kind"))?;
        let tls = encrypted.map(|_| options.build()).transpose()?;
        // With RESP3, an idle connection that breaks is noticed and mended at once, before the next call needs it.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        // A right that the user need not have, and older servers do not know.
        let settings = settings.set_skip_set_lib_name();
        Ok(Self { place: info.addr().clone(), tls, settings })
    }

    /// Another server, to which everything else applies that is known of this one.
    pub(super) fn at(&self, host: &str, port: u16) -> Self {
        Self { place: ConnectionAddr::Tcp(host.to_owned(), port), ..self.clone() }
    }

    /// The host's name and the port. `None`: a socket of this machine.
    pub(super) fn address(&self) -> Option<(String, u16)> {
        match &self.place {
            ConnectionAddr::Tcp(host, port) => Some((host.clone(), *port)),
            _ => None,
        }
    }

    #[cfg(feature = "redis-cluster")]
    pub(super) fn database(&self) -> i64 {
        self.settings.db()
    }

    /// A connection, within a second or not at all.
    pub(super) async fn open(
        &self,
        config: AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        let opening = async {
            match (&self.tls, &self.place) {
                (Some(tls), ConnectionAddr::Tcp(host, port)) => {
                    tls.open((host, *port), &self.settings, config).await
                }
                _ => {
                    let client = Client::open(self.info()?)?;
                    client.get_multiplexed_async_connection_with_config(&config).await
                }
            }
        };
        runtime::timeout(CONNECT, opening).await.unwrap_or_else(|_| Err(no_answer()))
    }

    fn info(&self) -> RedisResult<ConnectionInfo> {
        let info = self.place.clone().into_connection_info()?;
        // A request that waits for the answer to another one waits for a round trip in vain.
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        Ok(info.set_tcp_settings(tcp).set_redis_settings(self.settings.clone()))
    }
}

const CONNECT: Duration = Duration::from_secs(1);

//! The connection to the server, and what its errors mean.

use std::{sync::OnceLock, time::Duration};

use redis::{
    Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline, ProtocolVersion,
    RedisError, RedisResult, ServerErrorKind, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

use super::script::Program;
use crate::{
    error::BuildError,
    runtime,
    store::{Key, StoreError},
};

/// One multiplexed connection that mends itself.
pub(super) struct Link {
    client: Client,
    manager: OnceLock<ConnectionManager>,
    prefix: String,
}

// Not derived: the client knows the password.
impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(url: &str, prefix: String) -> Result<Self, BuildError> {
        // What the error says may hold a part of the url, and so of the password.
        let client = open(url).map_err(|_| {
            BuildError::invalid("url", "not a redis:// url, or one of an unsupported kind")
        })?;
        Ok(Self { client, manager: OnceLock::new(), prefix })
    }

    /// The name of a record, or of a fact of a `kind`. The key is a hash tag: what belongs to it stays together.
    pub(super) fn name(&self, key: &Key, kind: &str) -> String {
        use std::fmt::Write;
        let mut name = String::with_capacity(self.prefix.len() + 36 + kind.len());
        name.push_str(&self.prefix);
        name.push_str(":{");
        for byte in key.as_bytes() {
            let _ = write!(name, "{byte:02x}");
        }
        name.push('}');
        name.push_str(kind);
        name
    }

    /// Runs a script: by its digest, and whole if the server does not know it.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        program: Program,
        keys: &[String],
        arguments: &[&[u8]],
    ) -> RedisResult<T> {
        match self.send(&program.command(false, keys, arguments)).await {
            Err(error) if is_no_script(&error) => {
                self.send(&program.command(true, keys, arguments)).await
            }
            answer => answer,
        }
    }

    pub(super) async fn send<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let mut manager = self.manager()?;
        match runtime::timeout(PATIENCE, command.query_async(&mut manager)).await {
            Ok(answer) => answer,
            Err(runtime::Elapsed) => Err(no_answer()),
        }
    }

    /// The answers of all commands, each a value or an error.
    pub(super) async fn send_all(
        &self,
        commands: &Pipeline,
    ) -> RedisResult<Vec<RedisResult<Value>>> {
        let mut manager = self.manager()?;
        let mut commands = commands.clone();
        commands.ignore_errors();
        match runtime::timeout(PATIENCE, commands.query_async(&mut manager)).await {
            Ok(answers) => answers,
            Err(runtime::Elapsed) => Err(no_answer()),
        }
    }

    /// Made on first use, because making it needs the runtime.
    fn manager(&self) -> RedisResult<ConnectionManager> {
        if let Some(manager) = self.manager.get() {
            return Ok(manager.clone());
        }
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(Some(CONNECT))
            .set_number_of_retries(RETRIES)
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(Duration::from_millis(500))
            .set_pipeline_buffer_size(1024);
        let manager = ConnectionManager::new_lazy_with_config(self.client.clone(), config)?;
        Ok(self.manager.get_or_init(|| manager).clone())
    }
}

/// How long a call is waited for, after its caller has been told that there is no answer: only to give back
/// what it took.
const PATIENCE: Duration = Duration::from_secs(2);
const CONNECT: Duration = Duration::from_secs(1);
/// How often a lost connection is tried again in the background, at most every half second. The next call begins anew.
const RETRIES: usize = 20;

/// With RESP3, an idle connection that breaks is noticed and mended at once, before the next call needs it.
fn open(url: &str) -> RedisResult<Client> {
    let info = url.into_connection_info()?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Client::open(info.set_redis_settings(settings))
}

pub(super) fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Whether the server understood the command and will refuse it whenever it is sent.
pub(super) fn is_final(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::ResponseError | ServerErrorKind::CrossSlot | ServerErrorKind::NoPerm
        )
    ) || error.code() == Some("WRONGTYPE")
}

/// The error for the caller: what kind it is, and nothing that the server or the url said.
pub(super) fn store_error(error: &RedisError) -> StoreError {
    let kind = error.kind();
    let permanent = is_final(error)
        || matches!(
            kind,
            ErrorKind::AuthenticationFailed
                | ErrorKind::InvalidClientConfig
                | ErrorKind::Parse
                | ErrorKind::UnexpectedReturnType
        );
    let message = format!("the redis server failed: {kind:?}");
    if permanent { StoreError::permanent(message) } else { StoreError::transient(message) }
}

fn no_answer() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

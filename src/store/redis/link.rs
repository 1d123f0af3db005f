//! The connection to the server, and what its errors mean.

use std::{sync::Arc, time::Duration};

use redis::{
    Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline, ProtocolVersion,
    RedisError, RedisResult, ServerErrorKind, Value, aio::MultiplexedConnection,
};

use super::{connection::Connection, script::Program};
use crate::{
    error::BuildError,
    runtime,
    store::{Key, StoreError},
};

/// Commands to the server, over a connection that mends itself, and the names of its keys.
pub(super) struct Link {
    connection: Arc<Connection>,
    prefix: String,
}

// Not derived: the connection knows the password.
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
        Ok(Self { connection: Connection::new(client), prefix })
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

    /// The name of a table of records. A fact's name is longer, or has another end.
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
        match self.send(&program.command(false, keys, arguments)).await {
            Err(error) if is_no_script(&error) => {
                self.send(&program.command(true, keys, arguments)).await
            }
            answer => answer,
        }
    }

    pub(super) async fn send<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        self.over(async |mut connection| command.query_async(&mut connection).await).await
    }

    /// The answers of all commands, each a value or an error.
    pub(super) async fn send_all(
        &self,
        commands: &Pipeline,
    ) -> RedisResult<Vec<RedisResult<Value>>> {
        let mut commands = commands.clone();
        commands.ignore_errors();
        self.over(async |mut connection| commands.query_async(&mut connection).await).await
    }

    /// What is asked over the connection, which is replaced if it breaks or does not answer.
    async fn over<T>(
        &self,
        ask: impl AsyncFnOnce(MultiplexedConnection) -> RedisResult<T>,
    ) -> RedisResult<T> {
        let got = runtime::timeout(PATIENCE, self.connection.get()).await;
        let (connection, number) = got.unwrap_or_else(|_| Err(no_answer()))?;
        let answer = runtime::timeout(PATIENCE, ask(connection)).await;
        let answer = answer.unwrap_or_else(|_| Err(no_answer()));
        if let Err(error) = &answer
            && (error.is_unrecoverable_error() || error.is_timeout())
        {
            self.connection.broke(number);
        }
        answer
    }
}

/// How long a call is waited for, after its caller has been told that there is no answer: only to give back
/// what it took.
const PATIENCE: Duration = Duration::from_secs(2);

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

/// Whether trying again is of no use, until somebody changes something.
pub(super) fn is_permanent(error: &RedisError) -> bool {
    is_final(error)
        || matches!(
            error.kind(),
            ErrorKind::AuthenticationFailed
                | ErrorKind::InvalidClientConfig
                | ErrorKind::Parse
                | ErrorKind::UnexpectedReturnType
                | ErrorKind::RESP3NotSupported
        )
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
}

/// The error for the caller: what kind it is, and nothing that the server or the url said.
pub(super) fn store_error(error: &RedisError) -> StoreError {
    let message = format!("the redis server failed: {:?}", error.kind());
    if is_permanent(error) {
        StoreError::permanent(message)
    } else {
        StoreError::transient(message)
    }
}

fn no_answer() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

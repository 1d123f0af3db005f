//! What a server's errors mean.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::StoreError;

pub(super) fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Whether the server answered, so that it surely did not do what it was asked for. Else nobody knows.
pub(super) fn is_answer(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

/// Whether it was refused before any of it ran, where it is more than one thing.
pub(super) fn is_before_all(error: &RedisError) -> bool {
    use ServerErrorKind::{
        Ask, BusyLoading, ClusterDown, MasterDown, Moved, NoScript, ReadOnly, TryAgain,
    };
    matches!(
        error.kind(),
        ErrorKind::Server(
            Ask | BusyLoading | ClusterDown | MasterDown | Moved | NoScript | ReadOnly | TryAgain
        )
    )
}

/// Whether it is a replica, as a master is after a failover.
pub(super) fn is_read_only(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly) || is_within(error, &["READONLY"])
}

/// Whether the server understood the command and will refuse it whenever it is sent.
pub(super) fn is_final(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::ResponseError) => !is_within(error, PASSING),
        ErrorKind::Server(ServerErrorKind::CrossSlot | ServerErrorKind::NoPerm) => true,
        _ => error.code() == Some("WRONGTYPE"),
    }
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

pub(super) fn no_answer() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// Before Redis 7, what a command of a script failed of stands within another error.
fn is_within(error: &RedisError, codes: &[&str]) -> bool {
    let Some(detail) = error.detail() else { return false };
    codes.iter().any(|code| detail.contains(&format!("-{code} ")))
}

/// What passes by itself.
const PASSING: &[&str] = &["READONLY", "OOM", "MISCONF", "NOREPLICAS", "MASTERDOWN", "LOADING"];

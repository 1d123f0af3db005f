//! The asynchronous runtime: the only file that names it.

use std::{future::Future, time::Duration};

/// Runs `task` in the background. Gives it back when there is no runtime to run it on.
pub(crate) fn spawn<F>(task: F) -> Result<(), F>
where
    F: Future<Output = ()> + Send + 'static,
{
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => {
            runtime.spawn(task);
            Ok(())
        }
        Err(_) => Err(task),
    }
}

/// Whether there is a runtime here, without which waiting panics.
pub(crate) fn is_here() -> bool {
    tokio::runtime::Handle::try_current().is_ok()
}

/// Ready after `duration`.
pub(crate) async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Lets others run. A task that waits for one that it spawned does so before it spawns another: a runtime that shuts down
/// drops what is spawned at once, and this task when it yields.
#[cfg(feature = "redis")]
pub(crate) use tokio::task::yield_now;

#[cfg(feature = "redis")]
pub(crate) use tokio::sync::Notify;
#[cfg(any(feature = "jwt", feature = "redis"))]
pub(crate) use tokio::sync::oneshot;
/// For tasks to tell each other something.
#[cfg(feature = "jwt")]
pub(crate) use tokio::sync::watch;
/// So many at a time.
#[cfg(feature = "prompt-guard")]
pub(crate) use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The limit of a [`timeout`] passed first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elapsed;

/// `future`, for at most `limit`.
pub(crate) async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    tokio::time::timeout(limit, future).await.map_err(|_| Elapsed)
}

/// Runs `task`, whose result is waited for. Panics if it does, or without a runtime.
#[cfg(any(test, feature = "test-util"))]
#[allow(clippy::expect_used)]
pub(crate) fn join<F>(task: F) -> impl Future<Output = F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let task = tokio::spawn(task);
    async { task.await.expect("the task does not panic") }
}

#[cfg(any(feature = "tls", feature = "redis-tls"))]
pub(crate) use tokio::net::TcpStream;
/// Sockets, and the traits of what reads and writes.
#[cfg(feature = "tls")]
pub(crate) use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, ToSocketAddrs},
    task::{AbortHandle, JoinSet},
};

/// What `work` returns, on a thread that it may keep busy; here, when there is no runtime. `None`: the
/// runtime is shutting down.
pub(crate) async fn unblock<T, F>(work: F) -> Option<T>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await.ok(),
        Err(_) => Some(work()),
    }
}

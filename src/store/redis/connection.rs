//! One multiplexed connection that mends itself.
//!
//! Each connection has a number, by which its break is told: one that was replaced long ago tears none down, and
//! however many calls see a break, one task mends it, while all who need it wait for that.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Client, PushInfo, PushKind, RedisError, RedisResult,
    aio::MultiplexedConnection,
};

use super::link::is_permanent;
use crate::runtime::{self, Notify};

pub(super) struct Connection {
    client: Client,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    open: Option<MultiplexedConnection>,
    /// The latest connection, and the latest that broke.
    number: u64,
    broken: u64,
    opened: Option<Instant>,
    /// How many in a row broke as soon as they were made.
    short_lived: u32,
    connecting: bool,
    /// Why an attempt failed that trying again does not help, and when.
    failure: Option<(Instant, RedisError)>,
}

impl Connection {
    pub(super) fn new(client: Client) -> Arc<Self> {
        Arc::new(Self { client, state: Mutex::default(), changed: Notify::new() })
    }

    /// The connection and its number. Waits while it is made, for as long as its caller does.
    ///
    /// # Errors
    /// When it was just tried in vain, and would be again: a wrong password, for one.
    pub(super) async fn get(self: &Arc<Self>) -> RedisResult<(MultiplexedConnection, u64)> {
        loop {
            let changed = self.changed.notified();
            {
                let state = self.state();
                if let Some(open) = &state.open {
                    return Ok((open.clone(), state.number));
                }
                if let Some((when, failure)) = &state.failure
                    && when.elapsed() < LONGEST_PAUSE
                {
                    return Err(failure.clone());
                }
            }
            self.connect();
            changed.await;
        }
    }

    /// Hears that a connection broke, or does not answer.
    pub(super) fn broke(self: &Arc<Self>, number: u64) {
        {
            let mut state = self.state();
            state.broken = state.broken.max(number);
            if state.number != number || state.open.take().is_none() {
                return;
            }
            let short = state.opened.is_some_and(|opened| opened.elapsed() < SHORT);
            state.short_lived = if short { state.short_lived.saturating_add(1) } else { 0 };
        }
        self.connect();
    }

    /// Sees that it is being made.
    fn connect(self: &Arc<Self>) {
        if std::mem::replace(&mut self.state().connecting, true) {
            return;
        }
        let attempt = Attempt { connection: Arc::clone(self), ended: false };
        // Without a runtime the attempt ends here.
        drop(runtime::spawn(attempt.run()));
    }

    async fn open(self: &Arc<Self>) -> RedisResult<()> {
        let number = {
            let mut state = self.state();
            state.number += 1;
            state.number
        };
        let this = Arc::downgrade(self);
        let hear = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection
                && let Some(connection) = this.upgrade()
            {
                connection.broke(number);
            }
            Ok::<_, ()>(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(1024)
            .set_push_sender(hear);
        let open = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut state = self.state();
        if state.broken >= number {
            return Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into());
        }
        (state.open, state.opened) = (Some(open), Some(Instant::now()));
        // Here, so that a break from now on begins anew.
        state.connecting = false;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by the task that makes the connection; when its runtime ends, the next call begins another.
struct Attempt {
    connection: Arc<Connection>,
    ended: bool,
}

impl Attempt {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        // Whoever hangs up at once is not called back at once.
        let short_lived = self.connection.state().short_lived;
        if short_lived > 0 {
            runtime::sleep(LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.pow(short_lived.min(10)))).await;
        }
        for _ in 0..TRIES {
            match self.connection.open().await {
                Ok(()) => {
                    self.ended = true;
                    return;
                }
                Err(failure) if is_permanent(&failure) => {
                    self.connection.state().failure = Some((Instant::now(), failure));
                    return;
                }
                Err(_) => {}
            }
            runtime::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.state().connecting = false;
        }
        self.connection.changed.notify_waiters();
    }
}

const CONNECT: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// A connection that lives no longer is no success.
const SHORT: Duration = Duration::from_millis(100);
/// Some ten seconds' worth. The next call begins anew.
const TRIES: usize = 40;

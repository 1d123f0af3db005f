//! One multiplexed connection that mends itself.
//!
//! Each connection has a number, by which its break is told: one that was replaced long ago tears none down, and
//! however many calls see a break, one task mends it, while all who need it wait for that.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, PushInfo, PushKind, RedisError, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    from_redis_value,
};

use super::{
    checks::{Checks, RedisWarning},
    endpoint::Endpoint,
    errors::{is_permanent, is_read_only, no_answer},
    sentinel::Sentinels,
};
use crate::runtime::{self, Notify};

/// Where a connection leads to.
pub(super) enum Target {
    Server(Endpoint),
    /// Whichever server is the master now.
    Master(Sentinels),
}

pub(super) struct Connection {
    target: Target,
    checks: Checks,
    /// How many there have been, of all that the store has.
    count: Arc<AtomicU64>,
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
    pub(super) fn new(target: Target, checks: Checks, count: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self { target, checks, count, state: Mutex::default(), changed: Notify::new() })
    }

    /// What is asked over the connection, which is replaced if it breaks, does not answer or leads to a server that
    /// is no master any more.
    pub(super) async fn over<T>(
        self: &Arc<Self>,
        ask: impl AsyncFnOnce(MultiplexedConnection) -> RedisResult<T>,
    ) -> RedisResult<T> {
        let got = match self.open_now() {
            Some(got) => got,
            None => {
                let got = runtime::timeout(PATIENCE, self.get()).await;
                got.unwrap_or_else(|_| Err(no_answer()))?
            }
        };
        self.ask(got, ask).await
    }

    /// The same, over the one that was got before.
    pub(super) async fn ask<T>(
        self: &Arc<Self>,
        (connection, number): (MultiplexedConnection, u64),
        ask: impl AsyncFnOnce(MultiplexedConnection) -> RedisResult<T>,
    ) -> RedisResult<T> {
        let answer = runtime::timeout(PATIENCE, ask(connection)).await;
        let answer = answer.unwrap_or_else(|_| Err(no_answer()));
        if let Err(error) = &answer
            && (error.is_unrecoverable_error() || error.is_timeout() || is_read_only(error))
        {
            self.broke(number);
        }
        answer
    }

    /// What a command answers to several questions, to each by itself. One that a replica does not take, none was.
    pub(super) async fn ask_each(
        self: &Arc<Self>,
        command: &Cmd,
    ) -> RedisResult<Vec<RedisResult<Value>>> {
        let asking = self.over(async |mut it| {
            let said = match it.req_packed_command(command).await? {
                Value::ServerError(error) => return Err(error.into()),
                said => from_redis_value::<Vec<Value>>(said)?,
            };
            let answers: Vec<_> = said.into_iter().map(Value::extract_error).collect();
            match answers.iter().filter_map(|it| it.as_ref().err()).find(|it| is_read_only(it)) {
                Some(error) => Err(error.clone()),
                None => Ok(answers),
            }
        });
        asking.await
    }

    /// The answers to commands that are sent together.
    pub(super) async fn send_all(self: &Arc<Self>, commands: Vec<Cmd>) -> Vec<RedisResult<Value>> {
        let got = runtime::timeout(PATIENCE, self.get()).await;
        match got.unwrap_or_else(|_| Err(no_answer())) {
            Ok(got) => self.ask_all(got, commands).await,
            Err(error) => vec![Err(error); commands.len()],
        }
    }

    /// The same, over the connection that was got before.
    pub(super) async fn ask_all(
        self: &Arc<Self>,
        got: (MultiplexedConnection, u64),
        commands: Vec<Cmd>,
    ) -> Vec<RedisResult<Value>> {
        let (count, number) = (commands.len(), got.1);
        let mut pipeline = Pipeline::with_capacity(count);
        for command in commands {
            pipeline.add_command(command);
        }
        pipeline.ignore_errors();
        let asked: RedisResult<Vec<RedisResult<Value>>> =
            self.ask(got, async |mut it| pipeline.query_async(&mut it).await).await;
        let answers = asked.unwrap_or_else(|error| vec![Err(error); count]);
        if answers.iter().any(|it| it.as_ref().is_err_and(is_read_only)) {
            self.broke(number);
        }
        answers
    }

    fn open_now(&self) -> Option<(MultiplexedConnection, u64)> {
        let state = self.state();
        state.open.as_ref().map(|open| (open.clone(), state.number))
    }

    pub(super) fn is_open(&self) -> bool {
        self.state().open.is_some()
    }

    /// What was found of the server.
    pub(super) fn warnings(&self) -> impl Iterator<Item = RedisWarning> {
        self.checks.found()
    }

    /// The connection and its number. Waits while it is made, for as long as its caller does.
    ///
    /// # Errors
    /// When it was just tried in vain, and would be again: a wrong password, for one.
    pub(super) async fn get(self: &Arc<Self>) -> RedisResult<(MultiplexedConnection, u64)> {
        loop {
            let changed = self.changed.notified();
            if let Some(got) = self.open_now() {
                return Ok(got);
            }
            {
                let state = self.state();
                if let Some((when, failure)) = &state.failure
                    && when.elapsed() < LONGEST_PAUSE
                {
                    return Err(failure.clone());
                }
            }
            self.connect();
            changed.await;
            runtime::yield_now().await;
        }
    }

    /// Hears that a connection broke, or does not answer.
    pub(super) fn broke(self: &Arc<Self>, number: u64) {
        let _ended;
        {
            let mut state = self.state();
            state.broken = state.broken.max(number);
            if state.number != number || state.open.is_none() {
                return;
            }
            _ended = state.open.take();
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
        let end = End { connection: Arc::downgrade(self), number };
        let hear = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                end.is_here();
            }
            Ok::<_, ()>(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(1024)
            .set_push_sender(hear);
        let open = match &self.target {
            Target::Server(endpoint) => endpoint.open(config).await?,
            Target::Master(sentinels) => sentinels.open(config).await?,
        };
        let mut state = self.state();
        if state.broken >= number {
            return Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into());
        }
        self.checks.begin(open.clone());
        self.count.fetch_add(1, Ordering::Relaxed);
        (state.open, state.opened) = (Some(open), Some(Instant::now()));
        // Here, so that a break from now on begins anew.
        state.connecting = false;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by the task that reads from a connection: when that ends, with its runtime too, the connection has.
struct End {
    connection: Weak<Connection>,
    number: u64,
}

impl End {
    fn is_here(&self) {
        if let Some(connection) = self.connection.upgrade() {
            connection.broke(self.number);
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.is_here();
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

/// How long a call is waited for, after its caller has been told that there is no answer: only to give back
/// what it took.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// A connection that lives no longer is no success.
const SHORT: Duration = Duration::from_millis(100);
/// Some ten seconds' worth. The next call begins anew.
const TRIES: usize = 40;

//! Settlements on their way: a queue and the task that empties it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{RedisError, Value};

use super::{
    errors::{is_answer, is_before_all, is_final},
    lanes::Places,
    link::{Call, Link},
    script::{self, Change, Program, Records},
};
use crate::{
    observe,
    runtime::{self, Notify},
    store::rules,
};

/// Settlements to be applied, in their order, each exactly once.
#[derive(Debug)]
pub(super) struct Queue {
    /// Under what name the records remember which settlements were applied.
    writer: u64,
    places: Arc<Places>,
    numbers: AtomicU64,
    state: Mutex<State>,
    wake: Notify,
    done: Notify,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Arc<Job>>,
    queued: u64,
    finished: u64,
    /// Up to which somebody waits for them.
    awaited: u64,
    /// Settlements that could not be applied, since the last flush.
    lost: u64,
    running: bool,
    closed: bool,
}

#[derive(Debug)]
struct Job {
    /// By which the records tell whether it was applied. Zero: it surely was not.
    number: AtomicU64,
    /// Nobody knows whether it was applied: it was lost on the way once, or sent with others of which one was refused.
    doubtful: AtomicBool,
    finished: AtomicBool,
    lost: AtomicBool,
    since: Instant,
    records: Records,
    changes: Vec<Change>,
}

impl Job {
    fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }

    /// Hears why it was not applied when it was sent alone.
    fn failed(&self, error: &RedisError) {
        if is_final(error) {
            self.lost.store(true, Ordering::Relaxed);
            self.finished.store(true, Ordering::Relaxed);
        } else {
            self.unanswered(is_answer(error));
        }
    }

    /// Keeps its number, by which it is told whether it was applied, unless it `surely` was not: then that may be lower by
    /// now than one that was.
    fn unanswered(&self, surely: bool) {
        if !surely {
            self.doubtful.store(true, Ordering::Relaxed);
        } else if !self.doubtful.load(Ordering::Relaxed) {
            self.number.store(0, Ordering::Relaxed);
        }
    }
}

impl Queue {
    pub(super) fn new(writer: u64, places: Arc<Places>) -> Self {
        let (state, wake, done) = (Mutex::default(), Notify::new(), Notify::new());
        Self { writer, places, numbers: AtomicU64::new(0), state, wake, done }
    }

    pub(super) fn push(&self, records: Records, changes: Vec<Change>) {
        let job = Job {
            number: AtomicU64::new(0),
            doubtful: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            since: Instant::now(),
            records,
            changes,
        };
        let mut state = self.state();
        state.queued += 1;
        state.jobs.push_back(Arc::new(job));
        let count = state.jobs.len();
        drop(state);
        if count == 1 || count == ENOUGH {
            self.wake.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.state().closed = true;
        self.wake.notify_one();
    }

    pub(super) fn start(self: &Arc<Self>, link: &Arc<Link>) {
        if std::mem::replace(&mut self.state().running, true) {
            return;
        }
        let running = Running(Arc::clone(self));
        let link = Arc::clone(link);
        // Without a runtime the task is dropped here, and `running` with it.
        drop(runtime::spawn(async move { running.0.work(&link).await }));
    }

    /// Waits until all that was queued so far is applied.
    pub(super) async fn applied(self: &Arc<Self>, link: &Arc<Link>) {
        let until = {
            let mut state = self.state();
            state.awaited = state.queued;
            state.queued
        };
        self.wake.notify_one();
        loop {
            let done = self.done.notified();
            if self.state().finished >= until {
                return;
            }
            self.start(link);
            done.await;
        }
    }

    /// How many could not be applied since this was last asked.
    pub(super) fn take_lost(&self) -> u64 {
        std::mem::take(&mut self.state().lost)
    }

    async fn work(&self, link: &Link) {
        let mut pause = FIRST_PAUSE;
        while let Some(jobs) = self.next().await {
            self.apply(link, &jobs, false).await;
            if jobs.iter().any(|job| !job.is_finished()) {
                // It may only be that the server does not know the script, or that one is not to be applied.
                self.apply(link, &jobs, true).await;
            }
            if jobs.iter().all(|job| job.is_finished()) {
                self.finish(&jobs);
                pause = FIRST_PAUSE;
            } else if self.is_given_up(&jobs) {
                return;
            } else {
                observe::count("palisade_store_retries_total", &[("store", "redis")]);
                runtime::sleep(pause).await;
                pause = LONGEST_PAUSE.min(pause * 2);
            }
        }
    }

    /// The next settlements, which stay in the queue until they are finished: when a few have gathered, after a moment, or when
    /// somebody waits for them. `None`: there will be no more.
    async fn next(&self) -> Option<Vec<Arc<Job>>> {
        let mut waited = false;
        loop {
            let count = {
                let state = self.state();
                let count = state.jobs.len();
                let hurry = state.closed || state.finished < state.awaited;
                if count >= ENOUGH || count > 0 && (waited || hurry) {
                    return Some(state.jobs.iter().take(BATCH).cloned().collect());
                }
                if state.closed {
                    return None;
                }
                count
            };
            let woken = self.wake.notified();
            if count == 0 {
                woken.await;
            } else {
                waited = runtime::timeout(MOMENT, woken).await.is_err();
            }
        }
    }

    /// Whether nobody is left to wait for `jobs`, and they have been tried for long enough.
    fn is_given_up(&self, jobs: &[Arc<Job>]) -> bool {
        self.state().closed && jobs.iter().all(|job| job.since.elapsed() > REMEMBERED)
    }

    /// Sends those of `jobs` that are not finished, again if need be: the records remember which were applied. Together as many as
    /// one server takes; or each `alone`, which tells why it is not applied, with the whole script.
    async fn apply(&self, link: &Link, jobs: &[Arc<Job>], alone: bool) {
        let jobs: Vec<_> = jobs.iter().filter(|job| !job.is_finished()).collect();
        let together = if alone || link.is_spread() { 1 } else { TOGETHER };
        let calls = jobs.chunks(together).map(|jobs| self.call(link, jobs)).collect();
        let answers = link.call_all(calls, alone).await;
        for (answer, jobs) in answers.into_iter().zip(jobs.chunks(together)) {
            match answer {
                Ok(Value::Array(answers)) => {
                    for (answer, job) in answers.into_iter().zip(jobs) {
                        match answer {
                            Value::Int(1) => job.finished.store(true, Ordering::Relaxed),
                            _ => job.number.store(0, Ordering::Relaxed),
                        }
                    }
                }
                Ok(_) => jobs.iter().for_each(|job| job.finished.store(true, Ordering::Relaxed)),
                Err(error) if alone => jobs.iter().for_each(|job| job.failed(&error)),
                // Of several, nobody may know which were applied before it. They are sent again in their order, and none
                // before they are.
                Err(error) => {
                    let surely = is_before_all(&error) || together == 1 && is_answer(&error);
                    jobs.iter().for_each(|job| job.unanswered(surely));
                }
            }
        }
    }

    fn call(&self, link: &Link, jobs: &[&Arc<Job>]) -> Call {
        let remember = rules::ticks(2 * REMEMBERED).to_string();
        let mut arguments = vec![self.writer.to_le_bytes().to_vec(), remember.into_bytes()];
        let mut keys = Vec::with_capacity(jobs.len());
        for job in jobs {
            let late = job.since.elapsed() > REMEMBERED;
            if job.number.load(Ordering::Relaxed) == 0 {
                let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
                job.number.store(number, Ordering::Relaxed);
            }
            let number = job.number.load(Ordering::Relaxed);
            arguments.push(script::settlement(&job.records, number, &job.changes, late));
            keys.extend(job.records.keys().iter().map(|key| link.name(key, "")));
        }
        Call { program: Program::Settle, keys, arguments }
    }

    fn finish(&self, jobs: &[Arc<Job>]) {
        let lost = jobs.iter().filter(|job| job.lost.load(Ordering::Relaxed)).count() as u64;
        if lost > 0 {
            observe::add("palisade_store_settlements_lost_total", &[("store", "redis")], lost);
            observe::error("store", "the redis server refused a settlement");
        }
        let mut state = self.state();
        let count = jobs.len().min(state.jobs.len());
        state.jobs.drain(..count);
        state.finished += count as u64;
        state.lost += lost;
        drop(state);
        self.places.free(count);
        self.done.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by the task; when its runtime ends, the next call starts another.
struct Running(Arc<Queue>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.state().running = false;
    }
}

/// Settlements in one pipeline, and in one command.
const BATCH: usize = 128;
const TOGETHER: usize = 32;
/// So many are sent at once; fewer wait a moment for others, which spares the server a command for each.
const ENOUGH: usize = 16;
const MOMENT: Duration = Duration::from_millis(1);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How old a settlement may be for the records to remember surely whether it was applied.
const REMEMBERED: Duration = Duration::from_secs(60);

//! Admissions on their way to be decided on. Of many at once, one server is asked together.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use redis::{RedisResult, Value, from_redis_value};

use super::{
    errors::{is_no_script, no_answer},
    link::Link,
    script::{Program, Question},
};
use crate::runtime::{self, oneshot};

/// The way of all admissions. The first of them go alone, at once. Those that come while these have no answer wait for a
/// task that sends what has gathered meanwhile: nobody's question depends on whether another caller listens to his answer.
pub(super) struct Decisions {
    link: Arc<Link>,
    deadline: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Questions that went alone, and tasks that send those that wait.
    alone: usize,
    tasks: usize,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    question: Question,
    since: Instant,
    answer: oneshot::Sender<RedisResult<Value>>,
}

impl Decisions {
    pub(super) fn new(link: Arc<Link>, deadline: Duration) -> Arc<Self> {
        Arc::new(Self { link, deadline, state: Mutex::default() })
    }

    /// What the script answers.
    pub(super) async fn ask(self: &Arc<Self>, question: Question) -> RedisResult<Vec<u8>> {
        let answer = match self.way(question) {
            Way::Alone(question, _alone) => self.ask_one(&question).await,
            Way::Together(answer) => answer.await.unwrap_or_else(|_| Err(no_answer())),
        };
        Ok(from_redis_value(answer?)?)
    }

    fn way(self: &Arc<Self>, question: Question) -> Way {
        let mut state = self.state();
        if self.link.server().is_none() || state.alone + state.tasks < AT_ONCE {
            state.alone += 1;
            return Way::Alone(question, Alone(Arc::clone(self)));
        }
        let (sender, answer) = oneshot::channel();
        state.waiting.push_back(Waiting { question, since: Instant::now(), answer: sender });
        if state.tasks < AT_ONCE {
            state.tasks += 1;
            drop(state);
            let task = Task { decisions: Arc::clone(self), ended: false };
            // Without a runtime it ends here.
            drop(runtime::spawn(task.run()));
        }
        Way::Together(answer)
    }

    async fn ask_one(&self, question: &Question) -> RedisResult<Value> {
        self.link.run(Program::Acquire, &question.keys, &[&question.packed]).await
    }

    async fn ask_all(&self, questions: &[Question]) -> RedisResult<Vec<RedisResult<Value>>> {
        let (Some(server), [_, _, ..]) = (self.link.server(), questions) else {
            let mut answers = Vec::with_capacity(1);
            for question in questions {
                answers.push(self.ask_one(question).await);
            }
            return Ok(answers);
        };
        let keys = questions.iter().flat_map(|it| &it.keys).map(String::as_str);
        let keys: Vec<_> = keys.collect();
        let arguments: Vec<_> = questions.iter().map(|it| it.packed.as_slice()).collect();
        let command = |whole| Program::Acquire.command(whole, &keys, &arguments);
        match server.ask_each(&command(false)).await {
            Err(error) if is_no_script(&error) => server.ask_each(&command(true)).await,
            answers => answers,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a question is asked.
enum Way {
    Alone(Question, Alone),
    Together(oneshot::Receiver<RedisResult<Value>>),
}

/// Held by a question that went alone.
struct Alone(Arc<Decisions>);

impl Drop for Alone {
    fn drop(&mut self) {
        self.0.state().alone -= 1;
    }
}

/// Sends what waits, until nothing does. When its runtime ends before that, the next call starts another.
struct Task {
    decisions: Arc<Decisions>,
    ended: bool,
}

impl Task {
    async fn run(mut self) {
        while let Some(some) = self.next() {
            // Whose caller has been told that it is too late is not asked for any more.
            let some = some.into_iter().filter(|it| it.since.elapsed() < self.decisions.deadline);
            let (questions, callers): (Vec<_>, Vec<_>) =
                some.map(|it| (it.question, it.answer)).unzip();
            match self.decisions.ask_all(&questions).await {
                Ok(answers) => {
                    for (caller, answer) in callers.into_iter().zip(answers) {
                        let _ = caller.send(answer);
                    }
                }
                Err(error) => {
                    for caller in callers {
                        let _ = caller.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    fn next(&mut self) -> Option<Vec<Waiting>> {
        let mut state = self.decisions.state();
        let count = state.waiting.len().min(BATCH);
        if count == 0 {
            state.tasks -= 1;
            self.ended = true;
            return None;
        }
        Some(state.waiting.drain(..count).collect())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut state = self.decisions.state();
        state.tasks -= 1;
        // Nobody else asks for what waits: its callers hear that there is no answer.
        let unasked =
            if state.tasks == 0 { std::mem::take(&mut state.waiting) } else { VecDeque::new() };
        drop(state);
        drop(unasked);
    }
}

/// How many questions are on their way before others wait, and how many tasks send those.
const AT_ONCE: usize = 2;
/// Questions in one command.
const BATCH: usize = 32;

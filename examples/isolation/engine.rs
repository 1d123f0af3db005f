//! A model of an inference engine: one forward pass, a "step", at a time, on the runtime's paused clock.
//!
//! A step decodes one token of every sequence whose prompt is read and, within a budget of tokens, reads chunks of the
//! other prompts, first come, first served. Where the layer in front leaves a hint and a signal on each request, the engine
//! heeds them: prompts of those who have a slot to themselves are read first, and a stream whose slot is asked for is
//! parked, its cache kept, until it may go on. Steps are timed to the microsecond; what happens between two steps (a
//! request that comes, a slot that becomes free and goes to the next) happens before the later one begins.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready as ready_or_pending},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::Full;
use palisade::{
    UsageMeter,
    rate_limit::fair::{EngineHint, SlotClass, YieldSignal},
    reservation::TokenUsage,
};
use serde::Serialize;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, sleep, sleep_until},
};
use tower::Service;

/// What a step costs, in milliseconds: `base + decode × decoding + cache × tokens cached + prefill × tokens of prompts read`.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Speed {
    pub(crate) base: f64,
    pub(crate) decode: f64,
    pub(crate) cache: f64,
    pub(crate) prefill: f64,
    /// Sequences in a batch.
    pub(crate) sequences: usize,
    /// Tokens in a step, of prompts and answers together.
    pub(crate) chunk: usize,
}

impl Speed {
    /// Slots of constant speed, as separate accelerators are: prompts cost nothing, and a neighbour neither.
    pub(crate) const fn slots(sequences: usize) -> Self {
        Self { base: 20.0, decode: 0.0, cache: 0.0, prefill: 0.0, sequences, chunk: usize::MAX }
    }

    /// Continuous batching with chunked prefill, on one accelerator.
    pub(crate) const fn batching() -> Self {
        Self { base: 10.0, decode: 0.1, cache: 0.05e-3, prefill: 0.05, sequences: 64, chunk: 1024 }
    }

    /// A step in milliseconds.
    pub(crate) fn step(&self, decoding: usize, cached: u64, prefilled: u64) -> f64 {
        self.base
            + self.decode * decoding as f64
            + self.cache * cached as f64
            + self.prefill * prefilled as f64
    }

    /// Milliseconds of the engine that a decoded token is worth, in the fullest batch.
    fn token(&self, context: u64) -> f64 {
        self.base / self.sequences as f64 + self.decode + self.cache * context as f64
    }
}

/// The engine's front. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Engine {
    queue: UnboundedSender<Sequence>,
    pub(crate) gauge: Arc<Gauge>,
}

/// The tokens of an answer, which only the model knows: in the request's extensions, for want of a model.
#[derive(Clone, Copy)]
pub(crate) struct AnswerLength(pub(crate) u32);

/// Bytes of a prompt that are a token.
pub(crate) const BYTES_PER_TOKEN: u64 = 4;

impl Engine {
    /// Starts an engine. What it does is tallied from `warm` on.
    pub(crate) fn start(speed: Speed, warm: Duration) -> Self {
        let (queue, arrivals) = unbounded_channel();
        let gauge = Arc::new(Gauge::default());
        let run = Run {
            speed,
            warm,
            gauge: Arc::clone(&gauge),
            origin: Instant::now(),
            at: 0,
            waiting: VecDeque::new(),
            batch: Vec::new(),
        };
        tokio::spawn(run.forever(queue.clone(), arrivals));
        Self { queue, gauge }
    }
}

impl Service<Request<Full<Bytes>>> for Engine {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Answer>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    /// Answers at once, as servers of event streams do: the tokens come as they are made.
    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let (out, tokens) = unbounded_channel();
        let bytes = request.body().size_hint().lower();
        let answer = request.extensions().get().map_or(1, |AnswerLength(tokens)| *tokens);
        let extensions = request.extensions();
        let borrows =
            EngineHint::of(extensions).is_some_and(|hint| hint.class == SlotClass::Borrowed);
        // It can fail only after the run.
        let _ = self.queue.send(Sequence {
            prompt: u32::try_from(bytes / BYTES_PER_TOKEN).unwrap_or(u32::MAX),
            read: 0,
            answer,
            made: 0,
            out,
            meter: UsageMeter::of(extensions).cloned(),
            borrows,
            signal: YieldSignal::of(extensions).cloned(),
        });
        ready(Ok(Response::new(Answer(tokens))))
    }
}

/// An answer in the making, a frame for each token. Dropping it aborts the sequence before the next step.
pub(crate) struct Answer(UnboundedReceiver<()>);

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let token = ready_or_pending!(self.get_mut().0.poll_recv(cx));
        Poll::Ready(token.map(|()| Ok(Frame::data(Bytes::from_static(b" word")))))
    }
}

struct Sequence {
    prompt: u32,
    read: u32,
    answer: u32,
    made: u32,
    out: UnboundedSender<()>,
    meter: Option<UsageMeter>,
    borrows: bool,
    signal: Option<YieldSignal>,
}

impl Sequence {
    fn is_decoding(&self) -> bool {
        self.read >= self.prompt
    }

    fn is_asked_to_yield(&self) -> bool {
        self.signal.as_ref().is_some_and(YieldSignal::is_requested)
    }

    fn cached(&self) -> u64 {
        u64::from(self.read) + u64::from(self.made)
    }

    /// Hands out a token. True: it was the last.
    fn make(&mut self) -> bool {
        self.made += 1;
        let _ = self.out.send(());
        let ends = self.made >= self.answer;
        if let Some(meter) = &self.meter {
            if ends {
                meter.report(TokenUsage::new(self.prompt.into(), self.made.into()));
            } else {
                meter.charge(1);
            }
        }
        ends
    }
}

/// The engine's time, and what it has done.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    /// In microseconds, when the last step ended.
    now: AtomicU64,
    tally: Mutex<Tally>,
}

/// What the engine has done after the warm-up, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Of steps in the fullest batch that all its tokens are worth.
    pub(crate) work: f64,
    /// Of slots that were taken.
    pub(crate) slots: f64,
}

impl Gauge {
    /// When the tokens that are out now came.
    pub(crate) fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    pub(crate) fn tally(&self) -> Tally {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Run {
    speed: Speed,
    warm: Duration,
    gauge: Arc<Gauge>,
    origin: Instant,
    /// In microseconds, when the last step ended.
    at: u64,
    waiting: VecDeque<Sequence>,
    batch: Vec<Sequence>,
}

impl Run {
    async fn forever(
        mut self,
        queue: UnboundedSender<Sequence>,
        mut arrivals: UnboundedReceiver<Sequence>,
    ) {
        loop {
            if self.park(&queue) {
                settle().await;
            }
            while let Ok(sequence) = arrivals.try_recv() {
                self.waiting.push_back(sequence);
            }
            self.batch.retain(|sequence| !sequence.out.is_closed());
            while self.batch.len() < self.speed.sequences {
                let Some(next) = self.waiting.pop_front() else { break };
                if !next.out.is_closed() {
                    self.batch.push(next);
                }
            }
            if self.batch.is_empty() {
                let Some(sequence) = arrivals.recv().await else { return };
                self.waiting.push_back(sequence);
                self.at = self.at.max(self.origin.elapsed().as_micros() as u64);
            } else {
                self.step().await;
            }
        }
    }

    /// Parks who is asked to, each of whom comes back through the queue. Whether anybody was.
    fn park(&mut self, queue: &UnboundedSender<Sequence>) -> bool {
        let mut any = false;
        for sequence in self.batch.extract_if(.., |sequence| sequence.is_asked_to_yield()) {
            any = true;
            let queue = queue.clone();
            tokio::spawn(async move {
                if let Some(signal) = sequence.signal.clone()
                    && signal.parked().await
                {
                    let _ = queue.send(sequence);
                }
            });
        }
        any
    }

    async fn step(&mut self) {
        // In the order in which they came, of each kind.
        self.batch.sort_by_key(|sequence| sequence.borrows);
        let decoding = self.batch.iter().filter(|sequence| sequence.is_decoding()).count();
        let cached = self.batch.iter().map(Sequence::cached).sum();
        let mut room = self.speed.chunk.saturating_sub(decoding);
        let mut prefilled = 0;
        let mut work = 0.0;
        let mut out = Vec::with_capacity(self.batch.len());
        for (at, sequence) in self.batch.iter_mut().enumerate() {
            if !sequence.is_decoding() {
                let chunk = room.min((sequence.prompt - sequence.read) as usize);
                room -= chunk;
                sequence.read += chunk as u32;
                prefilled += chunk as u64;
            }
            if sequence.is_decoding() {
                work += self.speed.token(sequence.cached());
                out.push(at);
            }
        }
        let took = self.speed.step(decoding, cached, prefilled);
        self.at += (took * 1000.0) as u64;
        let end = Duration::from_micros(self.at);
        sleep_until(self.origin + end).await;
        self.gauge.now.store(self.at, Ordering::Relaxed);
        if end > self.warm {
            let mut tally = self.gauge.tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.work += work + self.speed.prefill * prefilled as f64;
            tally.slots += took * self.batch.len() as f64;
        }
        for at in out.into_iter().rev() {
            if self.batch.get_mut(at).is_some_and(Sequence::make) {
                self.batch.remove(at);
            }
        }
        settle().await;
    }
}

/// Time stands still while anybody has something to do: after this everybody has had his token, and whoever got a slot
/// has come here.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

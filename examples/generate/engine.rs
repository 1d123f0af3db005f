//! The inference engine: generates text from a prompt, token by token, at a set pace.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use palisade::{UsageMeter, reservation::TokenUsage};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::model::{self, END, Model, Random, TokenId};

const CORPUS: &str = include_str!("corpus.txt");

/// Generates text. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    model: Arc<Model>,
    pace: Duration,
    live: Arc<AtomicUsize>,
}

/// What to generate.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) prompt: String,
    pub(crate) max_tokens: u64,
    /// The same seed and prompt give the same text. Random if there is none.
    pub(crate) seed: Option<u64>,
    /// Goes on past the end of a text, up to `max_tokens`.
    pub(crate) ignore_eos: bool,
    /// The answer stands alone, so that its first word brings no space along.
    pub(crate) stands_alone: bool,
    /// What the caller has reserved, and is charged to step by step.
    pub(crate) meter: Option<UsageMeter>,
}

/// One generated token.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) id: TokenId,
    pub(crate) text: String,
    pub(crate) logprob: f64,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The model ended the text.
    Stop,
    /// `max_tokens`, or what the caller has left, was reached.
    Length,
}

impl Engine {
    /// Learns the corpus. Each sequence then gets `tokens_per_second`.
    pub(crate) fn start(tokens_per_second: f64) -> Self {
        Self {
            model: Arc::new(Model::learn(CORPUS)),
            pace: Duration::from_secs_f64(1.0 / tokens_per_second),
            live: Arc::default(),
        }
    }

    /// Begins to generate. Nothing runs but what is polled, so that dropping the generation stops it.
    pub(crate) fn generate(&self, call: Call) -> Generation {
        let seed = call.seed.unwrap_or_else(|| RandomState::new().hash_one(0_u8));
        let prompt_tokens = model::tokens(&call.prompt).count() as u64;
        let mut steps = interval(self.pace);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Generation {
            context: self.model.context(&call.prompt),
            model: Arc::clone(&self.model),
            random: Random::seeded(seed),
            steps,
            prompt_tokens,
            produced: 0,
            text: String::new(),
            finish: (call.max_tokens == 0).then_some(Finish::Length),
            max_tokens: call.max_tokens,
            ignore_eos: call.ignore_eos,
            stands_alone: call.stands_alone,
            meter: call.meter,
            _live: Live::new(&self.live),
        }
    }

    /// How many sequences are being generated now.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }
}

/// A text in the making.
#[derive(Debug)]
pub(crate) struct Generation {
    model: Arc<Model>,
    context: (TokenId, TokenId),
    random: Random,
    steps: Interval,
    prompt_tokens: u64,
    produced: u64,
    text: String,
    max_tokens: u64,
    ignore_eos: bool,
    stands_alone: bool,
    meter: Option<UsageMeter>,
    finish: Option<Finish>,
    _live: Live,
}

impl Generation {
    /// The next token, when it is time for it. `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Token> {
        if self.finish.is_some() {
            return None;
        }
        self.steps.tick().await;
        let (before, last) = self.context;
        let (mut id, mut logprob) = self.model.draw(before, last, &mut self.random);
        if id == END && self.produced == 0 {
            // A prompt that ends a text is answered by a new one.
            (id, logprob) = self.model.draw(END, END, &mut self.random);
        }
        if id == END && !self.ignore_eos {
            self.end(Finish::Stop);
            return None;
        }
        self.context = (last, id);
        self.produced += 1;
        metrics::counter!("generate_tokens_total").increment(1);
        let left = self.meter.as_ref().and_then(|meter| {
            meter.charge(1);
            meter.remaining()
        });
        if self.produced >= self.max_tokens || left == Some(0) {
            self.end(Finish::Length);
        }
        let mut text = self.model.text(id);
        if self.stands_alone && self.produced == 1 {
            text = text.trim_start().to_owned();
        }
        self.text.push_str(&text);
        Some(Token { id, text, logprob })
    }

    /// At the end the engine knows both counts. A generation that is dropped before has charged its steps.
    fn end(&mut self, finish: Finish) {
        self.finish = Some(finish);
        if let Some(meter) = &self.meter {
            meter.report(TokenUsage::new(self.prompt_tokens, self.produced));
        }
    }

    /// Generates to the end, and gives back what was still to come.
    pub(crate) async fn rest(&mut self) -> Vec<Token> {
        let mut tokens = Vec::new();
        while let Some(token) = self.next().await {
            tokens.push(token);
        }
        tokens
    }

    /// Why it ended, once it has. The last token of a text that reached its length says so already.
    pub(crate) fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// The text so far.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn prompt_tokens(&self) -> u64 {
        self.prompt_tokens
    }

    pub(crate) fn produced(&self) -> u64 {
        self.produced
    }
}

/// Counts a live sequence for as long as it is there.
#[derive(Debug)]
struct Live(Arc<AtomicUsize>);

impl Live {
    fn new(live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, Ordering::Relaxed);
        metrics::gauge!("generate_live_sequences").increment(1);
        Self(Arc::clone(live))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("generate_live_sequences").decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(prompt: &str, max_tokens: u64) -> Call {
        Call {
            prompt: prompt.to_owned(),
            max_tokens,
            seed: Some(7),
            ignore_eos: true,
            stands_alone: false,
            meter: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_text_has_as_many_tokens_as_were_asked_for() {
        let mut generation = Engine::start(100.0).generate(call("The keeper of the", 60));
        let tokens = generation.rest().await;
        assert_eq!((tokens.len(), generation.finish()), (60, Some(Finish::Length)));
        assert_eq!(tokens.iter().map(|token| &*token.text).collect::<String>(), generation.text());
        assert_eq!((generation.prompt_tokens(), generation.produced()), (4, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_come_at_the_pace_that_was_set() {
        let began = tokio::time::Instant::now();
        Engine::start(10.0).generate(call("The lamp", 21)).rest().await;
        assert_eq!(began.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_generation_that_is_dropped_is_not_live() {
        let engine = Engine::start(1000.0);
        let mut generation = engine.generate(call("The bridge", 1000));
        assert!(generation.next().await.is_some());
        assert_eq!(engine.live(), 1);
        drop(generation);
        assert_eq!(engine.live(), 0);
    }
}

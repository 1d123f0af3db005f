//! A model for furnace's scheduler, as slow as a real one is: a step takes longer the more streams are in it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use furnace::llm::{BoxError, Logits, Scheduled, SchedulerConfig, StepModel, mock};

/// Streams that the model decodes at once.
pub const SEQUENCES: usize = 64;
/// What a step takes by itself.
pub const STEP: Duration = Duration::from_micros(2000);
/// What each stream adds to it.
pub const STREAM: Duration = Duration::from_micros(20);
/// What a token of a prompt takes.
pub const PROMPT_TOKEN: Duration = Duration::from_micros(10);
/// Tokens of prompts between two steps.
pub const CHUNK: usize = 1024;

/// Says the same letter for ever: an answer is as long as the request allows.
#[derive(Debug, Default)]
pub struct Model {
    pub live: Arc<Live>,
}

/// Streams that the model has, and the most that it has had.
#[derive(Debug, Default)]
pub struct Live {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Live {
    pub fn now(&self) -> usize {
        self.now.load(Ordering::Acquire)
    }

    pub fn most(&self) -> usize {
        self.most.load(Ordering::Acquire)
    }
}

/// A stream that the model has.
#[derive(Debug)]
pub struct Sequence(Arc<Live>);

impl Sequence {
    fn new(live: &Arc<Live>) -> Self {
        let now = live.now.fetch_add(1, Ordering::AcqRel) + 1;
        live.most.fetch_max(now, Ordering::AcqRel);
        Self(Arc::clone(live))
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::AcqRel);
    }
}

impl StepModel for Model {
    type Sequence = Sequence;

    fn name(&self) -> &str {
        "slow"
    }

    fn max_context(&self) -> usize {
        32_768
    }

    fn max_sequences(&self) -> usize {
        SEQUENCES
    }

    fn prefill(&self, prompt: &[u32]) -> Result<(Sequence, Logits), BoxError> {
        thread::sleep(PROMPT_TOKEN * u32::try_from(prompt.len())?);
        Ok((Sequence::new(&self.live), letter()))
    }

    fn decode(&self, _: &mut Sequence, _: u32) -> Result<Logits, BoxError> {
        thread::sleep(STEP + STREAM);
        Ok(letter())
    }

    fn decode_batch(
        &self,
        sequences: &mut [&mut Sequence],
        _: &[u32],
    ) -> Vec<Result<Logits, BoxError>> {
        let streams = u32::try_from(sequences.len()).unwrap_or(u32::MAX);
        thread::sleep(STEP + STREAM * streams);
        sequences.iter().map(|_| Ok(letter())).collect()
    }
}

/// The model behind furnace's own scheduler, with a token for each byte.
pub fn scheduled(model: Model) -> Scheduled<Model> {
    // As many may wait as come: nothing but the layer refuses.
    let config =
        SchedulerConfig::default().with_max_waiting(1 << 20).with_max_prefill_tokens(CHUNK);
    Scheduled::with_config(model, mock::byte_pipeline(), config)
}

fn letter() -> Logits {
    let mut logits = vec![0.0; mock::EOS_ID as usize + 1];
    if let Some(letter) = logits.get_mut(usize::from(b'a')) {
        *letter = 10.0;
    }
    Logits(logits)
}

//! Who counts the tokens of a prompt, and where.

use std::{
    sync::{Arc, Mutex},
    thread::{self, ThreadId},
};

use futures_util::FutureExt as _;
use palisade::{
    inference::{ByteClasses, TokenEstimator},
    prompt_guard::PromptGuardLayerBuilder,
};

use crate::support::{CHAT, Kept, ask, chat, guard, post, refusal};

/// Counts bytes, and notes on which thread.
#[derive(Debug, Default)]
struct Noting {
    max: usize,
    threads: Mutex<Vec<ThreadId>>,
}

impl TokenEstimator for Noting {
    fn estimate(&self, text: &str) -> u64 {
        self.threads.lock().unwrap().push(thread::current().id());
        text.len() as u64
    }

    fn max_on_executor(&self) -> usize {
        self.max
    }
}

#[derive(Debug)]
struct Panics(usize);

impl TokenEstimator for Panics {
    fn estimate(&self, _: &str) -> u64 {
        panic!("it can't tell")
    }

    fn max_on_executor(&self) -> usize {
        self.0
    }
}

const PLAIN: &str = "What does a lighthouse do?";

/// What the limiter hears of the input of a request that passes.
async fn input(guard: PromptGuardLayerBuilder, text: &str, model: Option<&str>) -> u64 {
    let meter = Arc::new(Kept::default());
    let body = serde_json::json!({"inputs": text, "model": model.unwrap_or("any")});
    let mut request = post("/generate", body.to_string());
    meter.on(&mut request);
    ask(guard, request).await.1.only();
    let refined = meter.refined.lock().unwrap().pop().unwrap();
    refined.input
}

#[tokio::test]
async fn the_estimator_is_chosen_by_the_model() {
    let by_model = || {
        guard().estimator_by_model(|model| match model {
            Some("bytes") => Arc::new(Noting { max: usize::MAX, ..Noting::default() }),
            _ => Arc::new(ByteClasses),
        })
    };
    assert_eq!(input(by_model(), PLAIN, Some("bytes")).await, PLAIN.len() as u64);
    for other in [None, Some("Bytes"), Some("")] {
        assert_eq!(input(by_model(), PLAIN, other).await, ByteClasses.estimate(PLAIN));
    }
    assert_eq!(input(guard(), PLAIN, Some("bytes")).await, ByteClasses.estimate(PLAIN));
}

#[tokio::test]
async fn what_would_keep_the_executor_is_counted_elsewhere() {
    for (length, here) in [(1000, true), (5000, false)] {
        let estimator = Arc::new(Noting { max: 2000, ..Noting::default() });
        let guard = guard().estimator(Arc::clone(&estimator));
        assert_eq!(input(guard, &"a".repeat(length), None).await, length as u64);
        let threads = estimator.threads.lock().unwrap();
        assert_eq!(threads.len(), 1);
        assert_eq!(threads[0] == thread::current().id(), here);
    }
}

#[test]
fn without_a_runtime_it_is_counted_all_the_same() {
    let guard = guard().estimator(Noting { max: 2000, ..Noting::default() });
    assert_eq!(input(guard, &"a".repeat(5000), None).now_or_never(), Some(5000));
}

#[tokio::test]
async fn an_estimator_that_panics_refuses() {
    for max in [0, usize::MAX] {
        let meter = Arc::new(Kept::default());
        let mut request = post(CHAT, chat(PLAIN));
        meter.on(&mut request);
        let (answer, inner) = ask(guard().estimator(Panics(max)), request).await;
        assert_eq!(refusal(&answer), ("guard_unavailable", 503));
        assert!(inner.saw_nothing());
        assert!(meter.refined.lock().unwrap().is_empty());
    }
    let no_choice = || guard().estimator_by_model(|_| panic!("it can't choose"));
    let mut request = post(CHAT, chat(PLAIN));
    Arc::new(Kept::default()).on(&mut request);
    let (answer, inner) = ask(no_choice(), request).await;
    assert_eq!(refusal(&answer), ("guard_unavailable", 503));
    assert!(inner.saw_nothing());
    // Without a limiter nothing is counted.
    ask(no_choice(), post(CHAT, chat(PLAIN))).await.1.only();
}

#[cfg(feature = "bpe")]
#[tokio::test]
async fn an_exact_count_reaches_the_limiter() {
    use palisade::inference::Bpe;

    let long = "The lighthouse warns ships of the rocks. ".repeat(2000);
    assert!(long.len() > 64 << 10);
    for text in [PLAIN, long.as_str()] {
        for bpe in [Bpe::Cl100k, Bpe::O200k] {
            let exact = bpe.count_within(text, u64::MAX).unwrap();
            assert_eq!(input(guard().estimator(bpe), text, None).await, exact);
            assert_ne!(exact, ByteClasses.estimate(text));
        }
    }
}

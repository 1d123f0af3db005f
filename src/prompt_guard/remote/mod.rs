//! Detectors that another server runs (feature `http-client`).
//!
//! | detector | server | finds |
//! |---|---|---|
//! | [`TextClassifier`] | text-embeddings-inference, `POST /predict` | injection, by Prompt Guard 2 or PIGuard |
//! | [`Moderation`] | an OpenAI-compatible `POST /v1/moderations` | what its categories are |
//! | [`LlamaGuard`] | an OpenAI-compatible `POST /v1/chat/completions` | hazards S1 to S14 |
//! | [`Presidio`] | Presidio's analyzer, `POST /analyze` | personal data, names too, and where it stands |
//!
//! All take a [`RemoteServer`]: its address, its token, and how much of a prompt it is sent. Give them to
//! [`async_detector`](super::PromptGuardLayerBuilder::async_detector), which says how long they are waited for
//! and what happens when they can't tell.
//!
//! ```
//! use std::time::Duration;
//!
//! use palisade::{
//!     Secret,
//!     prompt_guard::{
//!         Action, AsyncLimits, OnUnavailable, PromptGuardLayer,
//!         remote::{RemoteServer, TextClassifier},
//!     },
//! };
//!
//! let token = Secret::new("hf_example".to_owned());
//! let server = RemoteServer::at("https://guard.example").bearer(&token);
//! let classifier = TextClassifier::builder(server).threshold(0.9).build()?;
//! let limits = AsyncLimits::within(Duration::from_millis(300)).concurrency(64);
//! let guard = PromptGuardLayer::builder()
//!     .async_detector(classifier, Action::Block, limits, OnUnavailable::Refuse)
//!     .build()?;
//! # let _ = guard;
//! # Ok::<(), palisade::BuildError>(())
//! ```
//!
//! # Scores
//! Each detector has thresholds of its own, and what stays below them is not found. What reaches them is put
//! on the guard's scale, where 0.8 is the threshold of a [`Rule`](super::Rule) unless it says otherwise: the
//! detector's threshold becomes 0.8, and 1 stays 1.
//!
//! # What is sent
//! The segments of a prompt that have one origin and belong to one message are sent as one text. A text that
//! is too long for the model is cut into windows that overlap. Instructions that are cut over two messages
//! are seen in parts, as by the model in two turns.
//!
//! # What is believed
//! Only status 200 and an answer of exactly the expected form, of at most 1 MiB. Anything else means that
//! the detector can't tell. No redirect is followed. No text of a prompt, of an answer or of an error stands in a log.

mod at_once;
mod classifier;
mod llama_guard;
mod moderation;
mod presidio;
mod server;
mod texts;

pub use self::{
    classifier::{TextClassifier, TextClassifierBuilder},
    llama_guard::{LlamaGuard, LlamaGuardBuilder},
    moderation::{Moderation, ModerationBuilder},
    presidio::{Presidio, PresidioBuilder},
    server::{Oversize, RemoteServer},
};
use crate::BuildError;

/// A threshold of a builder's.
fn check_threshold(threshold: f32) -> Result<(), BuildError> {
    if (0.0..=1.0).contains(&threshold) {
        return Ok(());
    }
    Err(BuildError::invalid("threshold", "it is not from 0 to 1"))
}

/// A score that reached its threshold, on the guard's scale.
fn on_scale(score: f32, threshold: f32) -> f32 {
    let above = (score - threshold) / (1.0 - threshold);
    // At a threshold of 1 nothing is above it.
    let above = if above.is_finite() { above.clamp(0.0, 1.0) } else { 1.0 };
    THRESHOLD + (1.0 - THRESHOLD) * above
}

/// Of a rule that says nothing else.
const THRESHOLD: f32 = 0.8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_becomes_that_of_the_guard() {
        for threshold in [0.0, 0.3, 0.5, 0.97] {
            assert!((on_scale(threshold, threshold) - 0.8).abs() < 1e-6);
            assert!((on_scale(1.0, threshold) - 1.0).abs() < 1e-6);
            assert!(on_scale((1.0 + threshold) / 2.0, threshold) > 0.89);
        }
        assert!(on_scale(1.0, 1.0) >= 0.8);
        for wrong in [-0.1, 1.1, f32::NAN] {
            assert!(check_threshold(wrong).is_err());
        }
    }
}

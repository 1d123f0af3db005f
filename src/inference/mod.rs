//! What the wire formats of inference endpoints mean: prompts in requests, token usage in answers.
//!
//! - [`Prompt`] reads a request body, once and strictly, and can rewrite its text in place.
//! - [`TokenEstimator`] says how many tokens a text is; [`ByteClasses`] does so without a tokenizer, and `Bpe` exactly
//!   (feature `bpe`).
//! - [`UsageReader`] reads what an answer says of its usage as it passes, and estimates what it does not say.
//! - A [`BodyAdapter`] makes formats readable that no public API has.
//! - [`EventReader`] splits an event stream into its events, byte for byte.
//!
//! All of them read hostile input: they are bounded in time and memory and never panic.

pub(crate) mod adapter;
#[cfg(feature = "prompt-guard")]
pub(crate) mod answer;
pub(crate) mod json;
pub(crate) mod lines;
mod request;
mod sse;
mod tokens;
mod usage;

#[cfg(feature = "prompt-guard")]
pub(crate) use self::request::is_prompt_member;
#[cfg(feature = "bpe")]
pub use self::tokens::Bpe;
pub use self::{
    adapter::{AdapterError, BodyAdapter, BodyTexts},
    request::{Edit, Origin, Prompt, ReadError, ReadErrorKind, ReadLimits, Segment, Unread},
    sse::{Event, EventReader},
    tokens::{ByteClasses, RunningEstimate, TokenEstimator},
    usage::UsageReader,
};

//! The handle on what a request has reserved: how the limiter, the guard and the handler meet.
//!
//! `TieredRateLimitLayer` reserves before the body is read and puts a [`UsageMeter`] in the
//! request's extensions. The guard refines the reservation when it has parsed the prompt. A handler
//! with an engine of its own reports what it really uses; for any other, the layer reads the usage
//! from the answer as it passes. It is settled exactly once, whatever becomes of the request.

use std::{fmt::Debug, sync::Arc};

use http::Extensions;

use crate::{future::ReadyOr, reject::Rejection};

/// Tokens that a request used, or is thought to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenUsage {
    /// Tokens of the prompt, cached ones included.
    pub input: u64,
    /// Tokens of the answer, reasoning included.
    pub output: u64,
    /// Of the prompt's tokens, those that were read from a cache. No more than `input`.
    pub cached_input: u64,
    /// Of the answer's tokens, those of reasoning. No more than `output`.
    pub reasoning: u64,
}

impl TokenUsage {
    /// So many tokens of the prompt and of the answer.
    #[must_use]
    pub const fn new(input: u64, output: u64) -> Self {
        Self { input, output, cached_input: 0, reasoning: 0 }
    }

    /// With so many tokens of the prompt read from a cache; more than it has count as all.
    #[must_use]
    pub fn with_cached_input(self, tokens: u64) -> Self {
        Self { cached_input: tokens.min(self.input), ..self }
    }

    /// With so many tokens of the answer that are reasoning; more than it has count as all.
    #[must_use]
    pub fn with_reasoning(self, tokens: u64) -> Self {
        Self { reasoning: tokens.min(self.output), ..self }
    }

    /// Both together.
    #[must_use]
    pub fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

/// What a request has reserved, for the handler to report to and read from. Cheap to clone.
///
/// An engine in the same process charges each decode step, and ends an answer cleanly, as it does at `max_tokens`, when the
/// caller's tokens are used up:
///
/// ```
/// # #[cfg(feature = "rate-limit")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// use http::{Request, Response};
/// use palisade::{
///     identity::{Identity, UserIdentity},
///     rate_limit::{Tier, TieredRateLimitLayer},
///     reservation::{TokenUsage, UsageMeter},
///     store::Stores,
/// };
/// use tower::{ServiceBuilder, ServiceExt};
///
/// async fn generate(request: Request<String>) -> Result<Response<String>, std::convert::Infallible> {
///     let meter = UsageMeter::of(request.extensions());
///     let (mut answer, mut finish_reason) = (String::new(), "stop");
///     // In the place of PromptGuardLayer: two tokens of prompt, and as many of the answer as there are.
///     if let Some(meter) = meter {
///         let _ = meter.refine(TokenUsage::new(2, 1000)).await;
///     }
///     for token in ["Be", "ware", " of", " the", " rocks", "."] {
///         if meter.is_some_and(|meter| meter.remaining() == Some(0)) {
///             finish_reason = "length";
///             break;
///         }
///         answer += token;
///         meter.inspect(|meter| meter.charge(1));
///     }
///     Ok(Response::new(format!("{finish_reason}: {answer}")))
/// }
///
/// let limits = TieredRateLimitLayer::builder(&Stores::in_memory())
///     .tier("free", Tier::new().tokens_per_minute(6))
///     .fallback_tier("free")
///     .default_output_tokens(0)
///     // Rather than refuse a request whose max_tokens are more than is left.
///     .grant_fewer_output_tokens(1)
///     .build()?;
/// let service = ServiceBuilder::new().layer(limits).service_fn(generate);
///
/// let mut request = Request::post("/generate").header("content-length", "8").body("Warn me.".into())?;
/// let user = UserIdentity::asserted("https://login.example", "alice");
/// request.extensions_mut().insert(Identity::asserted(user));
/// let answer = service.oneshot(request).await?.into_body();
/// # use http_body_util::BodyExt as _;
/// assert_eq!(answer.collect().await?.to_bytes(), "length: Beware of the");
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "rate-limit"))]
/// # fn main() {}
/// ```
///
/// What remains is as it stood when the request was admitted or last refined: of several answers at a time that a caller
/// has, each may run into what another uses, and what is used beyond is the caller's debt.
#[derive(Clone, Debug)]
pub struct UsageMeter(Arc<dyn Meter>);

impl UsageMeter {
    /// The meter of a request that `TieredRateLimitLayer` admitted.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// A handle on `meter`.
    pub fn new(meter: Arc<dyn Meter>) -> Self {
        Self(meter)
    }

    /// Adds `output_tokens` to what the handler says was used: for each decode step. From then on the
    /// handler's word is the truth, and what the answer says of its usage is not read.
    pub fn charge(&self, output_tokens: u64) {
        self.0.charge(output_tokens);
    }

    /// Says what was used in all, in the place of what was charged or observed before.
    pub fn report(&self, usage: TokenUsage) {
        self.0.report(usage);
    }

    /// Tokens the caller has left beyond what this request used so far: the least of its token limits, or
    /// `None` if it has none. As it stood when the request was admitted or last refined.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        self.0.remaining()
    }

    /// Tokens that the answer may have, once the estimate was [refined](Self::refine): what the refinement asked for, or
    /// fewer where the layer grants fewer rather than none
    /// ([`grant_fewer_output_tokens`](crate::rate_limit::TieredRateLimitLayerBuilder::grant_fewer_output_tokens)).
    /// A handler lowers `max_tokens` to it. `None` before that.
    #[must_use]
    pub fn granted_output_tokens(&self) -> Option<u64> {
        self.0.granted_output_tokens()
    }

    /// Replaces the estimate of the admission by a better one, once the prompt is parsed. Less is
    /// given back when the request ends; more is reserved now, and may be refused.
    ///
    /// Dropping the future before it is ready gives back what it took.
    pub fn refine(&self, estimate: TokenUsage) -> Refined {
        self.refine_for(None, estimate)
    }

    /// The same, and says which model the request is for, by which some limits count
    /// ([`TierLimit::only_models`](crate::rate_limit::TierLimit::only_models),
    /// [`each_model`](crate::rate_limit::TierLimit::each_model), [`cost`](crate::rate_limit::TierLimit::cost)). `None`: it names
    /// none. The first refinement decides: `PromptGuardLayer`'s, where there is one.
    pub fn refine_for(&self, model: Option<&str>, estimate: TokenUsage) -> Refined {
        Arc::clone(&self.0).refine(model, estimate)
    }

    /// Notes the usage that an answer states, or an estimate of it so far. Not heard once the handler has spoken.
    pub fn observe(&self, observed: Observed) {
        self.0.observe(observed);
    }
}

/// Resolves when a better estimate is reserved, or to the refusal.
pub type Refined = ReadyOr<Result<(), Rejection>>;

/// What can be seen of a request's usage from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Observed {
    /// The answer states its usage.
    Stated(TokenUsage),
    /// The answer has this many output tokens so far, by estimate. Counts only if the answer is cut short.
    OutputSoFar(u64),
    /// The guard cut or rewrote the answer: this many output tokens, by estimate, were let through.
    LetThrough(u64),
    /// The guard withheld a whole answer that the model had given, and which states this usage, if any. It is paid
    /// like one that was let through: who makes the model say what is blocked does not get the model for nothing.
    Withheld(Option<TokenUsage>),
}

/// What stands behind a [`UsageMeter`]. Every method may be called from any thread, with or
/// without a runtime, before or after the reservation was settled; afterwards nothing has an effect.
pub trait Meter: Debug + Send + Sync + 'static {
    /// See [`UsageMeter::charge`].
    fn charge(&self, output_tokens: u64);
    /// See [`UsageMeter::report`].
    fn report(&self, usage: TokenUsage);
    /// See [`UsageMeter::observe`].
    fn observe(&self, observed: Observed);
    /// See [`UsageMeter::remaining`].
    fn remaining(&self) -> Option<u64>;
    /// See [`UsageMeter::granted_output_tokens`].
    fn granted_output_tokens(&self) -> Option<u64>;
    /// See [`UsageMeter::refine_for`].
    fn refine(self: Arc<Self>, model: Option<&str>, estimate: TokenUsage) -> Refined;
}

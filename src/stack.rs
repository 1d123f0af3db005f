//! The layers in one, in the order in which they must stand.

use tower_layer::{Identity, Layer};

/// The layers in their right order, whatever the order in which they are given. Each may be left out.
///
/// ```
/// # #[cfg(all(feature = "rate-limit", feature = "prompt-guard"))] {
/// use palisade::{Stack, prompt_guard::PromptGuardLayer, rate_limit::{Tier, TieredRateLimitLayer}, store::Stores};
///
/// # fn build() -> Result<(), palisade::BuildError> {
/// let limits = TieredRateLimitLayer::builder(&Stores::in_memory())
///     .tier("free", Tier::new().tokens_per_minute(10_000))
///     .build()?;
/// let stack = Stack::new()
///     .prompt_guard(PromptGuardLayer::builder().build()?)
///     .rate_limit(limits);
/// // let app = Router::new().route("/generate", post(generate)).layer(stack);
/// # let _ = stack;
/// # Ok(())
/// # }
/// # build().unwrap();
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Stack<P = Identity, J = Identity, R = Identity, G = Identity> {
    peer_cert: P,
    jwt: J,
    rate_limit: R,
    prompt_guard: G,
}

impl Stack {
    /// No layer yet.
    #[must_use]
    pub fn new() -> Self {
        let none = Identity::new;
        Self { peer_cert: none(), jwt: none(), rate_limit: none(), prompt_guard: none() }
    }
}

impl Default for Stack {
    fn default() -> Self {
        Self::new()
    }
}

impl<P, J, R, G> Stack<P, J, R, G> {
    /// With the layer that knows the workload: the first that a request meets.
    #[must_use]
    pub fn peer_cert<T>(self, layer: T) -> Stack<T, J, R, G> {
        let Self { jwt, rate_limit, prompt_guard, .. } = self;
        Stack { peer_cert: layer, jwt, rate_limit, prompt_guard }
    }

    /// With the layer that knows the caller.
    #[must_use]
    pub fn jwt<T>(self, layer: T) -> Stack<P, T, R, G> {
        let Self { peer_cert, rate_limit, prompt_guard, .. } = self;
        Stack { peer_cert, jwt: layer, rate_limit, prompt_guard }
    }

    /// With the layer that knows how much the caller may use.
    #[must_use]
    pub fn rate_limit<T>(self, layer: T) -> Stack<P, J, T, G> {
        let Self { peer_cert, jwt, prompt_guard, .. } = self;
        Stack { peer_cert, jwt, rate_limit: layer, prompt_guard }
    }

    /// With the layer that reads what is asked and answered: the last before the model.
    #[must_use]
    pub fn prompt_guard<T>(self, layer: T) -> Stack<P, J, R, T> {
        let Self { peer_cert, jwt, rate_limit, .. } = self;
        Stack { peer_cert, jwt, rate_limit, prompt_guard: layer }
    }
}

impl<S, P, J, R, G> Layer<S> for Stack<P, J, R, G>
where
    G: Layer<S>,
    R: Layer<G::Service>,
    J: Layer<R::Service>,
    P: Layer<J::Service>,
{
    type Service = P::Service;

    fn layer(&self, inner: S) -> Self::Service {
        let inner = self.rate_limit.layer(self.prompt_guard.layer(inner));
        self.peer_cert.layer(self.jwt.layer(inner))
    }
}

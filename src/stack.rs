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
pub struct Stack<P = Identity, J = Identity, R = Identity, G = Identity, O = Identity> {
    outermost: O,
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
        Self {
            outermost: none(),
            peer_cert: none(),
            jwt: none(),
            rate_limit: none(),
            prompt_guard: none(),
        }
    }
}

impl Default for Stack {
    fn default() -> Self {
        Self::new()
    }
}

impl<P, J, R, G, O> Stack<P, J, R, G, O> {
    /// With a layer that a request meets before anybody asks who sends it:
    /// `TieredRateLimitLayer::before_authentication`.
    #[must_use]
    pub fn before_authentication<T>(self, layer: T) -> Stack<P, J, R, G, T> {
        let Self { peer_cert, jwt, rate_limit, prompt_guard, .. } = self;
        Stack { outermost: layer, peer_cert, jwt, rate_limit, prompt_guard }
    }

    /// With the layer that knows the workload: the first that asks who it is.
    #[must_use]
    pub fn peer_cert<T>(self, layer: T) -> Stack<T, J, R, G, O> {
        let Self { outermost, jwt, rate_limit, prompt_guard, .. } = self;
        Stack { outermost, peer_cert: layer, jwt, rate_limit, prompt_guard }
    }

    /// With the layer that knows the caller.
    #[must_use]
    pub fn jwt<T>(self, layer: T) -> Stack<P, T, R, G, O> {
        let Self { outermost, peer_cert, rate_limit, prompt_guard, .. } = self;
        Stack { outermost, peer_cert, jwt: layer, rate_limit, prompt_guard }
    }

    /// With the layer that knows how much the caller may use.
    #[must_use]
    pub fn rate_limit<T>(self, layer: T) -> Stack<P, J, T, G, O> {
        let Self { outermost, peer_cert, jwt, prompt_guard, .. } = self;
        Stack { outermost, peer_cert, jwt, rate_limit: layer, prompt_guard }
    }

    /// With the layer that reads what is asked and answered: the last before the model.
    #[must_use]
    pub fn prompt_guard<T>(self, layer: T) -> Stack<P, J, R, T, O> {
        let Self { outermost, peer_cert, jwt, rate_limit, .. } = self;
        Stack { outermost, peer_cert, jwt, rate_limit, prompt_guard: layer }
    }
}

impl<S, P, J, R, G, O> Layer<S> for Stack<P, J, R, G, O>
where
    G: Layer<S>,
    R: Layer<G::Service>,
    J: Layer<R::Service>,
    P: Layer<J::Service>,
    O: Layer<P::Service>,
{
    type Service = O::Service;

    fn layer(&self, inner: S) -> Self::Service {
        let inner = self.rate_limit.layer(self.prompt_guard.layer(inner));
        self.outermost.layer(self.peer_cert.layer(self.jwt.layer(inner)))
    }
}

//! The service: admit on headers, before anything is read.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response, header};
use http_body::Body;
use tower_service::Service;

use super::{
    body::MeteredBody,
    fair::{Asking, Wish},
    future::{Next, State, TieredRateLimitFuture, Waiting},
    layer::Config,
    ready_tier::ReadyTier,
    reservation::Reservation,
    scope::Asker,
    shadow::ShadowKeys,
};
use crate::{
    body::ResponseBody,
    identity::{Identity, Stage},
    reject::{Rejection, RejectionKind},
    reservation::{TokenUsage, UsageMeter},
    route::{Endpoint, Route},
    store::{Inline, Key},
};

/// A service whose requests are held to the limits of their callers' tiers. See the
/// [module docs](crate::rate_limit).
#[derive(Clone, Debug)]
pub struct TieredRateLimit<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> TieredRateLimit<S> {
    pub(super) fn new(inner: S, config: Arc<Config>) -> Self {
        Self { inner, config }
    }
}

impl<S, B, R> Service<Request<B>> for TieredRateLimit<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    R: Body<Data = bytes::Bytes>,
{
    type Response = Response<ResponseBody<MeteredBody<R>>>;
    type Error = S::Error;
    type Future = TieredRateLimitFuture<S, B>;

    /// Always ready: the inner service is driven to readiness after admission, so that a request
    /// which waits for the store holds none of its permits.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = request.method().clone();
        let (endpoint, state) = match self.config.routes.classify(&request) {
            Route::Exempt => (Endpoint::Other, State::unmetered(self.inner.clone(), request)),
            Route::Guarded(endpoint) => (endpoint, self.admit(request, endpoint)),
        };
        TieredRateLimitFuture::new(Arc::clone(&self.config), endpoint, method, state)
    }
}

impl<S> TieredRateLimit<S> {
    fn admit<B>(&self, mut request: Request<B>, endpoint: Endpoint) -> State<S, B>
    where
        S: Service<Request<B>> + Clone,
    {
        let (wanted, asking) = match Wanted::of(&mut request, &self.config) {
            Ok(wanted) => wanted,
            Err(rejection) => return State::refused(rejection),
        };
        let reservation = Reservation::ask(&self.config, endpoint, wanted);
        let mut answer = reservation.acquire();
        let service = self.inner.clone();
        match answer.now() {
            Some(decision) => {
                let next = Next::of(decision, reservation, asking, &mut request, &self.config);
                State::of(next, service, request)
            }
            None => State::waiting(Waiting { answer, reservation, asking, service, request }),
        }
    }
}

/// What a request wants to be admitted with.
pub(super) struct Wanted {
    pub(super) tier: Arc<ReadyTier>,
    /// The records that count the tier's limits.
    pub(super) keys: Inline<Key>,
    pub(super) estimate: TokenUsage,
    /// The same of the limits that are only counted.
    pub(super) shadow: Option<Box<ShadowKeys>>,
}

impl Wanted {
    /// Who asks, in which tier, and for how many tokens as far as its headers tell; and for what of the engine, where that
    /// is shared.
    fn of<B>(
        request: &mut Request<B>,
        config: &Config,
    ) -> Result<(Self, Option<Asking>), Rejection> {
        let length = length(request.headers());
        let input = length.map(|bytes| bytes.div_ceil(config.bytes_per_token));
        let input = input.unwrap_or(config.default_input_tokens);
        // Before authentication nothing is known of what they are for, and nothing is asked of the engine.
        let is_within = !config.is_before_authentication();
        let usage = TokenUsage::new(input, config.default_output_tokens);
        let usage = if is_within { usage } else { TokenUsage::default() };
        let body = length.unwrap_or_else(|| input.saturating_mul(config.bytes_per_token));
        let fair = config.fair.as_ref().filter(|_| is_within);
        let fair = fair.map(|fair| (fair, Wish::of(request, body, usage)));
        if fair.is_some() && UsageMeter::of(request.extensions()).is_some() {
            return Err(metered_twice());
        }
        let tier = choose_tier(request, config)?;
        let identity = Identity::of_anybody(request.extensions());
        let address = || config.client.find(request.headers(), request.extensions());
        let asker = Asker { config, identity, tier: &tier.name, address: &address };
        let (keys, shadow) = tier.records(&asker)?;
        let asking = fair.map(|(fair, wish)| fair.ask(&asker, &wish)).transpose()?;
        // A length says little of images or of JSON's own characters: by itself it never refuses.
        // Nor does the guess at the answer, in a tier that admits less at once.
        let estimate = tier.clamp(usage);
        Ok((Self { tier, keys, estimate, shadow }, asking))
    }
}

/// The tier of who asks. Within authentication, those within are told of it.
fn choose_tier<B>(request: &mut Request<B>, config: &Config) -> Result<Arc<ReadyTier>, Rejection> {
    if config.is_before_authentication() {
        return config.tier(Identity::of_anybody(request.extensions()));
    }
    let identity = Identity::enter(request.extensions_mut(), Stage::RateLimit)?;
    let tier = config.tier(identity)?;
    identity.set_tier(Some(Arc::clone(&tier.name)));
    Ok(tier)
}

/// Puts the meter where the guard and the handler find it.
pub(super) fn leave_meter<B>(request: &mut Request<B>, reservation: &Arc<Reservation>) {
    let meter = UsageMeter::new(Arc::clone(reservation) as _);
    request.extensions_mut().insert(meter);
}

/// How long the body is, as far as the headers tell.
fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The meter of the layer outside would be lost to those within.
fn metered_twice() -> Rejection {
    const MESSAGE: &str = "The server has fair admission within another layer that meters. \
         TieredRateLimitLayer does both: TieredRateLimitLayer::builder(..).fair(..).";
    Rejection::new(RejectionKind::Misconfigured, "metered_twice", MESSAGE)
}

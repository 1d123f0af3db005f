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
    future::{State, TieredRateLimitFuture, Waiting},
    headers,
    layer::{Config, Outage},
    reservation::{Granted, Reservation},
    tier::ReadyTier,
};
use crate::{
    body::ResponseBody,
    identity::{Identity, Stage},
    observe,
    reject::{Rejection, RejectionKind},
    reservation::{TokenUsage, UsageMeter},
    route::{Endpoint, Route},
    store::{Admission, Decision, Key, Refusal, ReservationId, StoreError},
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
        let wanted = match Wanted::of(&mut request, &self.config) {
            Ok(wanted) => wanted,
            Err(rejection) => return State::refused(rejection),
        };
        let id = ReservationId::next();
        let charges = wanted.tier.charges(wanted.record, wanted.estimate.total());
        let answer = self.config.store.acquire(&Admission::new(id, charges.as_slice()));
        let waiting = Waiting { service: self.inner.clone(), request, id, wanted };
        match answer.try_now() {
            Ok(decision) => waiting.decided(decision, &self.config, endpoint),
            Err(answer) => State::waiting(answer, waiting),
        }
    }
}

/// What a request wants to be admitted with.
pub(super) struct Wanted {
    tier: Arc<ReadyTier>,
    record: Key,
    estimate: TokenUsage,
}

impl Wanted {
    /// Who asks, in which tier, and for how many tokens as far as its headers tell.
    fn of<B>(request: &mut Request<B>, config: &Config) -> Result<Self, Rejection> {
        let estimate = input_estimate(request.headers(), config);
        let identity = Identity::enter(request.extensions_mut(), Stage::RateLimit)?;
        let user = identity.known_user()?;
        let (issuer, subject) = (user.issuer().as_bytes(), user.subject().as_bytes());
        let record = config.pepper.key("subject").with(issuer).with(subject).finish();
        let tier = Arc::clone(config.tier(identity).ok_or_else(no_tier)?);
        identity.set_tier(Some(Arc::clone(&tier.name)));
        // A length says little of images or of JSON's own characters: by itself it never refuses.
        // Nor does the guess at the answer, in a tier that admits less at once.
        let capacity = tier.token_capacity();
        let output = config.default_output_tokens.min(capacity);
        let estimate = TokenUsage::new(estimate.min(capacity - output), output);
        Ok(Self { tier, record, estimate })
    }

    /// What the store's answer means: a reservation, a refusal, or a request that goes unmetered.
    pub(super) fn decided(
        self,
        id: ReservationId,
        decision: Result<Decision, StoreError>,
        config: &Arc<Config>,
        endpoint: Endpoint,
    ) -> Result<Option<Arc<Reservation>>, Rejection> {
        let Self { tier, record, estimate } = self;
        match decision {
            Ok(Decision::Admitted(grant)) => {
                let granted = Granted { id, estimate, grant };
                let config = Arc::clone(config);
                observe::admitted("rate_limit");
                Ok(Some(Arc::new(Reservation::new(config, tier, record, endpoint, granted))))
            }
            Ok(Decision::Refused(Refusal { index, retry_after, standings, .. })) => {
                let (standings, unix) = (standings.as_slice(), config.clock.unix());
                Err(headers::rejection(&tier, Some(index), retry_after, standings, endpoint, unix))
            }
            Err(error) => {
                let refusal = headers::unavailable(&error);
                match config.on_outage {
                    Outage::Refuse => Err(refusal),
                    Outage::InsecureAdmit => {
                        observe::count("palisade_unmetered_total", &[("layer", "rate_limit")]);
                        Ok(None)
                    }
                }
            }
        }
    }
}

/// Puts the meter where the guard and the handler find it.
pub(super) fn leave_meter<B>(request: &mut Request<B>, reservation: &Arc<Reservation>) {
    let meter = UsageMeter::new(Arc::clone(reservation) as _);
    request.extensions_mut().insert(meter);
}

/// About four bytes of a request are a token.
fn input_estimate(headers: &HeaderMap, config: &Config) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length: Option<u64> = length.and_then(|value| value.parse().ok());
    length.map_or(config.default_input_tokens, |bytes| bytes.div_ceil(4))
}

fn no_tier() -> Rejection {
    let message = "Your account has no tier that may use this service.";
    Rejection::new(RejectionKind::Forbidden, "no_tier", message)
}

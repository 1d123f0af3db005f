//! The service: finds the token, has it verified, and writes down whose it is.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, Response};
use tower_service::Service;

use super::{
    AuthError, Presented, Scheme,
    challenge::Asked,
    credentials::{self, Credential},
    future::{JwtAuthFuture, Pending},
    layer::Config,
    throttle::Throttle,
};
use crate::{
    Rejection, RejectionKind,
    body::{Ending, ResponseBody, Term},
    future::ReadyOr,
    identity::{Identity, Stage, UserIdentity},
    observe,
    route::{Endpoint, Route},
};

/// The service of [`JwtAuthLayer`](super::JwtAuthLayer).
#[derive(Clone)]
pub struct JwtAuth<S> {
    inner: S,
    config: Arc<Config>,
}

/// What the verifier says.
pub(crate) type Verdict = Result<Arc<UserIdentity>, AuthError>;

impl<S> JwtAuth<S> {
    pub(crate) fn new(inner: S, config: Arc<Config>) -> Self {
        Self { inner, config }
    }
}

impl<S, B, R> Service<Request<B>> for JwtAuth<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = JwtAuthFuture<S, B>;

    /// Always ready: the inner service is readied once the token is known to hold.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> JwtAuthFuture<S, B> {
        let metadata = self.config.metadata.as_ref();
        if let Some(answer) = metadata.and_then(|metadata| metadata.answers(&request)) {
            return JwtAuthFuture::answered(answer);
        }
        let Route::Guarded(endpoint) = self.config.routes.classify(&request) else {
            return JwtAuthFuture::inner(self.inner.clone(), request, None);
        };
        let refuse = |rejection| JwtAuthFuture::refused(rejection, &self.config, endpoint);
        let (scheme, answer) = match self.config.ask(&request) {
            Ok(asked) => asked,
            Err(rejection) => return refuse(rejection),
        };
        self.config.hide_token(&mut request);
        let verdict = match answer.map(ReadyOr::try_now).transpose() {
            Ok(verdict) => verdict,
            Err(pending) => {
                let (inner, config) = (self.inner.clone(), Arc::clone(&self.config));
                return JwtAuthFuture::waiting(Pending::new(
                    pending, inner, request, config, endpoint, scheme,
                ));
            }
        };
        match self.config.admit(&mut request, scheme, verdict) {
            Ok(()) => {
                let nonce = self.config.nonce(scheme);
                let ending = self.config.ending(&request, endpoint);
                JwtAuthFuture::inner(self.inner.clone(), request, ending).with_nonce(nonce)
            }
            Err(rejection) => refuse(rejection),
        }
    }
}

impl Config {
    /// Puts the request's token to the verifier. `None` for a request that may go without.
    fn ask<B>(
        &self,
        request: &Request<B>,
    ) -> Result<(Scheme, Option<ReadyOr<Verdict>>), Rejection> {
        let dpop = self.verifier.dpop();
        let (scheme, token) = match credentials::find(request.headers(), self.api_key_header) {
            Ok(Credential::Token(token)) => (Scheme::Bearer, token),
            Ok(Credential::Dpop(token)) if dpop.is_some() => (Scheme::Dpop, token),
            Ok(Credential::Nothing) if self.optional => return Ok((Scheme::Bearer, None)),
            Ok(_) => {
                let scope = &self.access.missing(request, None).list();
                let asked = Asked { scope, dpop, ..Asked::default() };
                return Err(self.challenger.missing(asked));
            }
            Err(why) => {
                return Err(self.challenger.unreadable(why, Asked { dpop, ..Asked::default() }));
            }
        };
        let presented = Presented::by(request, token).with_scheme(scheme);
        Ok((scheme, Some(self.verify(&presented)?)))
    }

    /// Asks the verifier, unless the token's network got too many wrong. A token that is remembered is
    /// verified in any case, and is no guess even if it has expired meanwhile.
    fn verify(&self, presented: &Presented<'_>) -> Result<ReadyOr<Verdict>, Rejection> {
        let throttle = self.throttle.as_ref();
        let network =
            throttle.and_then(|throttle| throttle.network(presented.headers, presented.extensions));
        let (Some(throttle), Some(network)) = (throttle, network) else {
            return Ok(self.verifier.verify(presented));
        };
        if let Some(wait) = throttle.wait(network)
            && !self.verifier.remembers(presented)
        {
            return Err(Throttle::refused(wait));
        }
        match self.verifier.verify(presented).try_now() {
            Ok(verdict) => {
                if verdict.is_err() && !self.verifier.remembers(presented) {
                    throttle.note(network, &verdict);
                }
                Ok(ReadyOr::ready(verdict))
            }
            Err(pending) if self.verifier.remembers(presented) => Ok(pending),
            Err(pending) => Ok(throttle.noting(network, pending)),
        }
    }

    fn hide_token<B>(&self, request: &mut Request<B>) {
        let dpop = self.verifier.dpop().is_some();
        credentials::hide(request.headers_mut(), self.api_key_header, dpop, self.strip_token);
    }

    /// What the next proof must have, told with every answer to a request that had one: RFC 9449,
    /// section 9.2.
    pub(crate) fn nonce(&self, scheme: Scheme) -> Option<HeaderValue> {
        match scheme {
            Scheme::Dpop => self.verifier.dpop()?.nonce(),
            Scheme::Bearer => None,
        }
    }

    /// When the answer to an admitted request has to end.
    pub(crate) fn ending<B>(
        &self,
        request: &Request<B>,
        endpoint: Endpoint,
    ) -> Option<Box<Ending>> {
        const MESSAGE: &str = "The access token has expired while the answer was running.";
        let clock = self.ends_streams.as_ref()?;
        let expiry = Identity::of(request.extensions())?.user()?.expires_at()?;
        // A token that is past its `exp`, as leeways allow, has its answer heard out for as long.
        let at = Duration::from_secs(expiry).max(clock.unix()).saturating_add(EXPIRY_GRACE);
        let why = Rejection::new(RejectionKind::Unauthenticated, "token_expired", MESSAGE);
        let term = Term::until(at, Arc::clone(clock));
        Some(Box::new(Ending::after(term, why, endpoint.error_format())))
    }

    /// Writes down the caller, if the token holds and grants enough. No verdict is nobody.
    pub(crate) fn admit<B>(
        &self,
        request: &mut Request<B>,
        scheme: Scheme,
        verdict: Option<Verdict>,
    ) -> Result<(), Rejection> {
        let missing = |user| self.access.missing(request, user);
        let dpop = self.verifier.dpop();
        let challenger = &self.challenger;
        let user = match verdict.transpose() {
            Ok(user) => user,
            Err(error) => {
                let scope = &missing(None).list();
                return Err(challenger.refused(&error, Asked { scheme, scope, dpop }));
            }
        };
        if !self.access.admit(request, user.as_deref()) {
            let missing = missing(user.as_deref());
            let asked = Asked { scheme, scope: &missing.list(), dpop };
            return Err(match user {
                Some(_) => challenger.insufficient(&missing, asked),
                None => challenger.missing(asked),
            });
        }
        let identity = Identity::enter(request.extensions_mut(), Stage::JwtAuth)?;
        if user.as_ref().is_some_and(|user| !identity.may_carry(user.issuer())) {
            return Err(wrong_carrier());
        }
        // Always written, nobody included: what stood there before was nobody's business here.
        identity.set_user(user);
        observe::admitted("jwt");
        Ok(())
    }
}

/// `PeerCertLayer` was told who may present this issuer's tokens. Another token would not help.
fn wrong_carrier() -> Rejection {
    const MESSAGE: &str = "This client may not present access tokens of their issuer.";
    Rejection::new(RejectionKind::Forbidden, "carrier_not_allowed", MESSAGE)
}

/// The leeway of a resource server, unless it was told another.
const EXPIRY_GRACE: Duration = Duration::from_secs(30);

impl<S: fmt::Debug> fmt::Debug for JwtAuth<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtAuth").field("inner", &self.inner).finish_non_exhaustive()
    }
}

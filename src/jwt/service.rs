//! The service: finds the token, has it verified, and writes down whose it is.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderValue, Request, Response};
use tower_service::Service;

use super::{
    AuthError, Presented, Scheme,
    challenge::Asked,
    credentials::{self, Credential},
    future::{JwtAuthFuture, Pending},
    layer::Config,
};
use crate::{
    Rejection,
    body::ResponseBody,
    future::ReadyOr,
    identity::{Identity, Stage, UserIdentity},
    observe,
    route::Route,
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
        let Route::Guarded(endpoint) = self.config.routes.classify(&request) else {
            return JwtAuthFuture::inner(self.inner.clone(), request);
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
                JwtAuthFuture::inner(self.inner.clone(), request).with_nonce(nonce)
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
                let scope = &self.scopes.list(request);
                let asked = Asked { scope, dpop, ..Asked::default() };
                return Err(self.challenger.missing(asked));
            }
            Err(why) => {
                return Err(self.challenger.unreadable(why, Asked { dpop, ..Asked::default() }));
            }
        };
        let presented = Presented::by(request, token).with_scheme(scheme);
        Ok((scheme, Some(self.verifier.verify(&presented))))
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

    /// Writes down the caller, if the token holds and grants enough. No verdict is nobody.
    pub(crate) fn admit<B>(
        &self,
        request: &mut Request<B>,
        scheme: Scheme,
        verdict: Option<Verdict>,
    ) -> Result<(), Rejection> {
        let refuse = |refusal: &dyn Fn(Asked<'_>) -> Rejection| {
            refusal(Asked { scheme, scope: &self.scopes.list(request), dpop: self.verifier.dpop() })
        };
        let challenger = &self.challenger;
        let user = match verdict.transpose() {
            Ok(user) => user,
            Err(error) => return Err(refuse(&|asked| challenger.refused(&error, asked))),
        };
        if !self.scopes.admit(request, user.as_deref()) {
            return Err(match user {
                Some(_) => refuse(&|asked| challenger.insufficient(asked)),
                None => refuse(&|asked| challenger.missing(asked)),
            });
        }
        // Always written, nobody included: what stood there before was nobody's business here.
        Identity::enter(request.extensions_mut(), Stage::JwtAuth)?.set_user(user);
        observe::admitted("jwt");
        Ok(())
    }
}

impl<S: fmt::Debug> fmt::Debug for JwtAuth<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtAuth").field("inner", &self.inner).finish_non_exhaustive()
    }
}

//! The service: finds the token, has it verified, and writes down whose it is.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{
    AuthError, Presented,
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
        let answer = match self.config.ask(&request) {
            Ok(answer) => answer,
            Err(rejection) => return refuse(rejection),
        };
        self.config.hide_token(&mut request);
        let verdict = match answer.map(ReadyOr::try_now).transpose() {
            Ok(verdict) => verdict,
            Err(pending) => {
                let (inner, config) = (self.inner.clone(), Arc::clone(&self.config));
                return JwtAuthFuture::waiting(Pending::new(
                    pending, inner, request, config, endpoint,
                ));
            }
        };
        match self.config.admit(&mut request, verdict) {
            Ok(()) => JwtAuthFuture::inner(self.inner.clone(), request),
            Err(rejection) => refuse(rejection),
        }
    }
}

impl Config {
    /// Puts the request's token to the verifier. `None` for a request that may go without.
    fn ask<B>(&self, request: &Request<B>) -> Result<Option<ReadyOr<Verdict>>, Rejection> {
        match credentials::find(request.headers(), self.api_key_header) {
            Ok(Credential::Token(token)) => {
                Ok(Some(self.verifier.verify(&Presented::by(request, token))))
            }
            Ok(Credential::Nothing) if self.optional => Ok(None),
            Ok(Credential::Nothing | Credential::OtherScheme) => {
                Err(self.challenger.missing(&self.scopes.list(request)))
            }
            Err(why) => Err(self.challenger.unreadable(why)),
        }
    }

    fn hide_token<B>(&self, request: &mut Request<B>) {
        credentials::hide(request.headers_mut(), self.api_key_header, self.strip_token);
    }

    /// Writes down the caller, if the token holds and grants enough. No verdict is nobody.
    pub(crate) fn admit<B>(
        &self,
        request: &mut Request<B>,
        verdict: Option<Verdict>,
    ) -> Result<(), Rejection> {
        let needed = |request: &Request<B>| self.scopes.list(request);
        let user = match verdict.transpose() {
            Ok(user) => user,
            Err(error) => return Err(self.challenger.refused(&error, &needed(request))),
        };
        if !self.scopes.admit(request, user.as_deref()) {
            return Err(match user {
                Some(_) => self.challenger.insufficient(&needed(request)),
                None => self.challenger.missing(&needed(request)),
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

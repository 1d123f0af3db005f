//! The service: finds the certificate, reads it, holds it against clock and rules.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Extensions, Request, Response};
use tower_service::Service;

use super::{
    PeerCertFuture,
    certificate::{self, Unusable},
    layer::{Shared, Verdict},
};
use crate::{
    body::ResponseBody,
    connection::{Found, peer_certificates},
    identity::{Identity, PeerIdentity, Stage},
    observe,
    reject::{Rejection, RejectionKind},
    route::Route,
};

/// This layer's name in metrics and logs.
const LAYER: &str = "peer_cert";

/// The service of a [`PeerCertLayer`](super::PeerCertLayer). Never waits: it is ready when the inner
/// service is.
#[derive(Clone, Debug)]
pub struct PeerCert<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> PeerCert<S> {
    pub(super) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S, B, R> Service<Request<B>> for PeerCert<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = PeerCertFuture<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let endpoint = match self.shared.routes.classify(&request) {
            Route::Exempt => return PeerCertFuture::inner(self.inner.call(request)),
            Route::Guarded(endpoint) => endpoint,
        };
        match self.shared.admit(request.extensions_mut()) {
            Ok(()) => {
                observe::admitted(LAYER);
                PeerCertFuture::inner(self.inner.call(request))
            }
            Err(rejection) => PeerCertFuture::refused(rejection.into_response(
                LAYER,
                endpoint.error_format(),
                &self.shared.routes,
            )),
        }
    }
}

impl Shared {
    /// Finds out who the peer is, and writes it into the request's identity if it may pass.
    fn admit(&self, extensions: &mut Extensions) -> Result<(), Rejection> {
        let peer = self.identify(extensions)?;
        self.check_validity(&peer)?;
        self.check_rules(&peer)?;
        Identity::enter(extensions, Stage::PeerCert)?.set_peer(Some(peer), None, None);
        Ok(())
    }

    fn identify(&self, extensions: &Extensions) -> Result<Arc<PeerIdentity>, Rejection> {
        let own = self.extract.as_ref().and_then(|extract| extract.from(extensions));
        let found = own.map(Found::Certificates).or_else(|| peer_certificates(extensions));
        let read = |leaf: &[u8]| match certificate::read(leaf) {
            Ok(peer) => Some(Arc::new(peer)),
            Err(Unusable(reason)) => {
                observe::debug(LAYER, reason);
                None
            }
        };
        match found {
            Some(Found::Connection(peer)) => match peer.certificates().and_then(|c| c.leaf()) {
                Some(_) => peer.identity_or_parse(read).ok_or_else(unreadable),
                None => Err(missing()),
            },
            Some(Found::Certificates(certificates)) => match certificates.leaf() {
                Some(leaf) => read(leaf).ok_or_else(unreadable),
                None => Err(missing()),
            },
            None => Err(missing()),
        }
    }

    /// The TLS stack looked at the time when the connection began, or, if it resumed a session, when
    /// that one did. Both bounds are inclusive (RFC 5280, section 4.1.2.5).
    fn check_validity(&self, peer: &PeerIdentity) -> Result<(), Rejection> {
        let now = self.clock.unix().as_secs();
        if (peer.not_before..=peer.not_after).contains(&now) { Ok(()) } else { Err(expired()) }
    }

    fn check_rules(&self, peer: &PeerIdentity) -> Result<(), Rejection> {
        match self.rules.verdict(peer) {
            Verdict::Allowed => return Ok(()),
            Verdict::Denied => observe::debug(LAYER, "a deny rule fits the peer"),
            Verdict::NotAllowed => observe::debug(LAYER, "no allow rule fits the peer"),
        }
        Err(not_allowed())
    }
}

// The texts name nobody, and do not tell a peer on a deny list from one that no list knows.

fn missing() -> Rejection {
    Rejection::new(
        RejectionKind::Unauthenticated,
        "client_certificate_required",
        "This service asks for a client certificate.",
    )
}

fn unreadable() -> Rejection {
    Rejection::new(
        RejectionKind::Unauthenticated,
        "client_certificate_invalid",
        "The client certificate can't be used.",
    )
}

fn expired() -> Rejection {
    Rejection::new(
        RejectionKind::Unauthenticated,
        "client_certificate_expired",
        "The client certificate is not valid at this time.",
    )
}

fn not_allowed() -> Rejection {
    Rejection::new(
        RejectionKind::Forbidden,
        "client_not_allowed",
        "This client may not use this service.",
    )
}

#[cfg(test)]
mod tests {
    use tower_layer::Layer;

    use super::*;
    use crate::peer_cert::{PeerCertLayer, PeerRule};

    #[derive(Clone)]
    struct Inner;

    impl Service<Request<()>> for Inner {
        type Response = Response<()>;
        type Error = ();
        type Future = std::future::Ready<Result<Response<()>, ()>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            std::future::ready(Ok(Response::new(())))
        }
    }

    #[tokio::test]
    async fn behind_a_later_layer_it_refuses() {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = ["gateway.edge.svc".to_owned()];
        let params = rcgen::CertificateParams::new(names).unwrap();
        let leaf = params.self_signed(&key).unwrap().der().clone();
        let layer = PeerCertLayer::builder().allow(PeerRule::dns("gateway.edge.svc").unwrap());
        let mut service = layer.build().unwrap().layer(Inner);
        let mut request = Request::new(());
        request.extensions_mut().insert(vec![leaf]);
        assert_eq!(service.call(request.clone()).await.unwrap().status(), 200);
        Identity::enter(request.extensions_mut(), Stage::JwtAuth).unwrap();
        assert_eq!(service.call(request).await.unwrap().status(), 500);
    }
}

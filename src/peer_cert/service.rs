//! The service: finds the certificate, reads it, holds it against clock and rules.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Method, Request, Response, header};
use tower_service::Service;

#[cfg(feature = "trust")]
use super::find::verify;
use super::{
    PeerCertFuture, PeerEvent, PeerOutcome, PeerRule,
    find::{Peer, is_valid},
    forwarded,
    layer::Shared,
    refusal::Why,
    rules::Verdict,
};
use crate::{
    body::{Ending, ResponseBody, Term},
    connection,
    identity::{Identity, PeerIdentity, Stage},
    observe,
    reject::{Rejection, RejectionKind},
    route::{Endpoint, Route},
};
#[cfg(feature = "trust")]
use crate::{
    connection::{PeerCertificates, Verified},
    trust::TrustStore,
};

/// This layer's name in metrics and logs.
pub(super) const LAYER: &str = "peer_cert";

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
        let route = self.shared.routes.classify(&request);
        let Route::Guarded(endpoint) = route else {
            self.shared.clean(&mut request);
            return PeerCertFuture::inner(self.inner.call(request), None);
        };
        match self.shared.admit(&mut request, endpoint) {
            Ok(ending) => {
                observe::admitted(LAYER);
                PeerCertFuture::inner(self.inner.call(request), ending)
            }
            Err(rejection) => PeerCertFuture::refused(rejection.into_response(
                LAYER,
                endpoint.error_format(),
                &self.shared.routes,
            )),
        }
    }
}

/// What became of a request: the rule that admitted its peer, or why it is refused.
type Judgement<'a> = Result<&'a PeerRule, (Why, Option<&'a PeerRule>)>;

impl Shared {
    /// Finds out who the peer is, and writes it into the request's identity if it may pass. When the answer has to
    /// end, if it has to.
    fn admit<B>(
        self: &Arc<Self>,
        request: &mut Request<B>,
        endpoint: Endpoint,
    ) -> Result<Option<Box<Ending>>, Rejection> {
        let found = self.find(request);
        let judgement = match &found {
            Ok(peer) => self.judge(request, &peer.identity),
            Err(why) => Err((*why, None)),
        };
        self.tell(found.as_ref().ok(), &judgement);
        self.clean(request);
        let peer = match (found, judgement) {
            (Ok(peer), Ok(_)) => Some(peer),
            _ if self.dry_run => None,
            (_, Err((why, _))) | (Err(why), _) => return Err(why.rejection()),
        };
        let identity = peer.as_ref().map(|peer| &*peer.identity);
        self.tell_those_behind(request, identity);
        let carries = identity.and_then(|peer| self.carriers.issuers(peer));
        let ending = peer.as_ref().and_then(|peer| self.ending(peer, endpoint));
        let (peer, proxy) = peer.map(|peer| (peer.identity, peer.proxy)).unzip();
        let identity = Identity::enter(request.extensions_mut(), Stage::PeerCert)?;
        identity.set_peer(peer, proxy.flatten(), carries);
        Ok(ending)
    }

    fn judge<B>(&self, request: &Request<B>, peer: &PeerIdentity) -> Judgement<'_> {
        let fails = |why| Err((why, None));
        if self.checks_server_name && is_misdirected(request) {
            return fails(Why::Misdirected);
        }
        if self.refuses_early_data && is_early(request) {
            return fails(Why::TooEarly);
        }
        // The TLS stack looked at the time when the connection began, or, if it resumed a session, when that one did.
        if !is_valid(peer, self.clock.unix()) {
            return fails(Why::Expired);
        }
        match self.rules.verdict(peer) {
            Verdict::Allowed(rule) => Ok(rule),
            Verdict::Denied(rule) => Err((Why::Denied, Some(rule))),
            Verdict::NotAllowed => {
                if self.rules.would_allow(peer) {
                    observe::debug(
                        LAYER,
                        "no general anchor vouches for the name that a rule fits",
                    );
                }
                fails(Why::NotAllowed)
            }
        }
    }

    fn tell(&self, peer: Option<&Peer>, judgement: &Judgement<'_>) {
        let (outcome, why, rule) = match judgement {
            Ok(rule) => (PeerOutcome::Admitted, None, Some(*rule)),
            Err((why, rule)) if self.dry_run => (PeerOutcome::WouldRefuse, Some(*why), *rule),
            Err((why, rule)) => (PeerOutcome::Refused, Some(*why), *rule),
        };
        let code = why.map(Why::code);
        if let (PeerOutcome::WouldRefuse, Some(code)) = (outcome, code) {
            observe::count("palisade_peer_would_refuse_total", &[("code", code)]);
        }
        if let Some(on_event) = &self.on_event {
            let proxy = peer.and_then(|peer| peer.proxy.as_ref());
            let peer = peer.map(|peer| &*peer.identity);
            on_event.tell(&PeerEvent { outcome, code, peer, proxy, rule });
        }
    }

    /// Takes away what only proxies, and this layer, may say, whoever sent it and whatever becomes of the request.
    fn clean<B>(&self, request: &mut Request<B>) {
        let headers = request.headers_mut();
        forwarded::strip(self.forwarded.as_ref(), headers);
        if let Some(name) = &self.propagate {
            forwarded::strip_same(name, headers);
        }
    }

    fn tell_those_behind<B>(&self, request: &mut Request<B>, peer: Option<&PeerIdentity>) {
        let Some(name) = &self.propagate else { return };
        if let Some(value) = peer.and_then(told) {
            request.headers_mut().insert(name.clone(), value);
        }
    }

    /// The end of the second in which the certificate ends, or before that, when it is not trusted any more.
    fn ending(self: &Arc<Self>, peer: &Peer, endpoint: Endpoint) -> Option<Box<Ending>> {
        const MESSAGE: &str =
            "The client certificate has expired, or was revoked, while the answer was running.";
        if !self.ends_streams || self.dry_run {
            return None;
        }
        let at = Duration::from_secs(peer.identity.not_after.saturating_add(1));
        let why = Rejection::new(RejectionKind::Unauthenticated, Why::Expired.code(), MESSAGE);
        let term = Term::until(at, Arc::clone(&self.clock));
        #[cfg(feature = "trust")]
        let term = match &self.anchors.store {
            Some(store) => {
                Arc::clone(self).while_trusted(store.clone(), peer.certificates.clone(), term)
            }
            None => term,
        };
        Some(Box::new(Ending::after(term, why, endpoint.error_format())))
    }

    /// As long as the authorities that there are by then trust the peer, and their word lets it pass. The first time they
    /// are asked anew: they may have changed since it was admitted.
    #[cfg(feature = "trust")]
    fn while_trusted(
        self: Arc<Self>,
        store: TrustStore,
        certificates: PeerCertificates,
        term: Term,
    ) -> Term {
        let mut verified: Option<Verified> = None;
        term.while_held(move |now| {
            let seconds = now.as_secs();
            let holds = |it: &Verified| it.by == store.edition() && it.holds.contains(&seconds);
            if !verified.as_ref().is_some_and(holds) {
                let may_pass =
                    |it: &Verified| matches!(self.rules.verdict(&it.identity), Verdict::Allowed(_));
                verified = verify(&store, &certificates, now).ok().filter(may_pass);
            }
            verified.is_some()
        })
    }
}

/// How those behind are told of a peer.
fn told(peer: &PeerIdentity) -> Option<HeaderValue> {
    use std::fmt::Write as _;
    if let Some(id) = &peer.spiffe_id {
        return HeaderValue::from_str(id).ok();
    }
    let mut text = String::from("sha256:");
    peer.leaf_sha256.iter().try_for_each(|byte| write!(text, "{byte:02x}")).ok()?;
    HeaderValue::try_from(text).ok()
}

/// Whether the request is for another host than the name that its connection was made for, where that is known.
fn is_misdirected<B>(request: &Request<B>) -> bool {
    let Some(name) = connection::server_name(request.extensions()) else { return false };
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().map(|authority| authority.as_str()).or(host);
    let parsed = authority.and_then(|text| text.parse::<http::uri::Authority>().ok());
    // What can't be read is for nobody here.
    parsed.is_none_or(|authority| !authority.host().eq_ignore_ascii_case(name))
}

/// Whether the request was taken from a handshake under way and may do something: RFC 8470, section 5.1.
fn is_early<B>(request: &Request<B>) -> bool {
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    !is_safe && request.headers().contains_key("early-data")
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

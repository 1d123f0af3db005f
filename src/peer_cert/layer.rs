//! The layer and its builder.

use std::{fmt, sync::Arc};

use http::{Extensions, HeaderName};
use tower_layer::Layer;

use super::{
    Forwarded, PeerCert, PeerEvent, PeerRule, PeerRules, anchors::Anchors, rules::Carriers,
};
use crate::{
    BuildError, Routes,
    clock::{Clock, SystemClock},
    connection::PeerCertificates,
};

/// Admits the workloads that the rules name, by the certificate of their TLS connection. See the
/// [module](super) for how. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PeerCertLayer(Arc<Shared>);

impl PeerCertLayer {
    /// A layer that admits nobody yet.
    pub fn builder() -> PeerCertLayerBuilder {
        PeerCertLayerBuilder {
            rules: PeerRules::new(),
            routes: Routes::default(),
            clock: Arc::new(SystemClock),
            extract: None,
            forwarded: None,
            anchors: Anchors::default(),
            propagate: None,
            on_event: None,
            dry_run: false,
            ends_streams: false,
            checks_server_name: false,
            refuses_early_data: false,
        }
    }
}

impl<S> Layer<S> for PeerCertLayer {
    type Service = PeerCert<S>;

    fn layer(&self, inner: S) -> Self::Service {
        PeerCert::new(inner, Arc::clone(&self.0))
    }
}

/// Builds a [`PeerCertLayer`].
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct PeerCertLayerBuilder {
    rules: PeerRules,
    routes: Routes,
    clock: Arc<dyn Clock>,
    extract: Option<Extract>,
    forwarded: Option<Forwarded>,
    anchors: Anchors,
    propagate: Option<HeaderName>,
    on_event: Option<OnEvent>,
    dry_run: bool,
    ends_streams: bool,
    checks_server_name: bool,
    refuses_early_data: bool,
}

impl PeerCertLayerBuilder {
    /// Admits the workloads that this rule fits. At least one is required; with several, one that
    /// fits is enough.
    pub fn allow(mut self, rule: PeerRule) -> Self {
        self.rules = self.rules.allow(rule);
        self
    }

    /// Refuses the workloads that this rule fits, whatever else admits them, and a [trusted
    /// proxy](Self::forwarded) that it fits with all that it forwards. None by default. It never admits anyone.
    pub fn deny(mut self, rule: PeerRule) -> Self {
        self.rules = self.rules.deny(rule);
        self
    }

    /// Adds these rules, which may come from a file, to those given before.
    pub fn rules(mut self, rules: PeerRules) -> Self {
        self.rules = self.rules.join(rules);
        self
    }

    /// Which requests are guarded: by default [all](Routes::guard_all).
    pub fn routes(mut self, routes: Routes) -> Self {
        self.routes = routes;
        self
    }

    /// The time that certificates are valid by: by default the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where to find the certificates, for a server that leaves them in a type of its own. Goes
    /// before the types that are known; where it answers `None`, those are looked for.
    ///
    /// What it answers with must have been verified by the TLS stack of this very connection, and
    /// never come from a header.
    pub fn extract_with<F>(mut self, extract: F) -> Self
    where
        F: Fn(&Extensions) -> Option<PeerCertificates> + Send + Sync + 'static,
    {
        self.extract = Some(Extract(Box::new(extract)));
        self
    }

    /// Takes the certificates of its clients from a proxy that ends their TLS: see [`Forwarded`]. Behind a trusted proxy
    /// the peer is whom it tells of, and nobody where it tells of nobody; whoever connects without one is the peer
    /// itself. By default no header is believed. The headers of all dialects are removed in any case, on exempt
    /// routes too.
    pub fn forwarded(mut self, forwarded: Forwarded) -> Self {
        self.forwarded = Some(forwarded);
        self
    }

    /// Verifies certificates by these anchors and revocation lists, for every request: the peer's, a proxy's, and what it
    /// forwards. What was verified is remembered until the store changes or something on the path ends. By default
    /// that is left to the TLS stack, which does it once for a connection, and to the proxy.
    #[cfg(feature = "trust")]
    pub fn trust(mut self, store: &crate::trust::TrustStore) -> Self {
        self.anchors.store = Some(store.clone());
        self
    }

    /// Lets the workloads that this rule fits present access tokens of the users of these issuers, as `JwtAuthLayer`
    /// within then asks: "only the gateway may carry tokens of our users". Once said, peers that no such rule
    /// fits may carry none. Of several that fit, all count. Without any, every peer may carry any token.
    ///
    /// It admits nobody: see [`allow`](Self::allow).
    pub fn may_carry<T: Into<String>>(
        mut self,
        rule: PeerRule,
        issuers: impl IntoIterator<Item = T>,
    ) -> Self {
        self.rules = self.rules.may_carry(rule, issuers);
        self
    }

    /// Tells the services behind who the peer is, in this header of the request: its SPIFFE ID, or, if it has none,
    /// `sha256:` and the SHA-256 of its certificate in hexadecimal. A header of this name that a client sent, or of one
    /// that a framework may take for it (`x_peer` for `x-peer`), is always taken away, on exempt routes too. By default
    /// nothing is told.
    pub fn propagate(mut self, header: HeaderName) -> Self {
        self.propagate = Some(header);
        self
    }

    /// Is told of every decision, for an audit log: see [`PeerEvent`]. Called on the request's path: it must not wait.
    pub fn on_event<F>(mut self, hear: F) -> Self
    where
        F: Fn(&PeerEvent<'_>) + Send + Sync + 'static,
    {
        self.on_event = Some(OnEvent(Box::new(hear)));
        self
    }

    /// Lets everybody pass, and tells [`on_event`](Self::on_event) and the counter
    /// `palisade_peer_would_refuse_total{code}` who would have been refused: to try rules on real traffic. A peer
    /// that would be refused has no identity for the layers within. By default rules are enforced.
    pub fn insecure_dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Ends an answer that still runs when the peer's certificate ends, or, where there are anchors, within seconds of
    /// being revoked or no longer trusted, and drops what produces it. An event stream
    /// ends with an error event in the endpoint's shape, gRPC with the status 16, and any other answer is cut off.
    /// By default an answer that has begun may run to its end.
    pub fn end_streams_at_expiry(mut self) -> Self {
        self.ends_streams = true;
        self
    }

    /// Refuses with 421 a request for another host than the name that its connection was made for (SNI): a client that
    /// got through the handshake of one host may else ask for another, which admits other clients. Only where the
    /// server tells the name: our `TlsListener` and axum-server do. By default not asked.
    pub fn check_server_name(mut self) -> Self {
        self.checks_server_name = true;
        self
    }

    /// Refuses with 425 a request that a proxy took from a handshake under way (`Early-Data: 1`, RFC 8470), unless it
    /// is a GET, HEAD or OPTIONS: it may be a replay. By default not asked; our `TlsListener` takes no early data.
    pub fn refuse_early_data(mut self) -> Self {
        self.refuses_early_data = true;
        self
    }

    /// The layer.
    ///
    /// # Errors
    /// [`BuildError::Empty`] where nothing is allowed, or a carrier may carry nothing; [`BuildError`] for a rule for an
    /// issuer's key without anchors, and for a source of forwarded certificates that nobody verifies, or no proxy is
    /// trusted to be.
    pub fn build(self) -> Result<PeerCertLayer, BuildError> {
        if self.rules.allow.is_empty() {
            return Err(BuildError::Empty("the allow list of PeerCertLayer"));
        }
        if self.rules.carriers.iter().any(|carrier| carrier.issuers.is_empty()) {
            return Err(BuildError::Empty("the issuers of may_carry"));
        }
        // It would fit nobody: a deny rule would then let everybody pass.
        if self.rules.need_paths() && !self.anchors.are_there() {
            let reason = "a rule for an issuer's key needs anchors: `PeerCertLayerBuilder::trust`";
            return Err(BuildError::invalid("rules of PeerCertLayer", reason));
        }
        if let Some(forwarded) = &self.forwarded {
            forwarded.check(self.anchors.are_there())?;
        }
        Ok(PeerCertLayer(Arc::new(Shared {
            carriers: Carriers::of(&self.rules),
            rules: self.rules,
            routes: self.routes,
            clock: self.clock,
            extract: self.extract,
            forwarded: self.forwarded,
            anchors: self.anchors,
            propagate: self.propagate,
            on_event: self.on_event,
            dry_run: self.dry_run,
            ends_streams: self.ends_streams,
            checks_server_name: self.checks_server_name,
            refuses_early_data: self.refuses_early_data,
        })))
    }
}

/// What all services of a layer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) rules: PeerRules,
    pub(super) carriers: Carriers,
    pub(super) routes: Routes,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) extract: Option<Extract>,
    pub(super) forwarded: Option<Forwarded>,
    pub(super) anchors: Anchors,
    pub(super) propagate: Option<HeaderName>,
    pub(super) on_event: Option<OnEvent>,
    pub(super) dry_run: bool,
    pub(super) ends_streams: bool,
    pub(super) checks_server_name: bool,
    pub(super) refuses_early_data: bool,
}

/// The application's own ear.
pub(super) struct OnEvent(Box<OnEventFn>);

type OnEventFn = dyn Fn(&PeerEvent<'_>) + Send + Sync;

impl OnEvent {
    pub(super) fn tell(&self, event: &PeerEvent<'_>) {
        (self.0)(event);
    }
}

impl fmt::Debug for OnEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnEvent(..)")
    }
}

/// The application's own source of certificates.
pub(super) struct Extract(Box<ExtractFn>);

type ExtractFn = dyn Fn(&Extensions) -> Option<PeerCertificates> + Send + Sync;

impl Extract {
    pub(super) fn from(&self, extensions: &Extensions) -> Option<PeerCertificates> {
        (self.0)(extensions)
    }
}

impl fmt::Debug for Extract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Extract(..)")
    }
}

//! The layer and its builder.

use std::{fmt, sync::Arc};

use http::Extensions;
use tower_layer::Layer;

use super::{PeerCert, PeerRule};
use crate::{
    BuildError, Routes,
    clock::{Clock, SystemClock},
    connection::PeerCertificates,
    identity::PeerIdentity,
};

/// Admits the workloads that the rules name, by the certificate of their TLS connection. See the
/// [module](super) for how. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PeerCertLayer(Arc<Shared>);

impl PeerCertLayer {
    /// A layer that admits nobody yet.
    pub fn builder() -> PeerCertLayerBuilder {
        PeerCertLayerBuilder {
            allow: Vec::new(),
            deny: Vec::new(),
            routes: Routes::default(),
            clock: Arc::new(SystemClock),
            extract: None,
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
    allow: Vec<PeerRule>,
    deny: Vec<PeerRule>,
    routes: Routes,
    clock: Arc<dyn Clock>,
    extract: Option<Extract>,
}

impl PeerCertLayerBuilder {
    /// Admits the workloads that this rule fits. At least one is required; with several, one that
    /// fits is enough.
    pub fn allow(mut self, rule: PeerRule) -> Self {
        self.allow.push(rule);
        self
    }

    /// Refuses the workloads that this rule fits, whatever else admits them. None by default. It
    /// never admits anyone.
    pub fn deny(mut self, rule: PeerRule) -> Self {
        self.deny.push(rule);
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

    /// The layer.
    ///
    /// # Errors
    /// [`BuildError::Empty`] where nothing is allowed.
    pub fn build(self) -> Result<PeerCertLayer, BuildError> {
        if self.allow.is_empty() {
            return Err(BuildError::Empty("the allow list of PeerCertLayer"));
        }
        Ok(PeerCertLayer(Arc::new(Shared {
            rules: Rules { allow: self.allow, deny: self.deny },
            routes: self.routes,
            clock: self.clock,
            extract: self.extract,
        })))
    }
}

/// What all services of a layer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) rules: Rules,
    pub(super) routes: Routes,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) extract: Option<Extract>,
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

#[derive(Debug)]
pub(super) struct Rules {
    allow: Vec<PeerRule>,
    deny: Vec<PeerRule>,
}

/// What the rules say of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    Denied,
    NotAllowed,
}

impl Rules {
    /// A deny rule goes before any allow rule, and what no rule fits is not allowed.
    pub(super) fn verdict(&self, peer: &PeerIdentity) -> Verdict {
        if self.deny.iter().any(|rule| rule.matches(peer)) {
            Verdict::Denied
        } else if self.allow.iter().any(|rule| rule.matches(peer)) {
            Verdict::Allowed
        } else {
            Verdict::NotAllowed
        }
    }
}

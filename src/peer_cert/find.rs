//! Who the peer is: whoever is at the other end of the connection, or whose certificate a proxy there forwards.

use std::{sync::Arc, time::Duration};

use http::{Extensions, Request};

#[cfg(feature = "trust")]
use super::anchors::Chain;
use super::{
    certificate::{self, Unusable},
    forwarded::{ForwardedChain, Unbelievable},
    layer::Shared,
    refusal::Why,
    rules::Verdict,
    service::LAYER,
};
#[cfg(feature = "trust")]
use crate::{connection::Verified, trust::TrustStore};
use crate::{
    connection::{self, Found, PeerCertificates, TlsPeer, peer_certificates},
    identity::{PeerIdentity, Proxy},
    observe,
};

/// A peer that was found, and who forwarded its certificate.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) identity: Arc<PeerIdentity>,
    pub(super) proxy: Option<Proxy>,
    /// To be verified again while the answer runs.
    pub(super) certificates: PeerCertificates,
}

impl Shared {
    /// The peer of a request, its path verified if there is a store of anchors. That its certificate is valid now, and
    /// that it may pass, is still to be asked.
    ///
    /// Behind a trusted proxy it is whom the proxy tells of, or nobody: never the proxy itself, unless that is denied.
    /// What others than a trusted proxy say in headers counts for nothing.
    pub(super) fn find<B>(&self, request: &Request<B>) -> Result<Peer, Why> {
        let (extensions, now) = (request.extensions(), self.clock.unix());
        let direct = self.connection(extensions, now);
        let Some(forwarded) = &self.forwarded else {
            return direct;
        };
        let workload = direct.as_ref().ok().map(|peer| &peer.identity);
        let workload = workload.filter(|peer| is_valid(peer, now));
        let address = connection::peer_addr(extensions).map(|address| address.ip());
        let by_socket = connection::is_unix_socket(extensions);
        let Some(proxy) = forwarded.proxy(workload, address, by_socket) else {
            return direct;
        };
        if self.is_shut_out(&direct, extensions) {
            return direct;
        }
        let chain = forwarded.read(request.headers()).map_err(|unbelievable| {
            observe::debug(LAYER, unbelievable.reason());
            match unbelievable {
                Unbelievable::Malformed(_) => Why::Malformed,
                Unbelievable::Unverified => Why::Unverified,
            }
        })?;
        let ForwardedChain { leaf, chain, verified } = chain.ok_or(Why::Missing)?;
        let certificates = PeerCertificates::from([vec![leaf], chain].concat());
        let identity = self.of_certificates(&certificates, now)?;
        // Where there are no anchors of our own, the proxy says that it verified it: else the layer could not be built.
        if !verified && !self.anchors.are_there() {
            return Err(Why::Unverified);
        }
        Ok(Peer { identity, proxy: Some(proxy), certificates })
    }

    /// Whether whoever is at the other end of the connection is to stay out: then it is no proxy either, whatever
    /// trusts it. That its certificate is not trusted takes nothing away from who denies it.
    fn is_shut_out(&self, direct: &Result<Peer, Why>, extensions: &Extensions) -> bool {
        let is_denied =
            |peer: &PeerIdentity| matches!(self.rules.verdict(peer), Verdict::Denied(_));
        match direct {
            Ok(peer) => is_denied(&peer.identity),
            Err(Why::Missing) => false,
            Err(Why::Revoked) => true,
            Err(_) => {
                let certificates = match self.presented(extensions) {
                    Some(Found::Connection(peer)) => peer.certificates().cloned(),
                    Some(Found::Certificates(certificates)) => Some(certificates),
                    None => None,
                };
                let peer = certificates.and_then(|certificates| certificates.identity(read));
                peer.is_some_and(|peer| is_denied(&peer))
            }
        }
    }

    fn presented<'a>(&self, extensions: &'a Extensions) -> Option<Found<'a>> {
        let own = self.extract.as_ref().and_then(|extract| extract.from(extensions));
        own.map(Found::Certificates).or_else(|| peer_certificates(extensions))
    }

    /// Whoever is at the other end of the connection.
    fn connection(&self, extensions: &Extensions, now: Duration) -> Result<Peer, Why> {
        let (identity, certificates) = match self.presented(extensions).ok_or(Why::Missing)? {
            Found::Connection(peer) => {
                let certificates = peer.certificates().ok_or(Why::Missing)?;
                (self.of_connection(peer, certificates, now)?, certificates.clone())
            }
            Found::Certificates(certificates) => {
                (self.of_certificates(&certificates, now)?, certificates)
            }
        };
        Ok(Peer { identity, proxy: None, certificates })
    }

    /// What is found of a connection is kept with it.
    fn of_connection(
        &self,
        peer: &TlsPeer,
        certificates: &PeerCertificates,
        now: Duration,
    ) -> Result<Arc<PeerIdentity>, Why> {
        let leaf = certificates.leaf().ok_or(Why::Missing)?;
        let identity = || peer.identity_or_parse(read).ok_or(Why::Unreadable);
        #[cfg(feature = "trust")]
        if let Some(store) = &self.anchors.store {
            return Chain::verify_once(store, now, peer, || {
                Ok(Chain {
                    identity: identity()?,
                    leaf,
                    intermediates: certificates.intermediates(),
                })
            });
        }
        let _ = (leaf, now);
        identity()
    }

    fn of_certificates(
        &self,
        certificates: &PeerCertificates,
        now: Duration,
    ) -> Result<Arc<PeerIdentity>, Why> {
        #[cfg(feature = "trust")]
        if let Some(store) = &self.anchors.store {
            return Ok(verify(store, certificates, now)?.identity);
        }
        let _ = now;
        certificates.leaf().ok_or(Why::Missing)?;
        certificates.identity(read).ok_or(Why::Unreadable)
    }
}

/// By whom certificates are trusted now, and for how long.
#[cfg(feature = "trust")]
pub(super) fn verify(
    store: &TrustStore,
    certificates: &PeerCertificates,
    now: Duration,
) -> Result<Verified, Why> {
    let leaf = certificates.leaf().ok_or(Why::Missing)?;
    let identity = read(leaf).ok_or(Why::Unreadable)?;
    Chain { identity, leaf, intermediates: certificates.intermediates() }.verify(store, now)
}

/// Both bounds are inclusive (RFC 5280, section 4.1.2.5).
pub(super) fn is_valid(peer: &PeerIdentity, now: Duration) -> bool {
    (peer.not_before..=peer.not_after).contains(&now.as_secs())
}

fn read(leaf: &[u8]) -> Option<Arc<PeerIdentity>> {
    match certificate::read(leaf) {
        Ok(peer) => Some(Arc::new(peer)),
        Err(Unusable(reason)) => {
            observe::debug(LAYER, reason);
            None
        }
    }
}

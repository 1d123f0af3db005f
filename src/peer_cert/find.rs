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
    service::LAYER,
};
use crate::{
    connection::{self, Found, peer_certificates},
    identity::{PeerIdentity, Proxy},
    observe,
};

/// A peer that was found, and who forwarded its certificate.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) identity: Arc<PeerIdentity>,
    pub(super) proxy: Option<Proxy>,
}

impl Shared {
    /// The peer of a request, its path verified if there is a store of anchors. That its certificate is valid now, and
    /// that it may pass, is still to be asked.
    ///
    /// Behind a trusted proxy it is whom the proxy tells of, or nobody: never the proxy itself. What others than a
    /// trusted proxy say in headers counts for nothing.
    pub(super) fn find<B>(&self, request: &Request<B>) -> Result<Peer, Why> {
        let (extensions, now) = (request.extensions(), self.clock.unix());
        let direct = self.connection(extensions, now);
        let Some(forwarded) = &self.forwarded else {
            return direct.map(|identity| Peer { identity, proxy: None });
        };
        let workload = direct.as_ref().ok().filter(|peer| is_valid(peer, now));
        let address = connection::peer_addr(extensions).map(|address| address.ip());
        let by_socket = connection::is_unix_socket(extensions);
        let Some(proxy) = forwarded.proxy(workload, address, by_socket) else {
            return direct.map(|identity| Peer { identity, proxy: None });
        };
        let chain = forwarded.read(request.headers()).map_err(|unbelievable| {
            observe::debug(LAYER, unbelievable.reason());
            match unbelievable {
                Unbelievable::Malformed(_) => Why::Malformed,
                Unbelievable::Unverified => Why::Unverified,
            }
        })?;
        let identity = self.of_chain(&chain.ok_or(Why::Missing)?, now)?;
        Ok(Peer { identity, proxy: Some(proxy) })
    }

    /// Whoever is at the other end of the connection.
    fn connection(&self, extensions: &Extensions, now: Duration) -> Result<Arc<PeerIdentity>, Why> {
        let own = self.extract.as_ref().and_then(|extract| extract.from(extensions));
        let found = own.map(Found::Certificates).or_else(|| peer_certificates(extensions));
        match found.ok_or(Why::Missing)? {
            Found::Connection(peer) => {
                let certificates = peer.certificates().ok_or(Why::Missing)?;
                let leaf = certificates.leaf().ok_or(Why::Missing)?;
                let identity = || peer.identity_or_parse(read).ok_or(Why::Unreadable);
                #[cfg(feature = "trust")]
                if let Some(store) = &self.anchors.store {
                    let intermediates = || certificates.intermediates();
                    return Chain::verify_once(store, now, peer, || {
                        Ok(Chain { identity: identity()?, leaf, intermediates: intermediates() })
                    });
                }
                let _ = (leaf, now);
                identity()
            }
            Found::Certificates(certificates) => {
                let leaf = certificates.leaf().ok_or(Why::Missing)?;
                let identity = read(leaf).ok_or(Why::Unreadable)?;
                #[cfg(feature = "trust")]
                if let Some(store) = &self.anchors.store {
                    let intermediates = certificates.intermediates();
                    let verified = Chain { identity, leaf, intermediates }.verify(store, now)?;
                    return Ok(verified.identity);
                }
                Ok(identity)
            }
        }
    }

    /// Whose certificate a proxy forwarded. Where there are no anchors of our own, the proxy said that it is verified:
    /// else the layer could not be built.
    fn of_chain(&self, chain: &ForwardedChain, now: Duration) -> Result<Arc<PeerIdentity>, Why> {
        let identity = read(&chain.leaf).ok_or(Why::Unreadable)?;
        #[cfg(feature = "trust")]
        if let Some(store) = &self.anchors.store {
            let borrow = |der: &rustls_pki_types::CertificateDer<'static>| der.clone();
            let intermediates = chain.chain.iter().map(borrow).collect();
            let verified =
                Chain { identity, leaf: &chain.leaf, intermediates }.verify(store, now)?;
            return Ok(verified.identity);
        }
        let _ = now;
        if chain.verified { Ok(identity) } else { Err(Why::Unverified) }
    }
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

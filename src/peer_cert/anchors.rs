//! The verification of paths by a `TrustStore`, where the feature `trust` is on and there is one.

#[cfg(feature = "trust")]
use std::{sync::Arc, time::Duration};

#[cfg(feature = "trust")]
use rustls_pki_types::CertificateDer;

#[cfg(feature = "trust")]
use super::refusal::Why;
#[cfg(feature = "trust")]
use crate::{
    connection::{TlsPeer, Verified},
    identity::{PeerIdentity, peer_rule::spiffe::SpiffeId},
    trust::{TrustStore, Untrusted},
};

/// What certificates are verified by, beside the TLS stack or the proxy.
#[derive(Clone, Debug, Default)]
pub(super) struct Anchors {
    #[cfg(feature = "trust")]
    pub(super) store: Option<TrustStore>,
}

impl Anchors {
    /// Whether certificates are verified here.
    pub(super) fn are_there(&self) -> bool {
        #[cfg(feature = "trust")]
        return self.store.is_some();
        #[cfg(not(feature = "trust"))]
        false
    }
}

/// A leaf that was read, and what came with it.
#[cfg(feature = "trust")]
pub(super) struct Chain<'a> {
    pub(super) identity: Arc<PeerIdentity>,
    pub(super) leaf: &'a [u8],
    pub(super) intermediates: Vec<CertificateDer<'a>>,
}

#[cfg(feature = "trust")]
impl Chain<'_> {
    /// The identity with the authorities on its path, which `store` verifies, or has verified and remembers.
    pub(super) fn verify(&self, store: &TrustStore, now: Duration) -> Result<Verified, Why> {
        let (leaf, intermediates) = (self.leaf, self.intermediates.as_slice());
        let id = self.identity.spiffe_id.as_deref().and_then(|id| SpiffeId::parse(id).ok());
        let domain = id.map(SpiffeId::trust_domain);
        let by = store.edition();
        let path = store.verify_cached(domain, leaf, intermediates, now)?;
        let mut identity = if path.vouches_for_names {
            PeerIdentity::clone(self.identity.claimed())
        } else {
            self.identity.by_spiffe_id_alone()
        };
        identity.issuer_keys_sha256.clone_from(&path.issuer_keys_sha256);
        let holds = path.holds.clone();
        // What was verified by a newer generation is asked again by its own name.
        Ok(Verified { by: (by.0, path.generation), holds, identity: Arc::new(identity) })
    }

    /// The same for a connection, which keeps what was found.
    pub(super) fn verify_once(
        store: &TrustStore,
        now: Duration,
        connection: &TlsPeer,
        chain: impl FnOnce() -> Result<Self, Why>,
    ) -> Result<Arc<PeerIdentity>, Why> {
        if let Some(identity) = connection.verified_by(store.edition(), now.as_secs()) {
            return Ok(identity);
        }
        let verified = chain()?.verify(store, now)?;
        connection.set_verified(verified.clone());
        Ok(verified.identity)
    }
}

#[cfg(feature = "trust")]
impl From<Untrusted> for Why {
    fn from(untrusted: Untrusted) -> Self {
        match untrusted {
            Untrusted::NoPath | Untrusted::NotForClients => Self::Untrusted,
            Untrusted::Malformed => Self::Unreadable,
            Untrusted::Expired => Self::Expired,
            Untrusted::Revoked => Self::Revoked,
            Untrusted::RevocationUnknown => Self::RevocationUnknown,
        }
    }
}

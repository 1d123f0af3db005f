//! A workload, and who forwarded its certificate.

use std::{net::IpAddr, sync::Arc};

/// A workload, by its verified certificate.
///
/// It has only names that an authority vouches for which may: of a certificate that a `TrustStore` verified for its trust
/// domain and by no general anchor, the SPIFFE ID alone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerIdentity {
    /// The SPIFFE ID, if the certificate has one: its only URI name, of the `spiffe` scheme.
    pub spiffe_id: Option<String>,
    /// The DNS names, in lower case, as the certificate has them.
    pub dns_names: Vec<String>,
    /// The IP addresses.
    pub ip_addresses: Vec<IpAddr>,
    /// The e-mail addresses, as the certificate has them.
    pub email_addresses: Vec<String>,
    /// The common names of the subject, as the certificate has them. Texts without a form: no name of a service.
    pub common_names: Vec<String>,
    /// Whether the certificate has a list of names (Subject Alternative Name) beside its subject, even one
    /// with nothing in it that is read here.
    pub has_alternative_names: bool,
    /// SHA-256 of the certificate's DER.
    pub leaf_sha256: [u8; 32],
    /// SHA-256 of the DER of its public key (SubjectPublicKeyInfo), which outlives a renewal with the same key.
    pub public_key_sha256: [u8; 32],
    /// SHA-256 of the public key of each authority on the path that was verified here, from the issuer of the
    /// certificate to the anchor. Empty where the TLS stack alone verified it, since that does not tell the path.
    pub issuer_keys_sha256: Vec<[u8; 32]>,
    /// When the certificate begins to be valid, in seconds since the Unix epoch.
    pub not_before: u64,
    /// When the certificate ends to be valid, in seconds since the Unix epoch.
    pub not_after: u64,
    /// The same with all names that the certificate has, where nobody vouches for some of them.
    pub(crate) claimed: Option<Arc<Self>>,
}

#[cfg(any(feature = "peer-cert", feature = "tls"))]
impl PeerIdentity {
    /// As the certificate has it, whoever vouches for its names.
    pub(crate) fn claimed(self: &Arc<Self>) -> &Arc<Self> {
        self.claimed.as_ref().unwrap_or(self)
    }

    /// The same without the names that the authorities of a trust domain do not vouch for.
    pub(crate) fn by_spiffe_id_alone(self: &Arc<Self>) -> Self {
        Self {
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            email_addresses: Vec::new(),
            common_names: Vec::new(),
            claimed: Some(Arc::clone(self.claimed())),
            ..Self::clone(self)
        }
    }
}

/// Who forwarded a peer's certificate, and why that is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proxy {
    /// A workload, by its own certificate.
    Workload(Arc<PeerIdentity>),
    /// Whoever has this address, by the address alone.
    Address(IpAddr),
    /// Whoever may connect to a Unix socket of this machine.
    UnixSocket,
}

//! What the server knows of the connection, from whatever type it left in a request's extensions.

use std::net::SocketAddr;

use http::Extensions;

/// The address of the other end of the connection: the client, or the nearest proxy. Never from a
/// header. `None` where the server does not say.
#[must_use]
pub fn peer_addr(extensions: &Extensions) -> Option<SocketAddr> {
    #[cfg(any(feature = "peer-cert", feature = "tls"))]
    if let Some(peer) = tls_peer(extensions) {
        return Some(peer.addr());
    }
    #[cfg(feature = "axum")]
    if let Some(info) = extensions.get::<axum::extract::ConnectInfo<SocketAddr>>() {
        return Some(info.0);
    }
    #[cfg(feature = "tonic")]
    if let Some(addr) = tonic_addr(extensions) {
        return Some(addr);
    }
    extensions.get::<SocketAddr>().copied()
}

/// The host name that the client asked for in the handshake (SNI), where the server tells. Its word.
#[cfg(feature = "peer-cert")]
pub(crate) fn server_name(extensions: &Extensions) -> Option<&str> {
    if let Some(peer) = tls_peer(extensions) {
        return peer.server_name();
    }
    #[cfg(feature = "axum-server")]
    if let Some(info) = extensions.get::<std::sync::Arc<axum_server::tls::TlsInfo>>() {
        return info.server_name.as_deref();
    }
    None
}

/// Says that a connection came through a Unix socket, for a server whose own types do not: the application puts it into
/// the extensions of the requests of such a listener. tonic's `UdsConnectInfo` says so by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // It says nothing more.
pub struct UnixSocket;

/// Whether the connection came through a Unix socket, as the server or the application says.
#[cfg(feature = "peer-cert")]
pub(crate) fn is_unix_socket(extensions: &Extensions) -> bool {
    #[cfg(all(feature = "tonic", unix))]
    if extensions.get::<tonic::transport::server::UdsConnectInfo>().is_some() {
        return true;
    }
    extensions.get::<UnixSocket>().is_some()
}

/// The router's pattern for the path, where there is a router that says.
#[cfg_attr(not(feature = "axum"), allow(unused_variables))]
pub(crate) fn matched_path(extensions: &Extensions) -> Option<&str> {
    #[cfg(feature = "axum")]
    return extensions.get::<axum::extract::MatchedPath>().map(axum::extract::MatchedPath::as_str);
    #[cfg(not(feature = "axum"))]
    None
}

#[cfg(feature = "tonic")]
fn tonic_addr(extensions: &Extensions) -> Option<SocketAddr> {
    use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

    let tls = extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
    let tcp = tls.map(TlsConnectInfo::get_ref).or_else(|| extensions.get::<TcpConnectInfo>());
    tcp?.remote_addr()
}

#[cfg(all(feature = "peer-cert", feature = "trust"))]
pub(crate) use certificates::Verified;
#[cfg(any(feature = "peer-cert", feature = "tls"))]
use certificates::tls_peer;
#[cfg(feature = "peer-cert")]
pub(crate) use certificates::{Found, peer_certificates};
#[cfg(any(feature = "peer-cert", feature = "tls"))]
pub use certificates::{PeerCertificates, TlsPeer};

#[cfg(any(feature = "peer-cert", feature = "tls"))]
mod certificates {
    use std::{
        fmt,
        net::SocketAddr,
        ops::RangeInclusive,
        sync::{Arc, Mutex, OnceLock, PoisonError},
    };

    use http::Extensions;
    use rustls_pki_types::CertificateDer;

    use crate::identity::PeerIdentity;

    /// The certificates that the other end of a TLS connection presented, leaf first. The TLS stack
    /// verified the leaf; what follows it is only what the peer sent.
    #[derive(Clone, Debug)]
    pub struct PeerCertificates {
        repr: Repr,
        /// The TLS stack verified the SPIFFE ID in the leaf, and no other name.
        by_spiffe_id_alone: bool,
    }

    #[derive(Clone)]
    enum Repr {
        Shared(Arc<[CertificateDer<'static>]>),
        SharedVec(Arc<Vec<CertificateDer<'static>>>),
        #[cfg(feature = "axum-server")]
        AxumServer(Arc<axum_server::tls::TlsInfo>),
    }

    impl fmt::Debug for Repr {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("..")
        }
    }

    impl PeerCertificates {
        fn of(repr: Repr) -> Self {
            Self { repr, by_spiffe_id_alone: false }
        }

        /// The same, of which nothing but the SPIFFE ID was verified.
        #[cfg(feature = "tls")]
        pub(crate) fn by_spiffe_id_alone(self) -> Self {
            Self { by_spiffe_id_alone: true, ..self }
        }

        /// The identity in the leaf, which `parse` reads, with the names that were verified.
        pub(crate) fn identity(
            &self,
            parse: impl FnOnce(&[u8]) -> Option<Arc<PeerIdentity>>,
        ) -> Option<Arc<PeerIdentity>> {
            let identity = parse(self.leaf()?)?;
            let names = !self.by_spiffe_id_alone;
            Some(if names { identity } else { Arc::new(identity.by_spiffe_id_alone()) })
        }

        /// The leaf's DER, if any certificate was presented.
        #[must_use]
        pub fn leaf(&self) -> Option<&[u8]> {
            match &self.repr {
                Repr::Shared(certs) => certs.first().map(AsRef::as_ref),
                Repr::SharedVec(certs) => certs.first().map(AsRef::as_ref),
                #[cfg(feature = "axum-server")]
                Repr::AxumServer(info) => info.peer_certificates.first().map(Vec::as_slice),
            }
        }
    }

    #[cfg(feature = "trust")]
    impl PeerCertificates {
        /// What the peer sent after the leaf: no proof of who issued it.
        pub(crate) fn intermediates(&self) -> Vec<CertificateDer<'_>> {
            fn borrowed<T: AsRef<[u8]>>(all: &[T]) -> Vec<CertificateDer<'_>> {
                all.iter().skip(1).map(|der| CertificateDer::from(der.as_ref())).collect()
            }
            match &self.repr {
                Repr::Shared(certs) => borrowed(certs),
                Repr::SharedVec(certs) => borrowed(certs),
                #[cfg(feature = "axum-server")]
                Repr::AxumServer(info) => borrowed(&info.peer_certificates),
            }
        }
    }

    impl From<Arc<[CertificateDer<'static>]>> for PeerCertificates {
        fn from(certs: Arc<[CertificateDer<'static>]>) -> Self {
            Self::of(Repr::Shared(certs))
        }
    }

    impl From<Vec<CertificateDer<'static>>> for PeerCertificates {
        fn from(certs: Vec<CertificateDer<'static>>) -> Self {
            Arc::new(certs).into()
        }
    }

    impl From<Arc<Vec<CertificateDer<'static>>>> for PeerCertificates {
        fn from(certs: Arc<Vec<CertificateDer<'static>>>) -> Self {
            Self::of(Repr::SharedVec(certs))
        }
    }

    /// One TLS connection, as a server's listener leaves it in the extensions of its requests, bare
    /// or in axum's `ConnectInfo`. Cheap to clone.
    #[derive(Clone, Debug)]
    pub struct TlsPeer(Arc<Connection>);

    #[derive(Debug)]
    struct Connection {
        addr: SocketAddr,
        certificates: Option<PeerCertificates>,
        server_name: Option<String>,
        /// Parsed by the first request that needs it; `None` for a leaf that can't be read.
        identity: OnceLock<Option<Arc<PeerIdentity>>>,
        /// What was verified of it last.
        verified: Mutex<Option<Verified>>,
    }

    /// An identity whose path was verified.
    #[derive(Clone, Debug)]
    pub(crate) struct Verified {
        /// By whom: the store and its generation.
        pub(crate) by: (u64, u64),
        /// In seconds since the epoch.
        pub(crate) holds: RangeInclusive<u64>,
        pub(crate) identity: Arc<PeerIdentity>,
    }

    impl TlsPeer {
        /// The connection from `addr`, with the certificates the client presented. Only for a
        /// listener whose TLS stack verified them.
        #[must_use]
        pub fn verified(addr: SocketAddr, certificates: Option<PeerCertificates>) -> Self {
            Self::new(addr, certificates, None)
        }

        /// With the host name that the client asked for (SNI). To be said before the handle is cloned: a clone made
        /// before has none.
        #[must_use]
        pub fn with_server_name(self, name: impl Into<String>) -> Self {
            Self::new(self.0.addr, self.0.certificates.clone(), Some(name.into()))
        }

        fn new(
            addr: SocketAddr,
            certificates: Option<PeerCertificates>,
            server_name: Option<String>,
        ) -> Self {
            let (identity, verified) = (OnceLock::new(), Mutex::default());
            Self(Arc::new(Connection { addr, certificates, server_name, identity, verified }))
        }

        /// The host name that the client asked for (SNI). Its word.
        #[must_use]
        pub fn server_name(&self) -> Option<&str> {
            self.0.server_name.as_deref()
        }

        /// The other end's address.
        #[must_use]
        pub fn addr(&self) -> SocketAddr {
            self.0.addr
        }

        /// The certificates the client presented.
        #[must_use]
        pub fn certificates(&self) -> Option<&PeerCertificates> {
            self.0.certificates.as_ref()
        }

        /// The identity in the leaf, which `parse` reads once per connection.
        pub(crate) fn identity_or_parse(
            &self,
            parse: impl FnOnce(&[u8]) -> Option<Arc<PeerIdentity>>,
        ) -> Option<Arc<PeerIdentity>> {
            let certificates = self.0.certificates.as_ref()?;
            self.0.identity.get_or_init(|| certificates.identity(parse)).clone()
        }
    }

    #[cfg(feature = "trust")]
    impl TlsPeer {
        /// What was verified last, if it was by this store in this generation, and holds at `now`.
        pub(crate) fn verified_by(&self, by: (u64, u64), now: u64) -> Option<Arc<PeerIdentity>> {
            let verified = self.0.verified.lock().unwrap_or_else(PoisonError::into_inner);
            let found = verified.as_ref().filter(|last| last.by == by && last.holds.contains(&now));
            found.map(|found| Arc::clone(&found.identity))
        }

        pub(crate) fn set_verified(&self, verified: Verified) {
            *self.0.verified.lock().unwrap_or_else(PoisonError::into_inner) = Some(verified);
        }
    }

    pub(super) fn tls_peer(extensions: &Extensions) -> Option<&TlsPeer> {
        #[cfg(feature = "axum")]
        if let Some(info) = extensions.get::<axum::extract::ConnectInfo<TlsPeer>>() {
            return Some(&info.0);
        }
        extensions.get()
    }

    /// Where a connection's certificates were found.
    #[cfg(feature = "peer-cert")]
    pub(crate) enum Found<'a> {
        /// In our own listener's type, which remembers what was read of them.
        Connection(&'a TlsPeer),
        /// In somebody else's.
        Certificates(PeerCertificates),
    }

    /// The first of the known types that is there decides, even if it holds no certificate: sources
    /// are never mixed.
    #[cfg(feature = "peer-cert")]
    pub(crate) fn peer_certificates(extensions: &Extensions) -> Option<Found<'_>> {
        if let Some(peer) = tls_peer(extensions) {
            return Some(Found::Connection(peer));
        }
        if let Some(certs) = extensions.get::<PeerCertificates>() {
            return Some(Found::Certificates(certs.clone()));
        }
        if let Some(certs) = extensions.get::<Arc<[CertificateDer<'static>]>>() {
            return Some(Found::Certificates(Arc::clone(certs).into()));
        }
        if let Some(certs) = extensions.get::<Arc<Vec<CertificateDer<'static>>>>() {
            return Some(Found::Certificates(Arc::clone(certs).into()));
        }
        if let Some(certs) = extensions.get::<Vec<CertificateDer<'static>>>() {
            return Some(Found::Certificates(certs.clone().into()));
        }
        #[cfg(feature = "axum-server")]
        if let Some(info) = extensions.get::<Arc<axum_server::tls::TlsInfo>>() {
            let certs = PeerCertificates::of(Repr::AxumServer(Arc::clone(info)));
            return Some(Found::Certificates(certs));
        }
        #[cfg(feature = "tonic")]
        if let Some(certs) = tonic_certificates(extensions) {
            return Some(Found::Certificates(certs.into()));
        }
        None
    }

    #[cfg(all(feature = "peer-cert", feature = "tonic"))]
    fn tonic_certificates(extensions: &Extensions) -> Option<Arc<Vec<CertificateDer<'static>>>> {
        use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

        if let Some(info) = extensions.get::<TlsConnectInfo<TcpConnectInfo>>() {
            return info.peer_certs();
        }
        #[cfg(unix)]
        if let Some(info) =
            extensions.get::<TlsConnectInfo<tonic::transport::server::UdsConnectInfo>>()
        {
            return info.peer_certs();
        }
        None
    }
}

//! Which proxies are believed.

use std::net::IpAddr;

use crate::{BuildError, identity::PeerIdentity, network::Cidr, peer_cert::PeerRule};

/// Tells a proxy that may speak of its clients' certificates.
#[derive(Clone, Debug)]
pub struct ProxyTrust(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Identity(PeerRule),
    Networks(Vec<Cidr>),
    UnixSocket,
}

impl ProxyTrust {
    /// A proxy by its own certificate, which it presents to this server. To be preferred: it proves itself on every
    /// connection.
    #[must_use]
    pub fn identity(rule: PeerRule) -> Self {
        Self(Kind::Identity(rule))
    }

    /// Whoever connects from these networks, such as `10.1.0.0/16`, `fd00:1::/64` or `10.1.0.7`. Weaker: an address is
    /// soon another's where workloads come and go, and all on one machine may share it.
    ///
    /// It is held against the address of the connection, as the server tells it, never against a header. A server that
    /// takes it from elsewhere, such as the PROXY protocol, tells of the client and not of the proxy. An IPv4 address
    /// that is mapped to IPv6 is the IPv4 address.
    ///
    /// # Errors
    /// [`BuildError::Empty`] for none, [`BuildError::Invalid`] for what is no network, has bits beyond its prefix, or
    /// is everybody (`0.0.0.0/0`).
    pub fn networks<'a>(cidrs: impl IntoIterator<Item = &'a str>) -> Result<Self, BuildError> {
        let networks = cidrs.into_iter().map(Cidr::read).collect::<Result<Vec<_>, _>>()?;
        if networks.is_empty() {
            return Err(BuildError::Empty("the list of networks of trusted proxies"));
        }
        Ok(Self(Kind::Networks(networks)))
    }

    /// Whoever connects through a Unix socket: the permissions of its file say who may.
    #[must_use]
    pub fn unix_socket() -> Self {
        Self(Kind::UnixSocket)
    }

    pub(super) fn in_workload(&self, peer: &PeerIdentity) -> bool {
        matches!(&self.0, Kind::Identity(rule) if rule.matches(peer))
    }

    pub(super) fn in_address(&self, address: IpAddr) -> bool {
        let holds = |network: &Cidr| network.contains(address);
        matches!(&self.0, Kind::Networks(networks) if networks.iter().any(holds))
    }

    pub(super) fn in_unix_socket(&self) -> bool {
        matches!(self.0, Kind::UnixSocket)
    }
}

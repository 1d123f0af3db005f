//! From which network a request comes: the address of its client, and the networks that count as one caller.

mod cidr;

use std::{
    iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use http::{Extensions, HeaderMap, HeaderName};

pub(crate) use self::cidr::Cidr;
use crate::{BuildError, connection};

/// How the address of a client is found. By default it is that of the connection's other end, and no header counts.
///
/// Behind a proxy that is every client's address. [`behind`](Self::behind) names the proxies whose word is taken: from
/// the connection on, each address that is a trusted proxy's is replaced by the one that this proxy says it was
/// connected to from, which it appended to `X-Forwarded-For`, and the first that is no proxy's is the client's. What
/// stands further left the client wrote itself, and does not count.
///
/// ```
/// use http::{Extensions, HeaderMap};
/// use palisade::network::ClientAddress;
/// use std::net::{IpAddr, SocketAddr};
///
/// let mut extensions = Extensions::new();
/// extensions.insert("10.0.0.7:4711".parse::<SocketAddr>()?);
/// let mut headers = HeaderMap::new();
/// headers.insert("x-forwarded-for", "6.6.6.6, 198.51.100.4, 10.1.2.3".parse()?);
///
/// let own = ClientAddress::of_connection();
/// assert_eq!(own.find(&headers, &extensions), Some("10.0.0.7".parse::<IpAddr>()?));
/// let behind = ClientAddress::behind(["10.0.0.0/8"])?;
/// assert_eq!(behind.find(&headers, &extensions), Some("198.51.100.4".parse::<IpAddr>()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClientAddress {
    proxies: Vec<Cidr>,
    header: HeaderName,
}

impl ClientAddress {
    /// The other end of the connection.
    #[must_use]
    pub fn of_connection() -> Self {
        Self { proxies: Vec::new(), header: X_FORWARDED_FOR }
    }

    /// The first address, from the connection on, that is in none of these networks, such as `10.1.0.0/16`,
    /// `fd00:1::/64` or `10.1.0.7`. Whoever can send from them is believed.
    ///
    /// # Errors
    /// [`BuildError::Empty`] for none, [`BuildError::Invalid`] for what is no network, has bits beyond its prefix, or
    /// is everybody (`0.0.0.0/0`).
    pub fn behind<'a>(proxies: impl IntoIterator<Item = &'a str>) -> Result<Self, BuildError> {
        let proxies = proxies.into_iter().map(Cidr::read).collect::<Result<Vec<_>, _>>()?;
        if proxies.is_empty() {
            return Err(BuildError::Empty("the list of networks of trusted proxies"));
        }
        Ok(Self { proxies, ..Self::of_connection() })
    }

    /// The header that the proxies write, a list of addresses, each proxy appending one, or a single address that they
    /// overwrite. Default: `x-forwarded-for`.
    #[must_use]
    pub fn header(self, header: HeaderName) -> Self {
        Self { header, ..self }
    }

    /// The client's address. `None` where the server does not tell the connection's.
    ///
    /// Where a trusted proxy's word can't be read, or is missing, the proxy itself is the client: all such requests
    /// count as one caller.
    #[must_use]
    pub fn find(&self, headers: &HeaderMap, extensions: &Extensions) -> Option<IpAddr> {
        let connection = canonical(connection::peer_addr(extensions)?.ip());
        // Later lines continue earlier ones (RFC 9110, section 5.3).
        let lines = headers.get_all(&self.header).iter().rev();
        let mut said = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        let mut next = |hop: &IpAddr| {
            let is_trusted = self.proxies.iter().any(|proxy| proxy.contains(*hop));
            if is_trusted { said.next().and_then(read) } else { None }
        };
        iter::successors(Some(connection), |hop| next(hop)).last()
    }
}

impl Default for ClientAddress {
    fn default() -> Self {
        Self::of_connection()
    }
}

/// The addresses that count as one caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Network {
    octets: [u8; 8],
    len: u8,
}

impl Network {
    /// What one customer has for himself, and can choose addresses from at will: an IPv4 address, or an IPv6 /64.
    pub(crate) fn of(address: IpAddr) -> Self {
        match canonical(address) {
            IpAddr::V4(address) => Self::first(4, &address.octets()),
            IpAddr::V6(address) => Self::first(8, &address.octets()),
        }
    }

    /// What one site or small provider has: an IPv4 /24, or an IPv6 /48.
    pub(crate) fn site_of(address: IpAddr) -> Self {
        match canonical(address) {
            IpAddr::V4(address) => Self::first(3, &address.octets()),
            IpAddr::V6(address) => Self::first(6, &address.octets()),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.octets.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The first `len` of `octets`, at most 8.
    fn first(len: u8, octets: &[u8]) -> Self {
        let mut all = [0; 8];
        for (to, from) in all.iter_mut().zip(octets.iter().take(len.into())) {
            *to = *from;
        }
        Self { octets: all, len }
    }
}

/// IPv6 addresses that only carry an IPv4 one are that one: mapped (RFC 4291, section 2.5.5.2), translated (RFC 6052,
/// section 2.1), and 6to4 (RFC 3056, section 2), whose owner else had 2^16 networks of his own.
fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else { return address.to_canonical() };
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        _ => IpAddr::V6(v6),
    }
}

/// An address as proxies write it: with or without a port, IPv6 in brackets or not.
fn read(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let address = text.parse().ok();
    let address = address.or_else(|| bracketed().map(IpAddr::V6));
    let address = address.or_else(|| text.parse::<SocketAddr>().ok().map(|addr| addr.ip()));
    address.map(canonical)
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

#[cfg(test)]
mod tests {
    use super::*;

    fn find(client: &ClientAddress, connection: &str, lines: &[&str]) -> String {
        let mut extensions = Extensions::new();
        extensions.insert(connection.parse::<SocketAddr>().unwrap());
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        client.find(&headers, &extensions).unwrap().to_string()
    }

    /// The left-most address is the client's to choose.
    #[test]
    fn addresses_are_read_from_the_right_over_all_lines() {
        let behind = ClientAddress::behind(["10.0.0.0/8", "fd00::/8"]).unwrap();
        for (connection, lines, expected) in [
            ("198.51.100.9:1", &["6.6.6.6"][..], "198.51.100.9"),
            ("10.0.0.1:1", &[], "10.0.0.1"),
            ("10.0.0.1:1", &["6.6.6.6, 198.51.100.4"], "198.51.100.4"),
            ("10.0.0.1:1", &["6.6.6.6", "198.51.100.4", "10.0.0.2,10.0.0.3"], "198.51.100.4"),
            ("[::ffff:10.0.0.1]:1", &["::ffff:198.51.100.4"], "198.51.100.4"),
            ("[fd00::1]:1", &["2001:db8::7"], "2001:db8::7"),
            ("10.0.0.1:1", &["[2001:db8::7]:443"], "2001:db8::7"),
            ("10.0.0.1:1", &["[2001:db8::7]"], "2001:db8::7"),
            ("10.0.0.1:1", &["198.51.100.4:80\t"], "198.51.100.4"),
            // All that was said is a proxy's.
            ("10.0.0.1:1", &["10.0.0.2"], "10.0.0.2"),
            // What can't be read is its writer's doing.
            ("10.0.0.1:1", &["198.51.100.4, unknown"], "10.0.0.1"),
            ("10.0.0.1:1", &["198.51.100.4,, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1:1", &["6.6.6.6, \u{e4}"], "10.0.0.1"),
        ] {
            assert_eq!(find(&behind, connection, lines), expected, "{connection} {lines:?}");
        }
        let own = ClientAddress::of_connection();
        assert_eq!(find(&own, "10.0.0.1:1", &["198.51.100.4"]), "10.0.0.1");
        assert_eq!(own.find(&HeaderMap::new(), &Extensions::new()), None);
        assert!(ClientAddress::behind([]).is_err() && ClientAddress::behind(["::/0"]).is_err());
    }

    #[test]
    fn addresses_of_one_owner_are_one_network() {
        let same = |of: fn(IpAddr) -> Network, a: &str, b: &str| {
            of(a.parse().unwrap()) == of(b.parse().unwrap())
        };
        assert!(same(Network::of, "192.0.2.1", "::ffff:192.0.2.1"));
        assert!(same(Network::of, "192.0.2.1", "64:ff9b::192.0.2.1"));
        assert!(same(Network::of, "192.0.2.1", "2002:c000:201:77::1"));
        assert!(!same(Network::of, "192.0.2.1", "192.0.2.2"));
        assert!(same(Network::of, "2001:db8::1", "2001:db8::ffff:1:2:3"));
        assert!(!same(Network::of, "2001:db8::1", "2001:db8:0:1::1"));
        assert!(same(Network::site_of, "2001:db8::1", "2001:db8:0:1::1"));
        assert!(!same(Network::site_of, "2001:db8::1", "2001:db8:1::1"));
        assert!(same(Network::site_of, "192.0.2.1", "192.0.2.2"));
        assert!(!same(Network::site_of, "192.0.2.1", "192.0.3.1"));
        assert_ne!(
            Network::of("192.0.2.0".parse().unwrap()),
            Network::site_of("192.0.2.0".parse().unwrap())
        );
    }
}

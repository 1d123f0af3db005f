//! Networks of IP addresses, in CIDR notation (RFC 4632, section 3.1, and RFC 4291, section 2.3).

use std::net::IpAddr;

use crate::BuildError;

/// A network. One of IPv4 addresses that are mapped to IPv6 is one of IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cidr {
    address: IpAddr,
    prefix: u32,
}

impl Cidr {
    /// [`parse`](Self::parse), for a builder.
    pub(crate) fn read(text: &str) -> Result<Self, BuildError> {
        Self::parse(text)
            .map_err(|reason| BuildError::invalid("network", format!("{text}: {reason}")))
    }

    /// Reads `10.0.0.0/8`, `fd00::/8`, or a single address. The error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| "it has no IP address")?;
        let (width, zeros) = match address {
            IpAddr::V4(address) => (32, address.to_bits().trailing_zeros()),
            IpAddr::V6(address) => (128, address.to_bits().trailing_zeros()),
        };
        let prefix = match prefix {
            None => width,
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().map_err(|_| "its prefix is no number")?
            }
            Some(_) => return Err("its prefix is no number"),
        };
        if prefix > width {
            return Err("its prefix is longer than an address");
        }
        if prefix + zeros < width {
            return Err("its address has bits beyond the prefix: is the prefix what was meant?");
        }
        let canonical = address.to_canonical();
        let is_mapped = canonical.is_ipv4() && address.is_ipv6();
        let prefix = if is_mapped { prefix.saturating_sub(96) } else { prefix };
        if prefix == 0 {
            return Err("it is the whole internet");
        }
        Ok(Self { address: canonical, prefix })
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let common = match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros()
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros()
            }
            _ => return false,
        };
        common >= self.prefix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(network: &str, address: &str) -> bool {
        Cidr::parse(network).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn addresses_are_in_their_network_alone() {
        assert!(holds("10.0.0.0/8", "10.255.255.255"));
        assert!(!holds("10.0.0.0/8", "11.0.0.0"));
        assert!(holds("10.0.0.128/25", "10.0.0.128"));
        assert!(!holds("10.0.0.128/25", "10.0.0.127"));
        assert!(holds("10.0.0.1", "10.0.0.1"));
        assert!(!holds("10.0.0.1/32", "10.0.0.0"));
        assert!(holds("fd00::/8", "fdff::1"));
        assert!(!holds("fd00::/8", "fe00::"));
        assert!(holds("::1", "::1"));
        assert!(!holds("fd00::/8", "253.0.0.0"));
        assert!(!holds("253.0.0.0/8", "fd00::"));
    }

    #[test]
    fn attack_03_a_mapped_address_is_the_one_it_stands_for() {
        assert!(holds("10.0.0.0/8", "::ffff:10.0.0.1"));
        assert!(!holds("10.0.0.0/8", "::ffff:11.0.0.1"));
        assert!(holds("::ffff:10.0.0.0/104", "10.0.0.1"));
        assert!(holds("::ffff:10.0.0.0/104", "::ffff:10.0.0.1"));
        assert_eq!(Cidr::parse("::ffff:10.0.0.0/104"), Cidr::parse("10.0.0.0/8"));
        // An address of another kind that only looks alike.
        assert!(!holds("10.0.0.0/8", "::10.0.0.1"));
        assert!(!holds("10.0.0.0/8", "64:ff9b::10.0.0.1"));
    }

    #[test]
    fn what_is_no_network_or_everybody_is_refused() {
        for bad in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0.0/ 8",
            "10.0.0.0/4294967304",
            "10.0.0.1/8",
            "10.0.0",
            "010.0.0.0/8",
            "0.0.0.0/0",
            "::/0",
            "::ffff:0.0.0.0/96",
            "::ffff:0.0.0.0/90",
            "fd00::/129",
            "fd00::1/64",
            "fe80::%eth0/64",
            "localhost",
        ] {
            assert!(Cidr::parse(bad).is_err(), "{bad:?}");
        }
    }
}

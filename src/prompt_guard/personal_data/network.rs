//! Addresses of the Internet protocol.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

use super::{Candidate, words::Words};

pub(super) const PATTERN: &str =
    r"[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{1,44}|[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}";

/// Words that four small numbers stand with which are none.
const OF_VERSIONS: Words = Words::new(&["version", "release", "section", "chapter", " v"]);

pub(super) fn check(candidate: &Candidate<'_>) -> Option<(Range<usize>, f32)> {
    let text = candidate.as_str();
    // A sentence may end after it, and a port may follow.
    let trimmed = text.trim_end_matches('.');
    let trimmed = trimmed.strip_suffix(':').filter(|rest| !rest.ends_with(':')).unwrap_or(trimmed);
    let end = candidate.range.start + trimmed.len();
    let joined = |mark: char| mark.is_alphanumeric() || matches!(mark, '_' | '.' | ':');
    if candidate.before().is_some_and(joined)
        || candidate
            .after(end)
            .chars()
            .next()
            .is_some_and(|mark| mark.is_alphanumeric() || mark == '_')
    {
        return None;
    }
    let address: IpAddr = if trimmed.contains(':') {
        trimmed.parse::<Ipv6Addr>().ok()?.into()
    } else {
        trimmed.parse::<Ipv4Addr>().ok()?.into()
    };
    let more = candidate.after(end).strip_prefix('.').and_then(|rest| rest.chars().next());
    let version = trimmed.len() <= 9 && candidate.follows(&OF_VERSIONS);
    if address.is_loopback()
        || address.is_unspecified()
        || version
        || more.is_some_and(|next| next.is_ascii_digit())
    {
        return None;
    }
    let shared = match address {
        IpAddr::V4(address) => {
            address.is_private() || address.is_broadcast() || address.is_link_local()
        }
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    };
    Some((candidate.range.start..end, if shared { 0.6 } else { 0.85 }))
}

#[cfg(test)]
mod tests {
    use super::super::tests::values;

    #[test]
    fn addresses() {
        assert_eq!(values("from 203.0.113.9."), ["personal_data.ip_address:203.0.113.9"]);
        assert_eq!(values("http://[2001:db8::1]:80/"), ["personal_data.ip_address:2001:db8::1"]);
        assert_eq!(values("host 198.51.100.7:443"), ["personal_data.ip_address:198.51.100.7"]);
        for text in [
            "127.0.0.1",
            "::1",
            "std::cout",
            "12:34:56",
            "1.2.3.4.5",
            "256.1.1.1",
            "version 1.2.3.4",
            "aa:bb:cc:dd:ee:ff",
            "a203.0.113.9",
        ] {
            assert!(values(text).is_empty(), "{text}");
        }
    }
}

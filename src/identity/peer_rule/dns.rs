//! DNS names, of rules and of certificates.

use std::net::IpAddr;

/// `name` in lower case, if it is a DNS name: labels of letters, digits, dashes and underscores, of
/// at most 63 bytes each and 253 in all, no trailing dot, ASCII alone (an internationalised name
/// stands in its `xn--` form). `*` is a letter like any other.
///
/// What ends in a number is an IP address to many parsers, and no DNS name here.
pub(crate) fn normalised(name: &str) -> Option<String> {
    let fits = name.len() <= 253 && name.split('.').all(is_label) && !is_address(name);
    fits.then(|| name.to_ascii_lowercase())
}

/// Whether `name` is an IP address in the place of a name: any of IPv6, and of IPv4 also the shorter
/// spellings, which like it end in a number.
pub(crate) fn is_address(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    number || name.parse::<IpAddr>().is_ok()
}

fn is_label(label: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'*');
    (1..=63).contains(&label.len()) && label.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_dns_are_dns_names() {
        assert_eq!(normalised("Gateway.EDGE.svc").as_deref(), Some("gateway.edge.svc"));
        assert_eq!(normalised("localhost").as_deref(), Some("localhost"));
        assert_eq!(normalised("xn--bcher-kva.example").as_deref(), Some("xn--bcher-kva.example"));
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a b",
            "a/b",
            "a:443",
            "10.0.0.1",
            "::1",
            "[::1]",
            "10.1",
            "bücher.example",
            "a\0.b",
            "a\n",
        ] {
            assert_eq!(normalised(bad), None, "{bad:?}");
        }
        assert_eq!(normalised(&format!("{}.a", "x".repeat(64))), None);
        assert_eq!(normalised(&"x.".repeat(127)[..253]).map(|name| name.len()), Some(253));
        assert_eq!(normalised(&format!("{}xx", "x.".repeat(126))), None);
    }
}

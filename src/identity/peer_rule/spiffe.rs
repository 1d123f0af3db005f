//! SPIFFE IDs, read as strictly as their specification has them: nothing is folded, decoded or
//! normalised, so that what is compared is what the authority signed.

/// The longest SPIFFE ID, in bytes (SPIFFE-ID, section 2.3).
const MAX_ID: usize = 2048;
/// The longest trust domain, in bytes (SPIFFE-ID, section 2.3).
const MAX_TRUST_DOMAIN: usize = 255;
const PREFIX: &str = "spiffe://";

/// A SPIFFE ID, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpiffeId<'a> {
    trust_domain: &'a str,
    /// Empty, or with the leading slash.
    path: &'a str,
}

impl<'a> SpiffeId<'a> {
    /// Reads an ID. The error says what is wrong, without the ID.
    pub(crate) fn parse(id: &'a str) -> Result<Self, &'static str> {
        let (trust_domain, path) = split(id)?;
        check_trust_domain(trust_domain)?;
        for segment in segments(path) {
            check_segment(segment)?;
        }
        Ok(Self { trust_domain, path })
    }

    pub(crate) fn trust_domain(self) -> &'a str {
        self.trust_domain
    }

    /// Whether this names a trust domain rather than a workload in it.
    pub(crate) fn is_trust_domain(self) -> bool {
        self.path.is_empty()
    }

    pub(crate) fn segments(self) -> impl Iterator<Item = &'a str> {
        segments(self.path)
    }
}

/// Trust domain and path of an ID, neither of them checked.
pub(super) fn split(id: &str) -> Result<(&str, &str), &'static str> {
    if id.len() > MAX_ID {
        return Err("it is longer than 2048 bytes");
    }
    let rest = id.strip_prefix(PREFIX).ok_or("it does not begin with `spiffe://` in lower case")?;
    Ok(rest.split_at(rest.find('/').unwrap_or(rest.len())))
}

/// The segments of a path: of `/a/b`, `a` and `b`; of `/a/`, `a` and an empty one.
pub(super) fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').skip(1)
}

pub(super) fn check_trust_domain(trust_domain: &str) -> Result<(), &'static str> {
    if trust_domain.is_empty() {
        return Err("its trust domain is missing");
    }
    if trust_domain.len() > MAX_TRUST_DOMAIN {
        return Err("its trust domain is longer than 255 bytes");
    }
    let known = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if trust_domain.bytes().all(known) {
        Ok(())
    } else {
        Err("its trust domain may hold only a-z, 0-9, dots, dashes and underscores")
    }
}

pub(super) fn check_segment(segment: &str) -> Result<(), &'static str> {
    match segment {
        "" => return Err("its path has an empty segment or ends in a slash"),
        "." | ".." => return Err("its path has a dot segment"),
        _ => {}
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if segment.bytes().all(known) {
        Ok(())
    } else {
        Err("its path may hold only letters, digits, dots, dashes, underscores and slashes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_apart() {
        let id = SpiffeId::parse("spiffe://prod.example/ns/edge/sa/gateway").unwrap();
        assert_eq!(id.trust_domain(), "prod.example");
        assert_eq!(id.segments().collect::<Vec<_>>(), ["ns", "edge", "sa", "gateway"]);
        assert!(!id.is_trust_domain());
        assert!(SpiffeId::parse("spiffe://prod.example").unwrap().is_trust_domain());
    }

    #[test]
    fn attack_14_only_the_strict_form_is_an_id() {
        for bad in [
            "",
            "spiffe:",
            "spiffe://",
            "spiffe:///path",
            "SPIFFE://prod.example/a",
            "Spiffe://prod.example/a",
            "spiffe://Prod.example/a",
            "spiffe://user@prod.example/a",
            "spiffe://user:pw@prod.example/a",
            "spiffe://prod.example:443/a",
            "spiffe://[::1]/a",
            "spiffe://prod.example/a?q",
            "spiffe://prod.example?q",
            "spiffe://prod.example/a#f",
            "spiffe://prod.example#f",
            "spiffe://prod.example/%61",
            "spiffe://prod.example/%2e%2e/a",
            "spiffe://prod%2eexample/a",
            "spiffe://prod.example/",
            "spiffe://prod.example/a/",
            "spiffe://prod.example//a",
            "spiffe://prod.example/a//b",
            "spiffe://prod.example/./a",
            "spiffe://prod.example/a/..",
            "spiffe://prod.example/a\n",
            "spiffe://prod.example\n",
            "\nspiffe://prod.example/a",
            "spiffe://prod.example/a\0",
            "spiffe://prod.example/a b",
            "spiffe://prod.example/a;b",
            "spiffe://prod.example/a,b",
            "spiffe://prod.example/é",
            "spiffe://prod.example\\a",
            "https://prod.example/a",
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["spiffe://prod.example/...", "spiffe://10.0.0.1/A_b-c.d", "spiffe://a_b/.a"] {
            assert!(SpiffeId::parse(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn attack_14_lengths_end_at_2048_and_255_bytes() {
        let long = |path: usize| format!("spiffe://a/{}", "b".repeat(path - "spiffe://a/".len()));
        assert!(SpiffeId::parse(&long(2048)).is_ok());
        assert!(SpiffeId::parse(&long(2049)).is_err());
        assert!(SpiffeId::parse(&format!("spiffe://{}/a", "d".repeat(255))).is_ok());
        assert!(SpiffeId::parse(&format!("spiffe://{}/a", "d".repeat(256))).is_err());
    }

    /// Tables of `ok` or `bad`, the ID as a JSON string, and another parser's verdict, expanded from
    /// the rules of go-spiffe's own tests.
    #[cfg(feature = "peer-cert")]
    #[test]
    fn every_row_of_go_spiffes_rules_agrees() {
        let mut rows = 0;
        for table in crate::peer_cert::vectors::files("", |name| {
            name.starts_with("spiffe_ids") && name.ends_with(".tsv")
        }) {
            for line in std::fs::read_to_string(&table).unwrap().lines() {
                let mut columns = line.split('\t');
                let expected = columns.next().unwrap();
                let id: String = serde_json::from_str(columns.next().unwrap()).unwrap();
                assert!(matches!(expected, "ok" | "bad"), "{line}");
                assert_eq!(SpiffeId::parse(&id).is_ok(), expected == "ok", "{line}");
                rows += 1;
            }
        }
        println!("{rows} rows");
    }
}

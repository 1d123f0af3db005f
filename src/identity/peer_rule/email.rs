//! E-mail addresses, of rules and of certificates.

use super::dns;

/// The longest part before the `@`, in bytes (RFC 5321, section 4.5.3.1.1).
const MAX_LOCAL: usize = 64;

/// `address` with its domain in lower case, if it is an address: words with dots between them (RFC
/// 5322, section 3.2.3), an `@`, and a DNS name. What stands before the `@` is for its domain alone to
/// read, so that case counts there and not behind (RFC 5280, section 7.5).
///
/// A quoted part could hold an `@` of its own, and is no address here; nor is a `*`, which some
/// would take for a wildcard.
pub(super) fn normalised(address: &str) -> Option<String> {
    let (local, domain) = address.rsplit_once('@')?;
    let domain = dns::normalised(domain).filter(|domain| !domain.contains('*'))?;
    let fits = local.len() <= MAX_LOCAL && local.split('.').all(is_word);
    fits.then(|| format!("{local}@{domain}"))
}

fn is_word(word: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'+-/=?^_`{|}~".contains(&byte);
    !word.is_empty() && word.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_are_addresses_and_their_domain_folds_case() {
        for (address, expected) in [
            ("ops@prod.example", "ops@prod.example"),
            ("Ops.On+Call@PROD.Example", "Ops.On+Call@prod.example"),
            ("o'neill@localhost", "o'neill@localhost"),
        ] {
            assert_eq!(normalised(address).as_deref(), Some(expected));
        }
        for bad in [
            "",
            "@",
            "ops",
            "ops@",
            "@prod.example",
            "ops@@prod.example",
            "ops@evil@prod.example",
            "ops@prod.example@",
            "\"ops@evil\"@prod.example",
            "\"ops\"@prod.example",
            ".ops@prod.example",
            "ops.@prod.example",
            "o..ps@prod.example",
            "ops @prod.example",
            " ops@prod.example",
            "ops@prod.example ",
            "ops@prod.example.",
            "ops@prod.example\n",
            "ops\0@prod.example",
            "ops@10.0.0.1",
            "ops@[10.0.0.1]",
            "*@prod.example",
            "ops@*.example",
            "Ops <ops@prod.example>",
            "mailto:ops@prod.example",
            "öps@prod.example",
            "ops@bücher.example",
        ] {
            assert_eq!(normalised(bad), None, "{bad:?}");
        }
        let local = |length| normalised(&format!("{}@prod.example", "x".repeat(length)));
        assert!(local(64).is_some());
        assert!(local(65).is_none());
    }
}

//! Rules as text, in files and in logs.

use std::{fmt, str::FromStr};

use super::{Kind, PeerRule};
use crate::BuildError;

/// What [`FromStr`] reads again.
impl fmt::Display for PeerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Spiffe(id) | Kind::SpiffeGlob(id) => f.write_str(id),
            Kind::TrustDomain(name) => write!(f, "trust-domain:{name}"),
            Kind::Dns(name) => write!(f, "dns:{name}"),
            Kind::DnsWildcard(suffix) => write!(f, "dns:*.{suffix}"),
            Kind::Ip(address) => write!(f, "ip:{address}"),
            Kind::Email(address) => write!(f, "email:{address}"),
            Kind::Certificate(pin) => write!(f, "cert-sha256:{pin}"),
            Kind::PublicKey(pin) => write!(f, "key-sha256:{pin}"),
            Kind::IssuerKey(pin) => write!(f, "issuer-key-sha256:{pin}"),
            Kind::CommonName(name) => write!(f, "cn:{name}"),
        }
    }
}

/// Reads the texts that the table of [`PeerRule`] lists. What follows the first colon is read as by the function that
/// makes the rule, with its errors.
impl FromStr for PeerRule {
    type Err = BuildError;

    fn from_str(text: &str) -> Result<Self, BuildError> {
        match text.split_once(':') {
            Some(("spiffe", _)) => Self::spiffe_glob(text),
            Some(("trust-domain", name)) => Self::trust_domain(name),
            Some(("dns", name)) => Self::dns(name),
            Some(("ip", address)) => Self::ip(address),
            Some(("email", address)) => Self::email(address),
            Some(("cert-sha256", fingerprint)) => Self::sha256(fingerprint),
            Some(("key-sha256", fingerprint)) => Self::public_key_sha256(fingerprint),
            Some(("issuer-key-sha256", fingerprint)) => Self::issuer_key_sha256(fingerprint),
            Some(("cn", name)) => Self::common_name(name),
            _ => Err(BuildError::invalid(
                "peer rule",
                "it must begin with `spiffe://`, `trust-domain:`, `dns:`, `ip:`, `email:`, `cert-sha256:`, \
                 `key-sha256:`, `issuer-key-sha256:` or `cn:`",
            )),
        }
    }
}

/// By hand, so that an error names the place of this very text in the file.
#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for PeerRule {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl serde::de::Visitor<'_> for Text {
            type Value = PeerRule;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a peer rule as text")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<PeerRule, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_kind_has_one_spelling() {
        let hex = "07".repeat(32);
        let pin = [7; 32];
        for (text, rule) in [
            (
                "spiffe://prod.example/ns/edge".to_owned(),
                PeerRule::spiffe("spiffe://prod.example/ns/edge"),
            ),
            (
                "spiffe://prod.example/ns/*".to_owned(),
                PeerRule::spiffe_glob("spiffe://prod.example/ns/*"),
            ),
            (
                "spiffe://prod.example/ns/a".to_owned(),
                PeerRule::spiffe_glob("spiffe://prod.example/ns/a"),
            ),
            (
                "trust-domain:prod.example".to_owned(),
                PeerRule::trust_domain("spiffe://prod.example"),
            ),
            ("dns:gateway.edge.svc".to_owned(), PeerRule::dns("Gateway.Edge.svc")),
            ("dns:*.edge.svc".to_owned(), PeerRule::dns("*.EDGE.svc")),
            ("ip:10.0.0.1".to_owned(), PeerRule::ip("::ffff:10.0.0.1")),
            ("ip:2001:db8::1".to_owned(), PeerRule::ip("2001:DB8::0:1")),
            ("email:Ops@prod.example".to_owned(), PeerRule::email("Ops@PROD.example")),
            (format!("cert-sha256:{hex}"), Ok(PeerRule::sha256_bytes(pin))),
            (format!("key-sha256:{hex}"), PeerRule::public_key_sha256(&hex)),
            (
                format!("issuer-key-sha256:{hex}"),
                PeerRule::issuer_key_sha256(&["07"; 32].join(":")),
            ),
            ("cn:gateway: eins".to_owned(), PeerRule::common_name("gateway: eins")),
        ] {
            let rule = rule.unwrap();
            assert_eq!(rule.to_string(), text);
            assert_eq!(text.parse::<PeerRule>().unwrap(), rule);
            assert_eq!(format!("{rule:?}"), format!("PeerRule({text})"));
        }
    }

    #[test]
    fn what_names_no_kind_or_no_workload_is_no_rule() {
        let sha1 = format!("cert-sha256:{}", "07".repeat(20));
        let sha256 = "07".repeat(32);
        for bad in [
            "",
            "*",
            ":",
            "gateway.edge.svc",
            "10.0.0.1",
            "::1",
            "prod.example",
            "spiffe:",
            "spiffe://prod.example",
            "spiffe://prod.example/",
            "spiffe://*/ns/edge",
            "spiffe://prod.example/ns/ed*",
            "SPIFFE://prod.example/ns/edge",
            " spiffe://prod.example/ns/edge",
            "spiffe://prod.example/ns/edge\n",
            "trust-domain:*",
            "trust-domain:",
            "trust_domain:prod.example",
            "DNS:gateway.edge.svc",
            "dns: gateway.edge.svc",
            "dns:gateway.edge.svc dns:evil",
            "dns:*",
            "ip:10.0.0.0/8",
            "email:*@prod.example",
            "cn:",
            "cn: gateway",
            "CN:gateway",
            "sha1:00",
            "sha256:00",
            &format!("sha256:{sha256}"),
            &format!("key-sha256: {sha256}"),
            &sha1,
        ] {
            assert!(bad.parse::<PeerRule>().is_err(), "{bad:?}");
        }
        let error = "gateway.edge.svc".parse::<PeerRule>().unwrap_err().to_string();
        assert!(
            error.starts_with("peer rule is invalid: it must begin with `spiffe://`"),
            "{error}"
        );
    }

    fn any_rule() -> impl Strategy<Value = PeerRule> {
        let domain = "[a-z0-9._-]{1,20}";
        let segments = proptest::collection::vec("[A-Za-z0-9_-]{1,6}|[*]", 1..6);
        let name = "[A-Za-z][A-Za-z0-9_-]{0,6}([.][A-Za-z][A-Za-z0-9_-]{0,6}){0,3}";
        let pin = any::<[u8; 32]>;
        prop_oneof![
            (domain, segments).prop_map(|(domain, segments)| {
                PeerRule::spiffe_glob(&format!("spiffe://{domain}/{}", segments.join("/")))
            }),
            domain.prop_map(|domain| PeerRule::trust_domain(&domain)),
            (any::<bool>(), name).prop_map(|(any, name)| PeerRule::dns(&format!(
                "{}{name}",
                if any { "*." } else { "" }
            ))),
            any::<std::net::IpAddr>().prop_map(|address| PeerRule::ip(&address.to_string())),
            ("[A-Za-z0-9!#$%&'+/=?^_`{|}~-]{1,20}", name)
                .prop_map(|(local, name)| PeerRule::email(&format!("{local}@{name}"))),
            pin().prop_map(|pin| Ok(PeerRule::sha256_bytes(pin))),
            pin().prop_map(|pin| PeerRule::public_key_sha256(&super::super::Pin(pin).to_string())),
            pin().prop_map(|pin| PeerRule::issuer_key_sha256(&super::super::Pin(pin).to_string())),
            "[^\\pC\\pZ]([^\\pC]{0,10}[^\\pC\\pZ])?".prop_map(|name| PeerRule::common_name(&name)),
        ]
        .prop_map(Result::unwrap)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(rule in any_rule()) {
            prop_assert_eq!(rule.to_string().parse::<PeerRule>().unwrap(), rule);
        }

        /// Whatever is read is written in its one form, which no control character can break a line of a log with.
        #[test]
        fn whatever_is_read_is_written_in_one_form(
            text in "(spiffe://|trust-domain:|dns:|ip:|email:|cert-sha256:|cn:)?([a-zA-Z0-9./:@*-]{0,40}|\\PC{0,10}|.{0,10})",
        ) {
            if let Ok(rule) = text.parse::<PeerRule>() {
                let written = rule.to_string();
                prop_assert!(!written.contains(char::is_control));
                let again = written.parse::<PeerRule>().unwrap();
                prop_assert_eq!(again.to_string(), written);
                prop_assert_eq!(again, rule);
            }
        }
    }
}

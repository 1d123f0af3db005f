mod other_names;
mod pins;

use super::*;
use crate::identity::PeerIdentity;

fn spiffe(id: &str) -> PeerIdentity {
    PeerIdentity { spiffe_id: Some(id.to_owned()), ..dns(&[]) }
}

fn dns(names: &[&str]) -> PeerIdentity {
    PeerIdentity {
        spiffe_id: None,
        dns_names: names.iter().map(|&name| name.to_owned()).collect(),
        ip_addresses: vec!["10.0.0.1".parse().unwrap()],
        email_addresses: Vec::new(),
        common_names: Vec::new(),
        has_alternative_names: true,
        leaf_sha256: [7; 32],
        public_key_sha256: [8; 32],
        issuer_keys_sha256: Vec::new(),
        not_before: 0,
        not_after: 1,
        claimed: None,
    }
}

fn peer(change: impl FnOnce(&mut PeerIdentity)) -> PeerIdentity {
    let mut peer = dns(&[]);
    change(&mut peer);
    peer
}

#[test]
fn an_exact_spiffe_rule_fits_its_id_alone() {
    let rule = PeerRule::spiffe("spiffe://prod.example/ns/edge/sa/gateway").unwrap();
    assert!(rule.matches(&spiffe("spiffe://prod.example/ns/edge/sa/gateway")));
    for other in [
        "spiffe://prod.example/ns/edge/sa/gateway/x",
        "spiffe://prod.example/ns/edge/sa/gateway2",
        "spiffe://prod.example/ns/edge/sa",
        "spiffe://prod.example/ns/edge/sa/Gateway",
    ] {
        assert!(!rule.matches(&spiffe(other)), "{other}");
    }
    assert!(!rule.matches(&dns(&["gateway"])));
}

#[test]
fn attack_15_a_trust_domain_is_no_prefix_and_no_suffix() {
    let rule = PeerRule::trust_domain("prod.example").unwrap();
    assert_eq!(rule, PeerRule::trust_domain("spiffe://prod.example").unwrap());
    assert!(rule.matches(&spiffe("spiffe://prod.example/ns/edge")));
    for other in [
        "spiffe://prod.example.evil/ns/edge",
        "spiffe://evil.prod.example/ns/edge",
        "spiffe://prod.exampl/ns/edge",
        "spiffe://evil/prod.example",
    ] {
        assert!(!rule.matches(&spiffe(other)), "{other}");
    }
    assert!(!rule.matches(&dns(&["prod.example"])));
}

#[test]
fn attack_15_a_path_is_no_prefix_and_no_suffix() {
    let rule = PeerRule::spiffe_glob("spiffe://prod.example/ns/edge/*").unwrap();
    assert!(rule.matches(&spiffe("spiffe://prod.example/ns/edge/gateway")));
    for other in [
        "spiffe://prod.example/ns/edge-evil/gateway",
        "spiffe://prod.example/ns/edge",
        "spiffe://prod.example/ns/edge/sa/gateway",
        "spiffe://prod.example/x/ns/edge/gateway",
    ] {
        assert!(!rule.matches(&spiffe(other)), "{other}");
    }
}

#[test]
fn attack_16_a_glob_holds_to_its_trust_domain_and_to_one_segment() {
    let rule = PeerRule::spiffe_glob("spiffe://prod.example/ns/*/sa/router").unwrap();
    assert!(rule.matches(&spiffe("spiffe://prod.example/ns/edge/sa/router")));
    for other in [
        "spiffe://test.example/ns/edge/sa/router",
        "spiffe://prod.example/ns/edge/x/sa/router",
        "spiffe://prod.example/ns/sa/router",
        "spiffe://prod.example/ns/edge/sa/router/x",
        "spiffe://prod.example/ns/edge/sa",
    ] {
        assert!(!rule.matches(&spiffe(other)), "{other}");
    }
}

#[test]
fn rules_that_could_never_hold_or_hold_too_much_are_refused() {
    for bad in [
        "spiffe://prod.example",
        "spiffe://prod.example/",
        "spiffe://Prod.example/a",
        "spiffe://prod.example/*",
        "prod.example/a",
    ] {
        assert!(PeerRule::spiffe(bad).is_err(), "{bad}");
    }
    for bad in [
        "spiffe://*/ns/edge",
        "spiffe://*.example/ns/edge",
        "spiffe://prod.example",
        "spiffe://prod.example/ns/ed*",
        "spiffe://prod.example/ns/**",
        "spiffe://prod.example/ns//x",
        "spiffe://prod.example/ns/*/",
        "*",
    ] {
        assert!(PeerRule::spiffe_glob(bad).is_err(), "{bad}");
    }
    for bad in ["", "*", "spiffe://", "prod.example/ns", "PROD.example", "https://prod.example"] {
        assert!(PeerRule::trust_domain(bad).is_err(), "{bad}");
    }
}

#[test]
fn attack_18_a_dns_wildcard_is_one_label_of_the_rule() {
    let rule = PeerRule::dns("*.edge.svc").unwrap();
    assert!(rule.matches(&dns(&["gateway.edge.svc"])));
    assert!(rule.matches(&dns(&["other.example", "gateway.edge.svc"])));
    for other in [
        "a.gateway.edge.svc",
        "edge.svc",
        ".edge.svc",
        "gateway.edge.svc.",
        "gateway.edge.svc.evil",
        "gateway-edge.svc",
        "*.edge.svc",
        "g*.edge.svc",
    ] {
        assert!(!rule.matches(&dns(&[other])), "{other}");
    }
}

#[test]
fn attack_18_a_certificates_own_wildcard_never_expands() {
    let rule = PeerRule::dns("gateway.edge.svc").unwrap();
    assert!(rule.matches(&dns(&["gateway.edge.svc"])));
    assert!(!rule.matches(&dns(&["*.edge.svc"])));
    assert!(!rule.matches(&dns(&["*"])));
}

#[test]
fn attack_18_a_rules_dns_name_folds_case_and_is_no_address() {
    assert_eq!(
        PeerRule::dns("GATEWAY.Edge.SVC").unwrap(),
        PeerRule::dns("gateway.edge.svc").unwrap()
    );
    for bad in [
        "",
        "*",
        "*.",
        "**.edge.svc",
        "*.*.svc",
        "a.*.svc",
        "g*.edge.svc",
        "gateway.edge.svc.",
        "10.0.0.1",
        "*.0.0.1",
        "::1",
        "bücher.example",
        "https://gateway",
    ] {
        assert!(PeerRule::dns(bad).is_err(), "{bad}");
    }
}

proptest::proptest! {
    /// Against the plain reading: as many segments, each one equal or under a `*`.
    #[test]
    fn a_glob_is_held_against_each_segment(
        pattern in proptest::collection::vec("[ab*]", 1..5),
        path in proptest::collection::vec("[ab]", 1..5),
        same_domain: bool,
    ) {
        let domain = if same_domain { "prod.example" } else { "test.example" };
        let rule = format!("spiffe://prod.example/{}", pattern.join("/"));
        let id = format!("spiffe://{domain}/{}", path.join("/"));
        let mut fits = same_domain && pattern.len() == path.len();
        for (expected, segment) in pattern.iter().zip(&path) {
            fits &= expected == "*" || expected == segment;
        }
        proptest::prop_assert_eq!(PeerRule::spiffe_glob(&rule).unwrap().matches(&spiffe(&id)), fits);
    }
}

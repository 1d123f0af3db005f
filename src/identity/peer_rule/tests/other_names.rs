use super::*;

#[test]
fn attack_3_an_address_is_compared_whole_and_in_one_form() {
    let with = |address: &str| peer(|peer| peer.ip_addresses = vec![address.parse().unwrap()]);
    let rule = PeerRule::ip("10.0.0.1").unwrap();
    assert_eq!(rule, PeerRule::ip("::ffff:10.0.0.1").unwrap());
    assert!(rule.matches(&with("10.0.0.1")));
    assert!(rule.matches(&with("::ffff:10.0.0.1")));
    for other in ["10.0.0.10", "110.0.0.1", "0.0.0.0", "::10.0.0.1", "64:ff9b::10.0.0.1", "::"] {
        assert!(!rule.matches(&with(other)), "{other}");
    }
    assert!(!rule.matches(&peer(|peer| {
        peer.ip_addresses.clear();
        peer.dns_names = vec!["10.0.0.1".to_owned()];
        peer.common_names = vec!["10.0.0.1".to_owned()];
    })));
    let long = PeerRule::ip("2001:DB8:0:0::1").unwrap();
    assert!(long.matches(&with("2001:db8::1")));
    assert!(!PeerRule::ip("0.0.0.0").unwrap().matches(&with("10.0.0.1")), "no wildcard");
    for bad in [
        "",
        "*",
        "10.0.0.*",
        "10.0.0",
        "10.0.0.0/8",
        "010.0.0.1",
        "10.0.0.1 ",
        "10.0.0.1:443",
        "[::1]",
        "fe80::1%eth0",
        "167772161",
        "0x0a000001",
        "localhost",
    ] {
        assert!(PeerRule::ip(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_email_address_folds_case_behind_the_at_alone() {
    let with = |address: &str| peer(|peer| peer.email_addresses = vec![address.to_owned()]);
    let rule = PeerRule::email("Ops@PROD.example").unwrap();
    assert_eq!(rule, PeerRule::email("Ops@prod.example").unwrap());
    assert!(rule.matches(&with("Ops@Prod.Example")));
    assert!(rule.matches(&peer(|peer| {
        peer.email_addresses = vec!["a@b".to_owned(), "Ops@prod.example".to_owned()];
    })));
    for other in [
        "ops@prod.example",
        "Ops@prod.example.evil",
        "Ops@evil.prod.example",
        "XOps@prod.example",
        "Ops@prod.example@evil",
        "evil@Ops@prod.example",
        "\"Ops@prod.example\"@evil",
        "@prod.example",
        "prod.example",
        "*@prod.example",
        "Ops+x@prod.example",
    ] {
        assert!(!rule.matches(&with(other)), "{other}");
    }
    for bad in ["", "ops", "@prod.example", "*@prod.example", "ops@*.example", "ops@10.0.0.1"] {
        assert!(PeerRule::email(bad).is_err(), "{bad}");
    }
}

#[test]
fn attack_19_a_common_name_counts_by_its_rule_and_alone() {
    let named = |names: &[&str]| {
        peer(|peer| {
            peer.ip_addresses.clear();
            peer.has_alternative_names = false;
            peer.common_names = names.iter().map(|&name| name.to_owned()).collect();
        })
    };
    let rule = PeerRule::common_name("gateway").unwrap();
    assert!(rule.matches(&named(&["gateway"])));
    for other in [
        &[][..],
        &["gateway", "gateway"],
        &["gateway", "billing"],
        &["billing", "gateway"],
        &["Gateway"],
        &["gateway\0"],
        &["gateway\0.evil"],
        &["gateway "],
        &["gateway.edge.svc"],
        &["CN=gateway"],
        &["g\u{430}teway"],
    ] {
        assert!(!rule.matches(&named(other)), "{other:?}");
    }
    // With a list of names the common name counts for nothing, whatever the list holds.
    let mut listed = named(&["gateway"]);
    listed.has_alternative_names = true;
    assert!(!rule.matches(&listed));
    // And no other rule looks at it.
    for name in ["gateway.edge.svc", "ops@prod.example", "10.0.0.1"] {
        let alone = named(&[name]);
        let others = [PeerRule::dns(name), PeerRule::email(name), PeerRule::ip(name)];
        assert!(others.iter().flatten().all(|rule| !rule.matches(&alone)), "{name}");
    }
    for bad in ["", " ", " gateway", "gateway ", "gate\0way", "gateway\n", "\u{85}"] {
        assert!(PeerRule::common_name(bad).is_err(), "{bad:?}");
    }
}

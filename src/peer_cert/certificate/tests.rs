use rcgen::{BasicConstraints as Constraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::*;
use crate::peer_cert::vectors;

const ID: &str = "spiffe://prod.example/ns/edge/sa/gateway";

/// DER of one element; the tests' contents are all shorter than 64 KiB.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap();
    let mut out = vec![tag];
    match length {
        0..=127 => out.push(length as u8),
        128..=255 => out.extend([0x81, length as u8]),
        _ => out.extend([[0x82].as_slice(), &length.to_be_bytes()].concat()),
    }
    out.extend(content);
    out
}

fn uri(name: impl AsRef<[u8]>) -> Vec<u8> {
    der(0x86, name.as_ref())
}

fn dns(name: impl AsRef<[u8]>) -> Vec<u8> {
    der(0x82, name.as_ref())
}

/// A self-signed leaf with exactly these bytes as its list of names.
fn with_san(change: impl FnOnce(&mut CertificateParams), san: Vec<u8>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.custom_extensions.push(rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 17], san));
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

fn names(entries: &[Vec<u8>]) -> Vec<u8> {
    with_san(|_| {}, der(0x30, &entries.concat()))
}

#[test]
fn the_subject_and_the_key_are_read() {
    use rcgen::{DnType, DnValue, PublicKeyData as _};
    let leaf = |names: &[DnValue]| {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in names {
            params.distinguished_name.push(DnType::CommonName, name.clone());
        }
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        (read(&der).unwrap(), key)
    };
    let utf8 = |text: &str| DnValue::Utf8String(text.into());
    let (peer, key) = leaf(&[utf8("gåteway")]);
    assert_eq!(peer.common_names, ["gåteway"]);
    let expected: [u8; 32] = Sha256::digest(key.subject_public_key_info()).into();
    assert_eq!(peer.public_key_sha256, expected);
    assert_eq!(leaf(&[DnValue::PrintableString("a".try_into().unwrap())]).0.common_names, ["a"]);
    assert!(leaf(&[]).0.common_names.is_empty());
    for odd in [utf8("a\0b"), utf8("a\nb"), DnValue::BmpString("a".try_into().unwrap())] {
        assert!(leaf(std::slice::from_ref(&odd)).0.common_names.is_empty(), "{odd:?}");
    }
}

fn refused(leaf: &[u8]) -> bool {
    read(leaf).is_err()
}

#[test]
fn a_leaf_is_read() {
    let leaf = names(&[
        uri(ID),
        dns("Gateway.EDGE.svc"),
        dns("*.edge.svc"),
        der(0x87, &[10, 0, 0, 1]),
        der(0x87, &[0; 16]),
        der(0x81, b"ops@prod.example"),
    ]);
    let peer = read(&leaf).unwrap();
    assert_eq!(peer.spiffe_id.as_deref(), Some(ID));
    assert_eq!(peer.dns_names, ["gateway.edge.svc", "*.edge.svc"]);
    assert_eq!(peer.ip_addresses, ["10.0.0.1".parse::<IpAddr>().unwrap(), "::".parse().unwrap()]);
    assert_eq!(peer.email_addresses, ["ops@prod.example"]);
    assert_eq!(peer.leaf_sha256, <[u8; 32]>::from(Sha256::digest(&leaf)));
    // rcgen's defaults: the years 1975 and 4096.
    assert_eq!((peer.not_before, peer.not_after), (157_766_400, 67_090_118_400));
}

#[test]
fn a_leaf_without_names_has_none() {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::default().self_signed(&key).unwrap();
    let peer = read(leaf.der()).unwrap();
    assert_eq!(peer.spiffe_id, None);
    assert!(peer.dns_names.is_empty() && peer.ip_addresses.is_empty());
}

#[test]
fn attack_13_a_spiffe_id_has_no_other_uri_beside_it() {
    for other in [
        uri("spiffe://prod.example/ns/edge/sa/other"),
        uri(ID),
        uri("https://prod.example/"),
        uri(b"spiffe://prod.example/\xff"),
        uri("x"),
    ] {
        assert!(refused(&names(&[uri(ID), other.clone()])), "{other:?}");
        assert!(refused(&names(&[other.clone(), uri(ID)])), "{other:?}");
    }
    let other = read(&names(&[uri("https://a.example/"), uri("https://b.example/")])).unwrap();
    assert_eq!(other.spiffe_id, None);
}

#[test]
fn attack_13_one_malformed_name_refuses_the_certificate() {
    let sequence = |entries: &[Vec<u8>]| der(0x30, &entries.concat());
    for (what, san) in [
        ("an unknown tag after the ID", sequence(&[uri(ID), der(0x8a, b"x")])),
        ("an unknown tag before it", sequence(&[der(0x8a, b"x"), uri(ID)])),
        ("a constructed URI", sequence(&[der(0xa6, ID.as_bytes())])),
        ("an entry cut short", sequence(&[uri(ID), vec![0x86, 0x20, b'x']])),
        ("bytes after the list", [sequence(&[uri(ID)]), vec![0]].concat()),
        ("a list as a set", der(0x31, &uri(ID))),
        ("a length of more bytes than needed", [vec![0x30, 0x81, 42], uri(ID)].concat()),
        ("an empty list", der(0x30, &[])),
        ("no list", Vec::new()),
        ("letters beyond ASCII", sequence(&[uri(ID), dns("büro.example")])),
        ("an IP address of five octets", sequence(&[uri(ID), der(0x87, &[1, 2, 3, 4, 5])])),
        ("an empty DNS name", sequence(&[uri(ID), dns("")])),
        ("a DNS name with a trailing dot", sequence(&[dns("gateway.edge.svc.")])),
        ("a DNS name that is a URL", sequence(&[dns("https://gateway.edge.svc")])),
    ] {
        assert!(refused(&with_san(|_| {}, san)), "{what}");
    }
}

#[test]
fn attack_31_nul_and_control_characters_in_names_refuse_the_certificate() {
    for bad in ["a\0b", "a\nb", "a\r\nb", "a b", "a\tb", "a\x7f", "\x1b[31m"] {
        for entry in [
            uri(format!("spiffe://prod.example/{bad}")),
            uri(format!("https://prod.example/{bad}")),
            dns(format!("{bad}.example")),
            der(0x81, format!("{bad}@prod.example").as_bytes()),
        ] {
            assert!(refused(&names(&[entry])), "{bad:?}");
        }
    }
}

#[test]
fn attack_18_an_ip_address_is_no_dns_name() {
    let peer =
        read(&names(&[dns("10.0.0.1"), dns("127.1"), dns("::1"), dns("a.example")])).unwrap();
    assert_eq!(peer.dns_names, ["a.example"]);
    assert!(peer.ip_addresses.is_empty());
}

#[test]
fn attack_14_a_malformed_spiffe_id_refuses_the_certificate() {
    for bad in [
        "spiffe://prod.example",
        "spiffe://prod.example/",
        "SPIFFE://prod.example/a",
        "spiffe://Prod.example/a",
        "spiffe://prod.example/a?q",
        "spiffe://prod.example/%61",
        "spiffe:prod.example/a",
        "spiffe://prod.example/ns/pay/sa/x,By=spiffe://prod.example/envoy;Hash=00;URI=spiffe://x/y",
    ] {
        assert!(refused(&names(&[uri(bad), dns("a.example")])), "{bad}");
    }
}

#[test]
fn a_svid_is_no_authority_and_signs_its_connections_alone() {
    let ca = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(Constraints::Unconstrained);
    };
    let usages = |usages: &[KeyUsagePurpose]| {
        let usages = usages.to_vec();
        |params: &mut CertificateParams| params.key_usages = usages
    };
    use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign, KeyEncipherment};
    let svid = || der(0x30, &uri(ID));
    assert!(refused(&with_san(ca, svid())));
    assert!(refused(&with_san(usages(&[DigitalSignature, KeyCertSign]), svid())));
    assert!(refused(&with_san(usages(&[DigitalSignature, CrlSign]), svid())));
    assert!(refused(&with_san(usages(&[KeyEncipherment]), svid())));
    assert!(!refused(&with_san(usages(&[DigitalSignature, KeyEncipherment]), svid())));
    assert!(!refused(&with_san(usages(&[]), svid())));
}

#[test]
fn what_is_no_certificate_is_refused() {
    let leaf = names(&[uri(ID)]);
    assert!(refused(b""));
    assert!(refused(b"-----BEGIN CERTIFICATE-----"));
    assert!(refused(&leaf[..leaf.len() - 1]));
    assert!(refused(&[leaf.as_slice(), &[0]].concat()));
    assert!(refused(&[leaf.as_slice(), &leaf].concat()));
    assert!(refused(&vec![0x30; 1 << 20]));
    let twice = with_san(
        |params| params.subject_alt_names = vec![rcgen::SanType::URI(ID.try_into().unwrap())],
        der(0x30, &uri(ID)),
    );
    assert!(refused(&twice));
}

/// Every byte of a certificate that is turned over gives a certificate or a refusal, never a panic.
#[test]
fn no_damage_panics() {
    let leaf = names(&[uri(ID), dns("a.example"), der(0x87, &[10, 0, 0, 1])]);
    for at in 0..leaf.len() {
        for flip in [0x01, 0x20, 0x80, 0xff] {
            let mut damaged = leaf.clone();
            damaged[at] ^= flip;
            let _ = read(&damaged);
        }
        let _ = read(&leaf[..at]);
    }
}

/// What the reading of a certificate of another project's tests must come to.
#[derive(Debug, PartialEq)]
enum Outcome {
    Svid(String),
    NoSvid,
    Refused,
}

fn outcome(leaf: &[u8]) -> Outcome {
    match read(leaf) {
        Ok(PeerIdentity { spiffe_id: Some(id), .. }) => Outcome::Svid(id),
        Ok(_) => Outcome::NoSvid,
        Err(_) => Outcome::Refused,
    }
}

fn expected(name: &str) -> Outcome {
    let svid = |path: &str| Outcome::Svid(format!("spiffe://example.org/{path}"));
    match name {
        "good-leaf-and-intermediate.pem" | "good-leaf-only.pem" => svid("workload-1"),
        // Their leaf is good and what it hangs from is not: the TLS stack verifies paths, and never
        // lets these as far as here.
        "wrong-intermediate-no-ca.pem"
        | "wrong-intermediate-no-ca.der"
        | "wrong-intermediate-no-key-cert-sign.pem" => svid("workload-1"),
        // Expired, and read as such: the layer holds the validity against its clock on each request.
        "expired-svid-chain.der" => svid("service"),
        // RFC 5280 has an empty subject where the names stand in the extension.
        "empty-subject-name.der" => svid("test-empty-subject"),
        "1-svid-chain.der"
        | "spiffe_leaf.der"
        | "spiffe_leaf_uri_only.der"
        | "svid-with-dns.der" => svid("service"),
        // Without a URI they claim no SPIFFE ID; rules for DNS names and pins may still fit.
        "no_spiffe_leaf.der" | "ca.der" | "ca_uri_only.der" => Outcome::NoSvid,
        _ if name.starts_with("wrong-leaf-empty-id.") => Outcome::NoSvid,
        "not-pem"
        | "corrupt-cert.pem"
        | "ca_with_spiffe_signing.der"
        | "spiffe_leaf_no_digital_signature.der" => Outcome::Refused,
        _ if name.starts_with("wrong-leaf-") => Outcome::Refused,
        _ => panic!("{name} is new: say here what it must come to"),
    }
}

#[test]
fn the_certificates_of_go_spiffe_and_rust_spiffe_come_to_what_their_names_say() {
    for folder in ["go-spiffe", "rust-spiffe"] {
        for file in vectors::files(folder, |_| true) {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            let bytes = std::fs::read(&file).unwrap();
            let leaf = if name.ends_with(".der") {
                first_element(&bytes).to_vec()
            } else {
                CertificateDer::from_pem_slice(&bytes).map(|der| der.to_vec()).unwrap_or_default()
            };
            assert_eq!(outcome(&leaf), expected(&name), "{folder}/{name}");
        }
    }
}

/// The leaf of a chain in DER, which is one element after the other.
fn first_element(chain: &[u8]) -> &[u8] {
    assert_eq!(chain[..2], [0x30, 0x82]);
    &chain[..4 + usize::from(u16::from_be_bytes([chain[2], chain[3]]))]
}

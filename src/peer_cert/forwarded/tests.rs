use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use rustls_pki_types::CertificateDer;

use super::{source::Form, *};
use crate::{
    identity::{PeerIdentity, Proxy},
    peer_cert::PeerRule,
};

mod vectors;

/// Two certificates that nothing tells apart but their names, and an authority's.
pub(super) fn certificate(name: &str) -> CertificateDer<'static> {
    let params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
}

/// As OpenSSL and its like write it.
pub(super) fn pem(der: &[u8]) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let base64 = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(|l| str::from_utf8(l).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// As Envoy and nginx escape it.
pub(super) fn escaped(pem: &str) -> String {
    [("\n", "%0A"), (" ", "%20"), ("+", "%2B"), ("/", "%2F"), ("=", "%3D")]
        .iter()
        .fold(pem.to_owned(), |text, (from, to)| text.replace(from, to))
}

pub(super) fn sequence(der: &[u8]) -> String {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    format!(":{}:", BASE64_STANDARD.encode(der))
}

fn name(name: &str) -> HeaderName {
    HeaderName::try_from(name).unwrap()
}

fn headers<'a>(lines: impl IntoIterator<Item = (&'a str, &'a str)>) -> HeaderMap {
    let line = |(key, value): (&str, &str)| (name(key), HeaderValue::from_str(value).unwrap());
    // `collect` would keep the last of several.
    lines.into_iter().map(line).fold(HeaderMap::new(), |mut all, (key, value)| {
        all.append(key, value);
        all
    })
}

fn peer(id: &str) -> Arc<PeerIdentity> {
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names.push(rcgen::SanType::URI(id.try_into().unwrap()));
    let leaf = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    Arc::new(crate::peer_cert::certificate::read(leaf.der()).unwrap())
}

const ENVOY: &str = "spiffe://prod.example/ns/edge/sa/envoy";

fn envoy() -> ProxyTrust {
    ProxyTrust::identity(PeerRule::spiffe(ENVOY).unwrap())
}

#[test]
fn attack_02_a_proxy_is_told_by_its_certificate_before_its_address() {
    let networks = ProxyTrust::networks(["10.0.0.0/8"]).unwrap();
    let both = Forwarded::xfcc().trusted_by(networks).trusted_by(envoy());
    let (proxy, other) = (peer(ENVOY), peer("spiffe://prod.example/ns/edge/sa/other"));
    let inside = "10.0.0.1".parse().ok();
    let outside = "11.0.0.1".parse().ok();
    let workload = Some(Proxy::Workload(Arc::clone(&proxy)));
    assert_eq!(both.proxy(Some(&proxy), inside, false), workload);
    assert_eq!(both.proxy(Some(&proxy), None, false), workload);
    let address = inside.map(Proxy::Address);
    assert_eq!(both.proxy(Some(&other), inside, false), address);
    assert_eq!(both.proxy(None, inside, false), address);
    assert_eq!(both.proxy(Some(&other), outside, false), None);
    assert_eq!(both.proxy(None, None, true), None);

    // The same network is not enough where a certificate is asked for.
    let one = Forwarded::xfcc().trusted_by(envoy());
    assert_eq!(one.proxy(Some(&other), inside, false), None);
    assert_eq!(one.proxy(None, inside, true), None);
    assert_eq!(Forwarded::xfcc().proxy(Some(&proxy), inside, true), None);
}

#[test]
fn attack_03_a_proxy_with_a_mapped_address_is_the_one_it_stands_for() {
    let forwarded = Forwarded::xfcc().trusted_by(ProxyTrust::networks(["10.0.0.0/8"]).unwrap());
    let told = Some(Proxy::Address("10.0.0.1".parse().unwrap()));
    assert_eq!(forwarded.proxy(None, "::ffff:10.0.0.1".parse().ok(), false), told);
    assert_eq!(forwarded.proxy(None, "::ffff:11.0.0.1".parse().ok(), false), None);
}

#[test]
fn a_unix_socket_is_trusted_where_it_is_said() {
    let forwarded = Forwarded::xfcc().trusted_by(ProxyTrust::unix_socket());
    assert_eq!(forwarded.proxy(None, None, true), Some(Proxy::UnixSocket));
    assert_eq!(forwarded.proxy(None, "127.0.0.1".parse().ok(), false), None);
    assert!(ProxyTrust::networks([]).is_err());
    assert!(ProxyTrust::networks(["10.0.0.0/8", "0.0.0.0/0"]).is_err());
}

#[test]
fn attack_11_what_nobody_verifies_can_not_be_built() {
    let status = || (name("x-verify"), "0");
    let trusted = |forwarded: Forwarded| forwarded.trusted_by(envoy());
    for (forwarded, is_verified) in [
        (Forwarded::xfcc(), false),
        (Forwarded::client_cert(), false),
        (Forwarded::alb_passthrough(), false),
        (Forwarded::nginx(), true),
        (Forwarded::alb(), true),
    ] {
        let forwarded = trusted(forwarded);
        assert_eq!(forwarded.check(false).is_ok(), is_verified, "{forwarded:?}");
        assert!(forwarded.check(true).is_ok(), "{forwarded:?}");
        let (header, value) = status();
        assert!(forwarded.verified_by(header, value).check(false).is_ok());
    }
}

#[test]
fn what_can_not_work_can_not_be_built() {
    let mistakes = [
        Forwarded::nginx(),
        Forwarded::nginx().trusted_by(envoy()).chain_header(name("chain")),
        Forwarded::xfcc().trusted_by(envoy()).chain_header(name("chain")),
        Forwarded::nginx().trusted_by(envoy()).cert_header(name("ssl-client-verify")),
        Forwarded::client_cert().trusted_by(envoy()).chain_header(name("client-cert")),
        Forwarded::client_cert().trusted_by(envoy()).verified_by(name("client-cert-chain"), "0"),
        Forwarded::nginx().trusted_by(envoy()).verified_by(name("x-verify"), ""),
        Forwarded::nginx().trusted_by(envoy()).verified_by(name("x-verify"), " 0"),
        Forwarded::nginx().trusted_by(envoy()).verified_by(name("x-verify"), "0\n"),
        Forwarded::nginx().trusted_by(envoy()).verified_by(name("x-verify"), "ja wohl é"),
    ];
    for mistake in mistakes {
        assert!(mistake.check(true).is_err(), "{mistake:?}");
    }
    let renamed =
        Forwarded::client_cert().cert_header(name("x-cert")).chain_header(name("x-chain"));
    assert!(renamed.verified_by(name("x-verify"), "0").trusted_by(envoy()).check(false).is_ok());
}

#[test]
fn attack_01_every_known_name_is_removed() {
    let all = || {
        headers([
            ("x-forwarded-client-cert", "a"),
            ("x-forwarded-client-cert", "b"),
            ("x_forwarded_client_cert", "a"),
            ("client-cert", "a"),
            ("client_cert_chain", "a"),
            ("ssl-client-cert", "a"),
            ("ssl-client-verify", "a"),
            ("ssl_client_verify", "a"),
            ("x-amzn-mtls-clientcert", "a"),
            ("x-amzn-mtls-clientcert-leaf", "a"),
            ("x_my_cert", "a"),
            ("x-my-cert", "a"),
            ("x-my-verify", "a"),
            ("x-my", "kept"),
            ("host", "kept"),
        ])
    };
    let own =
        Forwarded::nginx().cert_header(name("x-my-cert")).verified_by(name("x-my-verify"), "1");
    let mut stripped = all();
    strip(Some(&own), &mut stripped);
    assert_eq!(stripped, headers([("x-my", "kept"), ("host", "kept")]));
    let mut stripped = all();
    strip(None, &mut stripped);
    let rest = [("x_my_cert", "a"), ("x-my-cert", "a"), ("x-my-verify", "a")];
    assert_eq!(stripped, headers(rest.into_iter().chain([("x-my", "kept"), ("host", "kept")])));
}

/// A header of each dialect that says `leaf`, and what to say beside it.
fn dialects(leaf: &[u8]) -> Vec<(Forwarded, Vec<(&'static str, String)>)> {
    let escaped = escaped(&pem(leaf));
    let hash: String = crate::peer_cert::certificate::read(leaf)
        .unwrap()
        .leaf_sha256
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let xfcc = format!("Hash={hash};Cert=\"{escaped}\"");
    let verify = ("ssl-client-verify", "SUCCESS".to_owned());
    vec![
        (Forwarded::xfcc(), vec![("x-forwarded-client-cert", xfcc)]),
        (Forwarded::client_cert(), vec![("client-cert", sequence(leaf))]),
        (Forwarded::nginx(), vec![("ssl-client-cert", escaped.clone()), verify]),
        (Forwarded::alb(), vec![("x-amzn-mtls-clientcert-leaf", escaped.clone())]),
        (Forwarded::alb_passthrough(), vec![("x-amzn-mtls-clientcert", escaped)]),
    ]
}

fn lines<'a>(said: &'a [(&str, String)]) -> impl Iterator<Item = (&'a str, &'a str)> {
    said.iter().map(|(key, value)| (*key, value.as_str()))
}

#[test]
fn each_dialect_is_read() {
    let leaf = certificate("gateway");
    for (forwarded, said) in dialects(&leaf) {
        let read = forwarded.read(&headers(lines(&said))).unwrap().unwrap();
        assert_eq!((&read.leaf, read.chain.as_slice()), (&leaf, [].as_slice()));
        assert_eq!(read.verified, matches!(forwarded.form, Form::Pem | Form::VerifiedPem));
        assert_eq!(forwarded.read(&HeaderMap::new()), Ok(None));
    }
}

#[test]
fn attack_07_a_header_that_is_there_twice_is_refused() {
    let leaf = certificate("gateway");
    for (forwarded, said) in dialects(&leaf) {
        for (key, value) in lines(&said) {
            for other in [value, "", "x"] {
                let twice = headers(lines(&said).chain([(key, other)]));
                let read = forwarded.read(&twice);
                assert!(matches!(read, Err(Unbelievable::Malformed(_))), "{key}: {other}");
            }
        }
    }
    let value = sequence(&leaf);
    let chain = ("client-cert-chain", value.as_str());
    let once = headers([("client-cert", value.as_str()), chain]);
    assert_eq!(Forwarded::client_cert().read(&once).unwrap().unwrap().chain, [leaf]);
    let twice = headers([("client-cert", value.as_str()), chain, chain]);
    assert!(Forwarded::client_cert().read(&twice).is_err());
}

#[test]
fn attack_09_bytes_that_are_no_ascii_are_refused() {
    for (forwarded, said) in dialects(&certificate("gateway")) {
        for (key, value) in lines(&said) {
            let mut bytes = value.as_bytes().to_vec();
            bytes.push(0xFF);
            let mut headers = headers(lines(&said));
            headers.insert(name(key), HeaderValue::from_bytes(&bytes).unwrap());
            assert!(forwarded.read(&headers).is_err(), "{key}");
        }
    }
}

#[test]
fn attack_10_what_is_larger_than_its_bounds_is_refused() {
    let large = CertificateDer::from(vec![0x30; 13 * 1024]);
    for (forwarded, said) in
        dialects(&certificate("gateway")).into_iter().map(|(forwarded, mut said)| {
            let last = said.first_mut().unwrap();
            last.1 = if forwarded.form == Form::ClientCert {
                sequence(&large)
            } else {
                escaped(&pem(&large))
            };
            (forwarded, said)
        })
    {
        let read = forwarded.read(&headers(lines(&said)));
        assert!(matches!(read, Err(Unbelievable::Malformed(_))), "{forwarded:?}");
    }
    // Each small enough, and yet too much.
    let (leaf, spaces) = (sequence(&[0x30; 100]), " ".repeat(MAX_BYTES));
    let said = [("client-cert", leaf.as_str()), ("client-cert-chain", spaces.as_str())];
    let read = Forwarded::client_cert().read(&headers(said));
    assert_eq!(read, Err(Unbelievable::Malformed("the headers hold more than 128 KiB")));
}

#[test]
fn attack_11_only_the_exact_status_verifies() {
    let leaf = escaped(&pem(&certificate("gateway")));
    let said =
        |status: &str| headers([("ssl-client-cert", leaf.as_str()), ("ssl-client-verify", status)]);
    assert!(Forwarded::nginx().read(&said("SUCCESS")).is_ok());
    for status in ["", "success", "SUCCESS,", "SUCCESS:x", "NONE", "FAILED:self-signed certificate"]
    {
        assert_eq!(
            Forwarded::nginx().read(&said(status)),
            Err(Unbelievable::Unverified),
            "{status}"
        );
    }
    let silent = headers([("ssl-client-cert", leaf.as_str())]);
    assert_eq!(Forwarded::nginx().read(&silent), Err(Unbelievable::Unverified));
}

#[test]
fn attack_12_what_is_malformed_is_not_absent() {
    let malformed = |forwarded: Forwarded, lines: &[(&str, &str)]| {
        let read = forwarded.read(&headers(lines.iter().copied()));
        assert!(matches!(read, Err(Unbelievable::Malformed(_))), "{lines:?}: {read:?}");
    };
    for (forwarded, said) in dialects(&certificate("gateway")) {
        let (key, _) = *said.first().unwrap();
        for empty in
            ["", "::", ":", "-", "(null)", ":{http.request.tls.client.certificate_der_base64}:"]
        {
            let rest = lines(&said).skip(1);
            malformed(
                forwarded.clone(),
                &[(key, empty)].into_iter().chain(rest).collect::<Vec<_>>(),
            );
        }
    }
    let haproxy = || Forwarded::client_cert().verified_by(name("x-ssl-client-verify"), "0");
    malformed(haproxy(), &[("x-ssl-client-verify", "0")]);
    malformed(haproxy(), &[("client-cert-chain", ":AAAA:")]);
    assert_eq!(haproxy().read(&headers([("x-ssl-client-verify", "18")])), Ok(None));
    malformed(Forwarded::nginx(), &[("ssl-client-verify", "SUCCESS")]);
    malformed(Forwarded::nginx(), &[("ssl-client-verify", "FAILED:self-signed certificate")]);
    malformed(Forwarded::nginx(), &[("ssl-client-verify", "")]);
    assert_eq!(Forwarded::nginx().read(&headers([("ssl-client-verify", "NONE")])), Ok(None));
}

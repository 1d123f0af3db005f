//! The headers that real proxies sent for good, hostile and absent clients.

use std::collections::HashMap;

use super::*;
use crate::peer_cert::vectors;

const GATEWAY: &str = "spiffe://prod.example/ns/edge/sa/gateway";

/// Each probe by what was asked (`--- ..`), and the headers that reached the server.
fn probes(file: &str) -> Vec<(String, HeaderMap)> {
    let mut probes = Vec::new();
    for path in vectors::files("", |name| name == file) {
        for line in std::fs::read_to_string(path).unwrap().lines() {
            if let Some(title) = line.strip_prefix("--- ") {
                probes.push((title.trim().to_owned(), HeaderMap::new()));
            } else if let Some((_, headers)) = probes.last_mut()
                && let Some((key, value)) = line.split_once(": ")
                && !key.starts_with("curl")
            {
                headers.append(name(&key.to_lowercase()), HeaderValue::from_str(value).unwrap());
            }
        }
    }
    probes
}

/// What is made of a probe: the workload, or why there is none.
fn verdict(forwarded: &Forwarded, headers: &HeaderMap) -> String {
    match forwarded.read(headers) {
        Ok(None) => "none".into(),
        Err(Unbelievable::Unverified) => "unverified".into(),
        Err(Unbelievable::Malformed(reason)) => reason.into(),
        Ok(Some(read)) => {
            crate::peer_cert::certificate::read(&read.leaf).unwrap().spiffe_id.unwrap()
        }
    }
}

/// No dialect panics on another's headers, and nothing that speaks of a certificate is left after all.
fn check_others(headers: &HeaderMap) {
    for (forwarded, _) in dialects(&certificate("gateway")) {
        let _ = forwarded.read(headers);
    }
    let mut stripped = headers.clone();
    strip(None, &mut stripped);
    for (name, value) in &stripped {
        assert!(!value.to_str().unwrap().contains("MII"), "{name}");
        assert!(!name.as_str().contains("cert") && !name.as_str().contains("verify"), "{name}");
    }
}

#[test]
fn attack_05_of_what_envoy_sent_only_its_own_words_are_read() {
    const SPOOF: &str = "x-forwarded-client-cert: URI=spiffe://prod.example/ns/edge/sa/SPOOF";
    const SEVERAL: &str = "there is another element, or something stray";
    const TWICE: &str = "a key is there twice";
    const NO_CERT: &str = "it has no Cert: turn on cert in Envoy's set_current_client_cert_details";
    let expected = [
        ("port 18441 client=gateway".into(), GATEWAY),
        (format!("port 18441 client=gateway --http1.1 -H {SPOOF}"), GATEWAY),
        (format!("port 18442 client=billing -H {SPOOF}"), SEVERAL),
        (
            "port 18442 client=billing -H x-forwarded-client-cert: URI=spiffe://a \
             -H x-forwarded-client-cert: URI=spiffe://b"
                .into(),
            SEVERAL,
        ),
        ("port 18443 client=gateway".into(), NO_CERT),
        ("port 18443 client=twouri".into(), TWICE),
        ("port 18443 client=inject1".into(), TWICE),
        ("port 18443 client=inject2".into(), SEVERAL),
        ("port 18441 client=inject3".into(), SEVERAL),
        ("port 18442 client=inject3".into(), SEVERAL),
        ("port 18443 client=nosan".into(), NO_CERT),
        ("port 18443 client=dnsonly".into(), NO_CERT),
        ("port 18443 client=serveronly".into(), "none"),
        ("port 18443 client=none".into(), "none"),
        (format!("port 18444 client=none -H {SPOOF}"), NO_CERT),
        (format!("port 18445 client=gateway -H {SPOOF}"), "none"),
        (
            "port 18445 client=gateway -H Client-Cert: :c3Bvb2Y=: -H ssl-client-verify: SUCCESS \
             -H x_forwarded_client_cert: URI=spoof"
                .into(),
            "none",
        ),
    ];
    let expected: HashMap<String, &str> = expected.into_iter().collect();
    let probes = probes("envoy-1.40-xfcc.txt");
    for (title, headers) in &probes {
        let verdict = verdict(&Forwarded::xfcc(), headers);
        assert_eq!(Some(verdict.as_str()), expected.get(title).copied(), "{title}");
        check_others(headers);
    }
    println!("{} probes", probes.len());
    assert!(probes.is_empty() || probes.len() == expected.len());
}

#[test]
fn attack_11_and_12_what_nginx_haproxy_and_caddy_sent_is_judged() {
    let haproxy = Forwarded::client_cert().verified_by(name("x-ssl-client-verify"), "0");
    let caddy = Forwarded::client_cert();
    let nginx = Forwarded::nginx();
    let expected: HashMap<_, _> = [
        (("18451", "../envoy/pki/gateway"), (&haproxy, GATEWAY)),
        (
            ("18451", "none"),
            (&haproxy, "the proxy says that it verified a certificate, but sends none"),
        ),
        (("18451", "rogue"), (&haproxy, "unverified")),
        (("18452", "../envoy/pki/gateway"), (&caddy, GATEWAY)),
        (("18452", "none"), (&caddy, "a certificate is no Base64")),
        (("18452", "rogue"), (&caddy, "none")),
        (("18453", "../envoy/pki/gateway"), (&nginx, GATEWAY)),
        (("18453", "none"), (&nginx, "none")),
        (("18453", "rogue"), (&nginx, "unverified")),
    ]
    .into();
    let probes = probes("nginx-haproxy-caddy.txt");
    for (title, headers) in &probes {
        let mut words = title.split(' ');
        let key = (words.next().unwrap(), words.next().unwrap());
        let (forwarded, expected) = expected.get(&key).unwrap();
        assert_eq!(verdict(forwarded, headers), *expected, "{title}");
        check_others(headers);
    }
    println!("{} probes", probes.len());
    assert!(probes.is_empty() || probes.len() == expected.len());
}

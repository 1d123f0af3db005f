//! PeerCertLayer behind real proxies, which end the TLS of their clients and forward the certificates in headers.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

#[path = "../pki/mod.rs"]
mod pki;
mod rig;
#[path = "../support/mod.rs"]
mod support;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use palisade::peer_cert::Forwarded;
use pki::{Authority, GATEWAY, Leaf, OUTSIDER};
use rcgen::{DnType, ExtendedKeyUsagePurpose, SanType};
use rig::{Answer, PROXY, Rig, Source, Verified, Version};
use sha2::{Digest as _, Sha256};

async fn envoy() -> Option<Rig> {
    let arguments = ["--disable-hot-restart", "--concurrency", "1", "-l", "warn", "-c"];
    let source = Source { forwarded: Forwarded::xfcc(), verified: Verified::Here };
    Rig::start("envoy", &arguments, include_str!("envoy.yaml"), 3, source).await
}

async fn nginx(verified: Verified) -> Option<Rig> {
    let source = Source { forwarded: Forwarded::nginx(), verified };
    Rig::start("nginx", &["-e", "stderr", "-c"], include_str!("nginx.conf"), 1, source).await
}

async fn haproxy() -> Option<Rig> {
    let forwarded =
        Forwarded::client_cert().verified_by("x-ssl-client-verify".parse().unwrap(), "0");
    let source = Source { forwarded, verified: Verified::ByTheProxy };
    Rig::start("haproxy", &["-f"], include_str!("haproxy.cfg"), 1, source).await
}

fn is_gateway(answer: &Answer) -> bool {
    answer.status == 200 && answer.peer == format!("{GATEWAY} through {PROXY}, headers left: false")
}

fn with_uri(ca: &Authority, uri: &str) -> Leaf {
    ca.issue(|params| params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())])
}

/// What a client may send in the hope that somebody believes it, as if the gateway's certificate came with it.
fn spoofs(gateway: &Leaf) -> Vec<(&'static str, String)> {
    let escaped = percent_encoded(&gateway.cert);
    let der = format!(":{}:", BASE64_STANDARD.encode(&gateway.der));
    let xfcc = format!("Hash={};Cert=\"{escaped}\";URI={GATEWAY}", hash(gateway));
    vec![
        ("x-forwarded-client-cert", xfcc.clone()),
        ("X-FORWARDED-CLIENT-CERT", xfcc),
        ("client-cert", der),
        ("ssl-client-cert", escaped.clone()),
        ("ssl-client-verify", "SUCCESS".into()),
        ("x-ssl-client-verify", "0".into()),
        ("x-amzn-mtls-clientcert", escaped.clone()),
        ("x-amzn-mtls-clientcert-leaf", escaped),
    ]
}

fn hash(leaf: &Leaf) -> String {
    Sha256::digest(&leaf.der).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn percent_encoded(pem: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let encode = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    pem.bytes().map(encode).collect()
}

/// What must hold whatever the proxy.
async fn holds_behind(rig: &Rig) {
    let (gateway, outsider) = (rig.ca.workload(GATEWAY), rig.ca.workload(OUTSIDER));
    assert!(is_gateway(&rig.ask(0, Some(&gateway), &[]).await));
    let refused = rig.ask(0, Some(&outsider), &[]).await;
    assert_eq!((refused.status, &*refused.code), (403, "This client may not use this service."));

    let spoofs = spoofs(&gateway);
    let all: Vec<(&str, &str)> = spoofs.iter().map(|(name, value)| (*name, &**value)).collect();
    let each = all.iter().map(|one| vec![*one]).chain([all.clone()]);
    for headers in each {
        // Attack 1: what a client says of itself counts for nothing, through the proxy or past it.
        for client in [None, Some(&outsider)] {
            let answer = rig.ask(0, client, &headers).await;
            assert!([0, 400, 401, 403].contains(&answer.status), "{headers:?}: {answer:?}");
            for version in [Version::Http1, Version::Http2] {
                let direct = rig.ask_by(version, rig.behind.port(), client, &headers).await;
                assert!([0, 403].contains(&direct.status), "{headers:?}: {direct:?}");
            }
        }
        // And does not harm who may pass.
        if headers.iter().all(|(name, _)| !name.eq_ignore_ascii_case("x-ssl-client-verify")) {
            assert!(is_gateway(&rig.ask(0, Some(&gateway), &headers).await), "{headers:?}");
        }
    }

    // Attack 11: from another authority, with all the right names.
    for name in ["ca", "elsewhere"] {
        let rogue = Authority::new(name).workload(GATEWAY);
        let answer = rig.ask(0, Some(&rogue), &[]).await;
        assert!([0, 400, 401].contains(&answer.status), "{answer:?}");
    }
    // Attack 13: two names.
    let two = rig.ca.issue(|params| {
        params.subject_alt_names =
            [OUTSIDER, GATEWAY].map(|id| SanType::URI(id.try_into().unwrap())).into();
    });
    let answer = rig.ask(0, Some(&two), &[]).await;
    assert!([400, 401].contains(&answer.status), "{answer:?}");
    // Attack 19: the name of the gateway where none is looked for.
    let common = rig.ca.issue(|params| params.distinguished_name.push(DnType::CommonName, GATEWAY));
    assert_eq!(rig.ask(0, Some(&common), &[]).await.status, 403);
    // For servers alone.
    let of_server = rig.ca.issue(|params| {
        params.subject_alt_names = vec![SanType::URI(GATEWAY.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let answer = rig.ask(0, Some(&of_server), &[]).await;
    assert!([0, 400, 401].contains(&answer.status), "{answer:?}");
    // Expired.
    let expired = rig.ca.workload_until(GATEWAY, 2021);
    let answer = rig.ask(0, Some(&expired), &[]).await;
    assert!([0, 400, 401].contains(&answer.status), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_forwards_and_no_name_forges() {
    let Some(rig) = envoy().await else { return };
    holds_behind(&rig).await;
    let gateway = rig.ca.workload(GATEWAY);
    // Attack 5: whole elements, and parts of one, in a name that the right authority signed.
    let pem = percent_encoded(&gateway.cert);
    let forged = format!(
        "spiffe://prod.example/ns/pay/sa/x,By={PROXY};Hash={};Cert=\"{pem}\";URI={GATEWAY}",
        hash(&gateway)
    );
    for uri in [
        format!("spiffe://prod.example/ns/pay/sa/x;URI={GATEWAY}"),
        format!("spiffe://prod.example/ns/pay/sa/x,By={PROXY};Hash=00;URI={GATEWAY}"),
        format!("spiffe://prod.example/ns/pay/sa/x,URI={GATEWAY}"),
        format!("x\";URI={GATEWAY}"),
        format!("{GATEWAY};DNS=x"),
        format!("{GATEWAY}\""),
        forged,
    ] {
        let hostile = with_uri(&rig.ca, &uri);
        for port in [0, 1, 2] {
            let answer = rig.ask(port, Some(&hostile), &[]).await;
            assert!([400, 401, 403].contains(&answer.status), "{port} {uri}: {answer:?}");
        }
    }
    // A subject with everything in it that could end a value is read past.
    let odd = rig.ca.issue(|params| {
        params.subject_alt_names = vec![SanType::URI(GATEWAY.try_into().unwrap())];
        for (kind, value) in [
            (DnType::OrganizationName, "Acme, Inc.; URI=x"),
            (DnType::OrganizationalUnitName, "Edge \"A\"; team=\\"),
            (DnType::CommonName, "gateway,By=x"),
        ] {
            params.distinguished_name.push(kind, value);
        }
    });
    assert!(is_gateway(&rig.ask(0, Some(&odd), &[]).await));

    // Without the certificate there is nothing to go by.
    assert_eq!(rig.ask(1, Some(&gateway), &[]).await.status, 400);
    // Attack 6: where Envoy appends, one element is what it made itself, and two are one too many.
    assert!(is_gateway(&rig.ask(2, Some(&gateway), &[]).await));
    let element = format!("By={PROXY};Hash={};Cert=\"{pem}\";URI={GATEWAY}", hash(&gateway));
    let outsider = rig.ca.workload(OUTSIDER);
    for client in [&outsider, &gateway] {
        let headers = [("x-forwarded-client-cert", &*element)];
        assert_eq!(rig.ask(2, Some(client), &headers).await.status, 400);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_forwards_with_its_verdict() {
    for verified in [Verified::ByTheProxy, Verified::Here] {
        let Some(rig) = nginx(verified).await else { return };
        holds_behind(&rig).await;
        // It lets everybody through and says what it thinks: FAILED, or NONE.
        let rogue = Authority::new("elsewhere").workload(GATEWAY);
        assert_eq!(rig.ask(0, Some(&rogue), &[]).await.status, 401);
        assert_eq!(rig.ask(0, None, &[]).await.status, 401);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_forwards_as_rfc_9440_has_it() {
    let Some(rig) = haproxy().await else { return };
    holds_behind(&rig).await;
    // Its status is 0, as for a good certificate, also where there is none.
    assert_eq!(rig.ask(0, None, &[]).await.status, 401);
    let rogue = Authority::new("ca").workload(GATEWAY);
    assert_eq!(rig.ask(0, Some(&rogue), &[]).await.status, 401);
}

//! TlsListener and PeerCertLayer, against real clients over loopback.
#![cfg(all(feature = "tls", feature = "peer-cert", feature = "axum", feature = "test-util"))]
#![allow(clippy::panic, clippy::unwrap_used)] // Helpers of tests.

mod handshakes;
mod openssl;
#[path = "../pki/mod.rs"]
mod pki;
mod rotation;
mod server;
#[path = "../support/mod.rs"]
mod support;

use std::{process::Command, sync::Arc, time::Duration};

use http::{StatusCode, Version};
use palisade::{
    clock::{Clock, ManualClock, SystemClock},
    tls::TlsConfigBuilder,
};
use pki::{Authority, GATEWAY, Leaf, NOT_AFTER, OUTSIDER};
use rcgen::SanType;
use server::{Folder, Server};

#[tokio::test]
async fn the_gateway_passes_over_http1_and_http2() {
    let server = Server::start(|config| config).await;
    let gateway = server.gateway();
    let client = || server.client(Some(&gateway));
    for (client, version) in
        [(client().http1_only(), Version::HTTP_11), (client(), Version::HTTP_2)]
    {
        let response = client.build().unwrap().post(server.url("/generate")).send().await.unwrap();
        assert_eq!((response.status(), response.version()), (StatusCode::OK, version));
        assert_eq!(response.text().await.unwrap(), GATEWAY);
    }
}

#[tokio::test]
async fn both_versions_of_tls_are_spoken() {
    let server = Server::start(|config| config).await;
    for version in [reqwest::tls::Version::TLS_1_2, reqwest::tls::Version::TLS_1_3] {
        let client = server
            .client(Some(&server.gateway()))
            .tls_version_min(version)
            .tls_version_max(version);
        let response = client.build().unwrap().post(server.url("/generate")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn an_outsider_of_the_same_authority_is_forbidden() {
    let server = Server::start(|config| config).await;
    let outsider = server.ca.workload(OUTSIDER).bundle();
    let response = server.post_as(Some(&outsider)).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_client_without_a_certificate_gets_no_connection_where_one_is_demanded() {
    let server = Server::start(|config| config).await;
    assert!(server.post_as(None).await.is_err());
}

#[tokio::test]
async fn a_client_without_a_certificate_is_nobody_where_it_is_optional() {
    let server = Server::start(TlsConfigBuilder::optional_client_auth).await;
    assert_eq!(server.post_as(None).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.post_as(Some(&server.gateway())).await.unwrap().status(), StatusCode::OK);
    let healthz = server.client(None).build().unwrap().get(server.url("/healthz")).send().await;
    assert_eq!(healthz.unwrap().text().await.unwrap(), "nobody");
}

#[tokio::test]
async fn plain_tls_knows_no_client() {
    let server = Server::start_with(Arc::<SystemClock>::default(), |config, _| config).await;
    let response = server.post_as(Some(&server.gateway())).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_bad_certificate_is_refused_even_where_none_is_needed() {
    let stranger = Authority::new("stranger").workload(GATEWAY).bundle();
    for optional in [false, true] {
        let server =
            Server::start(|config| if optional { config.optional_client_auth() } else { config })
                .await;
        let expired = server.ca.workload_until(GATEWAY, 2021).bundle();
        let not_for_clients = server.ca.server().bundle();
        for bad in [&stranger, &expired, &not_for_clients] {
            assert!(server.post_as(Some(bad)).await.is_err());
        }
        assert!(server.post_as(Some(&server.gateway())).await.is_ok());
    }
}

#[tokio::test]
async fn attack_13_two_uris_pass_the_tls_stack_and_not_the_layer() {
    let server = Server::start(|config| config).await;
    let two = server.ca.issue(|params| {
        params.subject_alt_names =
            [GATEWAY, OUTSIDER].map(|id| SanType::URI(id.try_into().unwrap())).to_vec();
    });
    let response = server.post_as(Some(&two.bundle())).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn attack_21_what_a_client_appends_to_its_chain_names_nobody() {
    let server = Server::start(|config| config).await;
    let (outsider, gateway) = (server.ca.workload(OUTSIDER), server.ca.workload(GATEWAY));
    let chain = format!("{}{}{}", outsider.cert, gateway.cert, outsider.key);
    assert_eq!(server.post_as(Some(&chain)).await.unwrap().status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn attack_23_a_certificate_that_expires_on_a_live_connection_is_refused() {
    let clock = Arc::new(ManualClock::at(SystemClock::default().unix()));
    let server =
        Server::start_with(Arc::clone(&clock) as _, |config, ca| config.client_ca_pem(ca.pem()))
            .await;
    let client = server.client(Some(&server.gateway())).build().unwrap();
    let post = async || client.post(server.url("/generate")).send().await.unwrap();
    assert_eq!(post().await.status(), StatusCode::OK);
    clock.step_to(Duration::from_secs(NOT_AFTER + 1));
    let response = post().await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let body = response.text().await.unwrap();
    assert!(!body.contains("spiffe"), "{body}");
}

#[tokio::test]
async fn curl_passes_and_is_refused_as_it_should() {
    if Command::new("curl").arg("--version").output().is_err() {
        return support::skip("curl is not installed");
    }
    let server = Server::start(|config| config).await;
    let folder = Folder::new("curl");
    let file = |name: &str, text: &str| folder.write(name, text).into_os_string();
    let ca = file("ca.pem", &server.ca.pem());
    let curl = async |leaf: Option<Leaf>, version: &str| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--noproxy", "*", "--max-time", "20", "-X", "POST", version]);
        curl.args(["--write-out", " %{http_code}", "--cacert"]).arg(&ca);
        if let Some(leaf) = leaf {
            curl.arg("--cert").arg(file("cert.pem", &leaf.cert));
            curl.arg("--key").arg(file("key.pem", &leaf.key));
        }
        curl.arg(format!("https://127.0.0.1:{}/generate", server.addr.port()));
        let output = tokio::task::spawn_blocking(move || curl.output().unwrap()).await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for version in ["--http1.1", "--http2"] {
        let gateway = server.ca.workload(GATEWAY);
        assert_eq!(curl(Some(gateway), version).await, format!("{GATEWAY} 200"));
        let outsider = curl(Some(server.ca.workload(OUTSIDER)), version).await;
        assert!(outsider.ends_with(" 403"), "{outsider}");
        assert_eq!(curl(None, version).await, " 000");
    }
}

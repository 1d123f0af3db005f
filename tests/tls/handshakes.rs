//! Handshakes: beside each other, in time, and never resumed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::StatusCode;
use palisade::tls::{TlsConfig, TlsListener};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    pki::{Authority, GATEWAY},
    server::{Server, client_config},
};

#[tokio::test]
async fn attack_23_no_session_is_resumed() {
    let server = Server::start(|config| config).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        // The same configuration twice, so that it remembers the first session.
        let config = client_config(&server.ca, &server.ca.workload(GATEWAY), version);
        for _ in 0..2 {
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
            let stream = TcpStream::connect(server.addr).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = connector.connect(name, stream).await.unwrap();
            let request =
                b"POST /generate HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
            let kind = stream.get_ref().1.handshake_kind();
            assert!(!matches!(kind, None | Some(rustls::HandshakeKind::Resumed)), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn attack_29_a_silent_client_delays_nobody() {
    let server = Server::start(|config| config).await;
    let _silent = TcpStream::connect(server.addr).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begin = Instant::now();
    assert_eq!(server.post_as(Some(&server.gateway())).await.unwrap().status(), StatusCode::OK);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn attack_29_a_thousand_stalled_handshakes_are_shed_and_good_ones_pass() {
    let server = Server::start(|config| {
        config.max_handshakes(8).handshake_timeout(Duration::from_secs(600))
    })
    .await;
    let mut stalled = Vec::new();
    for _ in 0..4 {
        for _ in 0..250 {
            let mut stream = TcpStream::connect(server.addr).await.unwrap();
            // The head of a record that never comes. Some are closed before they send it.
            let _ = stream.write_all(&[22, 3, 1, 2, 0]).await;
            stalled.push(stream);
        }
        let response = server.post_as(Some(&server.gateway())).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let mut open = Vec::new();
        for mut stream in stalled {
            let mut byte = [0; 1];
            let read = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut byte));
            if matches!(read.await, Err(_) | Ok(Ok(1..))) {
                open.push(stream);
            }
        }
        // All but the last few: the good one took a place too.
        assert!((1..=8).contains(&open.len()), "{} are open", open.len());
        stalled = open;
    }
}

#[tokio::test]
async fn attack_29_a_handshake_has_a_time_limit() {
    let limit = Duration::from_millis(100);
    let server = Server::start(|config| config.handshake_timeout(limit)).await;
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    // Half a record, to be past the first byte.
    silent.write_all(&[22, 3, 1, 2]).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(10), silent.read(&mut [0; 1])).await;
    assert!(matches!(read.expect("it should be closed"), Ok(0) | Err(_)));
}

/// In a process of its own, which may open few files.
#[cfg(unix)]
#[tokio::test]
async fn running_out_of_file_descriptors_ends_nothing() {
    const CHILD: &str = "PALISADE_TEST_WITH_FEW_FILES";
    if std::env::var_os(CHILD).is_none() {
        let mut child = tokio::process::Command::new("sh");
        child.args(["-c", "ulimit -n 40 && exec \"$0\" --exact \"$1\""]).env(CHILD, "1");
        child.arg(std::env::current_exe().unwrap());
        child.arg("handshakes::running_out_of_file_descriptors_ends_nothing");
        let output = child.output().await.unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.contains("1 passed"), "{told}");
        return;
    }
    let server = Server::start(|config| config).await;
    let gateway = server.gateway();
    let client = server.client(Some(&gateway)).build().unwrap();
    let mut silent = Vec::new();
    // Each takes one here, and one in the server.
    while let Ok(stream) = TcpStream::connect(server.addr).await {
        silent.push(stream);
        assert!(silent.len() < 40);
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(std::fs::File::open("/dev/null").is_err(), "no file is left to open");
    silent.clear();
    let response = client.post(server.url("/generate")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn accept_is_cancel_safe() {
    let ca = Authority::new("ca");
    let leaf = ca.server();
    let config = TlsConfig::builder().server_cert_pem(&leaf.cert, &leaf.key);
    let config = config.client_ca_pem(ca.pem()).build().unwrap();
    let mut listener = TlsListener::bind("127.0.0.1:0", config).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let config = client_config(&ca, &ca.workload(GATEWAY), &rustls::version::TLS13);
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
            tokio::spawn(async move {
                let stream = TcpStream::connect(addr).await.unwrap();
                connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
            })
        })
        .collect();
    let mut accepted = Vec::new();
    while accepted.len() < clients.len() {
        // Dropped at once whenever it is not ready, as a `select!` may.
        if let Some(connection) = futures_util::FutureExt::now_or_never(listener.accept()) {
            accepted.push(connection);
        }
        tokio::task::yield_now().await;
    }
    assert!(accepted.iter().all(|(_, peer)| peer.certificates().is_some()));
    assert!(accepted.iter().all(|(_, peer)| peer.server_name() == Some("localhost")));
}

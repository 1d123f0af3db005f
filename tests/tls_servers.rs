//! PeerCertLayer behind the TLS of other servers: axum-server's and tonic's own; and tonic on ours.
#![cfg(all(feature = "peer-cert", feature = "tls"))]
#![allow(clippy::unwrap_used)] // Helpers of tests.

mod pki;

use palisade::peer_cert::{PeerCertLayer, PeerRule};
use pki::{Authority, GATEWAY, OUTSIDER};

fn peers() -> PeerCertLayer {
    PeerCertLayer::builder().allow(PeerRule::spiffe(GATEWAY).unwrap()).build().unwrap()
}

#[cfg(all(feature = "axum-server", feature = "axum"))]
#[tokio::test]
async fn axum_servers_tls_info_is_read() {
    use std::sync::Arc;

    use rustls_pki_types::{PrivateKeyDer, pem::PemObject};

    let ca = Authority::new("ca");
    let leaf = ca.server();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der()).unwrap();
    let roots = Arc::new(roots);
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(leaf.chain(), PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap())
        .unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    tcp.set_nonblocking(true).unwrap();
    let addr = tcp.local_addr().unwrap();
    let app = axum::Router::new()
        .route("/generate", axum::routing::post(async || "passed"))
        .layer(peers());
    let config = axum_server::tls_rustls::RustlsConfig::from_config(Arc::new(config));
    let server = axum_server::from_tcp_rustls(tcp, config).unwrap();
    let server = tokio::spawn(server.serve(app.into_make_service()));

    let outsider = ca.workload(OUTSIDER).bundle();
    for (identity, status) in
        [(Some(ca.workload(GATEWAY).bundle()), 200), (Some(outsider), 403), (None, 401)]
    {
        let root = reqwest::Certificate::from_pem(ca.pem().as_bytes()).unwrap();
        let mut client = reqwest::Client::builder().no_proxy().tls_certs_only([root]);
        if let Some(pem) = identity {
            client = client.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
        }
        let url = format!("https://127.0.0.1:{}/generate", addr.port());
        let response = client.build().unwrap().post(url).send().await.unwrap();
        assert_eq!(response.status(), status);
    }
    server.abort();
}

#[cfg(feature = "tonic")]
mod tonics {
    use hyper_util::rt::TokioIo;
    use palisade::{
        connection,
        tls::{TlsConfig, TlsListener},
    };
    use pki::Leaf;
    use tokio::net::{UnixListener, UnixStream};
    use tonic::{
        Code,
        transport::{
            Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig,
            server::TcpIncoming,
        },
    };
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

    use super::*;

    fn server_tls(ca: &Authority) -> ServerTlsConfig {
        let leaf = ca.server();
        ServerTlsConfig::new()
            .identity(Identity::from_pem(&leaf.cert, &leaf.key))
            .client_ca_root(Certificate::from_pem(ca.pem()))
            .client_auth_optional(true)
    }

    fn client_tls(ca: &Authority, identity: Option<Leaf>) -> ClientTlsConfig {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca.pem()))
            .domain_name("localhost");
        match identity {
            Some(leaf) => tls.identity(Identity::from_pem(&leaf.cert, &leaf.key)),
            None => tls,
        }
    }

    async fn check(channel: Channel) -> Result<(), Code> {
        let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
        answer.map(|_| ()).map_err(|status| status.code())
    }

    fn cases(ca: &Authority) -> [(Option<Leaf>, Result<(), Code>); 3] {
        [
            (Some(ca.workload(GATEWAY)), Ok(())),
            (Some(ca.workload(OUTSIDER)), Err(Code::PermissionDenied)),
            (None, Err(Code::Unauthenticated)),
        ]
    }

    #[tokio::test]
    async fn its_own_tls_is_read() {
        let ca = Authority::new("ca");
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = incoming.local_addr().unwrap();
        let server = Server::builder()
            .tls_config(server_tls(&ca))
            .unwrap()
            .layer(tower::util::MapRequestLayer::new(|request: http::Request<_>| {
                assert!(connection::peer_addr(request.extensions()).is_some());
                request
            }))
            .layer(peers())
            .add_service(tonic_health::server::health_reporter().1)
            .serve_with_incoming(incoming);
        let server = tokio::spawn(server);
        for (identity, expected) in cases(&ca) {
            let endpoint = Channel::from_shared(format!("https://{addr}")).unwrap();
            let endpoint = endpoint.tls_config(client_tls(&ca, identity)).unwrap();
            assert_eq!(check(endpoint.connect().await.unwrap()).await, expected);
        }
        server.abort();
    }

    #[tokio::test]
    async fn our_listener_is_served() {
        let ca = Authority::new("ca");
        let leaf = ca.server();
        let config = TlsConfig::builder().server_cert_pem(&leaf.cert, &leaf.key);
        let config = config.client_ca_pem(ca.pem()).optional_client_auth().build().unwrap();
        let listener = TlsListener::bind("127.0.0.1:0", config).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = Server::builder()
            .layer(peers())
            .add_service(tonic_health::server::health_reporter().1)
            .serve_with_incoming(listener);
        let server = tokio::spawn(server);
        for (identity, expected) in cases(&ca) {
            let endpoint = Channel::from_shared(format!("https://{addr}")).unwrap();
            let endpoint = endpoint.tls_config(client_tls(&ca, identity)).unwrap();
            assert_eq!(check(endpoint.connect().await.unwrap()).await, expected);
        }
        // Whom no authority here knows gets no connection.
        let endpoint = Channel::from_shared(format!("https://{addr}")).unwrap();
        let stranger = Some(Authority::new("another").workload(GATEWAY));
        let endpoint = endpoint.tls_config(client_tls(&ca, stranger)).unwrap();
        let answer = match endpoint.connect().await {
            Ok(channel) => check(channel).await,
            Err(_) => Err(Code::Unavailable),
        };
        assert!(matches!(answer, Err(Code::Unavailable | Code::Unknown)), "{answer:?}");
        server.abort();
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn its_own_tls_over_a_unix_socket_is_read() {
        let ca = Authority::new("ca");
        let path = std::env::temp_dir().join(format!("palisade-{}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let incoming = futures_util::stream::unfold(listener, async |listener| {
            Some((listener.accept().await.map(|(stream, _)| stream), listener))
        });
        let server = Server::builder()
            .tls_config(server_tls(&ca))
            .unwrap()
            .layer(peers())
            .add_service(tonic_health::server::health_reporter().1)
            .serve_with_incoming(incoming);
        let server = tokio::spawn(server);
        for (identity, expected) in cases(&ca) {
            let endpoint = Endpoint::from_static("https://localhost");
            let endpoint = endpoint.tls_config(client_tls(&ca, identity)).unwrap();
            let path = path.clone();
            let connect = tower::service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            });
            let channel = endpoint.connect_with_connector(connect).await.unwrap();
            assert_eq!(check(channel).await, expected);
        }
        server.abort();
        std::fs::remove_file(path).unwrap();
    }
}

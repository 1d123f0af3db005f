//! TlsListener under another default provider. A file of its own: the default is the process's.
#![cfg(feature = "tls")]

mod pki;

use std::sync::Arc;

use palisade::tls::{TlsConfig, TlsListener};
use pki::{Authority, GATEWAY};
use rustls::crypto::CryptoProvider;
use rustls_pki_types::{PrivateKeyDer, ServerName, pem::PemObject};

#[tokio::test]
async fn the_processs_default_provider_does_not_matter() {
    // One that can do nothing at all.
    let good = rustls::crypto::aws_lc_rs::default_provider();
    let useless = CryptoProvider { cipher_suites: Vec::new(), ..good.clone() };
    useless.install_default().unwrap();

    let ca = Authority::new("ca");
    let leaf = ca.server();
    let config = TlsConfig::builder().server_cert_pem(&leaf.cert, &leaf.key);
    let config = config.client_ca_pem(ca.pem()).build().unwrap();
    let mut listener = TlsListener::bind("127.0.0.1:0", config).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der()).unwrap();
    let gateway = ca.workload(GATEWAY);
    let key = PrivateKeyDer::from_pem_slice(gateway.key.as_bytes()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(Arc::new(good))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(gateway.chain(), key)
        .unwrap();
    let client = tokio_rustls::TlsConnector::from(Arc::new(client));
    let connect = async {
        let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        client.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
    };
    let (client, (_server, peer)) = tokio::join!(connect, listener.accept());
    assert!(peer.certificates().is_some());
    drop(client);
}

//! A server to ask, and clients that ask it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router, routing::post};
use palisade::{
    Identity, Routes,
    clock::{Clock, SystemClock},
    connection::TlsPeer,
    peer_cert::{PeerCertLayer, PeerCertLayerBuilder, PeerRule},
    tls::{TlsConfig, TlsConfigBuilder, TlsListener},
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use tokio::task::JoinHandle;

use crate::pki::{Authority, GATEWAY, Leaf};

/// A server with a layer that admits the gateway, on a port of its own.
pub(crate) struct Server {
    pub(crate) ca: Authority,
    pub(crate) addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start(change: impl FnOnce(TlsConfigBuilder) -> TlsConfigBuilder) -> Self {
        Self::start_with(Arc::<SystemClock>::default(), |config, ca| {
            change(config.client_ca_pem(ca.pem()))
        })
        .await
    }

    pub(crate) async fn start_with(
        clock: Arc<dyn Clock>,
        change: impl FnOnce(TlsConfigBuilder, &Authority) -> TlsConfigBuilder,
    ) -> Self {
        Self::start_guarded(|config, peers, ca| (change(config, ca), peers.clock(clock))).await
    }

    pub(crate) async fn start_guarded(
        change: impl FnOnce(
            TlsConfigBuilder,
            PeerCertLayerBuilder,
            &Authority,
        ) -> (TlsConfigBuilder, PeerCertLayerBuilder),
    ) -> Self {
        let ca = Authority::new("ca");
        let leaf = ca.server();
        let config = TlsConfig::builder().server_cert_pem(&leaf.cert, &leaf.key);
        let peers = PeerCertLayer::builder()
            .allow(PeerRule::spiffe(GATEWAY).unwrap())
            .routes(Routes::guard_all().exempt("/healthz"));
        let (config, peers) = change(config, peers, &ca);
        let (config, peers) = (config.build().unwrap(), peers.build().unwrap());
        let name = async |identity: Option<Extension<Identity>>| {
            let peer = identity.as_ref().and_then(|identity| identity.peer());
            peer.and_then(|peer| peer.spiffe_id.clone()).unwrap_or_else(|| "nobody".into())
        };
        let app = Router::new()
            .route("/generate", post(name))
            .route("/healthz", axum::routing::get(name))
            .layer(peers);
        let listener = TlsListener::bind("127.0.0.1:0", config).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let app = app.into_make_service_with_connect_info::<TlsPeer>();
            axum::serve(listener, app).await.unwrap();
        });
        Self { ca, addr, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.addr.port())
    }

    /// A client that presents the PEM of a certificate and its key, if any.
    pub(crate) fn client(&self, identity: Option<&str>) -> reqwest::ClientBuilder {
        let ca = reqwest::Certificate::from_pem(self.ca.pem().as_bytes()).unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(20))
            .resolve("localhost", self.addr)
            .tls_certs_only([ca]);
        match identity {
            Some(pem) => client.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap()),
            None => client,
        }
    }

    pub(crate) async fn post_as(
        &self,
        identity: Option<&str>,
    ) -> reqwest::Result<reqwest::Response> {
        self.client(identity).build().unwrap().post(self.url("/generate")).send().await
    }

    pub(crate) fn gateway(&self) -> String {
        self.ca.workload(GATEWAY).bundle()
    }
}

/// A folder of a test's own.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// Puts a file in the place of what was there, in one step.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let (new, path) = (self.0.join(format!("{name}.new")), self.0.join(name));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A client of rustls itself.
pub(crate) fn client_config(
    ca: &Authority,
    leaf: &Leaf,
    version: &'static rustls::SupportedProtocolVersion,
) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            leaf.chain(),
            PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap(),
        )
        .unwrap();
    Arc::new(config)
}

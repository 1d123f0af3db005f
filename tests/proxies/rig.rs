//! A real proxy in front of a server with PeerCertLayer, mutual TLS between all of them, on free loopback ports.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use axum::{Router, extract::Request, routing::post};
use palisade::{
    Identity,
    connection::TlsPeer,
    identity::Proxy,
    peer_cert::{Forwarded, PeerCertLayer, PeerRule, ProxyTrust},
    tls::{TlsConfig, TlsListener},
    trust::TrustStore,
};
use tokio::task::JoinHandle;

use crate::{
    pki::{Authority, GATEWAY, Leaf},
    support,
};

pub(crate) const PROXY: &str = "spiffe://prod.example/ns/edge/sa/proxy";

/// Every header in which some proxy forwards certificates.
pub(crate) const KNOWN: [&str; 7] = [
    "x-forwarded-client-cert",
    "client-cert",
    "client-cert-chain",
    "ssl-client-cert",
    "ssl-client-verify",
    "x-amzn-mtls-clientcert",
    "x-amzn-mtls-clientcert-leaf",
];

/// What the server behind believes.
pub(crate) struct Source {
    pub(crate) forwarded: Forwarded,
    pub(crate) verified: Verified,
}

/// Who verifies what is forwarded.
#[derive(PartialEq, Eq)]
pub(crate) enum Verified {
    ByTheProxy,
    Here,
}

/// A proxy that runs, and the server behind it.
pub(crate) struct Rig {
    pub(crate) ca: Authority,
    /// The ports of the proxy.
    pub(crate) ports: Vec<u16>,
    /// Where the server itself listens.
    pub(crate) behind: SocketAddr,
    proxy: Child,
    server: JoinHandle<()>,
    folder: PathBuf,
}

impl Rig {
    /// `command` with `configuration`, in which `@DIR@`, `@PORT_n@` and `@BEHIND@` are filled in. `None`, said by
    /// name, where the proxy is not installed.
    pub(crate) async fn start(
        command: &str,
        arguments: &[&str],
        configuration: &str,
        ports: usize,
        source: Source,
    ) -> Option<Self> {
        let Some(command) = installed(command) else {
            support::skip(&format!("{command} is not installed (scripts/test installs it)"));
            return None;
        };
        let ca = Authority::new("ca");
        let (server, behind) = serve(&ca, source).await;
        let folder = folder();
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        let (of_server, of_proxy) = (ca.server(), ca.workload(PROXY));
        write("ca.pem", &ca.pem());
        for (name, leaf) in [("server", &of_server), ("proxy", &of_proxy)] {
            write(&format!("{name}.pem"), &leaf.cert);
            write(&format!("{name}.key"), &leaf.key);
            write(&format!("{name}.bundle.pem"), &leaf.bundle());
        }
        // Another process may take a port before the proxy does: then others.
        for _ in 0..5 {
            let ports: Vec<u16> = free_ports(ports);
            let mut text = configuration.replace("@DIR@", folder.to_str().unwrap());
            text = text.replace("@BEHIND@", &behind.port().to_string());
            for (index, port) in ports.iter().enumerate() {
                text = text.replace(&format!("@PORT_{}@", index + 1), &port.to_string());
            }
            let file = folder.join("configuration.yaml");
            fs::write(&file, text).unwrap();
            let log = fs::File::create(folder.join("output.log")).unwrap();
            let mut proxy = Command::new(&command)
                .args(arguments)
                .arg(&file)
                .current_dir(&folder)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap();
            if listens(&mut proxy, &ports) {
                return Some(Self { ca, ports, behind, proxy, server, folder });
            }
            let _ = proxy.kill();
            let _ = proxy.wait();
        }
        let log = fs::read_to_string(folder.join("output.log")).unwrap_or_default();
        panic!("{} does not start: {log}", command.display());
    }

    /// What comes of a request through the proxy's n-th port, by a client with this certificate.
    pub(crate) async fn ask(
        &self,
        port: usize,
        client: Option<&Leaf>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let answers = [
            self.ask_by(Version::Http1, self.ports[port], client, headers).await,
            self.ask_by(Version::Http2, self.ports[port], client, headers).await,
        ];
        let [one, two] = answers;
        assert_eq!(one, two, "HTTP/1.1 and HTTP/2 differ");
        one
    }

    pub(crate) async fn ask_by(
        &self,
        version: Version,
        port: u16,
        client: Option<&Leaf>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let root = reqwest::Certificate::from_pem(self.ca.pem().as_bytes()).unwrap();
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([root])
            .timeout(Duration::from_secs(10));
        if let Some(leaf) = client {
            let identity = reqwest::Identity::from_pem(leaf.bundle().as_bytes()).unwrap();
            builder = builder.identity(identity);
        }
        builder = match version {
            Version::Http1 => builder.http1_only(),
            Version::Http2 => builder,
        };
        let mut request =
            builder.build().unwrap().post(format!("https://localhost:{port}/generate"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match request.send().await {
            // The handshake was refused.
            Err(_) => Answer { status: 0, code: String::new(), peer: String::new() },
            Ok(answer) => {
                let expected = match version {
                    Version::Http1 => http::Version::HTTP_11,
                    Version::Http2 => http::Version::HTTP_2,
                };
                assert_eq!(answer.version(), expected);
                let status = answer.status().as_u16();
                let text = answer.text().await.unwrap();
                let code = serde_json::from_str::<serde_json::Value>(&text).ok();
                let code = code.and_then(|body| Some(body["error"].as_str()?.to_owned()));
                Answer { status, code: code.unwrap_or_default(), peer: text }
            }
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// Whether a request was admitted, and as whom.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// 0: there was no connection.
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) peer: String,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.server.abort();
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A server that says who the peer is, through whom, and which known headers are left.
async fn serve(
    ca: &Authority,
    Source { forwarded, verified }: Source,
) -> (JoinHandle<()>, SocketAddr) {
    let proxy = ProxyTrust::identity(PeerRule::spiffe(PROXY).unwrap());
    let mut peers = PeerCertLayer::builder()
        .allow(PeerRule::spiffe(GATEWAY).unwrap())
        .forwarded(forwarded.trusted_by(proxy));
    if verified == Verified::Here {
        let store = TrustStore::builder().trust_domain("prod.example", ca.pem()).anchors(ca.pem());
        peers = peers.trust(&store.build().unwrap());
    }
    let peers = peers.build().unwrap();
    let say = async |request: Request| {
        let identity = Identity::of(request.extensions()).unwrap();
        let peer = identity.peer().unwrap().spiffe_id.clone().unwrap();
        let through = match identity.proxy() {
            Some(Proxy::Workload(proxy)) => proxy.spiffe_id.clone().unwrap(),
            other => format!("{other:?}"),
        };
        let left = KNOWN.iter().any(|name| request.headers().contains_key(*name));
        format!("{peer} through {through}, headers left: {left}")
    };
    let leaf = ca.server();
    let config = TlsConfig::builder()
        .server_cert_pem(&leaf.cert, &leaf.key)
        .client_ca_pem(ca.pem())
        .build()
        .unwrap();
    let listener = TlsListener::bind("127.0.0.1:0", config).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let app = Router::new().route("/generate", post(say)).layer(peers);
    let app = app.into_make_service_with_connect_info::<TlsPeer>();
    (tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }), addr)
}

fn installed(command: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let of_venv = root.join("target/venv/bin").join(command);
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&folders).chain([PathBuf::from("/usr/sbin")]);
    let mut all = [of_venv].into_iter().chain(folders.map(|folder| folder.join(command)));
    all.find(|path| path.exists())
}

fn folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("proxy-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn free_ports(count: usize) -> Vec<u16> {
    let sockets: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect()
}

fn listens(proxy: &mut Child, ports: &[u16]) -> bool {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(30) {
        if proxy.try_wait().unwrap().is_some() {
            return false;
        }
        if ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok()) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

//! Certificates, authorities and revocation lists change under load: nobody who is good notices, and who no longer is
//! gets no new connection.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use palisade::{
    clock::SystemClock,
    connection::TlsPeer,
    peer_cert::PeerRule,
    tls::{TlsConfig, TlsConfigBuilder},
    trust::{TrustStore, TrustStoreBuilder},
};
use rustls::{AlertDescription, Error};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    pki::{Authority, GATEWAY, Leaf, OUTSIDER},
    server::{Folder, Server, client_config},
    support,
};

const DOMAIN: &str = "prod.example";
const LONG: Duration = Duration::from_secs(60);

/// A server that trusts what `change` makes of its own authority.
async fn server_that_trusts(
    change: impl FnOnce(&Authority) -> TrustStoreBuilder,
) -> (Server, TrustStore) {
    let mut store = None;
    let server = Server::start_with(Arc::<SystemClock>::default(), |config, ca| {
        config.client_trust(store.insert(change(ca).build().unwrap()))
    })
    .await;
    (server, store.unwrap())
}

/// Clients that ask all the time, half of them over a new connection for each request.
struct Load {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl Load {
    fn of(server: &Server, identity: &str) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut tasks = JoinSet::new();
        for idle in [0, 0, 1, 1] {
            let client = server.client(Some(identity)).pool_max_idle_per_host(idle);
            let client = client.build().unwrap();
            let (url, stop, answered) = (server.url("/generate"), stop.clone(), answered.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let response = client.post(&url).send().await.unwrap();
                    assert_eq!(response.status(), StatusCode::OK);
                    response.bytes().await.unwrap();
                    answered.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
        }
        Self { tasks, stop, answered }
    }

    /// Waits until so many more were answered: all of them well.
    async fn goes_on(&self, more: usize) {
        let until = self.answered.load(Ordering::Relaxed) + more;
        let answered = async || self.answered.load(Ordering::Relaxed) >= until;
        assert!(support::within(LONG, answered).await, "the load has stopped");
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_certificate_rotates_under_load() {
    let folder = Folder::new("rotation");
    let server = Server::start(|config| {
        // Of an authority that no client trusts: until the first rotation nobody gets through.
        let leaf = Authority::new("another").server();
        config.server_cert_file(folder.write("cert", &leaf.cert), folder.write("key", &leaf.key))
    })
    .await;
    let gateway = server.gateway();
    assert!(server.post_as(Some(&gateway)).await.is_err());
    let seen = async || {
        let client = server.client(Some(&gateway)).tls_info(true).build().unwrap();
        let response = client.post(server.url("/generate")).send().await.ok()?;
        let info = response.extensions().get::<reqwest::tls::TlsInfo>().unwrap();
        Some(info.peer_certificate().unwrap().to_vec())
    };
    let write = |cert: &Leaf, key: &Leaf| {
        folder.write("cert", &cert.cert);
        folder.write("key", &key.key);
    };
    let is_seen = async |leaf: &Leaf| {
        support::within(LONG, async || seen().await.as_deref() == Some(&leaf.der[..])).await
    };
    let (old, new) = (server.ca.server(), server.ca.server());
    write(&old, &old);
    assert!(is_seen(&old).await);
    let load = Load::of(&server, &gateway);
    load.goes_on(40).await;
    // What does not belong together, or is half written, changes nothing.
    write(&new, &old);
    load.goes_on(400).await;
    assert_eq!(seen().await.as_deref(), Some(&old.der[..]));
    folder.write("cert", &new.cert[..new.cert.len() / 2]);
    load.goes_on(400).await;
    assert_eq!(seen().await.as_deref(), Some(&old.der[..]));
    write(&new, &new);
    assert!(is_seen(&new).await);
    load.goes_on(40).await;
    load.end().await;
}

#[tokio::test]
async fn the_servers_certificate_is_read_again_by_hand() {
    let folder = Folder::new("by-hand");
    let ca = Authority::new("ca");
    let leaf = ca.server();
    let (cert, key) = (folder.write("cert", &leaf.cert), folder.write("key", &leaf.key));
    let config = TlsConfig::builder().server_cert_file(cert, key).build().unwrap();
    config.reload().unwrap();
    folder.write("key", &ca.server().key);
    assert!(config.clone().reload().is_err());
    folder.write("key", &leaf.key);
    config.reload().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bundle_of_authorities_rotates_under_load() {
    let folder = Folder::new("bundle");
    let mut path = None;
    let (server, trust) = server_that_trusts(|ca| {
        let bundle = path.insert(folder.write("bundle", &ca.pem()));
        TrustStore::builder().trust_domain_file(DOMAIN, bundle)
    })
    .await;
    let next = Authority::new("the next");
    let (old, new) = (server.gateway(), next.workload(GATEWAY).bundle());
    assert!(server.post_as(Some(&new)).await.is_err());

    let load = Load::of(&server, &old);
    load.goes_on(20).await;
    folder.write("bundle", &(server.ca.pem() + &next.pem()));
    // By itself.
    assert!(support::within(LONG, async || trust.generation() == 2).await);
    assert_eq!(server.post_as(Some(&new)).await.unwrap().status(), StatusCode::OK);
    let load_of_new = Load::of(&server, &new);
    load.goes_on(20).await;
    load.end().await;

    let client = server.client(Some(&old)).build().unwrap();
    let on_old_connection = async || client.post(server.url("/generate")).send().await;
    assert!(on_old_connection().await.is_ok());
    folder.write("bundle", &next.pem());
    trust.reload().unwrap();
    assert!(server.post_as(Some(&old)).await.is_err());
    assert!(on_old_connection().await.is_ok(), "connections are not dropped");
    load_of_new.goes_on(20).await;
    load_of_new.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_23_a_revocation_takes_effect_under_load() {
    let folder = Folder::new("revocation");
    let (server, trust) = server_that_trusts(|ca| {
        let list = folder.write("crl", &ca.crl(&[], 2100));
        TrustStore::builder().trust_domain(DOMAIN, ca.pem()).crl_file(list)
    })
    .await;
    let good = server.ca.workload_numbered(GATEWAY, 1).bundle();
    let bad = server.ca.workload_numbered(GATEWAY, 2).bundle();
    let load = Load::of(&server, &good);
    assert!(server.post_as(Some(&bad)).await.is_ok());
    load.goes_on(20).await;
    folder.write("crl", &server.ca.crl(&[2], 2100));
    trust.reload().unwrap();
    for _ in 0..20 {
        assert!(server.post_as(Some(&bad)).await.is_err());
    }
    load.goes_on(20).await;
    load.end().await;
    // A list that is out of date tells nobody good.
    folder.write("crl", &server.ca.crl(&[2], 2021));
    trust.reload().unwrap();
    assert!(server.post_as(Some(&good)).await.is_err());
}

/// The store knows which names its authorities may give. What the listener verified by it, a layer without one takes
/// for no more than that.
#[tokio::test]
async fn names_beside_a_spiffe_id_are_not_verified_by_its_trust_domain() {
    for (general, expected) in [(false, StatusCode::FORBIDDEN), (true, StatusCode::OK)] {
        let server = Server::start_guarded(|config, peers, ca| {
            let trust = TrustStore::builder().trust_domain(DOMAIN, ca.pem());
            let trust = if general { trust.anchors(ca.pem()) } else { trust };
            let rule = PeerRule::dns("gateway.edge.svc").unwrap();
            (config.client_trust(&trust.build().unwrap()), peers.allow(rule))
        })
        .await;
        let outsider = server.ca.workload(OUTSIDER).bundle();
        assert_eq!(server.post_as(Some(&outsider)).await.unwrap().status(), expected);
        let gateway = server.gateway();
        assert_eq!(server.post_as(Some(&gateway)).await.unwrap().status(), StatusCode::OK);
    }
}

/// Nor where an application hands the certificates on.
#[tokio::test]
async fn what_was_verified_of_certificates_goes_with_them() {
    let server = Server::start_guarded(|config, peers, ca| {
        let trust = TrustStore::builder().trust_domain(DOMAIN, ca.pem()).build().unwrap();
        let peers = peers.allow(PeerRule::dns("gateway.edge.svc").unwrap());
        let peers = peers.extract_with(|extensions| {
            let peer = extensions.get::<axum::extract::ConnectInfo<TlsPeer>>()?;
            peer.0.certificates().cloned()
        });
        (config.client_trust(&trust), peers)
    })
    .await;
    let outsider = server.ca.workload(OUTSIDER).bundle();
    assert_eq!(server.post_as(Some(&outsider)).await.unwrap().status(), StatusCode::FORBIDDEN);
    let gateway = server.gateway();
    assert_eq!(server.post_as(Some(&gateway)).await.unwrap().status(), StatusCode::OK);
}

/// The layer holds live connections to what is trusted now.
#[tokio::test(flavor = "multi_thread")]
async fn attack_23_reloads_refuse_nobody_good_and_admit_nobody_revoked_on_live_connections() {
    const ROUNDS: u8 = 10;
    let folder = Folder::new("live");
    let mut store = None;
    let server = Server::start_guarded(|config, peers, ca| {
        let bundle = folder.write("bundle", &ca.pem());
        let list = folder.write("crl", &ca.crl(&[], 2100));
        let trust = TrustStore::builder().trust_domain_file(DOMAIN, bundle).crl_file(list);
        let trust = store.insert(trust.build().unwrap());
        (config.client_trust(trust), peers.trust(trust))
    })
    .await;
    let trust = store.unwrap();
    let good = server.ca.workload_numbered(GATEWAY, 100).bundle();
    let load = Load::of(&server, &good);

    let bad: Vec<_> = (1..=ROUNDS)
        .map(|serial| Doomed::ask(&server, &server.ca.workload_numbered(GATEWAY, serial)))
        .collect();
    for (client, round) in bad.iter().zip(1..) {
        assert!(support::within(LONG, async || client.admitted() > 10).await);
        // The bundle too: with another authority in every second round.
        let next = if round % 2 == 0 { Authority::new("the next").pem() } else { String::new() };
        folder.write("bundle", &(server.ca.pem() + &next));
        let revoked: Vec<_> = (1..=round).collect();
        folder.write("crl", &server.ca.crl(&revoked, 2100));
        trust.reload().unwrap();
        client.is_revoked.store(true, Ordering::SeqCst);
        load.goes_on(20).await;
        assert!(support::within(LONG, async || client.refused() > 10).await);
    }
    for client in bad {
        client.end().await;
    }
    load.end().await;
}

#[derive(Default)]
struct Counts {
    admitted: AtomicUsize,
    refused: AtomicUsize,
}

/// A client that asks all the time over one connection, and will be revoked.
struct Doomed {
    task: tokio::task::JoinHandle<()>,
    counts: Arc<Counts>,
    is_revoked: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Doomed {
    fn ask(server: &Server, leaf: &Leaf) -> Self {
        let counts = Arc::<Counts>::default();
        let (is_revoked, stop) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let client = server.client(Some(&leaf.bundle())).build().unwrap();
        let url = server.url("/generate");
        let shared = (counts.clone(), is_revoked.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let (counts, is_revoked, stop) = shared;
            while !stop.load(Ordering::Relaxed) {
                let was_revoked = is_revoked.load(Ordering::SeqCst);
                // On another connection than the first there would be no answer at all.
                let response = client.post(&url).send().await.unwrap();
                let count = if response.status() == StatusCode::OK {
                    assert!(!was_revoked, "admitted after the reload");
                    &counts.admitted
                } else {
                    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
                    &counts.refused
                };
                count.fetch_add(1, Ordering::Relaxed);
                response.bytes().await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Self { task, counts, is_revoked, stop }
    }

    fn admitted(&self) -> usize {
        self.counts.admitted.load(Ordering::Relaxed)
    }

    fn refused(&self) -> usize {
        self.counts.refused.load(Ordering::Relaxed)
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}

#[tokio::test]
async fn each_refusal_has_its_alert() {
    let stranger = Authority::new("stranger");
    let (server, trust) = server_that_trusts(|ca| {
        TrustStore::builder().trust_domain(DOMAIN, ca.pem()).crl(ca.crl(&[2], 2100))
    })
    .await;
    let workload = |serial| server.ca.workload_numbered(GATEWAY, serial);
    let two_ids = server.ca.issue(|params| {
        let ids = [GATEWAY, OUTSIDER].map(|id| rcgen::SanType::URI(id.try_into().unwrap()));
        params.subject_alt_names = ids.to_vec();
    });
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let alert = async |leaf: &Leaf| alert(&server, leaf, version).await;
        assert_eq!(alert(&workload(1)).await, None);
        assert_eq!(alert(&workload(2)).await, Some(AlertDescription::CertificateRevoked));
        let expired = server.ca.workload_until(GATEWAY, 2021);
        assert_eq!(alert(&expired).await, Some(AlertDescription::CertificateExpired));
        let strange = stranger.workload(GATEWAY);
        assert_eq!(alert(&strange).await, Some(AlertDescription::UnknownCA));
        let other_domain = server.ca.workload("spiffe://test.example/ns/edge/sa/gateway");
        assert_eq!(alert(&other_domain).await, Some(AlertDescription::UnknownCA), "attack 17");
        let for_servers = alert(&server.ca.server()).await;
        assert_eq!(for_servers, Some(AlertDescription::UnsupportedCertificate));
        assert_eq!(alert(&two_ids).await, Some(AlertDescription::BadCertificate));
    }
    let unknown = TrustStore::builder().trust_domain(DOMAIN, server.ca.pem());
    trust.replace(unknown.crl(stranger.crl(&[], 2100))).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let said = alert(&server, &workload(1), version).await;
        assert_eq!(said, Some(AlertDescription::UnknownCA));
    }
}

#[tokio::test]
async fn where_certificates_are_optional_a_store_still_refuses_bad_ones() {
    let mut store = None;
    let change = |config: TlsConfigBuilder, ca: &Authority| {
        let trust = TrustStore::builder().trust_domain(DOMAIN, ca.pem()).crl(ca.crl(&[2], 2100));
        config.client_trust(store.insert(trust.build().unwrap())).optional_client_auth()
    };
    let server = Server::start_with(Arc::<SystemClock>::default(), change).await;
    assert_eq!(server.post_as(None).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let numbered = |serial| server.ca.workload_numbered(GATEWAY, serial).bundle();
    assert_eq!(server.post_as(Some(&numbered(1))).await.unwrap().status(), StatusCode::OK);
    assert!(server.post_as(Some(&numbered(2))).await.is_err());
}

/// What the server says of a client's certificate; `None` if it takes it.
async fn alert(
    server: &Server,
    leaf: &Leaf,
    version: &'static rustls::SupportedProtocolVersion,
) -> Option<AlertDescription> {
    let connector = tokio_rustls::TlsConnector::from(client_config(&server.ca, leaf, version));
    let ask = async {
        let stream = TcpStream::connect(server.addr).await?;
        let mut stream =
            connector.connect(ServerName::try_from("localhost").unwrap(), stream).await?;
        // TLS 1.3 tells a client only after its own handshake is done.
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"HTTP/1.1 200");
        Ok::<_, io::Error>(())
    };
    let error = ask.await.err()?;
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(Error::AlertReceived(alert)) => Some(*alert),
        _ => panic!("{error:?}"),
    }
}

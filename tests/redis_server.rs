//! What `RedisStore` asks of a server: how it is reached, what its user may do, and what it should be like.
#![cfg(all(feature = "redis-tls", feature = "test-util"))]
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod support;

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use palisade::store::{
    FactStore, Key, Pepper, RedisStore, RedisWarning,
    conformance::{self, RealTime},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use support::{redis::RedisServer, within};

const HOUR: Duration = Duration::from_secs(3600);
const PATIENT: Duration = Duration::from_secs(2);

fn key() -> Key {
    Pepper::random().key("test").finish()
}

fn store_at(url: &str) -> RedisStore {
    RedisStore::builder(url).deadline(PATIENT).build().unwrap()
}

/// Whether `store` comes to warn of just these, while it is in use.
async fn warns(store: &RedisStore, warnings: &[RedisWarning]) -> bool {
    let warns = async || {
        let _ = store.get(key()).await;
        store.health().is_connected() && store.health().warnings() == warnings
    };
    within(Duration::from_secs(10), warns).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_should_not_be_like_is_told_at_each_connection() {
    let Some(mut server) = RedisServer::start() else { return };
    let store = RedisStore::builder(&server.url()).deadline(PATIENT).connect().await.unwrap();
    assert!(warns(&store, &[]).await);
    let again = || server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    server.command(&["CONFIG", "SET", "maxmemory", "100mb"]);
    server.command(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    again();
    assert!(warns(&store, &[RedisWarning::MayEvict]).await);
    server.command(&["REPLICAOF", "127.0.0.1", "1"]);
    again();
    assert!(warns(&store, &[RedisWarning::MayEvict, RedisWarning::Replica]).await);
    server.command(&["REPLICAOF", "NO", "ONE"]);
    server.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    again();
    assert!(warns(&store, &[]).await);

    // One that is down at the start is looked at when it is there.
    server.kill();
    let early = store_at(&server.url());
    assert!(early.get(key()).await.is_err());
    assert!(!early.health().is_connected() && early.health().warnings().is_empty());
    server.restart();
    server.command(&["CONFIG", "SET", "maxmemory", "100mb"]);
    server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert!(warns(&early, &[RedisWarning::MayEvict]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_cluster_is_told_from_a_server() {
    let options = ["--cluster-enabled", "yes", "--cluster-config-file", "FOLDER/nodes"];
    let Some(server) = RedisServer::start_with(&options) else { return };
    assert!(warns(&store_at(&server.url()), &[RedisWarning::ClusterNode]).await);
}

/// The rights that the documentation of `RedisStore` names.
fn documented_rights() -> Vec<&'static str> {
    let manual = include_str!("../src/store/redis/servers.md");
    let (_, rights) = manual.split_once("ACL SETUSER palisade").unwrap();
    let (rights, _) = rights.split_once("```").unwrap();
    rights.split_whitespace().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_needs_no_more_rights_than_are_documented() {
    let Some(server) = RedisServer::start() else { return };
    let rights = documented_rights();
    let url = server.url().replace("redis://", "redis://palisade:secret@");
    let define = |rights: &[&str]| {
        let words = [&["ACL", "SETUSER", "palisade", "reset"], rights].concat();
        assert!(server.command(&words).starts_with("+OK"), "{rights:?}");
    };
    define(&rights);
    let store = || Arc::new(store_at(&url));
    conformance::limiter_store(store, &RealTime).await;
    conformance::fact_store(store, &RealTime).await;
    conformance::record_store(store).await;
    assert!(warns(&store(), &[]).await);
    let other = RedisStore::builder(&url).prefix("other").deadline(PATIENT).build().unwrap();
    assert!(!other.get(key()).await.unwrap_err().is_transient(), "its own keys alone");

    // Each of them is needed by something, or named as what may be left out.
    let spare = ["+info", "+auth", "+role", "+cluster|slots", "+asking"];
    let without: Vec<_> = rights.iter().copied().filter(|it| !spare.contains(it)).collect();
    define(&without);
    let least = RedisStore::builder(&url).deadline(PATIENT).connect().await.unwrap();
    assert!(least.first_use(key(), HOUR).await.unwrap());
    assert!(warns(&least, &[RedisWarning::Unchecked]).await);
}

/// An authority, and files that a server reads.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let folder = format!("palisade-redis-tls-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        fs::write(folder.join("ca"), &pem).unwrap();
        Self { pem, issuer: Issuer::new(params, key), folder }
    }

    fn issue(&self, name: &str) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        [certificate.pem(), key.serialize_pem()]
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_tls_a_server_is_verified_and_shown_a_certificate() {
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let [certificate, private] = own.issue("127.0.0.1");
    fs::write(own.folder.join("cert"), certificate).unwrap();
    fs::write(own.folder.join("key"), private).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let (cert, private, ca) = (own.file("cert"), own.file("key"), own.file("ca"));
    let options = [
        ["--tls-port", &free],
        ["--tls-cert-file", &cert],
        ["--tls-key-file", &private],
        ["--tls-ca-cert-file", &ca],
        ["--tls-auth-clients", "no"],
    ];
    let Some(server) = RedisServer::start_with(options.as_flattened()) else { return };
    server.command(&["ACL", "SETUSER", "palisade", "on", ">secret", "~*", "&*", "+@all"]);
    let url = format!("rediss://palisade:secret@127.0.0.1:{free}/");
    let builder = |url: &str| RedisStore::builder(url).deadline(PATIENT);
    let verified = |url: &str| builder(url).certificate_authorities(own.pem.as_bytes());

    let store = verified(&url).connect().await.unwrap();
    assert!(store.first_use(key(), HOUR).await.unwrap());
    // An idle connection that breaks is mended here too.
    server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert!(warns(&store, &[]).await);
    assert!(verified(&url.replace("secret", "wrong")).connect().await.is_err());

    let since = Instant::now();
    let stranger = builder(&url).certificate_authorities(other.pem.as_bytes());
    assert!(stranger.connect().await.is_err(), "another authority's");
    let name = url.replace("127.0.0.1", "localhost");
    assert!(verified(&name).connect().await.is_err(), "another host's");
    assert!(since.elapsed() < Duration::from_secs(4), "at once");
    assert!(verified(&server.url().replace("redis://", "rediss://")).connect().await.is_err());

    server.command(&["CONFIG", "SET", "tls-auth-clients", "yes"]);
    assert!(verified(&url).connect().await.is_err(), "a certificate is asked for");
    let [chain, private] = own.issue("client");
    let shown = verified(&url).client_certificate(chain.as_bytes(), private.as_bytes());
    assert!(shown.connect().await.unwrap().first_use(key(), HOUR).await.unwrap());
    let [chain, private] = other.issue("client");
    let shown = verified(&url).client_certificate(chain.as_bytes(), private.as_bytes());
    assert!(shown.connect().await.is_err());
}

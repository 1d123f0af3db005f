//! API keys in the shared store: what a file's keys promise, for many processes. Over the memory of one and
//! over a real Redis server.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, clippy::expect_used)]

#[path = "../jwt_support/mod.rs"]
mod jwt_support;
#[path = "../server/mod.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;

mod accepted;
mod changed;
mod command;
mod remembered;
mod secret;
mod used;

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Debug,
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response, StatusCode};
use jwt_support::{Key, NOW, claims};
use palisade::{
    Secret,
    clock::ManualClock,
    future::ReadyOr,
    identity::UserIdentity,
    jwt::{
        Algorithm, ApiKeyError, ApiKeyState, ApiKeyStore, ApiKeys, AuthError, AuthErrorKind,
        IssuedApiKey, JwtAuthLayer, ListedApiKey, NewApiKey, Presented, ResourceServer,
        TokenVerifier,
    },
    store::{
        self, MemoryStore, Pepper, RecordPage, RecordStore, RedisStore, StoreError, StoreFuture,
        Stores,
    },
};
use support::redis::RedisServer;
use tower::{Layer, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);
/// The default staleness.
const STALE: Duration = Duration::from_secs(10);
const TABLE: &str = "api-keys";

/// The memory of a process, which counts how often it was read, and may answer as if over a network.
#[derive(Debug, Default)]
struct Shared {
    memory: MemoryStore,
    read: AtomicU64,
    down: AtomicBool,
}

impl Shared {
    fn answer<T: Send + 'static>(&self, answer: StoreFuture<T>) -> StoreFuture<T> {
        if self.down.load(Ordering::Relaxed) {
            return ReadyOr::ready(Err(StoreError::transient("down")));
        }
        ReadyOr::pending(async move {
            tokio::task::yield_now().await;
            answer.await
        })
    }
}

impl RecordStore for Shared {
    fn read(&self, table: &'static str, key: store::Key) -> StoreFuture<Option<Bytes>> {
        self.read.fetch_add(1, Ordering::Relaxed);
        self.answer(self.memory.read(table, key))
    }

    fn compare_and_swap(
        &self,
        table: &'static str,
        key: store::Key,
        old: Option<Bytes>,
        new: Bytes,
    ) -> StoreFuture<bool> {
        self.answer(self.memory.compare_and_swap(table, key, old, new))
    }

    fn page(&self, table: &'static str, cursor: Option<Bytes>) -> StoreFuture<RecordPage> {
        let page = self.memory.page(table, cursor);
        // As a server does whose table grows meanwhile, it tells of some twice.
        self.answer(ReadyOr::pending(async {
            let RecordPage { records, next, .. } = page.await?;
            Ok(RecordPage::new([records.clone(), records].concat(), next))
        }))
    }
}

enum Backend {
    /// As it is, ready at once.
    Memory(Arc<MemoryStore>),
    Shared(Arc<Shared>),
    Redis(RedisServer),
}

/// A store, a clock that stands still, and as many processes as are asked for.
struct Setup {
    backend: Backend,
    clock: Arc<ManualClock>,
}

impl Setup {
    fn over(backend: Backend) -> Self {
        Self { backend, clock: Arc::new(ManualClock::at(SECOND * u32::try_from(NOW).unwrap())) }
    }

    fn shared() -> (Self, Arc<Shared>) {
        let shared = Arc::<Shared>::default();
        (Self::over(Backend::Shared(Arc::clone(&shared))), shared)
    }

    fn stores(&self) -> Stores {
        let pepper = Pepper::from_secret("shared");
        match &self.backend {
            Backend::Memory(memory) => Stores::new(Arc::clone(memory), pepper),
            Backend::Shared(shared) => {
                let other = Arc::new(MemoryStore::default());
                Stores::separate(other.clone(), other, Arc::clone(shared) as _, pepper)
            }
            Backend::Redis(server) => {
                let store = RedisStore::builder(&server.url()).deadline(SECOND).build();
                Stores::new(Arc::new(store.unwrap()), pepper)
            }
        }
    }

    /// The keys as another process has them.
    fn process(&self) -> ApiKeyStore {
        ApiKeyStore::new(&self.stores(), &pepper()).unwrap().with_clock(self.clock.clone())
    }

    fn stop(&mut self) {
        match &mut self.backend {
            Backend::Memory(_) => unreachable!("it is a part of the process"),
            Backend::Shared(shared) => shared.down.store(true, Ordering::Relaxed),
            Backend::Redis(server) => {
                // What it holds is there again after a restart.
                assert!(server.command(&["SAVE"]).starts_with("+OK"));
                server.kill();
            }
        }
    }

    fn start(&mut self) {
        match &mut self.backend {
            Backend::Memory(_) => {}
            Backend::Shared(shared) => shared.down.store(false, Ordering::Relaxed),
            Backend::Redis(server) => server.restart(),
        }
    }

    /// How often the store was read since this was last asked.
    fn asked(&self) -> u64 {
        match &self.backend {
            Backend::Memory(_) => unreachable!("it does not count"),
            Backend::Shared(shared) => shared.read.swap(0, Ordering::Relaxed),
            Backend::Redis(server) => {
                let stats = server.command(&["INFO", "commandstats"]);
                server.command(&["CONFIG", "RESETSTAT"]);
                let calls = stats.split("cmdstat_hget:calls=").nth(1);
                calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
            }
        }
    }
}

/// Holds a promise against every backend.
async fn on_each(promise: impl AsyncFn(Setup)) {
    promise(Setup::over(Backend::Memory(Arc::default()))).await;
    on_each_remote(promise).await;
}

/// Holds it against those that may be away.
async fn on_each_remote(promise: impl AsyncFn(Setup)) {
    promise(Setup::shared().0).await;
    if let Some(server) = RedisServer::start() {
        promise(Setup::over(Backend::Redis(server))).await;
    }
}

fn pepper() -> Secret<Vec<u8>> {
    Secret::new(b"a pepper for tests".to_vec())
}

fn new(subject: &str) -> NewApiKey {
    NewApiKey::new("keys", subject).tier("paid").scopes(["llm:infer", "models"])
}

/// A key that was made elsewhere: well formed, and unknown.
async fn made_up() -> IssuedApiKey {
    ApiKeyStore::new(&Stores::in_memory(), &pepper()).unwrap().issue(new("nobody")).await.unwrap()
}

async fn verify(
    keys: &impl TokenVerifier,
    key: &IssuedApiKey,
) -> Result<Arc<UserIdentity>, AuthError> {
    keys.verify(&Presented::alone(key.key.expose())).await
}

async fn refusal(keys: &impl TokenVerifier, key: &IssuedApiKey) -> &'static str {
    verify(keys, key).await.unwrap_err().description()
}

async fn all(store: &ApiKeyStore) -> Vec<ListedApiKey> {
    let (mut listing, mut found) = (store.records(), Vec::new());
    while let Some(key) = listing.next().await.unwrap() {
        found.push(key);
    }
    found
}

/// What is left to be done in the background is done.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

const UNKNOWN: &str = "The API key is not known.";
const REVOKED: &str = "The API key was revoked.";
const EXPIRED: &str = "The API key has expired.";

/// The status that a request with this key gets, from this network.
async fn post(layer: &JwtAuthLayer, key: &IssuedApiKey, network: u8) -> StatusCode {
    let service = layer.layer(service_fn(async |_: Request<()>| {
        Ok::<_, std::convert::Infallible>(Response::new(String::new()))
    }));
    let bearer = format!("Bearer {}", key.key.expose());
    let mut request = Request::post("/generate").header("authorization", bearer).body(()).unwrap();
    let address = SocketAddr::from((Ipv4Addr::new(10, 0, 0, network), 1));
    request.extensions_mut().insert(axum::extract::ConnectInfo(address));
    service.oneshot(request).await.unwrap().status()
}

//! Layers over a store whose time stands still, and a caller.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use palisade::{
    Identity, UsageMeter,
    clock::ManualClock,
    identity::UserIdentity,
    rate_limit::{Quota, Tier, TieredRateLimitLayer, TieredRateLimitLayerBuilder},
    store::{
        Admission, Charge, Decision, Key, LimiterStore, MemoryStore, Pepper, Seen, Settlement,
        Standings, StoreError, StoreFuture, Stores,
    },
};
use tower::{Layer, ServiceExt, service_fn};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn stores_by(clock: &Arc<ManualClock>) -> Stores {
    let clock = Arc::clone(clock);
    let store = MemoryStore::builder().clock(clock).build().unwrap();
    Stores::new(Arc::new(store), Pepper::from_secret("pepper"))
}

pub(crate) fn builder(tier: Tier) -> TieredRateLimitLayerBuilder {
    builder_on(&stores_by(&Arc::default()), tier)
}

/// Of a prompt and of an answer nothing is known beforehand.
pub(crate) fn builder_on(stores: &Stores, tier: Tier) -> TieredRateLimitLayerBuilder {
    TieredRateLimitLayer::builder(stores)
        .tier("free", tier)
        .fallback_tier("free")
        .default_input_tokens(0)
        .default_output_tokens(0)
}

pub(crate) fn layer(tier: Tier) -> TieredRateLimitLayer {
    builder(tier).build().unwrap()
}

pub(crate) fn alice() -> Identity {
    Identity::asserted(UserIdentity::asserted("https://login.example", "alice"))
}

pub(crate) fn request_to(path: &str) -> Request<()> {
    let mut request = Request::post(path).body(()).unwrap();
    request.extensions_mut().insert(alice());
    request
}

/// Alice's request, answered by a handler that does this with the meter; the answer is read to its end.
pub(crate) async fn ask(
    layer: &TieredRateLimitLayer,
    handler: impl AsyncFn(UsageMeter) -> Response<Full<Bytes>>,
) -> Response<Bytes> {
    ask_at(layer, "/v1/chat/completions", handler).await
}

pub(crate) async fn ask_at(
    layer: &TieredRateLimitLayer,
    path: &str,
    handler: impl AsyncFn(UsageMeter) -> Response<Full<Bytes>>,
) -> Response<Bytes> {
    let handler = &handler;
    let service = service_fn(move |request: Request<()>| async move {
        let meter = UsageMeter::of(request.extensions()).unwrap().clone();
        Ok::<_, Infallible>(handler(meter).await)
    });
    let response = layer.layer(service).oneshot(request_to(path)).await.unwrap();
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

pub(crate) fn answer(text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::new(Full::new(text.into()))
}

pub(crate) async fn status(layer: &TieredRateLimitLayer) -> u16 {
    ask(layer, async |_| answer("")).await.status().as_u16()
}

/// What Alice has left of each limit, by its name.
pub(crate) async fn left(layer: &TieredRateLimitLayer) -> Vec<(String, u64)> {
    let quotas = layer.quotas(&alice(), None).await.unwrap();
    quotas.into_iter().map(|Quota { name, remaining, .. }| (name, remaining)).collect()
}

/// A store that answers after a second, as one across a bad network does.
#[derive(Debug, Default)]
pub(crate) struct Slow {
    pub(crate) memory: Arc<MemoryStore>,
}

impl LimiterStore for Slow {
    fn acquire(&self, admission: &Admission<'_>) -> StoreFuture<Decision> {
        let (memory, id) = (Arc::clone(&self.memory), admission.id);
        let charges = admission.charges.to_vec();
        StoreFuture::pending(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            memory.acquire(&Admission::new(id, &charges)).await
        })
    }

    fn settle(&self, settlement: &Settlement<'_>) {
        self.memory.settle(settlement);
    }

    fn standings(&self, charges: &[Charge], seen: &Seen) -> Standings {
        self.memory.standings(charges, seen)
    }

    fn peek(&self, admission: &Admission<'_>) -> StoreFuture<Standings> {
        self.memory.peek(admission)
    }

    fn reset(&self, record: Key) -> StoreFuture<()> {
        self.memory.reset(record)
    }

    fn flush(&self) -> StoreFuture<()> {
        self.memory.flush()
    }
}

/// A store that is out of reach.
#[derive(Debug)]
pub(crate) struct Down;

impl LimiterStore for Down {
    fn acquire(&self, _: &Admission<'_>) -> StoreFuture<Decision> {
        StoreFuture::ready(Err(StoreError::transient("down")))
    }

    fn settle(&self, _: &Settlement<'_>) {}

    fn standings(&self, _: &[Charge], _: &Seen) -> Standings {
        Standings::default()
    }

    fn peek(&self, _: &Admission<'_>) -> StoreFuture<Standings> {
        StoreFuture::ready(Err(StoreError::transient("down")))
    }

    fn reset(&self, _: Key) -> StoreFuture<()> {
        StoreFuture::ready(Err(StoreError::transient("down")))
    }

    fn flush(&self) -> StoreFuture<()> {
        StoreFuture::ready(Ok(()))
    }
}

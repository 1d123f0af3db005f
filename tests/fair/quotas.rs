//! With quotas: what they admit waits for its turn, and what is refused then is charged nothing.

use std::sync::Arc;

use http::Response;
use palisade::{
    Identity, Rejection, RejectionKind,
    clock::ManualClock,
    rate_limit::{
        PreparedTier, Tier, TierOverrides, TieredRateLimit, TieredRateLimitLayer,
        fair::{Capacity, FairAdmission, FairAdmissionLayer, Share},
    },
    store::{
        Admission, Charge, Decision, Key, LimiterStore, MemoryStore, Outage, Pepper, Seen,
        Settlement, Standings, StoreError, StoreFuture, Stores,
    },
};
use tower::Layer;

use crate::{
    refusals::code_of,
    support::{Engine, TokioClock, ask, assert_idle, go_on, layer, now, request, tier},
};

fn one(free: Share) -> FairAdmission {
    let fair = FairAdmission::builder().capacity(Capacity::slots(1)).tier("free", free);
    fair.clock(TokioClock::new()).build().unwrap()
}

fn stores() -> Stores {
    let store = MemoryStore::builder().clock(Arc::new(ManualClock::default())).build().unwrap();
    Stores::new(Arc::new(store), Pepper::from_secret("pepper"))
}

fn quotas() -> Tier {
    Tier::new().requests_per_minute(10).tokens_per_minute(10_000).concurrent_requests(5)
}

fn limits(fair: &FairAdmission) -> TieredRateLimit<Engine> {
    let limits = TieredRateLimitLayer::builder(&stores()).tier("free", quotas());
    limits.fair(fair).build().unwrap().layer(Engine::default())
}

/// What an answer says is left, of requests and of tokens.
fn left<B>(answer: &Response<B>) -> (u64, u64) {
    let of = |name: &str| answer.headers()[name].to_str().unwrap().parse().unwrap();
    (of("x-ratelimit-remaining-requests"), of("x-ratelimit-remaining-tokens"))
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_want_of_capacity_is_charged_nothing() {
    let fair = one(Share::percent(100).queue(0));
    let service = limits(&fair);
    let held = now(ask(&service, request("free/a")).await).await;
    assert_eq!(left(&held), (9, 10_000 - 512));
    for _ in 0..20 {
        let refused = now(ask(&service, request("free/a")).await).await;
        assert_eq!((refused.status().as_u16(), code_of(&refused)), (503, "queue_full"));
    }
    fair.set_capacity(Capacity::slots(2)).unwrap();
    let answer = now(ask(&service, request("free/a")).await).await;
    assert_eq!(left(&answer), (8, 10_000 - 512 - 512));
}

/// Who leaves the queue had his turn to come: that is charged, and no tokens.
#[tokio::test(start_paused = true)]
async fn who_leaves_the_queue_pays_for_his_request_alone() {
    let fair = one(Share::percent(100));
    let service = limits(&fair);
    let held = now(ask(&service, request("free/a")).await).await;
    let leaves = ask(&service, request("free/a")).await;
    leaves.abort();
    go_on().await;
    fair.set_capacity(Capacity::slots(2)).unwrap();
    let answer = now(ask(&service, request("free/a")).await).await;
    assert_eq!(left(&answer), (7, 10_000 - 512 - 512));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_used_up_quota_is_refused_before_anybody_waits() {
    let fair = one(Share::percent(100));
    let service = limits(&fair);
    for _ in 0..10 {
        drop(now(ask(&service, request("free/a")).await).await);
    }
    let _held = now(ask(&service, request("free/b")).await).await;
    let refused = now(ask(&service, request("free/a")).await).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(tier(&fair, "free").waiting, 0);
}

/// Two layers would each leave a meter, of which those within find one.
#[tokio::test(start_paused = true)]
async fn a_layer_within_another_that_meters_refuses_and_says_what_to_do() {
    let fair = one(Share::percent(100));
    let outer = TieredRateLimitLayer::builder(&stores()).tier("free", quotas()).build().unwrap();
    let service = outer.layer(layer(&fair).layer(Engine::default()));
    let refused = tower::ServiceExt::oneshot(service, request("free/a")).await.unwrap();
    let rejection = refused.extensions().get::<Rejection>().unwrap();
    assert_eq!(
        (rejection.kind(), rejection.code()),
        (RejectionKind::Misconfigured, "metered_twice")
    );
    assert!(rejection.message().contains(".fair("), "{}", rejection.message());
    assert_idle(&fair);
}

#[tokio::test(start_paused = true)]
async fn every_tier_has_a_share_and_may_do_without_limits() {
    let fair = one(Share::percent(100));
    let build = |name: &str, tier| {
        TieredRateLimitLayer::builder(&stores()).tier(name, tier).fair(&fair).build()
    };
    assert!(build("free", Tier::new()).is_ok());
    let error = build("paid", quotas()).unwrap_err().to_string();
    assert!(error.contains("paid") && error.contains("share"), "{error}");
    assert!(TieredRateLimitLayer::builder(&stores()).tier("free", Tier::new()).build().is_err());
    let outermost = TieredRateLimitLayer::before_authentication(&stores(), Tier::new());
    assert!(outermost.fair(&fair).build().is_err());
    let limits = build("free", Tier::new()).unwrap();
    assert!(limits.replace_tiers([("paid".to_owned(), quotas())]).is_err());
}

#[derive(Debug)]
struct Contract(PreparedTier);

impl TierOverrides for Contract {
    fn tier(&self, _: &Identity, _: Option<&str>) -> Option<PreparedTier> {
        Some(self.0.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn a_tier_of_ones_own_has_the_share_that_is_said() {
    let share = || Share::percent(100);
    let alone = one(share());
    let said = FairAdmission::builder().capacity(Capacity::slots(1)).tier("free", share());
    let said = said.fallback_tier("free").build().unwrap();
    for (fair, expected) in [(alone, 500), (said, 200)] {
        let contract = Arc::new(Contract(quotas().prepare("acme").unwrap()));
        let limits = TieredRateLimitLayer::builder(&stores()).tier("free", quotas());
        let limits = limits.overrides(contract).fair(&fair).build().unwrap();
        let answer = now(ask(&limits.layer(Engine::default()), request("free/a")).await).await;
        assert_eq!(answer.status(), expected);
        assert_eq!(fair.snapshot().in_use, u64::from(expected == 200));
    }
}

/// A store that can't be asked.
#[derive(Debug)]
struct Down(MemoryStore);

impl LimiterStore for Down {
    fn acquire(&self, _: &Admission<'_>) -> StoreFuture<Decision> {
        StoreFuture::ready(Err(StoreError::transient("down")))
    }
    fn settle(&self, _: &Settlement<'_>) {
        panic!("nothing was charged");
    }
    fn standings(&self, charges: &[Charge], seen: &Seen) -> Standings {
        self.0.standings(charges, seen)
    }
    fn peek(&self, admission: &Admission<'_>) -> StoreFuture<Standings> {
        self.0.peek(admission)
    }
    fn reset(&self, record: Key) -> StoreFuture<()> {
        self.0.reset(record)
    }
    fn flush(&self) -> StoreFuture<()> {
        self.0.flush()
    }
}

/// Without its store a tier may do without quotas, where it was told to, and not without its turn.
#[tokio::test(start_paused = true)]
async fn what_passes_unmetered_waits_for_its_turn_all_the_same() {
    let fair = one(Share::percent(100).queue(0));
    let memory = Arc::new(MemoryStore::default());
    let down = Arc::new(Down(MemoryStore::default()));
    let stores =
        Stores::separate(down, Arc::clone(&memory) as _, memory, Pepper::from_secret("pepper"));
    let limits = TieredRateLimitLayer::builder(&stores)
        .tier("free", quotas().on_outage(Outage::InsecureAdmit))
        .fair(&fair);
    let service = limits.build().unwrap().layer(Engine::default());
    let held = now(ask(&service, request("free/a")).await).await;
    assert_eq!(held.status(), 200);
    assert!(!held.headers().contains_key("x-ratelimit-remaining-requests"));
    assert_eq!(code_of(&now(ask(&service, request("free/b")).await).await), "queue_full");
    drop(held);
    assert_idle(&fair);
}

/// The same engine behind two layers is one engine.
#[tokio::test(start_paused = true)]
async fn layers_that_share_an_engine_share_its_capacity() {
    let fair = one(Share::percent(100).queue(0));
    let chat = limits(&fair);
    let other = FairAdmissionLayer::builder(&fair).fallback_tier("free").build().unwrap();
    let other = other.layer(Engine::default());
    let held = now(ask(&chat, request("free/a")).await).await;
    assert_eq!(now(ask(&other, request("free/b")).await).await.status(), 503);
    drop(held);
    assert_eq!(now(ask(&other, request("free/b")).await).await.status(), 200);
}

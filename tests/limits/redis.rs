//! The same on a real server, where several processes share the limits.

use std::{sync::Arc, time::Duration};

use palisade::{
    rate_limit::{Calendar, CostTable, Tier, TierLimit, TieredRateLimitLayer, TokenWeights},
    reservation::TokenUsage,
    store::{Pepper, RedisStore, Stores},
};

use crate::{
    servers::{redis::RedisServer, within},
    support::{alice, answer, ask, builder_on},
};

// What is used of a period does not drain meanwhile.
fn month() -> Calendar {
    Calendar::month()
}

fn layer(server: &RedisServer) -> TieredRateLimitLayer {
    let costs = CostTable::new(TokenWeights::new(1000, 4000).cached_input(100))
        .model("llama", TokenWeights::new(100, 200));
    let tier = Tier::new()
        .limit(TierLimit::requests(6, month()))
        .limit(TierLimit::cost(10_000, month(), costs))
        .limit(TierLimit::requests(2, month()).each_model(["dear", "llama"]))
        .limit(TierLimit::requests(3, month()).shadow())
        .limit(TierLimit::concurrent_requests(1).shadow())
        .limit(TierLimit::tokens(1000, month()).each_model(["dear"]).shadow());
    let store = RedisStore::builder(&server.url()).deadline(Duration::from_secs(5));
    let stores = Stores::new(Arc::new(store.build().unwrap()), Pepper::from_secret("pepper"));
    builder_on(&stores, tier).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn cost_models_and_shadows_are_shared_by_processes() {
    let Some(server) = RedisServer::start() else { return };
    let layers = [layer(&server), layer(&server)];
    let uses = async |at: usize, model: &str| {
        let answered = ask(&layers[at % 2], async |meter| {
            if meter.refine_for(Some(model), TokenUsage::new(200, 50)).await.is_err() {
                return answer("refused");
            }
            meter.report(TokenUsage::new(200, 25).with_cached_input(100));
            answer("admitted")
        });
        String::from_utf8(answered.await.body().to_vec()).unwrap()
    };
    assert_eq!(uses(0, "dear").await, "admitted");
    assert_eq!(uses(1, "dear").await, "admitted");
    assert_eq!(uses(0, "dear").await, "refused");
    assert_eq!(uses(1, "llama").await, "admitted");
    let expected = [
        ("requests-calendar-month", None, 2),
        ("cost-calendar-month", None, 10_000 - 2 * (100 + 10 + 100) - 25),
        ("model-requests-calendar-month", Some("dear"), 0),
        ("model-requests-calendar-month", Some("llama"), 1),
        ("model-requests-calendar-month", Some("*"), 2),
        ("shadow-requests-calendar-month", None, 0),
        ("shadow-concurrent-requests", None, 1),
        ("shadow-model-tokens-calendar-month", Some("dear"), 1000 - 2 * 225),
        ("shadow-model-tokens-calendar-month", Some("*"), 1000 - 225),
    ];
    let told = async || {
        let quotas = layers[0].quotas(&alice(), None).await.unwrap();
        let told = quotas.into_iter().map(|quota| (quota.name, quota.model, quota.remaining));
        told.collect::<Vec<_>>()
    };
    let expected =
        expected.map(|(name, model, left)| (name.into(), model.map(str::to_owned), left));
    let settled = within(Duration::from_secs(10), async || told().await == expected).await;
    assert!(settled, "{:?}", told().await);
    layers[1].reset_quotas(&alice(), None).await.unwrap();
    assert!(told().await.iter().all(|(.., left)| *left > 0));
}

//! Limits that are only counted.

use std::sync::Arc;

use palisade::{
    clock::ManualClock,
    rate_limit::{Scope, Tier, TierLimit, TieredRateLimitLayer},
    reservation::TokenUsage,
    store::{LimiterStore, MemoryStore, Pepper, Stores},
};

use crate::support::{MINUTE, answer, ask, builder, layer, left, status, stores_by};

fn names(left: &[(String, u64)]) -> Vec<(&str, u64)> {
    left.iter().map(|(name, left)| (name.as_str(), *left)).collect()
}

#[tokio::test]
async fn a_shadow_limit_counts_what_it_would_let_through_and_never_refuses() {
    let clock = Arc::new(ManualClock::default());
    let tier = Tier::new().requests_per_minute(5).limit(TierLimit::requests(2, MINUTE).shadow());
    let layer = TieredRateLimitLayer::builder(&stores_by(&clock))
        .tier("free", tier)
        .fallback_tier("free")
        .build()
        .unwrap();
    for expected in [200, 200, 200, 200, 200, 429] {
        assert_eq!(status(&layer).await, expected);
    }
    let told = left(&layer).await;
    assert_eq!(names(&told), [("requests-minute", 0), ("shadow-requests-minute", 0)]);
    // No debt: what it would have refused was not charged to it.
    clock.advance(MINUTE / 2);
    let told = left(&layer).await;
    assert_eq!(names(&told), [("requests-minute", 2), ("shadow-requests-minute", 1)]);
}

#[tokio::test]
async fn each_shadow_limit_counts_alone() {
    let layer = layer(
        Tier::new()
            .limit(TierLimit::requests(2, MINUTE).shadow())
            .limit(TierLimit::requests(100, MINUTE).per([Scope::Organisation]).shadow())
            .requests_per_minute(10),
    );
    for _ in 0..5 {
        assert_eq!(status(&layer).await, 200);
    }
    let told = left(&layer).await;
    let expected = [
        ("requests-minute", 5),
        ("shadow-requests-minute", 0),
        ("shadow-organisation-requests-minute", 95),
    ];
    assert_eq!(names(&told), expected);
}

#[tokio::test]
async fn a_tier_may_have_shadow_limits_alone_and_callers_see_nothing_of_them() {
    let tier = Tier::new()
        .limit(TierLimit::requests(1, MINUTE).shadow())
        .limit(TierLimit::concurrent_requests(1).shadow());
    let layer = layer(tier);
    for _ in 0..3 {
        let response = ask(&layer, async |_| answer("")).await;
        assert_eq!(response.status(), 200);
        assert!(!format!("{:?}", response.headers()).contains("ratelimit"));
    }
    let told = left(&layer).await;
    let expected = [("shadow-requests-minute", 0), ("shadow-concurrent-requests", 1)];
    assert_eq!(names(&told), expected);
}

#[tokio::test]
async fn tokens_are_reserved_refined_and_settled_in_the_shadow_too() {
    let layer = layer(
        Tier::new()
            .tokens_per_minute(10_000)
            .limit(TierLimit::tokens(1000, MINUTE).shadow())
            .limit(TierLimit::requests(10, MINUTE).shadow()),
    );
    let ask = async |estimate: u64, used: u64| {
        let answered = ask(&layer, async |meter| {
            meter.refine(TokenUsage::new(estimate, 0)).await.unwrap();
            meter.report(TokenUsage::new(used, 0));
            answer("")
        });
        assert_eq!(answered.await.status(), 200);
        let told = left(&layer).await;
        told.into_iter().map(|(_, left)| left).collect::<Vec<_>>()
    };
    assert_eq!(ask(600, 400).await, [9600, 600, 9]);
    // Would have been refused when its prompt was parsed: the request is charged there, and no tokens.
    assert_eq!(ask(700, 700).await, [8900, 600, 8]);
    // Used beyond its reservation: a debt, as it would be were the limit enforced.
    assert_eq!(ask(600, 1100).await, [7800, 0, 7]);
    assert_eq!(ask(0, 5).await, [7795, 0, 6]);
}

#[tokio::test]
async fn what_it_would_have_refused_is_a_metric_with_the_limits_name() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let told = recorder.handle();
    let guard = metrics::set_default_local_recorder(&recorder);
    let layer =
        layer(Tier::new().requests_per_minute(9).limit(TierLimit::requests(1, MINUTE).shadow()));
    for _ in 0..4 {
        assert_eq!(status(&layer).await, 200);
    }
    drop(guard);
    let told = told.render();
    let expected = "palisade_shadow_refused_total{limit=\"shadow-requests-minute\"} 3";
    assert!(told.contains(expected), "{told}");
}

/// A slow store is asked in the background, and what it grants after the request has ended is given back.
#[tokio::test(start_paused = true)]
async fn a_request_does_not_wait_for_its_shadow_limits() {
    let store = Arc::new(crate::support::Slow::default());
    let stores = Stores::separate(
        Arc::clone(&store) as _,
        Arc::clone(&store.memory) as _,
        Arc::clone(&store.memory) as _,
        Pepper::from_secret("pepper"),
    );
    let tier = Tier::new()
        .limit(TierLimit::concurrent_requests(1).shadow())
        .limit(TierLimit::tokens(1000, MINUTE).shadow())
        .limit(TierLimit::tokens(1000, MINUTE).each_model(["dear"]).shadow());
    let layer = TieredRateLimitLayer::builder(&stores)
        .tier("free", tier)
        .fallback_tier("free")
        .build()
        .unwrap();
    let began = tokio::time::Instant::now();
    let answered = ask(&layer, async |meter| {
        meter.refine_for(Some("dear"), TokenUsage::new(300, 0)).await.unwrap();
        meter.report(TokenUsage::new(100, 0));
        answer("")
    });
    assert_eq!(answered.await.status(), 200);
    assert_eq!(began.elapsed(), std::time::Duration::ZERO);
    tokio::time::sleep(MINUTE / 2).await;
    // The model was told before the first answer of the store: its limit is asked for after the request has ended.
    let expected = [
        ("shadow-concurrent-requests", 1),
        ("shadow-tokens-minute", 900),
        ("shadow-model-tokens-minute", 900),
        // All other models share one.
        ("shadow-model-tokens-minute", 1000),
    ];
    assert_eq!(names(&left(&layer).await), expected);
}

#[tokio::test]
async fn an_outage_stops_shadow_limits_and_nothing_else() {
    let store: Arc<dyn LimiterStore> = Arc::new(crate::support::Down);
    let memory = Arc::new(MemoryStore::default());
    let facts = Arc::clone(&memory) as _;
    let stores = Stores::separate(store, facts, memory, Pepper::from_secret("pepper"));
    let layer = TieredRateLimitLayer::builder(&stores)
        .tier("free", Tier::new().limit(TierLimit::requests(1, MINUTE).shadow()))
        .fallback_tier("free")
        .build()
        .unwrap();
    assert_eq!(status(&layer).await, 200);
    assert_eq!(status(&layer).await, 200);
}

/// A record has eight places in memory: shadows take none of those that enforced limits need.
#[tokio::test]
async fn eight_enforced_limits_and_eight_shadows_are_all_kept() {
    let limit = |n: u64, what: &str| TierLimit::requests(n, MINUTE).named(format!("{what}-{n}"));
    let enforced = (11..19).fold(Tier::new(), |tier, n| tier.limit(limit(n, "enforced")));
    let tier = (11..19).fold(enforced, |tier, n| tier.limit(limit(n, "counted").shadow()));
    let layer = layer(tier);
    for n in 1..=11 {
        assert_eq!(status(&layer).await, 200);
        let told = left(&layer).await;
        assert_eq!(told.len(), 16);
        for (at, (_, left)) in told.iter().enumerate() {
            assert_eq!(*left, 11 + at as u64 % 8 - n, "{told:?}");
        }
    }
    assert_eq!(status(&layer).await, 429);
}

#[tokio::test]
async fn a_reset_forgets_what_was_counted_in_the_shadow() {
    let layer = layer(Tier::new().limit(TierLimit::requests(3, MINUTE).shadow()));
    assert_eq!(status(&layer).await, 200);
    layer.reset_quotas(&crate::support::alice(), None).await.unwrap();
    assert_eq!(names(&left(&layer).await), [("shadow-requests-minute", 3)]);
}

#[test]
fn no_more_than_eight_and_no_two_of_a_name() {
    let many = |count: u64| {
        let limit = |n: u64| TierLimit::requests(n, MINUTE).named(format!("limit-{n}")).shadow();
        let eight = (11..=18).fold(Tier::new(), |tier, n| {
            tier.limit(TierLimit::requests(n, MINUTE).named(format!("limit-{n}")))
        });
        builder((1..=count).fold(eight, |tier, n| tier.limit(limit(n)))).build()
    };
    assert!(many(8).is_ok());
    assert!(many(9).is_err());
    let twice = TierLimit::requests(1, MINUTE).named("requests-minute").shadow();
    assert!(builder(Tier::new().requests_per_minute(2).limit(twice)).build().is_err());
}

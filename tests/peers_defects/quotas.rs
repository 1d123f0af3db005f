//! What is counted, and what is told of it.

use std::{sync::Arc, time::Duration};

use palisade::{
    clock::ManualClock,
    rate_limit::{Tier, TierLimit, TieredRateLimitLayer},
    reservation::TokenUsage,
    store::{Pepper, RedisStore, Stores},
};
use tokio::sync::Barrier;

use crate::support::{MINUTE, answer, ask, builder, builder_on, layer, left, status, stores_by};

const HOUR: Duration = Duration::from_secs(3600);

fn by(clock: &Arc<ManualClock>, tier: Tier) -> TieredRateLimitLayer {
    builder_on(&stores_by(clock), tier).build().unwrap()
}

async fn uses(layer: &TieredRateLimitLayer, estimate: u64, used: u64) -> bool {
    let answered = ask(layer, async |meter| {
        if meter.refine(TokenUsage::new(estimate, 0)).await.is_ok() {
            meter.report(TokenUsage::new(used, 0));
            return answer("admitted");
        }
        meter.report(TokenUsage::default());
        answer("")
    });
    answered.await.body() == "admitted"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_requests_are_admitted_exactly() {
    for _ in 0..50 {
        let layer = layer(Tier::new().limit(TierLimit::requests(100, HOUR)));
        let asking = (0..4).map(|_| {
            let layer = layer.clone();
            tokio::spawn(async move {
                let mut admitted = 0;
                for _ in 0..50 {
                    admitted += u32::from(status(&layer).await == 200);
                }
                admitted
            })
        });
        let admitted = futures_util::future::join_all(asking).await;
        assert_eq!(admitted.into_iter().map(Result::unwrap).sum::<u32>(), 100);
    }
}

/// 663 tokens passed a limit of 100 where usage was added up when requests had ended.
#[tokio::test]
async fn concurrent_requests_pass_no_limit_on_tokens_together() {
    let layer = layer(Tier::new().tokens_per_minute(100));
    let together = Barrier::new(20);
    let asking = (0..20).map(async |_| {
        let answered = ask(&layer, async |meter| {
            let refined = meter.refine(TokenUsage::new(10, 20)).await;
            // None ends before all have asked.
            together.wait().await;
            answer(if refined.is_ok() { "admitted" } else { "" })
        });
        answered.await.body() == "admitted"
    });
    let admitted = futures_util::future::join_all(asking).await;
    assert_eq!(admitted.into_iter().filter(|admitted| *admitted).count(), 3);
}

/// Two stacked governors, of 100 and of 10, admitted 10 of 100 requests and charged all to the outer.
#[tokio::test]
async fn a_refused_request_burns_no_other_limit() {
    let wide = TierLimit::requests(100, HOUR).named("wide");
    let narrow = TierLimit::requests(10, HOUR).named("narrow");
    let layer = layer(Tier::new().limit(wide).limit(narrow));
    let mut admitted = 0;
    for _ in 0..100 {
        admitted += u32::from(status(&layer).await == 200);
    }
    assert_eq!(admitted, 10);
    assert_eq!(left(&layer).await, [("wide".into(), 90), ("narrow".into(), 0)]);
}

#[tokio::test]
async fn a_wait_of_less_than_a_second_is_told_as_one() {
    let layer = layer(Tier::new().limit(TierLimit::requests(10, Duration::from_secs(1)).burst(1)));
    assert_eq!(status(&layer).await, 200);
    let refused = ask(&layer, async |_| answer("")).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(refused.headers()["retry-after-ms"], "100");
}

#[tokio::test]
async fn what_is_used_beyond_a_reservation_is_owed() {
    let clock = Arc::default();
    let layer = by(&clock, Tier::new().tokens_per_minute(100));
    assert!(uses(&layer, 10, 250).await);
    for (minutes, expected) in [(0, 0), (1, 0), (2, 50), (3, 100)] {
        clock.advance(if minutes == 0 { Duration::ZERO } else { MINUTE });
        assert_eq!(left(&layer).await[0].1, expected, "after {minutes} minutes");
    }
}

/// Usage was only added where the limit was not passed yet.
#[tokio::test]
async fn what_is_used_beyond_the_limit_counts_as_well() {
    let clock = Arc::default();
    let layer = by(&clock, Tier::new().tokens_per_minute(100));
    let inner = layer.clone();
    let outer = ask(&layer, async |meter| {
        assert!(uses(&inner, 0, 150).await);
        // Its own usage comes when the limit is passed.
        meter.report(TokenUsage::new(100, 0));
        answer("")
    });
    assert_eq!(outer.await.status(), 200);
    clock.advance(MINUTE * 2);
    assert_eq!(left(&layer).await[0].1, 50);
}

#[tokio::test]
async fn a_reservation_that_has_drained_gives_nothing_back() {
    let clock: Arc<ManualClock> = Arc::default();
    let layer = by(&clock, Tier::new().tokens_per_minute(100));
    let answered = ask(&layer, async |meter| {
        meter.refine(TokenUsage::new(100, 0)).await.unwrap();
        clock.advance(MINUTE);
        meter.report(TokenUsage::default());
        answer("")
    });
    assert_eq!(answered.await.status(), 200);
    assert!(uses(&layer, 100, 100).await);
    assert!(!uses(&layer, 1, 1).await);
}

#[tokio::test]
async fn a_store_that_is_not_there_never_turns_limits_off() {
    // What can't be a store is an error before there is a layer.
    assert!(RedisStore::builder("no url").build().is_err());
    assert!(RedisStore::builder("redis://").prefix("{").build().is_err());
    // Nobody listens there any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let store = RedisStore::builder(&format!("redis://127.0.0.1:{port}")).build().unwrap();
    let stores = Stores::new(Arc::new(store), Pepper::random());
    let layer = TieredRateLimitLayer::builder(&stores)
        .tier("free", Tier::new().requests_per_minute(1))
        .fallback_tier("free")
        .build()
        .unwrap();
    for _ in 0..3 {
        let refused = ask(&layer, async |_| unreachable!("it was admitted")).await;
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["retry-after"], "1");
    }
}

/// A stream of a chunked request was charged 1, whatever it used.
#[tokio::test]
async fn a_request_that_tells_no_length_costs_more_than_one_token() {
    let tier = Tier::new().tokens_per_minute(10_000);
    let layer = builder(tier).default_input_tokens(256).default_output_tokens(256);
    let layer = layer.build().unwrap();
    assert_eq!(status(&layer).await, 200);
    assert_eq!(left(&layer).await, [("tokens-minute".into(), 10_000 - 512)]);
}

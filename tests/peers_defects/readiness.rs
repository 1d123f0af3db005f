//! Permits of the services within. What is called unready is in `contract/readiness.rs`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::Request;
use palisade::{
    rate_limit::{Tier, TieredRateLimitLayer},
    store::{MemoryStore, Pepper, Stores},
};
use tower::{Service, ServiceBuilder, ServiceExt};

use crate::support::{Slow, answer, layer, request_to};

/// A service that keeps the permit of one request while the next is driven to readiness waits for ever.
#[tokio::test(start_paused = true)]
async fn two_requests_for_one_permit_are_both_answered() {
    let store = Arc::new(Slow::default());
    let memory: Arc<MemoryStore> = Arc::clone(&store.memory);
    let remote =
        Stores::separate(store, Arc::clone(&memory) as _, memory, Pepper::from_secret("pepper"));
    let remote = TieredRateLimitLayer::builder(&remote)
        .tier("free", Tier::new().requests_per_minute(100))
        .fallback_tier("free")
        .build()
        .unwrap();
    for limits in [layer(Tier::new().requests_per_minute(100)), remote] {
        let mut service = ServiceBuilder::new().layer(limits).concurrency_limit(1).service_fn(
            async |_: Request<()>| {
                tokio::time::sleep(Duration::from_secs(5)).await;
                Ok::<_, Infallible>(answer("answered"))
            },
        );
        let first = service.ready().await.unwrap().call(request_to("/generate"));
        let second = service.ready().await.unwrap().call(request_to("/generate"));
        let third = service.clone().oneshot(request_to("/generate"));
        let all = async { tokio::join!(second, first, third) };
        let all = tokio::time::timeout(Duration::from_secs(60), all).await;
        let (second, first, third) = all.expect("they wait for each other");
        for answer in [first, second, third] {
            assert_eq!(answer.unwrap().status(), 200);
        }
    }
}

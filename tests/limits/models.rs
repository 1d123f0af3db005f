//! Limits that count by the model that a request is for.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use palisade::{
    Rejection,
    prompt_guard::PromptGuardLayer,
    rate_limit::{Scope, Tier, TierLimit, TieredRateLimitLayer},
    reservation::TokenUsage,
};
use tower::{ServiceBuilder, ServiceExt, service_fn};

use crate::support::{MINUTE, alice, answer, ask, builder, layer, left, request_to};

/// Whether a request for `model` is admitted, and what it is told.
async fn admitted(layer: &TieredRateLimitLayer, model: Option<&str>, tokens: u64) -> bool {
    let mut admitted = true;
    let answered = ask(layer, async |meter| {
        admitted_by(meter.refine_for(model, TokenUsage::new(tokens, 0)).await, &meter, tokens)
    });
    if answered.await.status() != 200 {
        admitted = false;
    }
    admitted
}

fn admitted_by(
    refined: Result<(), Rejection>,
    meter: &palisade::UsageMeter,
    tokens: u64,
) -> Response<Full<Bytes>> {
    let mut response = answer("");
    match refined {
        Ok(()) => meter.report(TokenUsage::new(tokens, 0)),
        Err(rejection) => *response.status_mut() = rejection.kind().status(),
    }
    response
}

#[tokio::test]
async fn a_limit_of_some_models_counts_them_together_and_no_others() {
    let limit = TierLimit::requests(2, MINUTE).only_models(["dear", "o3*"]).named("dear");
    let layer = layer(Tier::new().requests_per_minute(100).limit(limit));
    for (model, expected) in [
        (Some("dear"), true),
        (Some("cheap"), true),
        (Some("o3-mini"), true),
        (Some("dear"), false),
        (Some("o3"), false),
        (Some("dearest"), true),
        (None, true),
        (Some("cheap"), true),
    ] {
        assert_eq!(admitted(&layer, model, 1).await, expected, "{model:?}");
    }
    assert_eq!(left(&layer).await, [("requests-minute".into(), 92), ("dear".into(), 0)]);
}

#[tokio::test]
async fn each_model_has_the_limit_to_itself_and_invented_ones_share_one() {
    let layer = layer(Tier::new().limit(TierLimit::tokens(100, MINUTE).each_model(["a", "b*"])));
    for (model, expected) in [
        (Some("a"), true),
        (Some("a"), false),
        (Some("b-1"), true),
        (Some("b-2"), false),
        (Some("invented-1"), true),
        (Some("invented-2"), false),
        // So do requests that name none.
        (None, false),
    ] {
        assert_eq!(admitted(&layer, model, 60).await, expected, "{model:?}");
    }
    let quotas = layer.quotas(&alice(), None).await.unwrap();
    let told: Vec<_> = quotas.iter().map(|q| (q.model.as_deref(), q.remaining)).collect();
    assert_eq!(told, [(Some("a"), 40), (Some("b*"), 40), (Some("*"), 40)]);
    assert!(quotas.iter().all(|quota| quota.name == "model-tokens-minute"));
    layer.reset_quotas(&alice(), None).await.unwrap();
    assert!(left(&layer).await.iter().all(|(_, left)| *left == 100));
}

/// All or none: what a limit by model refuses is charged nowhere but where the request itself was admitted.
#[tokio::test]
async fn a_limit_by_model_is_charged_with_the_rest_of_the_refinement_or_not_at_all() {
    let layer = layer(
        Tier::new()
            .requests_per_minute(10)
            .tokens_per_minute(1000)
            .limit(TierLimit::tokens(100, MINUTE).each_model(["a"]).named("tokens-by-model"))
            .limit(TierLimit::requests(1, MINUTE).each_model(["a"])),
    );
    assert!(admitted(&layer, Some("a"), 70).await);
    // By tokens; by requests; and by what all models share.
    assert!(!admitted(&layer, Some("a"), 70).await);
    assert!(!admitted(&layer, Some("a"), 1).await);
    assert!(!admitted(&layer, Some("b"), 931).await);
    let quotas = layer.quotas(&alice(), None).await.unwrap();
    let told: Vec<_> = quotas.iter().map(|q| (&*q.name, q.model.as_deref(), q.remaining)).collect();
    assert_eq!(
        told,
        [
            ("requests-minute", None, 6),
            ("tokens-minute", None, 930),
            ("tokens-by-model", Some("a"), 30),
            ("tokens-by-model", Some("*"), 100),
            ("model-requests-minute", Some("a"), 0),
            ("model-requests-minute", Some("*"), 1),
        ]
    );
}

/// What is used beyond the reservation of a limit that was charged late is debt there too.
#[tokio::test]
async fn what_is_used_beyond_is_debt_of_the_limit_by_model() {
    let layer = layer(Tier::new().limit(TierLimit::tokens(100, MINUTE).each_model(["a"])));
    let answered = ask(&layer, async |meter| {
        meter.refine_for(Some("a"), TokenUsage::new(0, 0)).await.unwrap();
        meter.report(TokenUsage::new(90, 60));
        answer("")
    });
    assert_eq!(answered.await.status(), 200);
    assert!(!admitted(&layer, Some("a"), 0).await);
    assert!(admitted(&layer, Some("b"), 0).await);
}

#[tokio::test]
async fn slots_of_a_model_are_held_until_the_end() {
    let layer = layer(Tier::new().limit(TierLimit::concurrent_requests(1).each_model(["a"])));
    let inner = layer.clone();
    let answered = ask(&layer, async |meter| {
        meter.refine_for(Some("a"), TokenUsage::default()).await.unwrap();
        assert!(!admitted(&inner, Some("a"), 0).await);
        assert!(admitted(&inner, Some("b"), 0).await);
        answer("")
    });
    assert_eq!(answered.await.status(), 200);
    assert!(admitted(&layer, Some("a"), 0).await);
}

#[tokio::test]
async fn headers_tell_of_a_limit_by_model_where_it_counts() {
    let limit = TierLimit::requests(3, MINUTE).only_models(["dear"]).named("dear");
    let layer = layer(Tier::new().requests_per_minute(100).limit(limit));
    for (model, remaining, told) in
        [("dear", "2", "\"dear\";r=2;t=20"), ("cheap", "98", "\"requests-minute\";r=98;t=2")]
    {
        let answered = ask(&layer, async |meter| {
            meter.refine_for(Some(model), TokenUsage::default()).await.unwrap();
            answer("")
        });
        let headers = answered.await.headers().clone();
        assert_eq!(headers["x-ratelimit-remaining-requests"], remaining);
        assert_eq!(headers["ratelimit"], told);
    }
}

/// The guard reads the model out of the body, and its refusal is the caller's 429.
#[tokio::test]
async fn the_guard_says_which_model_a_request_is_for() {
    let limit = TierLimit::requests(1, MINUTE).each_model(["gpt-4o"]).per([Scope::Subject]);
    let limits = layer(Tier::new().requests_per_minute(100).limit(limit));
    let service = ServiceBuilder::new()
        .layer(limits.clone())
        .layer(PromptGuardLayer::builder().build().unwrap())
        .service(service_fn(async |_: Request<_>| Ok::<_, Infallible>(answer("{}"))));
    let ask = async |model: &str| {
        let body =
            format!(r#"{{"model": {model}, "messages": [{{"role": "user", "content": "Hi"}}]}}"#);
        let request = request_to("/v1/chat/completions").map(|()| Full::new(Bytes::from(body)));
        let response = service.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status.as_u16(), body.collect().await.unwrap().to_bytes())
    };
    assert_eq!(ask("\"gpt-4o\"").await.0, 200);
    let (status, told) = ask("\"gpt-4o\"").await;
    assert_eq!(status, 429);
    assert!(String::from_utf8_lossy(&told).contains("1 requests in 60 s"), "{told:?}");
    assert_eq!(ask("\"gpt-4o\\u002d\"").await.0, 200);
    assert_eq!(ask("\"invented\"").await.0, 429);
}

#[tokio::test]
async fn a_shadow_limit_may_be_by_model_too() {
    let limit = TierLimit::requests(1, MINUTE).each_model(["a"]).shadow();
    let layer = layer(Tier::new().requests_per_minute(100).limit(limit));
    assert!(admitted(&layer, Some("a"), 0).await);
    assert!(admitted(&layer, Some("a"), 0).await);
    let quotas = layer.quotas(&alice(), None).await.unwrap();
    let told: Vec<_> = quotas.iter().map(|q| (q.model.as_deref(), q.remaining)).collect();
    assert_eq!(told, [(None, 98), (Some("a"), 0), (Some("*"), 1)]);
}

#[tokio::test]
async fn a_request_whose_model_nobody_tells_is_counted() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let told = recorder.handle();
    let guard = metrics::set_default_local_recorder(&recorder);
    let layer = layer(Tier::new().limit(TierLimit::requests(1, MINUTE).each_model(["a"])));
    assert!(admitted(&layer, None, 0).await);
    for _ in 0..2 {
        assert_eq!(crate::support::status(&layer).await, 200);
    }
    drop(guard);
    let told = told.render();
    assert!(told.contains("palisade_model_not_told_total{layer=\"rate_limit\"} 2"), "{told}");
}

/// A shorter answer helps nobody whose requests are used up.
#[tokio::test]
async fn requests_of_a_model_that_are_used_up_are_no_reason_for_a_shorter_answer() {
    let limit = TierLimit::requests(1, MINUTE).each_model(["a"]);
    let tier = Tier::new().tokens_per_minute(1000).limit(limit);
    let layer = builder(tier).grant_fewer_output_tokens(1).build().unwrap();
    assert!(admitted(&layer, Some("a"), 0).await);
    let answered = ask(&layer, async |meter| {
        assert!(meter.refine_for(Some("a"), TokenUsage::new(0, 500)).await.is_err());
        answer("")
    });
    assert_eq!(answered.await.status(), 200);
}

#[test]
fn names_that_mean_nothing_are_refused_at_build() {
    let of = |limit: TierLimit| builder(Tier::new().limit(limit)).build();
    let limit = || TierLimit::requests(1, MINUTE);
    assert!(of(limit().only_models([] as [&str; 0])).is_err());
    assert!(of(limit().each_model([""])).is_err());
    assert!(of(limit().each_model(["a*b"])).is_err());
    assert!(of(limit().each_model(["a", "a"])).is_err());
    assert!(of(limit().each_model(["a", "a*", "*"])).is_ok());
    let before = TieredRateLimitLayer::before_authentication(
        &palisade::store::Stores::in_memory(),
        Tier::new().limit(limit().per([Scope::Network]).only_models(["a"])),
    );
    assert!(before.build().is_err());
}

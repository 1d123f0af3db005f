//! Tokens by their weights.

use palisade::{
    rate_limit::{CostTable, Tier, TierLimit, TokenWeights},
    reservation::TokenUsage,
};

use crate::support::{MINUTE, answer, ask, builder, layer, left};

fn costs() -> CostTable {
    CostTable::new(TokenWeights::new(1000, 4000).cached_input(100).reasoning(2000))
        .model("cheap-*", TokenWeights::new(100, 200))
        .model("cheap-but-dear", TokenWeights::new(5000, 5000))
}

fn of_cost(quota: u64) -> Tier {
    Tier::new().limit(TierLimit::cost(quota, MINUTE, costs()))
}

#[tokio::test]
async fn each_kind_of_token_of_each_model_has_its_price() {
    for (model, usage, expected) in [
        (None, r#""prompt_tokens": 100, "completion_tokens": 50"#, 300),
        (Some("unknown"), r#""prompt_tokens": 100, "completion_tokens": 50"#, 300),
        (
            None,
            r#""prompt_tokens": 100, "completion_tokens": 50, "prompt_tokens_details": {"cached_tokens": 80}, "completion_tokens_details": {"reasoning_tokens": 40}"#,
            20 + 8 + 40 + 80,
        ),
        (Some("cheap-8b"), r#""prompt_tokens": 100, "completion_tokens": 50"#, 20),
        (Some("cheap-8b"), r#""prompt_tokens": 1, "completion_tokens": 1"#, 1),
        (Some("cheap-but-dear"), r#""prompt_tokens": 100, "completion_tokens": 50"#, 750),
        // Anthropic's input_tokens leave out what was cached.
        (
            None,
            r#""input_tokens": 20, "cache_read_input_tokens": 80, "output_tokens": 10"#,
            20 + 8 + 40,
        ),
        (
            None,
            r#""input_tokens": 20, "cache_creation_input_tokens": 80, "output_tokens": 10"#,
            100 + 40,
        ),
    ] {
        let layer = layer(of_cost(100_000));
        let answered = ask(&layer, async |meter| {
            meter.refine_for(model, TokenUsage::new(100, 60)).await.unwrap();
            answer(format!("{{\"usage\": {{{usage}}}}}"))
        });
        assert_eq!(answered.await.status(), 200);
        assert_eq!(left(&layer).await, [("cost-minute".into(), 100_000 - expected)], "{usage}");
    }
}

/// As with log probabilities, or embeddings: however long, it pays for what it states.
#[tokio::test]
async fn an_answer_of_megabytes_pays_for_what_it_states() {
    let layer = layer(of_cost(100_000));
    let numbers = "-0.125,".repeat(300_000);
    let usage = r#""usage": {"prompt_tokens": 100, "completion_tokens": 16000}"#;
    let answered = ask(&layer, async |_| {
        answer(format!("{{\"choices\": [{{\"logprobs\": [{numbers} 0]}}], {usage}}}"))
    });
    assert_eq!(answered.await.status(), 200);
    assert_eq!(left(&layer).await, [("cost-minute".into(), 100_000 - 100 - 64_000)]);
}

#[tokio::test]
async fn a_handler_reports_cached_and_reasoning_tokens_too() {
    let layer = layer(of_cost(1000));
    let answered = ask(&layer, async |meter| {
        meter.report(TokenUsage::new(100, 50).with_cached_input(80).with_reasoning(40));
        answer("")
    });
    assert_eq!(answered.await.status(), 200);
    assert_eq!(left(&layer).await, [("cost-minute".into(), 1000 - 148)]);
}

#[tokio::test]
async fn what_a_model_costs_decides_whether_there_is_room_for_it() {
    let layer = layer(of_cost(500));
    // 100 and 4 * 110 are 540.
    for (model, estimate, expected) in [
        ("dear", TokenUsage::new(100, 110), false),
        ("dear", TokenUsage::new(100, 100), true),
        ("cheap-8b", TokenUsage::new(1000, 2000), true),
        ("cheap-8b", TokenUsage::new(1000, 2001), false),
    ] {
        let answered = ask(&layer, async |meter| {
            let refined = meter.refine_for(Some(model), estimate).await;
            assert_eq!(refined.is_ok(), expected, "{model} {estimate:?}");
            meter.report(TokenUsage::default());
            answer("")
        });
        assert_eq!(answered.await.status(), 200);
    }
}

#[tokio::test]
async fn a_meter_tells_how_long_an_answer_may_be_for_what_is_left() {
    let tier = of_cost(500);
    let layer = builder(tier).grant_fewer_output_tokens(10).build().unwrap();
    let answered = ask(&layer, async |meter| {
        // 100 for the prompt leave 400, and a token of the answer costs 4.
        meter.refine(TokenUsage::new(100, 1000)).await.unwrap();
        assert_eq!(meter.granted_output_tokens(), Some(100));
        meter.charge(60);
        assert_eq!(meter.remaining(), Some(40));
        meter.charge(40);
        assert_eq!(meter.remaining(), Some(0));
        answer("")
    });
    assert_eq!(answered.await.status(), 200);
    assert_eq!(left(&layer).await, [("cost-minute".into(), 0)]);
}

#[tokio::test]
async fn a_guess_never_refuses_for_its_cost() {
    let layer = builder(of_cost(500)).default_output_tokens(1_000_000).build().unwrap();
    let answered = ask(&layer, async |meter| {
        meter.report(TokenUsage::new(10, 0));
        answer("")
    });
    assert_eq!(answered.await.status(), 200);
    assert_eq!(left(&layer).await, [("cost-minute".into(), 490)]);
}

#[test]
fn weights_are_for_costs_and_models_are_named_once() {
    let twice = costs().model("cheap-*", TokenWeights::default());
    assert!(builder(Tier::new().limit(TierLimit::cost(5, MINUTE, twice))).build().is_err());
    let tokens = "limits = [{ unit = 'tokens', quota = 5, seconds = 60, weights = { input = 1, output = 2 } }]";
    assert!(builder(toml::from_str(tokens).unwrap()).build().is_err());
    let before = palisade::rate_limit::TieredRateLimitLayer::before_authentication(
        &palisade::store::Stores::in_memory(),
        Tier::new()
            .limit(TierLimit::cost(5, MINUTE, costs()).per([palisade::rate_limit::Scope::Network])),
    );
    assert!(before.build().is_err());
}

#[tokio::test]
async fn a_plain_text_pays_for_what_it_says() {
    let tokens = async |content_type: &'static str| {
        let layer = layer(Tier::new().tokens_per_minute(10_000));
        ask(&layer, async |_| {
            let mut answer = answer("word ".repeat(800));
            answer.headers_mut().insert("content-type", content_type.parse().unwrap());
            answer
        })
        .await;
        10_000 - left(&layer).await[0].1
    };
    assert!((1000..1600).contains(&tokens("text/plain; charset=utf-8").await));
    // A page, which is no answer of a model.
    assert!(tokens("text/html").await < 1000);
}

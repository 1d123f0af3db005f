//! An OpenAI-compatible moderation endpoint, as OpenAI's description of its API has it.

use axum::Json;
use palisade::prompt_guard::{
    Action,
    remote::{Moderation, ModerationBuilder},
};
use serde_json::{Value, json};

use crate::support::*;

/// Flags what has `hate` in it, with a score of 0.4, and is a little worried about all the rest.
async fn endpoint() -> Served {
    Served::told("/v1/moderations", |asked| {
        let results: Vec<Value> = asked["input"]
            .as_array()
            .unwrap()
            .iter()
            .map(|input| {
                let hate = input.as_str().unwrap().contains("hate");
                json!({
                    "flagged": hate,
                    "categories": {"hate": hate, "hate/threatening": false, "violence": false, "illicit": null},
                    "category_scores": {
                        "hate": if hate { 0.4 } else { 0.001 }, "hate/threatening": 0.0001,
                        "violence": 0.3, "illicit": null,
                    },
                    "category_applied_input_types": {"hate": ["text"], "violence": ["text"]},
                })
            })
            .collect();
        Json(json!({"id": "modr-1", "model": "omni-moderation-latest", "results": results}))
    })
    .await
}

fn detects(served: &Served) -> ModerationBuilder {
    Moderation::builder(served.server())
}

#[tokio::test]
async fn what_is_flagged_is_found() {
    let served = endpoint().await;
    let detector = detects(&served).model("omni-moderation-latest").build().unwrap();
    let guard = guard(detector, Action::Block).build().unwrap();
    assert_eq!(say(&guard, "love").await.status, 200);
    let outcome = ask(&guard, &chat(&[("system", "s"), ("user", "I hate you")])).await;
    // However low its score is: the server has flagged it.
    assert_eq!(outcome.code, Some("content_blocked"));
    assert_eq!(outcome.found(), [("moderation.hate", 1, None)]);
    let asked = served.bodies();
    assert_eq!(asked[0], json!({"model": "omni-moderation-latest", "input": ["love"]}));
    assert_eq!(asked[1]["input"], json!(["s", "I hate you"]));
}

#[tokio::test]
async fn thresholds_of_its_own_go_first() {
    let served = endpoint().await;
    let rules = async |detector: ModerationBuilder| {
        let guard = guard(detector.build().unwrap(), Action::Block).build().unwrap();
        let outcome = say(&guard, "hate").await;
        outcome.found().into_iter().map(|(rule, ..)| rule.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(rules(detects(&served).threshold("hate", 0.5)).await, Vec::<String>::new());
    assert_eq!(
        rules(detects(&served).threshold("violence", 0.3)).await,
        ["moderation.hate", "moderation.violence"]
    );
    assert_eq!(rules(detects(&served).threshold_of_all(0.35)).await, ["moderation.hate"]);
    assert_eq!(rules(detects(&served).ignore("hate")).await, Vec::<String>::new());
    // A category that the server does not know would never be found.
    let detector = detects(&served).threshold("hatred", 0.5).build().unwrap();
    assert!(say(&guard(detector, Action::Block).build().unwrap(), "hi").await.is_unavailable());
    assert!(detects(&served).threshold("hate", 2.0).build().is_err());
}

#[tokio::test]
async fn long_texts_are_read_to_their_end() {
    let served = endpoint().await;
    let guard = guard(detects(&served).build().unwrap(), Action::Block).build().unwrap();
    let outcome = say(&guard, &("love ".repeat(4000) + "hate")).await;
    assert_eq!(outcome.found(), [("moderation.hate", 0, None)]);
    let inputs = served.bodies()[0]["input"].clone();
    assert!(inputs.as_array().unwrap().iter().all(|input| input.as_str().unwrap().len() <= 8192));
}

#[tokio::test]
async fn what_is_no_answer_is_not_believed() {
    let result =
        json!({"flagged": false, "categories": {"a": false}, "category_scores": {"a": 0.1}});
    for (answer, believed) in [
        (json!({"results": [result]}), true),
        (json!({"results": []}), false),
        (json!({"results": [result, result]}), false),
        (json!([result]), false),
        (json!({"results": [{"flagged": false}]}), false),
        (json!({"results": [{"categories": {}, "category_scores": {}}]}), false),
        (json!({"results": [{"category_scores": {"a": 0.1}}]}), false),
        (json!({"results": [{"categories": {"a": 0}, "category_scores": {"a": 0.1}}]}), false),
        (json!({"results": [{"categories": {"a": false}, "category_scores": {"a": 1.1}}]}), false),
        (
            json!({"results": [{"categories": {"a\nb": false}, "category_scores": {"a\nb": 0.1}}]}),
            false,
        ),
    ] {
        let told = answer.clone();
        let served = Served::told("/v1/moderations", move |_| Json(told.clone())).await;
        let guard = guard(detects(&served).build().unwrap(), Action::Block).build().unwrap();
        assert_eq!(!say(&guard, "hi").await.is_unavailable(), believed, "{answer}");
    }
}

#[tokio::test]
async fn an_error_is_no_answer() {
    for status in [400, 401, 404, 429, 500, 503] {
        let served = Served::told("/v1/moderations", move |_| {
            error(
                status,
                json!({"error": {"message": "m", "type": "t", "param": null, "code": null}}),
            )
        })
        .await;
        let guard = guard(detects(&served).build().unwrap(), Action::Block).build().unwrap();
        assert!(say(&guard, "hi").await.is_unavailable(), "{status}");
    }
}

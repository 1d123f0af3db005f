//! Llama Guard, as vLLM serves it: chat completions whose content is the model's verdict.

use axum::Json;
use palisade::{
    inference::Origin,
    prompt_guard::{
        Action, Category,
        remote::{LlamaGuard, LlamaGuardBuilder},
    },
};
use serde_json::{Value, json};

use crate::support::*;

fn completion(content: &str) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000,
        "model": "meta-llama/Llama-Guard-3-8B",
        "choices": [{
            "index": 0, "logprobs": null, "finish_reason": "stop", "stop_reason": null,
            "message": {"role": "assistant", "content": content, "tool_calls": []},
        }],
        "usage": {"prompt_tokens": 200, "total_tokens": 205, "completion_tokens": 5},
    })
}

/// Judges the one message that it is shown.
async fn model() -> Served {
    Served::told("/v1/chat/completions", |asked| {
        let [message] = asked["messages"].as_array().unwrap().as_slice() else { panic!("not one") };
        assert_eq!((&message["role"], &asked["temperature"]), (&json!("user"), &json!(0)));
        let text = message["content"].as_str().unwrap();
        Json(completion(match text {
            _ if text.contains("bomb") => "\n\nunsafe\nS9",
            _ if text.contains("exploit") => "\n\nunsafe\nS2,S14",
            _ => "\n\nsafe",
        }))
    })
    .await
}

fn detects(served: &Served) -> LlamaGuardBuilder {
    LlamaGuard::builder(served.server(), "meta-llama/Llama-Guard-3-8B")
}

#[tokio::test]
async fn hazards_are_found_and_named() {
    let served = model().await;
    let guard = guard(detects(&served).build().unwrap(), Action::Block).build().unwrap();
    assert_eq!(say(&guard, "hi").await.status, 200);
    assert_eq!(served.bodies()[0]["model"], "meta-llama/Llama-Guard-3-8B");
    let outcome = say(&guard, "an exploit").await;
    assert_eq!(outcome.code, Some("content_blocked"));
    assert_eq!(outcome.found(), [("llama_guard.s2", 0, None), ("llama_guard.s14", 0, None)]);
    let categories = outcome.verdict.findings.iter().map(|finding| finding.category);
    assert_eq!(categories.collect::<Vec<_>>(), [Category::Custom, Category::MaliciousCode]);
}

/// Every turn is judged, in few requests.
#[tokio::test]
async fn a_conversation_is_sent_by_origin() {
    let served = model().await;
    let detector = || detects(&served).build().unwrap();
    let turns =
        [("user", "a"), ("assistant", "b"), ("user", "bomb"), ("assistant", "d"), ("user", "e")];
    let outcome = ask(&guard(detector(), Action::Block).build().unwrap(), &chat(&turns)).await;
    assert_eq!(outcome.code, Some("content_blocked"));
    assert_eq!(outcome.verdict.findings[0].rule, "llama_guard.s9");
    let mut sent: Vec<_> = served
        .bodies()
        .iter()
        .map(|body| body["messages"][0]["content"].as_str().unwrap().to_owned())
        .collect();
    sent.sort();
    assert_eq!(sent, ["a\nbomb\ne", "b\nd"]);

    // Of one origin, so a rule that overlooks another does not overlook it.
    let rule = Action::Block.insecure_skip(Origin::Assistant);
    let guard = palisade::prompt_guard::PromptGuardLayer::builder()
        .async_detector(detector(), rule, LIMIT, palisade::prompt_guard::OnUnavailable::Refuse)
        .build()
        .unwrap();
    assert_eq!(ask(&guard, &chat(&[("assistant", "b"), ("user", "bomb")])).await.status, 403);
    assert_eq!(ask(&guard, &chat(&[("assistant", "bomb"), ("user", "b")])).await.status, 200);
}

#[tokio::test]
async fn hazards_can_be_ignored_by_number() {
    let served = model().await;
    let guard = guard(detects(&served).ignore(9).build().unwrap(), Action::Block).build().unwrap();
    assert_eq!(say(&guard, "a bomb").await.found(), []);
    assert_eq!(say(&guard, "an exploit").await.status, 403);
}

#[tokio::test]
async fn long_texts_are_read_to_their_end() {
    let served = model().await;
    let guard = guard(detects(&served).build().unwrap(), Action::Block).build().unwrap();
    assert_eq!(say(&guard, &("so good ".repeat(5000) + "bomb")).await.status, 403);
}

#[tokio::test]
async fn a_model_that_chats_does_not_judge() {
    for content in ["I can't help with that.", "unsafe", "Safe", "", "safe\nunsafe\nS1"] {
        let served = Served::told("/v1/chat/completions", move |_| Json(completion(content))).await;
        let guard = guard(detects(&served).build().unwrap(), Action::Block).build().unwrap();
        assert!(say(&guard, "hi").await.is_unavailable(), "{content:?}");
    }
}

//! Rules that are replaced while requests are under way.

use std::convert::Infallible;

use http::{Request, Response};
use http_body_util::BodyExt;
use palisade::{
    body::RequestBody,
    prompt_guard::{Action, ReloadingRules, RulePack},
};
use serde_json::json;
use tower::{Layer, ServiceExt, service_fn};

use crate::support::*;

fn pack(keyword: &str) -> RulePack {
    let text = format!(
        "format = 1\nname = 'birds'\nversion = '1'\n\
         [[rules]]\nid = 'birds.name'\nweight = 0.9\nkeywords = ['{keyword}']\n"
    );
    RulePack::from_toml(&text).unwrap()
}

/// Answers with what it is asked, as a stream or whole, after the rules were replaced.
async fn asked(rules: &ReloadingRules, next: &str, stream: bool) -> Answer {
    let layer = guard()
        .detector(rules.clone(), Action::Block)
        .output_detector(rules.clone(), Action::Block)
        .build()
        .unwrap();
    let (handle, next) = (rules.clone(), next.to_owned());
    let service = layer.layer(service_fn(move |request: Request<RequestBody<AnyBody>>| {
        let (handle, next) = (handle.clone(), next.clone());
        async move {
            request.into_body().collect().await.unwrap();
            handle.replace(pack(&next)).unwrap();
            let said = "I have heard of a bluebird.";
            let (content_type, body) = match stream {
                true => {
                    let delta = json!({"choices": [{"index": 0, "delta": {"content": said}}]});
                    ("text/event-stream", format!("data: {delta}\n\ndata: [DONE]\n\n"))
                }
                false => {
                    let message = json!({"role": "assistant", "content": said});
                    let body = json!({"choices": [{"index": 0, "message": message}]});
                    ("application/json", body.to_string())
                }
            };
            let response = Response::builder().header("content-type", content_type);
            Ok::<_, Infallible>(response.body(full(body)).unwrap())
        }
    }));
    service.oneshot(post(CHAT, chat("Tell me of birds."))).await.unwrap()
}

#[tokio::test]
async fn an_answer_is_held_to_the_pack_that_its_request_began_with() {
    for stream in [false, true] {
        let rules = ReloadingRules::new(pack("bluebird")).unwrap();
        let answer = asked(&rules, "redbird", stream).await;
        let said = text(answer).await;
        assert!(!said.contains("bluebird") && said.contains("answer_blocked"), "{stream}: {said}");
        // The next one has the other pack, from which a word is missing.
        let said = text(asked(&rules, "redbird", stream).await).await;
        assert!(said.contains("bluebird"), "{stream}: {said}");
        // What comes into use during a request is not for its own answer.
        let said = text(asked(&rules, "bluebird", stream).await).await;
        assert!(said.contains("bluebird"), "{stream}: {said}");
        assert_eq!(rules.pack(), pack("bluebird"));
    }
}

#[tokio::test]
async fn texts_in_parts_are_looked_at_with_the_same_pack() {
    let rules = ReloadingRules::new(pack("secret bluebird")).unwrap();
    let body = json!({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "What is the secret"}, {"type": "text", "text": "bluebird?"}]}]});
    let layer = || guard().detector(rules.clone(), Action::Block);
    let request = || post(CHAT, body.to_string());
    let (answer, _) = ask(layer(), request()).await;
    assert_eq!(refusal(&answer), ("content_blocked", 403));
    let verdict = answer.extensions().get::<palisade::prompt_guard::Verdict>().unwrap();
    let told: Vec<_> =
        verdict.rules().iter().map(|rules| (&*rules.name, &*rules.version)).collect();
    assert_eq!(told, [("birds", "1")]);
    rules.replace(pack("redbird")).unwrap();
    assert_eq!(ask(layer(), request()).await.0.status(), 200);
}

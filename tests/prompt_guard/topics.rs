//! Topics, through the layer.

use palisade::{
    inference::Origin,
    prompt_guard::{Action, AnswerVerdict, Outcome, Topics, Verdict},
};
use serde_json::json;

use crate::support::*;

fn topics() -> Topics {
    Topics::builder()
        .allow("books", ["book", "books"])
        .deny("politics", ["election"])
        .build()
        .unwrap()
}

fn asks(system: &str, user: &str) -> http::Request<AnyBody> {
    let messages = [("system", system), ("user", user)]
        .map(|(role, text)| json!({"role": role, "content": text}));
    post(CHAT, json!({"messages": messages}).to_string())
}

#[tokio::test]
async fn what_is_off_topic_or_denied_is_refused() {
    let long = "Please write me a poem about the sea and the wind in autumn.";
    for (system, user, expected) in [
        ("Be brief.", "Which books are new?", None),
        ("Say nothing of the election.", "Which books are new?", Some("topics.denied.politics")),
        ("Be brief.", "A book on the election?", Some("topics.denied.politics")),
        ("Speak of books.", long, Some("topics.off_topic")),
    ] {
        let guard =
            guard().detector(topics(), Action::Redact.except("topics.denied", Action::Block));
        let (answer, _) = ask(guard, asks(system, user)).await;
        let rules: Vec<_> = answer
            .extensions()
            .get::<Verdict>()
            .unwrap()
            .findings
            .iter()
            .map(|it| it.rule.clone())
            .collect();
        assert_eq!(rules.first().map(|rule| &**rule), expected, "{user}");
        assert_eq!(answer.status() == 403, expected.is_some());
    }
    let guard = guard().detector(topics(), Action::Block.insecure_skip(Origin::System));
    let (answer, _) =
        ask(guard, asks("Say nothing of the election.", "Which books are new?")).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_detector_on_a_thread_looks_at_the_whole_too() {
    let limit = std::time::Duration::from_secs(20);
    let refuse = palisade::prompt_guard::OnUnavailable::Refuse;
    let guard = guard().blocking_detector(topics(), Action::Block, limit, refuse);
    let (answer, _) = ask(guard, asks("Be brief.", "Tell me a joke.")).await;
    assert_eq!(refusal(&answer), ("content_blocked", 403));
}

#[tokio::test]
async fn an_answer_is_held_to_what_is_denied_only() {
    for (said, expected) in
        [("The sea is wide.", Outcome::Allow), ("The Election is near.", Outcome::Sanitize)]
    {
        let answer = answered(guard().output_detector(topics(), Action::Redact), CHAT, move || {
            let body = json!({"choices": [{"message": {"content": said}}]}).to_string();
            http::Response::builder()
                .header("content-type", "application/json")
                .body(full(body))
                .unwrap()
        })
        .await;
        assert_eq!(
            answer.extensions().get::<AnswerVerdict>().unwrap().0.action,
            expected,
            "{said}"
        );
        assert!(!text(answer).await.contains("Election"));
    }
}

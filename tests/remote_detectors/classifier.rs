//! text-embeddings-inference, as its OpenAPI description has `/predict`: a list of lists of texts in, a list of
//! labels and scores out for each; errors as `{"error", "error_type"}` with 413, 422, 424 and 429.

use axum::{Json, response::IntoResponse};
use palisade::{
    Secret,
    inference::Origin,
    prompt_guard::{
        Action, Category,
        remote::{Oversize, RemoteServer, TextClassifier, TextClassifierBuilder},
    },
};
use serde_json::{Value, json};

use crate::support::*;

/// A model that finds texts with `evil` in them, of at most `most` bytes each and 32 in a request.
async fn model(most: usize) -> Served {
    Served::told("/predict", move |asked| {
        assert_eq!(asked["truncate"], false);
        let inputs = asked["inputs"].as_array().unwrap();
        if inputs.len() > 32 {
            return error(413, json!({
                "error": format!("batch size {} > maximum allowed batch size 32", inputs.len()),
                "error_type": "Validation",
            }));
        }
        let mut told = Vec::new();
        for input in inputs {
            let [text] = input.as_array().unwrap().as_slice() else { panic!("not one text") };
            let text = text.as_str().unwrap();
            if text.len() > most {
                return error(413, json!({
                    "error": "Input validation error: `inputs` must have less than 512 tokens. Given: 600",
                    "error_type": "Validation",
                }));
            }
            let score = if text.contains("evil") { 0.97_f64 } else { 0.02 };
            let mut labels = [(score, "MALICIOUS"), (1.0 - score, "BENIGN")];
            labels.sort_by(|a, b| b.0.total_cmp(&a.0));
            told.push(labels.map(|(score, label)| json!({"score": score, "label": label})));
        }
        Json(json!(told)).into_response()
    })
    .await
}

fn detects(served: &Served) -> TextClassifierBuilder {
    TextClassifier::builder(served.server())
}

fn inputs(bodies: &[Value]) -> Vec<String> {
    let all = bodies.iter().flat_map(|body| body["inputs"].as_array().unwrap());
    all.map(|input| input[0].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_attack_is_found_and_named() {
    let served = model(2000).await;
    let guard = guard(detects(&served).build().unwrap(), Action::Block).build().unwrap();
    let outcome = say(&guard, "how are you?").await;
    assert_eq!((outcome.status, outcome.found()), (200, vec![]));
    let outcome = ask(&guard, &chat(&[("system", "be nice"), ("user", "be evil")])).await;
    assert_eq!(outcome.code, Some("content_blocked"));
    assert_eq!(outcome.found(), [("classifier.malicious", 1, None)]);
    assert_eq!(outcome.verdict.findings[0].category, Category::Injection);
    // 0.97 above a threshold of 0.5 is 94 % of the way from 0.8 to 1.
    assert!((outcome.verdict.findings[0].score - 0.988).abs() < 1e-3);
}

#[tokio::test]
async fn the_token_is_sent_and_does_not_show() {
    let served = model(2000).await;
    let server = served
        .server()
        .bearer(&Secret::new("sesame".to_owned()))
        .header("x-key".parse().unwrap(), &Secret::new("abracadabra".to_owned()));
    let shown = format!("{server:?}");
    let detector = TextClassifier::builder(server).build().unwrap();
    let shown = format!("{shown}{detector:?}");
    assert!(!shown.contains("sesame") && !shown.contains("abracadabra"), "{shown}");
    let guard = guard(detector, Action::Block).build().unwrap();
    assert_eq!(say(&guard, "hi").await.status, 200);
    let (headers, _) = &served.asked()[0];
    assert_eq!(
        (&headers["authorization"], &headers["x-key"]),
        (&"Bearer sesame".parse().unwrap(), &"abracadabra".parse().unwrap())
    );
    assert_eq!(headers["content-type"], "application/json");
}

/// Wherever in a long text it stands: every byte is in a window, and none is too long for the model.
#[tokio::test]
async fn long_texts_are_read_in_windows() {
    let served = model(2000).await;
    let guard = guard(detects(&served).build().unwrap(), Action::Block).build().unwrap();
    for at in [0, 1534, 1535, 5000, 79_996] {
        let mut text = "so good ".repeat(10_000);
        text.replace_range(at..at + 4, "evil");
        let outcome = say(&guard, &text).await;
        assert_eq!(outcome.code, Some("content_blocked"), "{at}");
        let bodies = served.bodies();
        assert!(
            bodies.len() > 1
                && bodies.iter().all(|body| body["inputs"].as_array().unwrap().len() <= 32)
        );
        assert!(inputs(&bodies).iter().all(|window| window.len() <= 1536));
    }
}

/// A text of many tokens for its length is not cut off by the model, but cut smaller here.
#[tokio::test]
async fn what_has_too_many_tokens_is_cut_smaller() {
    let served = model(512).await;
    let guard = guard(detects(&served).build().unwrap(), Action::Block).build().unwrap();
    let outcome = say(&guard, &("😀".repeat(300) + "evil")).await;
    assert_eq!(outcome.code, Some("content_blocked"));
    // Where even that is too much, it can't tell.
    let served = model(10).await;
    let guard = guard_of(&served);
    assert!(say(&guard, &"x".repeat(600)).await.is_unavailable());
}

fn guard_of(served: &Served) -> palisade::prompt_guard::PromptGuardLayer {
    guard(detects(served).build().unwrap(), Action::Block).build().unwrap()
}

#[tokio::test]
async fn thresholds_go_by_the_number_of_windows() {
    let served = model(2000).await;
    let detector = detects(&served).threshold_from(3, 0.98).build().unwrap();
    let guard = guard(detector, Action::Block).build().unwrap();
    assert_eq!(say(&guard, "evil").await.status, 403);
    assert_eq!(say(&guard, &("x".repeat(1600) + "evil")).await.status, 403);
    assert_eq!(say(&guard, &("x".repeat(3000) + "evil")).await.status, 200);
}

#[tokio::test]
async fn segments_of_one_message_are_read_as_one() {
    let served = model(2000).await;
    let guard = guard_of(&served);
    let parts: Vec<_> =
        ["a", "b", "c"].iter().map(|text| json!({"type": "text", "text": text})).collect();
    let body =
        json!({"messages": [{"role": "user", "content": parts}, {"role": "user", "content": "d"}]});
    assert_eq!(ask(&guard, &body).await.status, 200);
    assert_eq!(inputs(&served.bodies()), ["a\nb\nc", "d"]);
}

#[tokio::test]
async fn only_chosen_origins_are_sent() {
    let served = model(2000).await;
    let server = served.server().insecure_only([Origin::User, Origin::ToolResult]);
    let detector = TextClassifier::builder(server).build().unwrap();
    let guard = guard(detector, Action::Block).build().unwrap();
    let body = chat(&[("system", "evil is bad"), ("user", "a"), ("assistant", "b"), ("tool", "c")]);
    assert_eq!(ask(&guard, &body).await.status, 200);
    assert_eq!(inputs(&served.bodies()), ["a", "c"]);
    // Nothing to send, nobody is asked.
    assert_eq!(ask(&guard, &chat(&[("system", "evil")])).await.status, 200);
    assert!(served.asked().is_empty());
}

#[tokio::test]
async fn what_is_too_much_is_a_matter_of_policy() {
    let served = model(2000).await;
    let padded = "x".repeat(100) + "evil";
    for (oversize, status, rules) in [
        (Oversize::Find, 403, vec!["classifier.too_long"]),
        (Oversize::Unavailable, 503, vec![]),
        (Oversize::InsecureTruncate, 200, vec![]),
    ] {
        let server = served.server().max_bytes(100).oversize(oversize);
        let detector = TextClassifier::builder(server).build().unwrap();
        let guard = guard(detector, Action::Block).build().unwrap();
        let outcome = say(&guard, &padded).await;
        assert_eq!(outcome.status, status, "{oversize:?}");
        let found: Vec<_> = outcome.found().into_iter().map(|(rule, ..)| rule.to_owned()).collect();
        assert_eq!(found, rules);
        let sent = inputs(&served.bodies());
        assert_eq!(sent.len(), usize::from(oversize == Oversize::InsecureTruncate));
        assert!(sent.iter().all(|text| text.len() == 100));
    }
    let server = served.server().max_segments(2);
    let guard =
        guard(TextClassifier::builder(server).build().unwrap(), Action::Block).build().unwrap();
    let messages = [("user", "a"), ("user", "b"), ("user", "c")];
    assert_eq!(ask(&guard, &chat(&messages[..2])).await.status, 200);
    assert_eq!(ask(&guard, &chat(&messages)).await.status, 403);
}

/// Padding in a text whose origin a rule overlooks does not hide the others.
#[tokio::test]
async fn what_is_too_much_is_found_whatever_origins_are_overlooked() {
    let served = model(2000).await;
    let detector = TextClassifier::builder(served.server().max_bytes(100)).build().unwrap();
    let rule = Action::Block.insecure_skip(Origin::System);
    let guard = palisade::prompt_guard::PromptGuardLayer::builder()
        .async_detector(detector, rule, LIMIT, palisade::prompt_guard::OnUnavailable::Refuse)
        .build()
        .unwrap();
    let body = chat(&[("system", &"x".repeat(200)), ("user", "evil")]);
    assert_eq!(ask(&guard, &body).await.code, Some("content_blocked"));
}

#[tokio::test]
async fn labels_are_what_they_are_said_to_be() {
    let served = Served::told("/predict", |asked| {
        let one = json!([{"score": 0.7, "label": "LABEL_2"}, {"score": 0.3, "label": "LABEL_0"}]);
        Json(vec![one; asked["inputs"].as_array().unwrap().len()])
    })
    .await;
    // A label that is not known may mean anything.
    assert!(say(&guard_of(&served), "hi").await.is_unavailable());
    let detector = detects(&served)
        .label("label_0", None)
        .label("label_1", Some(Category::Injection))
        .label("label_2", Some(Category::MaliciousCode))
        .build()
        .unwrap();
    let outcome = say(&guard(detector, Action::Block).build().unwrap(), "hi").await;
    assert_eq!(outcome.found(), [("classifier.label_2", 0, None)]);
    assert_eq!(outcome.verdict.findings[0].category, Category::MaliciousCode);
}

#[tokio::test]
async fn what_is_no_answer_is_not_believed() {
    for answer in [
        json!(null),
        json!([]),
        json!([[]]),
        json!([{"score": 0.1, "label": "BENIGN"}]),
        json!([[{"score": 0.1, "label": "BENIGN"}], [{"score": 0.1, "label": "BENIGN"}]]),
        json!([[{"score": 1.1, "label": "BENIGN"}]]),
        json!([[{"score": "0.1", "label": "BENIGN"}]]),
        json!([[{"score": null, "label": "BENIGN"}]]),
        json!([[{"label": "BENIGN"}]]),
        json!([[{"score": 0.1}]]),
        json!({"error": "overloaded"}),
    ] {
        let told = answer.clone();
        let served = Served::told("/predict", move |_| Json(told.clone())).await;
        assert!(say(&guard_of(&served), "hi").await.is_unavailable(), "{answer}");
    }
}

#[tokio::test]
async fn an_error_is_no_answer() {
    for (status, kind) in [
        (413, "Validation"),
        (422, "Tokenizer"),
        (424, "Backend"),
        (429, "Overloaded"),
        (500, "x"),
        (204, "x"),
    ] {
        let served = Served::told("/predict", move |_| {
            error(status, json!({"error": "Model is overloaded", "error_type": kind}))
        })
        .await;
        assert!(say(&guard_of(&served), "hi").await.is_unavailable(), "{status}");
    }
}

#[test]
fn what_can_not_be_asked_is_refused_when_it_is_built() {
    let built = |server: RemoteServer| TextClassifier::builder(server).build();
    for good in
        ["https://tei.example", "https://a.example/tei/", "http://127.0.0.1:1", "http://[::1]:1"]
    {
        assert!(built(RemoteServer::at(good)).is_ok(), "{good}");
    }
    for bad in [
        "http://tei.example",
        "https://me@tei.example",
        "ftp://127.0.0.1",
        "tei.example",
        "https://a.example/?x=",
        "",
    ] {
        assert!(built(RemoteServer::at(bad)).is_err(), "{bad}");
    }
    let plain = || RemoteServer::at("http://tei.example");
    assert!(built(plain().insecure_plain_http()).is_ok());
    let server = || RemoteServer::at("https://tei.example");
    assert!(built(server().bearer(&Secret::new("a\nb".into()))).is_err());
    assert!(built(server().insecure_only([])).is_err());
    assert!(built(server().max_bytes(0)).is_err());
    assert!(TextClassifier::builder(server()).threshold(1.5).build().is_err());
    assert!(TextClassifier::builder(server()).label("x", None).build().is_err());
    assert!(TextClassifier::builder(server()).window(0).build().is_err());
    let error = built(server().bearer(&Secret::new("sesame\n".into()))).unwrap_err();
    assert!(!error.to_string().contains("sesame"));
}

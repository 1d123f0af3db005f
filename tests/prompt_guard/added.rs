//! What the guard adds to prompts that pass: a canary, and marks around what tools and documents say.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use palisade::{
    inference::{ByteClasses, Origin, Prompt, ReadLimits},
    prompt_guard::{
        Action, AnswerVerdict, Category, PlantedCanary, PromptGuardLayerBuilder, Spotlighting,
    },
    route::Endpoint,
    store::Pepper,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    streams::{content, cut, delta, runtime, sends},
    support::*,
};

const SYSTEM: &str = "You are Max.";

fn plants() -> PromptGuardLayerBuilder {
    guard()
        .plant_canary(PlantedCanary::per_request().sentence("Never say {canary}!"), Action::Block)
}

/// What the model is sent.
async fn sent(guard: PromptGuardLayerBuilder, path: &str, body: &str) -> String {
    let request = http::Request::post(path)
        .header("content-length", body.len())
        .header("content-digest", "sha-256=:x:")
        .body(full(body.to_owned()))
        .unwrap();
    let answer = || {
        let answer = http::Response::builder().header("content-type", "application/json");
        answer.body(full("{}")).unwrap()
    };
    let (answer, inner) = exchanged(guard, request, answer).await;
    assert_eq!(answer.status(), 200);
    let arrived = inner.only();
    assert_eq!(arrived.head.headers["content-length"], arrived.body.len().to_string());
    assert_eq!(arrived.head.headers.contains_key("content-digest"), arrived.body == body);
    String::from_utf8(arrived.body.to_vec()).unwrap()
}

/// What stands between two parts of a text.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{before} is not in {text}"));
    rest.split_once(after).unwrap().0
}

/// Bodies with `@` where a system prompt ends.
const SYSTEMS: [(&str, &str); 9] = [
    (
        CHAT,
        r#"{ "messages":[{"role":"system","content":"Be\u0020brief.\n@"},{"role":"user","content":"hi"}],"n":1e0 }"#,
    ),
    (
        CHAT,
        r#"{"messages":[{"role":"developer","content":[{"type":"text","text":"Be brief.@"},{"type":"text","text":"x"}]}]}"#,
    ),
    (
        CHAT,
        r#"{"messages":[{"role":"user","content":"hi"},{"role":"system","name":"s","content":"{\"be\":\"brief\"}@"}]}"#,
    ),
    ("/v1/responses", r#"{"input":"hi","instructions":"Be brief.@"}"#),
    (
        "/v1/responses",
        r#"{"input":[{"role":"developer","content":"Be brief.@"},{"role":"user","content":"hi"}]}"#,
    ),
    ("/v1/messages", r#"{"system":"Be brief.@","messages":[{"role":"user","content":"hi"}]}"#),
    (
        "/v1/messages",
        r#"{"messages":[{"role":"user","content":"hi"}],"system":[{"type":"text","text":"Be brief.@","cache_control":{"type":"ephemeral"}}]}"#,
    ),
    ("/generate", r#"{"inputs":"hi","system_prompt":"Be brief.@"}"#),
    ("/generate", r#"{"messages":[{"role":"system","content":"Be brief.@"}]}"#),
];

#[tokio::test]
async fn a_canary_is_planted_at_the_end_of_the_system_prompt_in_every_format() {
    for (path, body) in SYSTEMS {
        let seen = sent(plants(), path, &body.replace('@', "")).await;
        let token = between(&seen, "Never say ", "!");
        assert_eq!(token.len(), 16, "{seen}");
        assert_eq!(seen, body.replace('@', &format!("\\n\\nNever say {token}!")));
    }
}

#[tokio::test]
async fn without_a_system_prompt_nothing_is_changed() {
    for (path, body) in [
        (CHAT, chat("hi")),
        ("/v1/completions", json!({"prompt": "system: hi"}).to_string()),
        (
            "/generate",
            json!({"inputs": "hi", "template": "[INST]", "chat_template_kwargs": {"system": "x"}})
                .to_string(),
        ),
        ("/v1/embeddings", json!({"input": "hi"}).to_string()),
    ] {
        assert_eq!(sent(plants(), path, &body).await, body);
        assert_eq!(sent(guard().spotlight(Spotlighting::delimit()), path, &body).await, body);
    }
    let body =
        json!({"system": SYSTEM, "messages": [{"role": "user", "content": "hi"}]}).to_string();
    assert_eq!(sent(plants().report_only(), "/v1/messages", &body).await, body);
}

/// A model that says what `says` makes of its prompt.
async fn echoed(
    guard: PromptGuardLayerBuilder,
    stream: bool,
    says: fn(&str) -> String,
) -> (Answer, String) {
    use tower::{Layer, ServiceExt, service_fn};
    let service = guard.build().unwrap().layer(service_fn(
        move |request: http::Request<palisade::body::RequestBody<AnyBody>>| async move {
            let body =
                http_body_util::BodyExt::collect(request.into_body()).await.unwrap().to_bytes();
            let read: Value = serde_json::from_slice(&body).unwrap();
            let said = says(read["messages"][0]["content"].as_str().unwrap());
            let answer = if stream {
                sends(
                    cut(&said, &[3]).iter().map(|piece| delta(0, piece)).collect::<String>(),
                    &[40],
                )()
            } else {
                let body = json!({"choices": [{"message": {"content": said}}]}).to_string();
                http::Response::builder()
                    .header("content-type", "application/json")
                    .body(full(body))
                    .unwrap()
            };
            Ok::<_, std::convert::Infallible>(answer)
        },
    ));
    let body = json!({"messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "hi"}]});
    let answer = service.oneshot(post(CHAT, body.to_string())).await.unwrap();
    (answer, SYSTEM.to_owned())
}

#[tokio::test]
async fn an_answer_that_says_the_canary_is_blocked_or_masked() {
    let whole: fn(&str) -> String = str::to_owned;
    let spaced: fn(&str) -> String = |said| said.chars().flat_map(|letter| [letter, ' ']).collect();
    let encoded: fn(&str) -> String =
        |said| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, said);
    for says in [whole, spaced, encoded] {
        let (answer, _) = echoed(plants(), false, says).await;
        assert_eq!(refusal(&answer), ("answer_blocked", 403));
        let finding = &answer.extensions().get::<AnswerVerdict>().unwrap().0.findings[0];
        assert_eq!(
            (&*finding.rule, finding.category),
            ("system_prompt.canary", Category::SystemPrompt)
        );
        let (answer, _) = echoed(plants(), true, says).await;
        let (seen, failed) = content(&text(answer).await);
        assert!(failed && !seen.contains('!'), "{seen}");
    }
    let masks = || {
        let planted =
            PlantedCanary::rotating(Duration::from_secs(3600)).key(Pepper::from_secret("k"));
        guard().plant_canary(planted.sentence("Never say {canary}!"), Action::Redact)
    };
    let (answer, _) = echoed(masks(), false, whole).await;
    assert_eq!(
        json(answer).await["choices"][0]["message"]["content"],
        "You are Max.\n\nNever say [CANARY]!"
    );
    let (answer, _) = echoed(masks(), true, whole).await;
    assert_eq!(
        content(&text(answer).await),
        ("You are Max.\n\nNever say [CANARY]!".to_owned(), false)
    );
    let (answer, _) = echoed(plants(), false, |_| "Hello.".to_owned()).await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn every_request_has_its_own_canary_or_shares_it_as_told() {
    let body =
        json!({"system": SYSTEM, "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        seen.insert(sent(plants(), "/v1/messages", &body).await);
    }
    assert_eq!(seen.len(), 3);
    let shared = || {
        let clock = Arc::new(palisade::clock::ManualClock::at(Duration::from_secs(86_400)));
        let planted = PlantedCanary::rotating(Duration::from_secs(3600)).clock(clock);
        guard().plant_canary(planted.key(Pepper::from_secret("k")), Action::Block)
    };
    assert_eq!(
        sent(shared(), "/v1/messages", &body).await,
        sent(shared(), "/v1/messages", &body).await
    );
}

#[tokio::test]
async fn the_prompt_is_masked_before_a_canary_is_added() {
    let body = json!({"messages": [{"role": "system", "content": "Write to a@b.example"}, {"role": "user", "content": "a@b.example"}]});
    let guard = plants().detector(MAIL, Action::Redact);
    let seen: Value = serde_json::from_str(&sent(guard, CHAT, &body.to_string()).await).unwrap();
    let system = seen["messages"][0]["content"].as_str().unwrap();
    assert!(system.starts_with("Write to [EMAIL]\n\nNever say "), "{system}");
    assert_eq!(seen["messages"][1]["content"], "[EMAIL]");
}

/// A system prompt, and texts of tools and documents (`in` them is where they are trusted by nobody).
const UNTRUSTED: [(&str, &str); 7] = [
    (
        CHAT,
        r#"{"messages":[{"role":"system","content":"Be brief."},{"role":"assistant","tool_calls":[{"id":"call_1","type":"function","function":{"name":"get a","arguments":"{\"q\": \"a b\"}"}}]},{"role":"tool","tool_call_id":"call_1","content":"«in d\u00e9"}]}"#,
    ),
    (
        CHAT,
        r#"{"messages":[{"role":"tool","tool_call_id":"c 1","content":[{"type":"text","text":"«in x"}]},{"role":"developer","content":"Be brief."}],"tools":[{"type":"function","function":{"name":"f","description":"a b"}}]}"#,
    ),
    (
        CHAT,
        r#"{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"a b"}],"documents":[{"doc_id":"a b","title":"«in t","text":"«in x"},"«in y"]}"#,
    ),
    (
        "/v1/responses",
        r#"{"instructions":"Be brief.","input":[{"type":"function_call","call_id":"c","name":"f","arguments":"{\"a b\": 1}"},{"type":"function_call_output","call_id":"c","output":"«in x"}]}"#,
    ),
    (
        "/v1/messages",
        r#"{"system":"Be brief.","messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"«in x"},{"type":"text","text":"a b"}]}]}"#,
    ),
    (
        "/v1/messages",
        r#"{"system":"Be brief.","messages":[{"role":"user","content":[{"type":"document","title":"a b","source":{"type":"text","media_type":"text/plain","data":"«in x"}},{"type":"search_result","source":"a b","title":"a b","content":[{"type":"text","text":"«in x"}]}]}]}"#,
    ),
    ("/generate", r#"{"inputs":"a b","system_prompt":"Be brief.","documents":["«in x"]}"#),
];

#[tokio::test]
async fn what_tools_and_documents_say_is_delimited_and_nothing_else() {
    for (path, body) in UNTRUSTED {
        let body = body.replace('«', "");
        let seen =
            sent(guard().spotlight(Spotlighting::delimit().sentence("See {mark}.")), path, &body)
                .await;
        let mark = between(&seen, "See ", ".");
        assert_eq!(mark.len(), "untrusted-".len() + 16);
        let mut back = seen.replace(&format!("\\n\\nSee {mark}."), "");
        assert!(back.contains(&format!("\"<{mark}>\\nin ")), "{back}");
        for part in [format!("<{mark}>\\n"), format!("\\n</{mark}>")] {
            back = back.replace(&part, "");
        }
        assert_eq!(back, body);
        assert_eq!(
            seen.matches(&format!("<{mark}>\\nin ")).count(),
            UNTRUSTED
                .iter()
                .find(|(_, other)| other.replace('«', "") == body)
                .unwrap()
                .1
                .matches('«')
                .count()
        );
    }
}

#[tokio::test]
async fn what_tools_and_documents_say_is_datamarked_and_nothing_else() {
    for (path, body) in UNTRUSTED {
        let plain = body.replace('«', "");
        let seen =
            sent(guard().spotlight(Spotlighting::datamark().sentence("See {mark}.")), path, &plain)
                .await;
        let mark = between(&seen, "See ", ".").to_owned();
        assert!(("\u{e000}".."\u{f900}").contains(&&*mark));
        let expected = body
            .replace("«in ", &format!("{mark}in{mark}"))
            .replace("\\u00e9", "é")
            .replace("Be brief.", &format!("Be brief.\\n\\nSee {mark}."));
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn a_tools_json_stays_json_when_it_is_datamarked() {
    let result = json!({"subject line": "Read this\nnow", "n": [1.50, null], "to": []}).to_string();
    let body =
        json!({"messages": [{"role": "tool", "tool_call_id": "c", "content": result}]}).to_string();
    let seen: Value =
        serde_json::from_str(&sent(guard().spotlight(Spotlighting::datamark()), CHAT, &body).await)
            .unwrap();
    let seen = seen["messages"][0]["content"].as_str().unwrap();
    let read: Value = serde_json::from_str(seen).unwrap();
    let subject = read["subject line"].as_str().unwrap();
    assert!(subject.starts_with(|first| ('\u{e000}'..'\u{f900}').contains(&first)), "{subject}");
    assert!(!subject.contains(' ') && read["n"] == json!([1.5, null]));
}

#[tokio::test]
async fn detectors_see_what_came_and_the_answer_to_it_is_scanned() {
    let body = json!({"messages": [{"role": "tool", "content": "so evil a thing"}]}).to_string();
    let spotlit = || guard().spotlight(Spotlighting::datamark());
    let (answer, _) = ask(spotlit().detector(EVIL, Action::Block), post(CHAT, body.clone())).await;
    assert_eq!(refusal(&answer), ("content_blocked", 403));
    let body = body.replace("evil", "a@b.example");
    let seen = sent(spotlit().detector(MAIL, Action::Redact), CHAT, &body).await;
    assert!(seen.contains("[EMAIL]") && !seen.contains("a@b"), "{seen}");
}

#[tokio::test]
async fn nobody_can_write_the_mark() {
    // All characters that could be a mark, and delimiters of earlier requests.
    let all: String = ('\u{e000}'..='\u{f8ff}').collect();
    let body = json!({"messages": [{"role": "system", "content": SYSTEM}, {"role": "tool", "content": format!("a{all} b")}]}).to_string();
    let seen: Value = serde_json::from_str(
        &sent(guard().spotlight(Spotlighting::datamark().sentence("{mark}")), CHAT, &body).await,
    )
    .unwrap();
    let mark = seen["messages"][0]["content"].as_str().unwrap().chars().next_back().unwrap();
    let tool = seen["messages"][1]["content"].as_str().unwrap();
    assert_eq!(tool.matches(mark).count(), 2);
    assert!(tool.ends_with(&format!("{mark}b")));
    let mut marks = BTreeSet::new();
    for _ in 0..3 {
        let seen =
            sent(guard().spotlight(Spotlighting::delimit().sentence("See {mark}.")), CHAT, &body)
                .await;
        marks.insert(between(&seen, "See ", ".").to_owned());
    }
    assert_eq!(marks.len(), 3);
}

#[test]
fn a_sentence_without_its_place_is_an_error() {
    assert!(guard().spotlight(Spotlighting::delimit().sentence("x")).build().is_err());
    assert!(
        guard()
            .plant_canary(PlantedCanary::per_request().sentence("x"), Action::Block)
            .build()
            .is_err()
    );
}

/// What the limiter is told that a prompt needs, and what the model is sent takes.
async fn reserved(guard: PromptGuardLayerBuilder, body: &str) -> (u64, u64) {
    let kept = Arc::new(Kept::default());
    let mut request = post(CHAT, body.to_owned());
    kept.on(&mut request);
    let (_, inner) = ask(guard, request).await;
    let refined = kept.refined.lock().unwrap().pop().unwrap();
    let sent = inner.only().body;
    let sent = Prompt::read(Endpoint::OpenAiChat, sent, &ReadLimits::default()).unwrap();
    (refined.input, sent.estimate(&ByteClasses))
}

#[tokio::test]
async fn what_is_added_is_reserved_for() {
    let words = "the lamp is lit at dusk and put out at dawn ".repeat(20);
    let body = json!({"messages": [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "what does it say?"},
        {"role": "assistant", "tool_calls": [{"id": "t", "type": "function", "function": {"name": "read", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "t", "content": words},
    ]});
    let body = body.to_string();
    let (bare, same) = reserved(guard(), &body).await;
    assert_eq!(bare, same);
    for builder in [
        plants(),
        guard().spotlight(Spotlighting::delimit()),
        guard().spotlight(Spotlighting::datamark()),
        plants().spotlight(Spotlighting::datamark()),
    ] {
        let (told, taken) = reserved(builder, &body).await;
        // Another mark is drawn for the model, which may have more or fewer digits, and what is joined may be a token less.
        assert!(told >= bare + 8 && told.abs_diff(taken) <= 24 + taken / 50, "{told}, {taken}");
    }
    let (told, taken) = reserved(plants().report_only(), &body).await;
    assert_eq!((told, taken), (bare, bare));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_tools_say_the_body_stays_json_with_the_same_segments(texts in prop::collection::vec("\\PC{0,40}", 1..4), json in any::<bool>()) {
        let tool = |text: &String| {
            let text = if json { json!({"a b": text, "c": [text]}).to_string() } else { text.clone() };
            json!({"role": "tool", "content": text})
        };
        let mut messages = vec![json!({"role": "system", "content": texts[0]})];
        messages.extend(texts.iter().map(tool));
        let body = json!({"messages": messages}).to_string();
        for spotlighting in [Spotlighting::delimit(), Spotlighting::datamark()] {
            let guard = plants().spotlight(spotlighting);
            let seen = runtime().block_on(sent(guard, CHAT, &body));
            let read = |body: String| Prompt::read(Endpoint::OpenAiChat, body.into(), &ReadLimits::default()).unwrap();
            let (before, after) = (read(body.clone()), read(seen));
            let origins = |prompt: &Prompt| prompt.segments().map(|segment| segment.origin).collect::<Vec<Origin>>();
            prop_assert_eq!(origins(&before), origins(&after));
            for (before, after) in before.segments().zip(after.segments()).skip(1) {
                let is_json = |text: &str| serde_json::from_str::<Value>(text).is_ok_and(|read| read.is_object());
                let inside = after.text.split_once(">\n").and_then(|(_, rest)| rest.rsplit_once("\n</"));
                let inside = inside.map_or(after.text, |(inside, _)| inside);
                prop_assert!(!is_json(before.text) || is_json(inside), "{}", after.text);
            }
        }
    }
}

//! Answers in lines of JSON, and events that say all of the text so far: masked and cut as any stream, alike however they
//! are cut.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use palisade::prompt_guard::{Action, PromptGuardLayerBuilder};
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::*;

const LINES: &str = "application/x-ndjson";
const EVENTS: &str = "text/event-stream";

fn masks() -> PromptGuardLayerBuilder {
    guard()
        .output_detector(EVIL, Action::Block)
        .output_detector(MAIL, Action::Redact)
        .hold_back(64, Duration::from_secs(60))
}

/// What a guarded server sends on, in pieces of that size.
async fn sent(
    guard: PromptGuardLayerBuilder,
    path: &str,
    content_type: &'static str,
    stream: &str,
    size: usize,
) -> String {
    let stream = Bytes::copy_from_slice(stream.as_bytes());
    let answer = answered(guard, path, move || {
        let pieces =
            stream.chunks(size.max(1)).map(|piece| Ok(Frame::data(stream.slice_ref(piece))));
        let body = frames(pieces.collect());
        Response::builder().header("content-type", content_type).body(body).unwrap()
    });
    text(answer.await).await
}

/// Ollama's `/api/generate`: a line for each token, then one that says that it is done.
fn generated(tokens: &[&str]) -> String {
    let line = |token: &&str| {
        let line = json!({
            "model": "m", "created_at": "2026-01-02T03:04:05.678Z", "response": token, "done": false,
        });
        format!("{line}\n")
    };
    let last =
        json!({"model": "m", "response": "", "done": true, "done_reason": "stop", "eval_count": 9});
    tokens.iter().map(line).collect::<String>() + &format!("{last}\n")
}

/// The JSON of the lines or events, without `[DONE]`.
fn values(stream: &str) -> Vec<Value> {
    let data = stream.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    let data = data.filter(|line| !line.is_empty() && *line != "[DONE]");
    data.map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn said(stream: &str, name: &str) -> String {
    values(stream).iter().filter_map(|value| value[name].as_str()).collect()
}

#[tokio::test]
async fn lines_without_a_finding_pass_byte_for_byte() {
    for stream in [
        generated(&["The", " sky", " is", " blue"]),
        "{\"response\":\"a\"}\r\n\n \n{\"big\":1e400}\nplain words\n[\"x\"]".to_owned(),
        String::new(),
    ] {
        for size in [1, 7, 4096] {
            let passed = sent(masks(), "/generate", LINES, &stream, size).await;
            assert_eq!(passed, stream, "{size}");
        }
    }
}

#[tokio::test]
async fn lines_are_masked_and_cut() {
    let stream = generated(&["write to a@", "b.exa", "mple", " soon"]);
    for (path, content_type) in [("/generate", LINES), ("/api/generate", "application/jsonl")] {
        let passed = sent(masks(), path, content_type, &stream, 11).await;
        assert_eq!(said(&passed, "response"), "write to [EMAIL] soon");
        assert_eq!(values(&passed).len(), 5);
    }
    // A chat, and a tool's arguments as an object.
    let chat = [
        json!({"message": {"role": "assistant", "content": "it is a@b.ex"}, "done": false}),
        json!({"message": {"role": "assistant", "content": "ample",
            "tool_calls": [{"function": {"name": "f", "arguments": {"to": "a@b.example"}}}]}, "done": false}),
        json!({"message": {"role": "assistant", "content": ""}, "done": true}),
    ];
    let chat: String = chat.iter().map(|line| format!("{line}\n")).collect();
    let passed = values(&sent(masks(), CHAT, LINES, &chat, 5).await);
    let content: String =
        passed.iter().filter_map(|line| line["message"]["content"].as_str()).collect();
    assert_eq!(content, "it is [EMAIL]");
    let call = passed[1].pointer("/message/tool_calls/0/function/arguments/to");
    assert_eq!(call, Some(&json!("[EMAIL]")));

    let stream = generated(&["so ", "e", "vi", "l it is"]);
    let passed = sent(masks(), "/generate", LINES, &stream, 3).await;
    assert_eq!(said(&passed, "response"), "so ");
    let last = values(&passed).pop().unwrap();
    assert!(last["error"].is_string() && passed.ends_with('\n'), "{passed}");
}

#[tokio::test]
async fn a_line_that_is_too_long_ends_the_answer() {
    let stream = format!("{{\"response\":\"{}\"}}\n", "x".repeat(200));
    let passed = sent(masks().max_answer(100), "/generate", LINES, &stream, 9).await;
    assert_eq!(values(&passed).len(), 1);
    assert!(passed.contains("too large"), "{passed}");
}

/// SGLang's events for these tokens: each says all of them so far, or its own alone.
fn sglang(tokens: &[&str], incremental: bool) -> String {
    let mut text = String::new();
    let mut stream = String::new();
    for (number, token) in tokens.iter().enumerate() {
        text.push_str(token);
        let is_last = number + 1 == tokens.len();
        let event = json!({
            "text": if incremental { token } else { text.as_str() },
            "output_ids": [number],
            "meta_info": {
                "id": "x", "weight_version": "default", "completion_tokens": number + 1,
                "finish_reason": if is_last { json!({"type": "stop"}) } else { Value::Null },
            },
        });
        stream.push_str(&format!("data: {event}\n\n"));
    }
    stream + "data: [DONE]\n\n"
}

/// What each event says.
fn texts(stream: &str) -> Vec<String> {
    let texts =
        values(stream).into_iter().filter_map(|value| Some(value["text"].as_str()?.to_owned()));
    texts.collect()
}

#[tokio::test]
async fn events_that_say_all_so_far_are_one_text() {
    let clean = ["The", " sky", " is", " blue", "."];
    for incremental in [false, true] {
        let stream = sglang(&clean, incremental);
        assert_eq!(sent(masks(), "/generate", EVENTS, &stream, 13).await, stream);
    }
    let mail = ["so", " a@", "b.exa", "mple", " and", " a@b.example", "!"];
    let passed = texts(&sent(masks(), "/generate", EVENTS, &sglang(&mail, false), 13).await);
    assert_eq!(
        passed,
        [
            "so",
            "so [EMAIL]",
            "so [EMAIL]",
            "so [EMAIL]",
            "so [EMAIL] and",
            "so [EMAIL] and [EMAIL]",
            "so [EMAIL] and [EMAIL]!",
        ]
    );
    let passed = texts(&sent(masks(), "/generate", EVENTS, &sglang(&mail, true), 13).await);
    assert_eq!(passed.concat(), "so [EMAIL] and [EMAIL]!");
    for incremental in [false, true] {
        let evil = sglang(&["so", " e", "vi", "l", " it is"], incremental);
        let passed = sent(masks(), "/generate", EVENTS, &evil, 13).await;
        assert!(!passed.contains(" e\"") && !passed.contains("so e"), "{passed}");
        assert!(values(&passed).pop().unwrap()["error"].is_string(), "{passed}");
    }
}

#[tokio::test]
async fn events_that_repeat_each_other_and_then_do_not_are_parts() {
    // "ha", "ha", "haha" may be a text that grows; "!" tells that it is none.
    let stream = sglang(&["ha", "ha", "haha", "!"], true);
    assert_eq!(sent(masks(), "/generate", EVENTS, &stream, 13).await, stream);
    let stream = sglang(&["a@b.", "a@b.", "example"], true);
    let passed = texts(&sent(masks(), "/generate", EVENTS, &stream, 13).await);
    assert_eq!(passed.concat(), "a@b.[EMAIL]");
    // The end of a text that grows is taken back.
    let mut stream = sglang(&["one", " two", "##"], false);
    stream = stream
        .replace("data: [DONE]", "data: {\"text\":\"one two\",\"meta_info\":{}}\n\ndata: [DONE]");
    assert_eq!(sent(masks(), "/generate", EVENTS, &stream, 13).await, stream);
}

#[tokio::test]
async fn values_are_put_back_into_lines_and_texts_that_grow() {
    for (content_type, all) in [(LINES, false), (EVENTS, true)] {
        let layer = guard().detector(MAIL, Action::Pseudonymize).build().unwrap();
        // The model says what it was told, in pieces of three bytes.
        let service = layer.layer(service_fn(
            move |request: http::Request<palisade::body::RequestBody<AnyBody>>| async move {
                let told = http_body_util::BodyExt::collect(request.into_body()).await.unwrap();
                let told: Value = serde_json::from_slice(&told.to_bytes()).unwrap();
                let told = told["inputs"].as_str().unwrap().to_owned();
                assert!(!told.contains("a@b.example"));
                let tokens: Vec<&str> = told
                    .as_bytes()
                    .chunks(3)
                    .map(|token| std::str::from_utf8(token).unwrap())
                    .collect();
                let body = if all { sglang(&tokens, false) } else { generated(&tokens) };
                let answer = Response::builder().header("content-type", content_type);
                Ok::<_, std::convert::Infallible>(answer.body(full(body)).unwrap())
            },
        ));
        let request = post("/generate", r#"{"inputs":"I am a@b.example, am I?"}"#);
        let passed = text(service.oneshot(request).await.unwrap()).await;
        let restored = if all { texts(&passed).pop().unwrap() } else { said(&passed, "response") };
        assert_eq!(restored, "I am a@b.example, am I?");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However an answer is cut, into tokens or into frames, the same text goes on, and none of what is masked or blocks.
    #[test]
    fn any_cut_gives_the_same_text(
        text in prop::collection::vec(
            prop::sample::select(vec!["a@b.example", "evil", " so", "\n", "é", "\"", "long words of text "]),
            1..14,
        ),
        cuts in prop::collection::vec(1usize..9, 1..40),
        size in 1usize..60,
    ) {
        let text = text.concat();
        let mut tokens = Vec::new();
        let (mut rest, mut cuts) = (text.as_str(), cuts.iter().cycle());
        while !rest.is_empty() {
            let mut cut = (*cuts.next().unwrap()).min(rest.len());
            while !rest.is_char_boundary(cut) {
                cut += 1;
            }
            let (token, after) = rest.split_at(cut);
            tokens.push(token);
            rest = after;
        }
        let clean = text.split("evil").next().unwrap().replace("a@b.example", "[EMAIL]");
        let blocked = text.contains("evil");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for (content_type, stream, all) in [
                (LINES, generated(&tokens), false),
                (EVENTS, sglang(&tokens, false), true),
                (EVENTS, sglang(&tokens, true), false),
            ] {
                let passed = sent(masks(), "/generate", content_type, &stream, size).await;
                let whole = sent(masks(), "/generate", content_type, &stream, stream.len()).await;
                assert_eq!(passed, whole, "{content_type}");
                let told = if content_type == LINES { said(&passed, "response") } else { texts(&passed).concat() };
                assert!(!told.contains("evil") && !told.contains("a@b.example"), "{told}");
                let told = if all { texts(&passed).pop().unwrap_or_default() } else { told };
                assert_eq!(told, clean, "{content_type} {all} {passed}");
                assert_eq!(passed.contains("\"error\""), blocked, "{passed}");
            }
        });
    }
}

#[tokio::test]
async fn a_long_text_that_is_said_again_is_held_as_well() {
    let mut tokens = vec!["some more words "; 2_000];
    tokens.extend([" e", "vi", "l"]);
    let mut held = sglang(&tokens, false);
    // The end of the stream alone: 32 kB, said in each event.
    let start = held.match_indices("data: ").nth(1_900).unwrap().0;
    held.drain(..start);
    let passed = sent(masks(), "/generate", EVENTS, &held, 1 << 16).await;
    let last = texts(&passed).pop().unwrap();
    assert!(!last.ends_with('e') && !last.contains("evi"), "{}", &last[last.len() - 20..]);
    assert!(values(&passed).pop().unwrap()["error"].is_string());
}

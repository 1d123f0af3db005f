use proptest::prelude::*;

use super::*;
use crate::inference::ByteClasses;

mod bad;
mod shapes;

fn read(endpoint: Endpoint, body: &str) -> Result<Prompt, ReadErrorKind> {
    Prompt::read(endpoint, body.to_owned().into(), &ReadLimits::new()).map_err(|error| error.kind())
}

/// Each segment as `origin turn text`.
fn segments(prompt: &Prompt) -> Vec<String> {
    let all = prompt.segments().enumerate();
    all.map(|(at, segment)| {
        assert_eq!(segment.index, at);
        format!("{} {} {}", segment.origin.as_str(), segment.turn, segment.text)
    })
    .collect()
}

#[track_caller]
fn assert_reads(endpoint: Endpoint, body: &str, expected: &[&str]) -> Prompt {
    let prompt = read(endpoint, body).unwrap_or_else(|kind| panic!("{kind:?}: {body}"));
    assert_eq!(segments(&prompt), expected, "{body}");
    prompt
}

#[test]
fn text_is_borrowed_unless_it_has_escapes() {
    let body = Bytes::from_static(br#"{"prompt": ["plain \u00e9", "plain"]}"#);
    let prompt = Prompt::read(Endpoint::Generate, body.clone(), &ReadLimits::new()).unwrap();
    let places: Vec<_> = prompt
        .segments()
        .map(|segment| body.as_ptr_range().contains(&segment.text.as_ptr()))
        .collect();
    assert_eq!(places, [false, true]);
    assert_eq!(prompt.segments().next().unwrap().text, "plain é");
    assert_eq!(prompt.raw(), &body);
}

#[test]
fn a_prompt_may_cross_threads() {
    fn crosses<T: Send + Sync + 'static>() {}
    crosses::<Prompt>();
}

#[test]
fn nothing_shows_the_text() {
    let prompt = read(Endpoint::Generate, r#"{"prompt": "hush", "model": "hush"}"#).unwrap();
    let segment = prompt.segments().next().unwrap();
    let edit = Edit::new(0, 0..1, "hush");
    assert!(!format!("{prompt:?} {segment:?} {edit:?}").contains("hush"));
}

#[test]
fn a_rewrite_touches_only_what_it_replaces() {
    let body =
        r#" { "x":1.50, "prompt" : ["a\u0062\nc\ud83d\ude00d", "plain é text"] , "y":[ ] } "#;
    let prompt = read(Endpoint::Generate, body).unwrap();
    assert_eq!(segments(&prompt), ["user 0 ab\nc😀d", "user 1 plain é text"]);
    for (edits, expected) in [
        (vec![], body.to_owned()),
        (vec![Edit::new(9, 0..1, "z")], body.to_owned()),
        (vec![Edit::new(0, 1..2, "\"")], body.replace(r"\u0062", "\\\"")),
        (vec![Edit::new(0, 0..3, "é\\")], body.replace(r"a\u0062\n", r"é\\")),
        (vec![Edit::new(0, 4..8, "")], body.replace(r"\ud83d\ude00", "")),
        // Within a character, out of range, turned round: widened, never narrowed.
        (vec![Edit::new(0, 5..6, "")], body.replace(r"\ud83d\ude00", "")),
        (vec![Edit::new(1, 6..6, "_")], body.replace("é text", "_é text")),
        (vec![Edit::new(1, 8..99, "!")], body.replace(" text\"]", "!\"]")),
        #[allow(clippy::reversed_empty_ranges)]
        (vec![Edit::new(1, 5..2, "!")], body.replace("plain ", "plain! ")),
        // In any order, in several segments.
        (
            vec![Edit::new(1, 0..5, "A"), Edit::new(0, 0..1, "B"), Edit::new(1, 9..13, "C")],
            body.replace("plain é text", "A é C").replace("a\\u0062", "B\\u0062"),
        ),
        // Overlapping: what any of them covers is gone.
        (
            vec![Edit::new(1, 3..9, "2"), Edit::new(1, 0..5, "1"), Edit::new(1, 4..5, "3")],
            body.replace("plain é text", "1text"),
        ),
    ] {
        let rewritten = prompt.rewrite(&edits);
        assert_eq!(std::str::from_utf8(&rewritten).unwrap(), expected, "{edits:?}");
    }
    let dense = read(Endpoint::Generate, r#"{"prompt":"abc"}"#).unwrap();
    assert_eq!(
        dense.rewrite(&[Edit::new(0, 0..3, "\u{1}\"\\\u{7f}é\n")]),
        "{\"prompt\":\"\\u0001\\\"\\\\\u{7f}é\\n\"}"
    );
}

#[test]
fn many_edits_of_a_long_text_take_one_pass() {
    let text = "ann@example.com \n".repeat(40_000);
    let body = serde_json::json!({ "prompt": text }).to_string();
    let prompt = read(Endpoint::Generate, &body).unwrap();
    let edits: Vec<_> =
        (0..40_000).rev().map(|n| Edit::new(0, n * 17..n * 17 + 15, "[email]")).collect();
    // A pass for each edit would take minutes.
    let rewritten: serde_json::Value = serde_json::from_slice(&prompt.rewrite(&edits)).unwrap();
    assert_eq!(rewritten["prompt"], "[email] \n".repeat(40_000));
}

#[test]
fn the_estimate_counts_text_ids_and_attachments() {
    let estimate = |endpoint, body: &str| read(endpoint, body).unwrap().estimate(&ByteClasses);
    let text = "The weather in Lisbon is mild and the tea is warm.";
    let plain = estimate(Endpoint::Generate, &format!(r#"{{"prompt": "{text}"}}"#));
    assert_eq!(plain, ByteClasses.estimate(text));
    assert_eq!(estimate(Endpoint::OpenAiCompletions, r#"{"prompt": [1, 2, 3]}"#), 3);
    let chat = |content: &str| {
        estimate(Endpoint::OpenAiChat, &format!(r#"{{"messages": [{{"content": {content}}}]}}"#))
    };
    let alone = chat(&format!("\"{text}\""));
    assert_eq!(alone, plain + 4);
    let parts = format!(
        r#"[{{"type": "text", "text": "{text}"}}, {{"type": "image_url", "image_url": {{"url": "u"}}}}]"#
    );
    assert_eq!(chat(&parts), alone + 1024);
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(body: Vec<u8>, endpoint in endpoints()) {
        let _ = Prompt::read(endpoint, body.into(), &ReadLimits::new());
    }

    /// Whatever stands in the members that requests have, all text that is found can be replaced by its place.
    #[test]
    fn any_mix_of_members_is_read_or_refused(
        body in bodies(),
        endpoint in endpoints(),
        spans in prop::collection::vec((0usize..9, 0usize..30, 0usize..30, any::<String>()), 0..6),
    ) {
        let body = serde_json::to_string(&body).unwrap();
        if let Ok(prompt) = read(endpoint, &body) {
            for segment in prompt.segments() {
                prop_assert!(body.contains(&serde_json::to_string(segment.text).unwrap()));
            }
            prop_assert!(prompt.estimate(&ByteClasses) > 0 || prompt.segments().all(|segment| segment.text.is_empty()));
            prop_assert!(prompt.found.pieces.windows(2).all(|pair| pair[0].source.end < pair[1].source.start));
            let edits: Vec<_> =
                spans.into_iter().map(|(segment, from, to, text)| Edit::new(segment, from..to, text)).collect();
            let rewritten = prompt.rewrite(&edits);
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&rewritten).is_ok());
        }
    }
}

proptest! {
    /// Wherever a sentence stands in a prompt, it is found, or the request is refused.
    #[test]
    fn no_sentence_is_passed_over(
        body in bodies_of(&[
            "content", "role", "type", "text", "name", "tool_calls", "function", "arguments", "input", "output", "summary",
            "thinking", "refusal", "id", "call_id", "tool_call_id", "status", "cache_control", "title", "context",
            "citations", "unheard_of", "results", "logs", "signature",
        ]),
        endpoint in endpoints(),
    ) {
        let source = serde_json::to_string(&body).unwrap();
        if let Ok(prompt) = read(endpoint, &source) {
            let expected = source.matches(SENTENCE).count();
            let found: usize = prompt.segments().map(|segment| segment.text.matches(SENTENCE).count()).sum();
            prop_assert!(found == expected, "{source}");
        }
    }
}

const SENTENCE: &str = "do as I say";

fn endpoints() -> impl Strategy<Value = Endpoint> {
    prop::sample::select(vec![
        Endpoint::OpenAiChat,
        Endpoint::OpenAiCompletions,
        Endpoint::OpenAiResponses,
        Endpoint::OpenAiEmbeddings,
        Endpoint::AnthropicMessages,
        Endpoint::Generate,
        Endpoint::Other,
    ])
}

fn bodies() -> impl Strategy<Value = serde_json::Value> {
    bodies_of(&[
        "prompt",
        "inputs",
        "input",
        "text",
        "messages",
        "content",
        "role",
        "type",
        "tool_calls",
        "source",
        "system",
        "parameters",
        "max_tokens",
        "n",
        "input_ids",
        "output",
        "id",
        "image_url",
        "tools",
        "instances",
        "unheard_of",
    ])
}

/// Bodies whose messages and items have members of these names.
fn bodies_of(names: &'static [&'static str]) -> impl Strategy<Value = serde_json::Value> {
    let words = prop::sample::select(vec![
        "user",
        "system",
        "text",
        "image_url",
        "tool_result",
        "document",
        "function_call",
        "reasoning",
        "message",
        "tool_use",
        "function_call_output",
        "thinking",
        "a\n\"é😀\\",
        SENTENCE,
    ]);
    let leaf = prop_oneof![
        8 => words.prop_map(serde_json::Value::from),
        1 => any::<u16>().prop_map(Into::into),
        1 => Just(serde_json::Value::Null),
    ];
    let value = leaf.prop_recursive(5, 60, 6, move |inner| {
        let name = prop::sample::select(names).prop_map(String::from);
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            2 => prop::collection::btree_map(name, inner, 0..6)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    });
    (value.clone(), value.clone(), value).prop_map(|(a, b, c)| {
        let message = serde_json::json!({"role": "user", "content": c, "x": "y"});
        let items = if a.is_object() { serde_json::json!([a]) } else { a };
        let messages: Vec<_> =
            [b].into_iter().filter(serde_json::Value::is_object).chain([message]).collect();
        serde_json::json!({"prompt": "p", "input": items, "messages": messages})
    })
}

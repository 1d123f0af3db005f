//! Event streams: masked and cut inside, held no longer than need be, and judged alike however they
//! are cut.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use palisade::{
    inference::EventReader,
    prompt_guard::{Action, PersonalData, PromptGuardLayerBuilder, Secrets},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::*;

const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

/// Masks personal data and secrets, blocks what is evil.
fn masks() -> PromptGuardLayerBuilder {
    guard()
        .output_detector(personal_data(), Action::Redact.at(0.5))
        .output_detector(secrets(), Action::Redact)
        .output_detector(EVIL, Action::Block)
        .hold_back(64, Duration::from_secs(60))
}

/// Dear to build, so that each is built once.
fn secrets() -> Arc<Secrets> {
    static SECRETS: OnceLock<Arc<Secrets>> = OnceLock::new();
    Arc::clone(SECRETS.get_or_init(|| Arc::new(Secrets::builtin().unwrap())))
}

fn personal_data() -> Arc<PersonalData> {
    static DATA: OnceLock<Arc<PersonalData>> = OnceLock::new();
    Arc::clone(DATA.get_or_init(|| Arc::new(PersonalData::builder().build().unwrap())))
}

fn event(data: &Value) -> String {
    match data.get("type").and_then(Value::as_str) {
        Some(name) => format!("event: {name}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
}

pub(crate) fn delta(choice: u32, text: &str) -> String {
    event(&json!({"choices": [{"index": choice, "delta": {"content": text}}]}))
}

pub(crate) fn arguments(call: u32, text: &str) -> String {
    let call = json!({"index": call, "function": {"arguments": text}});
    event(&json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}))
}

/// What a guarded server sends on, in pieces of these sizes in turn.
async fn sent(
    guard: PromptGuardLayerBuilder,
    path: &str,
    stream: impl Into<Bytes>,
    sizes: &[usize],
) -> String {
    let answer = answered(guard, path, sends(stream, sizes)).await;
    text(answer).await
}

/// A service that sends this, in pieces of these sizes in turn.
pub(crate) fn sends(
    stream: impl Into<Bytes>,
    sizes: &[usize],
) -> impl Fn() -> http::Response<AnyBody> + Clone + Send + 'static {
    let (stream, sizes) = (stream.into(), sizes.to_vec());
    move || {
        let (mut rest, mut sizes) = (stream.clone(), sizes.iter().cycle());
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let size = sizes.next().map_or(rest.len(), |size| (*size).clamp(1, rest.len()));
            pieces.push(Ok(Frame::data(rest.split_to(size))));
        }
        let body = frames(pieces);
        http::Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
    }
}

/// The data of the events, and whether an error ended them.
fn events(stream: &str) -> (Vec<Value>, bool) {
    let (mut reader, mut events) = (EventReader::new(), Vec::new());
    reader.push(stream.as_bytes(), |event| {
        events.extend(event.data().and_then(|data| serde_json::from_str(data).ok()));
    });
    let failed = events.pop_if(|event: &mut Value| event.get("error").is_some()).is_some();
    (events, failed)
}

/// The texts that stand in these places, by choice, and whether an error ended them.
pub(crate) fn said(stream: &str, places: &[&str]) -> (BTreeMap<u64, String>, bool) {
    let (events, failed) = events(stream);
    let mut said = BTreeMap::<u64, String>::new();
    for event in &events {
        for choice in event["choices"].as_array().into_iter().flatten() {
            let texts = places.iter().filter_map(|place| choice.pointer(place)?.as_str());
            said.entry(choice["index"].as_u64().unwrap()).or_default().extend(texts);
        }
    }
    said.retain(|_, text| !text.is_empty());
    (said, failed)
}

pub(crate) fn content(stream: &str) -> (String, bool) {
    let (mut said, failed) = said(stream, &["/delta/content"]);
    (said.remove(&0).unwrap_or_default(), failed)
}

/// Cut after these many characters, in turn.
pub(crate) fn cut(text: &str, sizes: &[usize]) -> Vec<String> {
    let mut rest: Vec<char> = text.chars().collect();
    let mut pieces = Vec::new();
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        pieces.push(rest.drain(..(*size).clamp(1, rest.len())).collect());
    }
    pieces
}

async fn read(answer: Answer) -> Value {
    serde_json::from_str(&text(answer).await).unwrap()
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "ann@example.org",
        "and",
        "grüße",
        "我的卡号是",
        "4111 1111 1111 1111",
        "12",
        "evil",
        "so\n",
        "\u{1f600}",
        "DE89 3704 0044 0532 0130 00",
        "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",
        "\"a\\b\"",
        "the quick brown fox",
        "jumps over the lazy dog",
        "  ",
    ]);
    prop::collection::vec(word, 1..30).prop_map(|words| words.join(" "))
}

pub(crate) fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1usize..4, 1usize..40, 1usize..400], 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_text_and_verdict_however_a_stream_is_cut(
        text in words(), deltas in sizes(), bytes in sizes(),
    ) {
        let runtime = runtime();
        let stream: String = cut(&text, &deltas).iter().map(|piece| delta(0, piece)).collect();
        let seen = runtime.block_on(sent(masks(), CHAT, stream, &bytes));
        let whole = runtime.block_on(sent(masks(), CHAT, delta(0, &text), &[usize::MAX]));
        prop_assert_eq!(content(&seen), content(&whole));
        // And the same as of an answer in one piece, or as much of it as stands before what blocks.
        let (said, failed) = content(&seen);
        let answer = runtime.block_on(async {
            let body = json!({"choices": [{"index": 0, "message": {"content": text}}]}).to_string();
            answered(masks(), CHAT, move || {
                let body = full(body.clone());
                http::Response::builder().header("content-type", "application/json").body(body).unwrap()
            }).await
        });
        prop_assert_eq!(answer.status() == 403, failed);
        if !failed {
            let answer = runtime.block_on(read(answer));
            prop_assert_eq!(&answer["choices"][0]["message"]["content"], &json!(said));
        }
    }

    #[test]
    fn what_a_tool_is_called_with_stays_json(
        values in prop::collection::vec(prop_oneof![
            words().prop_map(Value::from),
            Just(json!({"to": ["ann@example.org", 7, true, null]})),
        ], 1..6),
        deltas in sizes(), bytes in sizes(),
    ) {
        let text = json!({"card": 4_111_111_111_111_111_u64, "values": values}).to_string().replace('ü', "\\u00fc");
        let runtime = runtime();
        let stream: String = cut(&text, &deltas).iter().map(|piece| arguments(0, piece)).collect();
        let seen = runtime.block_on(sent(masks(), CHAT, stream, &bytes));
        let whole = runtime.block_on(sent(masks(), CHAT, arguments(0, &text), &[usize::MAX]));
        let places = ["/delta/tool_calls/0/function/arguments"];
        prop_assert_eq!(said(&seen, &places), said(&whole, &places));
        let (said, failed) = said(&seen, &places);
        prop_assert_eq!(failed, text.contains("evil"));
        if !failed {
            let read: Result<Value, _> = serde_json::from_str(&said[&0]);
            prop_assert!(read.is_ok(), "{}", said[&0]);
            let hidden = ["ann@", "4111111111111111"];
            prop_assert!(!hidden.iter().any(|hidden| said[&0].contains(hidden)), "{}", said[&0]);
        }
    }

    #[test]
    fn choices_do_not_disturb_each_other(
        texts in prop::collection::vec(words(), 3), deltas in sizes(), bytes in sizes(),
    ) {
        let texts: Vec<String> = texts.iter().map(|text| text.replace("evil", "good")).collect();
        let runtime = runtime();
        let mut pieces: Vec<_> = texts.iter().map(|text| cut(text, &deltas).into_iter()).collect();
        let mut stream = String::new();
        for _ in 0..texts.iter().map(String::len).max().unwrap_or(0) {
            for (choice, pieces) in (0..).zip(&mut pieces) {
                stream.extend(pieces.next().map(|piece| delta(choice, &piece)));
            }
        }
        let (seen, failed) = said(&runtime.block_on(sent(masks(), CHAT, stream, &bytes)), &["/delta/content"]);
        prop_assert!(!failed);
        for (choice, text) in (0..).zip(&texts) {
            let alone = runtime.block_on(sent(masks(), CHAT, delta(0, text), &[usize::MAX]));
            prop_assert_eq!(&seen[&choice], &content(&alone).0);
        }
    }
}

#[tokio::test]
async fn a_mask_is_made_inside_the_stream() {
    let pieces = ["to an", "n@exam", "ple.org", " and more"];
    let stream: String = pieces.iter().map(|piece| delta(0, piece)).collect();
    let stream = format!(": hi\n\nid: 7\n{stream}data: [DONE]\n\n");
    let masked = stream.replace("to an", "to [EMAIL]").replace("n@exam", "").replace("ple.org", "");
    assert_eq!(sent(masks(), CHAT, stream, &[3]).await, masked);
}

#[tokio::test]
async fn what_follows_a_text_comes_after_it() {
    let finish = event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}));
    let usage = event(&json!({"choices": [], "usage": {"total_tokens": 3}}));
    let stream =
        [delta(0, "ann@exam"), delta(0, "ple.org"), finish.clone(), usage.clone()].concat();
    let stream = format!("{stream}data: [DONE]\n\n");
    let seen = sent(masks(), CHAT, stream, &[usize::MAX]).await;
    assert_eq!(
        seen,
        format!("{}{}{finish}{usage}data: [DONE]\n\n", delta(0, "[EMAIL]"), delta(0, ""))
    );
}

#[tokio::test]
async fn blocks_of_content_and_tools_are_masked_one_by_one() {
    let start = |index, block: Value| {
        event(&json!({"type": "content_block_start", "index": index, "content_block": block}))
    };
    let delta = |index, delta: Value| {
        event(&json!({"type": "content_block_delta", "index": index, "delta": delta}))
    };
    let text = |index, text: &str| delta(index, json!({"type": "text_delta", "text": text}));
    let input =
        |index, part: &str| delta(index, json!({"type": "input_json_delta", "partial_json": part}));
    let stop = |index| event(&json!({"type": "content_block_stop", "index": index}));
    let stream = [
        event(&json!({"type": "message_start", "message": {"id": "m", "content": []}})),
        start(0, json!({"type": "text", "text": ""})),
        text(0, "Mail ann@"),
        text(0, "example.org"),
        stop(0),
        start(1, json!({"type": "tool_use", "id": "t", "name": "send", "input": {}})),
        input(1, "{\"card\": 41111111"),
        input(1, "11111111, \"to\": \"ann@exam"),
        input(1, "ple.org\"}"),
        stop(1),
        event(&json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}})),
        event(&json!({"type": "message_stop"})),
    ];
    let seen = sent(masks(), MESSAGES, stream.concat(), &[11]).await;
    let expected = [
        stream[0].clone(),
        stream[1].clone(),
        text(0, "Mail [EMAIL]"),
        text(0, ""),
        stop(0),
        stream[5].clone(),
        input(1, "{\"card\": \"[CARD]\""),
        input(1, ", \"to\": \"[EMAIL]"),
        input(1, "\"}"),
        stop(1),
        stream[10].clone(),
        stream[11].clone(),
    ];
    assert_eq!(seen, expected.concat());
}

#[tokio::test]
async fn texts_that_are_said_once_more_are_masked_there_too() {
    let part = |kind: &str, name: &str, text: &str| {
        let mut event =
            json!({"type": kind, "item_id": "i", "output_index": 0, "content_index": 0});
        event[name] = text.into();
        self::event(&event)
    };
    let done = |text: &str| {
        let content = json!([{"type": "output_text", "text": text}]);
        event(
            &json!({"type": "response.completed", "response": {"output": [{"content": content}]}}),
        )
    };
    let call = |kind: &str, name: &str, text: &str| {
        let mut event = json!({"type": kind, "output_index": 1});
        event[name] = text.into();
        self::event(&event)
    };
    let stream = |one: [&str; 2], whole: &str, parts: [&str; 2], input: &str| {
        [
            part("response.output_text.delta", "delta", one[0]),
            part("response.output_text.delta", "delta", one[1]),
            part("response.output_text.done", "text", whole),
            call("response.function_call_arguments.delta", "delta", parts[0]),
            call("response.function_call_arguments.delta", "delta", parts[1]),
            call("response.function_call_arguments.done", "arguments", input),
            done(whole),
        ]
        .concat()
    };
    let plain = stream(
        ["Mail ann@", "example.org"],
        "Mail ann@example.org",
        ["{\"c\":41111111", "11111111}"],
        "{\"c\":4111111111111111}",
    );
    let masked = stream(
        ["Mail [EMAIL]", ""],
        "Mail [EMAIL]",
        ["{\"c\":\"[CARD]\"", "}"],
        "{\"c\":\"[CARD]\"}",
    );
    assert_eq!(sent(masks(), RESPONSES, plain, &[5]).await, masked);

    let token = |id: u32, text: &str, whole: Value| {
        format!(
            "data:{}\n\n",
            json!({"index": 1, "token": {"id": id, "text": text}, "generated_text": whole})
        )
    };
    let stream = |ids: [u32; 2], one: [&str; 2], whole: &str| {
        [
            token(5, "Mail", json!(null)),
            token(ids[0], one[0], json!(null)),
            token(ids[1], one[1], json!(whole)),
        ]
        .concat()
    };
    let plain = stream([6, 7], [" ann@", "example.org"], "Mail ann@example.org");
    let masked = stream([0, 0], [" [EMAIL]", ""], "Mail [EMAIL]");
    assert_eq!(sent(masks(), "/generate", plain, &[7]).await, masked);
}

#[tokio::test]
async fn log_probabilities_do_not_say_what_is_masked() {
    let chunk = |text: &str, tokens: Value| {
        let logprobs = if tokens.is_null() { tokens } else { json!({"content": tokens}) };
        event(&json!({"choices": [{"index": 0, "delta": {"content": text}, "logprobs": logprobs}]}))
    };
    let tokens =
        |text: &str| json!([{"token": text, "logprob": -0.1, "bytes": [1], "top_logprobs": []}]);
    let stream =
        [chunk("hi ", tokens("hi ")), chunk("ann@example.org", tokens("ann@example.org"))].concat();
    let masked = [chunk("hi ", tokens("hi ")), chunk("[EMAIL]", json!(null))].concat();
    assert_eq!(sent(masks(), CHAT, stream, &[9]).await, masked);
}

#[tokio::test]
async fn a_block_ends_every_choice_before_the_matched_text() {
    let stream =
        [delta(0, "it is e"), delta(1, "fine"), delta(0, "vil"), delta(0, &" so".repeat(60))];
    let seen = sent(masks(), CHAT, stream.concat(), &[usize::MAX]).await;
    let (said, failed) = said(&seen, &["/delta/content"]);
    assert!(failed);
    assert_eq!(said[&0], "it is ");
    assert!(!said.contains_key(&1), "it was not decided on");
}

/// Events that come when the test wants them.
fn fed() -> (tokio::sync::mpsc::UnboundedSender<String>, AnyBody) {
    let (feed, mut fed) = tokio::sync::mpsc::unbounded_channel::<String>();
    let events = futures_util::stream::poll_fn(move |cx| fed.poll_recv(cx));
    let body = StreamBody::new(events.map(|event| Ok(Frame::data(event.into())))).boxed_unsync();
    (feed, body)
}

async fn streaming(guard: PromptGuardLayerBuilder, body: AnyBody) -> Answer {
    let body = Arc::new(std::sync::Mutex::new(Some(body)));
    answered(guard, CHAT, move || {
        let body = body.lock().unwrap().take().unwrap();
        http::Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn text_that_is_late_goes_on_but_for_what_may_be_the_beginning_of_something() {
    let (feed, body) = fed();
    let guard = masks().hold_back(64, Duration::from_millis(200));
    let mut body = pin!(streaming(guard, body).await.into_body());
    let mut next = async || {
        let frame = tokio::time::timeout(Duration::from_millis(1500), body.frame()).await;
        frame.ok().map(|frame| {
            String::from_utf8(frame.unwrap().unwrap().into_data().unwrap().to_vec()).unwrap()
        })
    };
    let began = tokio::time::Instant::now();
    for event in [delta(0, "Call "), delta(0, "me at "), delta(0, "ann@exam")] {
        feed.send(event).unwrap();
    }
    assert_eq!(next().await.unwrap(), delta(0, "Call ") + &delta(0, "me at "));
    // By the runtime's clock, which stands still but for timers.
    assert!(began.elapsed() <= Duration::from_millis(201), "{:?}", began.elapsed());
    assert_eq!(next().await, None, "half of what is masked");

    // What keeps the connection alive overtakes it.
    feed.send(": ping\n\n".to_owned()).unwrap();
    assert_eq!(next().await.unwrap(), ": ping\n\n");
    feed.send(delta(0, "ple.org ")).unwrap();
    assert_eq!(next().await.unwrap(), delta(0, "[EMAIL]") + &delta(0, " "));

    // Ten times as long, nothing came: a last word is said.
    feed.send(delta(0, "Bye")).unwrap();
    assert_eq!(next().await, None);
    assert_eq!(next().await.unwrap(), delta(0, "Bye"));
}

#[tokio::test]
async fn no_more_is_asked_for_than_is_held() {
    let polled = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&polled);
    let words = futures_util::stream::repeat_with(move || {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(Frame::data(delta(0, "eight b ").into()))
    });
    let answer = streaming(masks(), StreamBody::new(words).boxed_unsync()).await;
    let mut body = pin!(answer.into_body());
    assert_eq!(polled.load(Ordering::SeqCst), 0);
    let one = delta(0, "eight b ").len();
    let mut seen = 0;
    for _ in 0..20 {
        seen += body.frame().await.unwrap().unwrap().into_data().unwrap().len() / one;
        // 64 bytes, and what a step is.
        assert!(polled.load(Ordering::SeqCst) - seen <= (64 + 32) / 8, "{seen}");
    }
}

#[tokio::test]
async fn what_never_ends_is_not_held_without_end() {
    let long = "a".repeat(5000);
    let stream: String =
        cut(&format!("{long}@example.org fine"), &[7]).iter().map(|p| delta(0, p)).collect();
    let seen = sent(masks(), CHAT, stream, &[100]).await;
    assert!(content(&seen).0.ends_with(" fine"));

    let key = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\nfine",
        "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n".repeat(40)
    );
    let stream: String = cut(&key, &[9]).iter().map(|piece| delta(0, piece)).collect();
    let (said, failed) = content(&sent(masks(), CHAT, stream, &[100]).await);
    assert!(!failed && !said.contains("MIIE"), "{said}");
    assert!(said.ends_with("fine") && said.matches('[').count() == 1, "{said}");
}

/// However many texts there are, and however long what stands beside them.
#[tokio::test]
async fn nothing_ends_the_hold_of_a_text_but_its_end() {
    let round =
        |text: &str, choices| (0..choices).map(|choice| delta(choice, text)).collect::<String>();
    let sent = async |stream: String| sent(masks(), CHAT, stream, &[usize::MAX]).await;
    let (all, failed) =
        said(&sent(round("ev", 129) + &round("il", 129)).await, &["/delta/content"]);
    assert!(failed && all.is_empty(), "{all:?}");
    let (all, failed) =
        said(&sent(round("ev", 100) + &round("il", 100)).await, &["/delta/content"]);
    assert!(failed && all.is_empty(), "{all:?}");

    let probabilities = json!({"content": [{"token": "x".repeat(66_000)}]});
    let long = |text: &str| {
        let choice = json!({"index": 0, "delta": {"content": text}, "logprobs": probabilities});
        event(&json!({"choices": [choice]}))
    };
    let seen = sent(long("it is e") + &delta(0, "vil")).await;
    assert_eq!(content(&seen), ("it is ".to_owned(), true));
    let seen = sent((0..5).map(|_| long("it is e")).collect::<String>() + &delta(0, "vil")).await;
    assert_eq!(content(&seen), (format!("{}it is ", "it is e".repeat(4)), true));
}

#[tokio::test]
async fn texts_one_after_another_may_be_as_many_as_they_like() {
    let calls: String = (0..400).map(|call| arguments(call, r#"{"a":1}"#)).collect();
    let seen = sent(masks(), CHAT, calls.clone(), &[usize::MAX]).await;
    assert_eq!(seen, calls);
}

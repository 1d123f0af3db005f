//! Whatever comes in: no panic, and either what was read is passed on, or nothing.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use palisade::inference::EventReader;
use palisade::prompt_guard::{Action, InjectionRules, Unseen};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::support::*;

const PATHS: [&str; 8] = [
    CHAT,
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/messages",
    "/generate",
    "/other",
    "/a.B/C",
];

const SEEDS: [&str; 5] = [
    r#"{"messages":[{"role":"user","content":"hi \u00e9\ud83d\ude00"}],"max_tokens":5,"n":2}"#,
    r#"{"inputs":["a","b"],"parameters":{"max_new_tokens":7},"stream":true}"#,
    r#"{"prompt":[[1,2],[3]],"input":"x","text":"y","suffix":null}"#,
    r#"{"system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":
        [{"type":"tool_result","content":"t"},{"type":"image","source":{}}]}],"tools":[{"name":"f"}]}"#,
    r#"{"input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"a"}]}]}"#,
];

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Compiled once: they are shared.
fn rules() -> &'static Arc<InjectionRules> {
    static RULES: LazyLock<Arc<InjectionRules>> =
        LazyLock::new(|| Arc::new(InjectionRules::builtin().unwrap()));
    &RULES
}

/// A body that is nearly one that is read.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let edits =
        vec((any::<Index>(), prop_oneof![any::<u8>(), Just(b'"'), Just(b'{')], 0..3_u8), 0..4);
    prop_oneof![
        vec(any::<u8>(), 0..64),
        (any::<Index>(), edits).prop_map(|(seed, edits)| {
            let mut body = seed.get(&SEEDS).as_bytes().to_vec();
            for (place, byte, kind) in edits {
                let at = place.index(body.len());
                match kind {
                    0 => body[at] = byte,
                    1 => body.insert(at, byte),
                    _ => body.truncate(at.max(1)),
                }
            }
            body
        }),
    ]
}

fn cut(bytes: &Bytes, sizes: &[usize]) -> Vec<Result<Frame<Bytes>, palisade::BoxError>> {
    let (mut rest, mut frames) = (bytes.clone(), Vec::new());
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        frames.push(Ok(Frame::data(rest.split_to((*size).min(rest.len())))));
    }
    frames
}

proptest! {
    #[test]
    fn a_request_passes_as_it_came_or_not_at_all(
        path in any::<Index>(),
        body in body(),
        sizes in vec(1..50_usize, 1..5),
        headers in vec((0..4_usize, vec(0x20..0xff_u8, 0..12)), 0..3),
        open in any::<bool>(),
    ) {
        let body = Bytes::from(body);
        let mut request = Request::post(*path.get(&PATHS)).body(frames(cut(&body, &sizes))).unwrap();
        for (name, value) in headers {
            let name = ["content-type", "content-encoding", "content-length", "upgrade"][name];
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                request.headers_mut().append(name, value);
            }
        }
        let unseen = if open { Unseen::InsecurePass } else { Unseen::Refuse };
        let guard = guard()
            .unread(unseen)
            .unknown_endpoint(unseen)
            .grpc(unseen)
            .detector(Arc::clone(rules()), Action::Report)
            .detector(EVIL, Action::Block);
        let (answer, inner) = run(ask(guard, request));
        if answer.extensions().get::<palisade::Rejection>().is_some() {
            prop_assert!(inner.saw_nothing());
            let grpc = answer.headers().contains_key("grpc-status");
            prop_assert!(answer.status().is_client_error() || grpc, "{}", answer.status());
        } else {
            prop_assert_eq!(inner.only().body, body);
        }
    }

    #[test]
    fn a_stream_ends_the_same_however_it_is_cut(
        lines in vec(prop_oneof![
            "[a-z: ]{0,8}",
            "data: ?[evil ]{0,4}",
            "data: \\{\"text\":\"[evil]{0,4}\"\\}",
            Just(String::new()),
        ], 0..24),
        ends in vec(prop_oneof![Just("\n"), Just("\r\n"), Just("\r")], 1..4),
        sizes in vec(1..30_usize, 1..5),
    ) {
        let lines = lines.iter().zip(ends.iter().cycle());
        let stream: String = lines.flat_map(|(line, end)| [line.as_str(), *end]).collect();
        let stream = Bytes::from(stream);
        let through = |sizes: Vec<usize>| {
            let stream = stream.clone();
            let guard = guard().output_detector(EVIL, Action::Block);
            run(async {
                text(answered(guard, "/generate", move || {
                    let body = frames(cut(&stream, &sizes));
                    Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
                }).await).await
            })
        };
        let (whole, in_pieces) = (through(vec![stream.len().max(1)]), through(sizes));
        prop_assert_eq!(&whole, &in_pieces);
        let passed = whole.find("data: {\"error\"").map_or(&*whole, |at| &whole[..at]);
        // The event that what blocks begins in goes on without it, those before as they came.
        let (mut reader, mut events) = (EventReader::new(), Vec::new());
        reader.push(passed.as_bytes(), |event| events.push(event.raw.to_vec()));
        if passed.len() < whole.len() {
            events.pop();
        }
        prop_assert!(stream.starts_with(&events.concat()));
        prop_assert!(passed.len() == stream.len() || passed.len() < whole.len());
        prop_assert!(!passed.contains("evil"));
    }
}

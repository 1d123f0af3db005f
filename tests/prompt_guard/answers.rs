//! Answers: passed as they are, or scanned.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use http_body_util::BodyExt;
use palisade::{
    prompt_guard::{Action, AnswerVerdict, Outcome, PromptGuardLayerBuilder, Verdict},
    reservation::Observed,
};
use tower::{Layer, ServiceExt};

use crate::support::*;

fn blocks() -> PromptGuardLayerBuilder {
    guard().output_detector(EVIL, Action::Block)
}

fn of_type(content_type: &'static str, body: AnyBody) -> Response<AnyBody> {
    Response::builder().header("content-type", content_type).body(body).unwrap()
}

fn json_answer(body: &'static str) -> impl Fn() -> Response<AnyBody> + Clone + Send + 'static {
    move || of_type("application/json; charset=utf-8", full(body))
}

fn delta(text: &str) -> String {
    let chunk = serde_json::json!({"choices": [{"index": 0, "delta": {"content": text}}]});
    format!("data: {chunk}\n\n")
}

#[tokio::test]
async fn without_output_detectors_nothing_is_held_or_changed() {
    for content_type in ["text/event-stream", "application/json", "audio/wav"] {
        let answer = answered(guard().detector(EVIL, Action::Block), CHAT, move || {
            of_type(content_type, stalled(vec![data("da"), data("ta: evil"), trailers("x", "1")]))
        })
        .await;
        let mut body = pin!(answer.into_body());
        for expected in ["da", "ta: evil"] {
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), expected);
        }
        assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap()["x"], "1");
    }
    let answer = answered(guard(), CHAT, json_answer("{}")).await;
    assert_eq!(answer.body().size_hint().exact(), Some(2));
    assert!(!answer.body().is_end_stream());
}

#[tokio::test]
async fn a_json_answer_that_is_fine_passes_byte_for_byte() {
    let body = "{ \"choices\" : [{\"message\":{\"content\":\"good\"}}],\"n\":1e400 }";
    let answer = answered(blocks(), CHAT, move || {
        let pieces = vec![data(&body[..7]), data(&body[7..]), trailers("x-generated-tokens", "3")];
        of_type("application/json", frames(pieces))
    })
    .await;
    assert_eq!(answer.extensions().get::<AnswerVerdict>().unwrap().0.action, Outcome::Allow);
    let collected = answer.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-generated-tokens"], "3");
    assert_eq!(collected.to_bytes(), body);
}

#[tokio::test]
async fn what_a_caller_says_of_a_request_keeps_no_answer_from_being_read() {
    let request = http::Request::get("/jobs/7").header("content-type", "application/grpc");
    let request = request.body(full("")).unwrap();
    let (answer, _) = exchanged(blocks(), request, json_answer(r#"{"response":"evil"}"#)).await;
    // As gRPC has refusals, since that is what he says he speaks.
    assert_eq!(refusal(&answer).1, 200);
    assert_eq!(answer.headers()["grpc-status"], "7");
    assert!(!text(answer).await.contains("evil"));
}

#[tokio::test]
async fn a_json_answer_that_is_not_becomes_a_refusal() {
    for (path, body) in [
        (CHAT, r#"{"choices":[{"message":{"content":"so \u0065vil"}}]}"#),
        (CHAT, r#"{"choices":[{"message":{"tool_calls":[{"function":{"arguments":"evil"}}]}}]}"#),
        ("/v1/messages", r#"{"content":[{"type":"text","text":"evil"}]}"#),
        ("/generate", r#"{"generated_text":"evil"}"#),
        ("/generate", r#"{"text":["fine","evil"]}"#),
        ("/generate", r#"{"response":"evil"}"#),
    ] {
        let answer = answered(blocks(), path, json_answer(body)).await;
        assert_eq!(refusal(&answer), ("answer_blocked", 403), "{body}");
        assert!(!text(answer).await.contains("evil"));
    }
    let answer = answered(blocks(), "/generate", || of_type("text/plain", full("evil"))).await;
    assert_eq!(refusal(&answer), ("answer_blocked", 403));
}

#[tokio::test]
async fn a_mask_in_an_answer_replaces_what_was_found() {
    let redacts = || guard().output_detector(MAIL, Action::Redact);
    let body = "{\"id\":\"a@b.example\", \"choices\":[{\"text\":\"\\u00e9 a@b.example\"}]}";
    let answer = answered(redacts(), "/v1/chat/completions", move || {
        let mut answer = of_type("application/json", full(body));
        answer.headers_mut().insert("content-length", body.len().into());
        answer.headers_mut().insert("etag", "\"x\"".parse().unwrap());
        answer
    })
    .await;
    let masked = body.replace("\\u00e9 a@b.example", "\\u00e9 [EMAIL]");
    assert_eq!(answer.headers()["content-length"], masked.len().to_string());
    assert!(!answer.headers().contains_key("etag"));
    assert_eq!(answer.extensions().get::<AnswerVerdict>().unwrap().0.action, Outcome::Sanitize);
    assert_eq!(text(answer).await, masked);

    let plain = || of_type("text/plain", full("to a@b.example\n"));
    assert_eq!(text(answered(redacts(), "/generate", plain).await).await, "to [EMAIL]\n");

    // The tokens would still say it.
    let twice = r#"{"choices":[{"text":"a@b.example","logprobs":{"tokens":["a@","b.example"]}}]}"#;
    let answer = answered(redacts(), CHAT, json_answer(twice)).await;
    assert_eq!(refusal(&answer), ("answer_blocked", 403));
}

#[tokio::test]
async fn an_answer_that_cannot_be_checked_is_withheld() {
    type Answers = fn() -> Response<AnyBody>;
    let cases: [(&str, Answers); 7] = [
        ("unreadable_answer", || of_type("audio/wav", full("RIFF"))),
        ("unreadable_answer", || Response::new(full("no type"))),
        ("unreadable_answer", || of_type("application/json", full("{\"a\":1,\"a\":2}"))),
        ("unreadable_answer", || of_type("text/plain", full(&b"\xff"[..]))),
        ("unreadable_answer", || {
            let mut answer = of_type("application/json", full("\u{1f}"));
            answer.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
            answer
        }),
        ("answer_too_large", || of_type("application/json", full("\"".repeat(65)))),
        ("answer_failed", || {
            of_type("application/json", frames(vec![data("{"), Err("reset".into())]))
        }),
    ];
    for (code, answer) in cases {
        let guard = blocks().detector(EVIL, Action::Block).max_answer(64);
        let answer = answered(guard, CHAT, answer).await;
        assert_eq!(refusal(&answer), (code, 503));
        // What the guard made of the prompt is still known.
        assert_eq!(answer.extensions().get::<Verdict>().unwrap().action, Outcome::Allow);
    }
    let cases: [Answers; 2] = [
        || Response::new(full("")),
        || Response::builder().status(204).body(frames(vec![])).unwrap(),
    ];
    for empty in cases {
        assert!(answered(blocks(), CHAT, empty).await.status().is_success());
    }
}

#[tokio::test]
async fn an_event_stream_passes_event_by_event() {
    let (head, tail) = (": hi\r\n\r\ndata: {\"choices\":", "[{\"text\":\"good\"}]}\n\nda");
    let answer = answered(blocks(), CHAT, move || {
        of_type("text/event-stream", stalled(vec![data(head), data(tail), data("ta: [DONE]\n\n")]))
    })
    .await;
    let mut body = pin!(answer.into_body());
    let mut next = async || body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(next().await, ": hi\r\n\r\n");
    // Its last word waits for what ends it.
    assert_eq!(next().await, "data: {\"choices\":[{\"text\":\"good\"}]}\n\ndata: [DONE]\n\n");
}

#[tokio::test]
async fn an_event_stream_passes_byte_for_byte_however_it_is_cut() {
    let stream = format!(
        "\u{feff}: x\r\rid: 7\r\n{}retry: 1\nevent: e\ndata: é\ndata: plain\r\n\r\n{}data: [DONE]\n\ndata: open",
        delta("grüße"),
        delta("ev"),
    );
    let bytes = Bytes::from(stream.clone());
    for size in 1..40 {
        let bytes = bytes.clone();
        let answer = answered(blocks(), CHAT, move || {
            let pieces = bytes.chunks(size).map(|p| Ok(http_body::Frame::data(bytes.slice_ref(p))));
            let mut pieces: Vec<_> = pieces.collect();
            pieces.push(trailers("x-t", "1"));
            of_type("text/event-stream", frames(pieces))
        })
        .await;
        let collected = answer.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-t"], "1");
        assert_eq!(collected.to_bytes(), stream, "{size}");
    }
}

#[tokio::test]
async fn what_blocks_ends_a_stream_in_the_apis_own_shape() {
    let anthropic = |text: &str| {
        let event = serde_json::json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "text_delta", "text": text}});
        format!("event: content_block_delta\ndata: {event}\n\n")
    };
    let tgi = |text: &str| {
        format!("data:{}\n\n", serde_json::json!({"index": text.len(), "token": {"text": text}}))
    };
    type Says<'a> = &'a dyn Fn(&str) -> String;
    let apis: [(&str, Says<'_>, &str); 3] = [
        (CHAT, &delta, "data: {\"error\":{"),
        ("/v1/messages", &anthropic, "event: error\ndata: {"),
        ("/generate", &tgi, "data: {\"error\":\""),
    ];
    for (path, says, shape) in apis {
        let dropped = Dropped::default();
        let inner = Inner::default();
        let watched = dropped.clone();
        let whole = ["fine", " ev", "il ", "fine"].map(says).concat();
        // The text before it goes on, and no more of the event that it begins in.
        let passed = says("fine") + &says(" ev").replace(" ev", " ");
        let service = blocks().build().unwrap().layer(inner.answering(move || {
            let body = stalled(vec![Ok(http_body::Frame::data(whole.clone().into()))]);
            let mut answer = of_type("text/event-stream", watched.body(body));
            answer.headers_mut().insert("content-length", 9.into());
            answer
        }));
        let body = if path == "/generate" { r#"{"inputs":"hi"}"#.into() } else { chat("hi") };
        let meter = Arc::new(Kept::default());
        let mut request = post(path, body);
        meter.on(&mut request);
        let answer = service.oneshot(request).await.unwrap();
        assert!(!answer.headers().contains_key("content-length"));

        let mut body = pin!(answer.into_body());
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(frame, passed, "{path}");
        assert!(dropped.get(), "the engine still runs");
        assert!(!body.is_end_stream());
        let last = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let last = std::str::from_utf8(&last).unwrap();
        assert!(last.starts_with(shape) && last.ends_with("}\n\n"), "{last}");
        assert!(last.contains("withheld") && !last.contains("evil"));
        assert!(body.is_end_stream());
        assert!(body.frame().await.is_none());

        let observed = meter.observed.lock().unwrap();
        let [Observed::LetThrough(tokens)] = observed[..] else { panic!("{observed:?}") };
        assert!((1..6).contains(&tokens), "{tokens}");
    }
}

#[tokio::test]
async fn a_verdict_does_not_hang_on_how_a_stream_is_cut() {
    let stream =
        [delta("fine"), delta("e"), delta("v"), delta("i"), delta("l"), delta("x")].concat();
    let cut = stream.find(&delta("e")).unwrap();
    let bytes = Bytes::from(stream.clone());
    for size in (1..60).chain([stream.len()]) {
        let bytes = bytes.clone();
        let answer = answered(blocks(), CHAT, move || {
            let pieces = bytes.chunks(size).map(|p| Ok(http_body::Frame::data(bytes.slice_ref(p))));
            of_type("text/event-stream", frames(pieces.collect()))
        })
        .await;
        let body = text(answer).await;
        assert!(body.starts_with(&stream[..cut]), "{size}");
        assert!(body[cut..].starts_with("data: {\"error\""), "{size}: {body}");
    }
}

#[tokio::test]
async fn texts_of_different_channels_are_not_one() {
    let choice = |index: u32, text: &str| {
        let chunk = serde_json::json!({"choices": [{"index": index, "delta": {"content": text}}]});
        format!("data: {chunk}\n\n")
    };
    let mixed = [choice(0, "ev"), choice(1, "x"), choice(1, "il"), choice(0, " ok")].concat();
    let sent = mixed.clone();
    let answer =
        answered(blocks(), CHAT, move || of_type("text/event-stream", full(sent.clone()))).await;
    assert_eq!(text(answer).await, mixed);
}

#[tokio::test]
async fn an_event_that_never_ends_is_cut() {
    let answer = answered(blocks().max_answer(64), CHAT, || {
        of_type(
            "text/event-stream",
            stalled(vec![data("data: "), Ok(http_body::Frame::data("x".repeat(64).into()))]),
        )
    })
    .await;
    assert!(text(answer).await.contains("answer_too_large"));
}

#[tokio::test]
async fn an_error_of_the_inner_body_passes_as_it_is() {
    // What was not decided on ends with it.
    let fine = delta("fine ") + &delta(&"and ".repeat(200)) + "data: [DONE]\n\n";
    let sent = fine.clone();
    let answer = answered(blocks(), CHAT, move || {
        let pieces = vec![
            Ok(http_body::Frame::data(sent.clone().into())),
            data("data: held\n\ndata: half"),
            Err("reset".into()),
        ];
        of_type("text/event-stream", frames(pieces))
    })
    .await;
    let mut body = pin!(answer.into_body());
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), fine);
    assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "reset");
    assert!(body.is_end_stream());
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_guard_that_only_reports_changes_no_answer() {
    let reports = || blocks().max_answer(64).report_only();
    let long = delta(&"long ".repeat(40));
    let stream = [delta("evil"), long.clone(), delta("x"), "data: half".to_owned()].concat();
    let cases: Vec<(&str, String)> = vec![
        ("text/event-stream", stream),
        ("application/json", r#"{"text":"evil"}"#.to_owned()),
        ("application/json", long),
        ("audio/wav", "RIFF".to_owned()),
    ];
    for (content_type, sent) in cases {
        for size in [1, 7, 1000] {
            let bytes = Bytes::from(sent.clone());
            let answer = answered(reports(), CHAT, move || {
                let pieces =
                    bytes.chunks(size).map(|p| Ok(http_body::Frame::data(bytes.slice_ref(p))));
                of_type(content_type, frames(pieces.collect()))
            })
            .await;
            assert_eq!(text(answer).await, sent, "{content_type} {size}");
        }
    }
}

#[tokio::test]
async fn on_other_routes_what_a_server_offers_besides_passes() {
    let inner = Inner::default();
    let service =
        blocks().build().unwrap().layer(inner.answering(|| of_type("text/html", full("evil"))));
    let request = http::Request::get("/docs").body(full("")).unwrap();
    assert_eq!(text(service.oneshot(request).await.unwrap()).await, "evil");

    // An answer that is fetched later is an answer.
    let service =
        blocks().build().unwrap().layer(inner.answering(json_answer(r#"{"text":"evil"}"#)));
    let request = http::Request::get("/v1/responses/r-1").body(full("")).unwrap();
    let answer = service.oneshot(request).await.unwrap();
    assert_eq!(refusal(&answer), ("answer_blocked", 403));
}

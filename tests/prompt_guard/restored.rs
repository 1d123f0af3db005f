//! Values that were taken out of a prompt are put back into its answer, and into no other.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use palisade::{
    body::RequestBody,
    inference::EventReader,
    prompt_guard::{Action, AnswerVerdict, PersonalData, PromptGuardLayerBuilder, Secrets, Vault},
    reservation::Observed,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::*;

const MESSAGES: &str = "/v1/messages";
const VALUE: &str = "a@b.example";
const QUOTED_VALUE: &str = "\"a\\b\"@b.example";

fn swaps() -> PromptGuardLayerBuilder {
    guard().detector(MAIL, Action::Pseudonymize).detector(QUOTED, Action::Pseudonymize)
}

/// Asks for something about two values. The model answers by their placeholders, the second one with quotes in its value.
async fn asked<F>(guard: PromptGuardLayerBuilder, path: &str, answer: F) -> Answer
where
    F: Fn(&str, &str) -> Response<AnyBody> + Clone + Send + 'static,
{
    let service =
        guard.build().unwrap().layer(service_fn(move |request: Request<RequestBody<AnyBody>>| {
            let answer = answer.clone();
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let body: Value = serde_json::from_slice(&body).unwrap();
                let text = body["messages"][0]["content"].as_str().unwrap();
                assert!(!text.contains("b.example"), "{text}");
                let (plain, quoted) = text.split_once(' ').unwrap();
                Ok::<_, std::convert::Infallible>(answer(plain, quoted))
            }
        }));
    let body = chat(&format!("{VALUE} {QUOTED_VALUE}"));
    service.oneshot(post(path, body)).await.unwrap()
}

fn of_type(content_type: &str, body: AnyBody) -> Response<AnyBody> {
    Response::builder().header("content-type", content_type).body(body).unwrap()
}

fn whole(body: &Value) -> Response<AnyBody> {
    of_type("application/json", full(body.to_string()))
}

/// An event stream in pieces of these sizes in turn.
fn streamed(stream: impl Into<Bytes>, sizes: &[usize]) -> Response<AnyBody> {
    let (mut rest, mut sizes) = (stream.into(), sizes.iter().cycle());
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let size = sizes.next().map_or(rest.len(), |size| (*size).clamp(1, rest.len()));
        pieces.push(Ok(Frame::data(rest.split_to(size))));
    }
    of_type("text/event-stream", frames(pieces))
}

fn delta(place: &str, text: &str) -> String {
    let delta = match place {
        "content" => json!({"content": text}),
        _ => json!({"tool_calls": [{"index": 0, "function": {"arguments": text}}]}),
    };
    format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": delta}]}))
}

fn deltas(place: &str, text: &str, sizes: &[usize]) -> String {
    let mut rest: Vec<char> = text.chars().collect();
    let mut stream = String::new();
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let piece: String = rest.drain(..(*size).clamp(1, rest.len())).collect();
        stream += &delta(place, &piece);
    }
    stream + "data: [DONE]\n\n"
}

/// What the deltas of a stream say, and whether it was cut short.
fn said(stream: &str) -> (String, bool) {
    let (mut reader, mut said, mut failed) = (EventReader::new(), String::new(), false);
    reader.push(stream.as_bytes(), |event| {
        let data: Value =
            event.data().and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default();
        failed |= data.get("error").is_some();
        let delta = &data["choices"][0]["delta"];
        let arguments = &delta["tool_calls"][0]["function"]["arguments"];
        said.extend(delta["content"].as_str().or_else(|| arguments.as_str()));
    });
    (said, failed)
}

#[tokio::test]
async fn a_whole_answer_has_its_values_back() {
    let answer = asked(swaps(), CHAT, |plain, quoted| {
        let arguments = json!({"to": [plain, format!("<{quoted}>")]}).to_string();
        let call = json!({"function": {"name": "send", "arguments": arguments}});
        let message = json!({"content": format!("[{plain}] or {quoted}é"), "tool_calls": [call]});
        let body = json!({"choices": [{"message": message, "logprobs": null}]}).to_string();
        let length = body.len();
        let pieces = vec![Ok(Frame::data(body.into())), trailers("x-end", "1")];
        let mut answer = of_type("application/json", frames(pieces));
        answer.headers_mut().insert("content-length", length.into());
        answer.headers_mut().insert("etag", "\"x\"".parse().unwrap());
        answer
    })
    .await;
    assert!(answer.headers().get("etag").is_none());
    let length = answer.headers()["content-length"].to_str().unwrap().parse::<u64>().unwrap();
    assert_eq!(answer.body().size_hint().exact(), Some(length));
    // No output detector has looked at it.
    assert!(answer.extensions().get::<AnswerVerdict>().is_none());
    assert!(answer.extensions().get::<Vault>().is_some());
    let collected = answer.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-end"], "1");
    let body: Value = serde_json::from_slice(&collected.to_bytes()).unwrap();
    let message = &body["choices"][0]["message"];
    assert_eq!(message["content"], format!("[{VALUE}] or {QUOTED_VALUE}é"));
    let arguments = message["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
    let arguments: Value = serde_json::from_str(arguments).unwrap();
    assert_eq!(arguments, json!({"to": [VALUE, format!("<{QUOTED_VALUE}>")]}));
}

#[tokio::test]
async fn every_shape_of_answer_has_its_values_back() {
    let answer = asked(swaps(), MESSAGES, |plain, quoted| {
        whole(&json!({"content": [{"type": "tool_use", "id": plain, "input": {quoted: plain}}]}))
    });
    let answer = json(answer.await).await;
    assert_eq!(answer["content"][0]["input"], json!({QUOTED_VALUE: VALUE}));
    assert_ne!(answer["content"][0]["id"], VALUE);
    let answer = asked(swaps(), CHAT, |plain, quoted| {
        of_type("text/plain", full(format!("{quoted}{plain}.")))
    });
    assert_eq!(text(answer.await).await, format!("{QUOTED_VALUE}{VALUE}."));
    // In the place of two names there would stand one.
    let answer = asked(swaps(), MESSAGES, |plain, _| {
        whole(&json!({"content": [{"type": "tool_use", "input": {plain: 1, VALUE: 2}}]}))
    });
    let answer = json(answer.await).await;
    assert_eq!(answer["content"][0]["input"].as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn whole_texts_in_a_stream_have_their_values_back() {
    let answer = asked(swaps(), MESSAGES, |plain, quoted| {
        let start = json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "tool_use", "input": {"to": quoted}}});
        let part = json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "text_delta", "text": plain}});
        streamed(format!("data: {start}\n\ndata: {part}\n\n"), &[7])
    });
    let stream = text(answer.await).await;
    let (start, part) = stream.split_once("\n\n").unwrap();
    let start: Value = serde_json::from_str(start.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(start["content_block"]["input"], json!({"to": QUOTED_VALUE}));
    assert!(part.contains(VALUE), "{part}");
    // What an event says once more, token by token, would not fit any more.
    let answer = asked(swaps(), CHAT, |plain, _| {
        let choice = json!({"index": 0, "delta": {"content": plain},
            "logprobs": {"content": [{"token": plain}]}});
        streamed(format!("data: {}\n\n", json!({"choices": [choice]})), &[9])
    });
    let stream = text(answer.await).await;
    assert!(stream.contains("\"logprobs\":null") && stream.contains(VALUE), "{stream}");
}

#[tokio::test]
async fn a_placeholder_that_is_garbled_or_of_another_request_passes_as_it_is() {
    let garble = |plain: &str| {
        let lower = plain.to_lowercase();
        let cut = &plain[..plain.len() - 1];
        let spaced = plain.replace('_', " ");
        format!("{lower} {cut} {spaced} [EMAIL_AAAAAAAAAAAAAAAA] [EMAIL {cut}")
    };
    for streams in [false, true] {
        let answer = asked(swaps(), CHAT, move |plain, _| {
            let text = garble(plain);
            if streams {
                let mut answer = streamed(deltas("content", &text, &[3]), &[usize::MAX]);
                answer.headers_mut().insert("x-sent", text.parse().unwrap());
                return answer;
            }
            let mut answer = of_type("text/plain", full(text.clone()));
            answer.headers_mut().insert("x-sent", text.parse().unwrap());
            answer
        });
        let answer = answer.await;
        let sent = answer.headers()["x-sent"].to_str().unwrap().to_owned();
        let got = text(answer).await;
        assert_eq!(if streams { said(&got).0 } else { got }, sent);
    }
}

#[tokio::test]
async fn output_detectors_see_the_placeholder_and_not_the_value() {
    let data = Arc::new(PersonalData::builder().build().unwrap());
    for streams in [false, true] {
        let guard = swaps().output_detector(Arc::clone(&data), Action::Redact);
        let answer = asked(guard, CHAT, move |plain, _| {
            let text = format!("Write to {plain}, not to bo@example.org. {plain}");
            match streams {
                true => streamed(deltas("content", &text, &[5]), &[11]),
                false => of_type("text/plain", full(text)),
            }
        });
        let got = text(answer.await).await;
        let got = if streams { said(&got).0 } else { got };
        assert_eq!(got, format!("Write to {VALUE}, not to [EMAIL]. {VALUE}"));
    }
    // What a placeholder looks like says nothing of its value.
    let secrets = Arc::new(Secrets::builtin().unwrap());
    for streams in [false, true] {
        let guard = swaps().output_detector(Arc::clone(&secrets), Action::Block);
        let answer = asked(guard, CHAT, move |plain, _| {
            let text = format!("api_key = \"{plain}\", and that is all there is to say of it.");
            match streams {
                true => streamed(deltas("content", &text, &[5]), &[11]),
                false => of_type("text/plain", full(text)),
            }
        });
        let got = text(answer.await).await;
        let got = if streams { said(&got).0 } else { got };
        assert_eq!(got, format!("api_key = \"{VALUE}\", and that is all there is to say of it."));
    }
    // What stands before that which blocks has its values too.
    let guard = swaps().output_detector(EVIL, Action::Block);
    let answer = asked(guard, CHAT, |plain, _| {
        let text = format!("Write to {plain} [EMAIL_ evil {plain}");
        streamed(deltas("content", &text, &[4]), &[13])
    });
    let got = text(answer.await).await;
    assert_eq!(said(&got), (format!("Write to {VALUE} [EMAIL_ "), true));
}

#[tokio::test]
async fn without_placeholders_or_when_told_not_to_nothing_is_held() {
    for guard in [swaps().restore_answers(false), guard().detector(MAIL, Action::Redact)] {
        let service = guard.build().unwrap().layer(service_fn(async |_| {
            let pieces = vec![data("data: {\"a"), data("\":\"[\"}"), trailers("x", "1")];
            Ok::<_, std::convert::Infallible>(of_type("text/event-stream", stalled(pieces)))
        }));
        let answer = service.oneshot(post(CHAT, chat("I am a@b.example"))).await.unwrap();
        let mut body = pin!(answer.into_body());
        for expected in ["data: {\"a", "\":\"[\"}"] {
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), expected);
        }
        assert!(body.frame().await.unwrap().unwrap().is_trailers());
    }
    let answer = asked(swaps().restore_answers(false), CHAT, |plain, _| {
        of_type("text/plain", full(plain.to_owned()))
    });
    let answer = answer.await;
    let vault = answer.extensions().get::<Vault>().unwrap().clone();
    assert_eq!(vault.restore(&text(answer).await), VALUE);
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_withheld() {
    let answer = asked(swaps(), CHAT, |_, _| {
        let mut answer = whole(&json!({}));
        answer.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
        answer
    });
    assert_eq!(refusal(&answer.await), ("unreadable_answer", 503));
    let answer = asked(swaps().max_answer(8), CHAT, |plain, _| {
        of_type("text/plain", full(plain.to_owned()))
    });
    assert_eq!(refusal(&answer.await), ("answer_too_large", 503));
    let answer = asked(swaps(), CHAT, |_, _| {
        let failed = Err("reset".into());
        of_type("application/json", frames(vec![data("{\"a"), failed]))
    });
    assert_eq!(refusal(&answer.await), ("answer_failed", 503));
    // One without a body has nothing to restore.
    let answer =
        asked(swaps(), CHAT, |_, _| Response::builder().status(204).body(full("")).unwrap());
    assert_eq!(answer.await.status(), 204);
}

#[tokio::test]
async fn the_limiter_hears_of_what_was_withheld() {
    let kept = Arc::new(Kept::default());
    let service = swaps().max_answer(8).build().unwrap().layer(service_fn(async |_| {
        Ok::<_, std::convert::Infallible>(of_type("text/plain", full("longer than that")))
    }));
    let mut request = post(CHAT, chat("I am a@b.example"));
    kept.on(&mut request);
    let answer = service.oneshot(request).await.unwrap();
    assert_eq!(refusal(&answer), ("answer_too_large", 503));
    assert!(matches!(kept.observed.lock().unwrap()[..], [Observed::Withheld(None)]));
}

#[tokio::test(start_paused = true)]
async fn only_what_may_become_a_placeholder_waits_and_not_for_ever() {
    let answer = asked(swaps(), CHAT, |plain, _| {
        let begun = &plain[..9];
        let pieces = ["Hello [".to_owned(), format!("x] {begun}")];
        let pieces = pieces.map(|text| Ok(Frame::data(delta("content", &text).into())));
        of_type("text/event-stream", stalled(pieces.into()))
    });
    let answer = answer.await;
    let mut body = pin!(answer.into_body());
    let start = tokio::time::Instant::now();
    let mut seen = String::new();
    while !said(&seen).0.contains("EMAIL_") {
        let frame = body.frame().await.unwrap().unwrap();
        seen += str::from_utf8(&frame.into_data().unwrap()).unwrap();
        if start.elapsed() == Duration::ZERO {
            assert_eq!(said(&seen).0, "Hello [");
        }
    }
    assert!(start.elapsed() <= Duration::from_secs(3), "{:?}", start.elapsed());
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1usize..4, 1usize..40, 1usize..400], 1..12)
}

/// `p` and `q` stand for the placeholders.
fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "p",
        "q",
        "pq",
        "[p",
        "q]",
        "[EMAIL_",
        "[",
        "]",
        "é\u{1f600}",
        "\"",
        "\\",
        "\n",
        "{",
        "word",
        "12",
    ]);
    prop::collection::vec(word, 1..24).prop_map(|words| words.concat())
}

fn filled(text: &str, plain: &str, quoted: &str) -> String {
    text.replace('p', plain).replace('q', quoted)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_text_however_a_stream_is_cut(
        spoken in words(), parts in sizes(), bytes in sizes(), detects in any::<bool>(),
    ) {
        // What begins with a brace is taken for JSON, of which the values are escaped.
        let spoken = format!("<{spoken}");
        let expected = filled(&spoken, VALUE, QUOTED_VALUE);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let guard = swaps().hold_back(64, Duration::from_secs(60));
        let guard = if detects { guard.output_detector(EVIL, Action::Block) } else { guard };
        let got = runtime.block_on(async {
            text(asked(guard, CHAT, move |plain, quoted| {
                streamed(deltas("content", &filled(&spoken, plain, quoted), &parts), &bytes)
            }).await).await
        });
        prop_assert_eq!(said(&got), (expected, false));
    }

    #[test]
    fn what_a_tool_is_called_with_stays_json(
        values in prop::collection::vec(words(), 1..5), parts in sizes(), bytes in sizes(),
        place in prop::sample::select(vec!["arguments", "content"]),
    ) {
        let restored: Vec<_> =
            values.iter().map(|value| filled(value, VALUE, QUOTED_VALUE)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let got = runtime.block_on(async {
            text(asked(swaps(), CHAT, move |plain, quoted| {
                let values: Vec<_> =
                    values.iter().map(|value| filled(value, plain, quoted)).collect();
                let text = json!({"values": values, "n": 12.5}).to_string().replace('é', "\\u00e9");
                streamed(deltas(place, &text, &parts), &bytes)
            }).await).await
        });
        let got: Value = serde_json::from_str(&said(&got).0).unwrap();
        prop_assert_eq!(got, json!({"values": restored, "n": 12.5}));
    }
}

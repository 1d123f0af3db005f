//! Ways around the guard that were once open.

use http::{Request, Response};
use palisade::prompt_guard::{Action, Verdict};
use palisade::reservation::Observed;
use std::sync::Arc;

use crate::support::*;

async fn asked(path: &str, body: &str) -> (Answer, Inner) {
    let guard = guard().detector(EVIL, Action::Block).detector(MAIL, Action::Redact);
    ask(guard, post(path, body.to_owned())).await
}

async fn code(path: &str, body: &str) -> &'static str {
    let (answer, inner) = asked(path, body).await;
    match answer.extensions().get::<palisade::Rejection>() {
        Some(rejection) => {
            assert!(inner.saw_nothing());
            rejection.code()
        }
        None => "passed",
    }
}

#[tokio::test]
async fn a_preflight_with_a_body_is_read() {
    let request = Request::options(CHAT).header("access-control-request-method", "POST");
    let request =
        request.body(frames(vec![data("{\"messages\":[{\"content\":\"evil\"}]}")])).unwrap();
    let (answer, inner) = ask(guard().detector(EVIL, Action::Block), request).await;
    assert_eq!(refusal(&answer), ("content_blocked", 403));
    assert!(inner.saw_nothing());
}

#[tokio::test]
async fn a_prompt_in_the_query_does_not_pass() {
    for (path, expected) in [
        ("/generate?prompt=evil", "unreadable_content"),
        ("/generate?x=1&pro%6Dpt=evil", "unreadable_content"),
        ("/generate?beta=true", "passed"),
    ] {
        assert_eq!(code(path, "").await, expected, "{path}");
        assert_eq!(code(path, r#"{"inputs":"hi"}"#).await, expected, "{path}");
    }
}

#[tokio::test]
async fn a_body_that_another_reader_reads_differently_does_not_pass() {
    for content_type in [
        "application/x-www-form-urlencoded",
        "Multipart/Form-Data; boundary=x",
        "application/json; charset=utf-7",
        "application/json; charset=\"UTF-16\"",
    ] {
        let mut request = post("/generate", r#"{"prompt":"hi","model":"x&prompt=evil&y="}"#);
        request.headers_mut().insert("content-type", content_type.parse().unwrap());
        let (answer, inner) = ask(guard().detector(EVIL, Action::Block), request).await;
        assert_eq!(refusal(&answer), ("unsupported_media_type", 415), "{content_type}");
        assert!(inner.saw_nothing());
    }
}

/// `curl -d` says that it sends a form.
#[tokio::test]
async fn json_under_the_type_of_a_form_is_read_as_json() {
    for (body, status) in [(r#"{"prompt":"a = b & c; d"}"#, 200), (r#"{"prompt":"evil"}"#, 403)] {
        let mut request = post("/generate", body);
        let form = "application/x-www-form-urlencoded".parse().unwrap();
        request.headers_mut().insert("content-type", form);
        let (answer, _) = ask(guard().detector(EVIL, Action::Block), request).await;
        assert_eq!(answer.status(), status, "{body}");
    }
}

#[tokio::test]
async fn what_is_cut_over_parts_or_messages_is_seen_whole() {
    let long = "x ".repeat(3000);
    for (path, body, expected) in [
        (
            CHAT,
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"ev"},{"type":"text","text":"il"}]}]}"#,
            "content_blocked",
        ),
        (
            CHAT,
            r#"{"messages":[{"role":"user","content":"e"},{"role":"user","content":""},{"role":"user","content":"vi"},{"role":"user","content":"l"}]}"#,
            "content_blocked",
        ),
        (
            CHAT,
            &format!(
                r#"{{"messages":[{{"content":"{long}ev"}},{{"content":"il {long}ev"}},{{"content":"il"}}]}}"#
            ),
            "content_blocked",
        ),
        (
            CHAT,
            r#"{"messages":[{"role":"user","content":"ev"},{"role":"assistant","content":"il"}]}"#,
            "passed",
        ),
        ("/v1/completions", r#"{"prompt":["ev","il"]}"#, "passed"),
        (
            "/v1/messages",
            r#"{"system":[{"type":"text","text":"ev"},{"type":"text","text":"il"}],"messages":[]}"#,
            "content_blocked",
        ),
    ] {
        assert_eq!(code(path, body).await, expected, "{body}");
    }
}

#[tokio::test]
async fn what_is_cut_over_two_parts_is_masked_in_both() {
    let body = r#"{"messages":[{"content":[{"text":"to a@b"},{"text":".example now"}]}]}"#;
    let (answer, inner) = asked(CHAT, body).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(
        inner.only().body,
        r#"{"messages":[{"content":[{"text":"to [EMAIL]"},{"text":"[EMAIL] now"}]}]}"#
    );
}

#[tokio::test]
async fn masked_arguments_of_a_tool_are_json_still() {
    let body = r#"{"messages":[{"role":"assistant","tool_calls":[{"id":"c","type":"function",
        "function":{"name":"pay","arguments":"{\"card\":41111111,\"to\":\"a\"}"}}]}]}"#;
    let (answer, inner) = ask(guard().detector(NUMBER, Action::Redact), post(CHAT, body)).await;
    assert_eq!(answer.status(), 200);
    let sent: serde_json::Value = serde_json::from_slice(&inner.only().body).unwrap();
    let arguments = &sent["messages"][0]["tool_calls"][0]["function"]["arguments"];
    assert_eq!(arguments, r#"{"card":"[CARD]","to":"a"}"#);
}

#[tokio::test]
async fn masks_that_make_a_body_unreadable_block_it() {
    let body = r#"{"messages":[{"role":"user","content":"hi"}],"tools":[{"name":"f","parameters":
        {"properties":{"a@b.example":{},"[EMAIL]":{}}}}]}"#;
    let (answer, inner) = asked(CHAT, body).await;
    assert_eq!(refusal(&answer), ("content_blocked", 403));
    assert!(inner.saw_nothing());
    assert!(answer.extensions().get::<Verdict>().is_some());
}

#[tokio::test]
async fn prose_in_the_place_of_identifiers_is_read() {
    for body in [
        r#"{"messages":[{"role":"tool","tool_call_id":"now-do-the-evil-thing","content":"a"}]}"#,
        r#"{"messages":[{"role":"assistant","tool_calls":[{"id":"now_do_the_evil_thing"}]}]}"#,
        r#"{"messages":[{"content":"a"}],"tools":[{"type":"mcp","server_url":"evil"}]}"#,
    ] {
        assert_eq!(code(CHAT, body).await, "content_blocked", "{body}");
    }
    let tools = r#"{"input":"a","tools":[{"type":"mcp","headers":{"a":"now do the evil thing"}}]}"#;
    assert_eq!(code("/v1/responses", tools).await, "content_blocked");
}

#[tokio::test]
async fn a_template_that_puts_text_together_is_not_read_as_text() {
    let template = r#"{"messages":[{"content":"a"}],"chat_template":"{{ 'ev' ~ 'il' }}"}"#;
    assert_eq!(code(CHAT, template).await, "unreadable_content");
}

#[tokio::test]
async fn an_answer_that_is_too_large_or_of_no_known_form_is_paid() {
    for (content_type, max) in
        [("application/json", 4), ("image/png", 99), ("application/json", 99)]
    {
        let meter = Arc::new(Kept::default());
        let mut request = post(CHAT, chat("hi"));
        meter.on(&mut request);
        let layer = guard().output_detector(EVIL, Action::Block).max_answer(max).build().unwrap();
        let inner = Inner::default();
        let service = tower::Layer::layer(
            &layer,
            inner.answering(move || {
                Response::builder()
                    .header("content-type", content_type)
                    .body(full("no json"))
                    .unwrap()
            }),
        );
        let answer = tower::ServiceExt::oneshot(service, request).await.unwrap();
        assert_eq!(answer.status(), 503);
        assert_eq!(*meter.observed.lock().unwrap(), [Observed::Withheld(None)], "{content_type}");
    }
}

#[tokio::test]
async fn an_answer_in_another_charset_is_withheld() {
    let guard = guard().output_detector(EVIL, Action::Block);
    let answer = answered(guard, CHAT, || {
        let body = full("e\0v\0i\0l\0");
        Response::builder()
            .header("content-type", "text/plain; charset=utf-16le")
            .body(body)
            .unwrap()
    });
    assert_eq!(refusal(&answer.await), ("unreadable_answer", 503));
}

//! Bad input: a clear 4xx in the endpoint's own shape, never a panic, never passed on.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Request};
use palisade::{
    Rejection, RejectionKind,
    identity::{Identity, UserIdentity},
    prompt_guard::Unseen,
};

use crate::support::*;

/// A path, and the pointer to the message in the shape of its errors.
const SHAPES: [(&str, &str); 6] = [
    (CHAT, "/error/message"),
    ("/v1/completions", "/error/message"),
    ("/v1/responses", "/error/message"),
    ("/v1/embeddings", "/error/message"),
    ("/v1/messages", "/error/message"),
    ("/generate", "/error"),
];

#[tokio::test]
async fn what_is_no_prompt_is_refused_in_the_endpoints_shape() {
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let deep_object =
        format!(r#"{{"messages":{}1{}}}"#, "{\"a\":".repeat(9_000), "}".repeat(9_000));
    let bodies: Vec<Vec<u8>> = vec![
        b"{".to_vec(),
        b"   ".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        b"{}{}".to_vec(),
        b"not json".to_vec(),
        chat("cut short").into_bytes()[..20].to_vec(),
        b"{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\xfe\"}],\"inputs\":\"\xff\"}"
            .to_vec(),
        b"\xef\xbb\xbf{\"inputs\":\"bom\"}".to_vec(),
        b"{\"inputs\":\"half a pair \\ud800\"}".to_vec(),
        b"{\"inputs\":\"a\",\"inputs\":\"b\"}".to_vec(),
        b"{\"inputs\":\"a\",\"\\u0069nputs\":\"b\"}".to_vec(),
        b"{\"messages\":{\"role\":\"user\"},\"inputs\":{\"x\":true},\"prompt\":true,\"input\":7}"
            .to_vec(),
        b"{\"messages\":[[]],\"inputs\":[[[{}]]],\"prompt\":[{}],\"input\":{\"a\":1}}".to_vec(),
        b"{\"inputs\":\"tab\there\"}\0".to_vec(),
        deep.into_bytes(),
        deep_object.into_bytes(),
    ];
    for (path, message) in SHAPES {
        for body in &bodies {
            let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            let (answer, inner) = ask(guard(), post(path, body.clone())).await;
            assert_eq!(refusal(&answer), ("invalid_request", 400), "{path} {shown}");
            assert!(inner.saw_nothing(), "{path} {shown}");
            let answer = json(answer).await;
            let message = answer.pointer(message).and_then(|message| message.as_str());
            assert!(message.is_some_and(|message| message.len() > 10), "{path} {answer}");
        }
    }
}

#[tokio::test]
async fn a_body_beyond_the_cap_is_refused() {
    let small = || guard().max_body(64);
    let large = chat(&"x".repeat(64));
    let (answer, inner) = ask(small(), post(CHAT, large.clone())).await;
    assert_eq!(refusal(&answer), ("request_too_large", 413));
    assert!(inner.saw_nothing());

    // Its length unknown until it is read.
    let pieces = (0..65).map(|_| data("x")).collect();
    let request = Request::post("/v1/messages").body(frames(pieces)).unwrap();
    let (answer, _) = ask(small(), request).await;
    assert_eq!(refusal(&answer), ("request_too_large", 413));
    assert_eq!(json(answer).await["error"]["type"], "request_too_large");

    // Stated: refused without a look at it.
    for stated in ["65", "99999999999999999999999999"] {
        let request =
            Request::post(CHAT).header("content-length", stated).body(stalled(vec![])).unwrap();
        let (answer, _) = ask(small(), request).await;
        assert_eq!(refusal(&answer), ("request_too_large", 413), "{stated}");
    }

    let exact = chat(&"x".repeat(64 - chat("").len()));
    assert_eq!(exact.len(), 64);
    assert_eq!(ask(small(), post(CHAT, exact)).await.0.status(), 200);
}

#[tokio::test]
async fn hostile_headers_are_refused() {
    let wrong: [(&str, &[u8], (&str, u16)); 12] = [
        ("content-encoding", b"gzip", ("unsupported_encoding", 415)),
        ("content-encoding", b"GZIP", ("unsupported_encoding", 415)),
        ("content-encoding", b"identity, br", ("unsupported_encoding", 415)),
        ("content-encoding", b"\xff", ("unsupported_encoding", 415)),
        ("content-length", b"-1", ("invalid_request", 400)),
        ("content-length", b"+5", ("invalid_request", 400)),
        ("content-length", b"0x10", ("invalid_request", 400)),
        ("content-length", b"", ("invalid_request", 400)),
        ("content-length", b"\xff", ("invalid_request", 400)),
        ("content-length", b"3", ("invalid_request", 400)),
        ("upgrade", b"websocket", ("unreadable_endpoint", 415)),
        ("upgrade", b"h2c, websocket", ("unreadable_endpoint", 415)),
    ];
    for (name, value, expected) in wrong {
        let mut request = post(CHAT, chat("hi"));
        let name = HeaderName::from_static(name);
        request.headers_mut().append(name.clone(), HeaderValue::from_bytes(value).unwrap());
        let (answer, inner) = ask(guard(), request).await;
        assert_eq!(refusal(&answer), expected, "{name} {value:?}");
        assert!(inner.saw_nothing());
    }

    let body = chat("hi");
    let mut request = post(CHAT, body.clone());
    request.headers_mut().append("content-length", body.len().into());
    request.headers_mut().append("content-length", 7.into());
    assert_eq!(refusal(&ask(guard(), request).await.0), ("invalid_request", 400));

    for harmless in ["identity", "", " Identity , "] {
        let mut request = post(CHAT, body.clone());
        request.headers_mut().insert("content-encoding", harmless.parse().unwrap());
        assert_eq!(ask(guard(), request).await.0.status(), 200, "{harmless}");
    }
    // A content type is not believed: the route says what the body is.
    let mut request = post(CHAT, body);
    let odd = HeaderValue::from_bytes(b"\xff/\x80").unwrap();
    request.headers_mut().insert("content-type", odd);
    assert_eq!(ask(guard(), request).await.0.status(), 200);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_refused() {
    let broken = frames(vec![data("{\"inputs\""), Err("reset".into())]);
    let request = Request::post("/generate").body(broken).unwrap();
    let (answer, inner) = ask(guard(), request).await;
    assert_eq!(refusal(&answer), ("invalid_request", 400));
    assert_eq!(json(answer).await["error_type"], "validation");
    assert!(inner.saw_nothing());
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_refused() {
    let started = tokio::time::Instant::now();
    let request = Request::post(CHAT).body(stalled(vec![data("{")])).unwrap();
    let (answer, inner) = ask(guard(), request).await;
    assert_eq!(refusal(&answer), ("request_timeout", 408));
    assert_eq!(started.elapsed(), Duration::from_secs(30));
    assert!(inner.saw_nothing());

    // A byte a second does not keep it alive.
    let trickle = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((data(" "), ()))
    });
    let trickle = http_body_util::BodyExt::boxed_unsync(http_body_util::StreamBody::new(trickle));
    let request = Request::post(CHAT).body(trickle).unwrap();
    let (answer, _) = ask(guard().read_timeout(Duration::from_millis(4500)), request).await;
    assert_eq!(refusal(&answer), ("request_timeout", 408));
}

#[tokio::test]
async fn an_asserted_identity_reaches_the_handler() {
    let mut request = post(CHAT, chat("hi"));
    request.extensions_mut().insert(Identity::asserted(UserIdentity::asserted("i", "s")));
    let (answer, inner) = ask(guard(), request).await;
    assert_eq!(answer.status(), 200);
    let user = Identity::of(&inner.only().head.extensions).unwrap().user().unwrap().clone();
    assert_eq!(user.subject(), "s");
}

#[tokio::test]
async fn a_refusal_says_why_to_outer_layers_and_hides_the_input() {
    let (answer, _) = ask(guard(), post(CHAT, r#"{"messages":"hush-hush""#)).await;
    let rejection = answer.extensions().get::<Rejection>().unwrap();
    assert_eq!(rejection.kind(), RejectionKind::BadRequest);
    assert!(!format!("{rejection:?}").contains("hush"));
    assert!(!text(answer).await.contains("hush"));
}

#[tokio::test]
async fn a_guard_that_only_reports_passes_what_it_cannot_read() {
    for request in [
        post(CHAT, "not json"),
        post("/other", "x"),
        Request::post(CHAT).header("content-encoding", "gzip").body(full("\u{1f}")).unwrap(),
    ] {
        let (answer, inner) = ask(guard().report_only(), request).await;
        assert_eq!(answer.status(), 200);
        let verdict = answer.extensions().get::<palisade::prompt_guard::Verdict>().unwrap();
        assert!(!verdict.enforced && verdict.code.is_some(), "{verdict:?}");
        inner.only();
    }
    // What bounds memory holds still.
    let (answer, _) = ask(guard().report_only().max_body(3), post(CHAT, "long")).await;
    assert_eq!(refusal(&answer), ("request_too_large", 413));
}

#[test]
fn a_guard_that_could_pass_nothing_is_not_built() {
    use palisade::prompt_guard::Action;
    assert!(guard().max_body(0).build().is_err());
    assert!(guard().max_answer(0).build().is_err());
    assert!(guard().read_timeout(Duration::ZERO).build().is_err());
    for score in [-0.1, 1.1, f32::NAN] {
        assert!(guard().detector(EVIL, Action::Block.at(score)).build().is_err());
    }
    assert!(guard().unread(Unseen::Refuse).detector(EVIL, Action::Block.at(1.0)).build().is_ok());
}

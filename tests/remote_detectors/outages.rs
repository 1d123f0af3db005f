//! Servers that are slow, cut the connection, talk nonsense or never stop; and callers that leave.

use std::time::Duration;

use axum::{Json, body::Body, response::IntoResponse};
use bytes::Bytes;
use futures_util::stream;
use palisade::prompt_guard::{
    Action, AsyncLimits, OnUnavailable, PromptGuardLayer,
    remote::{LlamaGuard, Moderation, Presidio, RemoteServer, TextClassifier},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::*;

/// Each of the detectors, before this server.
fn each(url: &str, limit: Duration, policy: OnUnavailable) -> [PromptGuardLayer; 4] {
    let server = || RemoteServer::at(url);
    let limits = AsyncLimits::within(limit).without_breaker();
    let guard = PromptGuardLayer::builder;
    let classifier = TextClassifier::builder(server()).build().unwrap();
    let moderation = Moderation::builder(server()).build().unwrap();
    let llama_guard = LlamaGuard::builder(server(), "m").build().unwrap();
    let presidio = Presidio::builder(server()).build().unwrap();
    [
        guard().async_detector(classifier, Action::Block, limits, policy),
        guard().async_detector(moderation, Action::Block, limits, policy),
        guard().async_detector(llama_guard, Action::Block, limits, policy),
        guard().async_detector(presidio, Action::Redact, limits, policy),
    ]
    .map(|guard| guard.build().unwrap())
}

/// On each, with both policies. The prompt is refused, or let through and the verdict says so.
async fn is_out(url: &str, limit: Duration) {
    let names = ["classifier", "moderation", "llama_guard", "presidio"];
    for (guard, name) in each(url, limit, OnUnavailable::Refuse).iter().zip(names) {
        let outcome = say(guard, "a very private prompt").await;
        assert!(outcome.is_unavailable(), "{name}");
        assert_eq!(
            (outcome.verdict.unavailable, outcome.verdict.let_through),
            (vec![name], vec![])
        );
    }
    for (guard, name) in each(url, limit, OnUnavailable::InsecurePass).iter().zip(names) {
        let outcome = say(guard, "a very private prompt").await;
        assert_eq!(outcome.status, 200, "{name}");
        assert_eq!(outcome.body, Some(chat(&[("user", "a very private prompt")])));
        assert_eq!(
            (outcome.verdict.unavailable, outcome.verdict.let_through),
            (vec![name], vec![name])
        );
    }
}

/// A server that does this with each connection, whatever it is asked.
async fn raw<F>(with: impl Fn(tokio::net::TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(with(stream));
        }
    });
    url
}

/// Reads the request's head.
async fn head(stream: &mut tokio::net::TcpStream) {
    let mut read = Vec::new();
    while !read.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read_buf(&mut read).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

#[tokio::test]
async fn nobody_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    is_out(&url, LIMIT).await;
}

#[tokio::test]
async fn the_connection_is_cut() {
    is_out(&raw(async |_| {}).await, LIMIT).await;
    let halfway = raw(async |mut stream| {
        head(&mut stream).await;
        let half =
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n[[{";
        let _ = stream.write_all(half).await;
    });
    is_out(&halfway.await, LIMIT).await;
}

#[tokio::test]
async fn it_does_not_answer_in_time() {
    let silent = raw(async |mut stream| {
        head(&mut stream).await;
        std::future::pending::<()>().await;
    });
    is_out(&silent.await, Duration::from_millis(50)).await;
    // A byte now and then is no answer either.
    let trickle = raw(async |mut stream| {
        head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await;
        while stream.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    is_out(&trickle.await, Duration::from_millis(100)).await;
}

async fn everywhere<R: IntoResponse>(
    answer: impl Fn() -> R + Clone + Send + Sync + 'static,
) -> String {
    let app = axum::Router::new().fallback(move || {
        let answer = answer().into_response();
        async move { answer }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[tokio::test]
async fn it_talks_nonsense() {
    for text in ["", "safe", "<html>", "{", "[[", "\u{0}", "{\"results\": \"x\"}", "null"] {
        is_out(&everywhere(move || text).await, LIMIT).await;
    }
}

#[tokio::test]
async fn it_never_stops() {
    let huge = everywhere(|| {
        let chunks =
            stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 65_536])));
        Body::from_stream(chunks)
    });
    is_out(&huge.await, LIMIT).await;
}

/// An answer that says that all is well is believed only as long as it is not too long.
#[tokio::test]
async fn it_says_too_much() {
    for (padding, believed) in [(0, true), (1 << 19, true), (1 << 21, false)] {
        let well = move |uri: http::Uri| async move {
            let well = match uri.path() {
                "/predict" => json!([[{"score": 0.9, "label": "BENIGN"}]]),
                "/v1/moderations" => {
                    json!({"results": [{"categories": {"a": false}, "category_scores": {"a": 0.1}}]})
                }
                "/analyze" => json!([]),
                _ => {
                    json!({"choices": [{"finish_reason": "stop", "message": {"content": "safe"}}]})
                }
            };
            " ".repeat(padding) + &well.to_string()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(well);
        tokio::spawn(async move { axum::serve(listener, app).await });
        for guard in each(&url, LIMIT, OnUnavailable::Refuse) {
            let outcome = say(&guard, "hi").await;
            assert_eq!((outcome.status == 200, outcome.is_unavailable()), (believed, !believed));
        }
    }
}

/// What it is asked about is not sent on to somebody else.
#[tokio::test]
async fn redirects_are_not_followed() {
    let other = Served::told("/elsewhere", |_| Json(json!([]))).await;
    let to = format!("{}/elsewhere", other.url);
    for status in [301, 302, 303, 307, 308] {
        let to = to.clone();
        let redirects = everywhere(move || {
            let status = http::StatusCode::from_u16(status).unwrap();
            (status, [("location", to.clone())])
        });
        is_out(&redirects.await, LIMIT).await;
    }
    assert!(other.asked().is_empty());
}

/// A caller that leaves takes the question along: the server sees the connection close.
#[tokio::test]
async fn a_caller_that_leaves_drops_the_question() {
    let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
    let (closed, mut was_closed) = tokio::sync::mpsc::unbounded_channel();
    let url = raw(move |mut stream| {
        let (asked, closed) = (asked.clone(), closed.clone());
        async move {
            head(&mut stream).await;
            asked.send(()).unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            closed.send(()).unwrap();
        }
    });
    for guard in each(&url.await, Duration::from_secs(600), OnUnavailable::Refuse) {
        let waits = tokio::spawn(async move { say(&guard, "hi").await });
        was_asked.recv().await.unwrap();
        waits.abort();
        was_closed.recv().await.unwrap();
    }
}

/// Counted by detector and reason, with nothing of the prompt.
#[tokio::test]
async fn what_is_let_through_is_counted() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let told = recorder.handle();
    let counts = metrics::set_default_local_recorder(&recorder);
    let url = everywhere(|| "nonsense").await;
    for policy in [OnUnavailable::Refuse, OnUnavailable::InsecurePass] {
        say(&each(&url, LIMIT, policy)[0], "a very private prompt").await;
    }
    drop(counts);
    let told = told.render();
    for outcome in ["refused", "let_through"] {
        let line = told.lines().find(|line| {
            line.starts_with("palisade_guard_unavailable_total")
                && [outcome, "error", "classifier"].iter().all(|label| line.contains(label))
        });
        assert!(line.is_some_and(|line| line.ends_with(" 1")), "{outcome}: {told}");
    }
    assert!(!told.contains("private"));
}

//! Presidio's analyzer from PyPI, with the recognizers that need no language model; and answers that it would
//! not give.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use axum::Json;
use palisade::prompt_guard::{
    Action,
    remote::{Presidio, PresidioBuilder, RemoteServer},
};
use serde_json::{Value, json};

use crate::{harness, support::*};

/// A running analyzer, until it is dropped.
struct Analyzer {
    url: String,
    process: Child,
}

impl Analyzer {
    fn start() -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("target/venv/bin/python");
        if !python.exists() {
            harness::skip("Presidio is not in target/venv (scripts/test puts it there)");
            return None;
        }
        let mut process = Command::new(python)
            .arg(root.join("tests/remote_detectors/presidio_server.py"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        assert!(!port.is_empty(), "Presidio does not start");
        Some(Self { url: format!("http://127.0.0.1:{}", port.trim()), process })
    }

    fn detects(&self) -> PresidioBuilder {
        Presidio::builder(RemoteServer::at(&self.url))
    }
}

impl Drop for Analyzer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One server for all: it takes seconds to start.
#[tokio::test]
async fn personal_data_is_found_where_it_stands() {
    let Some(analyzer) = Analyzer::start() else { return };
    let masks = |detector: PresidioBuilder| {
        guard(detector.build().unwrap(), Action::Redact).build().unwrap()
    };
    let content =
        |outcome: &Outcome| outcome.body.as_ref().unwrap()["messages"][0]["content"].clone();

    // Its places are in code points: what is before them takes 1, 2, 3 and 4 bytes each, or several code points.
    let all = masks(analyzer.detects().entities(["EMAIL_ADDRESS", "CREDIT_CARD", "IP_ADDRESS"]));
    for before in ["", "e ", "é ", "你好 ", "😀😀 ", "👩‍👩‍👧 ", "e\u{301} ", "\u{fe0f}\u{10ffff} "]
    {
        let say_so = |mail: &str, card: &str| format!("{before}{mail} {before}{card} {before}.");
        let outcome = say(&all, &say_so("jane.roe@example.com", "4111111111111111")).await;
        assert_eq!(content(&outcome), say_so("[EMAIL_ADDRESS]", "[CREDIT_CARD]"), "{outcome:?}");
    }
    let outcome = say(&all, "Nothing of that kind.").await;
    assert_eq!((outcome.status, outcome.found()), (200, vec![]));

    // Several texts in one question, or one by one; parts of a message are one text, each masked by itself.
    for detector in [analyzer.detects(), analyzer.detects().one_by_one()] {
        let parts = json!([
            {"type": "text", "text": "😀 ann@example.com"}, {"type": "text", "text": "or 10.1.2.3"},
        ]);
        let asked = json!({"messages": [
            {"role": "system", "content": "Ask bob@example.com"}, {"role": "user", "content": parts},
        ]});
        let guard = masks(detector.entities(["EMAIL_ADDRESS", "IP_ADDRESS"]));
        let outcome = ask(&guard, &asked).await;
        let expected = asked.to_string().replace("ann@example.com", "[EMAIL_ADDRESS]");
        let expected = expected.replace("bob@example.com", "[EMAIL_ADDRESS]");
        let expected: Value =
            serde_json::from_str(&expected.replace("10.1.2.3", "[IP_ADDRESS]")).unwrap();
        assert_eq!(outcome.body.unwrap(), expected);
    }

    // Its score for a phone number without context is 0.4, and it says so of no other entity here.
    let phone = "Call 212-555-0143 please";
    let status = async |detector: PresidioBuilder| {
        let outcome = say(&masks(detector.entities(["PHONE_NUMBER"])), phone).await;
        (outcome.status, content(&outcome))
    };
    assert_eq!(status(analyzer.detects()).await, (200, json!(phone)));
    let masked = (200, json!("Call [PHONE_NUMBER] please"));
    assert_eq!(status(analyzer.detects().threshold_of("PHONE_NUMBER", 0.4)).await, masked);
    assert_eq!(status(analyzer.detects().threshold(0.4)).await, masked);

    // It has no such language, and says 500.
    let guard = masks(analyzer.detects().language("tlh"));
    assert!(say(&guard, "hi").await.is_unavailable());
}

#[tokio::test]
async fn what_is_no_answer_is_not_believed() {
    let found = |start: i64, end: i64| json!([{"entity_type": "PERSON", "start": start, "end": end, "score": 0.85}]);
    for (answer, believed) in [
        (json!([]), true),
        (found(0, 2), true),
        (found(2, 3), true),
        (found(2, 4), false),
        (found(0, 4000), false),
        (found(-1, 2), false),
        (found(2, 2), false),
        (found(3, 2), false),
        (json!([[]]), false),
        (json!({"error": "No text provided"}), false),
        (json!([{"entity_type": "PERSON", "start": 0, "end": 2}]), false),
        (json!([{"entity_type": "PERSON", "start": 0, "end": 2, "score": 7}]), false),
        (json!([{"entity_type": "a b", "start": 0, "end": 2, "score": 1.0}]), false),
        (json!([{"start": 0, "end": 2, "score": 1.0}]), false),
    ] {
        let told = answer.clone();
        let served = Served::told("/analyze", move |_| Json(told.clone())).await;
        let detector = Presidio::builder(served.server()).build().unwrap();
        let outcome = say(&guard(detector, Action::Redact).build().unwrap(), "a😀b").await;
        assert_eq!(!outcome.is_unavailable(), believed, "{answer}");
    }
}

/// Of several texts, the answer to each must be there.
#[tokio::test]
async fn one_answer_short_is_none() {
    let served = Served::told("/analyze", |_| Json(json!([[]]))).await;
    let detector = Presidio::builder(served.server()).build().unwrap();
    let guard = guard(detector, Action::Redact).build().unwrap();
    assert!(ask(&guard, &chat(&[("system", "a"), ("user", "b")])).await.is_unavailable());
    let asked = &served.bodies()[0];
    assert_eq!(asked, &json!({"text": ["a", "b"], "language": "en", "score_threshold": 0.5}));
}

/// What was not asked for is not masked.
#[tokio::test]
async fn only_entities_on_the_list_count() {
    let served = Served::told("/analyze", |_| {
        Json(json!([
            {"entity_type": "PERSON", "start": 0, "end": 4, "score": 0.85},
            {"entity_type": "DATE_TIME", "start": 5, "end": 10, "score": 0.85},
        ]))
    })
    .await;
    let detector = Presidio::builder(served.server()).entities(["PERSON"]).build().unwrap();
    let outcome = say(&guard(detector, Action::Redact).build().unwrap(), "Jane today").await;
    assert_eq!(outcome.found(), [("presidio.PERSON", 0, Some(0..4))]);
    assert_eq!(served.bodies()[0]["entities"], json!(["PERSON"]));
    let none: [&str; 0] = [];
    assert!(Presidio::builder(served.server()).entities(none).build().is_err());
}

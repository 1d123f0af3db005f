//! What detectors find, and what is done about it.

use std::{sync::Arc, time::Duration};

use palisade::{
    future::ReadyOr,
    inference::Origin,
    prompt_guard::{Action, Category, Finding, OnUnavailable, Outcome, Rule, Vault, Verdict},
    store::Pepper,
};

use crate::support::*;

const LIMIT: Duration = Duration::from_millis(150);

fn verdict(extensions: &http::Extensions) -> Verdict {
    extensions.get::<Verdict>().unwrap().clone()
}

#[tokio::test]
async fn what_blocks_is_refused_and_named_by_its_category_alone() {
    for (path, body, message) in [
        (CHAT, chat("so evil"), "/error/message"),
        ("/v1/messages", chat("so evil"), "/error/message"),
        ("/generate", r#"{"inputs":"so \u0065vil"}"#.to_owned(), "/error"),
    ] {
        let (answer, inner) = ask(guard().detector(EVIL, Action::Block), post(path, body)).await;
        assert_eq!(refusal(&answer), ("content_blocked", 403));
        assert!(inner.saw_nothing());
        let verdict = verdict(answer.extensions());
        assert_eq!((verdict.action, verdict.enforced), (Outcome::Block, true));
        assert_eq!(verdict.code, Some("content_blocked"));
        assert_eq!(
            (&*verdict.findings[0].rule, verdict.findings[0].span.clone()),
            ("injection.evil", Some(3..7))
        );
        let answer = json(answer).await;
        let message = answer.pointer(message).unwrap().as_str().unwrap();
        assert!(message.contains("instructions") && !message.contains("evil"), "{message}");
    }
}

#[tokio::test]
async fn what_is_reported_passes_as_it_is() {
    for rule in [Rule::from(Action::Report), Action::Block.at(0.95), Action::Redact.at(0.95)] {
        let body = chat("so evil");
        let (answer, inner) = ask(guard().detector(EVIL, rule), post(CHAT, body.clone())).await;
        let arrived = inner.only();
        assert_eq!(arrived.body, body);
        for verdict in [verdict(answer.extensions()), verdict(&arrived.head.extensions)] {
            assert_eq!((verdict.action, verdict.findings.len()), (Outcome::Report, 1));
        }
    }
}

#[tokio::test]
async fn a_mask_replaces_what_was_found_and_nothing_else() {
    let body = concat!(
        "{ \"n\":1e400, \"messages\":[{\"role\":\"user\",\"content\":\"\\u00e9 a@b.example\\n\"},\n",
        " {\"content\":[{\"type\":\"text\",\"text\":\"or \\u0061@b.example!\"}],\"role\":\"user\"}] }",
    );
    let mut request = post(CHAT, body);
    let headers = request.headers_mut();
    headers.insert("content-length", body.len().into());
    headers.insert("content-digest", "sha-256=:x:".parse().unwrap());
    headers.insert("content-md5", "x".parse().unwrap());
    headers.insert("x-other", "y".parse().unwrap());
    let (answer, inner) = ask(guard().detector(MAIL, Action::Redact), request).await;
    let arrived = inner.only();
    let masked = body.replace("a@b.example", "[EMAIL]").replace("\\u0061@b.example", "[EMAIL]");
    assert_eq!(arrived.body, masked);
    assert_eq!(arrived.head.headers["content-length"], masked.len().to_string());
    assert_eq!(arrived.head.headers.len(), 2);
    assert_eq!(verdict(answer.extensions()).action, Outcome::Sanitize);
}

#[tokio::test]
async fn a_hash_is_the_same_for_the_same_key() {
    let ask_with = async |key: &str| {
        let guard = guard().detector(MAIL, Action::Hash).hash_key(Pepper::from_secret(key));
        let (_, inner) = ask(guard, post(CHAT, chat("I am a@b.example, a@b.example"))).await;
        String::from_utf8(inner.only().body.to_vec()).unwrap()
    };
    let hashed = ask_with("one").await;
    assert_eq!(hashed, ask_with("one").await);
    assert_ne!(hashed, ask_with("another").await);
    let start = hashed.find("[EMAIL:").unwrap();
    let one = &hashed[start..=start + hashed[start..].find(']').unwrap()];
    assert_eq!(hashed, chat(&format!("I am {one}, {one}")));
}

#[tokio::test]
async fn a_placeholder_is_restored_by_whoever_has_the_vault() {
    let guard = guard().detector(MAIL, Action::Pseudonymize);
    let (answer, inner) = ask(guard, post(CHAT, chat("I am a@b.example"))).await;
    let arrived = inner.only();
    let body = str::from_utf8(&arrived.body).unwrap();
    assert!(!body.contains("a@b.example") && body.contains("[EMAIL_"), "{body}");
    for extensions in [&arrived.head.extensions, answer.extensions()] {
        let vault = extensions.get::<Vault>().unwrap();
        assert_eq!(vault.restore(body), chat("I am a@b.example"));
        assert_eq!(format!("{vault:?}"), "Vault { values: 1, .. }");
    }
}

#[tokio::test]
async fn a_rule_may_have_an_action_of_its_own() {
    for (rule, status) in [
        (Action::Redact.except("personal_data.email", Action::Block), 403),
        (Action::Block.except("personal_data.email", Action::Redact), 200),
        (Action::Block.except("other", Action::Redact), 403),
    ] {
        let (answer, _) = ask(guard().detector(MAIL, rule), post(CHAT, chat("a@b.example"))).await;
        assert_eq!(answer.status(), status);
    }
}

#[tokio::test]
async fn a_mask_without_a_place_blocks() {
    for span in [None, Some(3..300), Some(3..3), Some(1..2)] {
        // 1..2 is within the `é`.
        let told = move || Ok(vec![Finding::new("x.y", Category::Secret, 1.0, 0, span.clone())]);
        let remote = Remote(move |_| ReadyOr::ready(told()));
        let guard = guard().async_detector(remote, Action::Redact, LIMIT, OnUnavailable::Refuse);
        let (answer, inner) = ask(guard, post(CHAT, chat("é is here"))).await;
        assert_eq!(refusal(&answer), ("content_blocked", 403));
        assert!(inner.saw_nothing());
    }
}

#[tokio::test]
async fn nothing_is_enforced_by_a_guard_that_only_reports() {
    let body = chat("evil a@b.example");
    let guard = guard().detector(EVIL, Action::Block).detector(MAIL, Action::Redact).report_only();
    let (answer, inner) = ask(guard, post(CHAT, body.clone())).await;
    assert_eq!(inner.only().body, body);
    let verdict = verdict(answer.extensions());
    assert_eq!((verdict.action, verdict.enforced), (Outcome::Block, false));
    assert_eq!(verdict.findings.len(), 2);
}

#[tokio::test]
async fn a_detector_that_panics_could_not_tell() {
    let (answer, inner) =
        ask(guard().detector(Panics, Action::Report), post(CHAT, chat("hi"))).await;
    assert_eq!(refusal(&answer), ("guard_unavailable", 503));
    assert_eq!(verdict(answer.extensions()).unavailable, ["panics"]);
    assert!(inner.saw_nothing());

    let guard = guard().detector(Panics, Action::Report).detector(EVIL, Action::Block);
    let (answer, _) = ask(guard, post(CHAT, chat("evil"))).await;
    assert_eq!(refusal(&answer), ("content_blocked", 403));
}

#[tokio::test(start_paused = true)]
async fn a_detector_that_cannot_tell_is_heard_as_the_policy_says() {
    type Scan = fn() -> Told;
    let cases: [(&str, Scan); 5] = [
        ("never", || ReadyOr::pending(std::future::pending())),
        ("fails", || ReadyOr::ready(Err("down".into()))),
        ("fails later", || ReadyOr::pending(async { Err("down".into()) })),
        ("panics", || panic!("a bug")),
        ("panics later", || ReadyOr::pending(async { panic!("a bug") })),
    ];
    for (case, scan) in cases {
        let with =
            |policy| guard().async_detector(Remote(move |_| scan()), Action::Block, LIMIT, policy);
        let started = tokio::time::Instant::now();
        let (answer, inner) = ask(with(OnUnavailable::Refuse), post(CHAT, chat("hi"))).await;
        assert_eq!(refusal(&answer), ("guard_unavailable", 503), "{case}");
        assert!(inner.saw_nothing());
        let waited = if case == "never" { LIMIT } else { Duration::ZERO };
        assert_eq!(started.elapsed(), waited, "{case}");

        let (answer, inner) = ask(with(OnUnavailable::InsecurePass), post(CHAT, chat("hi"))).await;
        assert_eq!(answer.status(), 200, "{case}");
        assert_eq!(verdict(&inner.only().head.extensions).unavailable, ["remote"]);
    }
}

#[tokio::test(start_paused = true)]
async fn detectors_that_wait_wait_at_once() {
    let slow = || {
        Remote(|prompt: Arc<palisade::inference::Prompt>| {
            ReadyOr::pending(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                assert_eq!(prompt.segments().next().unwrap().text, "hi");
                Ok(Vec::new())
            })
        })
    };
    let mut guard = guard();
    for _ in 0..5 {
        guard = guard.async_detector(slow(), Action::Block, LIMIT, OnUnavailable::Refuse);
    }
    let started = tokio::time::Instant::now();
    let (answer, _) = ask(guard, post(CHAT, chat("hi"))).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(started.elapsed(), Duration::from_millis(100));
}

#[tokio::test]
async fn a_prompt_that_is_blocked_already_is_not_sent_to_others() {
    let remote = Remote(|_| panic!("it was asked"));
    let guard = guard()
        .async_detector(remote, Action::Block, LIMIT, OnUnavailable::Refuse)
        .detector(EVIL, Action::Block);
    let (answer, _) = ask(guard, post(CHAT, chat("evil"))).await;
    assert_eq!(refusal(&answer), ("content_blocked", 403));
    assert!(verdict(answer.extensions()).unavailable.is_empty());
}

#[tokio::test]
async fn every_segment_is_scanned() {
    let body = r#"{"system":"s","messages":[{"role":"user","content":[{"type":"tool_result",
        "tool_use_id":"t","content":[{"type":"text","text":"evil"}]}]}]}"#;
    let (answer, _) = ask(guard().detector(EVIL, Action::Block), post("/v1/messages", body)).await;
    assert_eq!(refusal(&answer), ("content_blocked", 403));
}

/// Long texts are scanned off the executor, with the same outcome.
#[tokio::test]
async fn long_prompts_and_answers_are_scanned_too() {
    let long = "so good ".repeat(20_000);
    let detects = || guard().detector(EVIL, Action::Block).detector(MAIL, Action::Redact);
    let (answer, inner) = ask(detects(), post(CHAT, chat(&format!("{long} evil")))).await;
    assert_eq!(refusal(&answer), ("content_blocked", 403));
    assert!(inner.saw_nothing());

    let (_, inner) = ask(detects(), post(CHAT, chat(&format!("{long} a@b.example")))).await;
    assert_eq!(inner.only().body, chat(&format!("{long} [EMAIL]")));

    let (answer, _) = ask(guard().detector(Panics, Action::Report), post(CHAT, chat(&long))).await;
    assert_eq!(refusal(&answer), ("guard_unavailable", 503));

    let body = format!("\"{long} evil\"");
    let answer = answered(guard().output_detector(EVIL, Action::Block), CHAT, move || {
        let answer = http::Response::builder().header("content-type", "application/json");
        answer.body(full(body.clone())).unwrap()
    })
    .await;
    assert_eq!(refusal(&answer), ("answer_blocked", 403));
    let verdict = answer.extensions().get::<palisade::prompt_guard::AnswerVerdict>();
    assert_eq!(verdict.unwrap().0.action, Outcome::Block);
}

#[tokio::test]
async fn an_origin_is_overlooked_by_name_only() {
    let body =
        r#"{"messages":[{"role":"system","content":"evil"},{"role":"user","content":"hi"}]}"#;
    let remote = || {
        Remote(|_| {
            let finding = Finding::new("x", Category::Custom, 1.0, 0, None);
            ReadyOr::ready(Ok(vec![finding]))
        })
    };
    let skips = Action::Block.insecure_skip(Origin::System);
    for (rule, refused) in [(Rule::from(Action::Block), true), (skips.clone(), false)] {
        let (answer, _) = ask(guard().detector(EVIL, rule.clone()), post(CHAT, body)).await;
        assert_eq!(answer.status() == 403, refused);
        let waits = guard().async_detector(remote(), rule, LIMIT, OnUnavailable::Refuse);
        let (answer, _) = ask(waits, post(CHAT, body)).await;
        assert_eq!(answer.status() == 403, refused);
    }
    let (answer, _) = ask(guard().detector(EVIL, skips), post(CHAT, chat("evil"))).await;
    assert_eq!(answer.status(), 403);
}

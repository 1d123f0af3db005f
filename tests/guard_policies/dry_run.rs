//! Thresholds, exceptions, and rules that are tried out.

use std::time::Duration;

use palisade::{
    future::ReadyOr,
    inference::Origin,
    prompt_guard::{
        Action, Category, OnUnavailable, Outcome, PromptGuardLayerBuilder, Rule, Verdict, When,
    },
};
use serde_json::json;
use tower::Layer as _;

use crate::{
    choice::says,
    guarded::{Panics, Remote},
    support::*,
};

/// Finds what is evil, a key and an address, each with a score of 0.9, and would block or mask it.
fn strict() -> PromptGuardLayerBuilder {
    guard()
        .detector(EVIL, Action::Block)
        .detector(KEY, Action::Redact)
        .detector(MAIL, Action::Pseudonymize)
}

/// As it reached the handler, and what became of it.
async fn asked(builder: PromptGuardLayerBuilder, body: &str) -> (Option<String>, Verdict) {
    let inner = Inner::default();
    let service = builder.build().unwrap().layer(inner.answering(|| says("ok", false)));
    let answer = answered(service, post(CHAT, body.to_owned())).await;
    let verdict = answer.verdict().clone();
    let passed = answer.status() == 200;
    let body = passed.then(|| String::from_utf8(inner.only().body.to_vec()).unwrap());
    (body, verdict)
}

fn outcomes(verdict: &Verdict) -> Vec<(&str, Outcome, bool)> {
    verdict.outcomes().map(|it| (&*it.finding.rule, it.outcome, it.dry_run)).collect()
}

#[tokio::test]
async fn a_dry_run_changes_not_one_byte_and_says_what_it_would_have_done() {
    // Odd spaces and escapes, to be kept.
    let body = r#" {"messages":[ {"role":"user","content":"\u0065vil k-123 a@b.example"} ]} "#;
    let all = [
        ("injection.evil", Outcome::Block, true),
        ("secret.key", Outcome::Sanitize, true),
        ("personal_data.email", Outcome::Sanitize, true),
    ];
    let by_rule = guard()
        .detector(EVIL, Action::Block.dry_run())
        .detector(KEY, Action::Redact.dry_run())
        .detector(MAIL, Action::Pseudonymize.dry_run());
    let by_filter = strict()
        .dry_run("injection")
        .dry_run(Category::Secret)
        .dry_run(("personal_data.email", Origin::User));
    for (dry, action) in [
        (strict().report_only(), Outcome::Block),
        (by_rule, Outcome::Report),
        (by_filter, Outcome::Report),
    ] {
        let (passed, verdict) = asked(dry, body).await;
        assert_eq!(passed.as_deref(), Some(body));
        assert_eq!((verdict.action, outcomes(&verdict)), (action, all.to_vec()));
    }
}

#[tokio::test]
async fn what_is_tried_out_leaves_the_rest_in_force() {
    let body = chat("evil k-123 a@b.example");
    let (passed, verdict) = asked(strict().dry_run("injection.evil"), &body).await;
    let passed = passed.unwrap();
    assert!(passed.contains("evil [KEY] [EMAIL_"), "{passed}");
    assert_eq!(verdict.action, Outcome::Sanitize);
    assert_eq!(
        outcomes(&verdict),
        [
            ("injection.evil", Outcome::Block, true),
            ("secret.key", Outcome::Sanitize, false),
            ("personal_data.email", Outcome::Sanitize, false),
        ]
    );
    let (passed, verdict) =
        asked(strict().dry_run(Category::Secret).dry_run(Category::PersonalData), &body).await;
    assert_eq!((passed, verdict.action), (None, Outcome::Block));
}

#[tokio::test]
async fn a_dry_run_of_one_origin_is_of_that_origin_alone() {
    let guard = || strict().dry_run((Category::Injection, Origin::System));
    let body = |role: &str| json!({"messages": [{"role": role, "content": "evil"}]}).to_string();
    assert_eq!(asked(guard(), &body("system")).await.0, Some(body("system")));
    assert_eq!(asked(guard(), &body("user")).await.0, None);
}

/// The words score 0.9.
#[tokio::test]
async fn thresholds_are_by_category_and_origin() {
    let body =
        |role: &str, text: &str| json!({"messages": [{"role": role, "content": text}]}).to_string();
    let high = || strict().threshold(Category::Injection, 0.95);
    let by_origin = || high().threshold((Category::Injection, Origin::User), 0.9);
    let of_rule = || {
        let rule = Rule::from(Action::Block).threshold(Origin::System, 0.95);
        guard().detector(EVIL, rule).detector(KEY, Action::Block.at(0.95))
    };
    for (guard, role, text, passes) in [
        (high(), "user", "evil", true),
        (high(), "system", "evil", true),
        (by_origin(), "user", "evil", false),
        (by_origin(), "system", "evil", true),
        (of_rule(), "user", "evil", false),
        (of_rule(), "system", "evil", true),
        (of_rule(), "user", "k-123", true),
        // The policy's word goes before the rule's.
        (of_rule().threshold("secret", 0.5), "user", "k-123", false),
        (of_rule().threshold(Origin::System, 0.5), "system", "evil", false),
        (of_rule().except(Category::Injection, Action::Report), "user", "evil", true),
        (strict().except((Category::Secret, Origin::User), Action::Block), "user", "k-123", false),
        (strict().except((Category::Secret, Origin::User), Action::Block), "system", "k-123", true),
    ] {
        let (passed, verdict) = asked(guard, &body(role, text)).await;
        assert_eq!(passed.is_some(), passes, "{role} {text} {verdict:?}");
    }
}

/// Texts that belong together are of their origin where they meet, and what waits is, too.
#[tokio::test]
async fn origins_count_for_what_spans_two_parts_and_for_what_waits() {
    let parts = |role: &str| {
        let part = |text: &str| json!({"type": "text", "text": text});
        json!({"messages": [{"role": role, "content": [part("ev"), part("il")]}]}).to_string()
    };
    let guard = || strict().except(Origin::System, Action::Report);
    assert!(asked(guard(), &parts("system")).await.0.is_some());
    assert!(asked(guard(), &parts("user")).await.0.is_none());

    let remote = || {
        Remote(|prompt: std::sync::Arc<palisade::inference::Prompt>| {
            let found = prompt.segments().map(|segment| {
                palisade::prompt_guard::Finding::new(
                    "remote.x",
                    Category::Custom,
                    0.9,
                    segment.index,
                    None,
                )
            });
            ReadyOr::ready(Ok(found.collect()))
        })
    };
    let guard = || {
        let limit = Duration::from_secs(1);
        crate::guarded::guard()
            .async_detector(remote(), Action::Block, limit, OnUnavailable::Refuse)
            .threshold(Origin::System, 0.95)
    };
    assert!(asked(guard(), &parts("system")).await.0.is_some());
    assert!(asked(guard(), &parts("user")).await.0.is_none());
}

#[tokio::test]
async fn a_detector_that_is_tried_out_may_fail() {
    let fails = || Remote(|_| ReadyOr::ready(Err("down".into())));
    let guard = |rule: Rule| {
        let limit = Duration::from_secs(1);
        guard().detector(Panics, rule.clone()).async_detector(
            fails(),
            rule,
            limit,
            OnUnavailable::Refuse,
        )
    };
    let (passed, verdict) = asked(guard(Action::Block.dry_run()), &chat("hi")).await;
    assert_eq!(passed, Some(chat("hi")));
    assert_eq!(verdict.unavailable, ["panics", "remote"]);
    assert_eq!(verdict.let_through, ["panics", "remote"]);
    assert_eq!(asked(guard(Action::Block.into()), &chat("hi")).await.0, None);
}

#[tokio::test]
async fn answers_pass_a_dry_run_as_they_are() {
    for stream in [false, true] {
        let through = async |builder: PromptGuardLayerBuilder| {
            let answer = if stream {
                || says("so evil a@b.example", true)
            } else {
                || says("so evil a@b.example", false)
            };
            let service = builder.build().unwrap().layer(handler(answer));
            answered(service, post(CHAT, chat("hi"))).await
        };
        let sent = says("so evil a@b.example", stream);
        let sent = http_body_util::BodyExt::collect(sent.into_body()).await.unwrap().to_bytes();
        let out = |evil: Rule, mail: Rule| {
            guard().output_detector(EVIL, evil).output_detector(MAIL, mail)
        };
        let dry = || out(Action::Block.dry_run(), Action::Redact.dry_run());
        let whole = || out(Action::Block.into(), Action::Redact.into()).report_only();
        let by_origin = || {
            let out = out(Action::Block.into(), Action::Redact.into());
            out.dry_run(Origin::Assistant)
        };
        for dry in [dry(), whole(), by_origin()] {
            assert_eq!(through(dry).await.body, sent, "{stream}");
        }
        let masked = through(out(Action::Block.dry_run(), Action::Redact.into())).await.body;
        let masked = String::from_utf8(masked.to_vec()).unwrap();
        assert!(masked.contains("so evil [EMAIL]"), "{masked}");
    }
}

#[tokio::test]
async fn metrics_name_the_policy_and_count_what_a_dry_run_would_have_done() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let told = recorder.handle();
    let local = metrics::set_default_local_recorder(&recorder);
    let named = reports().detector(KEY, Action::Redact.dry_run()).build().unwrap();
    let both = || strict().policy_for(When::path("/chat/completions"), "chat", named.clone());
    for _ in 0..2 {
        through_all(both(), Who::anybody().asks(CHAT, "evil k-123")).await;
    }
    through_all(both(), Who::anybody().asks("/v1/messages", "evil")).await;
    through_all(strict().report_only(), Who::anybody().asks(CHAT, "evil")).await;
    drop(local);
    let told = told.render();
    for expected in [
        r#"palisade_guard_verdicts_total{subject="prompt",action="report",policy="chat"} 2"#,
        r#"palisade_guard_verdicts_total{subject="prompt",action="block",policy="default"} 2"#,
        r#"palisade_guard_findings_total{detector="word",category="injection",policy="chat"} 2"#,
        r#"palisade_guard_dry_run_total{detector="word",category="secret",outcome="sanitize",policy="chat"} 2"#,
        r#"palisade_guard_dry_run_total{detector="word",category="injection",outcome="block",policy="default"} 1"#,
    ] {
        assert!(told.contains(expected), "{expected} in {told}");
    }
    assert!(!told.contains(r#"category="injection",outcome="block",policy="chat""#), "{told}");
}

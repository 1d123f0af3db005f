//! The older turns of a conversation are not scanned again, and nothing stale is believed.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use palisade::{
    inference::Segment,
    prompt_guard::{
        Action, Detector, Finding, PromptGuardLayer, PromptGuardLayerBuilder, Verdict, Views,
    },
};
use serde_json::json;
use tower::{Layer, ServiceExt};

use crate::support::*;

/// Finds what another does, and counts what it is shown.
#[derive(Clone, Debug)]
struct Counted {
    inner: Word,
    calls: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
}

impl Counted {
    fn new(inner: Word) -> Self {
        Self { inner, calls: Arc::default(), bytes: Arc::default() }
    }

    /// What it was shown since the last time: how often, and how many bytes.
    fn shown(&self) -> (usize, usize) {
        (self.calls.swap(0, Ordering::SeqCst), self.bytes.swap(0, Ordering::SeqCst))
    }
}

impl Detector for Counted {
    fn name(&self) -> &'static str {
        "counted"
    }

    fn scan(&self, segment: &Segment<'_>, views: &Views<'_>, findings: &mut Vec<Finding>) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.bytes.fetch_add(segment.text.len(), Ordering::SeqCst);
        self.inner.scan(segment, views, findings);
    }
}

/// A conversation of so many turns, with a tool. Each message is another, of 100 bytes.
fn conversation(turns: usize) -> String {
    let said = |turn: usize, who: &str| format!("{turn:>6} {who:>9} {}", "words ".repeat(14));
    let turns = (0..turns).flat_map(|turn| {
        [
            json!({"role": "user", "content": said(turn, "user")}),
            json!({"role": "assistant", "content": said(turn, "assistant")}),
        ]
    });
    let last = [json!({"role": "user", "content": "and now? ".repeat(11)})];
    let system = [json!({"role": "system", "content": "be kind ".repeat(12)})];
    let messages: Vec<_> = system.into_iter().chain(turns).chain(last).collect();
    let tool = |number: usize| {
        let about = format!("does what nobody else does, {number} times");
        json!({"type": "function", "function": {"name": format!("tool_{number}"), "description": about}})
    };
    let tools: Vec<_> = (0..5).map(tool).collect();
    json!({"messages": messages, "tools": tools}).to_string()
}

async fn code(
    layer: &PromptGuardLayer,
    body: impl Into<bytes::Bytes>,
) -> (Option<&'static str>, Inner) {
    let inner = Inner::default();
    let service = layer.layer(inner.answering(|| http::Response::new(full("ok"))));
    let answer = service.oneshot(post(CHAT, body)).await.unwrap();
    let code = answer.extensions().get::<palisade::Rejection>().map(palisade::Rejection::code);
    (code, inner)
}

fn with(detector: &Counted, action: Action) -> PromptGuardLayerBuilder {
    guard().detector(detector.clone(), action)
}

#[tokio::test]
async fn turn_fifty_costs_what_turn_one_did() {
    let counted = Counted::new(EVIL);
    let layer = with(&counted, Action::Block).build().unwrap();
    code(&layer, conversation(0)).await;
    let first = counted.shown();
    for turn in 1..=50 {
        assert_eq!(code(&layer, conversation(turn)).await.0, None);
        let (calls, bytes) = counted.shown();
        // The turn before as it was answered, and the same words again in a later place.
        assert!(calls <= first.0 && bytes <= first.1, "{turn}: {calls} {bytes} {first:?}");
    }
    // Without a memory each turn costs more.
    let forgetful = with(&counted, Action::Block).remember_texts(0).build().unwrap();
    code(&forgetful, conversation(50)).await;
    assert!(counted.shown().1 > 10 * first.1);
    // One that has changed is looked at.
    let changed = conversation(50).replace("    25      user", "    25      evil");
    assert_eq!(code(&layer, changed).await.0, Some("content_blocked"));
}

#[tokio::test]
async fn what_was_masked_is_masked_again_and_what_blocked_blocks() {
    let counted = Counted::new(MAIL);
    let layer = with(&counted, Action::Redact).build().unwrap();
    for _ in 0..3 {
        let (_, inner) = code(&layer, chat("to a@b.example")).await;
        let arrived = inner.only();
        assert_eq!(arrived.body, chat("to [EMAIL]"));
        assert_eq!(arrived.head.extensions.get::<Verdict>().unwrap().findings.len(), 1);
    }
    assert_eq!(counted.shown().0, 1);
    let counted = Counted::new(EVIL);
    let layer = with(&counted, Action::Block).build().unwrap();
    for _ in 0..3 {
        assert_eq!(code(&layer, chat("an evil deed")).await.0, Some("content_blocked"));
    }
    assert_eq!(counted.shown().0, 3);
}

#[tokio::test]
async fn another_origin_or_turn_or_neighbour_is_another_text() {
    let counted = Counted::new(EVIL);
    let layer = with(&counted, Action::Block).build().unwrap();
    let of = |role: &str| json!({"messages": [{"role": role, "content": "a deed"}]}).to_string();
    for role in ["user", "system", "assistant"] {
        code(&layer, of(role)).await;
        assert_eq!(counted.shown().0, 1, "{role}");
    }
    // Clean alone, and not together.
    let parts = |second: &str| {
        let parts = ["so e", second].map(|text| json!({"type": "text", "text": text}));
        json!({"messages": [{"role": "user", "content": parts}]}).to_string()
    };
    for _ in 0..2 {
        assert_eq!(code(&layer, parts("asy it is")).await.0, None);
        assert_eq!(code(&layer, parts("vil it is")).await.0, Some("content_blocked"));
    }
}

#[derive(Debug)]
struct FailsOnce(AtomicUsize);

impl Detector for FailsOnce {
    fn name(&self) -> &'static str {
        "fails_once"
    }

    fn scan(&self, segment: &Segment<'_>, views: &Views<'_>, findings: &mut Vec<Finding>) {
        assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "a bug");
        EVIL.scan(segment, views, findings);
    }
}

#[tokio::test]
async fn what_a_detector_could_not_tell_is_asked_again() {
    let layer = guard().detector(FailsOnce(AtomicUsize::new(0)), Action::Block).build().unwrap();
    assert_eq!(code(&layer, chat("an evil deed")).await.0, Some("guard_unavailable"));
    assert_eq!(code(&layer, chat("an evil deed")).await.0, Some("content_blocked"));
}

#[tokio::test]
async fn new_rules_are_asked_of_old_texts() {
    let pack = |word: &str| {
        let text = format!(
            "format = 1\nname = 'acme'\nversion = '1'\n[[rules]]\nid = 'x'\nweight = 1\nkeywords = ['{word}']\n"
        );
        palisade::prompt_guard::RulePack::from_toml(&text).unwrap()
    };
    let rules = palisade::prompt_guard::ReloadingRules::new(pack("bluebird")).unwrap();
    let counted = Counted::new(EVIL);
    let layer =
        with(&counted, Action::Block).detector(rules.clone(), Action::Block).build().unwrap();
    for _ in 0..2 {
        assert_eq!(code(&layer, chat("when does redbird ship")).await.0, None);
    }
    assert_eq!(counted.shown().0, 1);
    rules.replace(pack("redbird")).unwrap();
    assert_eq!(code(&layer, chat("when does redbird ship")).await.0, Some("content_blocked"));
    rules.replace(pack("bluebird")).unwrap();
    assert_eq!(code(&layer, chat("when does redbird ship")).await.0, None);
}

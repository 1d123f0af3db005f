//! Whole answers through the guard: what nothing is found in passes byte for byte, and what passes holds nothing that is
//! masked or blocks any more.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use palisade::prompt_guard::{Action, PromptGuardLayer};
use palisade_fuzz::guard::{PATHS, Word, answered};
use serde::de::IgnoredAny;

static GUARD: LazyLock<PromptGuardLayer> = LazyLock::new(|| {
    let guard = PromptGuardLayer::builder()
        .output_detector(Word("hide"), Action::Redact)
        .output_detector(Word("evil"), Action::Block);
    guard.build().unwrap()
});

const TYPES: [&str; 2] = ["application/json", "text/plain"];

fuzz_target!(|input: (u8, &[u8])| {
    let (kind, answer) = input;
    let kind = usize::from(kind);
    let (path, content_type) = (kind % PATHS.len(), TYPES[kind / PATHS.len() % TYPES.len()]);
    let answer = Bytes::copy_from_slice(answer);
    let (status, passed) = answered(&GUARD, path, content_type, &answer, answer.len().max(1));
    if !status.is_success() {
        assert!(matches!(status.as_u16(), 403 | 503), "{status}");
        return;
    }
    let is_json = |data: &Bytes| serde_json::from_slice::<IgnoredAny>(data).is_ok();
    assert!(content_type != TYPES[0] || answer.is_empty() || is_json(&passed));
    let text = String::from_utf8_lossy(&answer);
    if !text.contains("hide") && !text.contains('\\') {
        assert_eq!(passed, answer);
    }
    let again = answered(&GUARD, path, content_type, &passed, passed.len().max(1));
    assert_eq!(again, (status, passed), "something is left to mask");
});

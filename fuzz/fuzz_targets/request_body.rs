//! Request bodies through the guard, in every wire format: what nothing is found in arrives byte for byte, what is masked
//! is read as it was but for the masks, and holds nothing that is masked or blocks any more.
#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use palisade::{
    inference::{Edit, Prompt, ReadErrorKind, ReadLimits},
    prompt_guard::{Action, PromptGuardLayer},
    route::Endpoint,
};
use palisade_fuzz::guard::{Word, forwarded};
use serde::de::IgnoredAny;

static GUARD: LazyLock<PromptGuardLayer> = LazyLock::new(|| {
    let guard = PromptGuardLayer::builder()
        .detector(Word("hide"), Action::Redact)
        .detector(Word("evil"), Action::Block);
    guard.build().unwrap()
});

const ENDPOINTS: [(&str, Endpoint); 6] = [
    ("/v1/chat/completions", Endpoint::OpenAiChat),
    ("/v1/completions", Endpoint::OpenAiCompletions),
    ("/v1/responses", Endpoint::OpenAiResponses),
    ("/v1/embeddings", Endpoint::OpenAiEmbeddings),
    ("/v1/messages", Endpoint::AnthropicMessages),
    ("/generate", Endpoint::Generate),
];

fuzz_target!(|input: (u8, u8, u8, &[u8])| {
    let (endpoint, from, until, body) = input;
    let (path, endpoint) = ENDPOINTS[usize::from(endpoint) % ENDPOINTS.len()];
    let body = Bytes::copy_from_slice(body);
    let read = |body: &Bytes| Prompt::read(endpoint, body.clone(), &ReadLimits::new());
    let passed = forwarded(&GUARD, path, &body);
    let Ok(prompt) = read(&body) else {
        assert!(passed.is_none() || body.is_empty(), "what can't be read passes");
        return;
    };
    // Another parser takes it for JSON, too.
    assert!(serde_json::from_slice::<IgnoredAny>(&body).is_ok());
    let texts: Vec<&str> = prompt.segments().map(|segment| segment.text).collect();
    if let Some(passed) = &passed {
        let clean = !texts.concat().contains("hide") && !texts.join("\n").contains("hide");
        if clean {
            assert_eq!(*passed, body);
        }
        let again = forwarded(&GUARD, path, passed);
        assert_eq!(again.as_ref(), Some(passed), "something is left to mask");
    }
    // Any part of a text can be replaced, and nothing else changes.
    let (from, until) = (usize::from(from.min(until)), usize::from(from.max(until)));
    for (index, text) in texts.iter().enumerate().take(8) {
        let edit = Edit::new(index, from..until, MASK);
        let rewritten = prompt.rewrite(&[edit]);
        let is_json = text.trim_start().starts_with(['{', '[']);
        let read = match read(&rewritten) {
            Ok(read) => read,
            // Two names of members became alike.
            Err(error) => {
                assert_eq!(error.kind(), ReadErrorKind::DuplicateKey);
                continue;
            }
        };
        let now: Vec<&str> = read.segments().map(|segment| segment.text).collect();
        // What stands under another name than one of an identifier is a text; and where the type of a part is
        // replaced that made it a tool's result, it is none that is known.
        assert!(now.len() >= texts.len() || text.ends_with("tool_result"));
        if now.len() != texts.len() {
            continue;
        }
        for (other, (now, before)) in now.iter().zip(&texts).enumerate() {
            if other != index {
                assert_eq!(now, before);
            } else if !is_json {
                assert_eq!(*now, replaced(text, from, until));
            }
        }
    }
});

/// The text with what stands there replaced, whole characters only.
fn replaced(text: &str, from: usize, until: usize) -> String {
    let mut from = from.min(text.len());
    while !text.is_char_boundary(from) {
        from -= 1;
    }
    let mut until = until.clamp(from, text.len());
    while !text.is_char_boundary(until) {
        until += 1;
    }
    format!("{}{MASK}{}", &text[..from], &text[until..])
}

/// No word of a wire format.
const MASK: &str = "[a \"b\\é\n]";

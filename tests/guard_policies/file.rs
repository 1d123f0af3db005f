//! Policies from files, read again while the server runs.

use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use http::Request;
use http_body_util::BodyExt;
use palisade::{
    body::RequestBody,
    prompt_guard::{DetectorSet, PolicyFile, PromptGuardLayer, When},
};
use serde_json::json;
use tower::{Layer, service_fn};

use crate::{choice::says, support::*};

fn detectors() -> DetectorSet {
    DetectorSet::new().detector("evil", EVIL).detector("mail", MAIL)
}

/// A file that is removed in the end.
struct Policies(PathBuf);

impl Policies {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("palisade-policies-{name}-{}.toml", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        let head = "format = 1\nname = 'acme'\nversion = '1'\n";
        std::fs::write(&self.0, format!("{head}{text}")).unwrap();
    }

    fn read(&self) -> PolicyFile {
        PolicyFile::from_file(&self.0, &detectors()).unwrap()
    }

    fn layer(&self) -> PromptGuardLayer {
        guard().policy_file(self.read()).build().unwrap()
    }
}

impl Drop for Policies {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const BLOCKS: &str = "[default.prompt]\nevil = { action = 'block' }\n";
const REPORTS: &str = "[default.prompt]\nevil = { action = 'report' }\n";

async fn status(layer: &PromptGuardLayer) -> u16 {
    through(layer.clone(), post(CHAT, chat("evil"))).await.status()
}

#[tokio::test]
async fn a_file_says_who_is_held_to_what() {
    let text = "
        format = 1
        name = 'acme'
        version = '1'

        [default.prompt]
        evil = { action = 'block' }
        mail = { action = 'redact', dry_run = true }

        [[policies]]
        name = 'paid'
        when = { all = [{ tier = 'paid' }, { not = { scope = 'strict' } }] }
        [policies.prompt]
        evil = { action = 'report' }

        [[policies]]
        name = 'edge'
        when = { any = [{ peer = 'spiffe://prod.example/ns/edge/sa/outsider' }, { claim = { name = 'org', one_of = ['acme'] } }] }
        [policies.prompt]
        evil = { action = 'block' }
        [[policies.except]]
        rule = 'injection.evil'
        threshold = 0.95

        [[policies]]
        name = 'by_function'
    ";
    let read = || PolicyFile::from_toml(text, &detectors()).unwrap();
    let guard = || {
        guard()
            .policy_for(When::path("/generate"), "given", reports().build().unwrap())
            .policy_by(|_, target| (target.path() == "/by/v1/messages").then_some("by_function"))
            .policy_file(read())
    };
    let paid = || Who::with(json!({"tier": "paid"}));
    for (who, path, text, policy) in [
        (paid(), CHAT, "evil", "paid"),
        (Who::with(json!({"tier": "paid", "scope": "strict"})), CHAT, "evil", "content_blocked"),
        (Who::anybody().outside(), CHAT, "evil", "edge"),
        (Who::with(json!({"org": "acme"})), CHAT, "evil", "edge"),
        (Who::anybody(), CHAT, "evil", "content_blocked"),
        (Who::anybody(), CHAT, "a@b.example", "default"),
        (Who::anybody(), "/by/v1/messages", "evil", "by_function"),
    ] {
        let answer = through_all(guard(), who.asks(path, text)).await;
        let policy_of = answer.head.extensions.get::<palisade::Rejection>().map(|r| r.code());
        if policy == "by_function" {
            // It has no detector, so that it has nothing to say.
            assert_eq!(answer.status(), 200);
            continue;
        }
        assert_eq!(policy_of.unwrap_or_else(|| answer.policy()), policy, "{path} {text}");
    }
}

#[test]
fn a_name_is_given_once() {
    let text = "format = 1\nname = 'a'\nversion = '1'\n[[policies]]\nname = 'given'\n";
    let file = PolicyFile::from_toml(text, &detectors()).unwrap();
    let guard = guard().policy("given", reports().build().unwrap()).policy_file(file);
    assert!(guard.build().unwrap_err().to_string().contains("given is taken"));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changes_is_read_again() {
    let file = Policies::new("watched", BLOCKS);
    let layer = file.layer();
    assert_eq!(status(&layer).await, 403);
    file.write(REPORTS);
    while status(&layer).await != 200 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // One that can't be used changes nothing; nor does one that is gone.
    file.write("[default.prompt]\nnothing = { action = 'report' }\n");
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(status(&layer).await, 200);
    }
    std::fs::remove_file(&file.0).unwrap();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(status(&layer).await, 200);
    }
    file.write(BLOCKS);
    while status(&layer).await != 403 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_file_is_read_again_when_told() {
    let file = Policies::new("told", BLOCKS);
    let layer = file.layer();
    file.write(REPORTS);
    assert_eq!(status(&layer).await, 403);
    layer.reload_policies().unwrap();
    assert_eq!(status(&layer).await, 200);
    file.write("[[policies]]\nname = 'a'\nwhen = { scopes = ['x'] }\n");
    let error = layer.reload_policies().unwrap_err().to_string();
    assert!(error.contains(".toml") && error.contains("line 6: "), "{error}");
    assert_eq!(status(&layer).await, 200);
    // A default that is taken out of the file is that of the builder again.
    file.write("[[policies]]\nname = 'a'\n");
    layer.reload_policies().unwrap();
    assert_eq!(status(&layer).await, 200);
    file.write(BLOCKS);
    layer.reload_policies().unwrap();
    assert_eq!(status(&layer).await, 403);
}

#[tokio::test]
async fn a_request_keeps_the_policy_that_it_began_with() {
    for stream in [false, true] {
        for (before, after, blocked) in [("block", "report", true), ("report", "block", false)] {
            let policy = |action| format!("[default.answer]\nevil = {{ action = '{action}' }}\n");
            let file = Arc::new(Policies::new("kept", &policy(before)));
            let layer = file.layer();
            let handle = layer.clone();
            let after = policy(after);
            let service = layer.layer(service_fn(move |request: Request<RequestBody<AnyBody>>| {
                let (handle, file, after) = (handle.clone(), Arc::clone(&file), after.clone());
                async move {
                    request.into_body().collect().await.unwrap();
                    file.write(&after);
                    handle.reload_policies().unwrap();
                    Ok::<_, Infallible>(says("so evil", stream))
                }
            }));
            let answer = answered(service, post(CHAT, chat("hi"))).await;
            let body = String::from_utf8(answer.body.to_vec()).unwrap();
            assert_eq!(body.contains("answer_blocked"), blocked, "{stream}: {body}");
        }
    }
}

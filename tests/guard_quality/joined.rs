//! An attack that is cut over two parts of a message is found, and two ordinary texts side by side
//! make no attack.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use palisade::prompt_guard::{Action, InjectionRules, PersonalData, PromptGuardLayer, Secrets};
use std::{convert::Infallible, sync::Arc};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::vectors::{files, is_flagged, lines, percent};

/// Percent of the attacks found whole that must be found in two parts.
const RETAINED: f64 = 84.0;
/// Percent of ordinary pairs that may be flagged though neither is alone.
const FALSE_POSITIVES: f64 = 0.3;

/// How many texts of each set are tried.
const SAMPLE: usize = 120;

async fn is_refused(guard: &PromptGuardLayer, parts: &[&str]) -> bool {
    let parts: Vec<_> =
        parts.iter().map(|text| serde_json::json!({"role": "user", "content": text})).collect();
    let body = serde_json::json!({"messages": parts}).to_string();
    let service = guard.layer(service_fn(async |_: Request<_>| {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
    }));
    let request = Request::post("/v1/chat/completions").body(Full::<Bytes>::from(body)).unwrap();
    service.oneshot(request).await.unwrap().status() != 200
}

#[tokio::test]
async fn what_is_cut_in_two_is_found_and_what_is_put_together_is_not() {
    let rules = Arc::new(InjectionRules::builtin().unwrap());
    let secrets = Arc::new(Secrets::builtin().unwrap());
    let personal = Arc::new(PersonalData::builder().build().unwrap());
    let attack =
        PromptGuardLayer::builder().detector(Arc::clone(&rules), Action::Block).build().unwrap();
    let all = PromptGuardLayer::builder()
        .detector(Arc::clone(&rules), Action::Block)
        .detector(Arc::clone(&secrets), Action::Block)
        .detector(Arc::clone(&personal), Action::Block)
        .build()
        .unwrap();
    let (mut whole, mut at_word, mut in_word) = (0, 0, 0);
    let (mut pairs, mut wrong) = (0, 0);
    for file in files("prompts") {
        let lines = lines(&file);
        let step = (lines.len() / SAMPLE).max(1);
        let mut before: Option<&str> = None;
        for line in lines.iter().step_by(step) {
            let text = line["text"].as_str().unwrap();
            if line["label"].as_u64() == Some(1) {
                if text.len() > 600 || !text.is_ascii() || !is_flagged(&*rules, text) {
                    continue;
                }
                whole += 1;
                let middle = text.len() / 2;
                let space = text[middle..].find(' ').map_or(middle, |at| middle + at);
                let (one, two) = text.split_at(space);
                at_word += usize::from(is_refused(&attack, &[one, two.trim_start()]).await);
                let (one, two) = text.split_at(middle);
                in_word += usize::from(is_refused(&attack, &[one, two]).await);
                continue;
            }
            if is_refused(&all, &[text]).await {
                continue;
            }
            if let Some(before) = before.replace(text) {
                pairs += 1;
                wrong += usize::from(is_refused(&all, &[before, text]).await);
            }
        }
    }
    println!("found in two parts, cut at a word: {at_word}/{whole}, within one: {in_word}/{whole}");
    println!("ordinary pairs flagged: {wrong}/{pairs}");
    if whole > 0 {
        assert!(percent(at_word, whole) >= RETAINED, "{at_word} of {whole}");
        assert!(percent(in_word, whole) >= RETAINED, "{in_word} of {whole}");
        assert!(percent(wrong, pairs) <= FALSE_POSITIVES, "{wrong} of {pairs}");
    }
}

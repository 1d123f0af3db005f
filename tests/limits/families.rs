//! How callers are told of their limits, by choice of the application.

use palisade::rate_limit::{HeaderFamily, Tier};

use crate::support::{answer, ask_at, builder};

/// The names of the headers that tell of limits: of an admitted answer, and of a refusal.
async fn told(families: Option<&[HeaderFamily]>, path: &str) -> [Vec<String>; 2] {
    let mut builder = builder(Tier::new().requests_per_minute(1));
    if let Some(families) = families {
        builder = builder.header_families(families.iter().copied());
    }
    let layer = builder.build().unwrap();
    let admitted = ask_at(&layer, path, async |_| answer("")).await;
    let refused = ask_at(&layer, path, async |_| answer("")).await;
    assert_eq!((admitted.status().as_u16(), refused.status().as_u16()), (200, 429));
    [admitted, refused].map(|answer| {
        let names = answer.headers().keys().map(|name| name.as_str().to_owned());
        let mut names: Vec<_> = names.filter(|name| !name.starts_with("content-")).collect();
        names.sort();
        names
    })
}

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

#[tokio::test]
async fn the_endpoints_own_family_and_the_ietf_drafts_are_the_default() {
    let default = [HeaderFamily::Endpoint, HeaderFamily::IetfDraft];
    for path in [CHAT, MESSAGES, "/generate"] {
        assert_eq!(told(None, path).await, told(Some(&default), path).await);
    }
    let [admitted, _] = told(None, MESSAGES).await;
    assert!(admitted.contains(&"anthropic-ratelimit-requests-limit".into()), "{admitted:?}");
    assert!(admitted.contains(&"ratelimit-policy".into()), "{admitted:?}");
}

#[tokio::test]
async fn a_family_is_told_whatever_the_endpoint_is() {
    let [admitted, refused] = told(Some(&[HeaderFamily::GitHub]), MESSAGES).await;
    let github = ["limit", "remaining", "reset", "resource"].map(|n| format!("x-ratelimit-{n}"));
    assert_eq!(admitted, github);
    let with_retry = ["retry-after", "retry-after-ms", "x-ratelimit-limit"];
    assert_eq!(refused[..3], with_retry);
}

#[tokio::test]
async fn without_a_family_a_refusal_still_says_when_to_come_back() {
    let [admitted, refused] = told(Some(&[]), CHAT).await;
    assert!(admitted.is_empty(), "{admitted:?}");
    assert_eq!(refused, ["retry-after", "retry-after-ms", "x-should-retry"]);
}

/// The OpenAI and Anthropic SDKs ask before they retry by themselves; others do not.
#[tokio::test]
async fn sdks_are_told_whether_to_retry() {
    for (tier, path, expected) in [
        (Tier::new().requests_per_minute(1), CHAT, Some("true")),
        (Tier::new().requests_per_minute(1), MESSAGES, Some("true")),
        (Tier::new().requests_per_minute(1), "/generate", None),
        (Tier::new().requests_per_day(1), CHAT, Some("false")),
        (Tier::new().requests_per_day(1), MESSAGES, Some("false")),
        (Tier::new().requests_per_day(1), "/generate", Some("false")),
    ] {
        let layer = builder(tier).build().unwrap();
        ask_at(&layer, path, async |_| answer("")).await;
        let refused = ask_at(&layer, path, async |_| answer("")).await;
        let told = refused.headers().get("x-should-retry").map(|value| value.to_str().unwrap());
        assert_eq!(told, expected, "{path}");
    }
}

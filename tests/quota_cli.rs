//! The example that shows and resets a caller's quotas, on a real server.
#![cfg(all(feature = "full", feature = "test-util"))]
#![allow(clippy::unwrap_used)]

mod support;

use std::{convert::Infallible, path::Path, process::Command, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use palisade::{
    Identity,
    identity::UserIdentity,
    rate_limit::{Scope, Tier, TierLimit, TieredRateLimitLayer},
    store::{Pepper, RedisStore, Stores},
};
use support::redis::RedisServer;
use tower::{Layer, ServiceExt, service_fn};

#[tokio::test(flavor = "multi_thread")]
async fn support_sees_what_is_left_and_resets_it() {
    let Some(server) = RedisServer::start() else { return };
    let file =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("quotas-{}.toml", std::process::id()));
    std::fs::write(
        &file,
        "[free]\nrequests = { quota = 5, seconds = 3600 }\n\
         limits = [{ unit = 'requests', quota = 50, seconds = 3600, per = ['organisation'] }, \
                   { unit = 'requests', quota = 500, seconds = 3600, per = ['tier'] }, \
                   { unit = 'requests', quota = 7, seconds = 3600, each_model = ['dear'], shadow = true }]\n",
    )
    .unwrap();
    let store = RedisStore::builder(&server.url()).deadline(Duration::from_secs(5));
    let stores = Stores::new(Arc::new(store.build().unwrap()), Pepper::from_secret("pepper"));
    let hour = Duration::from_secs(3600);
    let tier = Tier::new()
        .requests(5, hour)
        .limit(TierLimit::requests(50, hour).per([Scope::Organisation]))
        .limit(TierLimit::requests(500, hour).per([Scope::Tier]));
    let layer = TieredRateLimitLayer::builder(&stores).tier("free", tier).fallback_tier("free");
    let layer = layer.build().unwrap();
    let ask = async || {
        let service = service_fn(async |_: Request<()>| {
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let user = UserIdentity::asserted("https://login.example", "alice");
        let user = user.with_claims(r#"{"org_id":"acme"}"#);
        let mut request = Request::post("/generate").body(()).unwrap();
        request.extensions_mut().insert(Identity::asserted(user));
        layer.layer(service).oneshot(request).await.unwrap().status().as_u16()
    };
    for expected in [200, 200, 200, 200, 200, 429] {
        assert_eq!(ask().await, expected);
    }

    let cli = |command: &str, subject: &str| {
        let example = std::env::current_exe().unwrap();
        let example = example.parent().unwrap().parent().unwrap().join("examples/quota_cli");
        let output = Command::new(example)
            .args(["--store", &server.url(), "--pepper", "pepper", "--tiers"])
            .arg(&file)
            .args(["--issuer", "https://login.example", "--tier", "free"])
            .args(["--organisation", "acme", command, subject])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let left = |line: &str| line.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap();
        let last = text.lines().last().unwrap();
        assert!(last.ends_with("  model *  only counted"), "{last}");
        text.lines().skip(1).map(left).collect::<Vec<_>>()
    };
    assert_eq!(cli("show", "alice"), [0, 45, 495, 7, 7]);
    assert_eq!(cli("show", "bob"), [5, 45, 495, 7, 7]);
    assert_eq!(cli("reset", "alice"), [5, 50, 495, 7, 7]);
    assert_eq!(ask().await, 200);
    assert_eq!(cli("show", "alice"), [4, 49, 494, 7, 7]);
    std::fs::remove_file(file).unwrap();
}

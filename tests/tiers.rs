//! Who shares a limit, what it counts, and tiers that change while the server runs.
#![cfg(all(
    feature = "rate-limit",
    feature = "peer-cert",
    feature = "redis",
    feature = "test-util"
))]
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

mod pki;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use palisade::{
    Identity, Rejection, RejectionKind, Stack, UsageMeter,
    clock::ManualClock,
    connection::TlsPeer,
    identity::UserIdentity,
    network::ClientAddress,
    peer_cert::{PeerCertLayer, PeerRule},
    rate_limit::{
        Calendar, PreparedTier, Scope, Tier, TierLimit, TierOverrides, TieredRateLimitLayer,
        TieredRateLimitLayerBuilder,
    },
    reservation::TokenUsage,
    store::{BreakerStore, LimiterStore, MemoryStore, Outage, Pepper, RedisStore, Stores},
};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

const MINUTE: Duration = Duration::from_secs(60);

/// A store whose time stands still.
fn stores() -> Stores {
    let store = MemoryStore::builder().clock(Arc::new(ManualClock::default())).build().unwrap();
    Stores::new(Arc::new(store), Pepper::random())
}

fn builder(tier: Tier) -> TieredRateLimitLayerBuilder {
    TieredRateLimitLayer::builder(&stores()).tier("free", tier).fallback_tier("free")
}

fn layer(tier: Tier) -> TieredRateLimitLayer {
    builder(tier).build().unwrap()
}

/// Whoever is described by `subject@organisation address`, each part but the first optional.
fn from(who: &str) -> Request<()> {
    let (user, address) = who.split_once(' ').unwrap_or((who, ""));
    let (subject, organisation) = user.split_once('@').unwrap_or((user, ""));
    let claims = serde_json::json!({ "org_id": organisation }).to_string();
    let user = UserIdentity::asserted("https://login.example", subject).with_claims(&claims);
    let mut request = Request::post("/generate").body(()).unwrap();
    request.extensions_mut().insert(Identity::asserted(user));
    if !address.is_empty() {
        let address: SocketAddr = address.parse().unwrap();
        request.extensions_mut().insert(address);
    }
    request
}

async fn ask(layer: &TieredRateLimitLayer, request: Request<()>) -> Response<Bytes> {
    let service = service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let (parts, body) = layer.layer(service).oneshot(request).await.unwrap().into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

async fn status(layer: &TieredRateLimitLayer, who: &str) -> u16 {
    ask(layer, from(who)).await.status().as_u16()
}

#[tokio::test]
async fn each_scope_counts_those_who_share_it_together() {
    let two = |scopes: &[Scope]| {
        layer(Tier::new().limit(TierLimit::requests(2, MINUTE).per(scopes.iter().copied())))
    };
    // Who asks a third time, after the first two, and is refused; and who is not.
    for (scopes, first, refused, admitted) in [
        (&[Scope::Subject][..], ["a@x", "a@y"], "a@z", "b@x"),
        (&[Scope::Organisation], ["a@x", "b@x"], "c@x", "a@y"),
        // Nobody's organisation is not one that all such callers share.
        (&[Scope::Organisation], ["a", "a"], "a", "b"),
        (
            &[Scope::Network],
            ["a 192.0.2.1:1", "b [::ffff:192.0.2.1]:2"],
            "c 192.0.2.1:3",
            "a 192.0.2.2:1",
        ),
        (
            &[Scope::Network],
            ["a [2001:db8::1]:1", "b [2001:db8::2]:1"],
            "c [2001:db8::3]:1",
            "a [2001:db8:0:1::1]:1",
        ),
        (
            &[Scope::Site],
            ["a [2001:db8::1]:1", "b [2001:db8:0:1::1]:1"],
            "c [2001:db8:0:2::1]:1",
            "a [2001:db8:1::1]:1",
        ),
        (
            &[Scope::Subject, Scope::Network],
            ["a 192.0.2.1:1", "a 192.0.2.1:2"],
            "a 192.0.2.1:3",
            "a 192.0.2.2:1",
        ),
    ] {
        let layer = two(scopes);
        for who in first {
            assert_eq!(status(&layer, who).await, 200, "{scopes:?} {who}");
        }
        assert_eq!(status(&layer, refused).await, 429, "{scopes:?} {refused}");
        assert_eq!(status(&layer, admitted).await, 200, "{scopes:?} {admitted}");
    }
}

/// "Your limit" and "our capacity" are different answers.
#[tokio::test]
async fn a_pool_that_is_used_up_is_the_servers_want_and_tells_nothing_of_others() {
    for scope in [Scope::Tier, Scope::Global] {
        let layer = layer(
            Tier::new().requests_per_minute(5).limit(TierLimit::requests(2, MINUTE).per([scope])),
        );
        let admitted = ask(&layer, from("a")).await;
        assert_eq!(admitted.headers()["x-ratelimit-limit-requests"], "5");
        assert!(!format!("{:?}", admitted.headers()).contains(";q=2"));
        assert_eq!(status(&layer, "b").await, 200);
        let refused = ask(&layer, from("c")).await;
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["retry-after"], "30");
        let rejection = refused.extensions().get::<Rejection>().unwrap();
        assert_eq!(rejection.code(), "capacity_exhausted");
        // The pool's refusal has charged the caller nothing.
        let own = &refused.headers()["x-ratelimit-remaining-requests"];
        assert_eq!(own, "5");
    }
}

#[tokio::test]
async fn tiers_have_pools_of_their_own_and_share_the_global_ones() {
    let with = |scope| Tier::new().limit(TierLimit::requests(1, MINUTE).per([scope]));
    for (scope, expected) in [(Scope::Tier, 200), (Scope::Global, 503)] {
        let layer = TieredRateLimitLayer::builder(&stores())
            .tier("free", with(scope))
            .tier("paid", with(scope))
            .tier_by(|identity| {
                Some(if identity.user()?.subject() == "a" { "free" } else { "paid" })
            })
            .build()
            .unwrap();
        assert_eq!(status(&layer, "a").await, 200);
        assert_eq!(status(&layer, "b").await, expected);
    }
}

#[tokio::test]
async fn a_limit_per_network_refuses_where_the_server_tells_none_and_reads_trusted_proxies() {
    let tier = || Tier::new().limit(TierLimit::requests(1, MINUTE).per([Scope::Network]));
    let refused = ask(&layer(tier()), from("a")).await;
    assert_eq!(refused.status(), 500);
    let behind = ClientAddress::behind(["10.0.0.0/8"]).unwrap();
    let layer = builder(tier()).client_address(behind).build().unwrap();
    let forwarded = async |by: &str, list: &str| {
        let mut request = from(&format!("a {by}:1"));
        request.headers_mut().insert("x-forwarded-for", list.parse().unwrap());
        ask(&layer, request).await.status().as_u16()
    };
    assert_eq!(forwarded("10.0.0.1", "6.6.6.1, 198.51.100.1").await, 200);
    assert_eq!(forwarded("10.0.0.1", "6.6.6.2, 198.51.100.1").await, 429);
    assert_eq!(forwarded("10.0.0.1", "6.6.6.2, 198.51.100.2").await, 200);
    // Who is no proxy chooses no network.
    assert_eq!(forwarded("192.0.2.9", "198.51.100.3").await, 200);
    assert_eq!(forwarded("192.0.2.9", "198.51.100.4").await, 429);
}

#[tokio::test]
async fn workloads_without_users_have_limits_too() {
    let ca = pki::Authority::new("ca");
    let peers = PeerCertLayer::builder()
        .allow(PeerRule::trust_domain("prod.example").unwrap())
        .build()
        .unwrap();
    let tier = Tier::new().limit(TierLimit::requests(1, MINUTE).per([Scope::Workload]));
    let by_workload = TieredRateLimitLayer::builder(&stores())
        .tier("internal", tier.clone())
        .tier_by(|_| Some("internal"))
        .build()
        .unwrap();
    let connection = |id: &str| {
        let chain: Arc<[_]> = ca.workload(id).chain().into();
        TlsPeer::verified("192.0.2.1:1".parse().unwrap(), Some(chain.into()))
    };
    let service =
        ServiceBuilder::new().layer(peers).layer(by_workload).service_fn(async |_: Request<()>| {
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
    let ask = async |peer: TlsPeer| {
        let request = Request::post("/generate").extension(peer).body(()).unwrap();
        service.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    assert_eq!(ask(connection(pki::GATEWAY)).await, 200);
    // Another certificate of the same workload.
    assert_eq!(ask(connection(pki::GATEWAY)).await, 429);
    assert_eq!(ask(connection(pki::OUTSIDER)).await, 200);
    // Without the layer that tells workloads, and without users where tokens name the tier.
    let asked = Request::post("/generate").body(()).unwrap();
    assert_eq!(crate::ask(&layer(tier), asked).await.status(), 500);
}

#[tokio::test]
async fn prompts_and_answers_have_quotas_of_their_own() {
    let tier = Tier::new()
        .limit(TierLimit::input_tokens(1000, MINUTE))
        .limit(TierLimit::output_tokens(500, MINUTE))
        .limit(TierLimit::tokens(1200, MINUTE).per([Scope::Organisation]));
    let layer = builder(tier).default_input_tokens(100).default_output_tokens(100).build().unwrap();
    let run = async |estimate: TokenUsage, used: TokenUsage| {
        let service = service_fn(move |request: Request<()>| async move {
            let meter = UsageMeter::of(request.extensions()).unwrap().clone();
            let answer = match meter.refine(estimate).await {
                Ok(()) => Response::new(Empty::<Bytes>::new()),
                Err(rejection) => {
                    assert_eq!(rejection.kind(), RejectionKind::RateLimited);
                    Response::builder().status(429).body(Empty::new()).unwrap()
                }
            };
            meter.report(used);
            Ok::<_, Infallible>(answer)
        });
        let response = layer.layer(service).oneshot(from("a@x")).await.unwrap();
        let status = response.status().as_u16();
        response.into_body().collect().await.unwrap();
        status
    };
    let prompts_left = async || {
        let mut request = from("a@x");
        *request.uri_mut() = "/v1/messages".parse().unwrap();
        request.headers_mut().insert("content-length", "0".parse().unwrap());
        let answer = ask(&layer, request).await;
        let left = &answer.headers()["anthropic-ratelimit-input-tokens-remaining"];
        left.to_str().unwrap().parse::<u64>().unwrap()
    };
    // Less of the answer than was held, and more of the prompt.
    assert_eq!(run(TokenUsage::new(700, 50), TokenUsage::new(650, 40)).await, 200);
    assert_eq!(prompts_left().await, 350);
    assert_eq!(run(TokenUsage::new(400, 10), TokenUsage::new(0, 0)).await, 429);
    assert_eq!(prompts_left().await, 350);
    assert_eq!(run(TokenUsage::new(300, 450), TokenUsage::new(0, 0)).await, 429);
}

/// A request that has no room for its whole answer gets a shorter one, in the place of none.
#[tokio::test]
async fn fewer_tokens_of_an_answer_are_granted_where_there_is_no_room_for_all() {
    let tier = Tier::new()
        .tokens_per_minute(1000)
        .limit(TierLimit::output_tokens(600, MINUTE).per([Scope::Organisation]));
    let builder = || builder(tier.clone()).default_input_tokens(0).default_output_tokens(10);
    let wants = async |layer: &TieredRateLimitLayer, input, output| {
        let service = service_fn(move |request: Request<()>| async move {
            let meter = UsageMeter::of(request.extensions()).unwrap().clone();
            assert_eq!(meter.granted_output_tokens(), None);
            let refined = meter.refine(TokenUsage::new(input, output)).await;
            let granted = refined.ok().and(meter.granted_output_tokens()).unwrap_or(0);
            // The engine produces all that it may.
            meter.report(TokenUsage::new(if granted > 0 { input } else { 0 }, granted));
            let answer = Response::builder().header("granted", granted).body(Empty::new());
            Ok::<Response<Empty<Bytes>>, Infallible>(answer.unwrap())
        });
        let response = layer.layer(service).oneshot(from("a@x")).await.unwrap();
        let granted: u64 = response.headers()["granted"].to_str().unwrap().parse().unwrap();
        response.into_body().collect().await.unwrap();
        granted
    };
    let layer = builder().grant_fewer_output_tokens(50).build().unwrap();
    assert_eq!(wants(&layer, 100, 200).await, 200);
    // The organisation's 400 are fewer than the caller's 700 less the prompt.
    assert_eq!(wants(&layer, 200, 5000).await, 400);
    let layer = builder().grant_fewer_output_tokens(50).build().unwrap();
    // The prompt leaves too few.
    assert_eq!(wants(&layer, 960, 500).await, 0);
    assert_eq!(wants(&layer, 950, 500).await, 50);
    let strict = builder().build().unwrap();
    assert_eq!(wants(&strict, 100, 5000).await, 0);
    assert_eq!(wants(&strict, 100, 600).await, 600);
}

/// Before anybody is known, networks are, and the owner of a claimed identity pays for nothing.
#[tokio::test]
async fn networks_are_limited_before_anybody_is_known() {
    let store = stores();
    let of = |limit: TierLimit| {
        TieredRateLimitLayer::before_authentication(&store, Tier::new().limit(limit))
    };
    let outer = of(TierLimit::requests(2, MINUTE).per([Scope::Network])).build().unwrap();
    let inner = TieredRateLimitLayer::builder(&store)
        .tier("free", Tier::new().requests_per_minute(9))
        .fallback_tier("free")
        .build()
        .unwrap();
    // In the place of JwtAuthLayer: a token is who it says, none is refused.
    let auth = tower::util::MapRequestLayer::new(|mut request: Request<()>| {
        assert!(UsageMeter::of(request.extensions()).is_none());
        let user = UserIdentity::asserted("https://login.example", "a");
        request.extensions_mut().insert(Identity::asserted(user));
        request
    });
    let stack = Stack::new().rate_limit(inner).jwt(auth).before_authentication(outer.clone());
    let service = ServiceBuilder::new().layer(stack).service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let ask = async |address: &str| {
        let address: SocketAddr = address.parse().unwrap();
        let request = Request::post("/generate").extension(address).body(()).unwrap();
        service.clone().oneshot(request).await.unwrap()
    };
    for expected in ["8", "7"] {
        let answer = ask("192.0.2.1:1").await;
        assert_eq!(answer.headers()["x-ratelimit-remaining-requests"], expected);
    }
    let refused = ask("192.0.2.1:2").await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "30");
    assert_eq!(ask("192.0.2.2:1").await.headers()["x-ratelimit-remaining-requests"], "6");
    for bad in [
        TierLimit::requests(1, MINUTE),
        TierLimit::requests(1, MINUTE).per([Scope::Network, Scope::Organisation]),
        TierLimit::tokens(1, MINUTE).per([Scope::Network]),
    ] {
        assert!(of(bad.clone()).build().is_err());
        let good = || of(TierLimit::requests(1, MINUTE).per([Scope::Global]));
        let bad = vec![("anybody".to_owned(), Tier::new().limit(bad))];
        // Also when it comes later, or from elsewhere.
        let replaced = outer.replace_tiers(bad.clone()).unwrap_err();
        assert!(replaced.to_string().contains("before_authentication"), "{replaced}");
        let beside = bad.into_iter().map(|(_, tier)| ("others".to_owned(), tier));
        assert!(good().tiers(beside).build().is_err());
    }
}

#[tokio::test]
async fn without_its_store_each_tier_does_what_it_says() {
    // Nobody listens there.
    let redis = RedisStore::builder("redis://127.0.0.1:1").build().unwrap();
    let store: Arc<dyn LimiterStore> =
        Arc::new(BreakerStore::builder(redis).instances(2).build().unwrap());
    let memory = stores();
    let facts = (Arc::clone(memory.facts()), Arc::clone(memory.records()));
    let stores = Stores::separate(store, facts.0, facts.1, Pepper::random());
    let tier = |outage| Tier::new().requests_per_minute(4).on_outage(outage);
    let layer = TieredRateLimitLayer::builder(&stores)
        .tier("strict", tier(Outage::Refuse))
        .tier("shared", tier(Outage::LocalShare))
        .tier("open", tier(Outage::InsecureAdmit))
        .tier_by(|identity| identity.user().map(UserIdentity::subject))
        .build()
        .unwrap();
    for _ in 0..20 {
        let refused = ask(&layer, from("strict")).await;
        assert_eq!(refused.status(), 503);
        assert!(refused.headers().contains_key("retry-after"));
        assert_eq!(status(&layer, "open").await, 200);
    }
    for remaining in ["1", "0"] {
        let answer = ask(&layer, from("shared")).await;
        assert_eq!(answer.headers()["x-ratelimit-mode"], "degraded");
        assert_eq!(answer.headers()["x-ratelimit-remaining-requests"], remaining);
    }
    assert_eq!(status(&layer, "shared").await, 429);
}

#[tokio::test]
async fn a_quota_by_the_calendar_begins_anew_at_midnight_where_the_customer_is() {
    // Half an hour before midnight, an hour ahead of UTC.
    const MIDNIGHT: u64 = 20_834 * 86_400 - 3600;
    let clock = Arc::new(ManualClock::at(Duration::from_secs(MIDNIGHT - 1800)));
    let store = MemoryStore::builder().clock(Arc::clone(&clock) as _).build().unwrap();
    let stores = Stores::new(Arc::new(store), Pepper::random());
    let day = Calendar::day().utc_offset_minutes(60);
    let tier = Tier::new().limit(TierLimit::requests(2, day)).limit(TierLimit::tokens(2000, day));
    let layer = TieredRateLimitLayer::builder(&stores)
        .tier("free", tier)
        .fallback_tier("free")
        .clock(Arc::clone(&clock) as _)
        .build()
        .unwrap();
    let answer = ask(&layer, from("a")).await;
    assert_eq!(answer.headers()["x-ratelimit-reset-requests"], "30m0s");
    let policy = answer.headers()["ratelimit-policy"].to_str().unwrap();
    assert!(policy.starts_with("\"requests-calendar-day\";q=2;w=86400, "), "{policy}");
    assert_eq!(status(&layer, "a").await, 200);
    let refused = ask(&layer, from("a")).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "1800");
    clock.advance(Duration::from_secs(1799));
    assert_eq!(status(&layer, "a").await, 429);
    clock.advance(Duration::from_secs(1));
    assert_eq!(status(&layer, "a").await, 200);
}

#[tokio::test]
async fn a_sliding_window_weighs_the_one_before() {
    let clock = Arc::new(ManualClock::default());
    let store = MemoryStore::builder().clock(Arc::clone(&clock) as _).build().unwrap();
    let stores = Stores::new(Arc::new(store), Pepper::random());
    let layer = TieredRateLimitLayer::builder(&stores)
        .tier("free", Tier::new().limit(TierLimit::requests(10, MINUTE).sliding()))
        .fallback_tier("free")
        .build()
        .unwrap();
    let admitted = async || {
        let mut admitted = 0;
        while status(&layer, "a").await == 200 {
            admitted += 1;
        }
        admitted
    };
    assert_eq!(admitted().await, 10);
    clock.advance(MINUTE);
    assert_eq!(admitted().await, 0, "all of the window before still counts");
    clock.advance(MINUTE / 2);
    assert_eq!(admitted().await, 5);
}

#[tokio::test]
async fn a_length_is_taken_for_as_many_tokens_as_it_is_told() {
    for (bytes, left) in [(4, 75), (1, 0)] {
        let layer = builder(Tier::new().tokens_per_minute(100))
            .bytes_per_token(bytes)
            .default_output_tokens(0);
        let mut request = from("a");
        request.headers_mut().insert("content-length", "100".parse().unwrap());
        let answer = ask(&layer.build().unwrap(), request).await;
        assert_eq!(answer.headers()["x-ratelimit-remaining-tokens"], left.to_string());
    }
    assert!(builder(Tier::new().tokens_per_minute(1)).bytes_per_token(0).build().is_err());
}

#[tokio::test]
async fn tiers_are_replaced_while_the_server_runs_and_what_was_used_is_kept() {
    let layer = layer(Tier::new().requests_per_minute(4));
    let clone = layer.clone();
    for _ in 0..3 {
        assert_eq!(status(&layer, "a").await, 200);
    }
    let tier = |quota| [("free".to_owned(), Tier::new().requests_per_minute(quota))];
    clone.replace_tiers(tier(8)).unwrap();
    // Three quarters of the old quota are three quarters of the new.
    let answer = ask(&layer, from("a")).await;
    assert_eq!(answer.headers()["x-ratelimit-remaining-requests"], "1");
    clone.replace_tiers(tier(2)).unwrap();
    assert_eq!(status(&layer, "a").await, 429);
    assert_eq!(status(&layer, "b").await, 200);
    for bad in [vec![], vec![("paid".to_owned(), Tier::new().requests_per_minute(1))]] {
        assert!(clone.replace_tiers(bad).is_err());
    }
    assert_eq!(status(&layer, "b").await, 200);
    assert_eq!(status(&layer, "b").await, 429);
}

#[cfg(feature = "serde")]
#[tokio::test]
async fn a_file_of_tiers_is_read_again_when_it_changes_and_a_bad_one_changes_nothing() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("tiers-{}.toml", std::process::id()));
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    let read = |text: &str| toml::from_str::<std::collections::BTreeMap<String, Tier>>(text);
    let build = || {
        TieredRateLimitLayer::builder(&stores())
            .tier("given", Tier::new().requests_per_minute(7))
            .tiers_file(&path, read)
            .fallback_tier("free")
            .build()
    };
    assert!(build().is_err(), "there is no file");
    write("[free]\nrequests_per_minute = 100\n");
    let layer = build().unwrap();
    let quota = async |layer: &TieredRateLimitLayer| {
        let answer = ask(layer, from("a")).await;
        answer.headers()["x-ratelimit-limit-requests"].to_str().unwrap().to_owned()
    };
    let becomes = async |expected: &str| {
        let mut looks = 0;
        while quota(&layer).await != expected {
            looks += 1;
            assert!(looks < 1200, "it does not become {expected}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert_eq!(quota(&layer).await, "100");
    write("[free]\nrequests_per_minute = 200\n");
    becomes("200").await;
    for bad in ["[free]\nrequests_per_minut = 1\n", "[paid]\nrequests_per_minute = 1\n", "[given]"]
    {
        write(bad);
        assert!(build().is_err(), "{bad}");
    }
    // Two looks at the changed file, and some.
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert_eq!(quota(&layer).await, "200");
    write("[free]\nrequests_per_minute = 300\n");
    becomes("300").await;
    assert!(layer.replace_tiers([("free".to_owned(), Tier::new().requests_per_day(1))]).is_err());
    std::fs::remove_file(path).unwrap();
}

#[derive(Debug)]
struct Contract(PreparedTier);

impl TierOverrides for Contract {
    fn tier(&self, identity: &Identity, tier: Option<&str>) -> Option<PreparedTier> {
        assert_eq!(tier, None);
        (identity.user()?.subject() == "acme").then(|| self.0.clone())
    }
}

#[tokio::test]
async fn single_callers_have_limits_of_their_own() {
    let own = Tier::new().requests_per_minute(2).prepare("acme").unwrap();
    let layer = builder(Tier::new().requests_per_minute(1));
    let layer = layer.overrides(Arc::new(Contract(own))).build().unwrap();
    for (who, expected) in [("acme", 200), ("acme", 200), ("acme", 429), ("b", 200), ("b", 429)] {
        assert_eq!(status(&layer, who).await, expected, "{who}");
    }
    assert!(Tier::new().prepare("none").is_err());
}

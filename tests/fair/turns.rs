//! Who is let in, when, and for how long he holds what he has.

use std::sync::atomic::Ordering;

use http::Request;
use palisade::{
    BuildError, Routes, UsageMeter,
    rate_limit::{
        Scope,
        fair::{Capacity, FairAdmission, FairAdmissionLayer, Share},
    },
    reservation::TokenUsage,
};
use tower::{Layer, Service};

use crate::support::{
    Engine, ask, assert_idle, behind, capacity, go_on, layer, now, prompt, request, request_to,
    shared, tier,
};

/// Netflix's limiter looked and then took, and let twelve in to nine places (its issue 234).
#[test]
fn no_more_are_let_in_at_once_than_there_are_slots() {
    let fair = FairAdmission::builder()
        .capacity(Capacity::slots(9))
        .tier("enterprise", Share::percent(50))
        .tier("free", Share::percent(50))
        .build()
        .unwrap();
    let (service, engine) = behind(&fair);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let tasks = (0..16).map(|n| {
            let (mut service, engine) = (service.clone(), engine.clone());
            tokio::spawn(async move {
                let subject = n.to_string();
                let who = format!("{}/{subject}", ["free", "enterprise"][n % 2]);
                for _ in 0..200 {
                    let answer = service.call(request(&who)).await.unwrap();
                    assert_eq!(answer.status(), 200);
                    drop(engine.take(&subject));
                    tokio::task::yield_now().await;
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
    assert!((1..=9).contains(&engine.most.load(Ordering::SeqCst)));
    assert_idle(&fair);
    let admitted = fair.snapshot().tiers.iter().map(|tier| tier.admitted).sum::<u64>();
    assert_eq!(admitted, 3200);
}

#[tokio::test(start_paused = true)]
async fn whoever_has_a_share_goes_before_whoever_borrows() {
    let fair = capacity(4).build().unwrap();
    let (service, engine) = behind(&fair);
    let mut asked = Vec::new();
    for who in ["free/a", "free/b", "free/c", "free/d", "free/e", "enterprise/x", "enterprise/y"] {
        asked.push((who, ask(&service, request(who)).await));
    }
    assert_eq!(engine.running(), ["a", "b", "c", "d"]);
    assert_eq!((tier(&fair, "free").borrowed, tier(&fair, "free").guaranteed), (2, 2));
    for (ends, begins) in [("a", "x"), ("b", "y"), ("x", "e")] {
        drop(engine.take(ends));
        let at = asked.iter().position(|(who, _)| who.ends_with(ends)).unwrap();
        drop(asked.remove(at).1.await.unwrap());
        go_on().await;
        assert_eq!(engine.running().last().unwrap(), begins, "after {ends}");
    }
}

/// The vLLM router and others gave it back at the head of the answer: streams were not counted.
#[tokio::test(start_paused = true)]
async fn a_slot_is_held_to_the_last_byte() {
    let fair = capacity(2).build().unwrap();
    let (service, engine) = behind(&fair);
    let first = now(ask(&service, request("free/a")).await).await;
    let stream = engine.take("a");
    stream.send("data: 1\n\n");
    assert_eq!(fair.snapshot().in_use, 1);
    drop(stream);
    assert_eq!(fair.snapshot().in_use, 1, "the engine is done, the client is not");
    assert_eq!(crate::support::text(first).await, "data: 1\n\n");
    assert_idle(&fair);
}

/// A waiting request begins when the inner body of the one before is gone, and no sooner.
#[tokio::test(start_paused = true)]
async fn the_inner_body_is_gone_before_its_slot_is_free() {
    let fair = FairAdmission::builder()
        .capacity(Capacity::slots(1))
        .tier("free", Share::percent(100))
        .build()
        .unwrap();
    let (service, engine) = behind(&fair);
    let first = now(ask(&service, request("free/a")).await).await;
    let second = ask(&service, request("free/b")).await;
    assert!(!second.is_finished());
    drop(first);
    go_on().await;
    assert!(second.is_finished());
    assert_eq!(engine.most.load(Ordering::SeqCst), 1, "two bodies were alive at a time");
}

#[tokio::test(start_paused = true)]
async fn the_first_byte_makes_room_for_the_next_prompt() {
    let capacity = Capacity::slots(8).prefill_pending(100);
    let fair = shared(capacity, Share::percent(50)).build().unwrap();
    let (service, engine) = behind(&fair);
    let first = now(ask(&service, prompt("free/a", 40)).await).await;
    // A share that holds less than two ordinary prompts takes them one after the other.
    let second = ask(&service, prompt("free/b", 70)).await;
    assert_eq!(engine.running(), ["a"]);
    assert_eq!(fair.snapshot().prefill_pending, 40);
    engine.take("a").send("data: 1\n\n");
    let mut body = Box::pin(first.into_body());
    http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
    go_on().await;
    assert!(second.is_finished());
    assert_eq!(fair.snapshot().prefill_pending, 70);
}

#[tokio::test(start_paused = true)]
async fn a_better_estimate_and_what_was_used_are_heard() {
    let fair = shared(Capacity::slots(8).tokens_in_flight(10_000), Share::percent(50));
    let fair = fair.build().unwrap();
    let (service, engine) = behind(&fair);
    let answer = now(ask(&service, prompt("free/a", 100)).await).await;
    assert_eq!(fair.snapshot().tokens_in_flight, 100 + 256);
    let stream = engine.take("a");
    let meter = UsageMeter::of(&stream.extensions).unwrap().clone();
    meter.refine(TokenUsage::new(300, 500)).await.unwrap();
    assert_eq!(fair.snapshot().tokens_in_flight, 800);
    assert_eq!(meter.granted_output_tokens(), Some(500));
    meter.charge(7);
    drop((stream, answer));
    assert_idle(&fair);
    assert_eq!(tier(&fair, "free").served_tokens, 307);
}

#[tokio::test(start_paused = true)]
async fn a_header_makes_nobody_of_another_tier() {
    let fair = capacity(2).build().unwrap();
    let (service, _) = behind(&fair);
    let mut forged = request("free/a");
    for name in ["x-tier", "tier", "x-palisade-tier", "x-priority"] {
        forged.headers_mut().insert(name, "enterprise".parse().unwrap());
    }
    let _answer = now(ask(&service, forged).await).await;
    assert_eq!((tier(&fair, "free").in_use, tier(&fair, "enterprise").in_use), (1, 0));
}

/// A queue that one caller has filled is not full for the others.
#[tokio::test(start_paused = true)]
async fn who_has_filled_the_queue_makes_room_for_others() {
    let fair = shared(Capacity::slots(2), Share::percent(50).queue(4)).build().unwrap();
    let (service, engine) = behind(&fair);
    let mut flood = Vec::new();
    for _ in 0..6 {
        flood.push(ask(&service, request("free/flood")).await);
    }
    assert_eq!(tier(&fair, "free").waiting, 4);
    let honest = ask(&service, request("free/honest")).await;
    assert!(!honest.is_finished(), "he has a place");
    assert_eq!(tier(&fair, "free").waiting, 4);
    // The newest of the flood went for it.
    let gone = now(flood.pop().unwrap()).await;
    assert_eq!(gone.status(), 503);
    assert_eq!(crate::refusals::code_of(&gone), "queue_full");
    // And he is next, for he has had less.
    drop(engine.take("flood"));
    drop(flood.remove(0).await.unwrap());
    go_on().await;
    assert!(honest.is_finished());
}

/// Fifty accounts of one organisation have what one would have.
#[tokio::test(start_paused = true)]
async fn accounts_of_one_organisation_buy_no_turns() {
    let fair = shared(Capacity::slots(2), Share::percent(50)).build().unwrap();
    let (service, engine) = behind(&fair);
    let of = |who: &str, organisation: &str| {
        let mut request = request(who);
        let user = palisade::identity::UserIdentity::asserted("https://login.example", who)
            .with_claims(&format!(r#"{{"tier":"free","org_id":"{organisation}"}}"#));
        request.extensions_mut().insert(palisade::Identity::asserted(user));
        request
    };
    let mut asked = Vec::new();
    for n in 0..10 {
        asked.push(ask(&service, of(&format!("free/{n}"), "farm")).await);
    }
    let honest = ask(&service, of("free/honest", "acme")).await;
    drop(engine.take("free/0"));
    drop(asked.remove(0));
    go_on().await;
    assert!(
        honest.is_finished(),
        "after the ten of the other organisation: {:?}",
        engine.running()
    );
}

#[tokio::test(start_paused = true)]
async fn health_checks_pass_through_a_flood() {
    let fair = shared(Capacity::slots(2), Share::percent(50).queue(1)).build().unwrap();
    let engine = Engine::default();
    let admission = FairAdmissionLayer::builder(&fair)
        .fallback_tier("free")
        .routes(Routes::guard_all().exempt("/healthz"))
        .build()
        .unwrap();
    let service = admission.layer(engine);
    let mut flood = Vec::new();
    for _ in 0..5 {
        flood.push(ask(&service, request("free/flood")).await);
    }
    let before = fair.snapshot().in_use;
    let healthy = now(ask(&service, request_to("/healthz", "free/probe")).await).await;
    assert_eq!((healthy.status().as_u16(), fair.snapshot().in_use), (200, before));
    assert_eq!(now(ask(&service, request("free/probe")).await).await.status(), 503);
}

/// What the application gives is never called under the lock: a panic there spoils nothing for others.
#[tokio::test(start_paused = true)]
async fn a_panic_of_the_application_leaves_the_rest_as_it_was() {
    let fair = capacity(2).build().unwrap();
    let engine = Engine::default();
    let admission = FairAdmissionLayer::builder(&fair)
        .tier_by(|identity| match identity.user()?.subject() {
            "evil" => panic!("as it is meant to"),
            _ => Some("free"),
        })
        .build()
        .unwrap();
    let service = admission.layer(engine);
    let asked = tokio::spawn({
        let mut service = service.clone();
        async move { service.call(request("free/evil")).await.map(drop) }
    });
    assert!(asked.await.unwrap_err().is_panic());
    assert_idle(&fair);
    assert_eq!(now(ask(&service, request("free/good")).await).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn less_capacity_leaves_what_runs_and_lets_nobody_in_until_it_fits() {
    let fair = capacity(4).build().unwrap();
    let (service, engine) = behind(&fair);
    let mut asked = Vec::new();
    for who in ["free/a", "free/b", "free/c", "free/d"] {
        asked.push(ask(&service, request(who)).await);
    }
    fair.set_capacity(Capacity::slots(2)).unwrap();
    assert!(fair.set_capacity(Capacity::slots(0)).is_err());
    let waits = ask(&service, request("enterprise/x")).await;
    for who in ["a", "b"] {
        drop(engine.take(who));
        drop(asked.remove(0).await.unwrap());
        go_on().await;
        assert!(!waits.is_finished(), "after {who}");
    }
    fair.set_capacity(Capacity::slots(4)).unwrap();
    go_on().await;
    assert!(waits.is_finished());
}

#[test]
fn what_can_not_be_shared_is_refused_at_build() {
    let share = Share::percent;
    let error = |fair: Result<FairAdmission, BuildError>| fair.unwrap_err().to_string();
    let of = |slots| FairAdmission::builder().capacity(Capacity::slots(slots));
    assert!(error(FairAdmission::builder().tier("free", share(1)).build()).contains("capacity"));
    assert!(error(of(4).build()).contains("empty"));
    assert!(error(of(4).tier("a", share(60)).tier("b", share(50)).build()).contains("110"));
    assert!(error(of(4).tier("a", share(1)).build()).contains("nothing"));
    let unknown = of(4).tier("a", share(50)).fallback_tier("b");
    assert!(error(unknown.build()).contains("b: there is no such tier"));
    let nobody = of(4).tier("a", share(50)).group_by([] as [Scope; 0]);
    assert!(error(nobody.build()).contains("group_by"));
    let fair = of(4).tier("free", share(50)).build().unwrap();
    let unknown = FairAdmissionLayer::builder(&fair).fallback_tier("paid").build();
    assert!(unknown.unwrap_err().to_string().contains("paid"));
    assert!(format!("{:?}", layer(&fair)).contains("free"));
}

/// The layer, its service and its futures go where servers send them.
#[test]
fn all_of_it_is_send_and_sync() {
    fn is<T: Send + Sync + 'static>() {}
    fn sends<T: Send>(_: &T) {}
    is::<FairAdmission>();
    is::<FairAdmissionLayer>();
    is::<palisade::rate_limit::fair::YieldSignal>();
    is::<palisade::rate_limit::TieredRateLimit<Engine>>();
    let fair = capacity(2).build().unwrap();
    let (mut service, _) = behind(&fair);
    let future = Service::<Request<crate::support::Unread>>::call(&mut service, request("free/a"));
    sends(&future);
    drop(future);
    assert_idle(&fair);
}

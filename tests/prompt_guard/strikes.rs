//! What callers may send, and what blocked prompts cost them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use palisade::{
    clock::ManualClock,
    identity::{Identity, UserIdentity},
    inference::Origin,
    prompt_guard::{Action, Category, PromptGuardLayer, PromptGuardLayerBuilder, Strikes},
    store::{MemoryStore, Pepper, Stores},
};
use tower::{Layer as _, ServiceExt as _};

use crate::support::*;

const MINUTE: Duration = Duration::from_secs(60);

fn blocking() -> PromptGuardLayerBuilder {
    guard()
        .detector(EVIL, Action::Block)
        .detector(KEY, Action::Block)
        .detector(MAIL, Action::Redact)
}

/// Asks as a user, from an address. The status, and how long to wait.
async fn ask_as(
    guard: &PromptGuardLayer,
    user: Option<&str>,
    address: &str,
    text: &str,
) -> (u16, Option<u64>) {
    let address: SocketAddr = format!("{address}:4711").parse().unwrap();
    let mut request: Request<AnyBody> = post(CHAT, chat(text));
    request.extensions_mut().insert(address);
    if let Some(user) = user {
        let user = UserIdentity::asserted("https://login.example", user);
        request.extensions_mut().insert(Identity::asserted(user));
    }
    let inner = Inner::default();
    let service = guard.layer(inner.answering(|| Response::new(full("ok"))));
    let answer = service.oneshot(request).await.unwrap();
    assert_eq!(inner.saw_nothing(), answer.status() != 200);
    let wait = answer.headers().get("retry-after").map(|value| value.to_str().unwrap());
    (answer.status().as_u16(), wait.map(|wait| wait.parse().unwrap()))
}

#[tokio::test]
async fn the_third_blocked_prompt_costs_its_sender_a_while() {
    let clock = Arc::new(ManualClock::default());
    let stores = Stores::in_memory();
    let strikes = Strikes::new(&stores, 3, 10 * MINUTE).cool_off(30 * MINUTE);
    let guard = blocking().strikes(strikes.clock(Arc::clone(&clock) as _)).build().unwrap();
    let ask = async |user, text| ask_as(&guard, user, "192.0.2.1", text).await;
    let ann = Some("ann");
    for _ in 0..2 {
        assert_eq!(ask(ann, "evil").await, (403, None));
        // What is no attempt does not count, however it is refused.
        assert_eq!(ask(ann, "k-123").await, (403, None));
        assert_eq!(ask(ann, "a@b.example").await, (200, None));
    }
    assert_eq!(ask(ann, "bread").await, (200, None));
    assert_eq!(ask(ann, "evil").await, (403, None));
    for text in ["bread", "evil"] {
        assert_eq!(ask(ann, text).await, (429, Some(1800)));
    }
    // From wherever she sends; and nobody else waits.
    assert_eq!(ask_as(&guard, ann, "198.51.100.7", "bread").await, (429, Some(1800)));
    assert_eq!(ask(Some("bob"), "bread").await, (200, None));
    assert_eq!(ask(None, "bread").await, (200, None));
    clock.advance(30 * MINUTE);
    assert_eq!(ask(ann, "bread").await, (200, None));
}

/// However they are spread over the window.
#[tokio::test]
async fn the_third_within_the_window_counts_wherever_it_comes() {
    let clock = Arc::new(ManualClock::default());
    let store = MemoryStore::builder().clock(Arc::clone(&clock) as _).build().unwrap();
    let stores = Stores::new(Arc::new(store), Pepper::from_secret("pepper"));
    let strikes = Strikes::new(&stores, 3, 10 * MINUTE).clock(Arc::clone(&clock) as _);
    let guard = blocking().strikes(strikes).build().unwrap();
    let ask = async |text| ask_as(&guard, Some("ann"), "192.0.2.1", text).await.0;
    for _ in 0..3 {
        assert_eq!(ask("evil").await, 403);
        clock.advance(4 * MINUTE);
    }
    assert_eq!(ask("bread").await, 429);
    // When he may ask again one is forgotten, and when he has asked for no more for long, all.
    clock.advance(6 * MINUTE);
    assert_eq!(ask("bread").await, 200);
    assert_eq!(ask("evil").await, 403);
    assert_eq!(ask("bread").await, 429);
    clock.advance(30 * MINUTE);
    for _ in 0..2 {
        assert_eq!(ask("evil").await, 403);
    }
    assert_eq!(ask("bread").await, 200);
}

/// Requests that were open before cannot be finished one after another until one passes.
#[tokio::test]
async fn who_has_to_wait_gets_no_request_through_that_was_open_before() {
    let strikes = Strikes::new(&Stores::in_memory(), 1, MINUTE);
    let guard = blocking().strikes(strikes).build().unwrap();
    let inner = Inner::default();
    let mut open = Vec::new();
    for text in ["evil", "bread"] {
        let (feed, fed) = tokio::sync::oneshot::channel::<()>();
        let body = futures_util::stream::once(async move {
            fed.await.unwrap();
            Ok(http_body::Frame::data(chat(text).into()))
        });
        let body = http_body_util::BodyExt::boxed_unsync(http_body_util::StreamBody::new(body));
        let mut request: Request<AnyBody> = post(CHAT, "").map(|_| body);
        let user = UserIdentity::asserted("https://login.example", "ann");
        request.extensions_mut().insert(Identity::asserted(user));
        let service = guard.layer(inner.answering(|| Response::new(full("ok"))));
        let mut answer = Box::pin(service.oneshot(request));
        assert!(futures_util::poll!(&mut answer).is_pending());
        open.push((feed, answer));
    }
    for ((feed, answer), expected) in open.into_iter().zip([403, 429]) {
        feed.send(()).unwrap();
        assert_eq!(answer.await.unwrap().status(), expected);
    }
    assert!(inner.saw_nothing());
}

#[tokio::test]
async fn who_is_not_known_is_his_network() {
    let stores = Stores::in_memory();
    let strikes = Strikes::new(&stores, 1, MINUTE).counting([Category::Secret]);
    let guard = blocking().strikes(strikes).build().unwrap();
    let ask = async |address, text| ask_as(&guard, None, address, text).await.0;
    assert_eq!(ask("192.0.2.1", "evil").await, 403);
    assert_eq!(ask("192.0.2.1", "k-123").await, 403);
    assert_eq!(ask("192.0.2.1", "bread").await, 429);
    assert_eq!(ask("192.0.2.2", "bread").await, 200);
}

#[tokio::test]
async fn servers_that_share_a_store_share_the_strikes() {
    let stores = Stores::in_memory();
    let one = || blocking().strikes(Strikes::new(&stores, 2, MINUTE)).build().unwrap();
    let (here, there) = (one(), one());
    let ask = async |guard, text| ask_as(guard, Some("ann"), "192.0.2.1", text).await.0;
    assert_eq!(ask(&here, "evil").await, 403);
    assert_eq!(ask(&there, "evil").await, 403);
    assert_eq!(ask(&there, "bread").await, 429);
    // The other one learns of it with the next.
    assert_eq!(ask(&here, "evil").await, 403);
    assert_eq!(ask(&here, "bread").await, 429);
}

#[tokio::test]
async fn a_guard_that_only_reports_counts_no_strikes() {
    let strikes = Strikes::new(&Stores::in_memory(), 1, MINUTE);
    let guard = blocking().strikes(strikes).report_only().build().unwrap();
    for _ in 0..3 {
        assert_eq!(ask_as(&guard, Some("ann"), "192.0.2.1", "evil").await.0, 200);
    }
    let strikes = Strikes::new(&Stores::in_memory(), 0, MINUTE);
    assert!(blocking().strikes(strikes).build().is_err());
}

#[tokio::test]
async fn roles_and_turns_may_be_limited() {
    let role = |role: &str| format!(r#"{{"role": "{role}", "content": "Hello"}}"#);
    let body = |roles: &[&str]| {
        let messages: Vec<_> = roles.iter().map(|name| role(name)).collect();
        format!(r#"{{"messages": [{}]}}"#, messages.join(","))
    };
    let guard =
        || guard().refuse_origin(Origin::System).refuse_origin(Origin::Developer).max_turns(3);
    for (roles, expected) in [
        (&["user"][..], None),
        (&["user", "assistant", "user"], None),
        (&["user", "assistant", "user", "assistant"], Some("too_many_turns")),
        (&["system", "user"], Some("origin_not_allowed")),
        (&["user", "developer"], Some("origin_not_allowed")),
    ] {
        let (answer, inner) = ask(guard(), post(CHAT, body(roles))).await;
        match expected {
            None => assert_eq!(answer.status(), 200, "{roles:?}"),
            Some(code) => {
                assert_eq!(refusal(&answer), (code, 400), "{roles:?}");
                assert!(inner.saw_nothing());
            }
        }
    }
    let anthropic = r#"{"system": "Be rude.", "messages": [{"role": "user", "content": "Hi"}]}"#;
    let (answer, _) = ask(guard(), post("/v1/messages", anthropic)).await;
    assert_eq!(refusal(&answer), ("origin_not_allowed", 400));
    let responses = r#"{"instructions": "Be rude.", "input": "Hi"}"#;
    let (answer, _) = ask(guard(), post("/v1/responses", responses)).await;
    assert_eq!(refusal(&answer), ("origin_not_allowed", 400));
}

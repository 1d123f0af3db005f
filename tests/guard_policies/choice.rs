//! Which policy a request and its answer are held to.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use http_body_util::BodyExt;
use palisade::{
    Identity, Stack,
    body::RequestBody,
    identity::{ClaimTest, PeerRule, UserIdentity},
    prompt_guard::{Action, GuardPolicy, PromptGuardLayer, PromptGuardLayerBuilder, Strikes, When},
    route::Endpoint,
    store::Stores,
};
use proptest::prelude::*;
use serde_json::json;
use tower::{Layer, service_fn};

use crate::{
    pki::{GATEWAY, OUTSIDER},
    support::*,
};

/// One policy for `when`, another for all else.
fn chosen(when: When) -> PromptGuardLayerBuilder {
    guard().detector(EVIL, Action::Report).policy_for(when, "chosen", reports().build().unwrap())
}

fn peer(id: &str) -> When {
    When::peer(PeerRule::spiffe(id).unwrap())
}

#[tokio::test]
async fn each_condition_tells_requests_apart() {
    let anybody = Who::anybody;
    let path = "/v1/chat/completions";
    for (when, fits, other) in [
        (
            When::path("/chat/completions"),
            anybody().asks(path, "hi"),
            anybody().asks("/v1/messages", "hi"),
        ),
        (
            When::path("/completions"),
            anybody().asks("/v1/chat/completions/", "hi"),
            anybody().asks("/xcompletions/v1/messages", "hi"),
        ),
        (
            When::path_prefix("/v1"),
            anybody().asks(path, "hi"),
            anybody().asks("/v10/chat/completions", "hi"),
        ),
        (
            When::path_prefix("/internal/"),
            anybody().asks("/internal/v1/messages", "hi"),
            anybody().asks("/v1/internal/messages", "hi"),
        ),
        (
            When::endpoint(Endpoint::AnthropicMessages),
            anybody().asks("/v1/messages", "hi"),
            anybody().asks(path, "hi"),
        ),
        (
            When::tier("paid"),
            Who::with(json!({"tier": "paid"})).asks(path, "hi"),
            anybody().asks(path, "hi"),
        ),
        (
            When::scope("raw"),
            Who::with(json!({"scope": "llm:infer raw"})).asks(path, "hi"),
            Who::with(json!({"scope": "rawer"})).asks(path, "hi"),
        ),
        (
            When::role("tester"),
            Who::with(json!({"realm": {"roles": ["tester"]}})).asks(path, "hi"),
            Who::with(json!({"roles": ["tester"]})).asks(path, "hi"),
        ),
        (
            When::claim("org", "acme"),
            Who::with(json!({"org": "acme"})).asks(path, "hi"),
            Who::with(json!({"org": ["acme"]})).asks(path, "hi"),
        ),
        (
            When::claim("/a/b", 7),
            Who::with(json!({"a": {"b": 7}})).asks(path, "hi"),
            Who::with(json!({"a": {"b": "7"}})).asks(path, "hi"),
        ),
        (
            When::claim("groups", ClaimTest::contains("red")),
            Who::with(json!({"groups": ["red"]})).asks(path, "hi"),
            Who::with(json!({"groups": "red"})).asks(path, "hi"),
        ),
        (peer(GATEWAY), anybody().asks(path, "hi"), anybody().outside().asks(path, "hi")),
        (
            When::not(peer(GATEWAY)),
            anybody().outside().asks(path, "hi"),
            anybody().asks(path, "hi"),
        ),
        (
            When::all_of([peer(OUTSIDER), When::tier("paid")]),
            Who::with(json!({"tier": "paid"})).outside().asks(path, "hi"),
            anybody().outside().asks(path, "hi"),
        ),
        (
            When::any_of([peer(OUTSIDER), When::tier("paid")]),
            anybody().outside().asks(path, "hi"),
            anybody().asks(path, "hi"),
        ),
        // A caller without a token, where those may pass, has nothing.
        (
            When::not(When::scope("raw")),
            anybody().without_token().asks(path, "hi"),
            Who::with(json!({"scope": "raw"})).asks(path, "hi"),
        ),
        (
            When::scope("llm:infer"),
            anybody().asks(path, "hi"),
            anybody().without_token().asks(path, "hi"),
        ),
    ] {
        let answer = through_all(chosen(when.clone()), fits).await;
        assert_eq!((answer.status(), answer.policy()), (200, "chosen"), "{when:?}");
        let answer = through_all(chosen(when.clone()), other).await;
        assert_eq!((answer.status(), answer.policy()), (200, "default"), "not {when:?}");
    }
}

#[tokio::test]
async fn the_first_policy_that_fits_holds_alone() {
    let policy = |action| GuardPolicy::builder().detector(EVIL, action).build().unwrap();
    let guard = || {
        guard()
            .detector(MAIL, Action::Block)
            .policy_for(When::tier("paid"), "paid", policy(Action::Report))
            .policy_by(|_, target| target.path().starts_with("/odd").then_some("named"))
            .policy_by(|identity, _| identity.tier().filter(|tier| *tier == "nowhere"))
            .policy("named", policy(Action::Redact))
            .policy_for(When::path("/chat/completions"), "chat", policy(Action::Block))
    };
    let paid = Who::with(json!({"tier": "paid"}));
    for (who, path, text, policy, status) in [
        (&paid, CHAT, "evil", "paid", 200),
        (&paid, "/odd/generate", "evil", "paid", 200),
        (&Who::anybody(), "/odd/v1/chat/completions", "evil", "named", 200),
        (&Who::anybody(), CHAT, "good", "chat", 200),
        (&Who::anybody(), CHAT, "evil", "content_blocked", 403),
        // What the default looks for is not looked for by others.
        (&Who::anybody(), CHAT, "a@b.example", "chat", 200),
        (&Who::anybody(), "/v1/messages", "evil", "default", 200),
        (&Who::anybody(), "/v1/messages", "a@b.example", "content_blocked", 403),
    ] {
        let answer = through_all(guard(), who.asks(path, text)).await;
        assert_eq!((answer.policy(), answer.status()), (policy, status), "{path} {text}");
    }
    assert_eq!(
        through_all(guard(), Who::anybody().asks(CHAT, "evil")).await.verdict().policy(),
        "chat"
    );
}

#[tokio::test]
async fn a_function_may_choose_the_default_and_no_policy_that_there_is_not() {
    let by = |name: &'static str| {
        guard().detector(EVIL, Action::Block).policy_by(move |_, _| Some(name)).policy_for(
            When::path("/generate"),
            "other",
            reports().build().unwrap(),
        )
    };
    let ask = async |name| {
        let answer = through_all(by(name), Who::anybody().asks("/generate", "good")).await;
        (answer.status(), answer.policy().to_owned())
    };
    assert_eq!(ask("default").await, (200, "default".into()));
    assert_eq!(ask("other").await, (200, "other".into()));
    assert_eq!(ask("evil").await, (500, "unknown_policy".into()));
    let panics = guard().policy_by(|_, _| panic!("a bug"));
    let answer = through_all(panics, Who::anybody().asks("/generate", "good")).await;
    assert_eq!((answer.status(), answer.policy()), (503, "guard_unavailable"));
}

/// What nobody has found out is not guessed at, in whichever order it is asked.
#[tokio::test]
async fn what_no_layer_has_told_refuses_where_it_counts() {
    const ORDER: (u16, &str) = (500, "wrong_layer_order");
    let ask = async |when: When, path| {
        let answer = through(chosen(when).build().unwrap(), post(path, chat("hi"))).await;
        (answer.status(), answer.policy().to_owned())
    };
    for unknown in [
        When::scope("raw"),
        When::role("tester"),
        When::claim("org", "acme"),
        When::tier("paid"),
        peer(GATEWAY),
    ] {
        let is = |expected: (u16, &str), got: (u16, String)| {
            assert_eq!(got, (expected.0, expected.1.to_owned()), "{unknown:?}");
        };
        let chat = || When::path("/chat/completions");
        is(ORDER, ask(unknown.clone(), CHAT).await);
        is(ORDER, ask(When::not(unknown.clone()), CHAT).await);
        for both in [[unknown.clone(), chat()], [chat(), unknown.clone()]] {
            is(ORDER, ask(When::all_of(both.clone()), CHAT).await);
            is((200, "default"), ask(When::all_of(both.clone()), "/v1/messages").await);
            is((200, "chosen"), ask(When::any_of(both.clone()), CHAT).await);
            is(ORDER, ask(When::any_of(both), "/v1/messages").await);
        }
    }
    // The application's own word will do for the user, and not for his tier.
    let asserted = || {
        let mut request = post(CHAT, chat("hi"));
        let user = UserIdentity::asserted("https://login.example", "ann").with_scopes(["raw"]);
        request.extensions_mut().insert(Identity::asserted(user));
        request
    };
    let answer = through(chosen(When::scope("raw")).build().unwrap(), asserted()).await;
    assert_eq!(answer.policy(), "chosen");
    let answer = through(chosen(When::tier("paid")).build().unwrap(), asserted()).await;
    assert_eq!((answer.status(), answer.policy()), ORDER);
    // Behind two of three layers the third is missing.
    let stack = Stack::new().jwt(tokens()).prompt_guard(chosen(peer(GATEWAY)).build().unwrap());
    let answer = through(stack, Who::anybody().asks(CHAT, "hi")).await;
    assert_eq!((answer.status(), answer.policy()), ORDER);
}

#[tokio::test]
async fn a_guard_that_only_reports_refuses_what_it_can_t_choose_for() {
    let guard = chosen(When::tier("paid")).report_only().build().unwrap();
    let answer = through(guard, post(CHAT, chat("hi"))).await;
    assert_eq!((answer.status(), answer.policy()), (500, "wrong_layer_order"));
}

#[tokio::test]
async fn no_spelling_of_a_path_changes_its_policy() {
    let guard = || chosen(When::path_prefix("/internal"));
    for (path, expected) in [
        ("/internal/v1/messages", "chosen"),
        ("/internal/models/meta%2Fllama/v1/messages", "chosen"),
        ("/internal/../v1/messages", "ambiguous_path"),
        ("/internal/%2e%2e/v1/messages", "ambiguous_path"),
        ("/internal%2f..%2fv1/messages", "ambiguous_path"),
        ("/internal/x%2fy/../v1/messages", "chosen"),
        ("/v1//../internal/v1/messages", "ambiguous_path"),
        ("/%69nternal/v1/messages", "ambiguous_path"),
        ("//internal/v1/messages", "ambiguous_path"),
        ("/x/../internal/v1/messages", "ambiguous_path"),
        ("/INTERNAL/v1/messages", "default"),
        ("/internals/v1/messages", "default"),
        ("/v1/messages", "default"),
    ] {
        let answer = through_all(guard(), Who::anybody().asks(path, "hi")).await;
        assert_eq!(answer.policy(), expected, "{path}");
    }
}

#[tokio::test]
async fn a_router_s_pattern_is_a_path() {
    use axum::{Router, body::Body, routing::post};
    use tower::ServiceExt as _;
    let guard = guard().detector(EVIL, Action::Block).policy_for(
        When::path("/{model}/generate"),
        "by_pattern",
        reports().build().unwrap(),
    );
    let app = Router::new()
        .route("/{model}/generate", post(async || "ok"))
        .route("/generate", post(async || "ok"))
        .layer(guard.build().unwrap());
    for (path, status) in [("/llama/generate", 200), ("/generate", 403)] {
        let request = Request::post(path).body(Body::from(r#"{"inputs": "evil"}"#)).unwrap();
        assert_eq!(app.clone().oneshot(request).await.unwrap().status(), status, "{path}");
    }
}

/// A policy is whole: its own cap, roles and routes, and none of the builder's.
#[tokio::test]
async fn what_is_read_at_all_is_part_of_a_policy() {
    use palisade::prompt_guard::Unseen;
    let open = GuardPolicy::builder().unknown_endpoint(Unseen::InsecurePass).build().unwrap();
    let small = GuardPolicy::builder().max_body(10).build().unwrap();
    let guard = || {
        guard().max_turns(0).policy_for(When::path("/files"), "open", open.clone()).policy_for(
            When::tier("paid"),
            "small",
            small.clone(),
        )
    };
    let paid = Who::with(json!({"tier": "paid"}));
    for (who, path, status) in [
        (&Who::anybody(), "/files", 200),
        (&Who::anybody(), "/file", 415),
        (&paid, CHAT, 413),
        (&Who::anybody(), CHAT, 400),
    ] {
        let answer = through_all(guard(), who.asks(path, "hi")).await;
        assert_eq!(answer.status(), status, "{path}");
    }
}

/// Whole answers and streams are held to the policy that stood when the request came.
#[tokio::test]
async fn an_answer_is_held_to_the_policy_of_its_request() {
    for stream in [false, true] {
        for lenient in [false, true] {
            let switch = Arc::new(AtomicBool::new(lenient));
            let chosen = Arc::clone(&switch);
            let blocks =
                GuardPolicy::builder().output_detector(EVIL, Action::Block).build().unwrap();
            let layer = PromptGuardLayer::builder()
                .policy("blocks", blocks)
                .policy_by(move |_, _| (!chosen.load(Ordering::SeqCst)).then_some("blocks"))
                .build()
                .unwrap();
            let service = layer.layer(service_fn(move |request: Request<RequestBody<AnyBody>>| {
                let switch = Arc::clone(&switch);
                async move {
                    request.into_body().collect().await.unwrap();
                    switch.fetch_not(Ordering::SeqCst);
                    Ok::<_, Infallible>(says("so evil", stream))
                }
            }));
            let answer = answered(service, post(CHAT, chat("hi"))).await;
            let body = String::from_utf8(answer.body.to_vec()).unwrap();
            assert_eq!(body.contains("answer_blocked"), !lenient, "{stream}: {body}");
            assert_eq!(body.contains("evil"), lenient, "{stream}: {body}");
        }
    }
}

#[tokio::test]
async fn strikes_are_counted_over_all_policies_that_enforce() {
    let stores = Stores::in_memory();
    let blocks = || GuardPolicy::builder().detector(EVIL, Action::Block);
    let layer = guard()
        .policy_for(
            When::path_prefix("/reports"),
            "reports",
            blocks().report_only().build().unwrap(),
        )
        .policy_for(
            When::path_prefix("/dry"),
            "dry",
            blocks().dry_run("injection").build().unwrap(),
        )
        .policy_for(When::path_prefix("/blocks"), "blocks", blocks().build().unwrap())
        .detector(EVIL, Action::Block)
        .strikes(Strikes::new(&stores, 2, Duration::from_secs(60)))
        .build()
        .unwrap();
    let ask = async |path, text| {
        let stack = Stack::new().peer_cert(peers()).jwt(tokens()).prompt_guard(layer.clone());
        through(stack, Who::anybody().asks(path, text)).await.status()
    };
    for _ in 0..3 {
        assert_eq!(ask("/reports/v1/messages", "evil").await, 200);
        assert_eq!(ask("/dry/v1/messages", "evil").await, 200);
    }
    assert_eq!(ask("/blocks/v1/messages", "evil").await, 403);
    assert_eq!(ask("/v1/messages", "evil").await, 403);
    for path in ["/blocks/v1/messages", "/dry/v1/messages", "/v1/messages"] {
        assert_eq!(ask(path, "good").await, 429, "{path}");
    }
    // A policy that only reports refuses nobody.
    assert_eq!(ask("/reports/v1/messages", "good").await, 200);
}

#[test]
fn policies_that_say_nothing_are_refused() {
    let policy = || reports().build().unwrap();
    for when in [
        When::path("/"),
        When::path_prefix("v1"),
        When::path_prefix(""),
        When::tier(""),
        When::scope(""),
        When::claim("", "x"),
        When::claim("x", ClaimTest::one_of::<&str>([])),
        When::all_of([]),
        When::not(When::any_of([])),
    ] {
        assert!(chosen(when.clone()).build().is_err(), "{when:?}");
    }
    for name in ["", "default", "a b", "a\n", &"x".repeat(65)] {
        assert!(guard().policy(name, policy()).build().is_err(), "{name:?}");
    }
    assert!(guard().policy("a", policy()).policy("a", policy()).build().is_err());
    let many = |count: usize| {
        let named = (0..count).map(|n| n.to_string());
        named.fold(guard(), |guard, name| guard.policy(name, policy())).build()
    };
    assert!(many(100).is_ok() && many(101).is_err());
    assert!(reports().threshold("injection", 1.5).build().is_err());
    assert!(
        guard().threshold("injection", f32::NAN).detector(EVIL, Action::Block).build().is_err()
    );
}

/// What can be known of a request: yes, no, or nothing.
#[derive(Clone, Debug)]
enum Tree {
    Known(bool),
    Unknown,
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
}

impl Tree {
    fn when(&self) -> When {
        match self {
            Self::Known(true) => When::path("/chat/completions"),
            Self::Known(false) => When::path("/messages"),
            Self::Unknown => When::scope("raw"),
            Self::All(list) => When::all_of(list.iter().map(Self::when)),
            Self::Any(list) => When::any_of(list.iter().map(Self::when)),
            Self::Not(tree) => When::not(tree.when()),
        }
    }

    /// Whether it holds if everything that is not known is `guess`.
    fn if_all(&self, guess: &mut impl Iterator<Item = bool>) -> bool {
        match self {
            Self::Known(holds) => *holds,
            Self::Unknown => guess.next().unwrap(),
            Self::All(list) => list.iter().fold(true, |all, tree| tree.if_all(guess) & all),
            Self::Any(list) => list.iter().fold(false, |any, tree| tree.if_all(guess) | any),
            Self::Not(tree) => !tree.if_all(guess),
        }
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![any::<bool>().prop_map(Tree::Known), Just(Tree::Unknown)];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let list = || proptest::collection::vec(inner.clone(), 1..3);
        prop_oneof![
            list().prop_map(Tree::All),
            list().prop_map(Tree::Any),
            inner.clone().prop_map(|tree| Tree::Not(Box::new(tree))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A policy is chosen, or not, only if that is right whatever the truth is.
    #[test]
    fn what_is_chosen_is_right_whatever_is_not_known(tree in tree()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let guard = chosen(tree.when()).build().unwrap();
        let answer = runtime.block_on(through(guard, post(CHAT, chat("hi"))));
        let truths = (0..1_u32 << 12).map(|bits| tree.if_all(&mut (0..).map(|n| bits >> (n % 12) & 1 == 1)));
        let truths: Vec<bool> = truths.collect();
        match answer.policy() {
            "chosen" => prop_assert!(truths.iter().all(|holds| *holds)),
            "default" => prop_assert!(truths.iter().all(|holds| !holds)),
            policy => prop_assert_eq!(policy, "wrong_layer_order"),
        }
        let known = !format!("{tree:?}").contains("Unknown");
        prop_assert!(!known || answer.status() == 200);
    }
}

/// An answer that says so, whole or streamed.
pub(crate) fn says(text: &str, stream: bool) -> Response<AnyBody> {
    let (kind, body) = match stream {
        true => {
            let delta = json!({"choices": [{"index": 0, "delta": {"content": text}}]});
            ("text/event-stream", format!("data: {delta}\n\ndata: [DONE]\n\n"))
        }
        false => {
            let message = json!({"role": "assistant", "content": text});
            ("application/json", json!({"choices": [{"index": 0, "message": message}]}).to_string())
        }
    };
    Response::builder().header("content-type", kind).body(full(body)).unwrap()
}

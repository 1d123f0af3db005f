//! Detectors that have to wait: at once, within limits, with one outcome.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use palisade::{
    clock::Clock,
    future::ReadyOr,
    inference::Segment,
    prompt_guard::{
        Action, AsyncLimits, Category, Detector, Finding, OnUnavailable, Outcome,
        PromptGuardLayerBuilder, ScanError, Verdict, Views,
    },
};
use tower::{Layer, Service, ServiceExt};

use crate::support::*;

const LIMIT: Duration = Duration::from_secs(1);

fn verdict(answer: &Answer) -> Verdict {
    answer.extensions().get::<Verdict>().unwrap().clone()
}

/// A detector that answers after a while.
fn slow(
    millis: u64,
    told: Vec<Finding>,
) -> Remote<impl Fn(Arc<palisade::inference::Prompt>) -> Told> {
    Remote(move |_| {
        let told = told.clone();
        ReadyOr::pending(async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Ok(told)
        })
    })
}

/// Both mask, over each other, and the verdict and the mask are the same whichever answers first.
#[tokio::test(start_paused = true)]
async fn the_outcome_does_not_depend_on_who_answers_first() {
    let found =
        |rule: &'static str| vec![Finding::new(rule, Category::PersonalData, 0.9, 0, Some(0..4))];
    let mut outcomes = Vec::new();
    for (one, two) in [(1, 50), (50, 1), (0, 0)] {
        let guard = guard()
            .async_detector(slow(one, found("a.one")), Action::Redact, LIMIT, OnUnavailable::Refuse)
            .async_detector(
                slow(two, found("a.two")),
                Action::Redact,
                LIMIT,
                OnUnavailable::Refuse,
            );
        let (answer, inner) = ask(guard, post(CHAT, chat("Jane is here"))).await;
        outcomes.push((verdict(&answer), inner.only().body));
    }
    assert_eq!(outcomes[0].1, chat("[ONE] is here"));
    assert_eq!(outcomes[0], outcomes[1]);
    assert_eq!(outcomes[0], outcomes[2]);
}

/// A block goes before an outage, whichever comes first.
#[tokio::test(start_paused = true)]
async fn a_block_is_a_block_whether_or_not_another_is_out() {
    for (answers, fails) in [(1, 50), (50, 1)] {
        let found = vec![Finding::new("x", Category::Injection, 1.0, 0, None)];
        let out = Remote(move |_| {
            ReadyOr::pending(async move {
                tokio::time::sleep(Duration::from_millis(fails)).await;
                Err("out".into())
            })
        });
        let guard = guard()
            .async_detector(slow(answers, found), Action::Block, LIMIT, OnUnavailable::Refuse)
            .async_detector(out, Action::Block, LIMIT, OnUnavailable::Refuse);
        let (answer, _) = ask(guard, post(CHAT, chat("hi"))).await;
        assert_eq!(refusal(&answer), ("content_blocked", 403));
        assert_eq!(verdict(&answer).unavailable, ["remote"]);
    }
}

#[tokio::test]
async fn the_verdict_names_what_was_let_through() {
    let out = || Remote(|_| ReadyOr::ready(Err("out".into())));
    for (policy, status, let_through) in
        [(OnUnavailable::Refuse, 503, &[][..]), (OnUnavailable::InsecurePass, 200, &["remote"][..])]
    {
        let guard = guard().async_detector(out(), Action::Block, LIMIT, policy);
        let (answer, _) = ask(guard, post(CHAT, chat("hi"))).await;
        assert_eq!(answer.status(), status);
        let verdict = verdict(&answer);
        assert_eq!((&*verdict.unavailable, &*verdict.let_through), (&["remote"][..], let_through));
    }
    // The same detector twice: one of the two must be heard.
    let guard = guard()
        .async_detector(out(), Action::Block, LIMIT, OnUnavailable::InsecurePass)
        .async_detector(out(), Action::Block, LIMIT, OnUnavailable::Refuse);
    let (answer, _) = ask(guard, post(CHAT, chat("hi"))).await;
    assert_eq!(refusal(&answer), ("guard_unavailable", 503));
}

/// What goes on in a detector that waits to be told.
#[derive(Clone, Default)]
struct Held(Arc<(tokio::sync::Notify, AtomicUsize, AtomicUsize)>);

impl Held {
    fn detector(&self) -> Remote<impl Fn(Arc<palisade::inference::Prompt>) -> Told + use<>> {
        let held = self.clone();
        Remote(move |_| {
            let held = held.clone();
            ReadyOr::pending(async move {
                let now = held.0.1.fetch_add(1, Ordering::SeqCst) + 1;
                held.0.2.fetch_max(now, Ordering::SeqCst);
                held.0.0.notified().await;
                held.0.1.fetch_sub(1, Ordering::SeqCst);
                Ok(Vec::new())
            })
        })
    }

    fn release(&self) {
        self.0.0.notify_one();
    }

    fn peak(&self) -> usize {
        self.0.2.load(Ordering::SeqCst)
    }
}

fn service(
    guard: PromptGuardLayerBuilder,
) -> impl Service<
    http::Request<AnyBody>,
    Response = Answer,
    Error = std::convert::Infallible,
    Future: Send,
> + Clone {
    let inner = tower::service_fn(async |_| Ok(http::Response::new(full("ok"))));
    guard.build().unwrap().layer(inner)
}

#[tokio::test(start_paused = true)]
async fn so_many_are_asked_at_once_so_many_wait_and_the_rest_is_shed() {
    let held = Held::default();
    let limits = AsyncLimits::within(LIMIT).concurrency(1).queue(1);
    let guard =
        guard().async_detector(held.detector(), Action::Block, limits, OnUnavailable::Refuse);
    let service = service(guard);
    let asked = || tokio::spawn(service.clone().oneshot(post(CHAT, chat("hi"))));
    let first = asked();
    tokio::task::yield_now().await;
    let second = asked();
    tokio::task::yield_now().await;
    let third = asked().await.unwrap().unwrap();
    assert_eq!(refusal(&third), ("guard_unavailable", 503));

    // One that leaves makes room for another.
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    let fourth = asked();
    tokio::task::yield_now().await;
    assert_eq!(refusal(&asked().await.unwrap().unwrap()), ("guard_unavailable", 503));
    held.release();
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    tokio::task::yield_now().await;
    held.release();
    assert_eq!(fourth.await.unwrap().unwrap().status(), 200);
    assert_eq!(held.peak(), 1);
}

/// The time limit holds from the first wait on; a turn that never came is no failure of the detector.
#[tokio::test(start_paused = true)]
async fn the_wait_for_a_turn_counts_and_dropping_gives_the_turn_back() {
    let held = Held::default();
    let limits = AsyncLimits::within(LIMIT).concurrency(1).breaker(1, LIMIT * 1000);
    let guard =
        guard().async_detector(held.detector(), Action::Block, limits, OnUnavailable::Refuse);
    let service = service(guard);
    let mut first = Box::pin(service.clone().oneshot(post(CHAT, chat("hi"))));
    starts(first.as_mut());
    let started = tokio::time::Instant::now();
    let second = service.clone().oneshot(post(CHAT, chat("hi"))).await.unwrap();
    assert_eq!(refusal(&second), ("guard_unavailable", 503));
    assert_eq!(started.elapsed(), LIMIT);
    drop(first);
    held.release();
    let third = service.clone().oneshot(post(CHAT, chat("hi"))).await.unwrap();
    assert_eq!(third.status(), 200);
}

/// A clock that is moved by hand.
#[derive(Debug, Default)]
struct Hand(Mutex<Duration>);

impl Hand {
    fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for Hand {
    fn unix(&self) -> Duration {
        self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

#[tokio::test]
async fn one_that_fails_is_left_alone_and_probed() {
    let (asked, well) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, state) = (Arc::clone(&asked), Arc::clone(&well));
    let remote = Remote(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        ReadyOr::ready(match state.load(Ordering::SeqCst) {
            0 => Err(ScanError::outage("out").into()),
            1 => Err(ScanError::of_prompt("too long").into()),
            _ => Ok(Vec::new()),
        })
    });
    let clock = Arc::new(Hand::default());
    let limits = AsyncLimits::within(LIMIT).breaker(3, LIMIT);
    let guard = guard()
        .async_detector(remote, Action::Block, limits, OnUnavailable::Refuse)
        .clock(clock.clone());
    let service = service(guard);
    let status =
        async || service.clone().oneshot(post(CHAT, chat("hi"))).await.unwrap().status().as_u16();
    // What a prompt is to blame for leaves the detector in use, whoever sends it how often.
    well.store(1, Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(status().await, 503);
    }
    assert_eq!(asked.swap(0, Ordering::SeqCst), 10);
    well.store(0, Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(status().await, 503);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    // The probe fails, and then succeeds.
    clock.advance(LIMIT);
    assert_eq!((status().await, status().await), (503, 503));
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    clock.advance(LIMIT);
    well.store(2, Ordering::SeqCst);
    assert_eq!((status().await, status().await), (200, 200));
    assert_eq!(asked.load(Ordering::SeqCst), 6);
}

/// Computes for as long as it is told to, and says on which thread.
#[derive(Debug)]
struct Heavy {
    ran_on: Mutex<mpsc::Sender<thread::ThreadId>>,
    goes_on: Mutex<mpsc::Receiver<()>>,
}

impl Detector for Heavy {
    fn name(&self) -> &'static str {
        "heavy"
    }

    fn scan(&self, segment: &Segment<'_>, _: &Views<'_>, findings: &mut Vec<Finding>) {
        self.ran_on.lock().unwrap().send(thread::current().id()).unwrap();
        self.goes_on.lock().unwrap().recv().unwrap();
        assert_ne!(segment.text, "panic");
        if segment.text == "evil" {
            findings.push(Finding::new("heavy.evil", Category::Injection, 1.0, 77, Some(0..4)));
        }
    }
}

#[tokio::test]
async fn what_computes_for_long_runs_on_a_thread_and_keeps_its_turn_to_the_end() {
    let (ran_on, threads) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    let heavy = Arc::new(Heavy { ran_on: Mutex::new(ran_on), goes_on: Mutex::new(goes_on) });
    let limits = AsyncLimits::within(Duration::from_secs(600)).concurrency(1).queue(0);
    let guard = guard().blocking_detector(heavy, Action::Block, limits, OnUnavailable::Refuse);
    let service = service(guard);
    let asked = |text: &str| service.clone().oneshot(post(CHAT, chat(text)));

    for (text, expected) in [("hi", 200), ("evil", 403), ("panic", 503), ("hi", 200)] {
        go_on.send(()).unwrap();
        let answer = asked(text).await.unwrap();
        assert_eq!(answer.status(), expected, "{text}");
        assert_ne!(threads.recv().unwrap(), thread::current().id());
        if expected == 403 {
            assert_eq!(verdict(&answer).action, Outcome::Block);
            assert_eq!(verdict(&answer).findings[0].segment, 0);
        }
        if expected == 503 {
            assert_eq!(verdict(&answer).unavailable, ["heavy"]);
        }
    }

    // Given up: the thread goes on, and its turn is not another's until it is done.
    let mut given_up = Box::pin(asked("hi"));
    starts(given_up.as_mut());
    threads.recv().unwrap();
    drop(given_up);
    assert_eq!(refusal(&asked("hi").await.unwrap()), ("guard_unavailable", 503));
    go_on.send(()).unwrap();
    go_on.send(()).unwrap();
    let mut status = http::StatusCode::SERVICE_UNAVAILABLE;
    while status == http::StatusCode::SERVICE_UNAVAILABLE {
        tokio::task::yield_now().await;
        status = asked("hi").await.unwrap().status();
    }
    assert_eq!(status, 200);
}

#[test]
fn limits_of_zero_are_refused() {
    let remote = || Remote(|_| ReadyOr::ready(Ok(Vec::new())));
    let built = |limits: AsyncLimits| {
        guard().async_detector(remote(), Action::Block, limits, OnUnavailable::Refuse).build()
    };
    let some = AsyncLimits::within(LIMIT);
    for wrong in [
        AsyncLimits::within(Duration::ZERO),
        some.concurrency(0),
        some.breaker(0, LIMIT),
        some.breaker(1, Duration::ZERO),
    ] {
        assert!(built(wrong).is_err(), "{wrong:?}");
    }
    for right in [some.queue(0), some.without_breaker(), some.concurrency(usize::MAX)] {
        assert!(built(right).is_ok(), "{right:?}");
    }
}

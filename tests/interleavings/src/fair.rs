//! Fair admission: slots go from hand to hand while those who wait for them leave, are refused or are broken off.
//!
//! Whoever waits does so until it is woken: a wake-up that is lost is a deadlock, which `shuttle` finds. So is a waker that
//! is called, or dropped, under the lock.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Extensions, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use palisade::{
    Identity,
    clock::ManualClock,
    identity::UserIdentity,
    rate_limit::{
        TieredRateLimit,
        fair::{Capacity, FairAdmission, FairAdmissionLayer, Headroom, Revoke, Share, YieldSignal},
    },
};
use shuttle::{future::block_on, thread};
use tower::{Layer, Service, ServiceExt};

use crate::in_every_order;

/// Those who run, in answers that end when the test says so, and not before where they are held.
#[derive(Clone, Default)]
struct Engine(Arc<Answers>);

#[derive(Default)]
struct Answers {
    running: AtomicU64,
    most: AtomicU64,
    ended: AtomicBool,
    readers: Mutex<Vec<Waker>>,
    begun: Mutex<Vec<Extensions>>,
}

impl Engine {
    fn end_all(&self) {
        self.0.ended.store(true, Ordering::SeqCst);
        let readers = std::mem::take(&mut *self.0.readers.lock().unwrap());
        readers.into_iter().for_each(Waker::wake);
    }

    /// How many ran at a time, since this was asked last.
    fn most(&self) -> u64 {
        self.0.most.swap(self.0.running.load(Ordering::SeqCst), Ordering::SeqCst)
    }

    fn signal(&self, at: usize) -> YieldSignal {
        YieldSignal::of(&self.0.begun.lock().unwrap()[at]).unwrap().clone()
    }
}

impl Service<Request<Full<Bytes>>> for Engine {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Answer>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let running = self.0.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most.fetch_max(running, Ordering::SeqCst);
        self.0.begun.lock().unwrap().push(request.extensions().clone());
        ready(Ok(Response::new(Answer { engine: self.clone() })))
    }
}

/// An answer that ends when all do.
struct Answer {
    engine: Engine,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let answers = &self.engine.0;
        answers.readers.lock().unwrap().push(cx.waker().clone());
        if answers.ended.load(Ordering::SeqCst) { Poll::Ready(None) } else { Poll::Pending }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.engine.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

type Guarded = TieredRateLimit<Engine>;
type Answered = <Guarded as Service<Request<Full<Bytes>>>>::Response;
type Asked = Pin<Box<dyn Future<Output = Result<Answered, Infallible>> + Send>>;

/// Slots, half of them of either tier.
struct Rig {
    fair: FairAdmission,
    service: Guarded,
    engine: Engine,
    clock: Arc<ManualClock>,
}

impl Rig {
    fn new(revoke: Revoke, yields: bool, slots: usize) -> Arc<Self> {
        let clock = Arc::new(ManualClock::default());
        let fair = FairAdmission::builder()
            .capacity(Capacity::slots(slots))
            .tier("enterprise", Share::percent(50))
            .tier("free", Share::percent(50).revocable(revoke))
            .headroom(Headroom::slots(0))
            .clock(Arc::clone(&clock) as _);
        let fair = if yields { fair.engine_yields() } else { fair }.build().unwrap();
        let engine = Engine::default();
        let layer = FairAdmissionLayer::builder(&fair).build().unwrap();
        let service = layer.layer(engine.clone());
        Arc::new(Self { fair, service, engine, clock })
    }

    /// A request of this caller, of the tier before the slash, that has not been polled.
    fn asking(&self, who: &str) -> Asked {
        self.asking_for(who, "30")
    }

    /// One that waits for so many seconds.
    fn asking_for(&self, who: &str, seconds: &'static str) -> Asked {
        let (tier, subject) = who.split_once('/').unwrap();
        let user = UserIdentity::asserted("https://login.example", subject)
            .with_claims(&format!(r#"{{"tier":"{tier}"}}"#));
        let mut request = Request::post("/generate").body(Full::default()).unwrap();
        request.headers_mut().insert("x-request-timeout", seconds.parse().unwrap());
        request.extensions_mut().insert(Identity::asserted(user));
        Box::pin(self.service.clone().oneshot(request))
    }

    /// Waits until the request is let in, or refused.
    fn ask(&self, who: &str) -> Answered {
        block_on(self.asking(who)).unwrap()
    }

    /// Looks once whether it is let in.
    fn look(&self, asked: &mut Asked, waker: &Waker) -> Option<Answered> {
        match asked.as_mut().poll(&mut Context::from_waker(waker)) {
            Poll::Ready(answer) => Some(answer.unwrap()),
            Poll::Pending => None,
        }
    }

    /// No slot is lost, none was given twice, and nobody is left.
    fn assert_idle(&self) {
        assert_eq!(self.engine.0.running.load(Ordering::SeqCst), 0);
        let snapshot = self.fair.snapshot();
        assert_eq!(
            (snapshot.in_use, snapshot.tokens_in_flight, snapshot.prefill_pending),
            (0, 0, 0)
        );
        for tier in &snapshot.tiers {
            assert_eq!((tier.in_use, tier.waiting, tier.waiting_bytes), (0, 0, 0), "{tier:?}");
        }
        // Whoever comes now is let in at once, to the last slot.
        let come = (0..snapshot.slots).map(|_| {
            let mut asked = self.asking("free/last");
            self.look(&mut asked, Waker::noop()).expect("there is a slot")
        });
        let all: Vec<_> = come.collect();
        assert!(all.iter().all(|answer| answer.status() == StatusCode::OK));
        assert!(self.look(&mut self.asking("free/none"), Waker::noop()).is_none());
    }
}

fn all_at_once(work: Vec<Box<dyn FnOnce() + Send>>) {
    let threads: Vec<_> = work.into_iter().map(|work| thread::spawn(work)).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Does this with the rig, in a thread.
fn work(rig: &Arc<Rig>, work: impl FnOnce(&Rig) + Send + 'static) -> Box<dyn FnOnce() + Send> {
    let rig = Arc::clone(rig);
    Box::new(move || work(&rig))
}

#[test]
fn a_slot_is_handed_over_once_whoever_leaves() {
    in_every_order(|| {
        let rig = Rig::new(Revoke::Never, false, 2);
        let held = ["free/a", "free/b"].map(|who| rig.ask(who));
        all_at_once(vec![
            work(&rig, |_| held.into_iter().for_each(drop)),
            work(&rig, |rig| assert_eq!(rig.ask("free/stays").status(), StatusCode::OK)),
            work(&rig, |rig| {
                let mut asked = rig.asking("free/leaves");
                let answer = rig.look(&mut asked, Waker::noop());
                thread::yield_now();
                drop((asked, answer));
            }),
            work(&rig, |rig| {
                let mut asked = rig.asking("enterprise/moves");
                // Polled by another task from now on.
                let answer = rig.look(&mut asked, Waker::noop());
                let answer = answer.unwrap_or_else(|| block_on(asked).unwrap());
                assert_eq!(answer.status(), StatusCode::OK);
            }),
        ]);
        assert!(rig.engine.most() <= 2);
        rig.assert_idle();
    });
}

#[test]
fn who_is_refused_in_the_queue_takes_no_slot_along() {
    in_every_order(|| {
        let rig = Rig::new(Revoke::Never, false, 2);
        let held = ["free/a", "free/b"].map(|who| rig.ask(who));
        all_at_once(vec![
            work(&rig, |_| held.into_iter().for_each(drop)),
            work(&rig, |rig| rig.clock.advance(Duration::from_secs(2))),
            work(&rig, |rig| {
                let answer = block_on(rig.asking_for("free/hurries", "1")).unwrap();
                let known = [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE];
                assert!(known.contains(&answer.status()), "{}", answer.status());
            }),
            work(&rig, |rig| assert_eq!(rig.ask("free/stays").status(), StatusCode::OK)),
        ]);
        assert!(rig.engine.most() <= 2);
        rig.assert_idle();
    });
}

#[test]
fn capacity_that_shrinks_and_grows_is_never_passed() {
    in_every_order(|| {
        let rig = Rig::new(Revoke::Never, false, 4);
        let held = ["free/a", "free/b", "enterprise/a", "enterprise/b"].map(|who| rig.ask(who));
        let more = |rig: &Rig| {
            let answer = rig.ask("free/c");
            let slots = rig.fair.snapshot().slots;
            assert!(slots == 2 || slots == 4);
            assert_eq!(answer.status(), StatusCode::OK);
        };
        rig.fair.set_capacity(Capacity::slots(2)).unwrap();
        let [a, b, c, d] = held;
        drop((a, b));
        assert_eq!(rig.engine.most(), 4);
        all_at_once(vec![
            work(&rig, |_| drop((c, d))),
            work(&rig, more),
            work(&rig, |rig| drop(rig.ask("enterprise/c"))),
            work(&rig, more),
        ]);
        assert_eq!(rig.engine.most(), 2, "more than there are now");
        rig.assert_idle();
        let held = ["free/a", "free/b"].map(|who| rig.ask(who));
        all_at_once(vec![
            work(&rig, |rig| rig.fair.set_capacity(Capacity::slots(4)).unwrap()),
            work(&rig, more),
            work(&rig, |rig| drop(rig.ask("enterprise/c"))),
        ]);
        drop(held);
        rig.assert_idle();
    });
}

/// A waker may run anything: this one gives up a slot, when it is called and when it is dropped.
struct GivesUp {
    fair: FairAdmission,
    held: Mutex<Option<Answered>>,
}

impl GivesUp {
    fn give_up(&self) {
        let held = self.held.lock().unwrap().take();
        drop(held);
        let _ = self.fair.snapshot();
    }
}

impl Wake for GivesUp {
    fn wake(self: Arc<Self>) {
        self.give_up();
    }
}

impl Drop for GivesUp {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[test]
fn wakers_run_when_the_lock_is_free() {
    in_every_order(|| {
        let rig = Rig::new(Revoke::Never, false, 2);
        let [a, b] = ["free/a", "free/b"].map(|who| rig.ask(who));
        let waker = Arc::new(GivesUp { fair: rig.fair.clone(), held: Mutex::new(Some(b)) }).into();
        all_at_once(vec![
            work(&rig, |_| drop(a)),
            work(&rig, |rig| {
                let mut asked = rig.asking("free/c");
                let answer = rig.look(&mut asked, &waker);
                // The queue has the last one.
                drop(waker);
                let answer = answer.or_else(|| rig.look(&mut asked, Waker::noop()));
                drop((asked, answer));
            }),
            work(&rig, |rig| drop(rig.ask("enterprise/x"))),
        ]);
        rig.assert_idle();
    });
}

/// Nothing ends before the owner is let in.
#[test]
fn a_borrowed_slot_is_broken_off_for_its_owner() {
    for revoke in [Revoke::BeforeFirstByte, Revoke::Always] {
        in_every_order(move || {
            let rig = Rig::new(revoke, false, 2);
            let held = ["free/a", "free/b"].map(|who| rig.ask(who));
            let read = held.map(|answer| {
                work(&rig, |_| {
                    let _ = block_on(answer.into_body().collect());
                })
            });
            let mut all = vec![
                work(&rig, |rig| {
                    assert_eq!(rig.ask("enterprise/x").status(), StatusCode::OK);
                    rig.engine.end_all();
                }),
                work(&rig, |rig| {
                    let mut asked = rig.asking("enterprise/leaves");
                    let answer = rig.look(&mut asked, Waker::noop());
                    drop((asked, answer));
                }),
            ];
            all.extend(read);
            all_at_once(all);
            assert!(rig.engine.most() <= 2);
            rig.assert_idle();
        });
    }
}

/// Neither does anything here, but that the stream goes on.
#[test]
fn a_parked_stream_goes_on_when_the_owner_is_done() {
    in_every_order(|| {
        let rig = Rig::new(Revoke::Never, true, 2);
        let held = ["free/a", "free/b"].map(|who| rig.ask(who));
        let signal = rig.engine.signal(1);
        all_at_once(vec![
            work(&rig, move |_| {
                block_on(signal.requested());
                assert!(block_on(signal.parked()));
            }),
            work(&rig, |rig| assert_eq!(rig.ask("enterprise/x").status(), StatusCode::OK)),
        ]);
        assert_eq!(rig.fair.snapshot().in_use, 2);
        drop(held);
        rig.assert_idle();
    });
}

#[test]
fn a_stream_whose_client_leaves_while_it_is_parked_is_over() {
    in_every_order(|| {
        let rig = Rig::new(Revoke::Never, true, 2);
        let [held, leaves] = ["free/a", "free/b"].map(|who| rig.ask(who));
        let signal = rig.engine.signal(1);
        all_at_once(vec![
            work(&rig, move |_| {
                block_on(signal.requested());
                block_on(signal.parked());
            }),
            work(&rig, |_| drop(leaves)),
            work(&rig, |rig| assert_eq!(rig.ask("enterprise/x").status(), StatusCode::OK)),
        ]);
        drop(held);
        rig.assert_idle();
    });
}

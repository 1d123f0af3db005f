//! Fair admission beside tokio's semaphore, tower's `ConcurrencyLimit` and `LoadShed`, in one run.
//!
//! `scripts/bench fair [PART OF A LINE'S NAME]`. One thread and no runtime: futures are polled by hand. First what is decided
//! under the lock, where the semaphore decides too: a request comes, is let in, and ends; or, while 10,000 wait, one
//! ends, the next is let in and finds out, and another comes in its place. Whoever waits at a semaphore has no name, so it
//! does the same for any number of callers. Then a request's way through the whole service, which answers at once.

#![allow(dead_code, unreachable_pub, unused_imports)] // Of the scheduler.

/// The scheduler, which is the layer's alone, is compiled here once more: a program, since a benchmark would have its tests too.
#[path = "../../src/rate_limit"]
mod rate_limit {
    mod fair {
        pub(super) mod plan;
        pub(super) mod scheduler;
    }

    use std::{
        sync::{Arc, Mutex},
        task::Waker,
        time::Duration,
    };

    use fair::{
        plan::{Capacity, Headroom, Plan, Share},
        scheduler::{self, Ask, Scheduler, Wakes},
    };
    use palisade::reservation::TokenUsage;

    /// Weights as they are by default.
    #[derive(Clone, Copy, Debug)]
    struct TokenWeights;

    impl TokenWeights {
        fn thousandths(self, usage: TokenUsage) -> u128 {
            u128::from(usage.input) * 1000 + u128::from(usage.output) * 4000
        }
    }

    /// The scheduler under its lock, and a time that stands still.
    pub(crate) struct Core(Mutex<Scheduler>);

    #[derive(Clone, Copy)]
    pub(crate) struct Ticket(scheduler::Ticket);

    pub(crate) enum Arrival {
        Admitted(Ticket),
        Waiting(Ticket),
    }

    impl Core {
        /// Three tiers, of which the last has all requests.
        pub(crate) fn new(slots: usize, queue: usize) -> Self {
            let share = |percent| Share::percent(percent).queue(queue).queue_bytes(1 << 40);
            let tiers = [("enterprise", share(50)), ("paid", share(35)), ("free", share(15))];
            let capacity = Capacity::slots(slots);
            let plan = Plan {
                capacity: capacity.tokens_in_flight(80_000).prefill_pending(40_000),
                headroom: Headroom::automatic(),
                adaptive: None,
                weights: TokenWeights,
                yields: false,
                tiers: tiers.map(|(name, share)| (Arc::from(name), share)).into(),
            };
            Self(Mutex::new(Scheduler::new(plan.check().unwrap())))
        }

        fn change<T>(&self, change: impl FnOnce(&mut Scheduler, &mut Wakes) -> T) -> T {
            let mut wakes = Wakes::default();
            let result = change(&mut self.0.lock().unwrap(), &mut wakes);
            wakes.wake();
            result
        }

        pub(crate) fn arrive(&self, caller: usize) -> Arrival {
            let (caller, deadline) = (caller as u64, Duration::from_secs(3600));
            let ask = Ask {
                tier: 2,
                group: caller,
                stays: false,
                subject: caller,
                prompt: 100,
                output: 100,
                bytes: 1000,
                deadline,
            };
            match self.change(|scheduler, wakes| scheduler.arrive(ask, Duration::ZERO, wakes)) {
                scheduler::Arrival::Admitted(ticket) => Arrival::Admitted(Ticket(ticket)),
                scheduler::Arrival::Waiting(ticket) => Arrival::Waiting(Ticket(ticket)),
                scheduler::Arrival::Refused(shed) => panic!("{shed:?}"),
            }
        }

        pub(crate) fn release(&self, ticket: Ticket) {
            let (used, now) = (TokenUsage::new(100, 80), Duration::ZERO);
            self.change(|scheduler, wakes| scheduler.release(ticket.0, used, now, wakes));
        }

        pub(crate) fn is_let_in(&self, ticket: Ticket, waker: &Waker) -> bool {
            self.change(|scheduler, wakes| scheduler.poll(ticket.0, waker, wakes).is_ready())
        }
    }
}
mod report;
mod timing;

use std::{
    borrow::Cow,
    cell::Cell,
    convert::Infallible,
    env,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use axum_08::body::Body;
use http::{Request, Response};
use http_body_util::Full;
use palisade::{
    Identity,
    identity::UserIdentity,
    rate_limit::fair::{Capacity, FairAdmission, FairAdmissionLayer, Share},
    reservation,
};
use rate_limit::{Arrival, Core};
use timing::{Repeat, compare, now, through};
use tokio::sync::Semaphore;
use tower::{Layer as _, ServiceBuilder, limit::ConcurrencyLimitLayer};

const SLOTS: usize = 64;
const WAITERS: usize = 10_000;

fn main() {
    let filter = env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wanted = |name: &str| filter.as_ref().is_none_or(|filter| name.contains(filter));
    report::heading("Nanoseconds", &["Semaphore", "fair admission"]);
    for callers in [1, 100, WAITERS] {
        let name = format!("let in and released, {callers} caller(s) in turn");
        if wanted(&name) {
            report::compared_nanos(&name, compare([semaphore_alone(), alone(callers)]));
        }
    }
    for callers in [1, 100, WAITERS] {
        let name = format!("handed over, 10000 waiters of {callers} caller(s)");
        if wanted(&name) {
            report::compared_nanos(&name, compare([semaphore_handed_over(), handed_over(callers)]));
        }
    }
    let name = "through the whole service";
    if wanted(name) {
        report::heading(
            "Nanoseconds for a request",
            &["no layer", "ConcurrencyLimit", "with LoadShed", "FairAdmissionLayer"],
        );
        services(name);
    }
}

/// In the place of the crate's own, of which the plan makes some.
#[derive(Debug)]
enum BuildError {
    Empty(&'static str),
    Invalid(&'static str, Cow<'static, str>),
}

impl BuildError {
    fn invalid(what: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(what, reason.into())
    }
}

fn alone(callers: usize) -> Repeat<'static> {
    let (core, mut turn) = (Core::new(SLOTS, WAITERS + SLOTS), 0);
    Box::new(move |times| {
        let began = Instant::now();
        for _ in 0..times {
            turn = (turn + 1) % callers;
            let Arrival::Admitted(ticket) = core.arrive(turn) else { panic!("it waits") };
            core.release(ticket);
        }
        began.elapsed()
    })
}

fn semaphore_alone() -> Repeat<'static> {
    let semaphore = Semaphore::new(SLOTS);
    Box::new(move |times| {
        let began = Instant::now();
        for _ in 0..times {
            drop(now(semaphore.acquire()).unwrap());
        }
        began.elapsed()
    })
}

thread_local! {
    /// The waiter that was woken last.
    static WOKEN: Cell<usize> = const { Cell::new(usize::MAX) };
}

struct Waiter(usize);

impl Wake for Waiter {
    fn wake(self: Arc<Self>) {
        WOKEN.set(self.0);
    }
}

/// As many as wait and run.
fn wakers() -> Vec<Waker> {
    (0..WAITERS + SLOTS).map(|n| Waker::from(Arc::new(Waiter(n)))).collect()
}

fn handed_over(callers: usize) -> Repeat<'static> {
    let (core, wakers) = (Core::new(SLOTS, WAITERS + SLOTS), wakers());
    let arrive = move |core: &Core, n: usize, waker: &Waker| match core.arrive(n % callers) {
        Arrival::Admitted(ticket) => (ticket, true),
        Arrival::Waiting(ticket) => (ticket, core.is_let_in(ticket, waker)),
    };
    let all = wakers.iter().enumerate().map(|(n, waker)| arrive(&core, n, waker));
    let (mut tickets, runs): (Vec<_>, Vec<_>) = all.unzip();
    let mut running: Vec<_> = (0..tickets.len()).filter(|n| runs[*n]).collect();
    let mut turn = 0;
    Box::new(move |times| {
        let began = Instant::now();
        for _ in 0..times {
            turn = (turn + 1) % running.len();
            let gone = running[turn];
            core.release(tickets[gone]);
            let woken = WOKEN.get();
            assert!(core.is_let_in(tickets[woken], &wakers[woken]), "it still waits");
            running[turn] = woken;
            let (ticket, runs) = arrive(&core, gone, &wakers[gone]);
            assert!(!runs, "it does not wait");
            tickets[gone] = ticket;
        }
        began.elapsed()
    })
}

fn semaphore_handed_over() -> Repeat<'static> {
    let semaphore: &'static Semaphore = Box::leak(Box::new(Semaphore::new(SLOTS)));
    let acquire = || async { semaphore.acquire().await.unwrap() };
    let wakers = wakers();
    let mut futures: Vec<_> = wakers.iter().map(|_| Box::pin(acquire())).collect();
    let mut running = Vec::new();
    for (n, waker) in wakers.iter().enumerate() {
        if let Poll::Ready(permit) = futures[n].as_mut().poll(&mut Context::from_waker(waker)) {
            running.push((n, permit));
        }
    }
    let mut turn = 0;
    Box::new(move |times| {
        let began = Instant::now();
        for _ in 0..times {
            turn = (turn + 1) % running.len();
            let (gone, permit) = running.swap_remove(turn);
            drop(permit);
            let woken = WOKEN.get();
            let mut cx = Context::from_waker(&wakers[woken]);
            let Poll::Ready(permit) = futures[woken].as_mut().poll(&mut cx) else {
                panic!("it still waits")
            };
            running.push((woken, permit));
            // In its old place: nothing is allocated.
            futures[gone].set(acquire());
            let mut cx = Context::from_waker(&wakers[gone]);
            assert!(futures[gone].as_mut().poll(&mut cx).is_pending(), "it does not wait");
        }
        began.elapsed()
    })
}

fn services(name: &str) {
    let answer = tower::service_fn(|_| {
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::empty())))
    });
    let limit = ConcurrencyLimitLayer::new(SLOTS);
    let limited = limit.layer(answer);
    let shed = ServiceBuilder::new()
        .map_err(|error| -> Infallible { panic!("{error}") })
        .load_shed()
        .layer(limit)
        .service(answer);
    let fair = FairAdmission::builder()
        .capacity(Capacity::slots(SLOTS).tokens_in_flight(80_000).prefill_pending(40_000))
        .tier("enterprise", Share::percent(50))
        .tier("paid", Share::percent(35))
        .tier("free", Share::percent(15))
        .build()
        .unwrap();
    let fair =
        FairAdmissionLayer::builder(&fair).fallback_tier("free").build().unwrap().layer(answer);
    let times = compare([
        through(&answer, request),
        through(&limited, request),
        through(&shed, request),
        through(&fair, request),
    ]);
    report::compared_nanos(name, times);
}

/// A request by a caller who is known.
fn request() -> Request<Full<bytes::Bytes>> {
    let mut request = Request::post("/generate").body(Full::default()).unwrap();
    let user = UserIdentity::asserted("https://login.example", "alice");
    request.extensions_mut().insert(Identity::asserted(user));
    request
}

//! A store that keeps books, scripted bodies, and the layers as the tests stack them.

use std::{
    cell::Cell,
    collections::{HashMap, VecDeque},
    marker::PhantomPinned,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::{Body, Frame};
use palisade::{
    BoxError,
    clock::ManualClock,
    future::ReadyOr,
    identity::{Identity, UserIdentity},
    rate_limit::{Tier, TieredRateLimitLayer, TieredRateLimitLayerBuilder},
    store::{
        Admission, Charge, Decision, Distinct, FactStore, Key, LimitId, LimiterStore, MemoryStore,
        Pepper, Receipt, Seen, Settlement, Standings, StoreError, StoreFuture, Stores,
    },
};
use pin_project_lite::pin_project;
use tokio::sync::oneshot;

/// What one reservation paid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paid {
    pub(crate) requests: u64,
    pub(crate) tokens: u64,
}

/// A memory store that keeps books: what is out, and what every reservation paid in the end.
#[derive(Debug)]
pub(crate) struct Ledger {
    memory: Arc<MemoryStore>,
    books: Arc<Mutex<Books>>,
    delay: Option<Duration>,
}

#[derive(Debug, Default)]
struct Books {
    out: HashMap<u64, ()>,
    settled: Vec<Paid>,
    down: bool,
}

impl Ledger {
    pub(crate) fn new() -> Arc<Self> {
        Self::with_delay(None)
    }

    /// A store that answers after `delay`, as one across a network does.
    pub(crate) fn remote(delay: Duration) -> Arc<Self> {
        Self::with_delay(Some(delay))
    }

    /// One that counts by this clock.
    pub(crate) fn by(clock: Arc<ManualClock>) -> Arc<Self> {
        let memory = Arc::new(MemoryStore::builder().clock(clock).build().unwrap());
        Arc::new(Self { memory, books: Arc::default(), delay: None })
    }

    fn with_delay(delay: Option<Duration>) -> Arc<Self> {
        Arc::new(Self { memory: Arc::default(), books: Arc::default(), delay })
    }

    pub(crate) fn stores(self: &Arc<Self>) -> Stores {
        let (records, pepper) = (Arc::clone(&self.memory), Pepper::from_secret("test"));
        Stores::separate(Arc::clone(self) as _, Arc::clone(self) as _, records, pepper)
    }

    /// Reservations that are not settled.
    pub(crate) fn out(&self) -> usize {
        self.books.lock().unwrap().out.len()
    }

    /// What reservations paid, in the order of their settlement.
    pub(crate) fn settled(&self) -> Vec<Paid> {
        self.books.lock().unwrap().settled.clone()
    }

    /// Paid in all.
    pub(crate) fn total(&self) -> Paid {
        self.settled().iter().fold(Paid::default(), |sum, paid| Paid {
            requests: sum.requests + paid.requests,
            tokens: sum.tokens + paid.tokens,
        })
    }

    pub(crate) fn go_down(&self) {
        self.books.lock().unwrap().down = true;
    }
}

fn acquire(memory: &MemoryStore, books: &Mutex<Books>, admission: &Admission<'_>) -> Decision {
    let decision = memory.acquire(admission).try_now().unwrap().unwrap();
    if matches!(decision, Decision::Admitted(_)) {
        let before = books.lock().unwrap().out.insert(admission.id.get(), ());
        assert!(before.is_none(), "admitted twice under one id");
    }
    decision
}

fn settle(memory: &MemoryStore, books: &Mutex<Books>, settlement: &Settlement<'_>) {
    let mut paid = Paid::default();
    for (charge, used) in settlement.charges.iter().zip(settlement.used) {
        if charge.limit.id() == LimitId::of("requests-minute") {
            paid.requests = *used;
        } else if charge.limit.id() == LimitId::of("tokens-minute") {
            paid.tokens = *used;
        }
    }
    let mut books = books.lock().unwrap();
    books.out.remove(&settlement.id.get()).expect("settled twice, or never admitted");
    books.settled.push(paid);
    memory.settle(settlement);
}

impl LimiterStore for Ledger {
    fn acquire(&self, admission: &Admission<'_>) -> StoreFuture<Decision> {
        if self.books.lock().unwrap().down {
            return ReadyOr::ready(Err(StoreError::transient("down")));
        }
        let Some(delay) = self.delay else {
            return ReadyOr::ready(Ok(acquire(&self.memory, &self.books, admission)));
        };
        let (memory, books) = (Arc::clone(&self.memory), Arc::clone(&self.books));
        let (id, charges) = (admission.id, admission.charges.to_vec());
        let (answer, receiver) = oneshot::channel();
        tokio::spawn(async move {
            tokio::time::sleep(delay / 2).await;
            let decision = acquire(&memory, &books, &Admission::new(id, &charges));
            tokio::time::sleep(delay / 2).await;
            if answer.send(decision).is_err() {
                give_back(&memory, &books, id, &charges, decision);
            }
        });
        let in_flight = InFlight {
            receiver,
            memory: Arc::clone(&self.memory),
            books: Arc::clone(&self.books),
            admitted: (id, admission.charges.to_vec()),
        };
        ReadyOr::pending(in_flight)
    }

    fn settle(&self, settlement: &Settlement<'_>) {
        settle(&self.memory, &self.books, settlement);
    }

    fn standings(&self, charges: &[Charge], seen: &Seen) -> Standings {
        self.memory.standings(charges, seen)
    }

    fn peek(&self, admission: &Admission<'_>) -> StoreFuture<Standings> {
        self.memory.peek(admission)
    }

    fn reset(&self, record: Key) -> StoreFuture<()> {
        self.memory.reset(record)
    }

    fn flush(&self) -> StoreFuture<()> {
        self.memory.flush()
    }
}

impl FactStore for Ledger {
    fn first_use(&self, key: Key, ttl: Duration) -> StoreFuture<bool> {
        self.memory.first_use(key, ttl)
    }
    fn raise(&self, key: Key, value: u64, ttl: Duration) -> StoreFuture<u64> {
        self.memory.raise(key, value, ttl)
    }
    fn get(&self, key: Key) -> StoreFuture<Option<u64>> {
        self.memory.get(key)
    }
    fn distinct(&self, key: Key, member: Key, window: Duration, cap: u32) -> StoreFuture<Distinct> {
        self.memory.distinct(key, member, window, cap)
    }
}

/// An answer on its way. Dropped with the answer there but unread, it gives it back.
struct InFlight {
    receiver: oneshot::Receiver<Decision>,
    memory: Arc<MemoryStore>,
    books: Arc<Mutex<Books>>,
    admitted: (palisade::store::ReservationId, Vec<Charge>),
}

impl Future for InFlight {
    type Output = Result<Decision, StoreError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(cx).map_err(StoreError::transient)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.receiver.close();
        if let Ok(decision) = self.receiver.try_recv() {
            give_back(&self.memory, &self.books, self.admitted.0, &self.admitted.1, decision);
        }
    }
}

fn give_back(
    memory: &MemoryStore,
    books: &Mutex<Books>,
    id: palisade::store::ReservationId,
    charges: &[Charge],
    decision: Decision,
) {
    if let Decision::Admitted(grant) = decision {
        let unused = vec![0; charges.len()];
        let receipts: &[Receipt] = grant.receipts.as_slice();
        settle(memory, books, &Settlement::new(id, charges, receipts, &unused));
    }
}

/// A layer with one tier of every unit, wide enough for what the tests do.
pub(crate) fn limits(ledger: &Arc<Ledger>) -> TieredRateLimitLayer {
    limits_with(ledger, |builder| builder)
}

pub(crate) fn limits_with(
    ledger: &Arc<Ledger>,
    with: impl FnOnce(TieredRateLimitLayerBuilder) -> TieredRateLimitLayerBuilder,
) -> TieredRateLimitLayer {
    let tier =
        Tier::new().requests_per_minute(1000).tokens_per_minute(1_000_000).concurrent_requests(4);
    let builder = TieredRateLimitLayer::builder(&ledger.stores())
        .tier("free", tier)
        .fallback_tier("free")
        .default_input_tokens(30)
        .default_output_tokens(70);
    with(builder).build().unwrap()
}

/// A request of a known caller, as it comes from the layers outside.
pub(crate) fn request<B>(body: B) -> Request<B> {
    let mut request = Request::post("/generate").body(body).unwrap();
    let user = UserIdentity::asserted("https://login.example", "alice");
    request.extensions_mut().insert(Identity::asserted(user));
    request
}

/// What a scripted body does next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Data(&'static str),
    Trailers(HeaderMap),
    Fail,
    /// The engine thinks for ever.
    Hang,
}

pin_project! {
    /// A body that follows a script. `Send`, but neither `Unpin` nor `Sync`. Counts how many are alive.
    pub(crate) struct Script {
        steps: VecDeque<Step>,
        tells_its_end: bool,
        alive: Arc<AtomicUsize>,
        not_sync: Cell<u8>,
        #[pin]
        not_unpin: PhantomPinned,
    }

    impl PinnedDrop for Script {
        fn drop(this: Pin<&mut Self>) {
            this.alive.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Script {
    pub(crate) fn new(steps: &[Step], alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self {
            steps: steps.iter().cloned().collect(),
            tells_its_end: false,
            alive: Arc::clone(alive),
            not_sync: Cell::new(0),
            not_unpin: PhantomPinned,
        }
    }

    /// Says `is_end_stream` after the last step, so that a server polls no further.
    pub(crate) fn telling_its_end(mut self) -> Self {
        self.tells_its_end = true;
        self
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        if let Some(Step::Hang) = this.steps.front() {
            return Poll::Pending;
        }
        Poll::Ready(match this.steps.pop_front() {
            Some(Step::Data(data)) => Some(Ok(Frame::data(Bytes::from_static(data.as_bytes())))),
            Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Step::Fail) => Some(Err("the engine broke".into())),
            Some(Step::Hang) | None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.tells_its_end && self.steps.is_empty()
    }
}

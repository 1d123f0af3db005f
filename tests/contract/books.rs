//! Whatever comes in whatever order, the books are right in the end.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use palisade::{
    BoxError, UsageMeter,
    clock::ManualClock,
    identity::{Identity, UserIdentity},
    rate_limit::{Tier, TierLimit, TieredRateLimitLayer},
    reservation::TokenUsage,
    store::{Admission, Charge, Limit, LimitId, LimiterStore, Pepper, ReservationId},
};
use proptest::prelude::*;
use tower::{Layer, ServiceExt};

use crate::support::{Ledger, Script, Step, request};

const QUOTA: u64 = 6000;
const SLOTS: u64 = 3;

/// One thing that happens. Numbers that name an open request count modulo how many there are.
#[derive(Clone, Debug)]
enum Event {
    Open { length: u16, ends: bool },
    Refine { at: usize, tokens: u16 },
    Charge { at: usize, tokens: u16 },
    Report { at: usize, tokens: u16 },
    End { at: usize },
    Wait { millis: u16 },
}

fn event() -> impl Strategy<Value = Event> {
    let at = 0_usize..4;
    prop_oneof![
        (any::<u16>(), any::<bool>()).prop_map(|(length, ends)| Event::Open { length, ends }),
        (at.clone(), 0_u16..7000).prop_map(|(at, tokens)| Event::Refine { at, tokens }),
        (at.clone(), 0_u16..500).prop_map(|(at, tokens)| Event::Charge { at, tokens }),
        (at.clone(), 0_u16..7000).prop_map(|(at, tokens)| Event::Report { at, tokens }),
        at.prop_map(|at| Event::End { at }),
        (0_u16..5000).prop_map(|millis| Event::Wait { millis }),
    ]
}

type Open = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;

struct World {
    clock: Arc<ManualClock>,
    ledger: Arc<Ledger>,
    layer: TieredRateLimitLayer,
    open: Vec<(Open, bool, UsageMeter)>,
    waited: u64,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let ledger = Ledger::by(Arc::clone(&clock));
        let tier = Tier::new()
            .requests_per_minute(1_000_000)
            .tokens_per_minute(QUOTA)
            .concurrent_requests(SLOTS);
        // Of one model, and only counted: books of their own, which the others must not feel.
        let minute = Duration::from_secs(60);
        let more = || {
            let by_model = TierLimit::tokens(QUOTA / 2, minute).each_model(["a"]);
            let slots = TierLimit::concurrent_requests(2);
            [by_model, slots.clone().each_model(["a", "b"]), slots.only_models(["b"]).named("b")]
        };
        let counted = TierLimit::tokens(QUOTA / 3, minute).shadow();
        let named = |at: usize, limit: TierLimit| limit.shadow().named(format!("counted-{at}"));
        let counted = more().into_iter().chain([counted]).enumerate();
        let counted = counted.map(|(at, limit)| named(at, limit));
        let tier = more().into_iter().chain(counted).fold(tier, Tier::limit);
        let layer = TieredRateLimitLayer::builder(&ledger.stores())
            .tier("free", tier)
            .fallback_tier("free")
            .clock(Arc::clone(&clock) as _)
            .build()
            .unwrap();
        Self { clock, ledger, layer, open: Vec::new(), waited: 0 }
    }

    async fn happens(&mut self, event: &Event) {
        let count = self.open.len().max(1);
        let meters: Vec<_> = self.open.iter().map(|(_, _, meter)| meter.clone()).collect();
        let meter = |at: usize| meters.get(at % count);
        match *event {
            Event::Open { length, ends } => self.opens(length, ends).await,
            Event::Refine { at, tokens } => {
                if let Some(meter) = meter(at) {
                    let model = ["a", "b", "c"].get(usize::from(tokens) % 4).copied();
                    let _ = meter.refine_for(model, TokenUsage::new(tokens.into(), 0)).await;
                }
            }
            Event::Charge { at, tokens } => {
                if let Some(meter) = meter(at) {
                    meter.charge(tokens.into());
                }
            }
            Event::Report { at, tokens } => {
                if let Some(meter) = meter(at) {
                    meter.report(TokenUsage::new(0, tokens.into()));
                }
            }
            Event::End { at } => {
                if !self.open.is_empty() {
                    let (body, ends, _) = self.open.swap_remove(at % count);
                    if ends {
                        body.collect().await.unwrap();
                    }
                }
            }
            Event::Wait { millis } => {
                self.clock.advance(Duration::from_millis(millis.into()));
                self.waited += u64::from(millis);
            }
        }
    }

    async fn opens(&mut self, length: u16, ends: bool) {
        let meter = Arc::new(Mutex::new(None));
        let leave = Arc::clone(&meter);
        let service = self.layer.layer(tower::service_fn(move |request: Request<Full<Bytes>>| {
            *leave.lock().unwrap() = UsageMeter::of(request.extensions()).cloned();
            let steps = [Step::Data("{}"), if ends { Step::Data(" ") } else { Step::Hang }];
            let body = Script::new(&steps, &Arc::default());
            std::future::ready(Ok::<_, Infallible>(Response::new(body)))
        }));
        let mut request = request(Full::default());
        request.headers_mut().insert("content-length", length.into());
        let response = service.oneshot(request).await.unwrap();
        if let Some(meter) = meter.lock().unwrap().take() {
            self.open.push((Box::pin(response.into_body()), ends, meter));
        }
    }

    /// Tokens and slots that are left.
    fn left(&self) -> [u64; 2] {
        let pepper = Pepper::from_secret("test");
        let key = pepper.key("subject").with(b"https://login.example").with(b"alice").finish();
        let minute = Duration::from_secs(60);
        let charges = [
            Charge::new(key, Limit::rate(LimitId::of("tokens-minute"), QUOTA, minute), 0),
            Charge::new(key, Limit::slots(LimitId::of("concurrent-requests"), SLOTS), 0),
        ];
        let standings = self.ledger.peek(&Admission::new(ReservationId::next(), &charges));
        let standings = standings.try_now().unwrap().unwrap();
        [standings.as_slice()[0].remaining, standings.as_slice()[1].remaining]
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn every_slot_comes_back_and_no_token_that_was_used(
        events in prop::collection::vec(event(), 1..60)
    ) {
        let mut world = World::new();
        block_on(async {
            for event in &events {
                world.happens(event).await;
                assert_eq!(world.left()[1], SLOTS - world.open.len() as u64);
            }
            while !world.open.is_empty() {
                world.happens(&Event::End { at: 0 }).await;
            }
        });
        prop_assert_eq!(world.ledger.out(), 0);
        block_on(async {
            let alice = Identity::asserted(UserIdentity::asserted("https://login.example", "alice"));
            let quotas = world.layer.quotas(&alice, None).await.unwrap();
            let slots: Vec<_> =
                quotas.into_iter().filter(|quota| quota.unit == "concurrent-requests").collect();
            assert_eq!(slots.len(), 9);
            assert!(slots.iter().all(|quota| quota.remaining == quota.quota), "{slots:?}");
        });
        let [tokens, slots] = world.left();
        prop_assert_eq!(slots, SLOTS);
        // What drained meanwhile, at the most.
        let drained = (world.waited * QUOTA).div_ceil(60_000);
        let most = (QUOTA + drained).saturating_sub(world.ledger.total().tokens);
        prop_assert!(tokens <= most, "{} left, of {} at most", tokens, most);
    }

    #[test]
    fn one_after_the_other_all_that_was_not_used_comes_back(
        requests in prop::collection::vec(prop::collection::vec(event(), 0..8), 1..8)
    ) {
        let mut world = World::new();
        block_on(async {
            for events in &requests {
                world.happens(&Event::Open { length: 100, ends: true }).await;
                for event in events {
                    if !matches!(event, Event::Open { .. } | Event::Wait { .. } | Event::End { .. }) {
                        world.happens(event).await;
                    }
                }
                world.happens(&Event::End { at: 0 }).await;
                let paid = world.ledger.total().tokens;
                assert_eq!(world.left(), [QUOTA.saturating_sub(paid), SLOTS]);
            }
        });
    }
}

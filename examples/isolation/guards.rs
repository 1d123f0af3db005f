//! What can stand before the engine.

use std::{
    convert::Infallible,
    future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use palisade::{
    BoxError,
    clock::Clock,
    rate_limit::{
        self, TieredRateLimitLayer,
        fair::{self, FairAdmission, FairAdmissionLayer, Share},
    },
    store::{MemoryStore, Pepper, Stores},
};
use pin_project_lite::pin_project;
use serde::Serialize;
use tokio::time::Instant;
use tower::{
    Layer as _, Service, ServiceExt as _,
    limit::{ConcurrencyLimit, concurrency::future::ResponseFuture},
    service_fn,
    util::BoxCloneService,
};

use crate::{
    engine::{BYTES_PER_TOKEN, Engine},
    workload::{MAX_ANSWER, Tier},
};

/// Any guard with the engine behind it.
pub(crate) type Front = BoxCloneService<Request<Full<Bytes>>, Response<AnyBody>, BoxError>;
type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Guard {
    /// Nothing.
    None,
    /// `TieredRateLimitLayer`: tokens per minute, sold four times over, as quotas are.
    Quotas,
    /// tower's `ConcurrencyLimit`: as many slots, first come, first served.
    Fifo,
    /// One `ConcurrencyLimit` for each tier, of its share.
    Partition,
    /// `FairAdmissionLayer`, before an engine that knows nothing of it.
    Fair,
    /// The same before an engine that parks streams and reads prompts as it is told.
    FairYields,
}

/// What the guards are told of the engine.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Capacity {
    pub(crate) slots: usize,
    pub(crate) tokens_in_flight: Option<u64>,
    pub(crate) prefill_pending: Option<u64>,
    /// Tokens of prompts and answers that the engine works through in a minute of ordinary requests.
    pub(crate) tokens_per_minute: u64,
}

impl Guard {
    /// The guard with the engine behind it; and what tells how its capacity stands, where anything does.
    pub(crate) fn before(
        self,
        engine: Engine,
        capacity: Capacity,
    ) -> Result<(Front, Option<FairAdmission>), BoxError> {
        let inner = engine.map_err(BoxError::from).map_response(boxed);
        let front = match self {
            Self::Fair | Self::FairYields => {
                let fair = admission(capacity, self == Self::FairYields)?;
                let layer = FairAdmissionLayer::builder(&fair)
                    .bytes_per_token(BYTES_PER_TOKEN)
                    .default_output_tokens(MAX_ANSWER.into())
                    .build()?;
                let front = BoxCloneService::new(layer.layer(inner).map_response(boxed));
                return Ok((front, Some(fair)));
            }
            Self::None => BoxCloneService::new(inner),
            Self::Quotas => {
                BoxCloneService::new(quotas(capacity)?.layer(inner).map_response(boxed))
            }
            Self::Fifo => turns(capacity.slots, inner),
            Self::Partition => {
                let fronts =
                    Tier::ALL.map(|tier| (tier, turns(tier.slots(capacity.slots), inner.clone())));
                BoxCloneService::new(service_fn(move |request: Request<Full<Bytes>>| {
                    let tier = request.extensions().get().copied();
                    let front = fronts
                        .iter()
                        .find(|(of, _)| Some(*of) == tier)
                        .map(|(_, front)| front.clone());
                    async move { front.ok_or("a request of no tier")?.oneshot(request).await }
                }))
            }
        };
        Ok((front, None))
    }
}

fn boxed<R>(response: Response<R>) -> Response<AnyBody>
where
    R: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// Four times what the engine can do, by the tiers' shares, over the honest accounts of each. An account more has a quota
/// more.
fn quotas(capacity: Capacity) -> Result<TieredRateLimitLayer, BoxError> {
    let clock = Arc::new(PausedClock(Instant::now()));
    let store = MemoryStore::builder().clock(clock.clone()).build()?;
    let stores = Stores::new(Arc::new(store), Pepper::from_secret("isolation"));
    let mut limits = TieredRateLimitLayer::builder(&stores)
        .clock(clock)
        .bytes_per_token(BYTES_PER_TOKEN)
        .default_output_tokens(MAX_ANSWER.into());
    for tier in Tier::ALL {
        let sold = 4 * capacity.tokens_per_minute * u64::from(tier.percent()) / 100;
        let quota = sold / u64::from(tier.honest().0);
        limits = limits.tier(tier.name(), rate_limit::Tier::new().tokens_per_minute(quota));
    }
    Ok(limits.build()?)
}

/// The engine's capacity by the tiers' shares.
fn admission(capacity: Capacity, yields: bool) -> Result<FairAdmission, BoxError> {
    let mut room = fair::Capacity::slots(capacity.slots);
    if let Some(tokens) = capacity.tokens_in_flight {
        room = room.tokens_in_flight(tokens);
    }
    if let Some(tokens) = capacity.prefill_pending {
        room = room.prefill_pending(tokens);
    }
    let clock = Arc::new(PausedClock(Instant::now()));
    let mut fair = FairAdmission::builder().capacity(room).clock(clock);
    for tier in Tier::ALL {
        fair = fair.tier(tier.name(), Share::percent(tier.percent().into()).queue(256));
    }
    Ok(if yields { fair.engine_yields() } else { fair }.build()?)
}

/// The runtime's clock, which a test may stop.
#[derive(Debug)]
pub(crate) struct PausedClock(pub(crate) Instant);

impl Clock for PausedClock {
    fn unix(&self) -> std::time::Duration {
        std::time::Duration::from_secs(1_800_000_000) + self.0.elapsed()
    }

    fn monotonic(&self) -> std::time::Duration {
        self.0.elapsed()
    }
}

/// tower's `ConcurrencyLimit`, made to count streams: it gives a slot back at the head of an answer, when the engine's
/// work has just begun. Here the future that holds the slot, which never ends, lives in the body.
fn turns<S>(slots: usize, inner: S) -> Front
where
    S: Service<Request<Full<Bytes>>, Response = Response<AnyBody>, Error = BoxError, Future: Send>
        + Clone
        + Send
        + 'static,
{
    let never = || future::pending::<Result<(), Infallible>>();
    let turns = ConcurrencyLimit::new(service_fn(move |()| never()), slots);
    BoxCloneService::new(service_fn(move |request| {
        let (mut turns, inner) = (turns.clone(), inner.clone());
        async move {
            let turn = turns.ready().await?.call(());
            let answer = inner.oneshot(request).await?;
            Ok(answer.map(|body| Held { body, _turn: turn }.boxed_unsync()))
        }
    }))
}

pin_project! {
    struct Held {
        #[pin]
        body: AnyBody,
        _turn: ResponseFuture<future::Pending<Result<(), Infallible>>>,
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.project().body.poll_frame(cx)
    }
}

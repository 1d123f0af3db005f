//! Fair admission: an engine's capacity shared between tiers, so that abuse in one slows no other.
//!
//! Quotas do not give that: fifty accounts within theirs still fill an engine. Here the engine's
//! [`Capacity`] is shared out: slots, tokens in flight, and tokens of prompts that have not begun to be
//! answered. Each tier has a [`Share`] of every one.
//!
//! - **A share is its tier's own.** A request of a tier that uses less is let in before any other; nobody borrows past one
//!   that waits. What a tier does not use is lent, but for some [`Headroom`], so that it finds a slot free
//!   when it comes. With [`Adaptive`], less is lent when the engine takes too long for a token.
//! - **Within a tier**, who has had least is next (virtual token counters, Sheng et al., OSDI 2024): organisation or network
//!   first, single callers within, so that accounts buy no shares. What a request may use is charged when it is let in, and
//!   corrected to what it used.
//! - **What does not fit waits**, in queues bounded in number, in bytes and in time. A full queue gives up the newest of who
//!   has most in it. Whoever leaves is out at once. While a request waits its body is not read, `Expect: 100-continue` is not
//!   answered, nothing within is held, and no task runs for it.
//! - **A slot is held** to the last byte of the answer, its error or its drop; the inner body is dropped first.
//! - **Slots are reclaimed** for a tier below its share, where that is wanted: an engine in the same process parks a stream
//!   ([`YieldSignal`]); or a request is broken off ([`Revoke`]).
//!
//! # What is refused
//! With 503, in Anthropic's shape 529, over gRPC UNAVAILABLE, and never 429, which is for the caller's own quota; with a
//! `Retry-After` that is spread, so that what was refused at once does not come again at once. A quota is charged nothing. The
//! codes are `queue_full`; `deadline`, of what waited in vain or could not have been served in time; `too_large`, of
//! what has more tokens than its tier has a share of, when they are not to be borrowed; and `revoked`. A prompt that is longer than
//! the tier's may be is the caller's fault: 400, `prompt_too_long`.
//!
//! A request may say for how long it waits, by `x-request-timeout` (seconds, or with `ms`, `s` or `m`) or `grpc-timeout`: for less
//! than its tier may, never for longer.
//!
//! # What can be seen of it
//! [`FairAdmission::snapshot`](FairAdmission::snapshot) tells how everything stands. Metrics, by tier: the gauges
//! `palisade_fair_in_use`, `palisade_fair_borrowed` and `palisade_fair_waiting`, the histogram `palisade_fair_waited_seconds`
//! of what was let in, the counters `palisade_fair_refused_total`, by reason too (`revoked` among them), and
//! `palisade_fair_tokens_total`. With [`Adaptive`] also the gauge `palisade_fair_borrow_limit` and the counter
//! `palisade_fair_oversold_total`, which have no tier.
//!
//! # Example
//! One request at a time, and nobody may wait:
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use palisade::{
//!     identity::{Identity, UserIdentity},
//!     rate_limit::fair::{Capacity, FairAdmission, FairAdmissionLayer, Share},
//! };
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let fair = FairAdmission::builder()
//!     .capacity(Capacity::slots(1))
//!     .tier("free", Share::percent(100).queue(0))
//!     .build()?;
//! let admission = FairAdmissionLayer::builder(&fair).fallback_tier("free").build()?;
//!
//! let service = ServiceBuilder::new().layer(admission).service_fn(|_: Request<String>| async {
//!     Ok::<_, std::convert::Infallible>(Response::new(String::from("an answer")))
//! });
//!
//! let request = || {
//!     let mut request = Request::post("/v1/chat/completions").body(String::new()).unwrap();
//!     // In the place of JwtAuthLayer.
//!     let user = UserIdentity::asserted("https://login.example", "alice");
//!     request.extensions_mut().insert(Identity::asserted(user));
//!     request
//! };
//! // Its body is not read yet, so the engine is still at it.
//! let first = service.clone().oneshot(request()).await?;
//! assert_eq!(first.status(), StatusCode::OK);
//! assert_eq!(fair.snapshot().in_use, 1);
//!
//! let second = service.clone().oneshot(request()).await?;
//! assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE);
//!
//! drop(first);
//! assert_eq!(service.oneshot(request()).await?.status(), StatusCode::OK);
//! # Ok(())
//! # }
//! ```
//!
//! With quotas, [`TieredRateLimitLayerBuilder::fair`](super::TieredRateLimitLayerBuilder::fair) does both in one layer: a request
//! that its quotas admit then waits for its turn. One [`FairAdmission`] guards one engine, however many
//! layers stand before it.
//!
//! # What no layer before an engine can do
//! - **Split a prompt.** In an engine that takes prompts in their order, a long one delays all behind it. `prefill_pending` and
//!   `max_prompt_tokens` bound that; only an engine that knows of tiers ([`EngineHint`]) removes it.
//! - **Keep a batching engine as fast as an empty one.** More streams in a batch make each slower. Tokens in flight bound
//!   it: a flood then costs the others what as much ordinary work would.
//! - **See a queue within the engine.** With more slots here than it runs at a time, requests wait there, where nothing is fair.
//!   That is found out by streamed answers, none of which begins before another ends: a warning in the log, the
//!   counter `palisade_fair_engine_queues_total`, and [`Snapshot::engine_slots`].
//! - **Stop an engine that works on for a client that has left**: the slot is free here, and not there, unless
//!   [`abort_grace`](FairAdmissionBuilder::abort_grace) keeps it for a while. How long that engine works on is not to be seen from here.
//! - **See that a client is gone before its server does.** Over HTTP/1.1 one that leaves in the middle of its upload is not
//!   missed while nobody reads that: it keeps its place until its turn, which ends when its body is asked for, or its deadline.
//! - **Take back a slot from an answer that nobody reads.** Over HTTP/2 a client can stop reading; a borrowed request that has
//!   not stopped 5 seconds after it was told to keeps its slot, and others are told in its place.
//! - **Guarantee more than the share holds.** One that is too small for its tier's own need makes it wait in its own
//!   queue: `owners_waited` of the snapshot counts that.
//! - **Know of other processes.** Each shares out what it was told: several before one engine have a part of it each.
//!
//! # Who attacks, and how
//! | who | does | and |
//! |---|---|---|
//! | one caller | sends more than his share | waits behind all others of his tier; only his own are evicted |
//! | | comes from many addresses | stays in the network that he came from first, as long as he is in line there |
//! | many accounts | of one organisation or network | are one, as [`group_by`](FairAdmissionBuilder::group_by) says |
//! | a tier | is full of either | gets its share, and what others leave it; its callers share that |
//! | anybody | names a tier in a header | has the tier that his token names |
//! | | asks to wait for long | waits for no longer than his tier may |
//! | | sends large bodies to wait | has them unread; what servers read ahead is counted and bounded |
//! | | connects and leaves | is out at once, and his turn is the next one's |
//! | | states no length, or a short one | is charged by what his request is then found to use |

mod admission;
mod builder;
mod deadline;
mod gauges;
mod grouping;
mod layer;
mod pace;
mod permit;
mod plan;
mod refusal;
mod scheduler;
mod signal;

pub use self::{
    admission::FairAdmission,
    builder::FairAdmissionBuilder,
    layer::{FairAdmissionLayer, FairAdmissionLayerBuilder},
    plan::{Adaptive, Capacity, Headroom, Revoke, Share},
    scheduler::{AdaptiveSnapshot, Refused, Snapshot, TierSnapshot},
    signal::{EngineHint, SlotClass, YieldSignal},
};
pub(super) use self::{
    admission::{Asking, Entry, Wish},
    pace::Pace,
    permit::{Permit, Place, Queued},
    signal::Watch,
};

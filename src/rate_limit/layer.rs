//! The layer.

use std::{fmt, sync::Arc};

use tower_layer::Layer;

use super::{
    TieredRateLimit, TieredRateLimitLayerBuilder,
    fair::FairAdmission,
    headers::{Families, Telling},
    ready_tier::ReadyTier,
    settlement::Options,
    tier::Tier,
    tiers::{PreparedTier, TierOverrides, Tiers},
};
use crate::{
    BuildError, Routes,
    clock::Clock,
    identity::Identity,
    network::ClientAddress,
    reject::{Rejection, RejectionKind},
    route::Endpoint,
    store::{LimiterStore, Pepper, Stores},
};

/// Admits requests by the limits of their callers' tiers. See the [module docs](crate::rate_limit).
#[derive(Clone, Debug)]
pub struct TieredRateLimitLayer {
    pub(super) config: Arc<Config>,
}

impl TieredRateLimitLayer {
    /// A layer that keeps its limits in `stores`.
    pub fn builder(stores: &Stores) -> TieredRateLimitLayerBuilder {
        TieredRateLimitLayerBuilder::new(stores)
    }

    /// A layer that stands outside `JwtAuthLayer`, so that a flood of requests without a good token costs no
    /// signatures: `limits` count requests, and requests at a time, per [`Network`](super::Scope::Network),
    /// [`Site`](super::Scope::Site), [`Workload`](super::Scope::Workload) (within `PeerCertLayer`) or
    /// [`Global`](super::Scope::Global), for whoever it is. What a request claims to be is never charged to whom it claims.
    ///
    /// It leaves no tier, no meter and no headers on answers that pass, which are for the inner layer's limits.
    ///
    /// ```
    /// use palisade::{rate_limit::{Scope, Tier, TierLimit, TieredRateLimitLayer}, store::Stores};
    /// use std::time::Duration;
    ///
    /// let per_network = TierLimit::requests(100, Duration::from_secs(10)).per([Scope::Network]);
    /// let outermost = TieredRateLimitLayer::before_authentication(
    ///     &Stores::in_memory(),
    ///     Tier::new().limit(per_network),
    /// )
    /// .build()?;
    /// # Ok::<(), palisade::BuildError>(())
    /// ```
    pub fn before_authentication(stores: &Stores, limits: Tier) -> TieredRateLimitLayerBuilder {
        Self::builder(stores).of_nobody().tier(ANYBODY, limits).fallback_tier(ANYBODY)
    }

    /// Replaces all tiers, in this layer and all its clones, for requests that come from now on. What was used is
    /// kept: under another quota, a limit of the same name goes on from where it stood.
    ///
    /// # Errors
    /// As in [`build`](TieredRateLimitLayerBuilder::build); and when the tiers come from a file, which has the last word.
    /// The tiers stay as they were then.
    pub fn replace_tiers(
        &self,
        tiers: impl IntoIterator<Item = (String, Tier)>,
    ) -> Result<(), BuildError> {
        self.config.tiers.replace(&tiers.into_iter().collect())
    }
}

impl<S> Layer<S> for TieredRateLimitLayer {
    type Service = TieredRateLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TieredRateLimit::new(inner, Arc::clone(&self.config))
    }
}

/// What every request needs of the configuration.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) store: Arc<dyn LimiterStore>,
    pub(super) pepper: Pepper,
    pub(super) routes: Routes,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) bytes_per_token: u64,
    pub(super) default_input_tokens: u64,
    pub(super) default_output_tokens: u64,
    pub(super) options: Options,
    pub(super) headers: bool,
    pub(super) families: Families,
    pub(super) client: ClientAddress,
    pub(super) organisation: String,
    pub(super) tiers: Tiers,
    pub(super) source: Source,
    pub(super) overrides: Option<Arc<dyn TierOverrides>>,
    pub(super) fair: Option<FairAdmission>,
}

impl Config {
    /// Whether the layer stands outside of what tells callers.
    pub(super) fn is_before_authentication(&self) -> bool {
        matches!(self.source, Source::Nobody)
    }

    /// How a request for `endpoint` is told where its caller stands, now.
    pub(super) fn telling(&self, endpoint: Endpoint) -> Telling {
        Telling::of(self.families, endpoint, &*self.clock)
    }

    /// The tier of a caller. A caller without one, or of an unknown one, has the fallback's.
    pub(super) fn tier(&self, identity: &Identity) -> Result<Arc<ReadyTier>, Rejection> {
        let name = match &self.source {
            Source::Nobody => None,
            Source::Claim(claim) => identity.known_user()?.claims().str(claim),
            Source::By(choose) => choose(identity),
        };
        let own = self.overrides.as_ref().and_then(|overrides| overrides.tier(identity, name));
        own.map(PreparedTier::ready).or_else(|| self.tiers.get(name)).ok_or_else(|| {
            const MESSAGE: &str = "Your account has no tier that may use this service.";
            Rejection::new(RejectionKind::Forbidden, "no_tier", MESSAGE)
        })
    }
}

/// The tier of all who are not known yet.
const ANYBODY: &str = "anybody";

/// Where a caller's tier comes from.
pub(super) enum Source {
    /// Nowhere: the layer stands outside of what tells callers.
    Nobody,
    Claim(String),
    By(Box<Choose>),
}

type Choose = dyn for<'a> Fn(&'a Identity) -> Option<&'a str> + Send + Sync;

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("Nobody"),
            Self::Claim(claim) => f.debug_tuple("Claim").field(claim).finish(),
            Self::By(_) => f.write_str("By(..)"),
        }
    }
}

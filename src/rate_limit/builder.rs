//! The layer's builder.

use std::{path::PathBuf, sync::Arc};

use super::{
    HeaderFamily, TieredRateLimitLayer,
    fair::FairAdmission,
    headers::Families,
    layer::{Config, Source},
    settlement::Options,
    tier::Tier,
    tiers::{Terms, TierOverrides, Tiers, TiersFile},
};
use crate::{
    BoxError, BuildError, Routes,
    clock::{Clock, SystemClock},
    identity::Identity,
    network::ClientAddress,
    store::Stores,
};

/// Builds a [`TieredRateLimitLayer`].
#[derive(Debug)]
#[must_use]
pub struct TieredRateLimitLayerBuilder {
    stores: Stores,
    tiers: Vec<(String, Tier)>,
    file: Option<TiersFile>,
    source: Source,
    fallback: Option<String>,
    routes: Routes,
    clock: Arc<dyn Clock>,
    bytes_per_token: u64,
    default_input_tokens: u64,
    default_output_tokens: u64,
    options: Options,
    headers: bool,
    families: Families,
    client: ClientAddress,
    organisation: String,
    overrides: Option<Arc<dyn TierOverrides>>,
    fair: Option<FairAdmission>,
}

impl TieredRateLimitLayerBuilder {
    pub(super) fn new(stores: &Stores) -> Self {
        Self {
            stores: stores.clone(),
            tiers: Vec::new(),
            file: None,
            source: Source::Claim("tier".into()),
            fallback: None,
            routes: Routes::guard_all(),
            clock: Arc::new(SystemClock),
            bytes_per_token: 4,
            default_input_tokens: 256,
            default_output_tokens: 256,
            options: Options::default(),
            headers: true,
            families: Families::default(),
            client: ClientAddress::default(),
            organisation: "org_id".into(),
            overrides: None,
            fair: None,
        }
    }

    /// For a layer that stands outside of what tells callers.
    pub(super) fn of_nobody(mut self) -> Self {
        self.source = Source::Nobody;
        self.headers = false;
        self
    }

    /// Adds a tier. At least one is needed.
    pub fn tier(mut self, name: impl Into<String>, tier: Tier) -> Self {
        self.tiers.push((name.into(), tier));
        self
    }

    /// Adds several tiers, from a file for one (feature `serde`).
    pub fn tiers(mut self, tiers: impl IntoIterator<Item = (String, Tier)>) -> Self {
        self.tiers.extend(tiers);
        self
    }

    /// Reads the tiers from a file, beside those that are given here. It is looked at once a second in the background,
    /// and read again when it has changed and was left alone since the look before: what was used is kept. A file that
    /// can't be read, or whose tiers can't be kept, never replaces good ones: an error is logged, and
    /// `palisade_tier_reads_total{outcome="failed"}` counts it. At most 16 MiB.
    ///
    /// ```
    /// # #[cfg(feature = "serde")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use palisade::{rate_limit::{Tier, TieredRateLimitLayer}, store::Stores};
    /// use std::collections::BTreeMap;
    ///
    /// # let path = std::env::temp_dir().join("palisade-tiers-of-the-example.toml");
    /// std::fs::write(&path, "[free]\nrequests_per_minute = 60\n[paid]\ntokens_per_day = 5_000_000\n")?;
    /// let limits = TieredRateLimitLayer::builder(&Stores::in_memory())
    ///     .tiers_file(path, |text| toml::from_str::<BTreeMap<String, Tier>>(text))
    ///     .fallback_tier("free")
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "serde"))]
    /// # fn main() {}
    /// ```
    pub fn tiers_file<F, T, E>(mut self, path: impl Into<PathBuf>, parse: F) -> Self
    where
        F: Fn(&str) -> Result<T, E> + Send + Sync + 'static,
        T: IntoIterator<Item = (String, Tier)>,
        E: Into<BoxError>,
    {
        self.file = Some(TiersFile::new(path.into(), move |text| {
            parse(text).map(|tiers| tiers.into_iter().collect()).map_err(Into::into)
        }));
        self
    }

    /// Takes the tier's name from this claim of the token: a name or a JSON pointer. Default: `tier`.
    pub fn tier_from_claim(mut self, claim: impl Into<String>) -> Self {
        self.source = Source::Claim(claim.into());
        self
    }

    /// Takes the tier's name from a function of the caller's identity. It may do without a token, where no limit is
    /// per [`Subject`](super::Scope::Subject) or [`Organisation`](super::Scope::Organisation): for callers that are
    /// workloads.
    pub fn tier_by<F>(mut self, choose: F) -> Self
    where
        F: for<'a> Fn(&'a Identity) -> Option<&'a str> + Send + Sync + 'static,
    {
        self.source = Source::By(Box::new(choose));
        self
    }

    /// The tier of callers who have none, or one that does not exist. By default they are refused
    /// with 403.
    pub fn fallback_tier(mut self, name: impl Into<String>) -> Self {
        self.fallback = Some(name.into());
        self
    }

    /// Which requests are held to limits. Default: all.
    pub fn routes(mut self, routes: Routes) -> Self {
        self.routes = routes;
        self
    }

    /// The clock for reset times in headers. Default: the system's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Tokens that a prompt is taken to have when a request does not state its length, until the
    /// guard has parsed it. Default: 256.
    pub fn default_input_tokens(mut self, tokens: u64) -> Self {
        self.default_input_tokens = tokens;
        self
    }

    /// How many bytes of a request's body are taken for a token, until the guard has parsed it and counted. Default: 4,
    /// which is right for English and, for text that is made to have many tokens, up to 4 times too few. Where no guard
    /// stands within, and nothing but the answer's own word corrects it, 1 is never too few.
    pub fn bytes_per_token(mut self, bytes: u64) -> Self {
        self.bytes_per_token = bytes;
        self
    }

    /// Tokens that an answer is taken to have, until the guard has parsed what the request allows it.
    /// Default: 256.
    pub fn default_output_tokens(mut self, tokens: u64) -> Self {
        self.default_output_tokens = tokens;
        self
    }

    /// Charges an answer that the client does not wait for as if it had: for engines that run on.
    /// Default: off, the prompt and the output so far are charged.
    pub fn keep_reservation_on_abort(mut self) -> Self {
        self.options.keep_reservation_on_abort = true;
        self
    }

    /// Gives the request itself back, not only its tokens, when the server fails (5xx). Default: off.
    pub fn refund_failed_requests(mut self) -> Self {
        self.options.refund_failed_requests = true;
        self
    }

    /// Grants a request whose limits have no room for the answer that it asks for a shorter one, of at least so many
    /// tokens, when its estimate is refined. What is granted is
    /// [`UsageMeter::granted_output_tokens`](crate::UsageMeter::granted_output_tokens), to which the handler has to lower
    /// `max_tokens`: what it produces beyond becomes the caller's debt. By default such a request is refused.
    pub fn grant_fewer_output_tokens(mut self, at_least: u64) -> Self {
        self.options.least_output = Some(at_least);
        self
    }

    /// Leaves rate limit headers out of answers that were admitted. Default: they are sent, which is more than a third of what
    /// the layer adds to a request that is counted in memory (`scripts/bench limits "whole layer"`).
    pub fn without_headers(mut self) -> Self {
        self.headers = false;
        self
    }

    /// Which headers tell callers where they stand, in admitted answers and refusals. Default: [`HeaderFamily::Endpoint`]
    /// and [`HeaderFamily::IetfDraft`]. An empty list: none; a refusal still has its `Retry-After`.
    pub fn header_families(mut self, families: impl IntoIterator<Item = HeaderFamily>) -> Self {
        self.families = Families::of(families);
        self
    }

    /// The claim of the token that names the caller's organisation: a name or a JSON pointer. Default: `org_id`.
    pub fn organisation_from_claim(mut self, claim: impl Into<String>) -> Self {
        self.organisation = claim.into();
        self
    }

    /// How a client's address is found, for limits per network. By default it is that of the connection's other end.
    pub fn client_address(mut self, client: ClientAddress) -> Self {
        self.client = client;
        self
    }

    /// Gives single callers a tier of their own. By default nobody has one.
    pub fn overrides(mut self, overrides: Arc<dyn TierOverrides>) -> Self {
        self.overrides = Some(overrides);
        self
    }

    /// Shares the engine's capacity fairly: a request that its quotas admit then waits for its tier's turn. Every tier
    /// needs a share, and may do without limits. What is refused for want of capacity is charged nothing. Default: what
    /// the quotas admit goes on at once. See [`fair`](super::fair).
    pub fn fair(mut self, fair: &FairAdmission) -> Self {
        self.fair = Some(fair.clone());
        self
    }

    /// Checks the configuration.
    ///
    /// # Errors
    /// When there are no tiers, two of a name, one that can't be kept or has no share, an unknown fallback, or a file that
    /// can't be read.
    pub fn build(self) -> Result<TieredRateLimitLayer, BuildError> {
        if self.bytes_per_token == 0 {
            return Err(BuildError::invalid("bytes_per_token", "zero"));
        }
        let of_nobody = matches!(self.source, Source::Nobody);
        if of_nobody && self.fair.is_some() {
            return Err(BuildError::invalid("fair", "before authentication, nobody has a tier"));
        }
        let terms = Terms { fallback: self.fallback, of_nobody, fair: self.fair.clone() };
        let tiers = match self.file {
            Some(file) => Tiers::of_file(file, self.tiers, terms)?,
            None => Tiers::given(&self.tiers, terms)?,
        };
        Ok(TieredRateLimitLayer {
            config: Arc::new(Config {
                store: Arc::clone(self.stores.limiter()),
                pepper: self.stores.pepper().clone(),
                routes: self.routes,
                clock: self.clock,
                bytes_per_token: self.bytes_per_token,
                default_input_tokens: self.default_input_tokens,
                default_output_tokens: self.default_output_tokens,
                options: self.options,
                headers: self.headers,
                families: self.families,
                client: self.client,
                organisation: self.organisation,
                tiers,
                source: self.source,
                overrides: self.overrides,
                fair: self.fair,
            }),
        })
    }
}

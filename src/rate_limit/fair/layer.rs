//! The layer by itself, without quotas.

use tower_layer::Layer;

use super::FairAdmission;
use crate::{
    BuildError, Routes,
    identity::Identity,
    network::ClientAddress,
    rate_limit::{Tier, TieredRateLimit, TieredRateLimitLayer, TieredRateLimitLayerBuilder},
    store::Stores,
};

/// Shares an engine's capacity between tiers that have no quotas. Where they have,
/// [`TieredRateLimitLayerBuilder::fair`](crate::rate_limit::TieredRateLimitLayerBuilder::fair) does both: a request that
/// passed a `TieredRateLimitLayer` is refused with 500, since each leaves a [`UsageMeter`](crate::UsageMeter) of its own.
///
/// It stands where `TieredRateLimitLayer` would, and needs of those outside what that does. No store is asked.
/// See the [module docs](super).
#[derive(Clone, Debug)]
pub struct FairAdmissionLayer(TieredRateLimitLayer);

impl FairAdmissionLayer {
    /// A layer before the engine whose capacity `fair` is.
    pub fn builder(fair: &FairAdmission) -> FairAdmissionLayerBuilder {
        let begun = TieredRateLimitLayer::builder(&Stores::in_memory());
        let begun = begun.fair(fair).without_headers();
        let tiers = fair.tiers().map(|name| (name.to_owned(), Tier::new()));
        FairAdmissionLayerBuilder(begun.tiers(tiers))
    }
}

impl<S> Layer<S> for FairAdmissionLayer {
    type Service = TieredRateLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        self.0.layer(inner)
    }
}

/// Builds a [`FairAdmissionLayer`].
#[derive(Debug)]
#[must_use]
pub struct FairAdmissionLayerBuilder(TieredRateLimitLayerBuilder);

impl FairAdmissionLayerBuilder {
    /// Takes the tier's name from this claim of the token: a name or a JSON pointer. Default: `tier`.
    pub fn tier_from_claim(self, claim: impl Into<String>) -> Self {
        Self(self.0.tier_from_claim(claim))
    }

    /// Takes the tier's name from a function of the caller's identity, which may do without a token.
    pub fn tier_by<F>(self, choose: F) -> Self
    where
        F: for<'a> Fn(&'a Identity) -> Option<&'a str> + Send + Sync + 'static,
    {
        Self(self.0.tier_by(choose))
    }

    /// The tier of callers who have none, or one without a share. By default they are refused with 403.
    pub fn fallback_tier(self, name: impl Into<String>) -> Self {
        Self(self.0.fallback_tier(name))
    }

    /// Which requests wait for their turn. Default: all. Health checks are to be exempt, or a flood makes the server look
    /// dead.
    pub fn routes(self, routes: Routes) -> Self {
        Self(self.0.routes(routes))
    }

    /// How a client's address is found, for [groups](super::FairAdmissionBuilder::group_by) by network. By default it is
    /// that of the connection's other end.
    pub fn client_address(self, client: ClientAddress) -> Self {
        Self(self.0.client_address(client))
    }

    /// The claim of the token that names the caller's organisation: a name or a JSON pointer. Default: `org_id`.
    pub fn organisation_from_claim(self, claim: impl Into<String>) -> Self {
        Self(self.0.organisation_from_claim(claim))
    }

    /// How many bytes of a request's body are taken for a token, until somebody has counted. Default: 4.
    pub fn bytes_per_token(self, bytes: u64) -> Self {
        Self(self.0.bytes_per_token(bytes))
    }

    /// Tokens that a prompt is taken to have when a request does not state its length, until somebody has counted.
    /// Default: 256.
    pub fn default_input_tokens(self, tokens: u64) -> Self {
        Self(self.0.default_input_tokens(tokens))
    }

    /// Tokens that an answer is taken to have, until it is known what the request allows it. Default: 256.
    pub fn default_output_tokens(self, tokens: u64) -> Self {
        Self(self.0.default_output_tokens(tokens))
    }

    /// Checks the configuration.
    ///
    /// # Errors
    /// When the fallback does not exist, or a tier's name is none.
    pub fn build(self) -> Result<FairAdmissionLayer, BuildError> {
        Ok(FairAdmissionLayer(self.0.build()?))
    }
}

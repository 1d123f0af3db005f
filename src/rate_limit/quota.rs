//! Where a caller stands, for those who look after him.

use std::{net::IpAddr, time::Duration};

use super::{
    TieredRateLimitLayer, Window, ready_tier::ReadyTier, refusal, scope::Asker, shadow::ShadowKeys,
    unit::Unit,
};
use crate::{
    identity::Identity,
    reject::Rejection,
    store::{Admission, Charge, Inline, Key, MAX_CHARGES, NO_CHARGE, ReservationId},
};

/// One limit of a caller's tier, and where he stands with it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// The limit's name, as in `RateLimit-Policy`.
    pub name: String,
    /// What it counts: `requests`, `tokens`, `input-tokens`, `output-tokens`, `cost` or `concurrent-requests`.
    pub unit: &'static str,
    /// Units in each window; of requests at a time, how many.
    pub quota: u64,
    /// In what time. None for requests at a time.
    pub window: Option<Window>,
    /// Units that are left now.
    pub remaining: u64,
    /// Until all of it is there again.
    pub reset: Duration,
    /// The models that it counts so, of a limit for [each](super::TierLimit::each_model); `*` are those that are not named.
    pub model: Option<String>,
    /// Whether it is only [counted](super::TierLimit::shadow).
    pub shadow: bool,
}

impl TieredRateLimitLayer {
    /// Where a caller stands with each limit of his tier. Charges nothing. `address` is the client's, for limits per
    /// network.
    ///
    /// # Errors
    /// Those that a request of his would be refused with: he has no tier, a limit needs to know more of him than
    /// `identity` says, or the store can't be asked.
    ///
    /// ```
    /// use palisade::{identity::{Identity, UserIdentity}, rate_limit::{Tier, TieredRateLimitLayer}, store::Stores};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let limits = TieredRateLimitLayer::builder(&Stores::in_memory())
    ///     .tier("free", Tier::new().requests_per_minute(20))
    ///     .fallback_tier("free")
    ///     .build()?;
    /// let alice = Identity::asserted(UserIdentity::asserted("https://login.example", "alice"));
    /// let quotas = limits.quotas(&alice, None).await.map_err(|refusal| refusal.message().to_owned())?;
    /// assert_eq!((quotas[0].name.as_str(), quotas[0].remaining), ("requests-minute", 20));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn quotas(
        &self,
        identity: &Identity,
        address: Option<IpAddr>,
    ) -> Result<Vec<Quota>, Rejection> {
        let tier = self.config.tier(identity)?;
        let (keys, shadow) = self.records(&tier, identity, address)?;
        let mut quotas = self.quotas_of(&tier, &keys).await?;
        if let Some((tier, keys)) = tier.shadow.as_ref().zip(shadow) {
            let shadows = self.quotas_of(tier, keys.keys()).await?;
            quotas.extend(shadows.into_iter().map(|quota| Quota { shadow: true, ..quota }));
        }
        Ok(quotas)
    }

    fn records(
        &self,
        tier: &ReadyTier,
        identity: &Identity,
        address: Option<IpAddr>,
    ) -> Result<(Inline<Key>, Option<Box<ShadowKeys>>), Rejection> {
        let (config, address) = (&*self.config, || address);
        tier.records(&Asker { config, identity, tier: &tier.name, address: &address })
    }

    async fn quotas_of(
        &self,
        tier: &ReadyTier,
        keys: &Inline<Key>,
    ) -> Result<Vec<Quota>, Rejection> {
        let mut quotas = Vec::with_capacity(tier.limits.len());
        let (pepper, unix) = (&self.config.pepper, self.config.clock.unix());
        // As many at once as an admission may name.
        for charges in tier.all_charges(pepper, keys, unix).chunks(MAX_CHARGES) {
            let named: Inline<Charge> =
                Inline::collect(NO_CHARGE, charges.iter().map(|(.., charge)| *charge));
            let admission = Admission::new(ReservationId::next(), named.as_slice());
            let standings = self.config.store.peek(&admission).await;
            let standings = standings.map_err(|error| refusal::unavailable(&error))?;
            let limits = charges.iter().zip(standings.as_slice());
            quotas.extend(limits.map(|((limit, model, _), standing)| Quota {
                name: limit.name.clone(),
                unit: limit.unit.name(),
                quota: limit.quota,
                window: (limit.unit != Unit::Slots).then_some(limit.window),
                remaining: standing.remaining,
                reset: standing.reset,
                shadow: false,
                model: model.map(str::to_owned),
            }));
        }
        Ok(quotas)
    }

    /// Forgets what a caller has used of the limits that are his, alone or together with his organisation, workload or
    /// network. Those that a whole tier shares stay as they are.
    ///
    /// # Errors
    /// As for [`quotas`](Self::quotas). Some may be reset then.
    pub async fn reset_quotas(
        &self,
        identity: &Identity,
        address: Option<IpAddr>,
    ) -> Result<(), Rejection> {
        let tier = self.config.tier(identity)?;
        let (keys, shadow) = self.records(&tier, identity, address)?;
        let shadows = tier.shadow.as_ref().zip(shadow.as_ref());
        let pepper = &self.config.pepper;
        let shadows = shadows.into_iter().flat_map(|(tier, keys)| tier.own(pepper, keys.keys()));
        for record in tier.own(pepper, &keys).chain(shadows) {
            let reset = self.config.store.reset(record).await;
            reset.map_err(|error| refusal::unavailable(&error))?;
        }
        Ok(())
    }
}

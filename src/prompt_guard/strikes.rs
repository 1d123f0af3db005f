//! What blocked prompts cost those who send them.

use std::{sync::Arc, time::Duration};

use http::{Extensions, HeaderMap};

use super::{Category, detector::Categories};
use crate::{
    BuildError,
    clock::Clock,
    identity::Identity,
    network::{ClientAddress, Network},
    observe,
    reject::{Rejection, RejectionKind},
    store::{
        Key, Pepper, Stores,
        penalties::{Penalties, Terms},
    },
};

/// How many blocked prompts a caller may send before he has to wait: nobody gets to try until something passes.
///
/// A caller is the user whom `JwtAuthLayer` knows, wherever he sends from; where there is none, the network that the
/// request comes from. Strikes are counted in the store that all servers share; each server learns that a caller has
/// to wait with the next strike that it sees of him. Then all his requests are refused with 429,
/// `too_many_blocked_prompts`, and `Retry-After`. A guard that only reports counts none.
///
/// ```
/// use palisade::{
///     prompt_guard::{Action, InjectionRules, PromptGuardLayer, Strikes},
///     store::Stores,
/// };
/// use std::time::Duration;
///
/// let stores = Stores::in_memory();
/// // The fifth within ten minutes costs half an hour.
/// let strikes = Strikes::new(&stores, 5, Duration::from_secs(600)).cool_off(Duration::from_secs(1800));
/// let guard = PromptGuardLayer::builder()
///     .detector(InjectionRules::builtin()?, Action::Block)
///     .strikes(strikes)
///     .build()?;
/// # Ok::<(), palisade::BuildError>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Strikes {
    terms: Terms,
    pepper: Pepper,
    client: ClientAddress,
    categories: Categories,
}

/// The same, as requests need it.
#[derive(Debug)]
pub(crate) struct Counted {
    penalties: Penalties,
    pepper: Pepper,
    client: ClientAddress,
    categories: Categories,
}

impl Strikes {
    /// The last of `quota` blocked prompts within any time as long as the `window` makes their sender wait as long as that.
    /// One of them is forgotten with each window that passes: who goes on after the wait, waits again with the next. Both
    /// times are from a second to a day.
    pub fn new(stores: &Stores, quota: u64, window: Duration) -> Self {
        Self {
            terms: Terms::new(stores, "guard_strikes", quota, window)
                .one_in_a_window()
                .wait(window),
            pepper: stores.pepper().clone(),
            client: ClientAddress::default(),
            categories: Categories::of([Category::Injection, Category::MaliciousCode]),
        }
    }

    /// How long he waits.
    pub fn cool_off(self, wait: Duration) -> Self {
        Self { terms: self.terms.wait(wait), ..self }
    }

    /// For what a prompt must have been blocked to count. Default: [`Category::Injection`] and
    /// [`Category::MaliciousCode`]; who pastes a key by mistake has learned enough.
    pub fn counting(self, categories: impl IntoIterator<Item = Category>) -> Self {
        Self { categories: Categories::of(categories), ..self }
    }

    /// How a client's address is found, for callers who are not known. By default it is that of the connection's other
    /// end.
    pub fn client_address(self, client: ClientAddress) -> Self {
        Self { client, ..self }
    }

    /// The clock to wait by. Default: the system's.
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { terms: self.terms.clock(clock), ..self }
    }

    pub(crate) fn ready(self) -> Result<Counted, BuildError> {
        let Self { terms, pepper, client, categories } = self;
        terms.check("strikes")?;
        Ok(Counted { penalties: Penalties::new(terms), pepper, client, categories })
    }
}

impl Counted {
    /// Refuses those who have to wait.
    pub(crate) fn check(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<(), Rejection> {
        let wait = self.key(headers, extensions).and_then(|key| self.penalties.wait(key));
        wait.map_or(Ok(()), |wait| {
            const MESSAGE: &str = "Too many of your prompts were blocked. Try again later.";
            let kind = RejectionKind::RateLimited;
            Err(Rejection::new(kind, "too_many_blocked_prompts", MESSAGE).with_retry_after(wait))
        })
    }

    /// A prompt was blocked for these, by this policy.
    pub(crate) fn note(
        &self,
        blocking: Categories,
        policy: &Arc<str>,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) {
        if blocking.meets(self.categories)
            && let Some(key) = self.key(headers, extensions)
        {
            observe::count_by_policy("palisade_guard_strikes_total", policy, &[]);
            self.penalties.count(key);
        }
    }

    fn key(&self, headers: &HeaderMap, extensions: &Extensions) -> Option<Key> {
        let key = self.pepper.key("guard_strikes");
        if let Some(user) = Identity::of(extensions).and_then(Identity::user) {
            let key = key.with(b"user").with(user.issuer().as_bytes());
            return Some(key.with(user.subject().as_bytes()).finish());
        }
        let network = Network::of(self.client.find(headers, extensions)?);
        Some(key.with(b"network").with(network.as_bytes()).finish())
    }
}

//! DPoP: an access token and, for each request, a proof that its sender has the key that the token
//! is bound to (RFC 9449).

mod nonce;
mod proof;
mod target;
mod thumbprint;

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) use self::proof::Flaw;
use self::{nonce::Nonces, proof::Proof, target::Base};
use super::{Algorithm, CryptoBackend, Reason, cache::Digest, confirmation::Shown};
use crate::{
    BuildError,
    clock::Clock,
    store::{StoreFuture, Stores},
};

/// How DPoP proofs are checked: see [`ResourceServerBuilder::dpop`](super::ResourceServerBuilder::dpop).
///
/// ```
/// use palisade::{jwt::DpopOptions, store::Stores};
/// use std::time::Duration;
///
/// let options = DpopOptions::new("https://llm.example")
///     .stores(&Stores::in_memory())
///     .nonce(Duration::from_secs(300));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct DpopOptions {
    addresses: Vec<String>,
    stores: Option<Stores>,
    algorithms: Vec<Algorithm>,
    window: Duration,
    nonce: Option<Duration>,
}

impl DpopOptions {
    /// Proofs for the server that clients reach under this address: `https` and a host, perhaps a
    /// port, and the path that a proxy takes away before the request gets here, if there is one. What
    /// a request says of its host is the sender's word, and the server's own name may be another one
    /// behind a proxy, so neither is asked. `http` is for the loopback interface alone.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            addresses: vec![address.into()],
            stores: None,
            algorithms: Algorithm::DEFAULT.to_vec(),
            window: DEFAULT_WINDOW,
            nonce: None,
        }
    }

    /// Another address under which clients reach the server.
    pub fn also(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// Where it is kept which proofs were used, so that each serves once. Required; servers that
    /// stand for one another must share it. While it can't be asked, requests with proofs are answered
    /// with 503.
    pub fn stores(mut self, stores: &Stores) -> Self {
        self.stores = Some(stores.clone());
        self
    }

    /// The algorithms that proofs may be signed with. By default RS256, PS256, ES256 and EdDSA.
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.algorithms = algorithms.into_iter().collect();
        self
    }

    /// How far a proof's `iat` may be from now, before or after. In whole seconds; by default 60, at
    /// most 10 minutes.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Asks for a nonce in each proof, so that nobody can make proofs ahead. A nonce is given out for
    /// this long and accepted for as long again. In whole seconds, from 1 to a day. By default none
    /// is asked for.
    ///
    /// Nonces are keyed hashes of the time under the stores' pepper: a short pepper could be guessed
    /// from them.
    pub fn nonce(mut self, step: Duration) -> Self {
        self.nonce = Some(step);
        self
    }

    pub(crate) fn build(
        self,
        clock: Arc<dyn Clock>,
        crypto: CryptoBackend,
        leeway: Duration,
    ) -> Result<DpopVerifier, BuildError> {
        let wrong = |reason| BuildError::invalid("DpopOptions", reason);
        let stores = self.stores.ok_or(BuildError::Missing("the stores of DpopOptions"))?;
        let bases = self.addresses.iter().map(|address| Base::read(address));
        let bases = bases.collect::<Result<_, _>>().map_err(wrong)?;
        if self.algorithms.is_empty() {
            return Err(BuildError::Empty("the algorithms of DpopOptions"));
        }
        if self.algorithms.iter().any(|algorithm| algorithm.is_symmetric()) {
            return Err(wrong("an algorithm is symmetric"));
        }
        if !(1..=MAX_WINDOW_SECONDS).contains(&self.window.as_secs()) {
            return Err(wrong("the window is not between 1 second and 10 minutes"));
        }
        if self.nonce.is_some_and(|step| !(1..=MAX_STEP_SECONDS).contains(&step.as_secs())) {
            return Err(wrong("the nonce's time is not between 1 second and a day"));
        }
        let pepper = stores.pepper().clone();
        let nonces = self.nonce.map(|step| Nonces { pepper, step, leeway });
        let names: Vec<_> = self.algorithms.iter().map(|algorithm| algorithm.name()).collect();
        Ok(DpopVerifier(Arc::new(Inner {
            bases,
            stores,
            names: names.join(" "),
            algorithms: self.algorithms,
            window: self.window,
            leeway,
            nonces,
            clock,
            crypto,
        })))
    }
}

/// Checks DPoP proofs, and says how to ask for them: see
/// [`TokenVerifier::dpop`](super::TokenVerifier::dpop). Cheap to clone.
#[derive(Clone)]
pub struct DpopVerifier(Arc<Inner>);

struct Inner {
    bases: Vec<Base>,
    stores: Stores,
    algorithms: Vec<Algorithm>,
    names: String,
    window: Duration,
    leeway: Duration,
    nonces: Option<Nonces>,
    clock: Arc<dyn Clock>,
    crypto: CryptoBackend,
}

impl DpopVerifier {
    /// Whether the request has a proof, made for it just now, by the key whose thumbprint is `bound`.
    /// What remains to be waited for is whether the proof was never used before.
    pub(crate) fn check(
        &self,
        bound: &[u8; 32],
        shown: &Shown<'_>,
        token: &Digest,
        now: Duration,
    ) -> Result<StoreFuture<bool>, Reason> {
        self.0.check(bound, shown, token, now).map_err(Reason::Proof)
    }

    /// The names of the algorithms, for a challenge.
    pub(crate) fn algorithms(&self) -> &str {
        &self.0.names
    }

    /// The nonce that proofs must have from now on, if they must.
    pub(crate) fn nonce(&self) -> Option<HeaderValue> {
        let nonces = self.0.nonces.as_ref()?;
        HeaderValue::try_from(nonces.current(self.0.clock.unix())).ok()
    }
}

impl Inner {
    fn check(
        &self,
        bound: &[u8; 32],
        shown: &Shown<'_>,
        token: &Digest,
        now: Duration,
    ) -> Result<StoreFuture<bool>, Flaw> {
        let proof = Proof::read(only_proof(shown.headers)?)?;
        if !self.algorithms.contains(&proof.algorithm) {
            return Err(Flaw::Algorithm);
        }
        proof.check_key(bound)?;
        proof.check_target(&self.bases, shown.method, shown.uri.path())?;
        proof.check_time(now, self.window)?;
        proof.check_token(token)?;
        let (id, nonce) = (proof.id()?, proof.nonce()?);
        if let Some(nonces) = &self.nonces
            && !nonce.is_some_and(|nonce| nonces.accepts(nonce, now))
        {
            return Err(Flaw::Nonce);
        }
        proof.check_signature(self.crypto)?;
        // Only now: else anybody could use up somebody else's proofs, and fill the store.
        let pepper = self.stores.pepper();
        let key = pepper.key("dpop_proof").with(bound).with(id.as_bytes()).finish();
        // From one end of the window to the other, and what the clocks of servers may be apart.
        let memory = self.window.saturating_mul(2).saturating_add(self.leeway);
        Ok(self.stores.facts().first_use(key, memory + Duration::from_secs(1)))
    }
}

/// The one proof of a request. Of two, two readers might each believe the other.
fn only_proof(headers: &HeaderMap) -> Result<&str, Flaw> {
    let mut proofs = headers.get_all(PROOF).iter();
    let proof = proofs.next().ok_or(Flaw::Missing)?;
    if proofs.next().is_some() {
        return Err(Flaw::Several);
    }
    proof.to_str().map_err(|_| Flaw::Malformed)
}

impl fmt::Debug for DpopVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DpopVerifier")
            .field("bases", &self.0.bases)
            .field("algorithms", &self.0.algorithms)
            .finish_non_exhaustive()
    }
}

/// The header of proofs.
pub(crate) const PROOF: HeaderName = HeaderName::from_static("dpop");
/// The header of nonces.
pub(crate) const NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

const DEFAULT_WINDOW: Duration = Duration::from_secs(60);
const MAX_WINDOW_SECONDS: u64 = 600;
const MAX_STEP_SECONDS: u64 = 24 * 60 * 60;

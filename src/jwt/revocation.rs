//! Tokens that count no longer, though they have not expired.

use std::{sync::Arc, time::Duration};

use super::{
    AuthError, AuthErrorKind, DpopVerifier, Presented, TokenVerifier,
    replica::{Replica, Standing},
};
use crate::{
    clock::{Clock, SystemClock},
    future::ReadyOr,
    identity::UserIdentity,
    observe, runtime,
    store::{FactStore, Key, Pepper, StoreError, Stores},
};

/// Which tokens were revoked: single ones, by issuer and `jti`; and all of a subject that were issued
/// before some time. Kept in the [`FactStore`] of the [`Stores`], for all processes that share it. Cheap
/// to clone.
///
/// Never by the token's text or hash: an ES256 signature can be written in two ways.
///
/// ```
/// # use palisade::{Secret, jwt::{Algorithm, Issuer}};
/// use std::time::Duration;
///
/// use palisade::{jwt::{JwtAuthLayer, ResourceServer, Revocations}, store::Stores};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let secret = Secret::new(vec![7; 32]);
/// # let issuer = Issuer::secret("https://login.example", Algorithm::HS256, &secret).audience("a");
/// # let server = ResourceServer::builder().issuer(issuer).build()?;
/// let revocations = Revocations::new(&Stores::in_memory());
/// let layer = JwtAuthLayer::builder(revocations.over(server)).build()?;
///
/// // Elsewhere, say in an administrator's handler: at a logout, and at a theft.
/// revocations.revoke_token("https://login.example", "token-id", 1_900_000_000).await?;
/// let day = Duration::from_secs(24 * 60 * 60);
/// revocations.revoke_before("https://login.example", "alice", 1_800_000_000, day).await?;
/// # Ok(())
/// # }
/// ```
///
/// # How soon a revocation counts
/// In this process at once. In others when they next ask the store, which they do for each token in use
/// at least every [`staleness`](Self::staleness), 10 seconds by default: until then their last answer counts,
/// and a token in use costs no round trip. An answer that is half as old is renewed in the background,
/// so that only the first request in a while waits.
///
/// # When the store does not answer
/// Answers count up to their age. Past it, a token is refused with 503, unless
/// [`insecure_accept_unasked`](Self::insecure_accept_unasked) says otherwise. Both are counted by
/// `palisade_revocation_unanswered_total{outcome}`.
#[derive(Clone, Debug)]
pub struct Revocations {
    inner: Arc<Inner>,
    accept_unasked: bool,
}

#[derive(Debug)]
struct Inner {
    facts: Arc<dyn FactStore>,
    pepper: Pepper,
    clock: Arc<dyn Clock>,
    staleness: Duration,
    /// When a token was revoked, or before when those of a subject were issued.
    replica: Replica<Option<u64>>,
}

impl Revocations {
    /// Revocations in this store. Processes that share them share its pepper.
    #[must_use]
    pub fn new(stores: &Stores) -> Self {
        let inner = Inner {
            facts: Arc::clone(stores.facts()),
            pepper: stores.pepper().clone(),
            clock: Arc::new(SystemClock),
            staleness: DEFAULT_STALENESS,
            replica: Replica::new(DEFAULT_ANSWERS),
        };
        Self { inner: Arc::new(inner), accept_unasked: false }
    }

    /// How old an answer of the store may be, so that a revocation made elsewhere may go unnoticed for
    /// so long. By default 10 seconds. Zero asks for every request. To be said before the handle
    /// is cloned: a clone made before goes on with answers of its own.
    #[must_use]
    pub fn staleness(self, staleness: Duration) -> Self {
        self.rebuilt(|inner| inner.staleness = staleness)
    }

    /// How many answers are remembered, of which each token in use takes two, at some 50 bytes each. By
    /// default 32768.
    #[must_use]
    pub fn answers(self, answers: usize) -> Self {
        self.rebuilt(|inner| inner.replica = Replica::new(answers))
    }

    /// The time. By default the machine's.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        self.rebuilt(|inner| inner.clock = clock)
    }

    /// Accepts tokens when the store does not answer: a revoked one then counts again for as long as the
    /// outage lasts, and an attacker who can cause one has it last. By default they are refused with 503.
    #[must_use]
    pub fn insecure_accept_unasked(mut self) -> Self {
        self.accept_unasked = true;
        self
    }

    /// What `verifier` accepts, unless it was revoked: access tokens and API keys alike.
    #[must_use]
    pub fn over(&self, verifier: impl TokenVerifier) -> Revocable {
        Revocable { verifier: Box::new(verifier), revocations: self.clone() }
    }

    /// Revokes one token, or one API key, of this issuer. Forgotten a few minutes after `until`, in seconds
    /// since the Unix epoch: the token's `exp`, or the latest that it could have.
    ///
    /// # Errors
    /// When the store can't be asked or is full. The token is not revoked then.
    pub async fn revoke_token(
        &self,
        issuer: &str,
        token_id: &str,
        until: u64,
    ) -> Result<(), StoreError> {
        let inner = &self.inner;
        let key = inner.token_key(issuer, token_id);
        let left = Duration::from_secs(until).saturating_sub(inner.clock.unix());
        inner.write(key, 1, left.saturating_add(MARGIN)).await
    }

    /// Revokes every token of a subject that was issued before `time`, in seconds since the Unix epoch, or in
    /// that second; and those that don't say when they were issued. Forgotten after `keep_for`, counted
    /// from `time` or from now, whatever is later: at least the longest that a token of this issuer lives.
    /// A later `time` takes the place of an earlier one, never the other way round.
    ///
    /// # Errors
    /// When the store can't be asked or is full. Nothing is revoked then.
    pub async fn revoke_before(
        &self,
        issuer: &str,
        subject: &str,
        time: u64,
        keep_for: Duration,
    ) -> Result<(), StoreError> {
        let inner = &self.inner;
        let key = inner.subject_key(issuer, subject);
        let ahead = Duration::from_secs(time).saturating_sub(inner.clock.unix());
        inner.write(key, time, keep_for.saturating_add(ahead).saturating_add(MARGIN)).await
    }

    fn rebuilt(self, change: impl FnOnce(&mut Inner)) -> Self {
        let old = &self.inner;
        let mut inner = Inner {
            facts: Arc::clone(&old.facts),
            pepper: old.pepper.clone(),
            clock: Arc::clone(&old.clock),
            staleness: old.staleness,
            replica: old.replica.emptied(),
        };
        change(&mut inner);
        Self { inner: Arc::new(inner), ..self }
    }

    /// Whether the caller's token still counts.
    fn check(&self, user: Arc<UserIdentity>) -> ReadyOr<Result<Arc<UserIdentity>, AuthError>> {
        let marks = Marks::of(&self.inner, &user);
        match marks.known(&self.inner) {
            Some(revoked) => ReadyOr::ready(verdict(user, revoked)),
            None => {
                let this = self.clone();
                ReadyOr::pending(async move {
                    match marks.ask(&this.inner).await {
                        Ok(revoked) => verdict(user, revoked),
                        Err(_) if this.accept_unasked => {
                            unanswered("accepted");
                            verdict(user, marks.were_revoked(&this.inner))
                        }
                        Err(_) => {
                            unanswered("refused");
                            Err(AuthError::unavailable())
                        }
                    }
                })
            }
        }
    }
}

/// A verifier whose tokens can be revoked: see [`Revocations::over`].
#[derive(Debug)]
pub struct Revocable {
    verifier: Box<dyn TokenVerifier>,
    revocations: Revocations,
}

#[deny(clippy::missing_trait_methods)]
impl TokenVerifier for Revocable {
    /// Asks the verifier first, so that nobody without a token that holds causes a round trip.
    fn verify(&self, presented: &Presented<'_>) -> ReadyOr<Result<Arc<UserIdentity>, AuthError>> {
        match self.verifier.verify(presented).try_now() {
            Ok(Ok(user)) => self.revocations.check(user),
            Ok(Err(error)) => ReadyOr::ready(Err(error)),
            Err(pending) => {
                let revocations = self.revocations.clone();
                ReadyOr::pending(async move { revocations.check(pending.await?).await })
            }
        }
    }

    fn dpop(&self) -> Option<&DpopVerifier> {
        self.verifier.dpop()
    }

    fn remembers(&self, presented: &Presented<'_>) -> bool {
        self.verifier.remembers(presented)
    }
}

/// Under which keys a token may be revoked.
#[derive(Clone, Copy)]
struct Marks {
    token: Option<Key>,
    subject: Key,
    issued_at: Option<u64>,
}

impl Marks {
    fn of(inner: &Inner, user: &UserIdentity) -> Self {
        Self {
            token: user.token_id().map(|id| inner.token_key(user.issuer(), id)),
            subject: inner.subject_key(user.issuer(), user.subject()),
            issued_at: user.claims().u64("iat"),
        }
    }

    /// Whether it was revoked, by answers that are fresh enough; those that grow old are renewed.
    fn known(&self, inner: &Arc<Inner>) -> Option<bool> {
        let token = self.token.map_or(Some(None), |key| inner.known(key))?;
        let before = inner.known(self.subject)?;
        Some(self.revoked(token, before))
    }

    async fn ask(&self, inner: &Inner) -> Result<bool, StoreError> {
        let token = match self.token {
            Some(key) => inner.ask(key).await?,
            None => None,
        };
        let before = inner.ask(self.subject).await?;
        Ok(self.revoked(token, before))
    }

    /// Whether it was revoked by the last answers, however old.
    fn were_revoked(&self, inner: &Inner) -> bool {
        let last = |key| inner.replica.last(key).flatten();
        self.revoked(self.token.and_then(last), last(self.subject))
    }

    fn revoked(&self, token: Option<u64>, before: Option<u64>) -> bool {
        let too_early = |before| self.issued_at.is_none_or(|issued_at| issued_at <= before);
        token.is_some() || before.is_some_and(too_early)
    }
}

impl Inner {
    fn token_key(&self, issuer: &str, token_id: &str) -> Key {
        self.pepper.key("revoked-token").with(issuer.as_bytes()).with(token_id.as_bytes()).finish()
    }

    fn subject_key(&self, issuer: &str, subject: &str) -> Key {
        let key = self.pepper.key("revoked-before");
        key.with(issuer.as_bytes()).with(subject.as_bytes()).finish()
    }

    /// The last answer, if it is not too old. One that will soon be is asked for again meanwhile.
    #[allow(clippy::option_option)]
    fn known(self: &Arc<Self>, key: Key) -> Option<Option<u64>> {
        match self.replica.get(key, self.clock.monotonic(), self.staleness) {
            Standing::Fresh(value) => Some(value),
            Standing::Ageing(value) => {
                let this = Arc::clone(self);
                // Without a runtime nothing is renewed ahead: the next request waits.
                let _ = runtime::spawn(async move {
                    if this.ask(key).await.is_err() {
                        unanswered("renewal");
                    }
                });
                Some(value)
            }
            Standing::Unknown => None,
        }
    }

    async fn ask(&self, key: Key) -> Result<Option<u64>, StoreError> {
        // The answer is as old as the question.
        let asked_at = self.clock.monotonic();
        let value = self.facts.get(key).await?;
        self.replica.put(key, value, asked_at);
        Ok(value)
    }

    async fn write(&self, key: Key, value: u64, ttl: Duration) -> Result<(), StoreError> {
        let kept = self.facts.raise(key, value, ttl).await?;
        self.replica.put(key, Some(kept), self.clock.monotonic());
        Ok(())
    }
}

fn verdict(user: Arc<UserIdentity>, revoked: bool) -> Result<Arc<UserIdentity>, AuthError> {
    if revoked {
        const REVOKED: &str = "The access token was revoked.";
        return Err(AuthError::new(AuthErrorKind::InvalidToken, REVOKED));
    }
    Ok(user)
}

fn unanswered(outcome: &'static str) {
    observe::count("palisade_revocation_unanswered_total", &[("outcome", outcome)]);
}

const DEFAULT_STALENESS: Duration = Duration::from_secs(10);
const DEFAULT_ANSWERS: usize = 32 * 1024;
/// Tokens count a little past their end, by the leeway.
const MARGIN: Duration = Duration::from_secs(10 * 60);

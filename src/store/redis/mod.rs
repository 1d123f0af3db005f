//! The store of many processes.

mod builder;
mod checks;
#[cfg(feature = "redis-cluster")]
mod cluster;
mod connection;
mod decisions;
mod endpoint;
mod errors;
mod facts;
mod health;
mod lanes;
mod link;
mod parts;
mod queue;
mod records;
mod script;
mod sentinel;
#[cfg(feature = "redis-cluster")]
mod slot_map;
mod slots;
#[cfg_attr(not(feature = "redis-tls"), path = "no_tls.rs")]
mod tls;
mod waited;

use std::{
    fmt,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

pub use self::{builder::RedisStoreBuilder, checks::RedisWarning, health::RedisHealth};
use self::{
    decisions::Decisions,
    errors::store_error,
    facts::{no_runtime, too_late},
    lanes::{Place, Queues},
    link::Link,
    parts::Part,
    script::{Answer, Program, Question},
    slots::Slots,
    waited::Waited,
};
use super::{
    Admission, Charge, Decision, Inline, Key, LimiterStore, ReservationId, Seen, Settlement,
    Standing, Standings, StoreError, StoreFuture, rules,
};
use crate::{future::ReadyOr, runtime};

/// Limits, facts and records in a Redis server (6.2 or later, or Valkey 7.2), alone, under sentinels or of a cluster, shared by
/// all processes that use it with the same prefix and the same [`Pepper`](super::Pepper). Cheap to clone. Needs a tokio runtime.
///
/// **One round trip for an admission**, by one script: all of its records are read, decided on by the server's
/// clock, and written, or none. Admissions that are asked for at once go to a server together, and are decided on one by
/// one. A record expires when it is idle. A settlement takes no round trip of the
/// caller's: it goes into a bounded queue, in which the admission reserved its place, is sent with others that come within a
/// millisecond, and is applied exactly once, also when the connection breaks meanwhile.
///
/// **Outages.** A call that is not answered within the deadline is a [`StoreError`], and what it took is given back
/// when its answer does arrive. When the answer is lost, what it took of a rate drains as if it had been used, and
/// what it took of slots is free after their lease.
///
/// [`flush`](LimiterStore::flush) waits at most 10 seconds.
///
/// **Slots** are leased and renewed while this process lives. Those of a process that died, or that did not reach the
/// server for as long, are free again after the lease.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use palisade::store::{Pepper, RedisStore, Stores};
///
/// let store = RedisStore::builder("redis://127.0.0.1/").connect().await?;
/// let stores = Stores::new(Arc::new(store), Pepper::from_secret("long, random, and the same everywhere"));
/// # Ok(())
/// # }
/// ```
///
#[doc = include_str!("servers.md")]
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
}

struct Inner {
    link: Arc<Link>,
    decisions: Arc<Decisions>,
    queue: Queues,
    slots: Slots,
    deadline: Duration,
    lease: Duration,
}

impl RedisStore {
    /// Begins a store on the server at `url`: `redis://[user:password@]host[:port][/database]`, the same with `rediss://`
    /// for TLS (feature `redis-tls`), or `redis+unix:///path`. The options state their defaults.
    pub fn builder(url: &str) -> RedisStoreBuilder {
        RedisStoreBuilder::new(url)
    }
}

impl LimiterStore for RedisStore {
    fn acquire(&self, admission: &Admission<'_>) -> StoreFuture<Decision> {
        if let Err(error) = rules::check(admission.charges) {
            return ReadyOr::ready(Err(error));
        }
        let inner = Arc::clone(&self.inner);
        let parts = Part::of(admission.charges, inner.link.is_spread());
        inner.start(&parts);
        let Some(places) = parts.iter().map(|_| inner.queue.reserve()).collect::<Option<Vec<_>>>()
        else {
            return ReadyOr::ready(Err(StoreError::transient("too many settlements are waiting")));
        };
        if !runtime::is_here() {
            return ReadyOr::ready(Err(no_runtime()));
        }
        let (deadline, charges) = (inner.deadline, admission.charges.to_vec());
        // Its answer is heard even if the caller has gone.
        let call = Waited::new(inner.take_parts(charges, parts, places));
        ReadyOr::pending(async move {
            match runtime::timeout(deadline, call).await {
                Ok(answer) => answer.map(Taken::keep),
                Err(runtime::Elapsed) => Err(too_late()),
            }
        })
    }

    fn settle(&self, settlement: &Settlement<'_>) {
        self.inner.settle(settlement);
    }

    fn standings(&self, charges: &[Charge], seen: &Seen) -> Standings {
        rules::standings(charges, seen)
    }

    fn peek(&self, admission: &Admission<'_>) -> StoreFuture<Standings> {
        if let Err(error) = rules::check(admission.charges) {
            return ReadyOr::ready(Err(error));
        }
        let (inner, charges) = (Arc::clone(&self.inner), admission.charges.to_vec());
        self.in_time(async move {
            let mut standings = Inline::filled(Standing::default(), charges.len());
            for part in Part::of(&charges, inner.link.is_spread()) {
                let Answer { states, now, .. } = inner.decide(&part.charges, 0, false).await?;
                let seen = rules::seen(&part.charges, states.as_slice(), now);
                part.put(rules::standings(&part.charges, &seen).as_slice(), &mut standings);
            }
            Ok(standings)
        })
    }

    fn reset(&self, record: Key) -> StoreFuture<()> {
        self.ask(move |link| async move {
            link.run::<()>(Program::Reset, &[link.name(&record, "")], &[]).await
        })
    }

    fn flush(&self) -> StoreFuture<()> {
        if !runtime::is_here() {
            return ReadyOr::ready(Err(no_runtime()));
        }
        let inner = Arc::clone(&self.inner);
        ReadyOr::pending(async move {
            inner.start(&[]);
            inner.queue.flush(&inner.link).await
        })
    }
}

impl Inner {
    /// Asks for all of `charges`. What was granted is given back unless it is kept.
    async fn take(
        self: Arc<Self>,
        charges: Vec<Charge>,
        place: Place,
    ) -> Result<Taken, StoreError> {
        let holder = self.slots.holder(&self.link);
        let answer = self.decide(&charges, holder, true).await;
        if answer.is_err() && charges.iter().any(is_of_slots) {
            self.slots.change_holder();
        }
        let Answer { admitted, now, states } = answer?;
        let mut grant = rules::seen(&charges, states.as_slice(), now);
        if !admitted {
            let refusal = rules::refusal(&charges, &rules::Asks::of(&charges), grant);
            return Ok(Taken { decision: Decision::Refused(refusal), to_give_back: None });
        }
        for (charge, receipt) in charges.iter().zip(grant.receipts.as_mut_slice()) {
            if is_of_slots(charge) {
                receipt.0[0] = holder;
                self.slots.hold(charge.record, holder, charge.cost);
            }
        }
        place.keep();
        let decision = Decision::Admitted(grant);
        Ok(Taken { decision, to_give_back: Some((self, charges)) })
    }

    async fn decide(
        &self,
        charges: &[Charge],
        holder: u64,
        take: bool,
    ) -> Result<Answer, StoreError> {
        let held = (holder, self.lease_ticks());
        let question = Question::of(charges, held, take, |key| self.link.name(key, ""));
        let reply = self.decisions.ask(question).await.map_err(|error| store_error(&error))?;
        Answer::read(&reply, charges)
            .ok_or_else(|| StoreError::permanent("the redis server's answer can't be read"))
    }

    /// Sees that the background tasks run.
    fn start(self: &Arc<Self>, parts: &[Part]) {
        for first in parts.iter().filter_map(|part| part.charges.first()) {
            self.queue.start(self.link.lane(&first.record), &self.link);
        }
        if self.slots.renewing.swap(true, Ordering::Relaxed) {
            return;
        }
        let renewing = Renewing(Arc::downgrade(self));
        let pause = self.lease / 3;
        drop(runtime::spawn(async move {
            loop {
                runtime::sleep(pause).await;
                let Some(inner) = renewing.0.upgrade() else { return };
                inner.slots.renew(&inner.link, inner.lease_ticks()).await;
            }
        }));
    }

    fn lease_ticks(&self) -> u64 {
        rules::ticks(self.lease)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("link", &self.inner.link)
            .field("deadline", &self.inner.deadline)
            .field("lease", &self.inner.lease)
            .finish_non_exhaustive()
    }
}

/// An answer that gives back what it took, unless its caller takes it.
struct Taken {
    decision: Decision,
    to_give_back: Option<(Arc<Inner>, Vec<Charge>)>,
}

impl Taken {
    fn keep(mut self) -> Decision {
        self.to_give_back = None;
        self.decision
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let (Decision::Admitted(grant), Some((inner, charges))) =
            (self.decision, self.to_give_back.take())
        else {
            return;
        };
        let used = Inline::filled(0, charges.len());
        inner.settle(&Settlement::new(
            ReservationId::next(),
            &charges,
            grant.receipts.as_slice(),
            used.as_slice(),
        ));
    }
}

/// Held by the renewing task; when its runtime ends, the next call starts another.
struct Renewing(Weak<Inner>);

impl Drop for Renewing {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            inner.slots.renewing.store(false, Ordering::Relaxed);
        }
    }
}

fn is_of_slots(charge: &Charge) -> bool {
    charge.limit.is_slots()
}

#[cfg(test)]
mod tests;

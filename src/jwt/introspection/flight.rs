//! One question to the issuer, on a task of its own: a request that goes away does not end it, and others that show
//! the same token share it.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{
    super::{
        Reason, Verified, cache::Digest, fetch::MAX_BYTES, key_flight::FLIGHT_LIMIT,
        resource_server::Inner, verified::Basis,
    },
    Introspector,
    answer::{self, Unheld},
};
use crate::{
    observe,
    runtime::{self, watch},
};

/// The questions that are under way.
#[derive(Debug)]
pub(crate) struct Flights {
    landings: Mutex<HashMap<Digest, watch::Receiver<Option<Outcome>>>>,
    max: usize,
    /// Questions since the last one that was answered.
    failures: AtomicU32,
}

type Outcome = Result<Verified, Reason>;
type Flight = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Flights {
    pub(super) fn new(max: usize) -> Self {
        Self { landings: Mutex::default(), max, failures: AtomicU32::new(0) }
    }

    /// How many questions in a row got no answer.
    pub(crate) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    fn landings(&self) -> MutexGuard<'_, HashMap<Digest, watch::Receiver<Option<Outcome>>>> {
        self.landings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the issuer at `index`, whose introspector this is, says of a token. Kept in the cache if it is good.
pub(crate) async fn ask(
    server: &Arc<Inner>,
    index: usize,
    introspector: &Introspector,
    token: &str,
    digest: Digest,
) -> Outcome {
    let (mut landing, own) = join_or_start(server, index, introspector, token, digest)?;
    // Where there is no runtime, whoever started a flight drives it.
    if let Some(flight) = own {
        flight.await;
    }
    match landing.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone().unwrap_or(Err(Reason::Unavailable)),
        Err(_) => Err(Reason::Unavailable),
    }
}

type Joined = (watch::Receiver<Option<Outcome>>, Option<Flight>);

fn join_or_start(
    server: &Arc<Inner>,
    index: usize,
    introspector: &Introspector,
    token: &str,
    digest: Digest,
) -> Result<Joined, Reason> {
    let flights = &introspector.flights;
    let mut landings = flights.landings();
    let is_full = landings.len() >= flights.max;
    let vacant = match landings.entry(digest) {
        Entry::Occupied(landing) => return Ok((landing.get().clone(), None)),
        Entry::Vacant(_) if is_full => {
            count("shed");
            return Err(Reason::Unavailable);
        }
        Entry::Vacant(vacant) => vacant,
    };
    let (sender, receiver) = watch::channel(None);
    vacant.insert(receiver.clone());
    drop(landings);
    let landing = Landing { server: Arc::clone(server), index, digest, sender, outcome: None };
    let flight: Flight = Box::pin(fly(landing, token.to_owned()));
    Ok((receiver, runtime::spawn(flight).err()))
}

async fn fly(mut landing: Landing, token: String) {
    let server = Arc::clone(&landing.server);
    let Some(introspector) = server.introspector_at(landing.index) else { return };
    let asked_at = server.clock.monotonic();
    let question = introspector.question(&token);
    let answer = if runtime::is_here() {
        runtime::timeout(FLIGHT_LIMIT, question).await.map_err(|_| "it took too long")
    } else {
        Ok(question.await)
    };
    let read = match answer {
        Ok(Ok(text)) if text.len() <= MAX_BYTES => answer::claims(&text),
        Ok(Ok(_)) => Err(Unheld::Unreadable("it is longer than 512 KiB")),
        Ok(Err(error)) => {
            observe::debug("jwt", &format!("introspection: {error}"));
            Err(Unheld::Unreadable("the endpoint can't be asked"))
        }
        Err(reason) => Err(Unheld::Unreadable(reason)),
    };
    landing.outcome = Some(match read {
        Ok(claims) => {
            introspector.flights.failures.store(0, Ordering::Relaxed);
            count("active");
            verified(&server, landing.index, introspector, claims, asked_at)
        }
        Err(Unheld::Refused(reason)) => {
            introspector.flights.failures.store(0, Ordering::Relaxed);
            count("inactive");
            Err(reason)
        }
        Err(Unheld::Unreadable(reason)) => {
            failed(introspector, reason);
            Err(Reason::Unavailable)
        }
    });
}

fn verified(
    server: &Inner,
    index: usize,
    introspector: &Introspector,
    claims: serde_json::Map<String, serde_json::Value>,
    asked_at: std::time::Duration,
) -> Outcome {
    let issuer = server.issuer_at(index).ok_or(Reason::Unavailable)?;
    let binding = server.enforced.read(&claims)?;
    let now = server.clock.unix();
    let as_subject = introspector.clients_as_subjects;
    let active = answer::check(claims, &issuer.rules, as_subject, now, server.leeway)?;
    Ok(Verified {
        user: Arc::new(active.user),
        times: active.times,
        issuer: index,
        // An answer is as old as the question.
        basis: Basis::Answer { until: asked_at.saturating_add(introspector.max_age) },
        binding,
    })
}

/// The first of several in a row is told loudly: the credentials of this server may be wrong.
fn failed(introspector: &Introspector, reason: &'static str) {
    count("failed");
    if introspector.flights.failures.fetch_add(1, Ordering::Relaxed) == 0 {
        observe::warn("jwt", &format!("no answer of {}: {reason}", introspector.endpoint));
    }
}

fn count(outcome: &'static str) {
    observe::count("palisade_introspections_total", &[("outcome", outcome)]);
}

/// Lands the flight however it ends: a task may be dropped with its runtime, or panic in somebody's client.
struct Landing {
    server: Arc<Inner>,
    index: usize,
    digest: Digest,
    sender: watch::Sender<Option<Outcome>>,
    outcome: Option<Outcome>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or(Err(Reason::Unavailable));
        let server = &self.server;
        match &outcome {
            Ok(verified) if verified.is_current(server) => {
                server.cache.insert(self.digest, verified.clone(), server.clock.unix());
            }
            // An answer that it holds no more takes the place of one that it did.
            Err(reason) if *reason != Reason::Unavailable => server.cache.remove(&self.digest),
            _ => {}
        }
        if let Some(introspector) = server.introspector_at(self.index) {
            introspector.flights.landings().remove(&self.digest);
        }
        self.sender.send_replace(Some(outcome));
    }
}

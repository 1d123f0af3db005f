//! One fetch of a key set, on a task of its own: a request that goes away does not end it, and others share it.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{KeySet, discovery, fetch::MAX_BYTES, remote_keys::RemoteKeys};
use crate::{
    observe,
    runtime::{self, watch},
};

/// What a flight brings: the keys, and the SHA-256 of their text.
pub(crate) type Fetched = (KeySet, [u8; 32]);

/// A flight that may be waited for.
pub(crate) struct Awaited {
    number: u64,
    landed: watch::Receiver<u64>,
    own: Option<Flight>,
}

type Flight = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Awaited {
    pub(crate) fn new(number: u64, landed: watch::Receiver<u64>, own: Option<Flight>) -> Self {
        Self { number, landed, own }
    }

    /// Whether it flies only as long as it is waited for: there is no runtime.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Waits for it, and returns its number. Where there is no runtime, whoever started a flight drives it.
    pub(crate) async fn landed(mut self) -> u64 {
        if let Some(flight) = self.own.take() {
            flight.await;
        }
        // An error says that the keys are gone, and then nobody waits.
        let _ = self.landed.wait_for(|landed| *landed >= self.number).await;
        self.number
    }
}

/// Starts a flight. Gives it back where there is no runtime.
pub(crate) fn start(keys: &Arc<RemoteKeys>, number: u64, started: Duration) -> Option<Flight> {
    let landing = Landing { keys: Arc::clone(keys), number, started, outcome: Err(GIVEN_UP) };
    let flight: Flight = Box::pin(fly(landing));
    runtime::spawn(flight).err()
}

/// Starts the task that fetches ahead of time, also while no request comes.
pub(crate) fn start_upkeep(keys: &Arc<RemoteKeys>) {
    // Where there is no runtime, dropping the task says that there is none.
    drop(runtime::spawn(keep_up(Upkeep(Arc::downgrade(keys)))));
}

async fn fly(mut landing: Landing) {
    let keys = Arc::clone(&landing.keys);
    let loading = load(&keys);
    landing.outcome = if runtime::is_here() {
        runtime::timeout(FLIGHT_LIMIT, loading).await.unwrap_or(Err("it took too long"))
    } else {
        loading.await
    };
}

async fn load(keys: &RemoteKeys) -> Result<Fetched, &'static str> {
    let known = keys.options.url.clone().or_else(|| keys.discovered());
    let url = match known {
        Some(url) => url,
        None => discover(keys).await?,
    };
    let text = get(keys, &url).await?;
    let set = KeySet::from_network(&text)?;
    if !set.serves(&keys.options.algorithms) {
        return Err("the set has no key for the issuer's algorithms");
    }
    Ok((set, Sha256::digest(&text).into()))
}

/// Asks the issuer's metadata where its keys are. The first document that is the issuer's decides.
async fn discover(keys: &RemoteKeys) -> Result<String, &'static str> {
    let issuer = &keys.options.issuer;
    let mut failed = "there is no metadata";
    for location in discovery::locations(issuer)? {
        let found = get(keys, &location).await;
        match found.and_then(|document| discovery::key_set_url(&document, issuer)) {
            Ok(url) => {
                discovery::check_url(&url, keys.options.http_loopback)?;
                keys.set_discovered(&url);
                return Ok(url);
            }
            Err(reason) => failed = reason,
        }
    }
    Err(failed)
}

async fn get(keys: &RemoteKeys, url: &str) -> Result<Bytes, &'static str> {
    discovery::check_url(url, keys.options.http_loopback)?;
    let fetched = keys.fetch.fetch(url).await.map_err(|error| {
        observe::debug("jwt", &format!("{}: {error}", keys.options.issuer));
        "the document can't be fetched"
    })?;
    if fetched.len() > MAX_BYTES { Err("the document is longer than 512 KiB") } else { Ok(fetched) }
}

/// Lands the flight however it ends: a task may be dropped with its runtime, or panic in somebody's fetch.
struct Landing {
    keys: Arc<RemoteKeys>,
    number: u64,
    started: Duration,
    outcome: Result<Fetched, &'static str>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Err(GIVEN_UP));
        self.keys.land(self.number, self.started, outcome);
    }
}

async fn keep_up(upkeep: Upkeep) {
    while let Some(pause) = upkeep.0.upgrade().map(|keys| keys.until_due()) {
        runtime::sleep(pause.max(SHORTEST_PAUSE)).await;
        if let Some(keys) = upkeep.0.upgrade() {
            keys.keep_up();
        }
    }
}

/// Says so when the task is gone, with its runtime for one.
struct Upkeep(Weak<RemoteKeys>);

impl Drop for Upkeep {
    fn drop(&mut self) {
        if let Some(keys) = self.0.upgrade() {
            keys.no_longer_kept_up();
        }
    }
}

/// For all documents of one flight together.
pub(crate) const FLIGHT_LIMIT: Duration = Duration::from_secs(15);
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const GIVEN_UP: &str = "the fetch was given up";

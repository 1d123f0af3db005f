//! How a `RedisStore` is built.

use std::{sync::Arc, time::Duration};

use redis::{RedisError, cmd};

use super::{
    Inner, RedisStore,
    link::{Link, store_error},
    queue::Queue,
    slots::Slots,
};
use crate::{error::BuildError, observe, runtime, secret::Secret, store::Pepper};

/// Builds a [`RedisStore`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct RedisStoreBuilder {
    url: Secret<String>,
    prefix: String,
    deadline: Duration,
    lease: Duration,
    max_reservations: usize,
}

impl RedisStoreBuilder {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: Secret::new(url.to_owned()),
            prefix: "palisade".to_owned(),
            deadline: Duration::from_millis(50),
            lease: Duration::from_secs(10),
            max_reservations: 65_536,
        }
    }

    /// What the names of all keys begin with: the same in processes that share limits. Default: `palisade`.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// How long a call waits for its answer. Default: 50 ms.
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// For how long the slots of a process that died stay taken. Renewed every third of it. Default: 10 s.
    pub fn lease(self, lease: Duration) -> Self {
        Self { lease, ..self }
    }

    /// How many admissions may be granted and not yet settled on the server, of this process. Beyond, `acquire` is an error.
    /// What bounds the queue of settlements, at some 300 bytes each, through an outage. Default: 65,536.
    pub fn max_reservations(self, max_reservations: usize) -> Self {
        Self { max_reservations, ..self }
    }

    /// The store, which connects when it is first used.
    ///
    /// # Errors
    /// When the url can't be used, the prefix holds a brace, a duration is out of range, or there is room for no reservation.
    pub fn build(self) -> Result<RedisStore, BuildError> {
        if self.prefix.contains(['{', '}']) {
            // It would be taken for the hash tag.
            return Err(BuildError::invalid("prefix", "must not hold braces"));
        }
        if self.deadline.is_zero() {
            return Err(BuildError::invalid("deadline", "must not be zero"));
        }
        if self.lease < SHORTEST_LEASE || self.lease > LONGEST_LEASE {
            return Err(BuildError::invalid("lease", "must be from 300 ms to an hour"));
        }
        if self.max_reservations == 0 {
            return Err(BuildError::invalid("max_reservations", "must not be zero"));
        }
        let link = Arc::new(Link::new(self.url.expose(), self.prefix)?);
        let queue = Arc::new(Queue::new(random(), self.max_reservations));
        let slots = Slots::new(random());
        let (deadline, lease) = (self.deadline, self.lease);
        Ok(RedisStore { inner: Arc::new(Inner { link, queue, slots, deadline, lease }) })
    }

    /// The store, connected. Warns if the server may evict records.
    ///
    /// # Errors
    /// As [`build`](Self::build), and when the server does not answer within 5 seconds or there is no runtime.
    pub async fn connect(self) -> Result<RedisStore, BuildError> {
        let store = self.build()?;
        if !runtime::is_here() {
            return Err(BuildError::Missing("a runtime"));
        }
        let link = &store.inner.link;
        let mut info = cmd("INFO");
        info.arg("memory");
        let asked = runtime::timeout(CONNECT, async {
            link.send::<String>(&cmd("PING")).await?;
            // Not every server lets everybody ask.
            Ok::<_, RedisError>(link.send::<String>(&info).await.unwrap_or_default())
        });
        let info = match asked.await {
            Ok(Ok(info)) => info,
            Ok(Err(error)) if !error.is_io_error() => {
                return Err(BuildError::invalid("url", store_error(&error).to_string()));
            }
            Ok(Err(_)) | Err(runtime::Elapsed) => {
                return Err(BuildError::invalid("url", "the redis server can't be reached"));
            }
        };
        let may_evict = info.lines().any(|line| {
            line.strip_prefix("maxmemory_policy:").is_some_and(|it| it.trim() != "noeviction")
        });
        if may_evict && !info.lines().any(|line| line.trim() == "maxmemory:0") {
            observe::warn("store", "the redis server may evict records, which resets limits");
        }
        Ok(store)
    }
}

const CONNECT: Duration = Duration::from_secs(5);
const SHORTEST_LEASE: Duration = Duration::from_millis(300);
const LONGEST_LEASE: Duration = Duration::from_secs(3600);

/// A number that no other process has.
fn random() -> u64 {
    let key = Pepper::random().key("redis store").finish();
    let [a, b, c, d, e, f, g, h, ..] = *key.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_never_shows() {
        let builder = RedisStore::builder("redis://user:hunter2@127.0.0.1:1/");
        assert!(!format!("{builder:?}").contains("hunter2"));
        let store = builder.build().unwrap();
        assert!(!format!("{store:?}").contains("hunter2"));
        for url in ["redis://:hunter2@[", "hunter2", "rediss://:hunter2@127.0.0.1/"] {
            let error = RedisStore::builder(url).build().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn what_can_not_work_is_not_built() {
        let builder = || RedisStore::builder("redis://127.0.0.1/");
        assert!(builder().build().is_ok());
        assert!(builder().prefix("{a}").build().is_err());
        assert!(builder().deadline(Duration::ZERO).build().is_err());
        assert!(builder().lease(Duration::from_millis(10)).build().is_err());
        assert!(builder().max_reservations(0).build().is_err());
    }
}

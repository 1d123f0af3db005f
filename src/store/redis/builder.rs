//! How a `RedisStore` is built.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use redis::cmd;

#[cfg(feature = "redis-cluster")]
use super::cluster::Cluster;
use super::{
    Inner, RedisStore,
    checks::Checks,
    connection::{Connection, Target},
    decisions::Decisions,
    endpoint::Endpoint,
    errors::store_error,
    lanes::Queues,
    link::{Link, Way},
    sentinel::Sentinels,
    slots::Slots,
    tls,
};
use crate::{error::BuildError, runtime, secret::Secret, store::Pepper};

/// Builds a [`RedisStore`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct RedisStoreBuilder {
    url: Secret<String>,
    sentinels: Option<Vec<Secret<String>>>,
    #[cfg(feature = "redis-cluster")]
    cluster: Option<Vec<Secret<String>>>,
    tls: tls::Options,
    prefix: String,
    deadline: Duration,
    lease: Duration,
    max_reservations: usize,
}

impl RedisStoreBuilder {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: Secret::new(url.to_owned()),
            sentinels: None,
            #[cfg(feature = "redis-cluster")]
            cluster: None,
            tls: tls::Options::default(),
            prefix: "palisade".to_owned(),
            deadline: Duration::from_millis(50),
            lease: Duration::from_secs(10),
            max_reservations: 65_536,
        }
    }

    /// The server is whichever is the master by these Redis Sentinels: the host in the store's url is what they call it,
    /// and the rest of that url (user, password, database, TLS) is for whichever server that is. Each sentinel has a url of
    /// its own, with its own user and password. All that watch the master should be named. Default: none.
    ///
    /// They are asked in their order whenever a connection is made: for half a second each. After a failover the
    /// connection to the old master breaks, and the next leads to the new one.
    ///
    /// ```
    /// use palisade::store::RedisStore;
    ///
    /// let store = RedisStore::builder("redis://limits:secret@mymaster/")
    ///     .sentinels(["redis://10.0.0.1:26379/", "redis://10.0.0.2:26379/", "redis://10.0.0.3:26379/"])
    ///     .build()?;
    /// # Ok::<(), palisade::BuildError>(())
    /// ```
    pub fn sentinels<I>(self, urls: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Self { sentinels: Some(secrets(urls)), ..self }
    }

    /// The server is a node of a Redis Cluster, and these are urls of others, should that one be gone when the store
    /// connects. The rest are found. User, password and TLS are those of the store's url, for all nodes. Default: one server.
    ///
    /// ```
    /// use palisade::store::RedisStore;
    ///
    /// let store = RedisStore::builder("redis://limits:secret@node-1:6379/")
    ///     .cluster(["redis://node-2:6379/", "redis://node-3:6379/"])
    ///     .build()?;
    /// # Ok::<(), palisade::BuildError>(())
    /// ```
    #[cfg(feature = "redis-cluster")]
    pub fn cluster<I>(self, others: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Self { cluster: Some(secrets(others)), ..self }
    }

    /// Who must have issued the certificates of servers that are reached by `rediss://`, and of their sentinels: in PEM.
    /// Default: whom the system trusts. Certificates must name the hosts as the urls do, or as the sentinels or the cluster do
    /// (by address, unless those are set up to tell host names).
    #[cfg(feature = "redis-tls")]
    pub fn certificate_authorities(mut self, pem: &[u8]) -> Self {
        self.tls.authorities = Some(pem.to_vec());
        self
    }

    /// A certificate with its chain, and its key, that servers which ask for one are shown: in PEM. Default: none.
    #[cfg(feature = "redis-tls")]
    pub fn client_certificate(mut self, chain: &[u8], key: &[u8]) -> Self {
        self.tls.certificate = Some((chain.to_vec(), Secret::new(key.to_vec())));
        self
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
    /// When a url can't be used or a certificate can't be read, the prefix holds a brace, a duration is out of range, or there is room for no reservation.
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
        let connected = Arc::default();
        let link = Arc::new(Link::new(self.way(&connected)?, self.prefix, connected));
        let queue = Queues::new(random(), self.max_reservations, link.lanes());
        let slots = Slots::new(random());
        let (deadline, lease) = (self.deadline, self.lease);
        let decisions = Decisions::new(Arc::clone(&link), deadline);
        Ok(RedisStore { inner: Arc::new(Inner { link, decisions, queue, slots, deadline, lease }) })
    }

    /// Which servers are asked, and how they are found.
    fn way(&self, connected: &Arc<AtomicU64>) -> Result<Way, BuildError> {
        let endpoint = |url: &Secret<String>| Endpoint::of(url.expose(), &self.tls);
        let server = endpoint(&self.url)?;
        #[cfg(feature = "redis-cluster")]
        if let Some(others) = &self.cluster {
            if self.sentinels.is_some() {
                return Err(BuildError::invalid("sentinels", "a cluster has none"));
            }
            let socket = || BuildError::invalid("cluster", "its nodes must have hosts");
            server.address().ok_or_else(socket)?;
            if server.database() != 0 {
                return Err(BuildError::invalid("url", "a cluster has no databases"));
            }
            let others = others.iter().map(|url| endpoint(url)?.address().ok_or_else(socket));
            return Ok(Way::Cluster(Cluster::new(
                server,
                others.collect::<Result<_, _>>()?,
                Arc::clone(connected),
            )));
        }
        let target = match &self.sentinels {
            None => Target::Server(server),
            Some(sentinels) if sentinels.is_empty() => return Err(BuildError::Empty("sentinels")),
            Some(sentinels) => {
                let (name, _) = server
                    .address()
                    .ok_or_else(|| BuildError::invalid("url", "must name the master"))?;
                let sentinels = sentinels.iter().map(endpoint).collect::<Result<_, _>>()?;
                Target::Master(Sentinels::new(name, sentinels, server))
            }
        };
        Ok(Way::Server(Connection::new(target, Checks::new(false), Arc::clone(connected))))
    }

    /// The store, connected.
    ///
    /// # Errors
    /// As [`build`](Self::build), and when the server does not answer within 5 seconds or there is no runtime.
    pub async fn connect(self) -> Result<RedisStore, BuildError> {
        let store = self.build()?;
        if !runtime::is_here() {
            return Err(BuildError::Missing("a runtime"));
        }
        let link = &store.inner.link;
        match runtime::timeout(CONNECT, link.send::<String>("", &cmd("PING"))).await {
            Ok(Ok(_)) => Ok(store),
            Ok(Err(error)) if !error.is_io_error() => {
                Err(BuildError::invalid("url", store_error(&error).to_string()))
            }
            Ok(Err(_)) | Err(runtime::Elapsed) => {
                Err(BuildError::invalid("url", "the redis server can't be reached"))
            }
        }
    }
}

fn secrets<I>(urls: I) -> Vec<Secret<String>>
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    urls.into_iter().map(|url| Secret::new(url.into())).collect()
}

const CONNECT: Duration = Duration::from_secs(5);
const SHORTEST_LEASE: Duration = Duration::from_millis(300);
const LONGEST_LEASE: Duration = Duration::from_secs(3600);

/// A number that no other process has.
fn random() -> u64 {
    let [number, _] = Pepper::random().key("redis store").finish().halves();
    number
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
        for url in ["redis://:hunter2@[", "hunter2", "rediss://:hunter2@127.0.0.1/#insecure"] {
            let error = RedisStore::builder(url).build().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }

    #[cfg(feature = "redis-cluster")]
    #[test]
    fn no_cluster_is_built_that_can_not_work() {
        let builder = |url| RedisStore::builder(url).cluster(["redis://node-2:7000/"]);
        assert!(builder("redis://node-1:7000/").build().is_ok());
        assert!(builder("redis://node-1:7000/1").build().is_err());
        assert!(builder("redis+unix:///s").build().is_err());
        assert!(builder("redis://a/").sentinels(["redis://b/"]).build().is_err());
    }

    #[cfg(feature = "redis-tls")]
    #[test]
    fn certificates_that_can_not_be_read_are_told() {
        let builder = || RedisStore::builder("rediss://127.0.0.1/");
        assert!(builder().certificate_authorities(b"none").build().is_err());
        let pair = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let pem = pair.cert.pem();
        let builder = || builder().certificate_authorities(pem.as_bytes());
        assert!(builder().build().is_ok());
        assert!(builder().client_certificate(b"none", b"none").build().is_err());
        let key = pair.signing_key.serialize_pem();
        assert!(builder().client_certificate(pem.as_bytes(), key.as_bytes()).build().is_ok());
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        assert!(builder().client_certificate(pem.as_bytes(), other.as_bytes()).build().is_err());
    }

    #[test]
    fn what_can_not_work_is_not_built() {
        let builder = || RedisStore::builder("redis://127.0.0.1/");
        assert!(builder().build().is_ok());
        assert!(builder().prefix("{a}").build().is_err());
        assert!(builder().deadline(Duration::ZERO).build().is_err());
        assert!(builder().lease(Duration::from_millis(10)).build().is_err());
        assert!(builder().max_reservations(0).build().is_err());
        assert!(builder().sentinels([""; 0]).build().is_err());
        assert!(builder().sentinels(["127.0.0.1"]).build().is_err());
        assert!(RedisStore::builder("redis+unix:///s").sentinels(["redis://a/"]).build().is_err());
    }
}

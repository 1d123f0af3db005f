//! Which authorities are trusted for which names, and what they have revoked.
//!
//! A [`TrustStore`] is a handle that is cheap to clone. Whoever holds one sees what it trusts at the moment: its files
//! are read again when they change, without a restart and without dropping a connection. `TlsListener` (feature `tls`)
//! verifies handshakes by it, and `PeerCertLayer` requests.
//!
//! ```
//! use palisade::trust::TrustStore;
//!
//! # fn authority(name: &str) -> String {
//! #     let mut params = rcgen::CertificateParams::default();
//! #     params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
//! #     params.distinguished_name.push(rcgen::DnType::CommonName, name);
//! #     params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
//! # }
//! # let folder = std::env::temp_dir().join(format!("palisade-doc-trust-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! # let path = folder.join("prod.pem");
//! std::fs::write(&path, authority("prod"))?;
//! let trust = TrustStore::builder()
//!     .trust_domain_file("prod.example", &path) // for `spiffe://prod.example/…` alone
//!     .anchors(authority("partners")) // for certificates without a SPIFFE ID
//!     .build()?;
//! assert_eq!(trust.generation(), 1);
//!
//! // By itself within two seconds or so, or at once: on SIGHUP, say.
//! std::fs::write(&path, authority("prod") + &authority("prod, the next"))?;
//! trust.reload()?;
//! assert_eq!(trust.generation(), 2);
//!
//! // What is broken never replaces what is good.
//! std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nMIIB")?;
//! assert!(trust.reload().is_err());
//! assert_eq!(trust.generation(), 2);
//! # std::fs::remove_dir_all(folder)?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # Who vouches for whom
//! A certificate with a SPIFFE ID is verified against the authorities of its own trust domain, and by no others: with
//! none for it, it is not trusted. One without is verified against the general ones. So no authority can issue
//! names of another's domain.
//!
//! What other names stand beside a SPIFFE ID (DNS, IP address, e-mail) counts only where a general anchor vouches for the
//! certificate, too. Else a partner, trusted for its own domain, could write the DNS name of our gateway into its
//! certificates. No rule admits by such a name then, and [`PeerIdentity`](crate::identity::PeerIdentity) does not have
//! it; a `deny` rule still fits who claims it. Where one authority is to vouch for both, give it as both.
//!
//! # What is verified
//! - The path from the leaf to an anchor: signatures, validity, the anchor's included, constraints on names and lengths.
//!   Who issued a certificate is told by that path alone, never by what a peer appends to its chain.
//! - The extended key usage `clientAuth`, which a leaf must have and no intermediate may exclude.
//! - Revocation, once there is a revocation list (CRL, RFC 5280): of the whole path. An authority without a list, or
//!   whose list is out of date, makes that unknown, which is refused as the server's fault (503). Delta and indirect
//!   lists are refused when they are read. **Without any list revocation is not checked.**
//! - At most 8 certificates of 64 KiB in a chain, no more than two of the same name among the intermediates, and
//!   100 signatures.
//!
//! What was verified is remembered, for at most 4096 chains, until the store changes or a certificate or a revocation
//! list that it rests on ends. Failures are not.
//!
//! # Files
//! Once a second a task in the background looks at each file's date, size and place. What has changed, and not
//! again since the look before, is read, all files anew, at most 16 MiB each. Only if every one can be used do they
//! replace what was there, and the [generation](TrustStore::generation) rises; else all stays, an error is logged, and
//! `palisade_trust_reads_total{outcome="failed"}` counts it. Writers should put a new file in the place of the old
//! one (`rename`): of what is written in place, a pause of seconds looks like an end.
//!
//! The task runs in the tokio runtime that built the store or first used it. Without one, who verifies looks, at most
//! once a second.
//!
//! # What it does not do
//! It fetches nothing: neither lists from their distribution points nor OCSP answers nor intermediates. A large list
//! costs: its signature is verified with each new certificate, a millisecond or so per MiB.

mod anchors;
mod builder;
mod cache;
mod certificate;
mod crl;
mod path;
mod set;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustls_pki_types::CertificateDer;

pub use self::builder::TrustStoreBuilder;
use self::{builder::Parts, cache::PathCache, path::ChainDigest, set::Set};
pub(crate) use self::{
    certificate::{trust_domain, validity},
    path::{Untrusted, VerifiedPath},
};
use crate::{
    BuildError, observe,
    watch::{self, Files, Look, Watcher},
};

/// This part's name in metrics and logs.
const LAYER: &str = "trust";
/// How reading went: `palisade_trust_reads_total{outcome}`.
const READS: &str = "palisade_trust_reads_total";
/// Why certificates were not trusted: `palisade_trust_refused_total{reason}`.
const REFUSED: &str = "palisade_trust_refused_total";

/// Authorities, and what they have revoked. Cheap to clone; all clones are one store. See the [module](self).
#[derive(Clone)]
pub struct TrustStore(Arc<Inner>);

struct Inner {
    /// Unlike that of any other store of this process.
    id: u64,
    current: RwLock<Arc<Set>>,
    /// That of `current`, for a look without a lock.
    generation: AtomicU64,
    cache: PathCache,
    /// Held while files are read, so that one reads at a time. Never waited for by who verifies.
    reading: Mutex<Reading>,
    has_files: AtomicBool,
    watcher: Watcher,
}

struct Reading {
    parts: Parts,
    files: Files,
}

impl TrustStore {
    /// A store without anything.
    pub fn builder() -> TrustStoreBuilder {
        TrustStoreBuilder::default()
    }

    fn new(parts: Parts) -> Result<Self, BuildError> {
        let paths = parts.files();
        let has_files = AtomicBool::new(!paths.is_empty());
        let files = Files::at(paths);
        let set = Set::read(&parts, 1)?;
        let watcher = Watcher::new();
        watcher.has_looked();
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let store = Self(Arc::new(Inner {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            generation: AtomicU64::new(set.generation),
            current: RwLock::new(Arc::new(set)),
            cache: PathCache::new(),
            reading: Mutex::new(Reading { parts, files }),
            has_files,
            watcher,
        }));
        store.watch();
        Ok(store)
    }

    /// Reads all files again, now. They need not have changed. Blocks while it reads.
    ///
    /// # Errors
    /// Those of [`build`](TrustStoreBuilder::build). Then all stays as it was.
    pub fn reload(&self) -> Result<(), BuildError> {
        let Reading { parts, files } = &mut *self.0.reading();
        files.read_now(|| self.0.read(parts))
    }

    /// Trusts what `builder` says, in the place of all that was trusted before. Blocks while it reads files.
    ///
    /// # Errors
    /// Those of [`build`](TrustStoreBuilder::build). Then all stays as it was.
    pub fn replace(&self, builder: TrustStoreBuilder) -> Result<(), BuildError> {
        let parts = builder.into_parts()?;
        let mut reading = self.0.reading();
        let files = Files::at(parts.files());
        self.0.read(&parts)?;
        self.0.has_files.store(!parts.files().is_empty(), Ordering::Relaxed);
        *reading = Reading { parts, files };
        drop(reading);
        self.watch();
        Ok(())
    }

    /// A number that rises whenever something else is trusted than before, or revoked. The first is 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// What names this store and its generation, unlike any other of this process: for who remembers what was verified.
    pub(crate) fn edition(&self) -> (u64, u64) {
        self.watch();
        (self.0.id, self.generation())
    }

    /// Whether `leaf` is trusted at `now`, the time since the epoch, for the SPIFFE IDs of `trust_domain`, or, without
    /// one, for other names. Verifies signatures, some 100 to 400 microseconds of them; never waits.
    pub(crate) fn verify(
        &self,
        trust_domain: Option<&str>,
        leaf: &[u8],
        intermediates: &[CertificateDer<'_>],
        now: Duration,
    ) -> Result<VerifiedPath, Untrusted> {
        self.watch();
        let path = self.0.current().verify(trust_domain, leaf, intermediates, now);
        path.inspect_err(|untrusted| observe::count(REFUSED, &[("reason", untrusted.code())]))
    }

    /// [`verify`](Self::verify), or what it said before of the same, if that still holds at `now` and nothing has
    /// changed since.
    pub(crate) fn verify_cached(
        &self,
        trust_domain: Option<&str>,
        leaf: &[u8],
        intermediates: &[CertificateDer<'_>],
        now: Duration,
    ) -> Result<Arc<VerifiedPath>, Untrusted> {
        let digest = ChainDigest::of(trust_domain, leaf, intermediates);
        if let Some(path) = self.cached(&digest, now) {
            return Ok(path);
        }
        let path = Arc::new(self.verify(trust_domain, leaf, intermediates, now)?);
        self.0.cache.insert(digest, Arc::clone(&path));
        Ok(path)
    }

    /// The path of a chain with this digest, if it was verified before, still holds at `now`, and nothing has changed
    /// since.
    fn cached(&self, digest: &ChainDigest, now: Duration) -> Option<Arc<VerifiedPath>> {
        self.watch();
        self.0.cache.get(digest, self.generation(), now.as_secs())
    }

    /// The names of all anchors, in DER without the outer SEQUENCE: what a server may hint its clients at.
    pub(crate) fn anchor_names(&self) -> Vec<Vec<u8>> {
        let set = self.0.current();
        let mut names: Vec<_> = set.anchors().map(|anchor| anchor.subject.to_vec()).collect();
        names.sort();
        names.dedup();
        names
    }

    fn watch(&self) {
        if self.0.has_files.load(Ordering::Relaxed) {
            watch::watch(&self.0);
        }
    }
}

impl Inner {
    fn current(&self) -> Arc<Set> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn reading(&self) -> std::sync::MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever calls this holds `reading`.
    fn read(&self, parts: &Parts) -> Result<(), BuildError> {
        let before = self.current();
        let set = Set::read(parts, before.generation + 1).inspect_err(|_| {
            observe::count(READS, &[("outcome", "failed")]);
        })?;
        observe::count(READS, &[("outcome", "read")]);
        if set.digest == before.digest {
            return Ok(());
        }
        let generation = set.generation;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
        // From here on, what was verified by former generations is not found any more.
        self.generation.store(generation, Ordering::Release);
        Ok(())
    }
}

impl Look for Inner {
    fn look(&self) {
        let Reading { parts, files } = &mut *self.reading();
        if let Some(Err(error)) = files.read_changed(|| self.read(parts)) {
            observe::error(LAYER, &format!("what was trusted before stays: {error}"));
        }
    }

    fn watcher(&self) -> &Watcher {
        &self.watcher
    }
}

impl fmt::Debug for TrustStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.0.current();
        f.debug_struct("TrustStore")
            .field("generation", &set.generation)
            .field("anchors", &set.anchors().count())
            .field("crls", &set.crl_count())
            .finish_non_exhaustive()
    }
}

//! The server's own certificate, which changes while the server runs.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rustls::{
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::pem::Pem;
use crate::{
    BuildError,
    clock::{Clock as _, SystemClock},
    observe, trust,
    watch::{Files, Look, Watcher},
};

/// This part's name in metrics and logs.
const LAYER: &str = "tls";
/// When the certificate ends, in seconds since the epoch.
const NOT_AFTER: &str = "palisade_tls_certificate_not_after_seconds";
/// How reading went: `palisade_tls_certificate_reads_total{outcome}`.
const READS: &str = "palisade_tls_certificate_reads_total";

const SERVER_CERTIFICATE: &str = "the server's certificate";
const SERVER_KEY: &str = "the server's private key";

const DAY: u64 = 24 * 60 * 60;
/// From when on its end is warned of.
const SOON: u64 = 7 * DAY;

/// Certificate and key, where they came from, and what handshakes get.
pub(super) struct ServerCertificate {
    chain: Pem,
    key: Pem,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<Pair>>,
    /// Held while they are read.
    files: Mutex<Files>,
    /// When to warn next, in seconds since the epoch.
    next_warning: AtomicU64,
    watcher: Watcher,
}

struct Pair {
    certified: Arc<CertifiedKey>,
    not_after: u64,
}

impl ServerCertificate {
    pub(super) fn read(
        chain: Pem,
        key: Pem,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, BuildError> {
        let files = files(&chain, &key);
        let pair = Pair::read(&chain, &key, &provider)?;
        let watcher = Watcher::new();
        watcher.has_looked();
        let certificate = Self {
            chain,
            key,
            provider,
            current: RwLock::new(Arc::new(pair)),
            files: Mutex::new(files),
            next_warning: AtomicU64::new(0),
            watcher,
        };
        certificate.tell_expiry();
        Ok(certificate)
    }

    /// Reads both again, now. If they can't be used or don't belong together, all stays as it was.
    pub(super) fn reload(&self) -> Result<(), BuildError> {
        self.files().read_now(|| self.read_again())
    }

    /// Whoever calls this holds `files`.
    fn read_again(&self) -> Result<(), BuildError> {
        let read = Pair::read(&self.chain, &self.key, &self.provider);
        let outcome = if read.is_ok() { "read" } else { "failed" };
        observe::count(READS, &[("outcome", outcome)]);
        let pair = Arc::new(read?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = pair;
        self.next_warning.store(0, Ordering::Relaxed);
        self.tell_expiry();
        Ok(())
    }

    fn tell_expiry(&self) {
        let not_after = self.current().not_after;
        observe::gauge(NOT_AFTER, not_after);
        let now = SystemClock::default().unix().as_secs();
        if now < self.next_warning.load(Ordering::Relaxed) {
            return;
        }
        if let Some(warning) = warning(not_after, now) {
            self.next_warning.store(now + DAY, Ordering::Relaxed);
            observe::warn(LAYER, &warning);
        }
    }

    fn current(&self) -> Arc<Pair> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pair {
    fn read(chain: &Pem, key: &Pem, provider: &CryptoProvider) -> Result<Self, BuildError> {
        let invalid = |reason: String| BuildError::invalid(SERVER_CERTIFICATE, reason);
        let chain = chain.certificates(SERVER_CERTIFICATE)?;
        let key = key.private_key(SERVER_KEY)?;
        let certified = CertifiedKey::from_der(chain, key, provider);
        let certified = Arc::new(certified.map_err(|error| invalid(error.to_string()))?);
        let validity = certified.end_entity_cert().map(|leaf| trust::validity(leaf));
        let Ok(Ok(validity)) = validity else {
            return Err(invalid("it can't be read".into()));
        };
        Ok(Self { certified, not_after: *validity.end() })
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current().certified))
    }
}

impl Look for ServerCertificate {
    fn look(&self) {
        let mut files = self.files();
        if let Some(Err(error)) = files.read_changed(|| self.read_again()) {
            observe::error(LAYER, &format!("the certificate used before stays: {error}"));
        }
        drop(files);
        self.tell_expiry();
    }

    fn watcher(&self) -> &Watcher {
        &self.watcher
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerCertificate(..)")
    }
}

fn files(chain: &Pem, key: &Pem) -> Files {
    Files::at([chain, key].into_iter().filter_map(Pem::path).map(ToOwned::to_owned).collect())
}

/// What to say at `now` of a certificate that ends at `not_after`.
fn warning(not_after: u64, now: u64) -> Option<String> {
    match not_after.checked_sub(now) {
        None => Some("the server's certificate has expired".into()),
        Some(left) if left < SOON => {
            let (days, hours) = (left / DAY, left % DAY / 3600);
            Some(format!("the server's certificate expires in {days} days and {hours} hours"))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use rustls::crypto::aws_lc_rs;

    use super::*;

    /// A certificate that ends with a year's first second, and its key.
    fn pair(year: i32) -> (String, String) {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn its_end_is_warned_of_from_a_week_before() {
        assert_eq!(warning(SOON, 0), None);
        let said = |now| warning(SOON, now).unwrap();
        assert_eq!(said(1), "the server's certificate expires in 6 days and 23 hours");
        assert_eq!(said(SOON), "the server's certificate expires in 0 days and 0 hours");
        assert_eq!(said(SOON + 1), "the server's certificate has expired");
    }

    #[test]
    fn only_a_pair_that_belongs_together_replaces_another() {
        let folder = std::env::temp_dir().join(format!("palisade-pair-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (chain, key) = (folder.join("chain"), folder.join("key"));
        let write = |(cert, private): &(String, String)| {
            std::fs::write(&chain, cert).unwrap();
            std::fs::write(&key, private).unwrap();
        };
        let (old, new) = (pair(2090), pair(2100));
        write(&old);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificate =
            ServerCertificate::read(Pem::file(&chain), Pem::file(&key), provider).unwrap();
        let ends = || certificate.current().not_after;
        let old_end = ends();
        for bad in [
            (new.0.clone(), old.1.clone()),
            (old.0.clone(), new.1.clone()),
            (new.0[..new.0.len() / 2].to_owned(), new.1.clone()),
            (new.0.clone(), String::new()),
        ] {
            write(&bad);
            assert!(certificate.reload().is_err());
            assert_eq!(ends(), old_end);
            // As the task in the background does it.
            std::fs::write(&chain, format!("{}\n", bad.0)).unwrap();
            certificate.look();
            certificate.look();
            assert_eq!(ends(), old_end);
        }
        write(&new);
        certificate.look();
        assert_eq!(ends(), old_end, "it may still be written");
        certificate.look();
        assert_eq!(ends(), 4_102_444_800);
        write(&old);
        certificate.reload().unwrap();
        assert_eq!(ends(), old_end);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[cfg(feature = "metrics")]
    #[test]
    fn its_end_and_its_readings_are_metrics() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let told = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let (cert, key) = pair(2100);
            let provider = Arc::new(aws_lc_rs::default_provider());
            let (cert, key) = (Pem::text(cert.as_bytes()), Pem::text(key.as_bytes()));
            ServerCertificate::read(cert, key, provider).unwrap().reload().unwrap();
        });
        let told = told.render();
        assert!(told.contains("palisade_tls_certificate_not_after_seconds 4102444800"), "{told}");
        assert!(told.contains("_reads_total{outcome=\"read\"} 1"), "{told}");
    }
}

//! How the listener speaks TLS.

use std::{
    fmt,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{
    certificate::ServerCertificate,
    client::{self, ClientVerifier},
    pem::Pem,
};
use crate::{BuildError, trust::TrustStore, watch};

/// What a [`TlsListener`](super::TlsListener) needs to know. Cheap to clone; all clones have one server certificate.
#[derive(Clone)]
pub struct TlsConfig {
    shared: Arc<Shared>,
    pub(super) handshake_timeout: Duration,
    pub(super) max_handshakes: usize,
}

struct Shared {
    provider: Arc<CryptoProvider>,
    certificate: Arc<ServerCertificate>,
    clients: Clients,
    alpn: Vec<Vec<u8>>,
    /// For the trust store's generation, whose anchors clients are hinted at.
    current: RwLock<(u64, Arc<ServerConfig>)>,
}

/// Who verifies clients.
enum Clients {
    Nobody,
    Authorities(Arc<dyn ClientCertVerifier>),
    Trust { store: TrustStore, optional: bool },
}

impl TlsConfig {
    /// A configuration that lacks the server's certificate.
    pub fn builder() -> TlsConfigBuilder {
        TlsConfigBuilder {
            server: None,
            client_cas: Vec::new(),
            client_trust: None,
            optional: false,
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 512,
        }
    }

    /// Reads the server's certificate and key again, now. They need not have changed. Blocks while it reads. Connections
    /// that there are go on. A [`TrustStore`] has a [`reload`](TrustStore::reload) of its own.
    ///
    /// # Errors
    /// Those of [`build`](TlsConfigBuilder::build) for these two. Then all stays as it was.
    pub fn reload(&self) -> Result<(), BuildError> {
        self.shared.certificate.reload()
    }

    /// Whether whoever verified a client's chain vouches for the names in it beside its SPIFFE ID.
    pub(super) fn vouches_for_names(&self, chain: &[CertificateDer<'_>]) -> bool {
        let (Clients::Trust { store, .. }, [leaf, intermediates @ ..]) =
            (&self.shared.clients, chain)
        else {
            return true;
        };
        // The handshake has just verified it, so it is remembered.
        let path = client::verify(store, leaf, intermediates, UnixTime::now());
        path.is_ok_and(|path| path.vouches_for_names)
    }

    /// For the next connection.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.shared.server()
    }

    /// Sees to it that the server's certificate is read again when it changes.
    pub(super) fn watch(&self) {
        watch::watch(&self.shared.certificate);
    }
}

impl Shared {
    fn server(&self) -> Arc<ServerConfig> {
        let generation = self.clients.generation();
        let (known, config) = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if known == generation {
            return config;
        }
        match self.make() {
            Ok(config) => {
                let config = Arc::new(config);
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                *current = (generation, Arc::clone(&config));
                config
            }
            // What worked once works again. And the old one verifies by the same store; only its hints are old.
            Err(_) => config,
        }
    }

    fn make(&self) -> Result<ServerConfig, rustls::Error> {
        server_config(&self.provider, &self.certificate, &self.clients, &self.alpn)
    }
}

impl Clients {
    /// Rises when something else is to be told to clients.
    fn generation(&self) -> u64 {
        match self {
            Self::Nobody | Self::Authorities(_) => 0,
            Self::Trust { store, .. } => store.generation(),
        }
    }

    fn verifier(&self, provider: &CryptoProvider) -> Option<Arc<dyn ClientCertVerifier>> {
        match self {
            Self::Nobody => None,
            Self::Authorities(verifier) => Some(Arc::clone(verifier)),
            Self::Trust { store, optional } => {
                Some(Arc::new(ClientVerifier::new(store.clone(), *optional, provider)))
            }
        }
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig")
            .field("handshake_timeout", &self.handshake_timeout)
            .field("max_handshakes", &self.max_handshakes)
            .finish_non_exhaustive()
    }
}

/// Builds a [`TlsConfig`].
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct TlsConfigBuilder {
    /// Certificate chain and private key.
    server: Option<(Pem, Pem)>,
    client_cas: Vec<Pem>,
    client_trust: Option<TrustStore>,
    optional: bool,
    alpn: Vec<Vec<u8>>,
    handshake_timeout: Duration,
    max_handshakes: usize,
}

impl TlsConfigBuilder {
    /// The server's certificate chain, leaf first, and its private key (PKCS #8, PKCS #1 or SEC 1),
    /// in PEM. Required, in this form or as files.
    pub fn server_cert_pem(mut self, chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        self.server = Some((Pem::text(chain.as_ref()), Pem::text(key.as_ref())));
        self
    }

    /// [`server_cert_pem`](Self::server_cert_pem), from files that `build()` reads, and that are read again when they
    /// change: see the [module](super#rotation).
    pub fn server_cert_file(mut self, chain: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.server = Some((Pem::file(chain.as_ref()), Pem::file(key.as_ref())));
        self
    }

    /// Demands a client certificate that these authorities vouch for: one or more certificates in
    /// PEM. Adds to those given before. Without any, this is plain TLS, which knows no client.
    pub fn client_ca_pem(mut self, authorities: impl AsRef<[u8]>) -> Self {
        self.client_cas.push(Pem::text(authorities.as_ref()));
        self
    }

    /// [`client_ca_pem`](Self::client_ca_pem), from a file that `build()` reads.
    pub fn client_ca_file(mut self, authorities: impl AsRef<Path>) -> Self {
        self.client_cas.push(Pem::file(authorities.as_ref()));
        self
    }

    /// Demands a client certificate that this store trusts, at the time of the handshake: authorities by trust domain,
    /// and revocation. In the place of [`client_ca_pem`](Self::client_ca_pem): the two exclude each other.
    pub fn client_trust(mut self, store: &TrustStore) -> Self {
        self.client_trust = Some(store.clone());
        self
    }

    /// Lets clients without a certificate connect too. They have no identity: `PeerCertLayer`
    /// refuses their requests, but to routes that it exempts, such as a health check.
    pub fn optional_client_auth(mut self) -> Self {
        self.optional = true;
        self
    }

    /// The application protocols (ALPN), the preferred one first. By default `h2` and `http/1.1`:
    /// offer only what the HTTP server speaks.
    pub fn alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// How long a handshake may take: by default 10 seconds. Then its connection is closed.
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.handshake_timeout = limit;
        self
    }

    /// How many handshakes may run at once: by default 512. One more closes the oldest.
    pub fn max_handshakes(mut self, limit: usize) -> Self {
        self.max_handshakes = limit;
        self
    }

    /// The configuration. Reads the files.
    ///
    /// # Errors
    /// [`BuildError::Missing`] without a server certificate, and for optional client certificates
    /// without an authority; [`BuildError::File`] for what can't be read;
    /// [`BuildError::Invalid`] for what is no PEM of the expected kind, for a key that is not the
    /// certificate's, for limits of zero, and for authorities beside a store.
    pub fn build(self) -> Result<TlsConfig, BuildError> {
        if self.handshake_timeout.is_zero() {
            return Err(BuildError::invalid("handshake_timeout", "it is zero"));
        }
        if self.max_handshakes == 0 {
            return Err(BuildError::invalid("max_handshakes", "it is zero"));
        }
        let (chain, key) = self.server.ok_or(BuildError::Missing("the server's certificate"))?;
        // Said outright: the process's default may be another, or none, which would panic.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certificate = ServerCertificate::read(chain, key, Arc::clone(&provider))?;
        let clients = match (self.client_cas.as_slice(), self.client_trust, self.optional) {
            ([], None, false) => Clients::Nobody,
            ([], None, true) => {
                return Err(BuildError::Missing("an authority for client certificates"));
            }
            ([], Some(store), optional) => Clients::Trust { store, optional },
            (cas, None, optional) => {
                Clients::Authorities(client_verifier(cas, optional, &provider)?)
            }
            (_, Some(_), _) => {
                return Err(BuildError::invalid(CLIENT_CA, "there is a trust store beside them"));
            }
        };
        let (certificate, generation) = (Arc::new(certificate), clients.generation());
        let server = server_config(&provider, &certificate, &clients, &self.alpn)
            .map_err(|error| BuildError::invalid("the TLS configuration", error.to_string()))?;
        Ok(TlsConfig {
            shared: Arc::new(Shared {
                provider,
                certificate,
                clients,
                alpn: self.alpn,
                current: RwLock::new((generation, Arc::new(server))),
            }),
            handshake_timeout: self.handshake_timeout,
            max_handshakes: self.max_handshakes,
        })
    }
}

const CLIENT_CA: &str = "the authority for client certificates";

fn server_config(
    provider: &Arc<CryptoProvider>,
    certificate: &Arc<ServerCertificate>,
    clients: &Clients,
    alpn: &[Vec<u8>],
) -> Result<ServerConfig, rustls::Error> {
    let config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?;
    let resolver = Arc::clone(certificate) as _;
    let mut config = match clients.verifier(provider) {
        None => config.with_no_client_auth().with_cert_resolver(resolver),
        Some(verifier) => {
            let mut config =
                config.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
            // A resumed session keeps its certificate unverified (CVE-2025-23419 is of this class).
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config
        }
    };
    config.alpn_protocols = alpn.to_vec();
    Ok(config)
}

fn client_verifier(
    cas: &[Pem],
    optional: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, BuildError> {
    let invalid = |reason: String| BuildError::invalid(CLIENT_CA, reason);
    let mut roots = RootCertStore::empty();
    for ca in cas {
        for certificate in ca.certificates(CLIENT_CA)? {
            roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
        }
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let verifier = if optional { verifier.allow_unauthenticated() } else { verifier };
    verifier.build().map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    fn pair() -> (String, String) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (cert.pem(), signing_key.serialize_pem())
    }

    fn store() -> TrustStore {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        TrustStore::builder().anchors(authority.pem()).build().unwrap()
    }

    #[test]
    fn what_cannot_serve_is_refused() {
        let (cert, key) = pair();
        let good = || TlsConfig::builder().server_cert_pem(&cert, &key);
        assert!(good().build().is_ok());
        assert!(good().client_ca_pem(&cert).build().is_ok());
        let missing = |builder: TlsConfigBuilder| {
            matches!(builder.build().unwrap_err(), BuildError::Missing(_))
        };
        assert!(missing(TlsConfig::builder()));
        assert!(missing(good().optional_client_auth()));
        let store = store();
        assert!(good().client_trust(&store).build().is_ok());
        assert!(good().client_trust(&store).optional_client_auth().build().is_ok());
        for bad in [
            good().client_trust(&store).client_ca_pem(&cert),
            TlsConfig::builder().server_cert_pem(&key, &key),
            TlsConfig::builder().server_cert_pem(&cert, &cert),
            TlsConfig::builder().server_cert_pem(&cert, pair().1),
            TlsConfig::builder().server_cert_pem("", ""),
            good().client_ca_pem(&key),
            good().client_ca_pem(&cert).client_ca_pem("no authority"),
            good().handshake_timeout(Duration::ZERO),
            good().max_handshakes(0),
        ] {
            let error = bad.build().unwrap_err();
            assert!(matches!(error, BuildError::Invalid { .. }), "{error}");
            assert!(!format!("{error:?}").contains("PRIVATE KEY"), "{error:?}");
        }
        let error = TlsConfig::builder().server_cert_file("/no/such/cert", "/no/such/key").build();
        assert!(matches!(error.unwrap_err(), BuildError::File { .. }));
    }

    #[test]
    fn a_builder_does_not_show_its_key() {
        let (cert, key) = pair();
        let builder = TlsConfig::builder().server_cert_pem(cert, &key);
        let line = key.lines().nth(1).unwrap();
        assert!(!format!("{builder:?}").contains(line));
        assert!(!format!("{:?}", builder.build().unwrap()).contains(line));
    }

    #[test]
    fn no_session_is_resumed_where_client_certificates_are_asked_for() {
        let (cert, key) = pair();
        let config = || TlsConfig::builder().server_cert_pem(&cert, &key);
        let store = store();
        for config in [config().client_ca_pem(&cert), config().client_trust(&store)] {
            let server = config.build().unwrap().server();
            assert_eq!(server.send_tls13_tickets, 0);
            assert!(!server.session_storage.can_cache());
            assert_eq!(server.max_early_data_size, 0);
        }
        let config = config().client_trust(&store).build().unwrap();
        let before = config.server();
        assert!(Arc::ptr_eq(&before, &config.server()), "it is made once per generation");
    }
}

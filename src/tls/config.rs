//! How the listener speaks TLS.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::pem::Pem;
use crate::BuildError;

/// What a [`TlsListener`](super::TlsListener) needs to know. Cheap to clone.
#[derive(Clone)]
pub struct TlsConfig {
    pub(super) server: Arc<ServerConfig>,
    pub(super) handshake_timeout: Duration,
    pub(super) max_handshakes: usize,
}

impl TlsConfig {
    /// A configuration that lacks the server's certificate.
    pub fn builder() -> TlsConfigBuilder {
        TlsConfigBuilder {
            server: None,
            client_cas: Vec::new(),
            optional: false,
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 512,
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

    /// [`server_cert_pem`](Self::server_cert_pem), from files that `build()` reads.
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
    /// certificate's, and for limits of zero.
    pub fn build(self) -> Result<TlsConfig, BuildError> {
        if self.handshake_timeout.is_zero() {
            return Err(BuildError::invalid("handshake_timeout", "it is zero"));
        }
        if self.max_handshakes == 0 {
            return Err(BuildError::invalid("max_handshakes", "it is zero"));
        }
        let (chain, key) = self.server.ok_or(BuildError::Missing("the server's certificate"))?;
        let chain = chain.certificates(SERVER_CERTIFICATE)?;
        let key = key.private_key(SERVER_KEY)?;
        // Said outright: the process's default may be another, or none, which would panic.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let client = match (self.client_cas.as_slice(), self.optional) {
            ([], false) => None,
            ([], true) => return Err(BuildError::Missing("an authority for client certificates")),
            (cas, optional) => Some(client_verifier(cas, optional, &provider)?),
        };
        let mut server = server_config(provider, client, chain, key)
            .map_err(|error| BuildError::invalid(SERVER_CERTIFICATE, error.to_string()))?;
        server.alpn_protocols = self.alpn;
        Ok(TlsConfig {
            server: Arc::new(server),
            handshake_timeout: self.handshake_timeout,
            max_handshakes: self.max_handshakes,
        })
    }
}

const SERVER_CERTIFICATE: &str = "the server's certificate";
const SERVER_KEY: &str = "the server's private key";
const CLIENT_CA: &str = "the authority for client certificates";

fn server_config(
    provider: Arc<CryptoProvider>,
    client: Option<Arc<dyn ClientCertVerifier>>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let config =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let Some(client) = client else {
        return config.with_no_client_auth().with_single_cert(chain, key);
    };
    let mut config = config.with_client_cert_verifier(client).with_single_cert(chain, key)?;
    // A resumed session keeps its certificate unverified (CVE-2025-23419 is of this class).
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
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
        for bad in [
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
        let config =
            TlsConfig::builder().server_cert_pem(&cert, &key).client_ca_pem(&cert).build().unwrap();
        assert_eq!(config.server.send_tls13_tickets, 0);
        assert!(!config.server.session_storage.can_cache());
        assert_eq!(config.server.max_early_data_size, 0);
    }
}

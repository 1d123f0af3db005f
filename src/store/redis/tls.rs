//! TLS to servers (feature `redis-tls`).

use std::sync::Arc;

use redis::{
    AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError, RedisResult,
    aio::MultiplexedConnection,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio_rustls::TlsConnector;

use crate::{
    error::BuildError,
    runtime::{self, TcpStream},
    secret::Secret,
};

/// By whom servers' certificates must be issued, and what they are shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    pub(super) authorities: Option<Vec<u8>>,
    pub(super) certificate: Option<(Vec<u8>, Secret<Vec<u8>>)>,
}

#[derive(Clone)]
pub(super) struct Tls(Arc<ClientConfig>);

impl Options {
    pub(super) fn build(&self) -> Result<Tls, BuildError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|_| BuildError::Missing("a version of TLS"))?;
        let config = config.with_root_certificates(self.roots()?);
        let config = match &self.certificate {
            None => config.with_no_client_auth(),
            Some((chain, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key.expose())
                    .map_err(|_| invalid("no private key in PEM"))?;
                let chain = certificates(chain).ok_or_else(|| invalid("no certificate in PEM"))?;
                let config = config.with_client_auth_cert(chain, key);
                config.map_err(|_| invalid("the certificate and the key do not fit"))?
            }
        };
        Ok(Tls(Arc::new(config)))
    }

    fn roots(&self) -> Result<RootCertStore, BuildError> {
        let mut roots = RootCertStore::empty();
        match &self.authorities {
            Some(pem) => {
                let invalid =
                    || BuildError::invalid("certificate_authorities", "no certificate in PEM");
                for authority in certificates(pem).ok_or_else(invalid)? {
                    roots.add(authority).map_err(|_| invalid())?;
                }
            }
            None => {
                // Some of a system's many may be of a kind that nobody can read.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    return Err(BuildError::Missing(
                        "a certificate authority that the system trusts",
                    ));
                }
            }
        }
        Ok(roots)
    }
}

impl Tls {
    pub(super) async fn open(
        &self,
        (host, port): (&str, u16),
        settings: &RedisConnectionInfo,
        config: AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let connecting = TlsConnector::from(Arc::clone(&self.0)).connect(name, stream);
        let stream = connecting.await.map_err(|error| match error.kind() {
            // A certificate that is not accepted, above all: trying again does not help.
            std::io::ErrorKind::InvalidData => RedisError::from((
                ErrorKind::InvalidClientConfig,
                "there is no understanding with the server by TLS",
            )),
            _ => error.into(),
        })?;
        let opening = MultiplexedConnection::new_with_config(settings, stream, config);
        let (connection, driver) = opening.await?;
        // It ends with the connection.
        drop(runtime::spawn(driver));
        Ok(connection)
    }
}

fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty())
}

fn invalid(why: &'static str) -> BuildError {
    BuildError::invalid("client_certificate", why)
}

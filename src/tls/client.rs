//! Verifies clients by a [`TrustStore`], as it is when they come.

use std::{sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    },
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::trust::{self, TrustStore, Untrusted, VerifiedPath};

#[derive(Debug)]
pub(super) struct ClientVerifier {
    trust: TrustStore,
    /// Of the anchors there were when this was made: only hints for clients that have several certificates.
    hints: Vec<DistinguishedName>,
    optional: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientVerifier {
    pub(super) fn new(trust: TrustStore, optional: bool, provider: &CryptoProvider) -> Self {
        let names = trust.anchor_names();
        let hints = names.iter().map(|name| DistinguishedName::in_sequence(name)).collect();
        let algorithms = provider.signature_verification_algorithms;
        Self { trust, hints, optional, algorithms }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        !self.optional
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let path = verify(&self.trust, leaf, intermediates, now);
        path.map(|_| ClientCertVerified::assertion()).map_err(alert)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// By whom a client's chain is trusted, verified now or remembered.
pub(super) fn verify(
    trust: &TrustStore,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<Arc<VerifiedPath>, Untrusted> {
    let domain = trust::trust_domain(leaf)?;
    let now = Duration::from_secs(now.as_secs());
    trust.verify_cached(domain.as_deref(), leaf, intermediates, now)
}

/// What the client is told (RFC 8446, section 6.2). Of a revocation that is unknown `unknown_ca`, as OpenSSL does.
fn alert(untrusted: Untrusted) -> Error {
    Error::InvalidCertificate(match untrusted {
        Untrusted::NoPath => CertificateError::UnknownIssuer,
        Untrusted::Expired => CertificateError::Expired,
        Untrusted::Revoked => CertificateError::Revoked,
        Untrusted::RevocationUnknown => CertificateError::UnknownRevocationStatus,
        Untrusted::NotForClients => CertificateError::InvalidPurpose,
        Untrusted::Malformed => CertificateError::BadEncoding,
    })
}

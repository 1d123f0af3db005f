//! What came of verifying a path.

use std::ops::RangeInclusive;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use sha2::{Digest as _, Sha256};
use webpki::{Error, aws_lc_rs as algorithm};

/// A path from a leaf to an anchor that was verified. Nothing in it is a peer's mere word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VerifiedPath {
    /// The SHA-256 of the public key (SubjectPublicKeyInfo, in DER) of each issuer on the path: the leaf's first, the
    /// anchor's last.
    pub(crate) issuer_keys_sha256: Vec<[u8; 32]>,
    /// Whether a general anchor vouches for it as well, where the path leads to a trust domain's: else its SPIFFE ID is
    /// verified, and no other name that it has.
    pub(crate) vouches_for_names: bool,
    /// The last second, since the epoch, in which every certificate on the path is valid, the anchor's included.
    pub(crate) expires_at: u64,
    /// The store's generation that it was verified by.
    pub(crate) generation: u64,
    /// When to verify anew: the time in which it, and what was said of its revocation, holds.
    pub(crate) holds: RangeInclusive<u64>,
}

impl VerifiedPath {
    /// The same for as long as another path of the same leaf holds, too.
    pub(super) fn while_holds(self, other: &Self) -> Self {
        let (begins, ends) = (self.holds.start(), self.holds.end());
        let holds = *begins.max(other.holds.start())..=*ends.min(other.holds.end());
        Self { expires_at: self.expires_at.min(other.expires_at), holds, ..self }
    }
}

/// Why a certificate is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Untrusted {
    /// No path leads from it to an anchor that counts for its names.
    NoPath,
    /// It, or an authority on its path, is not yet valid, or no longer.
    Expired,
    /// It, or an authority on its path, is revoked.
    Revoked,
    /// There is no revocation list that counts, is in date and says whether it is revoked. Not the peer's fault.
    RevocationUnknown,
    /// It is not for TLS clients.
    NotForClients,
    /// It, or what was sent with it, can't be read, or is too large.
    Malformed,
}

impl Untrusted {
    /// As a label of a metric.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::NoPath => "no_path",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::RevocationUnknown => "revocation_unknown",
            Self::NotForClients => "not_for_clients",
            Self::Malformed => "malformed",
        }
    }
}

impl From<Error> for Untrusted {
    fn from(error: Error) -> Self {
        match error {
            Error::CertExpired { .. }
            | Error::CertNotValidYet { .. }
            | Error::InvalidCertValidity => Self::Expired,
            Error::CertRevoked => Self::Revoked,
            Error::UnknownRevocationStatus
            | Error::CrlExpired { .. }
            | Error::InvalidCrlSignatureForPublicKey
            | Error::InvalidCrlNumber
            | Error::IssuerNotCrlSigner
            | Error::UnsupportedCrlSignatureAlgorithmContext(_)
            | Error::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => {
                Self::RevocationUnknown
            }
            Error::RequiredEkuNotFoundContext(_)
            | Error::EmptyEkuExtension
            | Error::CaUsedAsEndEntity => Self::NotForClients,
            Error::BadDer
            | Error::BadDerTime
            | Error::ExtensionValueInvalid
            | Error::InvalidSerialNumber
            | Error::MalformedExtensions
            | Error::SignatureAlgorithmMismatch
            | Error::TrailingData(_)
            | Error::UnsupportedCertVersion
            | Error::UnsupportedCriticalExtension => Self::Malformed,
            // Signatures, name constraints, lengths and whatever is still to come.
            _ => Self::NoPath,
        }
    }
}

/// The SHA-256 of a trust domain, a leaf and what came with it: by what a verification is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChainDigest(pub(super) [u8; 32]);

impl ChainDigest {
    pub(super) fn of(
        trust_domain: Option<&str>,
        leaf: &[u8],
        intermediates: &[CertificateDer<'_>],
    ) -> Self {
        let mut hash = Sha256::new();
        hash.update([u8::from(trust_domain.is_some())]);
        let parts = [trust_domain.unwrap_or_default().as_bytes(), leaf];
        for part in parts.into_iter().chain(intermediates.iter().map(AsRef::as_ref)) {
            // Framed, so that no two chains run into the same bytes. Widening.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

/// Named one by one: another crate may switch on webpki's other backend as well.
pub(super) const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithm::ECDSA_P256_SHA256,
    algorithm::ECDSA_P256_SHA384,
    algorithm::ECDSA_P384_SHA256,
    algorithm::ECDSA_P384_SHA384,
    algorithm::ECDSA_P521_SHA256,
    algorithm::ECDSA_P521_SHA384,
    algorithm::ECDSA_P521_SHA512,
    algorithm::ED25519,
    algorithm::RSA_PKCS1_2048_8192_SHA256,
    algorithm::RSA_PKCS1_2048_8192_SHA384,
    algorithm::RSA_PKCS1_2048_8192_SHA512,
    algorithm::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
    algorithm::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
    algorithm::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
    algorithm::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithm::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithm::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

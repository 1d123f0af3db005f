//! Whose code verifies signatures.
//!
//! The backend is held here, never looked up in a process-wide default: that default panics when both
//! of `jsonwebtoken`'s backends are compiled in, as Cargo's feature unification may do to anybody.

use std::fmt;

use jsonwebtoken::{DecodingKey, crypto::CryptoProvider};

use super::Algorithm;

/// A signature backend. By default aws-lc-rs where its feature is on, else RustCrypto.
#[derive(Clone, Copy)]
pub struct CryptoBackend {
    name: &'static str,
    provider: &'static CryptoProvider,
}

impl CryptoBackend {
    /// aws-lc-rs: fast, and what FIPS builds use.
    #[cfg(feature = "aws-lc-rs")]
    #[must_use]
    pub fn aws_lc_rs() -> Self {
        Self { name: "aws-lc-rs", provider: &jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER }
    }

    /// RustCrypto: no C compiler needed, three to nine times slower. It refuses RSA keys of more
    /// than 4096 bits.
    #[cfg(feature = "rust-crypto")]
    #[must_use]
    pub fn rust_crypto() -> Self {
        Self { name: "rust-crypto", provider: &jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER }
    }

    /// The first that is compiled in. `None` when neither is.
    #[must_use]
    pub fn compiled_in() -> Option<Self> {
        #[cfg(feature = "aws-lc-rs")]
        return Some(Self::aws_lc_rs());
        #[cfg(all(feature = "rust-crypto", not(feature = "aws-lc-rs")))]
        return Some(Self::rust_crypto());
        #[cfg(not(any(feature = "aws-lc-rs", feature = "rust-crypto")))]
        None
    }

    /// Whether `signature` is `key`'s over `message`.
    pub(crate) fn verifies(
        self,
        algorithm: Algorithm,
        key: &DecodingKey,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> bool {
        (self.provider.verifier_factory)(&algorithm.of_backend(), key)
            .is_ok_and(|verifier| verifier.verify(message, signature).is_ok())
    }

    /// Modulus and exponent of an `RSAPublicKey` (RFC 8017) in DER.
    pub(crate) fn rsa_components(self, der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        (self.provider.key_utils.rsa_pub_components_from_public_key)(der).ok()
    }
}

impl fmt::Debug for CryptoBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CryptoBackend({})", self.name)
    }
}

//! The signature algorithms.

use jsonwebtoken as backend;

/// A signature algorithm of RFC 7518 or RFC 8037.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// HMAC with SHA-256 and a shared secret.
    HS256,
    /// HMAC with SHA-384 and a shared secret.
    HS384,
    /// HMAC with SHA-512 and a shared secret.
    HS512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519. Named `EdDSA` in RFC 8037 and `Ed25519` in RFC 9864; both names are read.
    EdDSA,
}

impl Algorithm {
    /// Every algorithm that can be verified.
    pub(crate) const ALL: [Self; 12] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// What an issuer may sign with unless it says otherwise: one of each asymmetric family.
    pub(crate) const DEFAULT: [Self; 4] = [Self::RS256, Self::PS256, Self::ES256, Self::EdDSA];

    /// The name in a token's header.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    /// By its name, which is case-sensitive (RFC 7515, section 4.1.1).
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let name = if name == "Ed25519" { "EdDSA" } else { name };
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Whether who can verify can also sign.
    pub(crate) fn is_symmetric(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }

    /// The shortest secret for this algorithm, in bytes: as long as its hash (RFC 7518, section 3.2).
    /// `None` where there is no secret.
    pub(crate) fn secret_len(self) -> Option<usize> {
        match self {
            Self::HS256 => Some(32),
            Self::HS384 => Some(48),
            Self::HS512 => Some(64),
            _ => None,
        }
    }

    pub(crate) fn of_backend(self) -> backend::Algorithm {
        match self {
            Self::HS256 => backend::Algorithm::HS256,
            Self::HS384 => backend::Algorithm::HS384,
            Self::HS512 => backend::Algorithm::HS512,
            Self::RS256 => backend::Algorithm::RS256,
            Self::RS384 => backend::Algorithm::RS384,
            Self::RS512 => backend::Algorithm::RS512,
            Self::PS256 => backend::Algorithm::PS256,
            Self::PS384 => backend::Algorithm::PS384,
            Self::PS512 => backend::Algorithm::PS512,
            Self::ES256 => backend::Algorithm::ES256,
            Self::ES384 => backend::Algorithm::ES384,
            Self::EdDSA => backend::Algorithm::EdDSA,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
        }
        assert_eq!(Algorithm::from_name("Ed25519"), Some(Algorithm::EdDSA));
        for name in ["none", "NONE", "", "rs256", "RS256 ", "ES512", "ES256K", "Ed448", "HS1"] {
            assert_eq!(Algorithm::from_name(name), None, "{name}");
        }
    }
}

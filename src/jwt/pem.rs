//! Public keys in PEM.

use jsonwebtoken::{DecodingKey, DecodingKeyKind};

use super::{
    Algorithm, CryptoBackend,
    jwk::{self, Material, Unusable},
};

/// The one public key in the text, of the kind that `algorithm` needs.
pub(crate) fn read(algorithm: Algorithm, pem: &str) -> Result<Material, Unusable> {
    const UNREADABLE: &str = "it can't be read as PEM of the algorithm's kind";
    // `jsonwebtoken` would read private keys and certificates here as well.
    let labels = ["-----BEGIN PUBLIC KEY-----", "-----BEGIN RSA PUBLIC KEY-----"];
    if pem.matches("-----BEGIN").count() != 1 || !labels.iter().any(|label| pem.contains(label)) {
        return Err("it is not one PEM block that holds a public key");
    }
    let read = match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(pem.as_bytes()),
        Algorithm::EdDSA => DecodingKey::from_ed_pem(pem.as_bytes()),
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            return Err("an HS algorithm has no public key");
        }
        _ => DecodingKey::from_rsa_pem(pem.as_bytes()),
    };
    let key = read.map_err(|_| UNREADABLE)?;
    let DecodingKeyKind::SecretOrDer(der) = key.kind() else { return Err(UNREADABLE) };
    match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => jwk::elliptic_point(der),
        Algorithm::EdDSA => jwk::edwards("Ed25519", der),
        _ => {
            let backend =
                CryptoBackend::compiled_in().ok_or("no signature backend is compiled in")?;
            let (modulus, exponent) = backend.rsa_components(der).ok_or(UNREADABLE)?;
            jwk::rsa(&modulus, &exponent)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_keys_are_read_from_pem() {
        use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};

        let ec = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let fits = |algorithm, pem: &str| {
            read(algorithm, pem).is_ok_and(|(fitting, _)| fitting.contains(&algorithm))
        };
        assert!(fits(Algorithm::ES256, &ec.public_key_pem()));
        assert!(fits(Algorithm::EdDSA, &ed.public_key_pem()));
        assert!(fits(Algorithm::PS384, &rsa.public_key_pem()));
        assert!(!fits(Algorithm::ES384, &ec.public_key_pem()));
        assert!(!fits(Algorithm::EdDSA, &ec.public_key_pem()));
        assert!(!fits(Algorithm::RS256, &ed.public_key_pem()));
        assert!(!fits(Algorithm::HS256, &rsa.public_key_pem()));
        for pair in [&ec, &ed, &rsa] {
            assert!(!fits(Algorithm::RS256, &pair.serialize_pem()));
            assert!(!fits(Algorithm::ES256, &pair.serialize_pem()));
        }
        let two = ec.public_key_pem() + &rsa.public_key_pem();
        assert!(!fits(Algorithm::ES256, &two));
        assert!(!fits(Algorithm::RS256, ""));
    }
}

use super::*;

fn text(fingerprint: [u8; 32]) -> String {
    Pin(fingerprint).to_string()
}

#[test]
fn a_pin_fits_what_it_is_of_and_nothing_else() {
    let certificate = |byte| PeerRule::sha256(&text([byte; 32])).unwrap();
    let key = |byte| PeerRule::public_key_sha256(&text([byte; 32])).unwrap();
    let peer = peer(|peer| peer.issuer_keys_sha256 = vec![[1; 32], [2; 32]]);
    assert_eq!(certificate(7), PeerRule::sha256_bytes([7; 32]));
    assert!(certificate(7).matches(&peer));
    assert!(key(8).matches(&peer));
    for (certificate, key) in [(certificate(8), key(7)), (certificate(1), key(1))] {
        assert!(!certificate.matches(&peer));
        assert!(!key.matches(&peer));
    }
    // A renewal with the same key.
    let renewed = PeerIdentity { leaf_sha256: [9; 32], not_after: 2, ..peer };
    assert!(!certificate(7).matches(&renewed));
    assert!(key(8).matches(&renewed));
}

#[test]
fn attack_21_an_issuer_is_on_the_verified_path_or_nowhere() {
    let issuer = |byte| PeerRule::issuer_key_sha256(&text([byte; 32])).unwrap();
    let verified = peer(|peer| peer.issuer_keys_sha256 = vec![[1; 32], [2; 32]]);
    assert!(issuer(1).matches(&verified));
    assert!(issuer(2).matches(&verified));
    for other in [3, 7, 8] {
        assert!(!issuer(other).matches(&verified), "neither the certificate nor its own key");
    }
    for unverified in 0..=9 {
        assert!(!issuer(unverified).matches(&dns(&[])));
    }
}

#[test]
fn attack_22_pins_of_other_lengths_are_refused() {
    let sha1 = ["07"; 20].join(":");
    for pin in [PeerRule::sha256, PeerRule::public_key_sha256, PeerRule::issuer_key_sha256] {
        assert!(pin(&sha1).is_err());
        assert!(pin(&"07".repeat(20)).is_err());
        assert!(pin(&"07".repeat(32)).is_ok());
    }
}

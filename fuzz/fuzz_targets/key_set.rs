//! Key sets: whatever an issuer publishes, it is read or refused; and with the keys that were read no token makes a
//! backend panic, and none holds but by the very key that signed it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use palisade::jwt::{Algorithm, CryptoBackend, KeySet, verify_signature};
use palisade_fuzz::{base64, from_base64, public_keys, secret};
use serde_json::Value;

/// Tokens that were signed, each with a member of the key that verifies it.
const SIGNED: [(&str, &str); 4] = [
    (include_str!("../corpus/token/bearer_ed25519"), "gtvre8_ahK28xoVachd8id6waNEGj--bADqh-MU3tIw"),
    (include_str!("../corpus/token/bearer_es256"), "hib8F_xMQrCV_f_du8q4IaqB3B6wT3h-5lxndG8pBRY"),
    (include_str!("../corpus/token/bearer_rs256"), "s-oYfV8Qrhx-rlmiEp34VpCHMDwEasysVFvDNmUv"),
    (include_str!("../corpus/token/bearer_hs256"), "YSBzZWNyZXQgdGhhdCBpcyBrZXB0IGJ5IG5vYm9keS4"),
];

/// Tokens of every algorithm that nobody signed, with signatures of every length that some key has.
static UNSIGNED: LazyLock<Vec<String>> = LazyLock::new(|| {
    let algorithms = [
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
        "ES384", "EdDSA",
    ];
    let with_length = |algorithm| {
        [0, 1, 32, 48, 64, 96, 256, 257, 384, 512, 1024].map(|length| {
            let header = base64(format!(r#"{{"alg":"{algorithm}"}}"#).as_bytes());
            format!("{header}.e30.{}", base64(&vec![1; length]))
        })
    };
    algorithms.into_iter().flat_map(with_length).collect()
});

fuzz_target!(init: the_signed_hold(), |text: &str| {
    let Ok(keys) = KeySet::from_json(text) else { return };
    assert!(keys.len() + keys.skipped().len() <= text.len());
    for backend in [CryptoBackend::aws_lc_rs(), CryptoBackend::rust_crypto()] {
        for token in UNSIGNED.iter() {
            assert!(!verify_signature(&keys, token, backend), "{token}");
        }
        for (token, member) in SIGNED {
            let token = token.strip_prefix("Bearer ").unwrap();
            let holds = verify_signature(&keys, token, backend);
            assert!(!holds || has_member(text, member), "{backend:?}: {token}");
        }
    }
});

fn the_signed_hold() {
    let sets = [public_keys(), KeySet::secret(None, Algorithm::HS256, &secret()).unwrap()];
    for (token, _) in SIGNED {
        let token = token.strip_prefix("Bearer ").unwrap();
        for backend in [CryptoBackend::aws_lc_rs(), CryptoBackend::rust_crypto()] {
            assert!(sets.iter().any(|keys| verify_signature(keys, token, backend)), "{token}");
        }
    }
}

/// Whether a key of the set has this member, be it among zeros, which numbers and secrets may have around them.
fn has_member(set: &str, member: &str) -> bool {
    let set: Value = serde_json::from_str(set).unwrap();
    let member = from_base64(member).unwrap();
    let mut keys = set["keys"].as_array().unwrap().iter().filter_map(Value::as_object);
    keys.any(|key| {
        let mut bytes = key.values().filter_map(Value::as_str).filter_map(from_base64);
        bytes.any(|bytes| bytes.windows(member.len()).any(|window| window == member))
    })
}

//! Published test vectors: Wycheproof's JSON Web Signatures and JSON Web Keys, every case of every file
//! in `$PALISADE_VECTORS/jose`, by every backend.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod support;

use std::{env, fs, path::PathBuf};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use palisade::jwt::{CryptoBackend, KeySet, verify_signature};
use serde_json::{Value, json};

/// The cases of the signature file whose verdict is not ours, and why. To them come those that
/// [`is_for_another_algorithm`] finds.
const DEVIATIONS: [(u64, &str, &str); 6] = [
    // Refused though "valid".
    (347, "valid", "ES512 is not supported"),
    (351, "valid", "ES512 is not supported"),
    // For decoders that skip characters outside of the alphabet. RFC 7515, section 2, has none.
    (372, "valid", "a character that is not base64url stands in the header"),
    (373, "valid", "a character that is not base64url stands in the token"),
    // Accepted though "invalid": byte for byte the token and key of 357, which is valid. What made
    // them invalid, padding, is not in the file.
    (367, "invalid", "the same as 357"),
    (370, "invalid", "the same as 357"),
];

#[test]
fn jose_signatures_and_keys_of_wycheproof() {
    let Some(files) = files() else { return };
    let mut cases = 0;
    for (path, file) in files {
        for group in file["testGroups"].as_array().unwrap() {
            let is_signature = match group["type"].as_str() {
                Some("JsonWebSignature") => true,
                Some("JsonWebKey") => false,
                other => panic!("{}: vectors of an unknown kind: {other:?}", path.display()),
            };
            let keys = KeySet::from_json(&key_set(group).to_string());
            for case in group["tests"].as_array().unwrap() {
                cases += 1;
                let verdict =
                    expected(case, is_signature) && !is_for_another_algorithm(group, case);
                for backend in backends() {
                    let holds = keys
                        .as_ref()
                        .is_ok_and(|keys| verify_signature(keys, &token(case), backend));
                    let (id, comment) = (&case["tcId"], &case["comment"]);
                    assert_eq!(holds, verdict, "{}: {id} {comment} {backend:?}", path.display());
                }
            }
        }
    }
    println!("{cases} cases");
    assert!(cases > 0, "no vectors in the files");
}

fn expected(case: &Value, is_signature: bool) -> bool {
    let result = case["result"].as_str().unwrap();
    let id = case["tcId"].as_u64().unwrap();
    let deviates = DEVIATIONS.iter().find(|(deviation, ..)| is_signature && *deviation == id);
    if let Some((_, stated, why)) = deviates {
        assert_eq!(result, *stated, "{id} has changed, and is no longer a case of: {why}");
        return result != "valid";
    }
    result == "valid"
}

/// Whether the case is of RFC 7520, where one key signs with several algorithms. The file gives that
/// key an `alg` that the RFC does not, and calls it valid for others (346: a key for PS256, a token
/// with PS384), but calls just that invalid elsewhere (340: a key for PS512, a token with PS384, whose
/// signature is sound). The key's word binds here: RFC 7517, section 4.4; RFC 8725, section 3.1.
fn is_for_another_algorithm(group: &Value, case: &Value) -> bool {
    if !group["comment"].as_str().is_some_and(|comment| comment.starts_with("rfc7520")) {
        return false;
    }
    let token = token(case);
    let header = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    let of_key = &key_set(group)["keys"][0]["alg"];
    of_key.is_string() && *of_key != header["alg"]
}

/// The keys as a resource server holds them: the public ones, or those that have no public half.
fn key_set(group: &Value) -> Value {
    let (public, private) = (&group["public"], &group["private"]);
    let key = if public.is_null() || has_secret(private) { private } else { public };
    if key["keys"].is_array() { key.clone() } else { json!({ "keys": [key] }) }
}

fn has_secret(key: &Value) -> bool {
    let is_secret = |key: &Value| key["kty"] == "oct";
    is_secret(key) || key["keys"].as_array().is_some_and(|keys| keys.iter().any(is_secret))
}

/// Tokens in the JSON serialization stand in the file as objects or as text.
fn token(case: &Value) -> String {
    case["jws"].as_str().map_or_else(|| case["jws"].to_string(), str::to_owned)
}

fn backends() -> Vec<CryptoBackend> {
    vec![
        #[cfg(feature = "aws-lc-rs")]
        CryptoBackend::aws_lc_rs(),
        #[cfg(feature = "rust-crypto")]
        CryptoBackend::rust_crypto(),
    ]
}

/// Every JSON file of the folder, or `None` where there is no folder.
fn files() -> Option<Vec<(PathBuf, Value)>> {
    let Some(root) = env::var_os("PALISADE_VECTORS") else {
        support::skip("PALISADE_VECTORS is not set");
        return None;
    };
    let folder = PathBuf::from(root).join("jose");
    let entries = fs::read_dir(&folder).expect("the folder jose of PALISADE_VECTORS");
    let paths = entries.map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path, serde_json::from_str(&text).unwrap())
    };
    let json = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let files: Vec<_> = json.map(read).collect();
    assert!(!files.is_empty(), "no files in {}", folder.display());
    Some(files)
}

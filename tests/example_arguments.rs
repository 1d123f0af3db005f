//! What is wrong with the arguments of the example `generate` is said, and what it is wrong with.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod server;

use std::{fs, net::TcpListener, path::PathBuf};

fn file(folder: &std::path::Path, name: &str, text: &str) -> String {
    let path: PathBuf = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[track_caller]
fn assert_says(arguments: &[&str], expected: &[&str]) {
    let said = server::refusal(arguments);
    for expected in expected {
        assert!(said.contains(expected), "{arguments:?}: {expected:?} is not in: {said}");
    }
}

#[test]
fn a_key_that_is_none_is_named() {
    let folder = server::folder("arguments-keys");
    let text = file(&folder, "text", "no key");
    assert_says(&["--dev-key", &text], &[&text, "not a private key in PEM"]);
    let nowhere = folder.join("nowhere/key.pem");
    let nowhere = nowhere.to_str().unwrap();
    assert_says(&["--dev-key", nowhere], &[nowhere, "No such file"]);
}

#[test]
fn a_key_set_that_is_none_is_named() {
    let folder = server::folder("arguments-jwks");
    let text = file(&folder, "text", "no keys");
    assert_says(&["--jwks", &text], &[&text, "key set is invalid"]);
    let empty = file(&folder, "empty", r#"{"keys": []}"#);
    assert_says(&["--jwks", &empty], &["keys", "empty"]);
    assert_says(&["--jwks", "/nowhere/jwks"], &["/nowhere/jwks", "No such file"]);
    // An issuer that can't be reached is waited for; one that anybody could pose as is not.
    assert_says(&["--jwks", "http://idp.example/jwks"], &["https"]);
    assert_says(&["--issuer", "http://127.0.0.1:9"], &["issuer", "https"]);
    assert_says(
        &["--issuer", "http://idp.example", "--insecure-http-loopback"],
        &["issuer", "https"],
    );
}

#[test]
fn tiers_that_are_none_are_named() {
    let folder = server::folder("arguments-tiers");
    let misspelt = file(&folder, "misspelt", "[free]\nrequests_per_minut = 1\n");
    assert_says(&["--tiers", &misspelt], &[&misspelt, "requests_per_minut", "line 2"]);
    let zero = file(&folder, "zero", "[free]\nrequests_per_minute = 0\n");
    assert_says(&["--tiers", &zero], &["free", "zero"]);
    assert_says(&["--tiers", "/nowhere/tiers"], &["/nowhere/tiers", "No such file"]);
}

#[test]
fn a_store_that_is_none_is_named_and_its_password_is_not() {
    assert_says(&["--store", "Memory"], &["--store", "redis://"]);
    let url = format!("redis://:hunter2@{}/", free_address());
    assert_says(&["--store", &url], &["--store", "can't be reached"]);
    assert!(!server::refusal(&["--store", &url]).contains("hunter2"));
}

#[test]
fn keys_of_a_store_that_no_other_process_has_are_refused() {
    let keys = ["--api-keys", "store", "--pepper", "long enough a pepper"];
    assert_says(&keys, &["--api-keys store", "--store redis://"]);
    assert_says(&keys[..2], &["--pepper"]);
}

#[test]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    assert_says(&["--addr", &addr], &[&addr, "in use"]);
}

#[test]
fn a_pace_that_is_none_is_refused() {
    for pace in ["0", "-5", "NaN", "inf", "fast"] {
        assert_says(&["--tokens-per-second", pace], &["--tokens-per-second", "0.001"]);
    }
}

/// Where nobody listens.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

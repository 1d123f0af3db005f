//! The SDKs that people use get answers and streams from the example, and raise their own
//! exceptions when they are refused. `scripts/test` installs them under `target/venv`.
#![allow(clippy::unwrap_used)]

mod server;
mod support;

use std::{fs, path::Path, process::Command};

use palisade::{
    Secret,
    jwt::{ApiKeyFile, NewApiKey},
};
use server::Server;

const PEPPER: &str = "a pepper for tests";

const TIERS: &str = "
[roomy]
requests_per_minute = 1000
tokens_per_minute = 1000000

[slow]
requests = { quota = 1, seconds = 3 }
";

#[test]
fn openai() {
    run("openai");
}

/// As every client of that API has one: `sk-…`, in the place of a token.
#[test]
fn openai_with_api_keys() {
    let folder = server::folder("keys");
    let pepper = Secret::new(PEPPER.into());
    let file = ApiKeyFile::new(folder.join("keys.json"), &pepper).unwrap();
    let file = file.with_prefix("sk-pal-").unwrap();
    let key = |subject: &str, tier: &str| {
        file.issue(NewApiKey::new("keys", subject).tier(tier)).unwrap().key.expose().clone()
    };
    let credentials = [key("ann", "roomy"), key("bob", "slow")];
    let keys = folder.join("keys.json");
    run_as("openai", Some(&credentials), &["--api-keys", keys.to_str().unwrap()]);
}

#[test]
fn anthropic() {
    run("anthropic");
}

#[test]
fn huggingface() {
    run("huggingface");
}

/// Runs `tests/sdk/NAME_sdk.py` against a server of its own.
fn run(name: &str) {
    run_as(name, None, &[]);
}

/// With these credentials in the place of tokens, and these further arguments.
fn run_as(name: &str, credentials: Option<&[String; 2]>, arguments: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    if !python.exists() {
        return support::skip("the SDKs are not in target/venv (scripts/test puts them there)");
    }
    let folder = server::folder(name);
    let (key, tiers) = (folder.join("key.pem"), folder.join("tiers.toml"));
    fs::write(&tiers, TIERS).unwrap();
    let tokens = [server::token(&key, "roomy", "ann"), server::token(&key, "slow", "bob")];
    let [token, slow] = credentials.unwrap_or(&tokens);
    let own = [
        "--dev-key",
        key.to_str().unwrap(),
        "--tiers",
        tiers.to_str().unwrap(),
        "--tokens-per-second",
        "200",
        "--pepper",
        PEPPER,
    ];
    let server = Server::start(&[&own, arguments].concat());
    let output = Command::new(python)
        .arg(root.join(format!("tests/sdk/{name}_sdk.py")))
        .env("BASE", format!("http://{}", server.addr))
        .env("TOKEN", token)
        .env("SLOW_TOKEN", slow)
        // Nothing of the machine's own configuration, and no proxy.
        .env("NO_PROXY", "127.0.0.1")
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

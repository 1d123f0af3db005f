//! A certified OpenID provider, on free loopback ports, gone when it is dropped: `tests/idp`.
#![allow(dead_code)] // Each test binary uses a part of it.

use std::{
    io::{BufRead, BufReader, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use palisade::{
    clock::{Clock, ManualClock, SystemClock},
    jwt::{Algorithm, AuthErrorKind, HttpFetch, Issuer, Presented, ResourceServer, TokenVerifier},
};
use serde_json::{Value, json};

use crate::support;

/// What `idp.mjs` issues tokens for, and the algorithm of each.
pub(crate) const RESOURCES: [(&str, Algorithm); 5] = [
    ("https://rs.example/rs256", Algorithm::RS256),
    ("https://rs.example/ps256", Algorithm::PS256),
    ("https://rs.example/es256", Algorithm::ES256),
    ("https://rs.example/es384", Algorithm::ES384),
    ("https://rs.example/eddsa", Algorithm::EdDSA),
];

pub(crate) struct Idp {
    process: Child,
    pub(crate) issuer: String,
    tls: String,
    folder: PathBuf,
    client: reqwest::Client,
}

impl Idp {
    /// `None`, said by name, where there is no Node.js or the provider is not installed.
    pub(crate) fn start() -> Option<Self> {
        let home = home();
        if !home.join("node_modules").exists() {
            support::skip("tests/idp/node_modules is missing (scripts/test installs it)");
            return None;
        }
        // Another process may take the ports before the provider does: then others.
        for _ in 0..10 {
            let [port, tls] = [free_port(), free_port()];
            let folder = std::env::temp_dir().join(format!("palisade-idp-{port}"));
            let started = node()
                .args(["idp.mjs", "--port", &port.to_string(), "--tls-port", &tls.to_string()])
                .arg("--dir")
                .arg(&folder)
                .stdout(Stdio::piped())
                .spawn();
            let Ok(mut process) = started else {
                support::skip("node is not installed");
                return None;
            };
            let mut ready = String::new();
            let out = process.stdout.take().unwrap();
            BufReader::new(out).read_line(&mut ready).unwrap();
            let idp = Self {
                process,
                issuer: format!("http://127.0.0.1:{port}"),
                tls: format!("https://127.0.0.1:{tls}"),
                folder,
                client: reqwest::Client::builder().no_proxy().build().unwrap(),
            };
            if ready.contains("\"ready\":true") {
                return Some(idp);
            }
        }
        panic!("the provider does not start");
    }

    /// A resource server for it, the time on its monotonic clock, and no keys yet.
    pub(crate) fn server(&self) -> (ResourceServer, Arc<AheadClock>) {
        let clock = Arc::new(AheadClock::default());
        let audiences = RESOURCES.iter().map(|(resource, _)| *resource);
        let issuer = Issuer::discover(&self.issuer).insecure_http_loopback();
        let issuer = audiences.fold(issuer, Issuer::audience);
        let server = ResourceServer::builder()
            .issuer(issuer.algorithms(RESOURCES.map(|(_, algorithm)| algorithm)))
            .fetch(HttpFetch::with_time_limit(Duration::from_secs(1)).unwrap())
            .clock(clock.clone());
        (server.build().unwrap(), clock)
    }

    /// Tokens by a real grant: `get-token.mjs`.
    pub(crate) fn grant(&self, arguments: &[&str]) -> Vec<Value> {
        let output = node()
            .arg("get-token.mjs")
            .args(arguments)
            .env("IDP", &self.issuer)
            .env("IDP_TLS", &self.tls)
            .env("IDP_DIR", &self.folder)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Any token, signed by the key that is in use.
    pub(crate) async fn sign(&self, algorithm: Algorithm, kid: Option<&str>) -> String {
        let body = json!({"alg": algorithm.name(), "kid": kid});
        self.control("sign", Some(&body)).await["token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn control(&self, path: &str, body: Option<&Value>) -> Value {
        let request = self.client.post(format!("{}/_control/{path}", self.issuer));
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        request.send().await.unwrap().json().await.unwrap()
    }

    /// Where its certificates are: `ca`, `server`, `client` and `client2`.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What two other validators say of each token: `oracle.mjs`.
    pub(crate) fn oracles(&self, audience: &str, tokens: &[&str]) -> Vec<Value> {
        let mut oracle = node()
            .args(["oracle.mjs", audience])
            .env("IDP", &self.issuer)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = oracle.stdin.take().unwrap();
        let lines = tokens.join("\n");
        let writing = std::thread::spawn(move || input.write_all(lines.as_bytes()));
        let output = oracle.wait_with_output().unwrap();
        writing.join().unwrap().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Revokes a token that the client `svc` got: RFC 7009.
    pub(crate) async fn revoke(&self, token: &str) {
        let request = self.client.post(format!("{}/token/revocation", self.issuer));
        let request = request.basic_auth("svc", Some("svc-secret")).body(format!("token={token}"));
        let form = "application/x-www-form-urlencoded";
        let answer = request.header("content-type", form).send().await.unwrap();
        assert!(answer.status().is_success());
    }

    pub(crate) async fn key_set_fetches(&self) -> u64 {
        self.control("stats", None).await["jwks_hits"].as_u64().unwrap()
    }
}

impl Drop for Idp {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub(crate) async fn ask(server: &ResourceServer, token: &str) -> Result<(), AuthErrorKind> {
    let verdict = server.verify(&Presented::alone(token)).await;
    verdict.map(drop).map_err(|error| error.kind())
}

/// The machine's clock, whose monotonic time can be put ahead.
#[derive(Debug, Default)]
pub(crate) struct AheadClock(ManualClock);

impl AheadClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.advance(by);
    }
}

impl Clock for AheadClock {
    fn unix(&self) -> Duration {
        SystemClock::default().unix()
    }

    fn monotonic(&self) -> Duration {
        SystemClock::default().monotonic() + self.0.monotonic()
    }
}

fn node() -> Command {
    let mut command = Command::new("node");
    command.current_dir(home()).env("NODE_NO_WARNINGS", "1").stderr(Stdio::null());
    command
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/idp")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

//! The example as a process of its own: over TLS, over one Redis with another, left in the middle,
//! and told to end.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code)]
#[path = "../examples/generate/dev.rs"]
mod dev;
mod pki;
mod server;
mod support;

use std::{
    env, fs,
    io::Write,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use futures_util::future::join_all;
use palisade::{
    Secret,
    jwt::{ApiKeyFile, NewApiKey},
};
use pki::{Authority, GATEWAY, OUTSIDER};
use reqwest::{Certificate, Client, Identity, Response};
use serde_json::{Value, json};
use server::Server;
use support::redis::RedisServer;

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "https://generate.example";

/// A key and tiers in files, and the arguments that name them.
struct Setup {
    key: String,
    tiers: String,
}

impl Setup {
    fn new(test: &str, tiers: &str) -> Self {
        let folder = server::folder(test);
        let path = |name| folder.join(name).to_str().unwrap().to_owned();
        let setup = Self { key: path("key.pem"), tiers: path("tiers.toml") };
        fs::write(&setup.tiers, tiers).unwrap();
        setup
    }

    fn arguments(&self) -> [&str; 4] {
        ["--dev-key", &self.key, "--tiers", &self.tiers]
    }

    fn token(&self, tier: &str) -> String {
        self.token_for(tier, "ann")
    }

    fn token_for(&self, tier: &str, subject: &str) -> String {
        server::token(Path::new(&self.key), tier, subject)
    }
}

async fn ask(client: &Client, addr: SocketAddr, token: &str, body: &Value) -> Response {
    let request = client.post(format!("http://{addr}/generate")).bearer_auth(token);
    request.body(body.to_string()).send().await.unwrap()
}

/// A gauge or counter without labels.
async fn metric(client: &Client, addr: SocketAddr, name: &str) -> f64 {
    let text = client.get(format!("http://{addr}/metrics")).send().await.unwrap();
    let text = text.text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

#[tokio::test]
async fn two_processes_over_one_redis_admit_together_what_one_would() {
    let Some(redis) = RedisServer::start() else { return };
    let setup = Setup::new("redis", "[few]\nrequests = { quota = 20, seconds = 600 }\n");
    let token = setup.token("few");
    let store = redis.url();
    let arguments: Vec<_> =
        setup.arguments().into_iter().chain(["--store", &store, "--pepper", "a test"]).collect();
    let servers = [Server::start(&arguments), Server::start(&arguments)];

    let client = Client::new();
    let body = json!({"prompt": "The lamp", "max_tokens": 1});
    // On a busy machine the store may answer too late; its clients come back then.
    let answered = async |n: usize| loop {
        let status = ask(&client, servers[n % 2].addr, &token, &body).await.status().as_u16();
        if status != 503 {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let statuses = join_all((0..60).map(answered)).await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 20, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 40, "{statuses:?}");
}

#[tokio::test]
async fn api_keys_are_accepted_beside_tokens_until_they_are_revoked() {
    const PEPPER: &str = "a pepper for tests";
    let setup = Setup::new("keys", "[many]\nrequests_per_minute = 1000\n");
    let path = Path::new(&setup.tiers).with_file_name("keys.json");
    let file = ApiKeyFile::new(&path, &Secret::new(PEPPER.into())).unwrap();
    let issued = file.issue(NewApiKey::new("keys", "ann").tier("many")).unwrap();
    let keys = ["--api-keys", path.to_str().unwrap(), "--pepper", PEPPER];
    let server = Server::start(&[&setup.arguments()[..], &keys].concat());
    let client = Client::new();
    let body = json!({"prompt": "The lamp", "max_tokens": 1});
    let status = async |credential: &str| {
        ask(&client, server.addr, credential, &body).await.status().as_u16()
    };
    assert_eq!(status(issued.key.expose()).await, 200);
    assert_eq!(status(&setup.token("many")).await, 200);

    file.revoke(&issued.record.id).unwrap();
    let since = Instant::now();
    while status(issued.key.expose()).await == 200 {
        assert!(since.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status(issued.key.expose()).await, 401);
    assert_eq!(status(&setup.token("many")).await, 200);
}

#[tokio::test]
async fn streams_that_are_left_free_their_slots_and_stop_the_engine() {
    const AT_A_TIME: usize = 1000;
    let setup = Setup::new("left", &format!("[many]\nconcurrent_requests = {AT_A_TIME}\n"));
    let token = setup.token("many");
    let server = Server::start(&[&setup.arguments()[..], &["--tokens-per-second", "20"]].concat());
    let client = Client::new();
    // Over HTTP/2, a hundred on each connection, so that no limit on open files is in the way.
    let http2 = || Client::builder().http2_prior_knowledge().build().unwrap();
    let connections: Vec<Client> = (0..10).map(|_| http2()).collect();
    let body = json!({"prompt": "The", "max_tokens": 4000, "ignore_eos": true, "stream": true});
    for _ in 0..2 {
        let streams = connections.iter().cycle().take(AT_A_TIME).map(async |client| {
            let mut stream = ask(client, server.addr, &token, &body).await;
            assert_eq!(stream.status(), 200);
            assert!(stream.chunk().await.unwrap().is_some());
            stream
        });
        let streams = join_all(streams).await;
        assert_eq!(ask(&client, server.addr, &token, &body).await.status(), 429);
        drop(streams);
        let since = Instant::now();
        while metric(&client, server.addr, "generate_live_sequences").await > 0.0 {
            assert!(since.elapsed() < Duration::from_secs(10), "a stream goes on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_left_costs_its_prompt_and_what_was_produced() {
    let setup = Setup::new("cost", "[daily]\ntokens_per_day = 20000\n");
    let (left, fresh) = (setup.token_for("daily", "ann"), setup.token_for("daily", "bob"));
    let server = Server::start(&[&setup.arguments()[..], &["--tokens-per-second", "500"]].concat());
    let client = Client::new();
    let body = json!({"prompt": "The", "max_tokens": 15000, "ignore_eos": true, "stream": true});
    let mut stream = ask(&client, server.addr, &left, &body).await;
    for _ in 0..100 {
        stream.chunk().await.unwrap().unwrap();
    }
    drop(stream);
    while metric(&client, server.addr, "generate_live_sequences").await > 0.0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let produced = metric(&client, server.addr, "generate_tokens_total").await;
    // Whoever left the stream has less than someone who did not, by what it cost.
    let next = json!({"prompt": "The", "max_tokens": 1});
    let mut remaining = [0.0; 2];
    for (remaining, token) in remaining.iter_mut().zip([&left, &fresh]) {
        let answer = ask(&client, server.addr, token, &next).await;
        let header = answer.headers()["x-ratelimit-remaining-tokens"].to_str().unwrap();
        *remaining = header.parse::<f64>().unwrap();
    }
    let paid = remaining[1] - remaining[0];
    // A few tokens drain meanwhile, and the prompt has a few.
    assert!(
        produced >= 100.0 && (paid - produced).abs() < 10.0,
        "{paid} paid, {produced} produced"
    );
}

#[tokio::test]
async fn answers_under_way_are_finished_when_it_is_told_to_end() {
    let setup = Setup::new("end", "[any]\nrequests_per_minute = 10\n");
    let token = setup.token("any");
    let server = Server::start(&[&setup.arguments()[..], &["--tokens-per-second", "40"]].concat());
    let addr = server.addr;
    let client = Client::new();
    let body = json!({"prompt": "The", "max_tokens": 40, "ignore_eos": true, "stream": true});
    let mut stream = ask(&client, addr, &token, &body).await;
    stream.chunk().await.unwrap().unwrap();
    let ended = tokio::task::spawn_blocking(|| server.terminate());
    let rest = stream.text().await.unwrap();
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
    assert!(ended.await.unwrap().success());
    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn a_client_that_says_nothing_does_not_keep_it_from_ending() {
    let server = Server::start(&[]);
    let mut upload = TcpStream::connect(server.addr).unwrap();
    upload.write_all(b"POST /generate HTTP/1.1\r\n").unwrap();
    let _silent = TcpStream::connect(server.addr).unwrap();
    let told = Instant::now();
    assert!(server.terminate().success());
    assert!(told.elapsed() < Duration::from_secs(15), "it waited for a client that says nothing");
}

/// The names stand where a reader sees them, though the harness swallows what passing tests print.
#[test]
fn what_is_skipped_is_named_and_fails_where_nothing_may_be() {
    let test = "two_processes_over_one_redis_admit_together_what_one_would";
    let run = |strict: &str| {
        Command::new(env::current_exe().unwrap())
            .args(["--exact", test])
            .env("PATH", "")
            .env("PALISADE_REQUIRE_SERVERS", strict)
            .output()
            .unwrap()
    };
    let skipped = run("0");
    assert!(skipped.status.success());
    let named = format!("skipped: {test}: redis-server is not installed");
    assert!(String::from_utf8_lossy(&skipped.stderr).contains(&named));
    assert!(!run("1").status.success());
}

#[tokio::test]
async fn keys_come_from_a_file_or_a_url() {
    let setup = Setup::new("keys", "[any]\nrequests_per_minute = 10\n");
    let token = setup.token("any");
    let key_set =
        dev::Issuer::from_file(Path::new(&setup.key), ISSUER, AUDIENCE).unwrap().key_set();
    let file = format!("{}.jwks", setup.key);
    fs::write(&file, &key_set).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let published = Arc::new(Mutex::new(key_set));
    let served = Arc::clone(&published);
    let keys = Router::new().route("/jwks", get(|| async move { served.lock().unwrap().clone() }));
    tokio::spawn(async { axum::serve(listener, keys).await });

    let client = Client::new();
    let body = json!({"prompt": "The", "max_tokens": 1});
    for jwks in [file, url] {
        let (tiers, rotates) = (setup.tiers.clone(), jwks.starts_with("http"));
        let server = tokio::task::spawn_blocking(move || {
            Server::start(&["--jwks", &jwks, "--tiers", &tiers])
        });
        let server = server.await.unwrap();
        assert_eq!(ask(&client, server.addr, &token, &body).await.status(), 200);
        let stranger = dev::Issuer::new(ISSUER, AUDIENCE).unwrap().token("any", "ann").unwrap();
        assert_eq!(ask(&client, server.addr, &stranger, &body).await.status(), 401);
        if rotates {
            let next = dev::Issuer::new(ISSUER, AUDIENCE).unwrap();
            *published.lock().unwrap() = next.key_set();
            let token = next.token("any", "ann").unwrap();
            assert_eq!(ask(&client, server.addr, &token, &body).await.status(), 200);
        }
    }
}

#[tokio::test]
async fn over_tls_only_the_workloads_that_are_allowed_get_an_answer() {
    let setup = Setup::new("tls", "[any]\nrequests_per_minute = 10\n");
    let token = setup.token("any");
    let authority = Authority::new("clients and servers");
    let certificate = authority.server();
    let write = |name: &str, text: &str| {
        let path = format!("{}.{name}", setup.key);
        fs::write(&path, text).unwrap();
        path
    };
    let cert = write("cert", &certificate.cert);
    let (key, ca) = (write("server-key", &certificate.key), write("ca", &authority.pem()));
    let tls = ["--tls-cert", &cert, "--tls-key", &key, "--client-ca", &ca, "--allow-peer", GATEWAY];
    let server = Server::start(&[&setup.arguments()[..], &tls].concat());

    let root = Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    let as_workload = |id: Option<&str>| {
        let client = Client::builder().tls_certs_only([root.clone()]);
        let client = match id {
            None => client,
            Some(id) => {
                let bundle = authority.workload(id).bundle();
                client.identity(Identity::from_pem(bundle.as_bytes()).unwrap())
            }
        };
        client
            .build()
            .unwrap()
            .post(format!("https://localhost:{}/generate", server.addr.port()))
            .bearer_auth(&token)
            .body(r#"{"prompt": "The", "max_tokens": 1}"#)
            .send()
    };
    assert_eq!(as_workload(Some(GATEWAY)).await.unwrap().status(), 200);
    assert_eq!(as_workload(Some(OUTSIDER)).await.unwrap().status(), 403);
    assert!(as_workload(None).await.is_err());
}

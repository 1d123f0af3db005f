//! The example `oidc_login` logs in at a real provider and asks the example `generate`: both as processes,
//! and a browser that is played here.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod jwt_idp_support;
mod server;
mod support;

use std::{collections::HashMap, process::Stdio};

use axum::{Json, Router, routing::get};
use jwt_idp_support::Idp;
use reqwest::{Client, StatusCode, Url, redirect::Policy};
use serde_json::{Value, json};
use server::Server;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStderr, Command},
};

const API: &str = "https://rs.example/es256";

/// The example, which has printed the address for the browser.
struct Login {
    child: Child,
    errors: Lines<BufReader<ChildStderr>>,
    address: Url,
}

/// What it printed until it ended.
#[derive(Debug)]
struct Ended {
    success: bool,
    out: String,
    errors: String,
}

impl Login {
    async fn start(issuer: &str, more: &[&str]) -> Self {
        let mut child = command(issuer, more).spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
        loop {
            let line = errors.next_line().await.unwrap().expect("it prints an address");
            if line.starts_with("http") {
                return Self { child, errors, address: line.parse().unwrap() };
            }
        }
    }

    /// With what the API of the tests needs.
    async fn for_api(idp: &Idp, more: &[&str]) -> Self {
        let usual = ["--resource", API, "--scope", "openid llm:infer"];
        Self::start(&idp.issuer, &[&usual, more].concat()).await
    }

    fn parameter(&self, name: &str) -> String {
        parameter(&self.address, name).unwrap_or_else(|| panic!("no {name} in {}", self.address))
    }

    /// Where the provider sends the browser once it has logged in.
    async fn log_in(&self) -> Url {
        let back = self.parameter("redirect_uri");
        let mut cookies = HashMap::new();
        let mut url = self.address.clone();
        for _ in 0..12 {
            let jar: Vec<String> = cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let request = browser().get(url.clone()).header("cookie", jar.join("; "));
            let answer = request.send().await.unwrap();
            for cookie in answer.headers().get_all("set-cookie") {
                let cookie = cookie.to_str().unwrap().split(';').next().unwrap();
                let (name, value) = cookie.split_once('=').unwrap();
                cookies.insert(name.to_owned(), value.to_owned());
            }
            let next = answer.headers().get("location").expect("the provider sends it on");
            url = url.join(next.to_str().unwrap()).unwrap();
            if url.as_str().starts_with(&back) {
                return url;
            }
        }
        panic!("the provider does not send the browser back");
    }

    async fn ended(mut self) -> Ended {
        let mut errors = Vec::new();
        while let Some(line) = self.errors.next_line().await.unwrap() {
            errors.push(line);
        }
        let mut out = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
        let success = self.child.wait().await.unwrap().success();
        Ended { success, out, errors: errors.join("\n") }
    }
}

impl Ended {
    #[track_caller]
    fn assert_refused(&self, expected: &[&str]) {
        assert!(!self.success && self.out.is_empty(), "{self:?}");
        for expected in expected {
            assert!(self.errors.contains(expected), "{expected:?} is not in: {}", self.errors);
        }
    }

    /// Every JWT begins like this.
    #[track_caller]
    fn assert_keeps_secrets(&self, code: &str) {
        let all = format!("{}{}", self.out, self.errors);
        assert!(!all.contains("eyJ") && !all.contains(code), "{all}");
    }
}

fn command(issuer: &str, more: &[&str]) -> Command {
    let mut command = Command::from(server::example("oidc_login"));
    command
        .args(["--issuer", issuer, "--client-id", "spa", "--insecure-http-loopback"])
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// What it says when it ends without having printed an address.
async fn refusal(issuer: &str, more: &[&str]) -> Ended {
    let output = command(issuer, more).args(["--timeout", "1"]).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ended = Ended {
        success: output.status.success(),
        out: text(output.stdout),
        errors: text(output.stderr),
    };
    assert!(!ended.errors.contains("browser"), "{ended:?}");
    ended
}

fn browser() -> Client {
    Client::builder().no_proxy().redirect(Policy::none()).build().unwrap()
}

fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// The same redirect with one parameter changed, or taken away.
fn with(url: &Url, name: &str, value: Option<&str>) -> Url {
    let mut changed = url.clone();
    let others = url.query_pairs().filter(|(key, _)| key != name);
    changed.query_pairs_mut().clear().extend_pairs(others);
    if let Some(value) = value {
        changed.query_pairs_mut().append_pair(name, value);
    }
    changed
}

async fn visit(url: &Url) -> (StatusCode, String) {
    let answer = browser().get(url.clone()).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

/// The guarded server, which finds the provider's keys by itself.
fn guarded(idp: &Idp, more: &[&str]) -> (Server, String) {
    let usual = ["--issuer", &idp.issuer, "--audience", API, "--insecure-http-loopback"];
    let server = Server::start(&[&usual, more].concat());
    let url = format!("http://{}/generate", server.addr);
    (server, url)
}

async fn tokens_generated(server: &Server) -> u64 {
    let metrics = visit(&format!("http://{}/metrics", server.addr).parse().unwrap()).await.1;
    let count = metrics.lines().find_map(|line| line.strip_prefix("generate_tokens_total "));
    count.map_or(0, |count| count.parse().unwrap())
}

/// A provider of which there is nothing but these metadata, at this path.
async fn provider(path: &str, metadata: impl FnOnce(&str) -> Value) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let metadata = metadata(&issuer);
    let app = Router::new().route(path, get(async move || Json(metadata)));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    issuer
}

fn metadata(issuer: &str) -> Value {
    json!({
        "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
    })
}

#[tokio::test]
async fn the_answer_of_the_model_comes_out() {
    let Some(idp) = Idp::start() else { return };
    let (server, url) = guarded(&idp, &["--require-scope", "llm:infer"]);
    let login = Login::for_api(&idp, &["--url", &url, "--prompt", "The lamp"]).await;
    assert_eq!(login.parameter("response_type"), "code");
    assert_eq!(login.parameter("code_challenge_method"), "S256");
    assert_eq!(login.parameter("resource"), API);
    assert_eq!(login.parameter("scope"), "openid llm:infer");
    assert_eq!(tokens_generated(&server).await, 0);

    let back = login.log_in().await;
    let (status, page) = visit(&back).await;
    assert_eq!(status, 200);
    assert!(page.contains("close this window"), "{page}");
    let ended = login.ended().await;
    assert!(ended.success, "{ended:?}");
    assert!(!ended.out.trim().is_empty() && !ended.out.contains("finish_reason"), "{ended:?}");
    assert!(tokens_generated(&server).await > 0);
    ended.assert_keeps_secrets(&parameter(&back, "code").unwrap());
}

#[tokio::test]
async fn a_redirect_with_a_wrong_state_is_refused_and_changes_nothing() {
    let Some(idp) = Idp::start() else { return };
    let (server, url) = guarded(&idp, &[]);
    let login = Login::for_api(&idp, &["--url", &url]).await;
    let back = login.log_in().await;
    let state = login.parameter("state");
    let mut twice = back.clone();
    twice.query_pairs_mut().append_pair("state", &state);
    let mut two_codes = back.clone();
    two_codes.query_pairs_mut().append_pair("code", "another");
    for wrong in [
        with(&back, "state", Some("guessed")),
        with(&back, "state", Some(&state[1..])),
        with(&back, "state", Some("")),
        with(&back, "state", None),
        with(&with(&back, "state", Some("guessed")), "error", Some("access_denied")),
        twice,
        two_codes,
    ] {
        assert_eq!(visit(&wrong).await.0, 400, "{wrong}");
    }
    assert_eq!(tokens_generated(&server).await, 0);
    assert_eq!(visit(&back).await.0, 200);
    let ended = login.ended().await;
    assert!(ended.success, "{ended:?}");
    assert_eq!(ended.errors.matches("without the right state").count(), 7, "{ended:?}");
    ended.assert_keeps_secrets(&parameter(&back, "code").unwrap());
}

#[tokio::test]
async fn a_redirect_that_names_another_issuer_or_none_is_refused() {
    let Some(idp) = Idp::start() else { return };
    for (issuer, expected) in
        [(Some("https://evil.example"), "another issuer"), (None, "does not name its issuer")]
    {
        let login = Login::for_api(&idp, &[]).await;
        let back = login.log_in().await;
        assert_eq!(parameter(&back, "iss").as_ref(), Some(&idp.issuer));
        assert_eq!(visit(&with(&back, "iss", issuer)).await.0, 200);
        let ended = login.ended().await;
        ended.assert_refused(&[expected]);
        ended.assert_keeps_secrets(&parameter(&back, "code").unwrap());
    }
}

#[tokio::test]
async fn what_the_provider_refuses_is_said() {
    let Some(idp) = Idp::start() else { return };
    // In the redirect: this provider's user always says yes, so it is put there.
    let login = Login::for_api(&idp, &[]).await;
    let back = with(&login.log_in().await, "code", None);
    let back = with(&back, "error", Some("access_denied"));
    visit(&with(&back, "error_description", Some("Not \u{1b}[31mtoday"))).await;
    login.ended().await.assert_refused(&["the provider refused: access_denied: Not  [31mtoday"]);
    // And at the token endpoint.
    let login = Login::for_api(&idp, &[]).await;
    let back = login.log_in().await;
    visit(&with(&back, "code", Some("made-up"))).await;
    let ended = login.ended().await;
    ended.assert_refused(&["the provider refused the code: invalid_grant"]);
    ended.assert_keeps_secrets("made-up");
}

#[tokio::test]
async fn an_issuer_whose_metadata_name_another_is_refused() {
    let other = provider("/.well-known/openid-configuration", |_| metadata("https://idp.example"));
    refusal(&other.await, &[]).await.assert_refused(&["another issuer, https://idp.example"]);
    let Some(idp) = Idp::start() else { return };
    let named = idp.issuer.replace("127.0.0.1", "localhost");
    for alias in [format!("{}/", idp.issuer), named] {
        let ended = refusal(&alias, &[]).await;
        ended.assert_refused(&["another issuer", &idp.issuer]);
    }
}

#[tokio::test]
async fn metadata_are_found_where_rfc_8414_puts_them() {
    let path = "/.well-known/oauth-authorization-server/tenant";
    let tenant = |origin: &str| format!("{origin}/tenant");
    let issuer = tenant(&provider(path, |origin| metadata(&tenant(origin))).await);
    let login = Login::start(&issuer, &["--redirect-port", "0"]).await;
    assert_eq!(login.address.path(), "/tenant/authorize");
}

#[tokio::test]
async fn providers_that_are_not_safe_are_refused() {
    let well_known = "/.well-known/openid-configuration";
    let nowhere = provider("/elsewhere", metadata).await;
    refusal(&nowhere, &[]).await.assert_refused(&["404", "oauth-authorization-server"]);
    let plain = provider(well_known, |issuer| {
        let mut metadata = metadata(issuer);
        metadata["code_challenge_methods_supported"] = json!(["plain"]);
        metadata
    });
    refusal(&plain.await, &[]).await.assert_refused(&["PKCE"]);
    for endpoint in ["authorization_endpoint", "token_endpoint"] {
        let unsafe_one = provider(well_known, |issuer| {
            let mut metadata = metadata(issuer);
            metadata[endpoint] = "http://idp.example/".into();
            metadata
        });
        refusal(&unsafe_one.await, &[]).await.assert_refused(&[endpoint, "https"]);
    }
    refusal("http://idp.example", &[]).await.assert_refused(&["--issuer", "https"]);
    let remote = refusal("https://idp.example", &["--url", "http://llm.example/generate"]).await;
    remote.assert_refused(&["--url", "https"]);

    let local = provider(well_known, metadata).await;
    let arguments = ["--issuer", &local, "--client-id", "spa", "--timeout", "1"];
    let output = Command::from(server::example("oidc_login")).args(arguments).output();
    let output = output.await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("--insecure-http-loopback"), "{said}");
}

#[tokio::test]
async fn a_challenge_is_told_in_readable_form() {
    let Some(idp) = Idp::start() else { return };
    let cases: [(&[&str], &[&str]); 2] = [
        (
            &["--require-scope", "llm:infer", "--require-scope", "llm:admin"],
            &["403", "error: insufficient_scope", "needs the scope: llm:infer llm:admin"],
        ),
        (&["--audience", "https://other.example"], &["401", "error: invalid_token", "because: "]),
    ];
    for (demands, expected) in cases {
        let issuer = ["--issuer", &idp.issuer, "--insecure-http-loopback"];
        let audience: &[&str] =
            if demands.contains(&"--audience") { &[] } else { &["--audience", API] };
        let server = Server::start(&[&issuer, audience, demands].concat());
        let url = format!("http://{}/generate", server.addr);
        let login = Login::for_api(&idp, &["--url", &url]).await;
        let back = login.log_in().await;
        visit(&back).await;
        let ended = login.ended().await;
        ended.assert_refused(expected);
        ended.assert_refused(&["asks for: Bearer"]);
        ended.assert_keeps_secrets(&parameter(&back, "code").unwrap());
        assert_eq!(tokens_generated(&server).await, 0);
    }
}

#[tokio::test]
async fn the_token_is_printed_only_when_asked_for() {
    let Some(idp) = Idp::start() else { return };
    let login = Login::for_api(&idp, &["--print-token"]).await;
    visit(&login.log_in().await).await;
    let ended = login.ended().await;
    assert!(ended.success, "{ended:?}");
    let (server, url) = guarded(&idp, &["--require-scope", "llm:infer"]);
    let request = browser().post(url).bearer_auth(ended.out.trim());
    let answer = request.body(r#"{"prompt": "The", "max_tokens": 1}"#).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    drop(server);
}

#[tokio::test]
async fn a_browser_that_does_not_come_back_is_not_waited_for() {
    let issuer = provider("/.well-known/openid-configuration", metadata).await;
    let login = Login::start(&issuer, &["--timeout", "1"]).await;
    login.ended().await.assert_refused(&["did not come back in 1s"]);
}

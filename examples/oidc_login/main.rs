//! Logs in at an OpenID provider and asks a guarded server something: a public client, by authorization
//! code with PKCE (RFC 6749, RFC 7636), as RFC 8252 has it for programs without a browser of their own.
//!
//! ```sh
//! cargo run --example generate --features full -- \
//!     --issuer https://login.example/realms/prod --audience https://llm.example
//! cargo run --example oidc_login --features full -- \
//!     --issuer https://login.example/realms/prod --resource https://llm.example --client-id cli
//! ```
//!
//! It prints an address to open in a browser, and waits on this machine for the browser to come back.
//! Register the client as a public or native one, with the redirect `http://127.0.0.1/cb`; providers that
//! do not ignore the port of such a redirect (RFC 8252, section 7.3) need `--redirect-port` too.

mod challenge;
mod http_client;
mod provider;
mod redirect;

use std::{
    error::Error,
    io::{self, Write},
    iter,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use http::{HeaderValue, Request, StatusCode, header};
use oauth2::{
    AccessToken, ClientId, CsrfToken, PkceCodeChallenge, RedirectUrl, RequestTokenError, Scope,
    TokenResponse,
    basic::{BasicClient, BasicErrorResponse, BasicTokenType},
};
use palisade::BoxError;
use reqwest::Client;
use serde_json::{Value, json};

use crate::{
    provider::Provider,
    redirect::{Expected, Listener},
};

/// Logs in at an OpenID provider and asks a guarded server something.
#[derive(Debug, Parser)]
#[command(name = "oidc_login")]
struct Arguments {
    /// The provider's issuer URL, as its metadata and tokens have it to the byte.
    #[arg(long, value_name = "URL")]
    issuer: String,

    /// The client's id at the provider.
    #[arg(long, value_name = "ID")]
    client_id: String,

    /// The scopes to ask for, with spaces between them or each with a flag of its own.
    #[arg(long, value_name = "SCOPES", value_delimiter = ' ')]
    scope: Vec<String>,

    /// What the token is for, the guarded server's audience (RFC 8707).
    #[arg(long, value_name = "URI")]
    resource: Option<String>,

    /// Where to ask: `https://`, or on this machine `http://`.
    #[arg(long, default_value = "http://127.0.0.1:8080/generate")]
    url: String,

    /// What to ask.
    #[arg(long, value_name = "TEXT", default_value = "The keeper of the lighthouse")]
    prompt: String,

    /// The port of 127.0.0.1 that the browser comes back to. By default any that is free.
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    redirect_port: u16,

    /// How long to wait for the browser.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,

    /// Talks to a provider on this machine over `http://` too.
    #[arg(long)]
    insecure_http_loopback: bool,

    /// Prints the access token, and ends without asking. Whoever sees it can use it.
    #[arg(long)]
    print_token: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("oidc_login: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), BoxError> {
    provider::check_url("--url", &arguments.url, true)?;
    let client = http_client::new()?;
    let found = Provider::discover(&client, &arguments.issuer, arguments.insecure_http_loopback);
    let token = log_in(&client, found.await?, arguments).await?;
    let printed = if arguments.print_token {
        token.into_secret()
    } else {
        ask(&client, arguments, &token).await?
    };
    Ok(writeln!(io::stdout(), "{printed}")?)
}

/// The authorization code flow, from the address that the browser is sent to, to the token.
async fn log_in(
    client: &Client,
    provider: Provider,
    arguments: &Arguments,
) -> Result<AccessToken, BoxError> {
    let listener = Listener::bind(arguments.redirect_port).await?;
    let oauth = BasicClient::new(ClientId::new(arguments.client_id.clone()))
        .set_auth_uri(provider.authorization_endpoint)
        .set_token_uri(provider.token_endpoint)
        .set_redirect_uri(RedirectUrl::new(listener.uri())?);
    let (pkce_challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let scopes = arguments.scope.iter().filter(|scope| !scope.is_empty());
    let mut request = oauth
        .authorize_url(CsrfToken::new_random)
        .add_scopes(scopes.cloned().map(Scope::new))
        .set_pkce_challenge(pkce_challenge);
    if let Some(resource) = &arguments.resource {
        request = request.add_extra_param("resource", resource);
    }
    let (url, state) = request.url();
    eprintln!("Open this address in a browser:\n\n{url}\n");

    let expected = Expected {
        state,
        issuer: provider.issuer,
        is_issuer_promised: provider.authorization_response_iss_parameter_supported,
    };
    let limit = Duration::from_secs(arguments.timeout);
    let code = tokio::time::timeout(limit, listener.code(expected)).await;
    let code = code.map_err(|_| format!("the browser did not come back in {limit:?}"))??;

    let mut exchange = oauth.exchange_code(code).set_pkce_verifier(verifier);
    if let Some(resource) = &arguments.resource {
        exchange = exchange.add_extra_param("resource", resource);
    }
    let send = |request| http_client::send(client, request);
    let answer = exchange.request_async(&send).await.map_err(not_exchanged)?;
    if *answer.token_type() != BasicTokenType::Bearer {
        return Err("the provider gave a token that is no bearer token".into());
    }
    Ok(answer.access_token().clone())
}

/// What the server answers to the prompt.
async fn ask(
    client: &Client,
    arguments: &Arguments,
    token: &AccessToken,
) -> Result<String, BoxError> {
    let mut authorization = HeaderValue::try_from(format!("Bearer {}", token.secret()))
        .map_err(|_| "the provider gave a token that no header can carry")?;
    authorization.set_sensitive(true);
    let request = Request::post(&arguments.url)
        .header(header::AUTHORIZATION, authorization)
        .header(header::CONTENT_TYPE, "application/json")
        .body(json!({"prompt": arguments.prompt}).to_string().into_bytes())?;
    let answer = http_client::send(client, request)
        .await
        .map_err(|error| format!("{}: {}", arguments.url, with_causes(&error)))?;
    let text = String::from_utf8_lossy(answer.body());
    match answer.status() {
        status if status.is_success() => Ok(generated(&text)),
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            let challenges = answer.headers().get_all(header::WWW_AUTHENTICATE);
            let challenges = challenges.iter().filter_map(|value| value.to_str().ok());
            let told: String = challenges.map(challenge::readable).collect();
            Err(format!("the server refused the token, with {status}{told}").into())
        }
        status => Err(format!("the server answered {status}: {}", printable(&text)).into()),
    }
}

/// The text of an answer of `/generate`, or else all of it.
fn generated(body: &str) -> String {
    let answer: Value = serde_json::from_str(body).unwrap_or_default();
    let text = ["text", "generated_text"].iter().find_map(|name| answer.get(name)?.as_str());
    text.unwrap_or(body).to_owned()
}

/// Neither the code nor a part of the answer may be in it, as they are in an error's debug output.
fn not_exchanged(error: RequestTokenError<io::Error, BasicErrorResponse>) -> BoxError {
    match error {
        RequestTokenError::ServerResponse(refusal) => {
            let why = refusal.error_description().map(|text| format!(": {text}"));
            let why = why.unwrap_or_default();
            printable(&format!("the provider refused the code: {}{why}", refusal.error().as_ref()))
                .into()
        }
        RequestTokenError::Request(error) => {
            format!("the provider's token endpoint: {}", with_causes(&error)).into()
        }
        _ => "the provider's token endpoint did not answer with a token".into(),
    }
}

/// An HTTP client's errors say what failed, and leave why to what is behind them.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes =
        iter::successors(error.source(), |cause: &&(dyn Error + 'static)| (*cause).source());
    let mut text = error.to_string();
    for cause in causes.map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Without what would steer the terminal: others wrote it.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

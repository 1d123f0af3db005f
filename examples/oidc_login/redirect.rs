//! What the browser comes back with: RFC 8252, section 7.3.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, Uri, header};
use oauth2::{AuthorizationCode, CsrfToken, url::form_urlencoded};
use palisade::BoxError;
use subtle::ConstantTimeEq;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

use crate::printable;

/// Listens on 127.0.0.1 alone.
pub(crate) struct Listener {
    tcp: TcpListener,
    port: u16,
}

/// What a redirect must say to be the answer to our request.
pub(crate) struct Expected {
    pub(crate) state: CsrfToken,
    pub(crate) issuer: String,
    pub(crate) is_issuer_promised: bool,
}

type Outcome = Result<AuthorizationCode, BoxError>;

impl Listener {
    pub(crate) async fn bind(port: u16) -> Result<Self, BoxError> {
        let tcp = TcpListener::bind(("127.0.0.1", port)).await;
        let tcp = tcp.map_err(|error| format!("127.0.0.1:{port}: {error}"))?;
        Ok(Self { port: tcp.local_addr()?.port(), tcp })
    }

    pub(crate) fn uri(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.port)
    }

    /// Waits for the redirect. Anybody can send something here: what does not have our `state` is
    /// refused and changes nothing.
    pub(crate) async fn code(self, expected: Expected) -> Outcome {
        let (send, mut outcomes) = mpsc::channel(1);
        let app = Router::new().route(PATH, get(receive)).with_state(Arc::new((expected, send)));
        let (end, ended) = oneshot::channel::<()>();
        let server = axum::serve(self.tcp, app).with_graceful_shutdown(async { drop(ended.await) });
        let server = tokio::spawn(server.into_future());
        let outcome = outcomes.recv().await;
        drop(end);
        // The page is still to be sent; a connection that says nothing is not waited for.
        let _ = tokio::time::timeout(FAREWELL, server).await;
        outcome.unwrap_or_else(|| Err("the redirect can't be received".into()))
    }
}

async fn receive(
    State(waiting): State<Arc<(Expected, mpsc::Sender<Outcome>)>>,
    uri: Uri,
) -> Response {
    let (expected, outcomes) = &*waiting;
    let Some(outcome) = expected.outcome(uri.query().unwrap_or_default()) else {
        eprintln!("oidc_login: a redirect without the right state was refused");
        return page(StatusCode::BAD_REQUEST, "This is not the login that is awaited.");
    };
    // A browser may come twice, by a reload. The first time counts.
    let _ = outcomes.try_send(outcome);
    page(StatusCode::OK, "You can close this window. The terminal has the rest.")
}

impl Expected {
    /// `None` for what is no answer to our request.
    fn outcome(&self, query: &str) -> Option<Outcome> {
        let mut parameters = HashMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            // None may come twice: RFC 6749, section 3.1.
            if parameters.insert(name.into_owned(), value.into_owned()).is_some() {
                return None;
            }
        }
        let state = parameters.remove("state")?;
        if !bool::from(state.as_bytes().ct_eq(self.state.secret().as_bytes())) {
            return None;
        }
        Some(self.code(parameters))
    }

    fn code(&self, mut parameters: HashMap<String, String>) -> Outcome {
        // Another provider's answer must not pass for this one's: RFC 9207, section 2.4.
        match parameters.remove("iss") {
            Some(issuer) if issuer != self.issuer => {
                return Err("the redirect is of another issuer".into());
            }
            None if self.is_issuer_promised => {
                return Err("the redirect does not name its issuer, as its metadata promise".into());
            }
            _ => {}
        }
        if let Some(error) = parameters.remove("error") {
            let why = parameters.remove("error_description").map(|text| format!(": {text}"));
            let text = format!("the provider refused: {error}{}", why.unwrap_or_default());
            return Err(printable(&text).into());
        }
        let code = parameters.remove("code").ok_or("the redirect has no code")?;
        Ok(AuthorizationCode::new(code))
    }
}

/// A page that keeps the address, with the code in it, to itself.
fn page(status: StatusCode, text: &'static str) -> Response {
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
        (header::CONNECTION, "close"),
    ];
    let html = format!("<!doctype html><title>Login</title><p>{text}</p>\n");
    (status, headers, Html(html)).into_response()
}

const PATH: &str = "/cb";
const FAREWELL: Duration = Duration::from_secs(1);

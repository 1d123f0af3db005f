//! One client: asks, reads the answer's stream, and leaves when nothing comes.

use std::{convert::Infallible, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::StreamExt as _;
use palisade::identity::{Identity, UserIdentity};
use tokio::time::{Instant, sleep_until, timeout};
use tower::{Service, ServiceExt as _};

use crate::load::Ask;

/// What came of a request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub ask: Ask,
    /// From the request to the first token.
    pub first: Option<Duration>,
    /// Tokens that came, the time from the first to the last, and the longest time between two.
    pub tokens: usize,
    pub streamed: Duration,
    pub gap: Duration,
    pub end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Served,
    Refused,
    Left,
}

/// A client leaves when no token has come for so long.
const PATIENCE: Duration = Duration::from_secs(6);

/// Sends `ask` when its time has come after `begun`.
pub async fn send<S>(service: S, ask: Ask, begun: Instant) -> Seen
where
    S: Service<axum::http::Request<Body>, Response = Response, Error = Infallible>,
{
    let at = begun + ask.at;
    sleep_until(at).await;
    let mut seen = Seen {
        first: None,
        tokens: 0,
        streamed: Duration::ZERO,
        gap: Duration::ZERO,
        end: End::Left,
        ask,
    };
    let request = request(&seen.ask);
    let Ok(answer) = timeout(PATIENCE, service.oneshot(request)).await else { return seen };
    let answer = answer.unwrap_or_else(|never| match never {});
    if !answer.status().is_success() {
        seen.end = End::Refused;
        return seen;
    }
    let mut frames = answer.into_body().into_data_stream();
    let mut last = at;
    loop {
        match timeout(PATIENCE, frames.next()).await {
            Ok(Some(Ok(frame))) => {
                let (tokens, now) = (tokens(&frame), Instant::now());
                if tokens == 0 {
                    continue;
                }
                match seen.first {
                    None => seen.first = Some(now - at),
                    Some(_) => {
                        seen.streamed += now - last;
                        seen.gap = seen.gap.max(now - last);
                    }
                }
                (seen.tokens, last) = (seen.tokens + tokens, now);
            }
            Ok(None) => {
                seen.end = End::Served;
                return seen;
            }
            Ok(Some(Err(_))) | Err(_) => return seen,
        }
    }
}

/// As JwtAuthLayer would leave it.
pub fn request(ask: &Ask) -> axum::http::Request<Body> {
    let body = format!(
        r#"{{"model":"slow","prompt":"{}","max_tokens":{},"stream":true}}"#,
        "a".repeat(ask.prompt),
        ask.answer
    );
    let organisation = if ask.floods { "flooders" } else { &ask.account };
    let user = UserIdentity::asserted("https://login.example", &ask.account)
        .with_claims(&format!(r#"{{"tier":"{}","org_id":"{organisation}"}}"#, ask.tier));
    axum::http::Request::post("/v1/completions")
        .header("content-type", "application/json")
        .header("content-length", body.len())
        .extension(Identity::asserted(user))
        .body(Body::from(body))
        .expect("a request")
}

/// Tokens in a piece of an event stream. One is never in two frames: the server sends whole events.
fn tokens(frame: &Bytes) -> usize {
    const TOKEN: &[u8] = br#""text":"a"#;
    frame.windows(TOKEN.len()).filter(|window| *window == TOKEN).count()
}

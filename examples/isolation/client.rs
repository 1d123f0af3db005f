//! A caller: asks, waits, reads, and leaves when nothing comes.

use std::{
    mem,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use palisade::identity::{Identity, UserIdentity};
use tokio::time::{Instant, sleep_until, timeout_at};
use tower::ServiceExt as _;

use crate::{
    engine::{AnswerLength, BYTES_PER_TOKEN, Gauge},
    guards::Front,
    workload::Ask,
};

/// For so long an honest user waits for the first token. Who floods has time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What became of a request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) ask: Ask,
    /// When each token came, in microseconds.
    pub(crate) tokens: Vec<u32>,
    pub(crate) finished: bool,
}

/// The calls of a run, each added when it is over, or at the end of the run.
pub(crate) type Log = Arc<Mutex<Vec<Call>>>;

/// Writes a call down, whatever becomes of its task.
struct Record {
    call: Call,
    log: Log,
}

impl Drop for Record {
    fn drop(&mut self) {
        let call = Call { tokens: mem::take(&mut self.call.tokens), ..self.call };
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }
}

/// Makes every request in its time. Who abuses drops all that he has at `leaves`.
pub(crate) async fn all(
    asks: Vec<Ask>,
    front: Front,
    gauge: Arc<Gauge>,
    log: Log,
    leaves: Duration,
) {
    let origin = Instant::now();
    for ask in asks {
        sleep_until(origin + ask.at).await;
        let call = Call { ask, tokens: Vec::new(), finished: false };
        let record = Record { call, log: Arc::clone(&log) };
        let (front, gauge) = (front.clone(), Arc::clone(&gauge));
        tokio::spawn(async move {
            let patience = if ask.abuse { origin + leaves } else { origin + ask.at + PATIENCE };
            let asked = call_once(record, front, &gauge, patience);
            if ask.abuse {
                let _ = timeout_at(patience, asked).await;
            } else {
                asked.await;
            }
        });
    }
}

async fn call_once(mut record: Record, front: Front, gauge: &Gauge, patience: Instant) {
    let Ok(Ok(answer)) = timeout_at(patience, front.oneshot(request(&record.call.ask))).await
    else {
        return;
    };
    if !answer.status().is_success() {
        return;
    }
    let mut body = answer.into_body();
    let Ok(mut frame) = timeout_at(patience, body.frame()).await else { return };
    while let Some(Ok(_)) = frame {
        record.call.tokens.push(gauge.now() as u32);
        frame = body.frame().await;
    }
    record.call.finished = frame.is_none();
}

fn request(ask: &Ask) -> Request<Full<Bytes>> {
    static TEXT: [u8; 8_000 * BYTES_PER_TOKEN as usize] = [b'a'; 8_000 * BYTES_PER_TOKEN as usize];
    let bytes = ask.prompt as usize * BYTES_PER_TOKEN as usize;
    let prompt = Bytes::from_static(TEXT.get(..bytes).unwrap_or(&TEXT));
    let mut request = Request::new(Full::new(prompt));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static("/generate_stream");
    request.headers_mut().insert(http::header::CONTENT_LENGTH, bytes.into());
    let user = UserIdentity::asserted(
        "https://login.example",
        format!("{}-{}", ask.tier.name(), ask.account),
    );
    // In the place of JwtAuthLayer.
    let user = user.with_claims(&format!(r#"{{"tier":"{}"}}"#, ask.tier.name()));
    let extensions = request.extensions_mut();
    extensions.insert(Identity::asserted(user));
    extensions.insert(SocketAddr::from((ask.network, 40_000)));
    extensions.insert(ask.tier);
    extensions.insert(AnswerLength(ask.answer));
    request
}

//! Servers to ask, and guarded services that ask them.

use std::{
    convert::Infallible,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, response::IntoResponse, routing::post};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use palisade::{
    Rejection,
    body::RequestBody,
    prompt_guard::{
        Action, AsyncDetector, AsyncLimits, OnUnavailable, PromptGuardLayer,
        PromptGuardLayerBuilder, Verdict, remote::RemoteServer,
    },
};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// What a server was asked: the headers, and the JSON.
pub(crate) type Asked = (HeaderMap, Value);

/// A server on a free loopback port that keeps what it was asked. It stops with the test's runtime.
pub(crate) struct Served {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Served {
    /// At this path, with these answers.
    pub(crate) async fn at<F, A, R>(path: &str, answer: F) -> Self
    where
        F: Fn(Value) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = R> + Send + 'static,
        R: IntoResponse,
    {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let keep = Arc::clone(&asked);
        let handler = post(move |headers: HeaderMap, body: Bytes| {
            let body: Value = serde_json::from_slice(&body).unwrap();
            keep.lock().unwrap().push((headers, body.clone()));
            let answer = answer.clone();
            async move { answer(body).await }
        });
        let app = Router::new().route(path, handler);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, asked }
    }

    /// The same, at once.
    pub(crate) async fn told<R: IntoResponse>(
        path: &str,
        answer: impl Fn(&Value) -> R + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::at(path, move |asked| {
            let answer = answer(&asked).into_response();
            async move { answer }
        })
        .await
    }

    pub(crate) fn server(&self) -> RemoteServer {
        RemoteServer::at(&self.url)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// The bodies alone.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.asked().into_iter().map(|(_, body)| body).collect()
    }
}

pub(crate) fn error(status: u16, body: Value) -> axum::response::Response {
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}

/// What became of a prompt.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    pub(crate) code: Option<&'static str>,
    pub(crate) verdict: Verdict,
    /// What reached the model.
    pub(crate) body: Option<Value>,
}

impl Outcome {
    /// Rule, segment and span of each finding.
    pub(crate) fn found(&self) -> Vec<(&str, usize, Option<std::ops::Range<usize>>)> {
        let findings = self.verdict.findings.iter();
        findings.map(|found| (&*found.rule, found.segment, found.span.clone())).collect()
    }

    pub(crate) fn is_unavailable(&self) -> bool {
        (self.code, self.status) == (Some("guard_unavailable"), 503)
    }
}

/// A guard with this detector alone, which is waited for long enough and must be heard.
pub(crate) fn guard(detector: impl AsyncDetector, action: Action) -> PromptGuardLayerBuilder {
    let limits = AsyncLimits::within(LIMIT).without_breaker();
    PromptGuardLayer::builder().async_detector(detector, action, limits, OnUnavailable::Refuse)
}

/// Asks a guarded service with this body.
pub(crate) async fn ask(guard: &PromptGuardLayer, body: &Value) -> Outcome {
    let echo = service_fn(|request: Request<RequestBody<Full<Bytes>>>| async move {
        Ok::<_, Infallible>(Response::new(request.into_body()))
    });
    let request = Request::post("/v1/chat/completions").body(Full::from(body.to_string()));
    let answer = guard.layer(echo).oneshot(request.unwrap()).await.unwrap();
    let (head, body) = answer.into_parts();
    let code = head.extensions.get::<Rejection>().map(Rejection::code);
    let bytes = body.collect().await.unwrap().to_bytes();
    Outcome {
        status: head.status.as_u16(),
        code,
        verdict: head.extensions.get::<Verdict>().unwrap().clone(),
        body: code.is_none().then(|| serde_json::from_slice(&bytes).unwrap()),
    }
}

/// The same of one message.
pub(crate) async fn say(guard: &PromptGuardLayer, text: &str) -> Outcome {
    ask(guard, &chat(&[("user", text)])).await
}

pub(crate) fn chat(messages: &[(&str, &str)]) -> Value {
    let messages: Vec<_> =
        messages.iter().map(|(role, text)| json!({"role": role, "content": text})).collect();
    json!({"messages": messages})
}

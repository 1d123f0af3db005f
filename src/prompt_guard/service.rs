//! The service, and what is decided before a body is read.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body::Body;
use tower_service::Service;

use super::{
    PromptGuardFuture, ScannedBody, Unseen,
    head::{no_prompt_in_query, readable_type},
    layer::Config,
    policies::Policy,
    read::Reader,
    turn::Turn,
};
use crate::{
    BoxError,
    body::{RequestBody, ResponseBody},
    identity::{Identity, Stage},
    reject::{Rejection, RejectionKind},
    route::{Endpoint, Route},
};

/// The service of [`PromptGuardLayer`](super::PromptGuardLayer).
#[derive(Clone, Debug)]
pub struct PromptGuard<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> PromptGuard<S> {
    pub(crate) fn new(inner: S, config: Arc<Config>) -> Self {
        Self { inner, config }
    }
}

impl<S, B, R> Service<Request<B>> for PromptGuard<S>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<ScannedBody<R>>>;
    type Error = S::Error;
    type Future = PromptGuardFuture<S, B, R>;

    /// Always: a clone is driven to readiness once the body is read, so that a slow upload pins nothing.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (config, inner) = (Arc::clone(&self.config), self.inner.clone());
        // HTTP/2 has bodies that no header tells of.
        let route = match request.body().is_end_stream() {
            true => config.routes.classify(&request),
            false => config.routes.classify_path(&request),
        };
        let Route::Guarded(endpoint) = route else {
            let policy = config.policies.get().otherwise();
            return PromptGuardFuture::exempt(Turn::new(config, policy, None), inner, request);
        };
        let (adapted, endpoint) = config.adapters.of(&request, endpoint);
        let (policy, admitted) = config.admit(endpoint, adapted.is_some(), &mut request);
        let (most, time) = (policy.max_body, Some(config.read_timeout));
        let mut turn = Turn::new(config, policy, Some(endpoint));
        turn.adapted = adapted;
        match admitted {
            Ok(Admitted::Unread) => PromptGuardFuture::unread(turn, inner, request),
            Ok(Admitted::Read) => {
                PromptGuardFuture::read(turn, inner, request, Reader::new(most, time))
            }
            Ok(Admitted::Probe) => {
                PromptGuardFuture::read(turn, inner, request, Reader::new(0, time))
            }
            Err(rejection) => PromptGuardFuture::refused(turn, rejection),
        }
    }
}

/// What is done with a request that is not refused at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// Passed on with its body unread.
    Unread,
    /// Its body is read.
    Read,
    /// It passes if its body turns out to be empty.
    Probe,
}

impl Config {
    /// The policy that the request is held to, and what is done with it.
    fn admit<B: Body>(
        &self,
        endpoint: Endpoint,
        adapted: bool,
        request: &mut Request<B>,
    ) -> (Arc<Policy>, Result<Admitted, Rejection>) {
        let entered = Identity::enter(request.extensions_mut(), Stage::PromptGuard).map(drop);
        let policies = self.policies.get();
        match entered.and_then(|()| policies.choose(request, endpoint)) {
            Ok(policy) => {
                let admitted = self.admit_by(&policy, endpoint, adapted, request);
                (policy, admitted)
            }
            Err(rejection) => (policies.otherwise(), Err(rejection)),
        }
    }

    fn admit_by<B: Body>(
        &self,
        policy: &Policy,
        endpoint: Endpoint,
        adapted: bool,
        request: &mut Request<B>,
    ) -> Result<Admitted, Rejection> {
        if let Some(strikes) = self.strikes.as_ref().filter(|_| policy.enforced) {
            strikes.check(request.headers(), request.extensions())?;
        }
        policy.inspect(endpoint, adapted, request).or_else(|rejection| {
            request.extensions_mut().insert(policy.excuse(rejection)?);
            Ok(Admitted::Unread)
        })
    }
}

impl Policy {
    fn inspect<B: Body>(
        &self,
        endpoint: Endpoint,
        adapted: bool,
        request: &Request<B>,
    ) -> Result<Admitted, Rejection> {
        if asks_for_another_protocol(request) {
            return self.unknown_endpoint.or(another_protocol);
        }
        let known = !matches!(endpoint, Endpoint::Grpc | Endpoint::Other);
        if known && self.unread == Unseen::Refuse {
            no_prompt_in_query(request.uri())?;
        }
        let size = request.body().size_hint();
        if request.body().is_end_stream() || size.exact() == Some(0) {
            return Ok(Admitted::Unread);
        }
        if endpoint == Endpoint::Grpc && !adapted {
            return self.grpc.or(grpc);
        }
        let stated = content_length(request.headers())?;
        let least = stated.unwrap_or(0).max(size.lower());
        if endpoint == Endpoint::Other && !adapted {
            // Outer layers wrap bodies, and not every wrapper of an empty one says that it is empty.
            let may_be_empty = least == 0 && self.enforced;
            return match self.unknown_endpoint {
                Unseen::Refuse if may_be_empty => Ok(Admitted::Probe),
                unseen => unseen.or(unreadable_endpoint),
            };
        }
        plain_encoding(request.headers())?;
        if !adapted {
            readable_type(request.headers())?;
        }
        if least > self.max_body as u64 {
            return Err(too_large(self.max_body));
        }
        Ok(Admitted::Read)
    }
}

impl Unseen {
    fn or(self, rejection: fn() -> Rejection) -> Result<Admitted, Rejection> {
        match self {
            Self::InsecurePass => Ok(Admitted::Unread),
            Self::Refuse => Err(rejection()),
        }
    }
}

/// A WebSocket, for instance: what comes after has no shape the guard could read. `h2c` is no such
/// thing: clients offer it with ordinary requests.
fn asks_for_another_protocol<B>(request: &Request<B>) -> bool {
    let protocols = request.headers().get_all(header::UPGRADE).into_iter();
    request.method() == Method::CONNECT
        || protocols
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .any(|protocol| !protocol.trim_ascii().eq_ignore_ascii_case(b"h2c"))
}

/// Whether the body is there to be read as it is.
pub(crate) fn plain_encoding(headers: &HeaderMap) -> Result<(), Rejection> {
    let codings = headers.get_all(header::CONTENT_ENCODING).into_iter();
    let plain =
        codings.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).all(|name| {
            let name = name.trim_ascii();
            name.is_empty() || name.eq_ignore_ascii_case(b"identity")
        });
    plain.then_some(()).ok_or_else(|| {
        Rejection::new(
            RejectionKind::Unreadable,
            "unsupported_encoding",
            "The body has a Content-Encoding that is not accepted here. Send it uncompressed.",
        )
    })
}

/// The length that the headers state.
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Rejection> {
    let mut stated = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        let digits = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        let Some(digits) = digits.filter(|digits| !digits.is_empty()) else {
            return Err(bad_length());
        };
        // What doesn't fit is larger than any cap.
        let length = digits.parse().unwrap_or(u64::MAX);
        if stated.replace(length).is_some_and(|before| before != length) {
            return Err(bad_length());
        }
    }
    Ok(stated)
}

pub(crate) fn bad_length() -> Rejection {
    Rejection::new(
        RejectionKind::BadRequest,
        "invalid_request",
        "The body is not as long as its Content-Length says.",
    )
}

pub(crate) fn too_large(cap: usize) -> Rejection {
    Rejection::new(
        RejectionKind::TooLarge,
        "request_too_large",
        format!("The body is larger than {cap} bytes, the most that is accepted."),
    )
}

fn grpc() -> Rejection {
    Rejection::new(
        RejectionKind::Unreadable,
        "unreadable_endpoint",
        "gRPC calls can't be inspected and are not accepted here.",
    )
}

pub(crate) fn unreadable_endpoint() -> Rejection {
    Rejection::new(
        RejectionKind::Unreadable,
        "unreadable_endpoint",
        "Requests with a body are not accepted on this route: it is no endpoint whose prompts can be \
         inspected.",
    )
}

fn another_protocol() -> Rejection {
    Rejection::new(
        RejectionKind::Unreadable,
        "unreadable_endpoint",
        "A change of protocol is not accepted here: what follows can't be inspected.",
    )
}

//! Passes requests on to the server behind, and its answers back, as they come.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Json,
    body::{Body, Bytes, HttpBody},
    http::{
        HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version,
        header::{self, HOST},
        uri::{Authority, PathAndQuery, Scheme},
    },
    response::IntoResponse,
};
use http_body::{Frame, SizeHint};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use palisade::{Identity, connection::peer_addr};
use serde_json::json;
use tower::Service;

/// A service that another server answers.
#[derive(Clone)]
pub(crate) struct Proxy {
    client: Client<HttpConnector, Body>,
    upstream: Authority,
    timeout: Duration,
    live: Arc<AtomicUsize>,
}

impl Proxy {
    /// To the server at `upstream`, which has a host, and has to begin to answer within `timeout`.
    pub(crate) fn new(upstream: &Uri, timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        // A token is a small packet, which must not wait for the next one.
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let upstream = upstream.authority().cloned();
        let upstream = upstream.unwrap_or_else(|| Authority::from_static("localhost"));
        Self { client, upstream, timeout, live: Arc::default() }
    }

    /// How many answers are under way.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    async fn forward(self, mut request: Request<Body>) -> Response<Body> {
        let live = Live::new(&self.live);
        self.readdress(&mut request);
        // Dropped when the client leaves, which closes the connection to the server behind: it stops, too.
        let answer = tokio::time::timeout(self.timeout, self.client.request(request)).await;
        match answer {
            Ok(Ok(answer)) => {
                let (mut parts, inner) = answer.into_parts();
                remove_hop_by_hop(&mut parts.headers);
                Response::from_parts(parts, Body::new(Counted { inner, _live: live }))
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the server behind does not answer");
                failed(StatusCode::BAD_GATEWAY, "The model server can't be reached.")
            }
            Err(_) => failed(StatusCode::GATEWAY_TIMEOUT, "The model server took too long."),
        }
    }

    /// Makes it a request to the server behind, which learns who calls from us alone.
    fn readdress(&self, request: &mut Request<Body>) {
        let host = request.headers().get(HOST).cloned();
        let peer = peer_addr(request.extensions());
        let path = request.uri().path_and_query().cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let uri = Uri::builder().scheme(Scheme::HTTP).authority(self.upstream.clone());
        if let Ok(uri) = uri.path_and_query(path).build() {
            *request.uri_mut() = uri;
        }
        *request.version_mut() = Version::HTTP_11;
        let told = told(request);
        let headers = request.headers_mut();
        remove_hop_by_hop(headers);
        for name in NOT_FOR_UPSTREAM {
            headers.remove(name);
        }
        told.into_iter().for_each(|(name, value)| {
            headers.insert(name, value);
        });
        if let Some(host) = host {
            headers.insert(FORWARDED_HOST, host);
        }
        if let Some(value) = peer.as_ref().and_then(address) {
            headers.insert(FORWARDED_FOR, value);
        }
    }
}

impl Service<Request<Body>> for Proxy {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.forward(request).await) })
    }
}

/// Who calls, for the server behind.
fn told(request: &Request<Body>) -> Vec<(HeaderName, HeaderValue)> {
    let Some(identity) = request.extensions().get::<Identity>() else { return Vec::new() };
    let subject = identity.user().map(|user| user.subject());
    let told = [(SUBJECT, subject), (TIER, identity.tier())];
    let told = told.into_iter().filter_map(|(name, value)| Some((name, value?.parse().ok()?)));
    told.collect()
}

fn address(peer: &SocketAddr) -> Option<HeaderValue> {
    peer.ip().to_string().parse().ok()
}

/// What is meant for this connection alone (RFC 9110, section 7.6.1).
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named = headers.get_all(header::CONNECTION).iter();
    let named: Vec<_> = named
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse::<HeaderName>().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// As FastAPI says what is wrong.
fn failed(status: StatusCode, detail: &str) -> Response<Body> {
    (status, Json(json!({"detail": detail}))).into_response()
}

const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The caller's credentials, which are not for the server behind; what he may not say of himself; and what would have
/// the answer come in an encoding that neither the guard nor the limiter reads.
const NOT_FOR_UPSTREAM: [HeaderName; 11] = [
    HOST,
    header::AUTHORIZATION,
    header::COOKIE,
    header::ACCEPT_ENCODING,
    header::FORWARDED,
    HeaderName::from_static("x-api-key"),
    FORWARDED_FOR,
    FORWARDED_HOST,
    HeaderName::from_static("x-forwarded-proto"),
    SUBJECT,
    TIER,
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const SUBJECT: HeaderName = HeaderName::from_static("x-auth-subject");
const TIER: HeaderName = HeaderName::from_static("x-auth-tier");

/// One of the answers under way.
struct Live(Arc<AtomicUsize>);

impl Live {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer that counts until it has ended.
struct Counted<B> {
    inner: B,
    _live: Live,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

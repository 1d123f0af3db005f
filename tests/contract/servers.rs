//! The four layers in every kind of server that people stack them in: one stack, a real token, a
//! real certificate, and inner services and bodies that promise as little as may be.

use std::{
    cell::Cell,
    convert::Infallible,
    marker::PhantomPinned,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use palisade::{
    BoxError, Identity, RejectionKind, Stack, UsageMeter,
    body::RequestBody,
    connection::TlsPeer,
    inference::Segment,
    jwt::{ClaimTest, JwtAuthLayer, Policy, RequireAccess},
    peer_cert::{PeerCertLayer, RequirePeer},
    prompt_guard::{Action, Category, Detector, Finding, PromptGuardLayer, Unseen, Views},
    rate_limit::{
        TieredRateLimitLayer,
        fair::{Capacity, FairAdmission, Share},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, util::BoxCloneService};

use crate::{
    credentials::Credentials,
    support::{Ledger, Paid, Script, Step, limits, limits_with},
    until::until,
};

const GOOD: &str = r#"{"prompt":"What does a lighthouse do?","max_tokens":40}"#;
const BAD: &str = r#"{"prompt":"something forbidden","max_tokens":40}"#;

/// Blocks prompts with one word.
#[derive(Debug)]
struct Forbidden;

impl Detector for Forbidden {
    fn name(&self) -> &'static str {
        "forbidden"
    }

    fn scan(&self, segment: &Segment<'_>, _: &Views<'_>, findings: &mut Vec<Finding>) {
        if let Some(at) = segment.text.find("forbidden") {
            let span = Some(at..at + "forbidden".len());
            findings.push(Finding::new("forbidden", Category::Custom, 1.0, segment.index, span));
        }
    }
}

type FourLayers = Stack<PeerCertLayer, JwtAuthLayer, TieredRateLimitLayer, PromptGuardLayer>;

pub(crate) struct Rig {
    credentials: Credentials,
    ledger: Arc<Ledger>,
    fair: FairAdmission,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let fair = FairAdmission::builder().capacity(Capacity::slots(64));
        let fair = fair.tier("free", Share::percent(100)).build().unwrap();
        Self { credentials: Credentials::new(), ledger: Ledger::new(), fair }
    }

    /// Reservations that are not settled, or slots of the engine that are not given up.
    fn out(&self) -> usize {
        self.ledger.out().max(self.fair.snapshot().in_use as usize)
    }

    fn guard(&self) -> PromptGuardLayer {
        PromptGuardLayer::builder()
            .detector(Forbidden, Action::Block)
            .grpc(Unseen::InsecurePass)
            .unknown_endpoint(Unseen::InsecurePass)
            .build()
            .unwrap()
    }

    pub(crate) fn stack(&self) -> FourLayers {
        // The order of these calls does not matter.
        Stack::new()
            .prompt_guard(self.guard())
            .rate_limit(limits_with(&self.ledger, |limits| limits.fair(&self.fair)))
            .jwt(self.credentials.jwt())
            .peer_cert(self.credentials.peer_cert())
    }

    /// What a TLS listener does: leaves the peer in every request's extensions.
    fn connected(&self) -> Connected {
        Connected(self.credentials.peer())
    }

    pub(crate) fn request<B>(&self, body: B) -> Request<B> {
        self.credentials.request(&self.credentials.token("alice", "free"), body)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.credentials.token("alice", "free"))
    }
}

#[derive(Clone)]
struct Connected(TlsPeer);

impl<S> Layer<S> for Connected {
    type Service = ConnectedService<S>;
    fn layer(&self, inner: S) -> Self::Service {
        ConnectedService { inner, peer: self.0.clone() }
    }
}

#[derive(Clone)]
struct ConnectedService<S> {
    inner: S,
    peer: TlsPeer,
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for ConnectedService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }
    fn call(&mut self, mut request: Request<B>) -> S::Future {
        request.extensions_mut().insert(self.peer.clone());
        self.inner.call(request)
    }
}

fn is_send<T: Send>(_: &T) {}
fn is_service_grade<T: Clone + Send + Sync + 'static>(_: &T) {}

/// A request body that is `Send` and nothing else.
#[allow(dead_code)]
struct Upload(&'static str, PhantomPinned, Cell<u8>);

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;
    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(Some(Err(self.0.into())))
    }
}

#[tokio::test]
async fn service_builder_with_bodies_that_promise_nothing() {
    let (rig, alive) = (Rig::new(), Arc::default());
    let engine = tower::service_fn(move |_: Request<RequestBody<Full<Bytes>>>| {
        let steps = [Step::Data("a"), Step::Data("b"), Step::Hang];
        std::future::ready(Ok::<_, Infallible>(Response::new(Script::new(&steps, &alive))))
    });
    let service = ServiceBuilder::new().layer(rig.stack()).service(engine);
    is_service_grade(&rig.stack());
    is_service_grade(&service);
    let answer = service.clone().oneshot(rig.request(Full::from(GOOD)));
    is_send(&answer);
    let response = answer.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = Box::pin(response.into_body());
    is_send(&body);
    body.as_mut().frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(rig.out(), 0);

    let bare = ServiceBuilder::new().layer(rig.stack()).service_fn(
        |_: Request<RequestBody<Upload>>| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("x")))
        },
    );
    let broken = Upload("the upload broke", PhantomPinned, Cell::new(0));
    let answer = bare.oneshot(rig.request(broken));
    is_send(&answer);
    assert_eq!(answer.await.unwrap().status(), StatusCode::BAD_REQUEST);
}

/// The whole stack, with a guard that looks at answers too.
fn watching(rig: &Rig) -> FourLayers {
    let guard = PromptGuardLayer::builder().output_detector(Forbidden, Action::Block);
    rig.stack().prompt_guard(guard.build().unwrap())
}

#[tokio::test]
async fn an_answer_that_the_guard_cuts_is_paid_as_far_as_it_was_let_through() {
    let (rig, alive) = (Rig::new(), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let counted = Arc::clone(&alive);
    let engine = tower::service_fn(move |_: Request<RequestBody<Full<Bytes>>>| {
        let good =
            "data: {\"token\":{\"text\":\" a\",\"special\":false},\"generated_text\":null}\n\n";
        let bad = "data: {\"token\":{\"text\":\" forbidden\",\"special\":false},\"generated_text\":null}\n\n";
        let steps = [Step::Data(good), Step::Data(good), Step::Data(bad), Step::Hang];
        let mut response = Response::new(Script::new(&steps, &counted));
        response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let service = watching(&rig).layer(engine);
    let mut body =
        Box::pin(service.oneshot(rig.request(Full::from(GOOD))).await.unwrap().into_body());
    let mut text = String::new();
    while let Some(frame) = body.as_mut().frame().await {
        text.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
        assert!(!text.contains("forbidden"));
    }
    assert!(text.contains("\"error_type\":\"blocked\""), "{text}");
    assert_eq!(alive.load(std::sync::atomic::Ordering::SeqCst), 0, "the engine runs on");
    drop(body);
    let [paid] = rig.ledger.settled()[..] else { panic!("settled once") };
    // The prompt has a handful of tokens, the answer was allowed forty and had two.
    assert!((4..30).contains(&paid.tokens), "{paid:?}");
}

#[tokio::test]
async fn an_answer_that_the_guard_withholds_is_paid() {
    let rig = Rig::new();
    let engine = tower::service_fn(|_: Request<RequestBody<Full<Bytes>>>| {
        let json = r#"{"text":"forbidden","usage":{"prompt_tokens":7,"completion_tokens":30}}"#;
        let mut response = Response::new(Full::<Bytes>::from(json));
        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let service = watching(&rig).layer(engine);
    let response = service.oneshot(rig.request(Full::from(GOOD))).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    drop(response);
    let tokens: u64 = rig.ledger.settled().iter().map(|paid| paid.tokens).sum();
    assert_eq!(tokens, 37);
}

mod axum_router {
    use axum::{Router, extract::Path, routing::post};

    use super::*;

    async fn generate(identity: Identity, meter: UsageMeter, body: Bytes) -> String {
        meter.charge(7);
        let subject = identity.user().unwrap().subject();
        let workload = identity.peer().unwrap().spiffe_id.as_deref().unwrap();
        format!("{subject} by {workload} in {}: {}", identity.tier().unwrap(), body.len())
    }

    async fn ask(app: &Router, request: Request<axum::body::Body>) -> (StatusCode, String) {
        let response = app.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The same questions to every way of stacking.
    async fn passes_and_refuses(rig: &Rig, app: Router, path: &str) {
        let to = |body: &'static str| {
            let mut request = rig.request(axum::body::Body::from(body));
            *request.uri_mut() = path.parse().unwrap();
            request
        };
        let (status, text) = ask(&app, to(GOOD)).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        assert_eq!(
            text,
            format!("alice by spiffe://prod.example/ns/edge/sa/gateway in free: {}", GOOD.len())
        );
        let (status, text) = ask(&app, to(BAD)).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(text.contains("\"error_type\":\"blocked\""), "{text}");
        let mut nobody = to(GOOD);
        nobody.headers_mut().remove("authorization");
        assert_eq!(ask(&app, nobody).await.0, StatusCode::UNAUTHORIZED);
        let mut plain = to(GOOD);
        plain.extensions_mut().clear();
        assert_eq!(ask(&app, plain).await.0, StatusCode::UNAUTHORIZED);
        assert_eq!(rig.out(), 0);
        let paid: Vec<_> = rig.ledger.settled().iter().map(|paid| paid.requests).collect();
        assert_eq!(paid, [1, 1], "the blocked request is charged, the refused ones are not");
    }

    #[tokio::test]
    async fn layer() {
        let rig = Rig::new();
        let app = Router::new().route("/generate", post(generate)).layer(rig.stack());
        passes_and_refuses(&rig, app, "/generate").await;
    }

    #[tokio::test]
    async fn route_layer() {
        let rig = Rig::new();
        let app = Router::new().route("/generate", post(generate)).route_layer(rig.stack());
        passes_and_refuses(&rig, app.clone(), "/generate").await;
        let unknown = Request::post("/nowhere").body(axum::body::Body::empty()).unwrap();
        assert_eq!(ask(&app, unknown).await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn separate_layers() {
        let rig = Rig::new();
        let app = Router::new()
            .route("/generate", post(generate))
            .layer(rig.guard())
            .layer(limits(&rig.ledger))
            .layer(rig.credentials.jwt())
            .layer(rig.credentials.peer_cert());
        passes_and_refuses(&rig, app, "/generate").await;
    }

    #[tokio::test]
    async fn separate_layers_in_the_wrong_order() {
        let rig = Rig::new();
        let app: Router = Router::new()
            .route("/generate", post(generate))
            .layer(limits(&rig.ledger))
            .layer(rig.guard())
            .layer(rig.credentials.jwt());
        let (status, text) = ask(&app, rig.request(axum::body::Body::from(GOOD))).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(text.contains("JwtAuthLayer, TieredRateLimitLayer, PromptGuardLayer"), "{text}");
    }

    #[tokio::test]
    async fn more_is_asked_of_peer_and_user_on_one_route() {
        let rig = Rig::new();
        let app = |peer: &str, tier: &str| {
            let policy = Policy::claim("tier", ClaimTest::equals(tier));
            Router::new()
                .route("/generate", post(generate))
                .route_layer(RequirePeer::builder().allow(peer.parse().unwrap()).build().unwrap())
                .route_layer(RequireAccess::builder(policy).build().unwrap())
                .route("/plain", post(generate))
                .layer(rig.stack())
        };
        let asked = async |app: &Router, path: &str| {
            let mut request = rig.request(axum::body::Body::from(GOOD));
            *request.uri_mut() = path.parse().unwrap();
            ask(app, request).await
        };
        let both = app("trust-domain:prod.example", "free");
        assert_eq!(asked(&both, "/generate").await.0, StatusCode::OK);
        let wrong_peer = app("spiffe://prod.example/ns/ops/sa/*", "free");
        let (status, text) = asked(&wrong_peer, "/generate").await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(text.contains("This client may not use this service."), "{text}");
        assert_eq!(asked(&wrong_peer, "/plain").await.0, StatusCode::OK);
        let wrong_user = app("trust-domain:prod.example", "paid");
        let (status, text) = asked(&wrong_user, "/generate").await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(text.contains("role or claim"), "{text}");
        assert_eq!(rig.out(), 0);
    }

    #[tokio::test]
    async fn nested_at_a_prefix() {
        let rig = Rig::new();
        async fn under(Path(_): Path<String>, i: Identity, m: UsageMeter, b: Bytes) -> String {
            generate(i, m, b).await
        }
        let inner = Router::new().route("/router/{id}/generate", post(under)).layer(rig.stack());
        let app = Router::new().nest("/api/v1", inner);
        passes_and_refuses(&rig, app, "/api/v1/router/7/generate").await;
    }

    #[tokio::test]
    async fn a_real_server_and_a_client_that_leaves() {
        let rig = Rig::new();
        let alive = Arc::default();
        let counted = Arc::clone(&alive);
        let stream = move |_: Bytes| {
            let body = Script::new(&[Step::Data("tok"), Step::Hang], &counted);
            std::future::ready(Response::new(axum::body::Body::new(SendBody(body.boxed_unsync()))))
        };
        let app = Router::new()
            .route("/generate", post(stream))
            .layer(rig.stack())
            .layer(rig.connected());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/generate", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let client = reqwest::Client::new();
        let request = client.post(&url).header("authorization", rig.bearer()).body(GOOD);
        let mut response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.chunk().await.unwrap().unwrap(), "tok");
        assert_eq!(rig.out(), 1, "the slot is held while the stream runs");
        drop(response);
        until(|| rig.out() == 0).await;
        assert_eq!(alive.load(std::sync::atomic::Ordering::SeqCst), 0);
        server.abort();
    }

    /// axum asks its bodies for `Send`, which a boxed one is.
    struct SendBody(http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>);
    impl Body for SendBody {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Pin::new(&mut self.0).poll_frame(cx)
        }
    }
}

mod tonic_server {
    use tonic::{Code, service::LayerExt as _, transport::server::TcpIncoming};
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_types::StatusExt as _;

    use super::*;

    type Client = HealthClient<
        tonic::service::interceptor::InterceptedService<tonic::transport::Channel, AddToken>,
    >;

    #[derive(Clone)]
    struct AddToken(Option<String>);

    impl tonic::service::Interceptor for AddToken {
        fn call(&mut self, mut request: tonic::Request<()>) -> tonic::Result<tonic::Request<()>> {
            if let Some(token) = &self.0 {
                request.metadata_mut().insert("authorization", token.parse().unwrap());
            }
            Ok(request)
        }
    }

    async fn client(addr: SocketAddr, token: Option<String>) -> Client {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{addr}")).unwrap();
        HealthClient::with_interceptor(endpoint.connect().await.unwrap(), AddToken(token))
    }

    fn check() -> HealthCheckRequest {
        HealthCheckRequest { service: "x".into() }
    }

    async fn asks_and_is_refused(rig: &Rig, addr: SocketAddr) {
        let mut known = client(addr, Some(rig.bearer())).await;
        assert_eq!(known.check(check()).await.unwrap().into_inner().status, 1);
        until(|| rig.out() == 0).await;

        let mut unknown = client(addr, None).await;
        assert_eq!(unknown.check(check()).await.unwrap_err().code(), Code::Unauthenticated);
        let mut bad = client(addr, Some("Bearer nonsense".into())).await;
        assert_eq!(bad.check(check()).await.unwrap_err().code(), Code::Unauthenticated);
        let other = format!("Bearer {}", rig.credentials.token("bob", "free"));
        let mut open = Vec::new();
        let mut streams = client(addr, Some(other)).await;
        for _ in 0..4 {
            let mut stream = streams.watch(check()).await.unwrap().into_inner();
            stream.message().await.unwrap();
            open.push(stream);
        }
        assert_eq!(rig.out(), 4, "a slot is held to the end of the stream");
        let refused = streams.watch(check()).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("at a time"), "{}", refused.message());
        let details = refused.get_error_details();
        assert_eq!(
            details.retry_info().unwrap().retry_delay,
            Some(std::time::Duration::from_secs(1))
        );
        let violations = &details.quota_failure().unwrap().violations;
        assert_eq!(violations[0].description, "concurrent-requests");
        drop(open);
        until(|| rig.out() == 0).await;
    }

    async fn healthy()
    -> tonic_health::pb::health_server::HealthServer<impl tonic_health::pb::health_server::Health>
    {
        let (reporter, service) = tonic_health::server::health_reporter();
        reporter.set_service_status("x", tonic_health::ServingStatus::Serving).await;
        service
    }

    #[tokio::test]
    async fn server_wide() {
        let rig = Rig::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let layers = ServiceBuilder::new().layer(rig.connected()).layer(rig.stack()).into_inner();
        let server = tonic::transport::Server::builder()
            .layer(layers)
            .add_service(healthy().await)
            .serve_with_incoming(TcpIncoming::from(listener));
        let server = tokio::spawn(server);
        asks_and_is_refused(&rig, addr).await;
        server.abort();
    }

    #[tokio::test]
    async fn one_service() {
        let rig = Rig::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let layers = ServiceBuilder::new().layer(rig.connected()).layer(rig.stack()).into_inner();
        let guarded = layers.named_layer(healthy().await);
        let server = tonic::transport::Server::builder()
            .add_service(guarded)
            .serve_with_incoming(TcpIncoming::from(listener));
        let server = tokio::spawn(server);
        asks_and_is_refused(&rig, addr).await;
        server.abort();
    }

    #[tokio::test]
    async fn one_service_for_some_peers() {
        let rig = Rig::new();
        for (rule, expected) in [
            ("trust-domain:prod.example", Ok(1)),
            ("trust-domain:test.example", Err(Code::PermissionDenied)),
        ] {
            let some = RequirePeer::builder().allow(rule.parse().unwrap()).build().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let layers = ServiceBuilder::new()
                .layer(rig.connected())
                .layer(rig.credentials.peer_cert())
                .into_inner();
            let server = tonic::transport::Server::builder()
                .layer(layers)
                .add_service(some.named_layer(healthy().await))
                .serve_with_incoming(TcpIncoming::from(listener));
            let server = tokio::spawn(server);
            let answer = client(addr, None).await.check(check()).await;
            let answer = answer.map(|answer| answer.into_inner().status);
            assert_eq!(answer.map_err(|status| status.code()), expected, "{rule}");
            server.abort();
        }
    }

    #[tokio::test]
    async fn what_the_guard_can_not_read_it_refuses_unless_told() {
        let rig = Rig::new();
        let strict = PromptGuardLayer::builder().build().unwrap();
        let layers = Stack::new()
            .prompt_guard(strict)
            .rate_limit(limits(&rig.ledger))
            .jwt(rig.credentials.jwt())
            .peer_cert(rig.credentials.peer_cert());
        let layers = ServiceBuilder::new().layer(rig.connected()).layer(layers).into_inner();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder()
            .layer(layers)
            .add_service(healthy().await)
            .serve_with_incoming(TcpIncoming::from(listener));
        let server = tokio::spawn(server);
        let mut known = client(addr, Some(rig.bearer())).await;
        let refused = known.check(check()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        server.abort();
    }
}

#[tokio::test]
async fn hyper_util() {
    let (rig, alive) = (Rig::new(), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let counted = Arc::clone(&alive);
    let engine = tower::service_fn(move |_: Request<RequestBody<hyper::body::Incoming>>| {
        let body = Script::new(&[Step::Data("tok"), Step::Hang], &counted);
        std::future::ready(Ok::<_, Infallible>(Response::new(body)))
    });
    let service = ServiceBuilder::new().layer(rig.connected()).layer(rig.stack()).service(engine);
    let (server, mut client) = tokio::io::duplex(4096);
    let connection = tokio::spawn(async move {
        let service = hyper_util::service::TowerToHyperService::new(service);
        let io = hyper_util::rt::TokioIo::new(server);
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    });
    let head = format!(
        "POST /generate HTTP/1.1\r\nhost: a\r\nauthorization: {}\r\ncontent-length: {}\r\n\r\n{GOOD}",
        rig.bearer(),
        GOOD.len()
    );
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = client.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    assert_eq!(rig.out(), 1);
    drop(client);
    connection.await.unwrap();
    assert_eq!(rig.out(), 0);
    assert_eq!(alive.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn boxed_and_not_sync_with_one_concrete_body() {
    let rig = Rig::new();
    let echo = tower::service_fn(|request: Request<axum::body::Body>| async move {
        let body = request.into_body().collect().await?.to_bytes();
        Ok::<_, BoxError>(Response::new(Full::from(body).boxed_unsync()))
    });
    // `BoxCloneService` is Clone and Send, not Sync.
    let inner = BoxCloneService::new(echo);
    let operators = RequirePeer::builder().allow("trust-domain:prod.example".parse().unwrap());
    let service = ServiceBuilder::new()
        .layer(rig.stack())
        .layer(operators.build().unwrap())
        .map_request(|request: Request<RequestBody<_>>| request.map(axum::body::Body::new))
        .service(inner);
    let boxed: BoxCloneService<Request<axum::body::Body>, Response<axum::body::Body>, BoxError> =
        BoxCloneService::new(
            service.map_response(|r| r.map(|b| axum::body::Body::new(SyncBody(Box::pin(b))))),
        );
    let response = boxed.clone().oneshot(rig.request(axum::body::Body::from(GOOD))).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), GOOD);
    let response = boxed.oneshot(rig.request(axum::body::Body::from(BAD))).await.unwrap();
    let rejection = response.extensions().get::<palisade::Rejection>().unwrap();
    assert_eq!(rejection.kind(), RejectionKind::Blocked);
    drop(response);
    assert_eq!(rig.out(), 0);
    assert_eq!(rig.ledger.settled().last(), Some(&Paid { requests: 1, tokens: 0 }));
}

/// Pinned on the heap.
struct SyncBody<B>(Pin<Box<B>>);

impl<B: Body<Data = Bytes>> Body for SyncBody<B> {
    type Data = Bytes;
    type Error = B::Error;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.0.as_mut().poll_frame(cx)
    }
}

mod mcp {
    use rmcp::{
        ServerHandler, ServiceExt as _,
        handler::server::{router::tool::ToolRouter, wrapper::Parameters},
        model::{CallToolRequestParams, ClientConfig, ServerCapabilities, ServerConfig},
        schemars, tool, tool_handler, tool_router,
        transport::{
            StreamableHttpClientTransport,
            streamable_http_client::StreamableHttpClientTransportConfig,
            streamable_http_server::{
                StreamableHttpServerConfig, StreamableHttpService,
                session::local::LocalSessionManager,
            },
        },
    };

    use super::*;

    #[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
    struct Numbers {
        a: i32,
        b: i32,
    }

    #[derive(Clone, Debug)]
    struct Adder {
        tool_router: ToolRouter<Self>,
    }

    #[tool_router]
    impl Adder {
        #[tool(description = "Adds two numbers")]
        fn add(&self, Parameters(Numbers { a, b }): Parameters<Numbers>) -> String {
            (a + b).to_string()
        }
    }

    #[tool_handler(router = self.tool_router)]
    impl ServerHandler for Adder {
        fn get_info(&self) -> ServerConfig {
            ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
        }
    }

    #[tokio::test]
    async fn a_real_client_calls_a_tool_through_the_stack() {
        let rig = Rig::new();
        let service: StreamableHttpService<Adder, LocalSessionManager> = StreamableHttpService::new(
            || Ok(Adder { tool_router: Adder::tool_router() }),
            Arc::default(),
            StreamableHttpServerConfig::default(),
        );
        let guarded =
            ServiceBuilder::new().layer(rig.connected()).layer(rig.stack()).service(service);
        let app = axum::Router::new().nest_service("/mcp", guarded);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/mcp", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

        let mut config = StreamableHttpClientTransportConfig::with_uri(uri.clone());
        config.auth_header = Some(rig.credentials.token("alice", "free"));
        let transport = StreamableHttpClientTransport::from_config(config);
        let client = ClientConfig::default().serve(transport).await.unwrap();
        let arguments = serde_json::json!({"a": 2, "b": 40}).as_object().unwrap().clone();
        let params = CallToolRequestParams::new("add").with_arguments(arguments);
        let answer = client.call_tool(params).await.unwrap();
        assert!(format!("{answer:?}").contains("42"), "{answer:?}");
        client.cancel().await.unwrap();
        until(|| rig.out() == 0).await;

        let config = StreamableHttpClientTransportConfig::with_uri(uri);
        let transport = StreamableHttpClientTransport::from_config(config);
        assert!(ClientConfig::default().serve(transport).await.is_err(), "no token");
        server.abort();
    }
}

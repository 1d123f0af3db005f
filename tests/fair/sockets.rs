//! A client that leaves a real server while its request waits: its place is free, and its body unread.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body as AxumBody};
use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use palisade::{
    Identity,
    rate_limit::fair::{Capacity, FairAdmission, Share},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::ServiceBuilder;

use crate::{
    support::{Asked, TokioClock, ask, assert_idle, behind, layer, now, request, tier},
    until::until,
};

/// One slot, which an engine in this process has, and a server behind the same admission.
struct Rig {
    fair: FairAdmission,
    held: Asked,
    addr: SocketAddr,
    /// Bytes of bodies that were asked for.
    read: Arc<AtomicU64>,
    server: JoinHandle<()>,
}

impl Rig {
    async fn new() -> Self {
        let fair = FairAdmission::builder().capacity(Capacity::slots(1));
        let fair = fair.tier("free", Share::percent(100)).clock(TokioClock::new()).build().unwrap();
        let (service, _engine) = behind(&fair);
        let held = ask(&service, request("free/holder")).await;
        let read = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&read);
        let app = Router::new()
            .fallback(async |body: AxumBody| {
                let length = body.collect().await.map(|body| body.to_bytes().len());
                length.map(|length| length.to_string()).map_err(|error| error.to_string())
            })
            .layer(layer(&fair))
            .layer(tower::util::MapRequestLayer::new(move |request: Request<AxumBody>| {
                let counted = Arc::clone(&counted);
                identified(request).map(|body| AxumBody::new(Counted { body, read: counted }))
            }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { fair, held, addr, read, server }
    }

    /// Begins to ask, with a body.
    fn asks(&self, client: &reqwest::Client, body: impl Into<reqwest::Body>) -> Answer {
        let request = client.post(format!("http://{}/generate", self.addr)).body(body);
        tokio::spawn(async move { request.send().await?.text().await })
    }

    async fn waiting(&self, expected: u64) {
        until(|| tier(&self.fair, "free").waiting == expected).await;
    }

    /// The holder is done.
    async fn let_go(self) {
        drop(now(self.held).await);
        until(|| self.fair.snapshot().in_use == 0).await;
        assert_idle(&self.fair);
        self.server.abort();
    }
}

type Answer = JoinHandle<reqwest::Result<String>>;

/// In the place of JwtAuthLayer.
fn identified<B>(mut asked: Request<B>) -> Request<B> {
    let identity = request("free/client").extensions().get::<Identity>().cloned();
    asked.extensions_mut().insert(identity.unwrap());
    asked
}

/// A body that tells how much of it was asked for.
struct Counted {
    body: AxumBody,
    read: Arc<AtomicU64>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            self.read.fetch_add(length, Ordering::SeqCst);
        }
        frame
    }
}

/// An upload without an end, which tells how much of it was sent.
fn endless(sent: &Arc<AtomicU64>) -> reqwest::Body {
    let sent = Arc::clone(sent);
    reqwest::Body::wrap_stream(futures_util::stream::repeat_with(move || {
        sent.fetch_add(CHUNK.len() as u64, Ordering::SeqCst);
        Ok::<_, Infallible>(Bytes::from_static(CHUNK))
    }))
}

const CHUNK: &[u8] = &[b'x'; 16 << 10];

fn clients() -> [reqwest::Client; 2] {
    let builder = || reqwest::Client::builder().no_proxy();
    [builder().http1_only(), builder().http2_prior_knowledge()]
        .map(|client| client.build().unwrap())
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_gives_its_place_up() {
    for client in clients() {
        let rig = Rig::new().await;
        let leaves = rig.asks(&client, "leaves");
        rig.waiting(1).await;
        let stays = rig.asks(&client, "stays here");
        rig.waiting(2).await;
        leaves.abort();
        rig.waiting(1).await;
        assert!(!stays.is_finished());
        assert_eq!(rig.read.load(Ordering::SeqCst), 0);
        let read = Arc::clone(&rig.read);
        rig.let_go().await;
        assert_eq!(stays.await.unwrap().unwrap(), "10");
        assert_eq!(read.load(Ordering::SeqCst), 10, "of the one who left something was read");
    }
}

/// Over HTTP/1.1 a server that does not ask for more of a body does not see that nobody is there to send it.
#[tokio::test]
async fn an_upload_that_waits_is_not_read_and_keeps_nobody_waiting_when_its_client_leaves() {
    for (client, sees_at_once) in clients().into_iter().zip([false, true]) {
        let rig = Rig::new().await;
        let sent = Arc::default();
        let uploads = rig.asks(&client, endless(&sent));
        rig.waiting(1).await;
        // Until the transport takes no more.
        let mut before = u64::MAX;
        while std::mem::replace(&mut before, sent.load(Ordering::SeqCst)) != before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(rig.read.load(Ordering::SeqCst), 0);
        uploads.abort();
        if sees_at_once {
            // HTTP/2 sends a window ahead: `queue_bytes` counts as much. HTTP/1.1 fills the sockets.
            assert!(before <= (1 << 20) + 2 * CHUNK.len() as u64, "{before}");
            rig.waiting(0).await;
        }
        let next = rig.asks(&client, "next");
        rig.waiting(if sees_at_once { 1 } else { 2 }).await;
        rig.let_go().await;
        assert_eq!(next.await.unwrap().unwrap(), "4");
    }
}

#[tokio::test]
async fn a_grpc_client_that_cancels_while_it_waits_gives_its_place_up() {
    let rig = Rig::new().await;
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("x", tonic_health::ServingStatus::Serving).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let layers = ServiceBuilder::new()
        .map_request(identified::<tonic::body::Body>)
        .layer(layer(&rig.fair))
        .into_inner();
    let server = tonic::transport::Server::builder()
        .layer(layers)
        .add_service(service)
        .serve_with_incoming(TcpIncoming::from(listener));
    let server = tokio::spawn(server);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{addr}")).unwrap();
    let client = HealthClient::new(endpoint.connect().await.unwrap());
    let check = || {
        let mut client = client.clone();
        let asked = HealthCheckRequest { service: "x".into() };
        tokio::spawn(async move { client.check(asked).await })
    };
    let leaves = check();
    rig.waiting(1).await;
    let stays = check();
    rig.waiting(2).await;
    leaves.abort();
    rig.waiting(1).await;
    assert!(!stays.is_finished());
    rig.let_go().await;
    assert_eq!(stays.await.unwrap().unwrap().into_inner().status, 1);
    server.abort();
}

//! Accepts connections, and runs their handshakes beside each other.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustls_pki_types::CertificateDer;
use tokio_rustls::TlsAcceptor;

use super::{TlsConfig, TlsStream};
use crate::{
    connection::{PeerCertificates, TlsPeer},
    observe,
    runtime::{self, AbortHandle, Elapsed, JoinSet, TcpListener, TcpStream, ToSocketAddrs},
};

/// This part's name in metrics and logs.
const LAYER: &str = "tls";
/// How handshakes ended: `palisade_tls_handshakes_total{outcome}`.
const HANDSHAKES: &str = "palisade_tls_handshakes_total";

/// The pauses after a failure to accept: the first, and what doubling ends at.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Listens on a TCP port and speaks TLS. See the [module](super) for what it takes care of.
///
/// Dropping it closes the port and ends the handshakes under way; connections that were accepted
/// live on.
pub struct TlsListener {
    tcp: TcpListener,
    config: TlsConfig,
    handshakes: JoinSet<Option<(TlsStream, TlsPeer)>>,
    /// Oldest first. Those that ended are swept out when the list is full.
    under_way: VecDeque<AbortHandle>,
    /// Runs after a failure to accept.
    pause: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    next_pause: Duration,
}

impl TlsListener {
    /// Listens on `addr`; port 0 is one that the system picks.
    ///
    /// # Errors
    /// Those of the operating system: the port is taken, or not allowed.
    pub async fn bind(addr: impl ToSocketAddrs + Send, config: TlsConfig) -> io::Result<Self> {
        Ok(Self::new(TcpListener::bind(addr).await?, config))
    }

    /// Takes over a socket that listens already, such as one that a supervisor handed down.
    ///
    /// # Errors
    /// Those of the operating system.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn from_std(listener: std::net::TcpListener, config: TlsConfig) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::new(TcpListener::from_std(listener)?, config))
    }

    fn new(tcp: TcpListener, config: TlsConfig) -> Self {
        config.watch();
        Self {
            tcp,
            config,
            handshakes: JoinSet::new(),
            under_way: VecDeque::new(),
            pause: None,
            next_pause: FIRST_PAUSE,
        }
    }

    /// The address that this listens on.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The next connection whose handshake is done. Handshakes that fail never show.
    ///
    /// Cancel-safe: dropped before it is ready, it loses no connection.
    pub async fn accept(&mut self) -> (TlsStream, TlsPeer) {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// [`accept`](Self::accept), for what polls by hand.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<(TlsStream, TlsPeer)> {
        loop {
            // What is done goes first, so that what waits here is never more than the cap.
            while let Poll::Ready(Some(done)) = self.handshakes.poll_join_next(cx) {
                if let Ok(Some(connection)) = done {
                    return Poll::Ready(connection);
                }
            }
            let (stream, addr) = ready!(self.poll_tcp(cx));
            self.begin(stream, addr);
        }
    }

    fn poll_tcp(&mut self, cx: &mut Context<'_>) -> Poll<(TcpStream, SocketAddr)> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.tcp.poll_accept(cx)) {
                Ok(accepted) => {
                    self.next_pause = FIRST_PAUSE;
                    return Poll::Ready(accepted);
                }
                Err(error) if is_of_the_connection(&error) => {}
                // Out of file descriptors or memory: at once, it would fail again.
                Err(_) => {
                    observe::warn(LAYER, "accepting a connection failed, and is tried again");
                    self.pause = Some(Box::pin(runtime::sleep(self.next_pause)));
                    self.next_pause = LONGEST_PAUSE.min(self.next_pause * 2);
                }
            }
        }
    }

    fn begin(&mut self, stream: TcpStream, addr: SocketAddr) {
        // Not only once: the runtime in which it was begun may have ended.
        self.config.watch();
        let limit = self.config.max_handshakes;
        if self.under_way.len() >= limit {
            self.under_way.retain(|handshake| !handshake.is_finished());
        }
        if self.under_way.len() >= limit {
            self.shed_oldest();
        }
        let acceptor = TlsAcceptor::from(self.config.server());
        let handshake = handshake(acceptor, stream, addr, self.config.clone());
        self.under_way.push_back(self.handshakes.spawn(handshake));
    }

    /// The oldest had the most time. To shed the newest would let silent clients shut out all others
    /// for as long as the time limit.
    fn shed_oldest(&mut self) {
        if let Some(oldest) = self.under_way.pop_front() {
            oldest.abort();
            count("shed");
        }
    }
}

impl fmt::Debug for TlsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsListener")
            .field("tcp", &self.tcp)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    addr: SocketAddr,
    config: TlsConfig,
) -> Option<(TlsStream, TlsPeer)> {
    // A socket without it still works, only slower.
    let _ = stream.set_nodelay(true);
    let stream = match runtime::timeout(config.handshake_timeout, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) => {
            count("failed");
            return None;
        }
        Err(Elapsed) => {
            count("timed_out");
            return None;
        }
    };
    count("done");
    let session = stream.get_ref().1;
    let chain = session.peer_certificates();
    let certificates = chain.map(|chain| {
        let certificates = PeerCertificates::from(Arc::<[CertificateDer<'static>]>::from(chain));
        let names = config.vouches_for_names(chain);
        if names { certificates } else { certificates.by_spiffe_id_alone() }
    });
    let peer = TlsPeer::verified(addr, certificates);
    let peer = match session.server_name() {
        Some(name) => peer.with_server_name(name),
        None => peer,
    };
    Some((TlsStream::new(stream, peer.clone()), peer))
}

fn count(outcome: &'static str) {
    observe::count(HANDSHAKES, &[("outcome", outcome)]);
}

/// Whether only this one connection failed, before it was accepted.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

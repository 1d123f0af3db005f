//! Listens, with TLS or without, and ends without cutting an answer short.

use std::{
    fmt::Debug,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::connect_info::{Connected, IntoMakeServiceWithConnectInfo},
    serve::{IncomingStream, Listener, ListenerExt},
};
use palisade::{
    BoxError,
    connection::TlsPeer,
    tls::{TlsConfig, TlsListener},
};
use tokio::{net::TcpListener, sync::oneshot};

use crate::config::Config;

/// How long answers may go on once the server is told to end.
const DRAIN: Duration = Duration::from_secs(30);

/// How long requests that are still to arrive may take then, when no answer is under way.
const SILENCE: Duration = Duration::from_secs(3);

/// A port that is listened on.
pub(crate) struct Bound {
    addr: SocketAddr,
    listener: Either,
    told: Told,
}

enum Either {
    Plain(TcpListener),
    Tls(TlsListener),
}

pub(crate) async fn bind(config: &Config) -> Result<Bound, BoxError> {
    let told = Told::listen()?;
    let at = |error: io::Error| format!("{}: {error}", config.addr);
    let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else {
        let listener = TcpListener::bind(config.addr).await.map_err(at)?;
        return Ok(Bound { addr: listener.local_addr()?, listener: Either::Plain(listener), told });
    };
    let mut tls = TlsConfig::builder().server_cert_file(cert, key);
    if let Some(authorities) = &config.client_ca {
        tls = tls.client_ca_file(authorities);
    }
    let listener = TlsListener::bind(config.addr, tls.build()?).await.map_err(at)?;
    Ok(Bound { addr: listener.local_addr()?, listener: Either::Tls(listener), told })
}

impl Bound {
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until the process is told to end, and then to the end of the answers under way, of which `live` tells the
    /// number.
    pub(crate) async fn serve(
        self,
        app: Router,
        live: impl Fn() -> usize + Send + Sync,
    ) -> io::Result<()> {
        match self.listener {
            Either::Plain(listener) => {
                // A token is a small packet, which must not wait for the next one.
                let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
                let app = app.into_make_service_with_connect_info::<SocketAddr>();
                serve(listener, app, self.told, live).await
            }
            Either::Tls(listener) => {
                let app = app.into_make_service_with_connect_info::<TlsPeer>();
                serve(listener, app, self.told, live).await
            }
        }
    }
}

async fn serve<L, C>(
    listener: L,
    app: IntoMakeServiceWithConnectInfo<Router, C>,
    mut told: Told,
    live: impl Fn() -> usize + Send + Sync,
) -> io::Result<()>
where
    L: Listener<Addr: Debug>,
    C: for<'a> Connected<IncomingStream<'a, L>>,
{
    let (tell, end) = oneshot::channel();
    let patience = async {
        told.again().await;
        eprintln!("ending, {} answers under way", live());
        let _ = tell.send(());
        // Told twice, it does not wait.
        tokio::select! {
            () = tokio::time::sleep(DRAIN) => {}
            () = silence(&live) => {}
            () = told.again() => {}
        }
    };
    let end = async { end.await.unwrap_or_default() };
    tokio::select! {
        ended = axum::serve(listener, app).with_graceful_shutdown(end) => ended,
        () = patience => {
            if live() > 0 {
                eprintln!("{} answers are cut short", live());
            }
            Ok(())
        }
    }
}

/// Ready once nothing was generated for a while. Clients that connect and then say nothing must not
/// keep the server from ending.
async fn silence(live: impl Fn() -> usize + Send + Sync) {
    let mut since = Instant::now();
    while since.elapsed() < SILENCE {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if live() > 0 {
            since = Instant::now();
        }
    }
}

/// How the process is told to end: by Ctrl-C, and by SIGTERM, which supervisors send.
struct Told {
    #[cfg(unix)]
    terminated: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupted: tokio::signal::unix::Signal,
    #[cfg(windows)]
    interrupted: tokio::signal::windows::CtrlC,
}

impl Told {
    /// Listens from now on: a signal that comes before ends the process on the spot.
    #[cfg(unix)]
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminated: signal(SignalKind::terminate())?,
            interrupted: signal(SignalKind::interrupt())?,
        })
    }

    #[cfg(windows)]
    fn listen() -> io::Result<Self> {
        Ok(Self { interrupted: tokio::signal::windows::ctrl_c()? })
    }

    /// Ready when told once more.
    async fn again(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminated.recv() => {}
            _ = self.interrupted.recv() => {}
        }
        #[cfg(windows)]
        self.interrupted.recv().await;
    }
}

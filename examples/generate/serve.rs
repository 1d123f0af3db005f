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
use futures_util::FutureExt;
use palisade::{
    BoxError,
    connection::TlsPeer,
    tls::{TlsConfig, TlsListener},
};
use tokio::net::TcpListener;

use crate::config::Config;

/// How long answers may go on once the server is told to end.
const DRAIN: Duration = Duration::from_secs(30);

/// How long requests that are still to arrive may take then, when no answer is under way.
const SILENCE: Duration = Duration::from_secs(3);

/// A port that is listened on.
pub(crate) struct Bound {
    addr: SocketAddr,
    listener: Either,
}

enum Either {
    Plain(TcpListener),
    Tls(TlsListener),
}

pub(crate) async fn bind(config: &Config) -> Result<Bound, BoxError> {
    let at = |error: io::Error| format!("{}: {error}", config.addr);
    let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else {
        let listener = TcpListener::bind(config.addr).await.map_err(at)?;
        return Ok(Bound { addr: listener.local_addr()?, listener: Either::Plain(listener) });
    };
    let mut tls = TlsConfig::builder().server_cert_file(cert, key);
    if let Some(authorities) = &config.client_ca {
        tls = tls.client_ca_file(authorities);
    }
    let listener = TlsListener::bind(config.addr, tls.build()?).await.map_err(at)?;
    Ok(Bound { addr: listener.local_addr()?, listener: Either::Tls(listener) })
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
                serve(listener, app, live).await
            }
            Either::Tls(listener) => {
                let app = app.into_make_service_with_connect_info::<TlsPeer>();
                serve(listener, app, live).await
            }
        }
    }
}

async fn serve<L, C>(
    listener: L,
    app: IntoMakeServiceWithConnectInfo<Router, C>,
    live: impl Fn() -> usize + Send + Sync,
) -> io::Result<()>
where
    L: Listener<Addr: Debug>,
    C: for<'a> Connected<IncomingStream<'a, L>>,
{
    let told = told_to_end().shared();
    let patience = {
        let (told, live) = (told.clone(), &live);
        async move {
            told.await;
            eprintln!("ending, {} answers under way", live());
            // Told twice, it does not wait.
            tokio::select! {
                () = tokio::time::sleep(DRAIN) => {}
                () = silence(live) => {}
                () = told_to_end() => {}
            }
        }
    };
    tokio::select! {
        ended = axum::serve(listener, app).with_graceful_shutdown(told) => ended,
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

/// Ready on Ctrl-C, and on SIGTERM, which supervisors send.
async fn told_to_end() {
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = interrupted => {}
        () = terminated() => {}
    }
}

#[cfg(unix)]
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}

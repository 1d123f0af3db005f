//! A TLS listener that asks for client certificates and tells them to
//! [`PeerCertLayer`](crate::peer_cert::PeerCertLayer).
//!
//! ```no_run
//! # #[cfg(feature = "axum")]
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! use axum::{Router, routing::post};
//! use palisade::{connection::TlsPeer, peer_cert::{PeerCertLayer, PeerRule}, tls::{TlsConfig, TlsListener}};
//!
//! let config = TlsConfig::builder()
//!     .server_cert_file("server.pem", "server.key")
//!     .client_ca_file("clients-ca.pem")
//!     .build()?;
//! let peers = PeerCertLayer::builder()
//!     .allow(PeerRule::spiffe("spiffe://prod.example/ns/edge/sa/gateway")?)
//!     .build()?;
//! let app = Router::new().route("/generate", post(|| async { "…" })).layer(peers);
//! let listener = TlsListener::bind("0.0.0.0:8443", config).await?;
//! axum::serve(listener, app.into_make_service_with_connect_info::<TlsPeer>()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it does
//! - **Client certificates** are demanded once an authority for them is given, and verified against
//!   it: path, time, and the `clientAuth` usage. A client without a good one gets no connection, or,
//!   with [`optional_client_auth`](TlsConfigBuilder::optional_client_auth), one without an identity.
//!   A bad certificate is refused in either case.
//! - **Handshakes never wait for each other.** Each runs by itself, for at most 10 seconds. At most
//!   512 run at once: beyond that the oldest of them is closed in favour of the newest, so that
//!   clients that connect and then stay silent shut nobody out.
//! - **Running out of file descriptors** pauses accepting, and ends nothing.
//! - TLS 1.3 and 1.2, `h2` and `http/1.1` by ALPN, `TCP_NODELAY`. The cryptography is aws-lc-rs,
//!   whatever provider the process has installed as its default.
//! - **No session is resumed** where client certificates are asked for: a resumed session keeps the
//!   certificate of the first and verifies nothing anew, so that an expired or distrusted client
//!   would stay in. Each connection is a full handshake. Plain TLS resumes by the default of rustls.
//! - No early data (0-RTT), which can be replayed. No renegotiation.
//!
//! # What it does not do
//! Certificates are read once, at [`build`](TlsConfigBuilder::build). Revocation lists are not
//! checked. Once the handshake is done, the HTTP server's own timeouts hold.

#[cfg(feature = "axum")]
mod axum;
mod config;
mod listener;
mod pem;
mod stream;

pub use self::{
    config::{TlsConfig, TlsConfigBuilder},
    listener::TlsListener,
    stream::TlsStream,
};

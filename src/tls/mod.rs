//! A TLS listener that asks for client certificates and tells them to
//! [`PeerCertLayer`](crate::peer_cert::PeerCertLayer).
//!
//! ```no_run
//! # #[cfg(feature = "axum")]
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! use axum::{Router, routing::post};
//! use palisade::{
//!     connection::TlsPeer,
//!     peer_cert::{PeerCertLayer, PeerRule},
//!     tls::{TlsConfig, TlsListener},
//!     trust::TrustStore,
//! };
//!
//! let trust = TrustStore::builder()
//!     .trust_domain_file("prod.example", "prod-ca.pem")
//!     .crl_file("prod-crl.pem")
//!     .build()?;
//! let config = TlsConfig::builder()
//!     .server_cert_file("server.pem", "server.key")
//!     .client_trust(&trust)
//!     .build()?;
//! let peers = PeerCertLayer::builder()
//!     .allow(PeerRule::spiffe("spiffe://prod.example/ns/edge/sa/gateway")?)
//!     .trust(&trust)
//!     .build()?;
//! let app = Router::new().route("/generate", post(|| async { "…" })).layer(peers);
//! let listener = TlsListener::bind("0.0.0.0:8443", config).await?;
//! axum::serve(listener, app.into_make_service_with_connect_info::<TlsPeer>()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `tonic` the listener is the stream that tonic's `serve_with_incoming` takes; any other server gets
//! its connections from [`TlsListener::accept`].
//!
//! # What it does
//! - **Client certificates** are demanded once an authority for them is given, and verified against
//!   it: path, time, and the `clientAuth` usage; by a [`TrustStore`](crate::trust::TrustStore), also trust domain and
//!   revocation, as they are at the handshake. A client without a good one gets no connection, or,
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
//! # Rotation
//! Nothing here needs a restart, and no connection is dropped for it: new handshakes get what is new.
//!
//! - **The server's own certificate and key**, if they are files, are looked at once a second in the background, and read
//!   again when they have changed and were left alone since the look before. A pair that can't be read or does not belong
//!   together never replaces a good one: an error is logged, and
//!   `palisade_tls_certificate_reads_total{outcome="failed"}` counts it. [`TlsConfig::reload`] reads at once.
//! - **Whom to trust** is the store's to say: see its [module](crate::trust). Authorities by
//!   [`client_ca_pem`](TlsConfigBuilder::client_ca_pem) or `client_ca_file` are read once.
//!
//! The end of the server's certificate is the gauge `palisade_tls_certificate_not_after_seconds`, in seconds since the
//! epoch, and from seven days before it a warning in the log, once a day.
//!
//! # What it does not do
//! A handshake verifies a client once. On a connection that lives on it is for `PeerCertLayer` to look again with each
//! request: at the certificate's validity, and at the rest if it has the same store. `client_ca_pem` checks no
//! revocation lists and knows no trust domains; a store does. Once the handshake is done, the HTTP server's own
//! timeouts hold.

#[cfg(feature = "axum")]
mod axum;
mod certificate;
mod client;
mod config;
mod listener;
mod pem;
mod stream;
#[cfg(feature = "tonic")]
mod tonic;

pub use self::{
    config::{TlsConfig, TlsConfigBuilder},
    listener::TlsListener,
    stream::TlsStream,
};

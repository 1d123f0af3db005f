//! Which workload calls, by the certificate of its TLS connection (mutual TLS).
//!
//! [`PeerCertLayer`] takes the client certificate that the server's TLS stack verified, reads its
//! names into a [`PeerIdentity`](crate::identity::PeerIdentity), and holds it against an allow list
//! and a deny list on every request. It stands outermost.
//!
//! ```
//! use std::convert::Infallible;
//!
//! use http::{Request, Response, StatusCode};
//! use palisade::{Identity, peer_cert::{PeerCertLayer, PeerRule}};
//! use rustls_pki_types::CertificateDer;
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # fn certificate(id: &str) -> CertificateDer<'static> {
//! #     let mut params = rcgen::CertificateParams::default();
//! #     params.subject_alt_names.push(rcgen::SanType::URI(id.try_into().unwrap()));
//! #     params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let layer = PeerCertLayer::builder()
//!     .allow(PeerRule::spiffe("spiffe://prod.example/ns/edge/sa/gateway")?)
//!     .allow(PeerRule::spiffe_glob("spiffe://prod.example/ns/*/sa/router")?)
//!     .deny(PeerRule::spiffe("spiffe://prod.example/ns/test/sa/router")?)
//!     .build()?;
//! let service = layer.layer(service_fn(|request: Request<()>| async move {
//!     let peer = Identity::of(request.extensions()).and_then(Identity::peer);
//!     assert!(peer.is_some_and(|peer| peer.spiffe_id.is_some()));
//!     Ok::<_, Infallible>(Response::new(String::from("hello")))
//! }));
//!
//! // As a server's TLS stack leaves them in the extensions.
//! let gateway = vec![certificate("spiffe://prod.example/ns/edge/sa/gateway")];
//! let request = Request::builder().extension(gateway).body(())?;
//! assert_eq!(service.clone().oneshot(request).await?.status(), StatusCode::OK);
//!
//! let stranger = vec![certificate("spiffe://prod.example/ns/edge/sa/stranger")];
//! let request = Request::builder().extension(stranger).body(())?;
//! assert_eq!(service.clone().oneshot(request).await?.status(), StatusCode::FORBIDDEN);
//!
//! let request = Request::builder().body(())?;
//! assert_eq!(service.oneshot(request).await?.status(), StatusCode::UNAUTHORIZED);
//! # Ok(())
//! # }
//! ```
//!
//! # Where the certificates come from
//! The first of these that stands in the request's extensions decides, even if it holds none:
//!
//! 1. what [`extract_with`](PeerCertLayerBuilder::extract_with) finds;
//! 2. [`TlsPeer`](crate::connection::TlsPeer), alone or in axum's `ConnectInfo`: of our
//!    `TlsListener` (feature `tls`). It is read once per connection, all others once per request;
//! 3. [`PeerCertificates`](crate::connection::PeerCertificates), `Arc<[CertificateDer]>`,
//!    `Arc<Vec<CertificateDer>>`, `Vec<CertificateDer>` of `rustls-pki-types`;
//! 4. axum-server's `Arc<TlsInfo>` (feature `axum-server`);
//! 5. tonic's `TlsConnectInfo`, of TCP and Unix sockets (feature `tonic`).
//!
//! # What is refused
//! | why | HTTP | gRPC | code |
//! |---|---|---|---|
//! | no client certificate | 401 | 16 | `client_certificate_required` |
//! | one that can't be read, or breaks the rules for names below | 401 | 16 | `client_certificate_invalid` |
//! | one that is not yet valid, or no longer, also on a connection that began while it was | 401 | 16 | `client_certificate_expired` |
//! | a deny rule fits, or no allow rule | 403 | 7 | `client_not_allowed` |
//!
//! There is no `WWW-Authenticate`: HTTP has no scheme for certificates.
//!
//! # Names
//! A SPIFFE ID is the certificate's only URI, strictly well-formed, with a path. A certificate with
//! a malformed one, with two URIs of which one is a SPIFFE ID, or with a SPIFFE ID on what is an
//! authority or may sign certificates, is refused whole. So is any with one malformed entry in its
//! list of names, or a control character. The common name counts for nothing. A certificate's own
//! wildcard (`*.edge.svc`) fits no rule, a deny rule neither.
//!
//! # Threats
//! - **Path validation is the TLS stack's.** This layer does not verify signatures: it must stand
//!   behind a TLS stack that demands or asks for client certificates and verifies them.
//! - **A connection outlives its certificate**, and a resumed session never verifies again. The
//!   validity is checked per request. Revocation is not: keep certificates short-lived.
//! - **Every authority that the TLS stack trusts may vouch for any name.** With several trust
//!   domains behind one listener, an authority of one can issue names of another.
//!
//! # What a proxy in front can break
//! A proxy that ends TLS presents its own certificate, or none: all clients become the proxy. Headers
//! in which proxies forward certificates (`X-Forwarded-Client-Cert`, `Client-Cert`,
//! `ssl-client-cert`) are neither believed nor removed.

mod anchors;
mod certificate;
mod dns;
mod event;
mod find;
mod forwarded;
mod future;
mod layer;
mod refusal;
mod rule;
mod service;
mod spiffe;
#[cfg(test)]
mod vectors;

#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub use self::forwarded::read_forwarded;
pub use self::{
    event::{PeerEvent, PeerOutcome},
    forwarded::{Forwarded, ProxyTrust},
    future::PeerCertFuture,
    layer::{PeerCertLayer, PeerCertLayerBuilder},
    rule::PeerRule,
    service::PeerCert,
};

//! Which workload calls, by the certificate of its TLS connection (mutual TLS), or by the one that a trusted proxy
//! forwards.
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
//! # Behind a proxy
//! A proxy that ends its clients' TLS can forward their certificates in headers. [`Forwarded`] says in which dialect
//! (Envoy's, that of RFC 9440, nginx's, AWS's) and which proxy is believed: by its own certificate, or, weaker, by its
//! network or a Unix socket. From a trusted proxy the peer is whom the headers tell of, and nobody where they tell of
//! nobody; [`Identity::proxy`](crate::Identity::proxy) is the proxy. What anybody else says in them counts for
//! nothing. One dialect is read; the headers of all are removed from every request.
//!
//! ```
//! use palisade::peer_cert::{Forwarded, PeerCertLayer, PeerRule, ProxyTrust};
//!
//! let envoy = PeerRule::spiffe("spiffe://prod.example/ns/edge/sa/envoy")?;
//! # let anchors = {
//! #     let mut params = rcgen::CertificateParams::default();
//! #     params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
//! #     params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
//! # };
//! let layer = PeerCertLayer::builder()
//!     .allow(PeerRule::spiffe("spiffe://prod.example/ns/edge/sa/gateway")?)
//!     .forwarded(Forwarded::xfcc().trusted_by(ProxyTrust::identity(envoy)));
//! // Envoy does not say that it verified the certificate. So it is verified here.
//! # #[cfg(feature = "trust")] {
//! let store = palisade::trust::TrustStore::builder().trust_domain("prod.example", anchors).build()?;
//! let layer = layer.trust(&store).build()?;
//! # }
//! # Ok::<_, palisade::BuildError>(())
//! ```
//!
//! # What is refused
//! | why | HTTP | gRPC | code |
//! |---|---|---|---|
//! | no client certificate | 401 | 16 | `client_certificate_required` |
//! | one that can't be read, or breaks the rules for names below | 401 | 16 | `client_certificate_invalid` |
//! | one that is not yet valid, or no longer, also on a connection that began while it was | 401 | 16 | `client_certificate_expired` |
//! | one that was forwarded in headers which are not as their dialect has them | 400 | 16 | `client_certificate_malformed` |
//! | one that the proxy did not verify, or that no anchor vouches for | 401 | 16 | `client_certificate_untrusted` |
//! | one that was revoked, also on a connection that began before | 401 | 16 | `client_certificate_revoked` |
//! | one of which can't be told whether it was | 503 | 14 | `client_certificate_unverifiable` |
//! | a deny rule fits, or no allow rule | 403 | 7 | `client_not_allowed` |
//! | another host than the handshake's, where that is [asked](PeerCertLayerBuilder::check_server_name) | 421 | 7 | `misdirected_request` |
//! | early data, where that is [refused](PeerCertLayerBuilder::refuse_early_data) | 425 | 14 | `too_early` |
//!
//! There is no `WWW-Authenticate`: HTTP has no scheme for certificates. Answers name nobody and say no more than this;
//! [`on_event`](PeerCertLayerBuilder::on_event) hears who it was and which rule decided.
//!
//! # Names
//! A SPIFFE ID is the certificate's only URI, strictly well-formed, with a path. A certificate with
//! a malformed one, with two URIs of which one is a SPIFFE ID, or with a SPIFFE ID on what is an
//! authority or may sign certificates, is refused whole. So is any with one malformed entry in its
//! list of names, or a control character. The common name counts for nothing, but by a rule of its own. A certificate's own
//! wildcard (`*.edge.svc`) fits no rule, a deny rule neither.
//!
//! # Rules
//! A [`PeerRule`] tells workloads by SPIFFE ID, trust domain, DNS name, address, e-mail address, or by the SHA-256 of a
//! certificate or a key. [`PeerRules`] are lists of them, from code or from a file. [`RequirePeer`] asks for certain peers
//! on one route more.
//!
//! # Who the peer is to others
//! The layers within find it in [`Identity::peer`](crate::Identity::peer), beside the user's token: the two are one
//! principal. [`may_carry`](PeerCertLayerBuilder::may_carry) says which peers may present tokens of which issuers, and
//! `JwtAuthLayer` can hold a token to a certificate (RFC 8705). Services behind are told by a header, if
//! [`propagate`](PeerCertLayerBuilder::propagate) names one.
//!
//! # Threats
//! - **Without a store of anchors, path validation is the TLS stack's**, which does it once for a connection: this
//!   layer must then stand behind one that demands or asks for client certificates and verifies them. Validity is
//!   held against the clock on every request all the same; revocation is not, and every authority that the TLS stack
//!   trusts may vouch for any name. With `PeerCertLayerBuilder::trust` (feature `trust`) path, validity, usage and
//!   revocation count on every request, and each trust domain has authorities of its own.
//! - **A connection outlives its certificate**, and a resumed session never verifies again: hence the above. A long
//!   answer outlives it too, unless [`end_streams_at_expiry`](PeerCertLayerBuilder::end_streams_at_expiry) is on.
//! - **A network is no proof of who is in it.** Whoever gets an address of the proxies' may forward whatever he likes:
//!   trust a proxy by its certificate.
//!
//! # What a proxy in front can break
//! A proxy that ends TLS presents its own certificate, or none: unless it is a trusted one, all clients become the
//! proxy. One that forwards headers of its clients, instead of setting or removing them, forwards lies. One that
//! forwards a certificate which it did not verify says so in another header, or not at all.

mod anchors;
mod certificate;
mod event;
mod find;
mod forwarded;
mod future;
mod layer;
mod refusal;
mod require;
mod rules;
mod service;
#[cfg(test)]
pub(crate) mod vectors;

#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub use self::forwarded::read_forwarded;
pub use self::{
    event::{PeerEvent, PeerOutcome},
    forwarded::{Forwarded, ProxyTrust},
    future::PeerCertFuture,
    layer::{PeerCertLayer, PeerCertLayerBuilder},
    require::{RequirePeer, RequirePeerBuilder},
    rules::PeerRules,
    service::PeerCert,
};
pub use crate::identity::PeerRule;

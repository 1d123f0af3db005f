//! What an application says of its proxies.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderName, HeaderValue};

use super::ProxyTrust;
use crate::{
    BuildError,
    identity::{PeerIdentity, Proxy},
};

/// Where and how proxies forward the certificates of their clients, and which proxies are believed.
///
/// ```
/// use palisade::peer_cert::{Forwarded, PeerRule, ProxyTrust};
///
/// let envoy = PeerRule::spiffe("spiffe://prod.example/ns/edge/sa/envoy")?;
/// let forwarded = Forwarded::xfcc().trusted_by(ProxyTrust::identity(envoy));
/// # Ok::<_, palisade::BuildError>(())
/// ```
///
/// # Forwarded is not verified
/// Many proxies forward a certificate that they could not verify. So either the proxy has to say in a header of its own
/// that it did ([`verified_by`](Self::verified_by); [`nginx`](Self::nginx) and [`alb`](Self::alb) always do), or the
/// certificate is verified here, by anchors of our own. With neither, the layer can't be built.
///
/// # What is read
/// The headers of this dialect, from a trusted proxy. Those of all dialects are removed from every request, also the
/// ones that a client sent and a proxy passed on without knowing them.
///
/// A certificate may take 16 KiB as it is written, there may be 8 with the client's own, and 128 KiB in all. More is
/// refused, and so is a header that is there twice. A server's own limits on headers come first: hyper's is 16 KiB for
/// all headers of an HTTP/2 request.
#[derive(Clone, Debug)]
#[must_use = "it does nothing until it is given to a layer"]
pub struct Forwarded {
    pub(super) form: Form,
    pub(super) certificate: HeaderName,
    pub(super) chain: Option<HeaderName>,
    pub(super) status: Option<Status>,
    trust: Vec<ProxyTrust>,
}

/// How certificates are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Xfcc,
    ClientCert,
    Pem,
    /// Of a proxy that forwards none without having verified it.
    VerifiedPem,
    PemChain,
}

/// The header in which a proxy says whether it verified the certificate.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) header: HeaderName,
    pub(super) verified: String,
    /// What it says where there was no certificate. `None`: it may say anything but `verified`.
    pub(super) absent: Option<&'static str>,
}

impl Forwarded {
    /// Envoy's `X-Forwarded-Client-Cert`, in the mode `SANITIZE_SET` and with the details `cert: true`, and
    /// `chain: true` where clients have intermediate authorities.
    ///
    /// Only the certificate counts, since a client can forge all else: Envoy writes the URIs of a certificate without
    /// quotes (envoyproxy/envoy#32945). So there must be one element, as Envoy writes it, whose `Hash` is that of its
    /// `Cert`. In the modes that append to what the client sent, there are several, and requests are refused. The modes
    /// that only forward must never be used: Envoy then passes on what the client made up.
    ///
    /// The header does not say whether Envoy verified the certificate: see [`verified_by`](Self::verified_by).
    pub fn xfcc() -> Self {
        Self::new(Form::Xfcc, HeaderName::from_static("x-forwarded-client-cert"))
    }

    /// `Client-Cert` and `Client-Cert-Chain` of RFC 9440, as HAProxy, Caddy and Cloudflare can be told to write them.
    ///
    /// Each must be a single line. The standard has no status: see [`verified_by`](Self::verified_by). HAProxy's
    /// `ssl_c_chain_der` is such a chain only for a single intermediate authority. Where a client has no certificate,
    /// Caddy sends a placeholder, and is refused: have it demand one.
    pub fn client_cert() -> Self {
        Self {
            chain: Some(HeaderName::from_static("client-cert-chain")),
            ..Self::new(Form::ClientCert, HeaderName::from_static("client-cert"))
        }
    }

    /// nginx, with `proxy_set_header ssl-client-cert $ssl_client_escaped_cert` and
    /// `proxy_set_header ssl-client-verify $ssl_client_verify`, which must be `SUCCESS`. It forwards no intermediate
    /// authorities.
    pub fn nginx() -> Self {
        let header = HeaderName::from_static("ssl-client-verify");
        let status = Status { header, verified: "SUCCESS".into(), absent: Some("NONE") };
        Self {
            status: Some(status),
            ..Self::new(Form::Pem, HeaderName::from_static("ssl-client-cert"))
        }
    }

    /// AWS Application Load Balancer in the mutual TLS mode `verify`: `X-Amzn-Mtls-Clientcert-Leaf`.
    ///
    /// That the header is there is what says that the certificate was verified. So every listener of the load balancer
    /// must be in this mode: another might pass on a header of the client's own.
    pub fn alb() -> Self {
        Self::new(Form::VerifiedPem, HeaderName::from_static("x-amzn-mtls-clientcert-leaf"))
    }

    /// AWS Application Load Balancer in the mutual TLS mode `passthrough`: `X-Amzn-Mtls-Clientcert`, the client's
    /// certificate and those of its intermediate authorities, which nobody verified.
    pub fn alb_passthrough() -> Self {
        Self::new(Form::PemChain, HeaderName::from_static("x-amzn-mtls-clientcert"))
    }

    fn new(form: Form, certificate: HeaderName) -> Self {
        Self { form, certificate, chain: None, status: None, trust: Vec::new() }
    }

    /// The header that holds the certificate, by default as the dialect names it.
    pub fn cert_header(mut self, name: HeaderName) -> Self {
        self.certificate = name;
        self
    }

    /// The header that holds the certificates of intermediate authorities, by default `Client-Cert-Chain`. For
    /// [`client_cert`](Self::client_cert) only: the other dialects have none.
    pub fn chain_header(mut self, name: HeaderName) -> Self {
        self.chain = Some(name);
        self
    }

    /// The header in which the proxy says whether it verified the certificate, and the value, to the letter, by which it
    /// says so: for HAProxy's `%[ssl_c_verify]`, `0`; for Cloudflare's `cert_verified`, `true`.
    ///
    /// A certificate with any other status or none is refused, and so is this status without a certificate. HAProxy
    /// says 0 there too: have it set the header only `if { ssl_c_used }`, and remove it before.
    ///
    /// The proxy must set or remove the header on every request, so that none of the client's passes.
    pub fn verified_by(mut self, header: HeaderName, value: impl Into<String>) -> Self {
        self.status = Some(Status { header, verified: value.into(), absent: None });
        self
    }

    /// Believes this proxy. At least one is required; with several, one that fits is enough.
    pub fn trusted_by(mut self, proxy: ProxyTrust) -> Self {
        self.trust.push(proxy);
        self
    }
}

impl Forwarded {
    /// Whether a layer may be built with this.
    pub(in crate::peer_cert) fn check(&self, has_trust_store: bool) -> Result<(), BuildError> {
        let invalid = |reason| Err(BuildError::invalid("Forwarded", reason));
        if self.trust.is_empty() {
            return Err(BuildError::Empty("the list of proxies that `Forwarded` is trusted by"));
        }
        if !self.is_verified() && !has_trust_store {
            return invalid(
                "a forwarded certificate is not a verified one: say by which header and value the \
                 proxy tells that it verified it (`verified_by`), or give the layer anchors",
            );
        }
        if self.chain.is_some() && self.form != Form::ClientCert {
            return invalid("this dialect has no header for the chain");
        }
        if self.status.as_ref().is_some_and(|status| !is_value(&status.verified)) {
            return invalid("the value of `verified_by` is empty or can't stand in a header");
        }
        let mut names: Vec<_> = self.names().collect();
        names.sort_unstable_by_key(|name| name.as_str());
        if names.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
            return invalid("two of its headers have the same name");
        }
        Ok(())
    }

    /// The proxy at the other end of the connection, if it is trusted: by what the connection itself tells, and never by
    /// a header.
    pub(in crate::peer_cert) fn proxy(
        &self,
        connection: Option<&Arc<PeerIdentity>>,
        address: Option<IpAddr>,
        is_unix_socket: bool,
    ) -> Option<Proxy> {
        let any = |trusts: &dyn Fn(&ProxyTrust) -> bool| self.trust.iter().any(trusts);
        // The strongest proof is the one that is told.
        if let Some(peer) = connection.filter(|peer| any(&|trust| trust.in_workload(peer))) {
            return Some(Proxy::Workload(Arc::clone(peer)));
        }
        if is_unix_socket && any(&ProxyTrust::in_unix_socket) {
            return Some(Proxy::UnixSocket);
        }
        let address = address?.to_canonical();
        any(&|trust| trust.in_address(address)).then_some(Proxy::Address(address))
    }

    /// Whether the proxy says that it verified what it forwards.
    pub(super) fn is_verified(&self) -> bool {
        self.status.is_some() || self.form == Form::VerifiedPem
    }

    /// The headers that are read.
    pub(super) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        let status = self.status.as_ref().map(|status| &status.header);
        [Some(&self.certificate), self.chain.as_ref(), status].into_iter().flatten()
    }
}

/// Whether a header can have this value. Servers strip the space around one.
fn is_value(text: &str) -> bool {
    !text.is_empty()
        && text.trim() == text
        && HeaderValue::from_str(text).is_ok_and(|value| value.to_str().is_ok())
}

//! What a proxy forwarded.

use http::{HeaderMap, HeaderName};
use rustls_pki_types::CertificateDer;

use super::{Forwarded, MAX_BYTES, Malformed, client_cert, names, pem, source::Form, xfcc};

/// What a proxy forwarded of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::peer_cert) struct ForwardedChain {
    pub(in crate::peer_cert) leaf: CertificateDer<'static>,
    /// Of intermediate authorities, as the client sent them: no proof of who issued the leaf.
    pub(in crate::peer_cert) chain: Vec<CertificateDer<'static>>,
    /// Whether the proxy says that it verified the leaf. If not, that is left to us.
    pub(in crate::peer_cert) verified: bool,
}

/// Why what a proxy forwarded is not believed. The texts are for the log, and never hold a part of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::peer_cert) enum Unbelievable {
    /// It is not what the dialect has.
    Malformed(&'static str),
    /// The proxy does not say that it verified the certificate.
    Unverified,
}

impl Unbelievable {
    pub(in crate::peer_cert) fn reason(self) -> &'static str {
        match self {
            Self::Malformed(reason) => reason,
            Self::Unverified => "the proxy does not say that it verified the client's certificate",
        }
    }
}

impl From<Malformed> for Unbelievable {
    fn from(Malformed(reason): Malformed) -> Self {
        Self::Malformed(reason)
    }
}

impl Forwarded {
    /// Reads what a trusted proxy forwarded. `None`: its client has shown no certificate.
    pub(in crate::peer_cert) fn read(
        &self,
        headers: &HeaderMap,
    ) -> Result<Option<ForwardedChain>, Unbelievable> {
        let certificate = only(headers, &self.certificate)?;
        let chain = self.chain.as_ref().map_or(Ok(None), |name| only(headers, name))?;
        let status =
            self.status.as_ref().map_or(Ok(None), |status| only(headers, &status.header))?;
        let Some(certificate) = certificate else {
            self.check_absent(chain, status)?;
            return Ok(None);
        };
        if self.status.as_ref().is_some_and(|known| status != Some(&known.verified)) {
            return Err(Unbelievable::Unverified);
        }
        if certificate.len() + chain.map_or(0, str::len) > MAX_BYTES {
            return Err(Unbelievable::Malformed("the headers hold more than 128 KiB"));
        }
        let mut certificates = match self.form {
            Form::Xfcc => xfcc::read(certificate)?,
            Form::ClientCert => client_cert::read(certificate, chain)?,
            Form::Pem | Form::VerifiedPem => vec![pem::one(certificate)?],
            Form::PemChain => pem::several(certificate)?,
        }
        .into_iter();
        let leaf = certificates.next().ok_or(Malformed("there is no certificate in it"))?;
        let chain = certificates.collect();
        Ok(Some(ForwardedChain { leaf, chain, verified: self.is_verified() }))
    }

    /// Whether the proxy can say that there was no certificate, and all else that it says agrees.
    fn check_absent(&self, chain: Option<&str>, status: Option<&str>) -> Result<(), Malformed> {
        if chain.is_some() {
            return Err(Malformed("there is a chain but no certificate"));
        }
        let (Some(known), Some(status)) = (&self.status, status) else { return Ok(()) };
        if status == known.verified {
            return Err(Malformed("the proxy says that it verified a certificate, but sends none"));
        }
        match known.absent {
            Some(absent) if status != absent => {
                Err(Malformed("the proxy tells of a certificate, but sends none"))
            }
            _ => Ok(()),
        }
    }
}

/// Reads headers as the layer does: the leaf, and after it the chain. For fuzzing.
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
#[must_use]
pub fn read_forwarded(
    source: &Forwarded,
    headers: &HeaderMap,
) -> Option<Vec<CertificateDer<'static>>> {
    let found = source.read(headers).ok()??;
    Some([vec![found.leaf], found.chain].concat())
}

/// Removes the headers of all dialects, and those that `own` names, under any name that a framework may take for
/// theirs. To be done whoever sent them, once they are read.
pub(in crate::peer_cert) fn strip(own: Option<&Forwarded>, headers: &mut HeaderMap) {
    let own = || own.into_iter().flat_map(Forwarded::names).map(HeaderName::as_str);
    remove(headers, |name| names::is_known(name) || own().any(|own| names::same(own, name)));
}

/// Removes the header of this name, and those that a framework may take for it.
pub(in crate::peer_cert) fn strip_same(name: &HeaderName, headers: &mut HeaderMap) {
    remove(headers, |other| names::same(name.as_str(), other));
}

fn remove(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    let found: Vec<HeaderName> = headers.keys().filter(|name| goes(name)).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// The only line of a header, if it is there.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Malformed> {
    let mut lines = headers.get_all(name).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(Malformed("a header is there twice"));
    }
    line.to_str().map(Some).map_err(|_| Malformed("a header holds bytes that are no ASCII"))
}

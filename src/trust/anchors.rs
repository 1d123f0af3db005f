//! Authorities that are trusted.

use std::ops::RangeInclusive;

use rustls_pki_types::{CertificateDer, TrustAnchor, pem::PemObject as _};

use super::certificate;

/// Authorities that may vouch for the same names.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    pub(super) trusted: Vec<TrustAnchor<'static>>,
    /// What they were read from, in the same order.
    certificates: Vec<Anchor>,
}

#[derive(Debug)]
pub(super) struct Anchor {
    pub(super) der: CertificateDer<'static>,
    pub(super) valid: RangeInclusive<u64>,
}

impl Anchors {
    /// Adds the certificates of a PEM.
    pub(super) fn add(&mut self, pem: &[u8]) -> Result<(), &'static str> {
        let before = self.trusted.len();
        for der in CertificateDer::pem_slice_iter(pem) {
            self.add_one(der.map_err(|_| "it is no PEM")?)?;
        }
        if self.trusted.len() == before {
            return Err("it holds no certificate in PEM");
        }
        Ok(())
    }

    fn add_one(&mut self, der: CertificateDer<'static>) -> Result<(), &'static str> {
        const UNREADABLE: &str = "it holds a certificate that can't be read";
        // A leaf among the anchors, perhaps of a whole chain in one file, could vouch for anybody.
        if !certificate::is_authority(&der) {
            return Err("it holds a certificate that is no authority's");
        }
        let valid = certificate::validity(&der).map_err(|_| UNREADABLE)?;
        let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|_| UNREADABLE)?.to_owned();
        self.trusted.push(anchor);
        self.certificates.push(Anchor { der, valid });
        Ok(())
    }

    /// What one of [`trusted`](Self::trusted) was read from.
    pub(super) fn certificate_of(&self, trusted: &TrustAnchor<'_>) -> Option<&Anchor> {
        let index = self.trusted.iter().position(|anchor| std::ptr::eq(anchor, trusted))?;
        self.certificates.get(index)
    }
}

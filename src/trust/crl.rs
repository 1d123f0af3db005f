//! Certificate revocation lists (RFC 5280, section 5).

use rustls_pki_types::{CertificateRevocationListDer, pem::PemObject as _};
use webpki::{CertRevocationList, EndEntityCert, OwnedCertRevocationList};
use x509_cert::{
    der::{
        self, Decode as _, Reader as _, SliceReader,
        asn1::{AnyRef, BitStringRef},
    },
    time::Time,
};

use super::path::ALGORITHMS;

/// One list. That it is signed by the issuer it names is only known once that one's certificate is.
#[derive(Debug)]
pub(super) struct Crl {
    pub(super) list: CertRevocationList<'static>,
    der: Vec<u8>,
    this_update: u64,
    next_update: u64,
}

/// What stands around the list.
struct Head<'a> {
    signed: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
    this_update: u64,
    next_update: u64,
}

/// The lists of a text: one in DER, or one or more in PEM. The newest first.
pub(super) fn read(text: &[u8]) -> Result<Vec<Crl>, &'static str> {
    // A SEQUENCE in DER; no PEM begins with a digit.
    if text.starts_with(b"0") {
        return Ok(vec![Crl::read(text)?]);
    }
    let mut crls = Vec::new();
    for der in CertificateRevocationListDer::pem_slice_iter(text) {
        crls.push(Crl::read(&der.map_err(|_| "it is no PEM")?)?);
    }
    if crls.is_empty() { Err("it holds no revocation list") } else { Ok(crls) }
}

/// Of two by the same issuer, the newer is asked.
pub(super) fn newest_first(crls: &mut [Crl]) {
    crls.sort_by_key(|crl| std::cmp::Reverse(crl.this_update));
}

/// The lists that `issuer` signed, the newest of each scope.
pub(super) fn of_issuer<'a>(crls: &'a [Crl], issuer: &EndEntityCert<'_>) -> Vec<&'a Crl> {
    let named: Vec<_> = crls.iter().filter(|crl| crl.list.issuer() == issuer.subject()).collect();
    // Verification looks at the signature of the first list under the issuer's name alone. Authorities that share
    // a name, as an old and a new key of the same one do, would stand in each other's way.
    let is_alone = named.len() == 1;
    let mut found: Vec<&Crl> = Vec::new();
    for crl in named {
        let scope = crl.list.issuing_distribution_point();
        let known = found.iter().any(|crl| crl.list.issuing_distribution_point() == scope);
        if !known && (is_alone || crl.is_signed_by(issuer)) {
            found.push(crl);
        }
    }
    found
}

impl Crl {
    fn read(der: &[u8]) -> Result<Self, &'static str> {
        let list = OwnedCertRevocationList::from_der(der)
            .map_err(|_| "it holds a revocation list that can't be read")?;
        let head = Head::read(der).map_err(|_| "it holds a revocation list that is no DER")?;
        let (this_update, next_update) = (head.this_update, head.next_update);
        Ok(Self { list: list.into(), der: der.to_vec(), this_update, next_update })
    }

    /// The last second for which it speaks.
    pub(super) fn ends(&self) -> u64 {
        self.next_update.saturating_sub(1)
    }

    /// Only a choice between lists: verification checks the signature of the one that it uses.
    fn is_signed_by(&self, issuer: &EndEntityCert<'_>) -> bool {
        let Ok(head) = Head::read(&self.der) else { return false };
        let mut fitting =
            ALGORITHMS.iter().filter(|one| one.signature_alg_id().as_ref() == head.algorithm);
        fitting.any(|one| issuer.verify_signature(*one, head.signed, head.signature).is_ok())
    }
}

impl<'a> Head<'a> {
    fn read(der: &'a [u8]) -> der::Result<Self> {
        let mut reader = SliceReader::new(der)?;
        let (signed, algorithm, signature) = reader.sequence(|list| {
            let signed = list.tlv_bytes()?;
            let algorithm = AnyRef::decode(list)?.value();
            let signature = BitStringRef::decode(list)?.raw_bytes();
            Ok::<_, der::Error>((signed, algorithm, signature))
        })?;
        let (this_update, next_update) = SliceReader::new(signed)?.sequence(|signed| {
            let _version = u8::decode(signed)?;
            let _algorithm = AnyRef::decode(signed)?;
            let _issuer = AnyRef::decode(signed)?;
            let times = (Time::decode(signed)?, Time::decode(signed)?);
            signed.read_slice(signed.remaining_len())?;
            Ok::<_, der::Error>(times)
        })?;
        let seconds = |time: Time| time.to_unix_duration().as_secs();
        let (this_update, next_update) = (seconds(this_update), seconds(next_update));
        Ok(Self { signed, algorithm, signature, this_update, next_update })
    }
}

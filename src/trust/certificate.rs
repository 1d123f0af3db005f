//! What path verification does not tell of a certificate.

use std::ops::RangeInclusive;

use rustls_pki_types::CertificateDer;
use x509_cert::{
    Certificate, TbsCertificate,
    der::{Decode, oid::AssociatedOid},
    ext::pkix::{BasicConstraints, ExtendedKeyUsage, SubjectAltName, name::GeneralName},
};

use super::Untrusted;

/// The most certificates of one chain, the leaf among them.
const MAX_CHAIN: usize = 8;
/// The largest certificate, in bytes.
const MAX_CERTIFICATE: usize = 64 * 1024;

/// Bounds what a peer can make us read.
pub(super) fn check_size(
    leaf: &[u8],
    intermediates: &[CertificateDer<'_>],
) -> Result<(), Untrusted> {
    let mut sizes = intermediates.iter().map(|der| der.len()).chain([leaf.len()]);
    if intermediates.len() < MAX_CHAIN && sizes.all(|size| size <= MAX_CERTIFICATE) {
        Ok(())
    } else {
        Err(Untrusted::Malformed)
    }
}

/// The seconds since the epoch in which a certificate is valid.
pub(crate) fn validity(der: &[u8]) -> Result<RangeInclusive<u64>, Untrusted> {
    let certificate = Certificate::from_der(der).map_err(|_| Untrusted::Malformed)?;
    let validity = certificate.tbs_certificate().validity();
    let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
    Ok(seconds(validity.not_before)..=seconds(validity.not_after))
}

/// Whether it says that it is an authority's.
pub(super) fn is_authority(der: &[u8]) -> bool {
    let Ok(certificate) = Certificate::from_der(der) else { return false };
    matches!(extension::<BasicConstraints>(certificate.tbs_certificate()), Ok(Some(c)) if c.ca)
}

/// Whether it lists what its key may be used for.
pub(super) fn lists_usages(der: &[u8]) -> Result<bool, Untrusted> {
    let certificate = Certificate::from_der(der).map_err(|_| Untrusted::Malformed)?;
    Ok(extension::<ExtendedKeyUsage>(certificate.tbs_certificate())?.is_some())
}

/// The trust domain of a leaf's SPIFFE ID, if it has one: what to verify it against. That the ID is well-formed is for
/// those to say who believe it; here it names anchors, or none.
pub(crate) fn trust_domain(leaf: &[u8]) -> Result<Option<String>, Untrusted> {
    if leaf.len() > MAX_CERTIFICATE {
        return Err(Untrusted::Malformed);
    }
    let certificate = Certificate::from_der(leaf).map_err(|_| Untrusted::Malformed)?;
    let names = extension::<SubjectAltName>(certificate.tbs_certificate())?;
    let entries = names.map(|SubjectAltName(entries)| entries).unwrap_or_default();
    let uris = entries.iter().filter_map(|entry| match entry {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
        _ => None,
    });
    let uris: Vec<_> = uris.collect();
    // In any case: `SPIFFE://` is malformed, not absent.
    let is_spiffe = |uri: &&str| {
        uri.split_once(':').is_some_and(|(scheme, _)| scheme.trim().eq_ignore_ascii_case("spiffe"))
    };
    match uris.as_slice() {
        uris if !uris.iter().any(is_spiffe) => Ok(None),
        // X509-SVID, section 2: exactly one URI, of any scheme.
        [uri] => {
            let rest = uri.strip_prefix("spiffe://").ok_or(Untrusted::Malformed)?;
            Ok(rest.split('/').next().map(str::to_owned))
        }
        _ => Err(Untrusted::Malformed),
    }
}

fn extension<'a, T>(tbs: &'a TbsCertificate) -> Result<Option<T>, Untrusted>
where
    T: Decode<'a> + AssociatedOid,
{
    match tbs.get_extension::<T>() {
        Ok(found) => Ok(found.map(|(_critical, extension)| extension)),
        Err(_) => Err(Untrusted::Malformed),
    }
}

//! What a leaf certificate says of its workload.
//!
//! The TLS stack verified the path. This reads the names, strictly: a certificate with one malformed
//! name is refused whole, since what one parser skips another may believe.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha2::{Digest, Sha256};
use x509_cert::{
    Certificate, TbsCertificate, Version,
    der::{
        Decode, Encode as _,
        asn1::{Any, PrintableStringRef, Utf8StringRef},
        oid::{AssociatedOid, db::rfc4519::COMMON_NAME},
    },
    ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName, name::GeneralName},
};

use crate::identity::{
    PeerIdentity,
    peer_rule::{dns, spiffe::SpiffeId},
};

/// The largest leaf that is read, in bytes. A TLS stack that let more through is misconfigured.
const MAX_LEAF: usize = 64 * 1024;

/// Why a certificate can't be used, for the log: never holds a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unusable(pub(super) &'static str);

/// Reads the DER of a leaf.
pub(super) fn read(leaf: &[u8]) -> Result<PeerIdentity, Unusable> {
    if leaf.len() > MAX_LEAF {
        return Err(Unusable("it is larger than 64 KiB"));
    }
    let certificate = Certificate::from_der(leaf).map_err(|_| Unusable("it is no DER"))?;
    let tbs = certificate.tbs_certificate();
    if tbs.extensions().is_some() && tbs.version() != Version::V3 {
        return Err(Unusable("it has extensions but is not of version 3"));
    }
    let mut names = Names::default();
    let alternative_names = extension::<SubjectAltName>(tbs)?;
    if let Some(SubjectAltName(entries)) = &alternative_names {
        names.read(entries)?;
    }
    let spiffe_id = spiffe_id(&names.uris)?.map(str::to_owned);
    if spiffe_id.is_some() {
        check_svid(tbs)?;
    }
    let validity = tbs.validity();
    let public_key = tbs.subject_public_key_info().to_der();
    let public_key = public_key.map_err(|_| Unusable("its public key is no DER"))?;
    Ok(PeerIdentity {
        spiffe_id,
        dns_names: names.dns,
        ip_addresses: names.ips,
        email_addresses: names.emails,
        common_names: common_names(tbs),
        has_alternative_names: alternative_names.is_some(),
        leaf_sha256: Sha256::digest(leaf).into(),
        public_key_sha256: Sha256::digest(public_key).into(),
        issuer_keys_sha256: Vec::new(),
        not_before: validity.not_before.to_unix_duration().as_secs(),
        not_after: validity.not_after.to_unix_duration().as_secs(),
        claimed: None,
    })
}

/// The names of the Subject Alternative Name extension (RFC 5280, section 4.2.1.6).
#[derive(Default)]
struct Names {
    uris: Vec<String>,
    dns: Vec<String>,
    ips: Vec<IpAddr>,
    emails: Vec<String>,
}

impl Names {
    fn read(&mut self, entries: &[GeneralName]) -> Result<(), Unusable> {
        if entries.is_empty() {
            return Err(Unusable("its list of names is empty"));
        }
        entries.iter().try_for_each(|entry| self.read_one(entry))
    }

    fn read_one(&mut self, entry: &GeneralName) -> Result<(), Unusable> {
        match entry {
            GeneralName::UniformResourceIdentifier(uri) => {
                self.uris.push(printable(uri.as_str())?.to_owned());
            }
            GeneralName::DnsName(name) => {
                let name = printable(name.as_str())?;
                match dns::normalised(name) {
                    Some(name) => self.dns.push(name),
                    // Common, and harmless: no rule for a DNS name fits an address.
                    None if dns::is_address(name) => {}
                    None => return Err(Unusable("one of its DNS names is none")),
                }
            }
            GeneralName::IpAddress(octets) => self.ips.push(ip(octets.as_bytes())?),
            GeneralName::Rfc822Name(name) => {
                self.emails.push(printable(name.as_str())?.to_owned());
            }
            _ => {}
        }
        Ok(())
    }
}

/// The SPIFFE ID: none, or the certificate's only URI. One that is not well-formed or has company
/// makes the certificate unusable for anything.
fn spiffe_id(uris: &[String]) -> Result<Option<&str>, Unusable> {
    if !uris.iter().any(|uri| has_spiffe_scheme(uri)) {
        return Ok(None);
    }
    // X509-SVID, section 2: exactly one URI, of any scheme.
    let [uri] = uris else {
        return Err(Unusable("it has a SPIFFE ID and another URI"));
    };
    let id = SpiffeId::parse(uri).map_err(Unusable)?;
    if id.is_trust_domain() {
        // X509-SVID, section 5.2: only an authority's certificate goes without a path.
        return Err(Unusable("its SPIFFE ID names no workload"));
    }
    Ok(Some(uri))
}

/// In any case: `SPIFFE://` is malformed, not absent.
fn has_spiffe_scheme(uri: &str) -> bool {
    uri.split_once(':').is_some_and(|(scheme, _)| scheme.trim().eq_ignore_ascii_case("spiffe"))
}

/// The rules for leaves of X509-SVID, section 4: a leaf signs its own connections and nothing else.
fn check_svid(tbs: &TbsCertificate) -> Result<(), Unusable> {
    if extension::<BasicConstraints>(tbs)?.is_some_and(|constraints| constraints.ca) {
        return Err(Unusable("it is an authority's, not a workload's"));
    }
    let Some(usage) = extension::<KeyUsage>(tbs)? else { return Ok(()) };
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(Unusable("its key may sign certificates or revocation lists"));
    }
    if !usage.digital_signature() {
        return Err(Unusable("its key may not sign"));
    }
    Ok(())
}

/// An extension, if the certificate has it. Twice, or malformed, it makes the certificate unusable.
fn extension<'a, T>(tbs: &'a TbsCertificate) -> Result<Option<T>, Unusable>
where
    T: Decode<'a> + AssociatedOid,
{
    match tbs.get_extension::<T>() {
        Ok(found) => Ok(found.map(|(_critical, extension)| extension)),
        Err(_) => Err(Unusable("one of its extensions is malformed or there twice")),
    }
}

/// The common names of the subject, or none of them where one is in an outdated encoding or holds a control
/// character: then it could pass for another name, or for several.
fn common_names(tbs: &TbsCertificate) -> Vec<String> {
    let read = |value: &Any| {
        let utf8 = value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned());
        let printable = || value.decode_as::<PrintableStringRef<'_>>().map(|text| text.to_string());
        let text = utf8.or_else(|_| printable()).ok()?;
        (!text.chars().any(char::is_control)).then_some(text)
    };
    let names = tbs.subject().iter().filter(|attribute| attribute.oid == COMMON_NAME);
    names.map(|attribute| read(&attribute.value)).collect::<Option<_>>().unwrap_or_default()
}

fn ip(octets: &[u8]) -> Result<IpAddr, Unusable> {
    let v4 = || <[u8; 4]>::try_from(octets).map(|octets| Ipv4Addr::from(octets).into());
    let v6 = || <[u8; 16]>::try_from(octets).map(|octets| Ipv6Addr::from(octets).into());
    v4().or_else(|_| v6()).map_err(|_| Unusable("one of its IP addresses is none"))
}

/// A NUL ends a name for some readers, and a line feed an entry of a log.
fn printable(name: &str) -> Result<&str, Unusable> {
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(name)
    } else {
        Err(Unusable("one of its names is empty or holds a space or a control character"))
    }
}

#[cfg(test)]
mod tests;

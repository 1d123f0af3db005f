//! `Client-Cert` and `Client-Cert-Chain` (RFC 9440): byte sequences of Structured Fields (RFC 9651, section 3.3.5),
//! without parameters.

use rustls_pki_types::CertificateDer;

use super::{MAX_CERTIFICATE, MAX_CERTIFICATES, Malformed, pem};

/// The leaf, and after it the chain.
pub(super) fn read(
    certificate: &str,
    chain: Option<&str>,
) -> Result<Vec<CertificateDer<'static>>, Malformed> {
    let mut found = vec![byte_sequence(certificate)?];
    // A list that is empty is not sent at all (RFC 9651, section 4.1).
    for member in chain.into_iter().flat_map(|chain| chain.split(',')) {
        if found.len() == MAX_CERTIFICATES {
            return Err(Malformed("there are more than 8 certificates"));
        }
        found.push(byte_sequence(member.trim_matches([' ', '\t']))?);
    }
    Ok(found)
}

fn byte_sequence(text: &str) -> Result<CertificateDer<'static>, Malformed> {
    if text.len() > MAX_CERTIFICATE {
        return Err(Malformed("a certificate is larger than 16 KiB"));
    }
    let base64 = text.strip_prefix(':').and_then(|text| text.strip_suffix(':'));
    pem::der(base64.ok_or(Malformed("it is no byte sequence"))?)
}

#[cfg(test)]
mod tests;

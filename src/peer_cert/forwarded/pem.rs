//! Certificates as URL-encoded PEM: nginx, AWS, and within Envoy's header.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustls_pki_types::CertificateDer;

use super::{MAX_CERTIFICATE, MAX_CERTIFICATES, Malformed};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Reads a text that holds one certificate and nothing else.
pub(super) fn one(escaped: &str) -> Result<CertificateDer<'static>, Malformed> {
    if escaped.len() > MAX_CERTIFICATE {
        return Err(Malformed("the certificate is larger than 16 KiB"));
    }
    let text = unescape(escaped)?;
    let (certificate, rest) = block(text.trim_ascii())?;
    if rest.is_empty() {
        Ok(certificate)
    } else {
        Err(Malformed("there is something after the certificate"))
    }
}

/// Reads a text that holds certificates and nothing else, the leaf first.
pub(super) fn several(escaped: &str) -> Result<Vec<CertificateDer<'static>>, Malformed> {
    let text = unescape(escaped)?;
    let mut rest = text.trim_ascii();
    let mut found = Vec::new();
    loop {
        if found.len() == MAX_CERTIFICATES {
            return Err(Malformed("there are more than 8 certificates"));
        }
        let (certificate, after) = block(rest)?;
        found.push(certificate);
        rest = after.trim_ascii_start();
        if rest.is_empty() {
            return Ok(found);
        }
    }
}

/// The certificate that a text begins with (RFC 7468, section 5), and what follows it.
fn block(text: &str) -> Result<(CertificateDer<'static>, &str), Malformed> {
    let after = text.strip_prefix(BEGIN).ok_or(Malformed("it does not begin as PEM does"))?;
    let (lines, rest) = after.split_once(END).ok_or(Malformed("it does not end as PEM does"))?;
    if lines.len() > MAX_CERTIFICATE {
        return Err(Malformed("a certificate is larger than 16 KiB"));
    }
    if !(lines.starts_with(['\r', '\n']) && lines.ends_with('\n')) {
        return Err(Malformed("its PEM has no lines of its own"));
    }
    let base64: String = lines.split(['\r', '\n']).collect();
    Ok((der(&base64)?, rest))
}

/// What a text says in Base64 (RFC 4648, section 4): padded, and in the one way to write it.
pub(super) fn der(base64: &str) -> Result<CertificateDer<'static>, Malformed> {
    match BASE64_STANDARD.decode(base64) {
        Ok(der) if !der.is_empty() => Ok(der.into()),
        Ok(_) => Err(Malformed("a certificate is empty")),
        Err(_) => Err(Malformed("a certificate is no Base64")),
    }
}

/// Undoes percent-encoding, once. A `+` is a plus: AWS leaves it as it is, and nobody here means a space by it.
fn unescape(escaped: &str) -> Result<String, Malformed> {
    const BROKEN: Malformed = Malformed("its percent-encoding is broken");
    let mut bytes = escaped.bytes();
    let mut text = String::with_capacity(escaped.len());
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit().ok_or(BROKEN)?, digit().ok_or(BROKEN)?);
                u8::try_from(high << 4 | low).map_err(|_| BROKEN)?
            }
            _ if byte.is_ascii_graphic() => byte,
            _ => return Err(Malformed("it holds what should have been percent-encoded")),
        };
        if !byte.is_ascii() {
            return Err(Malformed("it encodes what is no ASCII"));
        }
        text.push(char::from(byte));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;

//! Envoy's `X-Forwarded-Client-Cert`.
//!
//! Envoy writes the names of a certificate as they are, so that the client chooses what stands there: a `,` begins
//! another element, a `;` another key. So there may be one element, in which no key of Envoy's own is there twice. A
//! `Cert` that the client adds, where Envoy was not told to write one, must agree with the `Hash` that Envoy always
//! writes.

use std::fmt::Write as _;

use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};

use super::{Malformed, pem};

/// The leaf, and after it the chain.
pub(super) fn read(header: &str) -> Result<Vec<CertificateDer<'static>>, Malformed> {
    let element = Element::parse(header)?;
    let certificate = element.certificate.ok_or(Malformed(
        "it has no Cert: turn on cert in Envoy's set_current_client_cert_details",
    ))?;
    let leaf = pem::one(certificate)?;
    if element.hash != Some(&*fingerprint(&leaf)) {
        return Err(Malformed("its Hash is not that of its Cert"));
    }
    let Some(chain) = element.chain else { return Ok(vec![leaf]) };
    let chain = pem::several(chain)?;
    if chain.first() == Some(&leaf) {
        Ok(chain)
    } else {
        Err(Malformed("its Chain does not begin with its Cert"))
    }
}

/// The parts of an element that count.
#[derive(Default)]
struct Element<'a> {
    hash: Option<&'a str>,
    certificate: Option<&'a str>,
    chain: Option<&'a str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    By,
    Hash,
    Cert,
    Chain,
    Subject,
    Uri,
    Dns,
    Issuer,
}

impl<'a> Element<'a> {
    /// Reads a header that is one element, to the letter as Envoy writes it.
    fn parse(header: &'a str) -> Result<Self, Malformed> {
        let mut element = Self::default();
        let mut seen = Vec::new();
        let mut rest = header;
        loop {
            let (name, after) = rest.split_once('=').ok_or(Malformed("a part has no value"))?;
            let key = Key::parse(name)?;
            // One for each URI of Envoy's own certificate, before all else, and for each DNS name of the client's.
            let may_repeat = key == Key::Dns || key == Key::By && seen == [Key::By];
            if !seen.contains(&key) {
                seen.push(key);
            } else if !may_repeat {
                return Err(Malformed("a key is there twice"));
            }
            let (value, after) = if key.is_quoted() { quoted(after)? } else { bare(after)? };
            match key {
                Key::Hash => element.hash = Some(value),
                Key::Cert => element.certificate = Some(value),
                Key::Chain => element.chain = Some(value),
                _ => {}
            }
            rest = match after.strip_prefix(';') {
                Some(rest) => rest,
                None if after.is_empty() => return Ok(element),
                None => return Err(Malformed("there is another element, or something stray")),
            };
        }
    }
}

impl Key {
    fn parse(name: &str) -> Result<Self, Malformed> {
        Ok(match name {
            "By" => Self::By,
            "Hash" => Self::Hash,
            "Cert" => Self::Cert,
            "Chain" => Self::Chain,
            "Subject" => Self::Subject,
            "URI" => Self::Uri,
            "DNS" => Self::Dns,
            "Issuer" => Self::Issuer,
            _ => return Err(Malformed("a key is unknown")),
        })
    }

    fn is_quoted(self) -> bool {
        matches!(self, Self::Cert | Self::Chain | Self::Subject | Self::Issuer)
    }
}

/// A value in quotes, and what follows it. A backslash before a quote, as in a subject's name, does not end it.
fn quoted(text: &str) -> Result<(&str, &str), Malformed> {
    const UNQUOTED: Malformed = Malformed("a value is not in quotes");
    let text = text.strip_prefix('"').ok_or(UNQUOTED)?;
    let mut is_escaped = false;
    let end = text.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    });
    let (value, rest) = text.split_at_checked(end.ok_or(UNQUOTED)?).ok_or(UNQUOTED)?;
    if value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        Ok((value, rest.strip_prefix('"').ok_or(UNQUOTED)?))
    } else {
        Err(Malformed("a value holds a control character"))
    }
}

/// A value without quotes, and what follows it.
fn bare(text: &str) -> Result<(&str, &str), Malformed> {
    let (value, rest) = text.split_at(text.find([';', ',']).unwrap_or(text.len()));
    let may_stand = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=');
    if value.bytes().all(may_stand) {
        Ok((value, rest))
    } else {
        Err(Malformed("a value holds a quote, a space or another stray mark"))
    }
}

/// In hexadecimal, as Envoy writes it.
fn fingerprint(leaf: &[u8]) -> String {
    Sha256::digest(leaf).iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;

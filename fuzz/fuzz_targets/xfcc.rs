//! Envoy's `X-Forwarded-Client-Cert`: whatever it is, it is read or refused, and a certificate that is read stands in it,
//! whole, with its own hash.
#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use palisade::peer_cert::{Forwarded, read_forwarded};
use palisade_fuzz::{hex_sha256, without_escapes, written};

fuzz_target!(|value: &[u8]| {
    let Ok(header) = HeaderValue::from_bytes(value) else { return };
    let mut headers = HeaderMap::new();
    headers.insert("x-forwarded-client-cert", header.clone());
    let read = read_forwarded(&Forwarded::xfcc(), &headers);
    if let Some(chain) = &read {
        let text = std::str::from_utf8(value).unwrap();
        let plain = without_escapes(text);
        assert!(text.to_ascii_lowercase().contains(&format!("hash={}", hex_sha256(&chain[0]))));
        for certificate in chain {
            assert!(plain.contains(&written(certificate)));
        }
    }
    // Two lines are one too many, whatever they hold.
    headers.append("x-forwarded-client-cert", header);
    assert!(read_forwarded(&Forwarded::xfcc(), &headers).is_none());
});

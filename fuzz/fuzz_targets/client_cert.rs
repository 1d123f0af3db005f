//! `Client-Cert` and `Client-Cert-Chain` of RFC 9440, a line each: read or refused, and what is read is what stands there,
//! to the letter.
#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use palisade::peer_cert::{Forwarded, read_forwarded};
use palisade_fuzz::written;

fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    let mut headers = HeaderMap::new();
    for name in ["client-cert", "client-cert-chain"] {
        let Some(line) = lines.next() else { break };
        let Ok(value) = HeaderValue::from_bytes(line) else { return };
        headers.insert(name, value);
    }
    let Some(chain) = read_forwarded(&Forwarded::client_cert(), &headers) else { return };
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap());
    let (leaf, rest) = chain.split_first().unwrap();
    assert_eq!(text("client-cert").unwrap().trim(), format!(":{}:", written(leaf)));
    let listed = text("client-cert-chain").unwrap_or_default().split(',').map(str::trim);
    let listed: Vec<_> = listed.filter(|item| !item.is_empty()).collect();
    let expected: Vec<_> = rest.iter().map(|der| format!(":{}:", written(der))).collect();
    assert_eq!(listed, expected);
});

//! PEM in URL encoding, as nginx and AWS write it: read or refused, and what is read stands there, whole, between its
//! marks.
#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use palisade::peer_cert::{Forwarded, read_forwarded};
use palisade_fuzz::{without_escapes, written};

fuzz_target!(|value: &[u8]| {
    let Ok(header) = HeaderValue::from_bytes(value) else { return };
    for (source, name) in [
        (Forwarded::nginx(), "ssl-client-cert"),
        (Forwarded::alb(), "x-amzn-mtls-clientcert-leaf"),
        (Forwarded::alb_passthrough(), "x-amzn-mtls-clientcert"),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(name, header.clone());
        headers.insert("ssl-client-verify", HeaderValue::from_static("SUCCESS"));
        let Some(chain) = read_forwarded(&source, &headers) else { continue };
        let plain = without_escapes(std::str::from_utf8(value).unwrap());
        assert_eq!(plain.matches("-----BEGINCERTIFICATE-----").count(), chain.len());
        for certificate in &chain {
            let block = format!("-----BEGINCERTIFICATE-----{}", written(certificate));
            assert!(plain.contains(&block));
        }
        // Without the verdict of the proxy it counts for nothing.
        headers.insert("ssl-client-verify", HeaderValue::from_static("FAILED:x"));
        assert!(name != "ssl-client-cert" || read_forwarded(&source, &headers).is_none());
    }
});

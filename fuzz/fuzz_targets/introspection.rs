//! The answer of an introspection endpoint (RFC 7662): whatever it is, a token passes only if the answer calls it
//! active and says what it must.
#![no_main]

use std::{
    future::Future as _,
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use palisade::{
    future::ReadyOr,
    jwt::{
        AuthErrorKind, FetchError, Introspection, IntrospectionClient, IntrospectionRequest,
        Issuer, Presented, TokenVerifier as _,
    },
};
use palisade_fuzz::{AUDIENCE, NOW, server, unambiguous};
use serde_json::Value;

const ISSUER: &str = "https://login.example";

#[derive(Debug)]
struct Says(Bytes);

impl IntrospectionClient for Says {
    fn introspect(&self, _: &IntrospectionRequest<'_>) -> ReadyOr<Result<Bytes, FetchError>> {
        ReadyOr::ready(Ok(self.0.clone()))
    }
}

fuzz_target!(|answer: &[u8]| {
    let introspection = Introspection::endpoint("https://login.example/introspect");
    let issuer = Issuer::introspected(ISSUER, introspection.authenticated_by_client());
    let server = server()
        .issuer(issuer.audience(AUDIENCE))
        .introspect_by(Says(Bytes::copy_from_slice(answer)))
        .build()
        .unwrap();
    let mut verdict = pin!(server.verify(&Presented::alone("opaque")));
    let Poll::Ready(verdict) = verdict.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    else {
        panic!("no answer at once");
    };
    let read = unambiguous(answer);
    let active = read.as_ref().and_then(|answer| answer.get("active"));
    match verdict {
        Ok(user) => {
            assert_eq!(active, Some(&Value::Bool(true)));
            let answer = read.expect("an answer that reads one way");
            assert_eq!(answer["sub"], user.subject());
            assert!(answer.get("iss").is_none_or(|issuer| issuer == ISSUER));
            let is_ours = |audience: &Value| audience == AUDIENCE;
            let audience = &answer["aud"];
            assert!(is_ours(audience) || audience.as_array().unwrap().iter().any(is_ours));
            let time = |name| answer.get(name).map(|time| time.as_f64().unwrap());
            assert!(time("exp").is_none_or(|end| end > NOW as f64 - 31.0));
            assert!(
                ["nbf", "iat"]
                    .iter()
                    .all(|name| time(name).is_none_or(|at| at <= NOW as f64 + 31.0))
            );
            assert!(!answer.contains_key("cnf"), "a bound token passes as a bearer's");
        }
        // What can't be read is the issuer's fault, not the caller's.
        Err(error) => match active {
            Some(Value::Bool(_)) => assert_eq!(error.kind(), AuthErrorKind::InvalidToken),
            _ => assert_eq!(error.kind(), AuthErrorKind::Unavailable),
        },
    }
});

//! Whose limit it is.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use palisade::{
    Identity,
    identity::UserIdentity,
    jwt::{Algorithm, JwtAuthLayer},
    network::ClientAddress,
    rate_limit::{Scope, Tier, TierLimit, TieredRateLimitLayer},
};
use serde_json::json;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

use crate::{
    jwt_support::{Key, claims, server},
    support::{MINUTE, answer, builder, layer},
};

async fn handler(_: Request<()>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(answer(""))
}

async fn ask(layer: &TieredRateLimitLayer, request: Request<()>) -> u16 {
    layer.layer(service_fn(handler)).oneshot(request).await.unwrap().status().as_u16()
}

fn from(subject: &str, address: &str) -> Request<()> {
    let address: SocketAddr = address.parse().unwrap();
    let user = UserIdentity::asserted("https://login.example", subject);
    let request = Request::post("/generate").extension(address);
    request.extension(Identity::asserted(user)).body(()).unwrap()
}

#[tokio::test]
async fn callers_behind_one_address_have_limits_of_their_own() {
    let layer = layer(Tier::new().requests_per_minute(1));
    assert_eq!(ask(&layer, from("alice", "10.0.0.1:1")).await, 200);
    assert_eq!(ask(&layer, from("bob", "10.0.0.1:2")).await, 200);
    assert_eq!(ask(&layer, from("alice", "10.0.0.2:3")).await, 429);
}

fn per_network() -> Tier {
    Tier::new().limit(TierLimit::requests(1, MINUTE).per([Scope::Network]))
}

#[tokio::test]
async fn what_a_client_writes_into_x_forwarded_for_moves_it_to_no_other_network() {
    let behind = ClientAddress::behind(["10.0.0.0/8"]).unwrap();
    let layer = builder(per_network()).client_address(behind).build().unwrap();
    let forwarded = async |lines: &[&str]| {
        let mut request = from("alice", "10.0.0.1:1");
        for line in lines {
            request.headers_mut().append("x-forwarded-for", line.parse().unwrap());
        }
        ask(&layer, request).await
    };
    assert_eq!(forwarded(&["198.51.100.1"]).await, 200);
    // The same client, whatever it wrote to the left, in however many lines.
    for lines in [
        &["6.6.6.1, 198.51.100.1"][..],
        &["6.6.6.2", "198.51.100.1"],
        &["6.6.6.3", "6.6.6.4, 198.51.100.1"],
        &["6.6.6.5, 198.51.100.1, 10.0.0.9"],
        &["198.51.100.1", "10.0.0.9"],
    ] {
        assert_eq!(forwarded(lines).await, 429, "{lines:?}");
    }
    assert_eq!(forwarded(&["198.51.100.1", "198.51.100.2"]).await, 200);
}

#[tokio::test]
async fn an_address_written_another_way_or_in_the_same_64_is_the_same_network() {
    for (one, other, expected) in [
        ("192.0.2.1:1", "[::ffff:192.0.2.1]:1", 429),
        ("192.0.2.1:1", "[64:ff9b::192.0.2.1]:1", 429),
        ("192.0.2.1:1", "[2002:c000:201::1]:1", 429),
        ("[2001:db8::1]:1", "[2001:db8::ffff:2]:1", 429),
        ("[2001:db8::1]:1", "[2001:db8:0:1::1]:1", 200),
        // Not all of those that are mapped are one.
        ("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:1", 200),
        ("[64:ff9b::192.0.2.1]:1", "[64:ff9b::192.0.2.2]:1", 200),
    ] {
        let layer = layer(per_network());
        assert_eq!(ask(&layer, from("alice", one)).await, 200);
        assert_eq!(ask(&layer, from("alice", other)).await, expected, "{one} {other}");
    }
}

#[tokio::test]
async fn one_credential_in_two_spellings_has_one_limit() {
    let key = Key::new(Algorithm::EdDSA);
    let token = key.token(&claims(json!({})));
    let stack = ServiceBuilder::new()
        .layer(JwtAuthLayer::builder(server(&key)).build().unwrap())
        .layer(layer(Tier::new().requests_per_minute(4)));
    let service = stack.service_fn(handler);
    let ask = async |name: &str, value: String| {
        let request = Request::post("/generate").header(name, value).body(()).unwrap();
        service.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    for (name, scheme, expected) in [
        ("authorization", "Bearer ", 200),
        ("authorization", "bearer ", 200),
        ("authorization", "BEARER   ", 200),
        ("x-api-key", "", 200),
        ("x-api-key", "", 429),
        ("authorization", "Bearer ", 429),
    ] {
        assert_eq!(ask(name, format!("{scheme}{token}")).await, expected, "{name}: {scheme}");
    }
}

#[tokio::test]
async fn an_unverified_credential_is_not_charged_to_its_owner() {
    let (key, own) = (Key::new(Algorithm::EdDSA), Key::new(Algorithm::EdDSA));
    let limits = layer(Tier::new().requests_per_minute(2));
    let service = ServiceBuilder::new()
        .layer(JwtAuthLayer::builder(server(&key)).build().unwrap())
        .layer(limits.clone())
        .service_fn(handler);
    let ask = async |token: &str| {
        let request = Request::post("/generate").header("authorization", format!("Bearer {token}"));
        service.clone().oneshot(request.body(()).unwrap()).await.unwrap().status().as_u16()
    };
    let forged = own.token(&claims(json!({})));
    let expired = key.token(&claims(json!({"exp": 1})));
    for _ in 0..10 {
        assert_eq!(ask(&forged).await, 401);
        assert_eq!(ask(&expired).await, 401);
    }
    let alice = Identity::asserted(UserIdentity::asserted(crate::jwt_support::ISSUER, "alice"));
    assert_eq!(limits.quotas(&alice, None).await.unwrap()[0].remaining, 2);
    let token = key.token(&claims(json!({})));
    assert_eq!(ask(&token).await, 200);
    // It is this one's limit that was looked at.
    assert_eq!(limits.quotas(&alice, None).await.unwrap()[0].remaining, 1);
}

//! A token that is bound to a key serves nobody who does not have the key: RFC 8705 and RFC 9449.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

#[path = "../jwt_support/mod.rs"]
mod jwt_support;
#[path = "../pki/mod.rs"]
mod pki;

mod certificate;
mod client;
mod dpop;

use std::convert::Infallible;

use http::{Request, Response};
use http_body_util::Empty;
use palisade::{
    Identity, Rejection, identity::UserIdentity, jwt::JwtAuthLayer, peer_cert::PeerCertLayer,
};
use tower::{Layer, ServiceExt, service_fn};

type Body = Empty<bytes::Bytes>;
/// Without its body.
type Answer = Response<()>;

/// What the service behind got to see.
#[derive(Clone)]
struct Seen {
    subject: Option<String>,
    headers: http::HeaderMap,
}

async fn echo(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let user = Identity::of(request.extensions()).and_then(Identity::user);
    let subject = user.map(UserIdentity::subject).map(str::to_owned);
    let mut response = Response::new(Body::new());
    response.extensions_mut().insert(Seen { subject, headers: request.headers().clone() });
    Ok(response)
}

/// The answer of one layer, or of `PeerCertLayer` with that layer behind.
async fn ask(peer: Option<&PeerCertLayer>, jwt: &JwtAuthLayer, request: Request<Body>) -> Answer {
    let service = jwt.layer(service_fn(echo));
    let parts = match peer {
        None => service.oneshot(request).await.unwrap().into_parts().0,
        Some(peer) => peer.layer(service).oneshot(request).await.unwrap().into_parts().0,
    };
    Response::from_parts(parts, ())
}

fn seen(answer: &Answer) -> &Seen {
    answer.extensions().get().expect("the request passed")
}

/// The code of a refusal, or `passed`.
fn code(answer: &Answer) -> &'static str {
    answer.extensions().get::<Rejection>().map_or("passed", Rejection::code)
}

fn challenges(answer: &Answer) -> Vec<&str> {
    let values = answer.headers().get_all("www-authenticate").iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

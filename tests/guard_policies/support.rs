//! The real layers around a guard, and who asks through them.

use std::{convert::Infallible, fmt::Debug, sync::OnceLock, time::Duration};

use bytes::Bytes;
use http::{Request, Response, response};
use http_body::Body;
use http_body_util::BodyExt;
use palisade::{
    Rejection, Stack,
    identity::PeerRule,
    jwt::{Algorithm, JwtAuthLayer},
    peer_cert::PeerCertLayer,
    prompt_guard::{Action, GuardPolicy, GuardPolicyBuilder, PromptGuardLayerBuilder, Verdict},
    rate_limit::{Scope, Tier, TierLimit, TieredRateLimitLayer},
    store::Stores,
};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use tower::{Layer, Service, ServiceExt};

pub(crate) use crate::guarded::{AnyBody, CHAT, EVIL, Inner, KEY, MAIL, chat, full, guard, post};
use crate::{
    jwt_support::{Key, claims, clock, server_at},
    pki::{Authority, GATEWAY, OUTSIDER},
};

/// An answer that was read to its end.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) head: response::Parts,
    pub(crate) body: Bytes,
}

impl Answered {
    pub(crate) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    pub(crate) fn verdict(&self) -> &Verdict {
        self.head.extensions.get().expect("no verdict")
    }

    /// The code of the refusal, or the policy that let it pass.
    pub(crate) fn policy(&self) -> &str {
        match self.head.extensions.get::<Rejection>() {
            Some(rejection) => rejection.code(),
            None => self.verdict().policy(),
        }
    }
}

/// Who asks.
#[derive(Clone, Default)]
pub(crate) struct Who {
    token: Option<String>,
    chain: Vec<CertificateDer<'static>>,
}

impl Who {
    /// A caller with these claims, from the gateway.
    pub(crate) fn with(change: Value) -> Self {
        Self { token: Some(key().token(&claims(change))), chain: chains().0.clone() }
    }

    pub(crate) fn anybody() -> Self {
        Self::with(json!({}))
    }

    pub(crate) fn without_token(mut self) -> Self {
        self.token = None;
        self
    }

    /// The same from another workload.
    pub(crate) fn outside(mut self) -> Self {
        self.chain = chains().1.clone();
        self
    }

    pub(crate) fn asks(&self, path: &str, text: &str) -> Request<AnyBody> {
        let mut request = post(path, chat(text));
        if let Some(token) = &self.token {
            let token = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert("authorization", token);
        }
        request.extensions_mut().insert(self.chain.clone());
        request
    }
}

/// A key and certificates, made once for all tests.
fn key() -> &'static Key {
    static KEY: OnceLock<Key> = OnceLock::new();
    KEY.get_or_init(|| Key::new(Algorithm::EdDSA))
}

type Chain = Vec<CertificateDer<'static>>;

fn chains() -> &'static (Chain, Chain) {
    static CHAINS: OnceLock<(Chain, Chain)> = OnceLock::new();
    CHAINS.get_or_init(|| {
        let authority = Authority::new("root");
        (authority.workload(GATEWAY).chain(), authority.workload(OUTSIDER).chain())
    })
}

pub(crate) fn peers() -> PeerCertLayer {
    let all = PeerRule::trust_domain("prod.example").unwrap();
    PeerCertLayer::builder().allow(all).build().unwrap()
}

/// Anonymous callers may pass, with the tier `free`.
pub(crate) fn tokens() -> JwtAuthLayer {
    let issuer = key().issuer().roles_from("/realm/roles");
    let server = server_at(clock()).issuer(issuer).build().unwrap();
    JwtAuthLayer::builder(server).insecure_optional().build().unwrap()
}

pub(crate) fn limits() -> TieredRateLimitLayer {
    let each = TierLimit::requests(1000, Duration::from_secs(60)).per([Scope::Workload]);
    let tier = || Tier::new().limit(each.clone());
    TieredRateLimitLayer::builder(&Stores::in_memory())
        .tier("free", tier())
        .tier("paid", tier())
        .tier_by(|identity| identity.user().and_then(|user| user.claims().str("tier")))
        .fallback_tier("free")
        .build()
        .unwrap()
}

/// Through all four layers.
pub(crate) async fn through_all(
    guard: PromptGuardLayerBuilder,
    request: Request<AnyBody>,
) -> Answered {
    let stack = Stack::new()
        .peer_cert(peers())
        .jwt(tokens())
        .rate_limit(limits())
        .prompt_guard(guard.build().unwrap());
    through(stack, request).await
}

/// Through these layers to a service that answers `ok`.
pub(crate) async fn through<L, R>(layers: L, request: Request<AnyBody>) -> Answered
where
    L: Layer<Handler>,
    L::Service: Service<Request<AnyBody>, Response = Response<R>, Error = Infallible>,
    R: Body<Data = Bytes, Error: Debug>,
{
    answered(layers.layer(handler(|| Response::new(full("ok")))), request).await
}

/// A service that answers so, whatever it is asked.
pub(crate) fn handler(answer: fn() -> Response<AnyBody>) -> Handler {
    tower::util::BoxCloneSyncService::new(Inner::default().answering(answer))
}

pub(crate) type Handler = tower::util::BoxCloneSyncService<
    Request<palisade::body::RequestBody<AnyBody>>,
    Response<AnyBody>,
    Infallible,
>;

pub(crate) async fn answered<S, R>(service: S, request: Request<AnyBody>) -> Answered
where
    S: Service<Request<AnyBody>, Response = Response<R>, Error = Infallible>,
    R: Body<Data = Bytes, Error: Debug>,
{
    let (head, body) = service.oneshot(request).await.unwrap().into_parts();
    Answered { head, body: body.collect().await.unwrap().to_bytes() }
}

/// Reports what is evil.
pub(crate) fn reports() -> GuardPolicyBuilder {
    GuardPolicy::builder().detector(EVIL, Action::Report)
}

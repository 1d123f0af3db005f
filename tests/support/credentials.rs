//! A gateway's certificate and an issuer's key, made at run time, and the layers that know them.

use std::{net::SocketAddr, sync::Arc};

use http::Request;
use palisade::{
    connection::TlsPeer,
    jwt::{Algorithm, Issuer, JwtAuthLayer, KeySet, ResourceServer},
    peer_cert::{PeerCertLayer, PeerRule},
};

const SPIFFE_ID: &str = "spiffe://prod.example/ns/edge/sa/gateway";
const ISSUER: &str = "https://login.example";
const AUDIENCE: &str = "https://llm.example";

/// What callers are known by.
pub(crate) struct Credentials {
    key: jsonwebtoken::EncodingKey,
    server: ResourceServer,
    peer: TlsPeer,
}

#[allow(dead_code)]
impl Credentials {
    pub(crate) fn new() -> Self {
        // Both signature backends may be on, and jsonwebtoken then signs with neither.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let keys = KeySet::pem(Some("test"), Algorithm::ES256, &pair.public_key_pem()).unwrap();
        let issuer = Issuer::jwks(ISSUER, keys).audience(AUDIENCE);
        let server = ResourceServer::builder().issuer(issuer).build().unwrap();
        Self {
            key: jsonwebtoken::EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap(),
            server,
            peer: peer(),
        }
    }

    /// An access token as RFC 9068 has it, for an hour.
    pub(crate) fn token(&self, subject: &str, tier: &str) -> String {
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        header.typ = Some("at+jwt".into());
        header.kid = Some("test".into());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let claims = serde_json::json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "client_id": "test", "jti": subject,
            "iat": now.as_secs(), "exp": now.as_secs() + 3600, "tier": tier,
        });
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }

    /// A request to `/generate`, with a token, from the gateway's connection.
    pub(crate) fn request<B>(&self, token: &str, body: B) -> Request<B> {
        let mut request = Request::post("/generate")
            .header("authorization", format!("Bearer {token}"))
            .body(body)
            .unwrap();
        request.extensions_mut().insert(self.peer());
        request
    }

    /// What a TLS listener would leave.
    pub(crate) fn peer(&self) -> TlsPeer {
        self.peer.clone()
    }

    pub(crate) fn resource_server(&self) -> ResourceServer {
        self.server.clone()
    }

    pub(crate) fn jwt(&self) -> JwtAuthLayer {
        JwtAuthLayer::new(self.server.clone())
    }

    /// Lets the gateway in.
    pub(crate) fn peer_cert(&self) -> PeerCertLayer {
        let gateway = PeerRule::spiffe(SPIFFE_ID).unwrap();
        PeerCertLayer::builder().allow(gateway).build().unwrap()
    }
}

fn peer() -> TlsPeer {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI(SPIFFE_ID.try_into().unwrap())];
    let certificate = params.self_signed(&key).unwrap();
    let chain: Arc<[_]> = Arc::new([certificate.der().clone()]);
    TlsPeer::verified(SocketAddr::from(([127, 0, 0, 1], 1)), Some(chain.into()))
}

//! Who is calling: an OAuth 2.0 resource server in a layer.
//!
//! [`JwtAuthLayer`] asks of every guarded request one access token that holds, and leaves the caller in
//! the request's [`Identity`](crate::Identity). [`ResourceServer`] tells which tokens hold: JWTs of the
//! issuers it was given, signed by their keys, for this audience, of the right kind, now. An application
//! that knows its tokens otherwise writes its own [`TokenVerifier`].
//!
//! # Example
//! ```
//! use http::{Request, Response, StatusCode};
//! use palisade::{
//!     Identity, Secret,
//!     jwt::{Algorithm, Issuer, JwtAuthLayer, ResourceServer},
//! };
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let random_bytes = vec![7; 32];
//! // Or `Issuer::discover`, which finds the issuer's public keys, or `Issuer::jwks`, with keys at hand.
//! let secret = Secret::new(random_bytes);
//! let issuer = Issuer::secret("https://login.example", Algorithm::HS256, &secret)
//!     .audience("https://llm.example");
//! let server = ResourceServer::builder().issuer(issuer).build()?;
//! let service = ServiceBuilder::new()
//!     .layer(JwtAuthLayer::builder(server).require_scopes(["llm:infer"]).build()?)
//!     .service(service_fn(|request: Request<String>| async move {
//!         let user = Identity::of(request.extensions()).and_then(Identity::user);
//!         let name = user.map(|user| user.subject().to_owned()).unwrap_or_default();
//!         Ok::<_, std::convert::Infallible>(Response::new(name))
//!     }));
//!
//! let refused = service.clone().oneshot(Request::post("/generate").body(String::new())?).await?;
//! assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
//! # let token = {
//! #     use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
//! #     use jsonwebtoken::{Algorithm, EncodingKey, crypto::aws_lc::DEFAULT_PROVIDER};
//! #     let now = std::time::UNIX_EPOCH.elapsed()?.as_secs();
//! #     let claims = format!(
//! #         r#"{{"iss":"https://login.example","aud":"https://llm.example","sub":"alice",
//! #         "client_id":"app","jti":"1","iat":{now},"exp":{},"scope":"llm:infer"}}"#, now + 60);
//! #     let header = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"at+jwt"}"#);
//! #     let signed = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(claims));
//! #     let key = EncodingKey::from_secret(&[7; 32]);
//! #     let signer = (DEFAULT_PROVIDER.signer_factory)(&Algorithm::HS256, &key)?;
//! #     let signature = jsonwebtoken::signature::Signer::try_sign(&*signer, signed.as_bytes())?;
//! #     format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
//! # };
//! let request = Request::post("/generate")
//!     .header("authorization", format!("Bearer {token}"))
//!     .body(String::new())?;
//! assert_eq!(service.oneshot(request).await?.status(), StatusCode::OK);
//! # Ok(())
//! # }
//! ```
//!
//! # What is answered
//! | the request | answer | `WWW-Authenticate` |
//! |---|---|---|
//! | carries no credential, or one of another scheme | 401 | `Bearer realm`, and `scope` where one is needed |
//! | carries several credentials, or none that can be read | 400 | `error="invalid_request"` |
//! | carries a token that does not hold | 401 | `error="invalid_token"` |
//! | carries a token that grants too little | 403 | `error="insufficient_scope"`, `scope` where one would help |
//! | comes from a peer that may not carry tokens of this issuer | 403 | |
//! | comes from a network that got too many tokens wrong | 429, `Retry-After` | |
//! | lacks the DPoP proof that its token needs, or has a bad one | 401 | `DPoP error="invalid_dpop_proof"`, `algs` |
//! | has a DPoP proof without the server's nonce | 401 | `DPoP error="use_dpop_nonce"`, `algs` |
//! | can't be judged at the moment | 503 | |
//!
//! Over gRPC these are the statuses 16, 3, 16, 7, 7, 8, 16, 16 and 14, in an answer of headers alone. Where
//! [`dpop`](ResourceServerBuilder::dpop) is on, every challenge has a second `WWW-Authenticate` for the scheme
//! `DPoP`; errors are told under the scheme that the request used.
//!
//! # Where the token comes from
//! The one `Authorization: Bearer` (or `DPoP`) header, or the one `x-api-key`, which Anthropic's clients send:
//! both at once are refused, since two servers might each believe the other one. Never the query, a cookie or the
//! body. By default the token goes no further than this layer.
//!
//! # What is held against a token
//! At most 16 KiB; three parts of strict base64url; JSON in which no name stands twice; no `crit`,
//! `b64`, `zip` or `enc`; an allowed algorithm; `iss`, `aud`, `exp`, `sub`, `nbf`, `iat` and their types; at
//! most a day of life; `typ` and claims of its issuer's [`AccessTokenProfile`]; the one key that fits by
//! `kid`, `alg`, `kty`, `crv`, `use` and `key_ops`; the signature. Keys or links to keys in the token are
//! ignored.
//!
//! Verified tokens are remembered by their SHA-256; a remembered one is still held against the clock, and
//! against the request where it is bound to a key.
//! ES256 signatures are malleable, so two different token strings may say the same: whoever keeps a list of
//! used or revoked tokens goes by issuer and `jti`, not by the string.
//!
//! # Tokens that are bound to a key
//! A bearer token serves whoever has it, a thief too. A token whose claim `cnf` binds it to a key serves only
//! who shows the key, and is refused unless all that it is bound to is checked:
//!
//! - `x5t#S256` (RFC 8705), a client certificate: with [`Confirmation::Enforce`] the token holds for the peer
//!   with this certificate, as `PeerCertLayer` has found it: the one at the other end of the connection, or, by
//!   [`CertificateHolder`], the one whose certificate a proxy forwarded. Without that layer outside, nobody has it.
//! - `jkt` (RFC 9449), a key of the client's: with [`DpopOptions`] the token holds under the scheme `DPoP`, with
//!   one proof in the header `DPoP`: at most 8 KiB of strict JWS of the type `dpop+jwt`, signed with an allowed
//!   algorithm by the public key in it, which is as strong as an issuer's must be and is the token's; for this
//!   method, this address and this token; made within the last minute; never used before, by this server or any
//!   that shares its store; with the server's nonce if it asks for one. A proof counts as used once all else about
//!   it holds. While the store can't be asked the answer is 503.
//! - anything else is refused.
//!
//! A token that is bound to both needs both. A token with `jkt` under the scheme `Bearer`, and one without it
//! under the scheme `DPoP`, are refused: either would be a way around the proof. [`Confirmation::Require`]
//! refuses tokens that are bound to nothing.
//!
//! ```
//! use palisade::{
//!     jwt::{Confirmation, DpopOptions, Issuer, KeySet, ResourceServer},
//!     store::Stores,
//! };
//!
//! # fn build(keys: KeySet) -> Result<(), Box<dyn std::error::Error>> {
//! let stores = Stores::in_memory();
//! let server = ResourceServer::builder()
//!     .issuer(Issuer::jwks("https://login.example", keys).audience("https://llm.example"))
//!     .confirmation(Confirmation::Enforce)
//!     // What clients call this server, whatever it is called behind a proxy.
//!     .dpop(DpopOptions::new("https://llm.example").stores(&stores))
//!     .build()?;
//! # Ok(())
//! # }
//! ```
//!
//! # API keys
//! Every client of an OpenAI-compatible server sends a key as its bearer. [`ApiKeyFile`] makes such keys,
//! `sk-pal-…`, and keeps their keyed hashes in a file; [`ApiKeyStore`] does so in the store, where many servers share
//! them. [`ApiKeys`] accepts either's, alone (`JwtAuthLayer::builder(keys)`) or beside tokens
//! (`JwtAuthLayer::builder(keys.or(server))`), told apart by their prefix alone. They give the same identity as
//! tokens: subject, tier, scopes, end. A change of the file counts within about a second, one in the store within
//! 10: as long as that a server takes the store's last answer, so that a key in use costs no round trip.
//!
//! # Revocation
//! [`Revocations`] ends tokens and keys before their time: one by issuer and id, or all of a subject that were
//! issued before some time. They stand in the store that the processes of a server share. Each keeps the
//! store's last answers for at most 10 seconds, which is how long a revocation may take to count elsewhere,
//! and what spares a token in use the round trip. If the store does not answer, tokens are refused with 503
//! once the last answer is older than that.
//!
//! # Tokens that say nothing
//! Some issuers give out tokens that only they understand. [`Introspection`] asks the issuer about them (RFC 7662):
//! beside its JWTs with [`Issuer::introspection`], or about all of its tokens with [`Issuer::introspected`]. What it
//! answers is held against the same rules, and counts for 30 seconds. Requests that show the same token share one
//! question; while there is no answer, and beyond 256 questions at a time, they get 503. An answer that a token
//! does not hold is not kept, so whoever may send tokens can have the issuer asked: [`throttle_failures`] bounds it.
//!
//! # Who may do what
//! A [`Policy`] asks for scopes, roles, claims and alternatives of these: for all requests or by path in
//! this layer, or on a route of its own with [`RequireAccess`]. What is missing is named in the challenge,
//! of alternatives the first that more scopes would satisfy. Handlers read `UserIdentity`, or take what the
//! token says as a type of theirs: `Claims::get`.
//!
//! # MCP clients
//! They find out from the server where to get a token: give the layer its [`ProtectedResourceMetadata`], and it
//! answers for it without a token and names it in its challenges. The layer must stand on the outermost router, since
//! nested ones see a part of the path.
//!
//! # Guessing, and tokens that end
//! [`throttle_failures`] bounds how often a network may be wrong, and
//! [`end_streams_at_expiry`](JwtAuthLayerBuilder::end_streams_at_expiry) how long an answer may outlive its token.
//! Both are off by default.
//!
//! # What a proxy in front can break
//! A proxy that sets its own `Authorization`, or adds one to a request that has one, causes 401 and 400.
//! A proxy that normalises paths is fine; scope rules read a path in every way it may be meant, but a server
//! behind that ignores case needs a rule for each spelling, or [`require_scopes`] for all paths.
//!
//! A DPoP proof is for the address that the client used: where a proxy, or axum's `nest`, takes a path away,
//! [`DpopOptions::new`] is told of it; where paths are rewritten otherwise, no proof fits. Where TLS ends at
//! a proxy, there is no certificate here to hold a token against.
//!
//! [`require_scopes`]: JwtAuthLayerBuilder::require_scopes
//! [`throttle_failures`]: JwtAuthLayerBuilder::throttle_failures

mod algorithm;
mod any_of;
mod api_key;
mod cache;
mod challenge;
mod claims;
mod compact;
mod confirmation;
mod credentials;
mod crypto;
mod discovery;
mod dpop;
mod facts;
mod fetch;
mod future;
mod health;
#[cfg(feature = "http-client")]
mod http_fetch;
mod introspection;
mod issuer;
mod json;
mod jwk;
mod key_flight;
mod key_source;
mod keys;
mod layer;
mod metadata;
mod pem;
mod policy;
mod refetch_budget;
mod remote_keys;
mod replica;
mod require;
mod resource_server;
mod revocation;
mod scopes;
mod service;
mod strength;
mod throttle;
mod verification;
mod verified;
mod verifier;

#[cfg(feature = "http-client")]
pub use self::http_fetch::HttpFetch;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub use self::resource_server::verify_signature;
pub use self::{
    algorithm::Algorithm,
    any_of::AnyOf,
    api_key::{
        ApiKeyError, ApiKeyFile, ApiKeyListing, ApiKeyRecord, ApiKeyState, ApiKeyStore, ApiKeyUse,
        ApiKeys, IssuedApiKey, ListedApiKey, NewApiKey,
    },
    claims::AccessTokenProfile,
    confirmation::{CertificateHolder, Confirmation},
    crypto::CryptoBackend,
    dpop::{DpopOptions, DpopVerifier},
    fetch::{FetchError, KeySetFetch},
    future::JwtAuthFuture,
    health::IssuerHealth,
    introspection::{Introspection, IntrospectionClient, IntrospectionRequest},
    issuer::Issuer,
    keys::{KeySet, SkippedKey},
    layer::{JwtAuthLayer, JwtAuthLayerBuilder},
    metadata::{MetadataService, ProtectedResourceMetadata},
    policy::{ClaimTest, ClaimValue, Missing, Policy},
    require::{RequireAccess, RequireAccessBuilder},
    resource_server::{ResourceServer, ResourceServerBuilder},
    revocation::{Revocable, Revocations},
    service::JwtAuth,
    verifier::{AuthError, AuthErrorKind, Presented, Scheme, TokenVerifier},
};
use self::{facts::Facts, verified::Verified, verifier::Reason};

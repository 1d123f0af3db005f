//! `JwtAuthLayer` beside the layers of `tower-oauth2-resource-server` and `jwt-authorizer`, in one run.
//!
//! `scripts/bench peers [PART OF A LINE'S NAME]`. Each layer stands over the same service, which answers
//! at once; each has the same static key set and checks the same issuer, audience and times. What is
//! timed is a request's way through the whole service, its future polled to the end and its answer
//! dropped; building the request is not. Every answer's status is checked, so that no error path is
//! measured by mistake. On two threads, each sends as many requests as one alone would, and the time
//! is from the first one's start to the last one's end.
//!
//! The peers remember no tokens: what is a hit here costs them a signature every time.
//! tower-oauth2-resource-server verifies by aws-lc-rs, as palisade does, and jwt-authorizer by ring, the
//! only one that it knows. That a hit allocates nothing is held by `tests/allocations.rs`.
//!
//! Not by criterion, which measures one after the other: on a machine that does other things too, the
//! ratios would be of its moods.

mod issuer;
mod report;
mod timing;

use std::{env, hint::black_box, time::Instant};

use http::{HeaderValue, StatusCode};
use issuer::{AUDIENCE, ISSUER, TestIssuer};
use jsonwebtoken::Algorithm;
use jwt_authorizer::{IntoLayer as _, JwtAuthorizer, RegisteredClaims};
use palisade::jwt::{
    self, JwtAuth, JwtAuthLayer, KeySet, Presented, ResourceServer, TokenVerifier,
};
use timing::{Bare, Case, Repeat, compare, now};
use tower::Layer as _;
use tower_oauth2_resource_server::{
    claims::DefaultClaims, layer::OAuth2ResourceServerService, server::OAuth2ResourceServer,
    tenant::TenantConfiguration, validation::ClaimsValidationSpec,
};

const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];

/// Tokens that `churning` remembers, and how many there are: by the time one comes again it has long
/// been replaced.
const CACHE: usize = 512;
const POOL: usize = 4 * CACHE;

/// The services that are compared.
struct Services {
    /// As it comes: up to 8192 tokens are remembered.
    remembering: (ResourceServer, JwtAuth<Bare>),
    /// Remembers so few tokens that each new one takes the place of another.
    churning: (ResourceServer, JwtAuth<Bare>),
    /// Remembers nothing.
    forgetful: (ResourceServer, JwtAuth<Bare>),
    oauth2: OAuth2ResourceServerService<Bare, axum::body::Body, DefaultClaims>,
    authorizer: jwt_authorizer::layer::AuthorizationService<Bare, RegisteredClaims>,
}

impl Services {
    fn new(key_set: &str) -> Self {
        let server = || ResourceServer::builder().issuer(palisade_issuer(key_set));
        let palisade = |builder: jwt::ResourceServerBuilder| {
            let server = builder.build().unwrap();
            (server.clone(), JwtAuthLayer::new(server).layer(Bare))
        };
        Self {
            remembering: palisade(server()),
            churning: palisade(server().token_cache(CACHE)),
            forgetful: palisade(server().token_cache(0)),
            oauth2: oauth2(key_set),
            authorizer: authorizer(key_set),
        }
    }

    /// All three crates, palisade by one of its services.
    fn compare(&self, palisade: &JwtAuth<Bare>, case: Case<'_>) {
        let (oauth2, authorizer) = (case.through(&self.oauth2), case.through(&self.authorizer));
        let times = compare([case.through(palisade), oauth2, authorizer]);
        report::compared(&case.name(), times);
    }
}

fn main() {
    // Cargo adds `--bench`.
    let filter = env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wanted = |name: &str| filter.as_ref().is_none_or(|filter| name.contains(filter));
    let issuer = TestIssuer::new(&ALGORITHMS);
    let services = Services::new(&issuer.key_set());
    let columns = ["palisade", "tower-oauth2-r.-s.", "jwt-authorizer"];
    report::heading("Microseconds for a request", &columns);
    for algorithm in ALGORITHMS {
        let same = [issuer.bearer(algorithm)];
        let pool: Vec<_> = (0..POOL).map(|_| issuer.bearer(algorithm)).collect();
        check_memory(&services, &same, &pool);
        let (forged, unknown) = ([issuer.forged(algorithm)], [issuer.unknown(algorithm)]);

        let Services { remembering, churning, forgetful, .. } = &services;
        let (ok, unauthorized) = (StatusCode::OK, StatusCode::UNAUTHORIZED);
        for (what, palisade, tokens, status, most_threads) in [
            ("hit", remembering, &same[..], ok, 2),
            ("miss, without a cache", forgetful, &pool, ok, 2),
            ("miss, and remembered", churning, &pool, ok, 2),
            ("forged signature", remembering, &forged, unauthorized, 1),
            ("unknown kid", remembering, &unknown, unauthorized, 1),
        ] {
            for threads in 1..=most_threads {
                let case = Case { what, algorithm, tokens, status, threads };
                if wanted(&case.name()) {
                    services.compare(&palisade.1, case);
                }
            }
        }
        verify_alone(&remembering.0, algorithm, &same[0], wanted);
    }
    let tokens = &[issuer.bearer(Algorithm::RS256)];
    let what = "the service without a layer";
    let case =
        Case { what, algorithm: Algorithm::RS256, tokens, status: StatusCode::OK, threads: 1 };
    if wanted(what) {
        let [time] = compare([case.through(&Bare)]);
        report::alone(what, time);
    }
}

/// A hit without HTTP around it.
fn verify_alone(
    server: &ResourceServer,
    algorithm: Algorithm,
    bearer: &HeaderValue,
    wanted: impl Fn(&str) -> bool,
) {
    let presented = Presented::alone(token(bearer));
    let name = format!("verify alone, a hit, {algorithm:?}, {} bytes", presented.token.len());
    if !wanted(&name) {
        return;
    }
    assert!(server.remembers(&presented));
    let verify: Repeat<'_> = Box::new(|times| {
        let began = Instant::now();
        for _ in 0..times {
            assert!(black_box(server).verify(black_box(&presented)).try_now().unwrap().is_ok());
        }
        began.elapsed()
    });
    let [time] = compare([verify]);
    report::alone(&name, time);
}

/// Hits are hits, and misses are misses.
fn check_memory(services: &Services, same: &[HeaderValue], pool: &[HeaderValue]) {
    let verify = |server: &ResourceServer, bearer: &HeaderValue| {
        let presented = Presented::alone(token(bearer));
        let remembered = server.remembers(&presented);
        assert!(now(server.verify(&presented)).is_ok());
        remembered
    };
    assert!(
        !verify(&services.remembering.0, &same[0]) && verify(&services.remembering.0, &same[0])
    );
    for bearer in pool.iter().chain(pool) {
        assert!(!verify(&services.churning.0, bearer));
        assert!(services.churning.0.remembers(&Presented::alone(token(bearer))));
    }
    assert!(!verify(&services.forgetful.0, &same[0]) && !verify(&services.forgetful.0, &same[0]));
}

fn token(bearer: &HeaderValue) -> &str {
    bearer.to_str().unwrap().strip_prefix("Bearer ").unwrap()
}

fn palisade_issuer(key_set: &str) -> jwt::Issuer {
    use jwt::Algorithm::{ES256, ES384, EdDSA, PS256, RS256};
    let keys = KeySet::from_json(key_set).unwrap();
    assert_eq!(keys.len(), ALGORITHMS.len());
    let issuer = jwt::Issuer::jwks(ISSUER, keys).audience(AUDIENCE);
    issuer.algorithms([RS256, PS256, ES256, ES384, EdDSA])
}

fn oauth2(key_set: &str) -> OAuth2ResourceServerService<Bare, axum::body::Body, DefaultClaims> {
    let claims = ClaimsValidationSpec::recommended(ISSUER, &vec![AUDIENCE.to_owned()]);
    let tenant = TenantConfiguration::static_builder(key_set).claims_validation(claims);
    let builder = <OAuth2ResourceServer>::builder().add_tenant(tenant.build().unwrap());
    now(builder.build()).unwrap().into_layer().layer(Bare)
}

fn authorizer(
    key_set: &str,
) -> jwt_authorizer::layer::AuthorizationService<Bare, RegisteredClaims> {
    let validation = jwt_authorizer::Validation::new().iss(&[ISSUER]).aud(&[AUDIENCE]).nbf(true);
    let builder = JwtAuthorizer::<RegisteredClaims>::from_jwks_text(key_set).validation(validation);
    now(builder.build()).unwrap().into_layer().layer(Bare)
}

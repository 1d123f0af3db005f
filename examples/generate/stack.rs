//! The four layers, as the command line wants them.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use palisade::{
    BoxError, Routes, Secret, Stack,
    jwt::{ApiKeyFile, ApiKeyStore, ApiKeys, Issuer, JwtAuthLayer, KeySet, ResourceServer},
    peer_cert::{PeerCertLayer, PeerRule},
    prompt_guard::{Action, InjectionRules, PersonalData, PromptGuardLayer, Secrets},
    rate_limit::{Tier, TieredRateLimitLayer},
    store::{Pepper, RedisStore, Stores},
};

use crate::{config::Config, dev};

/// Puts the layers around the application, whose answers have `default_tokens` where a request does not say how many. What
/// `routes` exempt is open to everybody.
pub(crate) fn guarded(
    app: Router,
    default_tokens: u64,
    routes: Routes,
    config: &Config,
    stores: &Stores,
    tokens: ResourceServer,
    keys: Option<ApiKeys>,
) -> Result<Router, BoxError> {
    let jwt = match keys {
        Some(keys) => JwtAuthLayer::builder(keys.or(tokens)),
        None => JwtAuthLayer::builder(tokens),
    };
    let mut jwt = jwt.routes(routes.clone());
    if !config.require_scope.is_empty() {
        jwt = jwt.require_scopes(config.require_scope.iter().cloned());
    }
    let jwt = jwt.build()?;

    let limits = TieredRateLimitLayer::builder(stores)
        .default_output_tokens(default_tokens)
        .routes(routes.clone());
    let read = |text: &str| toml::from_str::<BTreeMap<String, Tier>>(text);
    let limits = match &config.tiers {
        Some(file) => limits.tiers_file(file, read),
        None => limits.tiers(default_tiers()).fallback_tier("free"),
    };
    let limits = match &config.fallback_tier {
        Some(tier) => limits.fallback_tier(tier),
        None => limits,
    };
    let rate_limit = limits.build()?;

    let prompt_guard = PromptGuardLayer::builder()
        .detector(InjectionRules::builtin()?, Action::Block)
        .detector(Secrets::builtin()?, Action::Redact)
        .detector(PersonalData::builder().build()?, Action::Redact)
        .default_output_tokens(default_tokens)
        .routes(routes.clone())
        .build()?;

    let stack = Stack::new().jwt(jwt).rate_limit(rate_limit).prompt_guard(prompt_guard);
    if config.allow_peer.is_empty() {
        return Ok(app.layer(stack));
    }
    let mut peers = PeerCertLayer::builder().routes(routes);
    for id in &config.allow_peer {
        peers = peers.allow(PeerRule::spiffe(id)?);
    }
    Ok(app.layer(stack.peer_cert(peers.build()?)))
}

/// Where limits and keys are kept.
pub(crate) async fn stores(config: &Config) -> Result<Stores, BoxError> {
    if config.store == "memory" {
        return Ok(Stores::in_memory());
    }
    let redis = RedisStore::builder(&config.store)
        .connect()
        .await
        .map_err(|error| format!("--store: {error}"))?;
    let pepper = config.pepper.as_deref().unwrap_or_else(|| {
        eprintln!("no PALISADE_PEPPER: who reads the store can guess whose records it has");
        "palisade"
    });
    Ok(Stores::new(Arc::new(redis), Pepper::from_secret(pepper)))
}

/// The issuer that the example is itself, where it is told of no other.
pub(crate) fn own_issuer(config: &Config) -> Result<Option<dev::Issuer>, BoxError> {
    match (&config.jwks, &config.dev_key) {
        (Some(_), _) => Ok(None),
        (None, Some(file)) => {
            dev::Issuer::from_file(file, config.issuer(), &config.audience).map(Some)
        }
        (None, None) if config.discovers_keys() => Ok(None),
        (None, None) => dev::Issuer::new(config.issuer(), &config.audience).map(Some),
    }
}

/// Prints the token that is asked for. Whether one was: then that is all there is to do.
pub(crate) fn printed_token(config: &Config, own: Option<&dev::Issuer>) -> Result<bool, BoxError> {
    let (Some((tier, subject)), Some(issuer)) = (&config.print_token, own) else {
        return Ok(false);
    };
    writeln!(io::stdout(), "{}", issuer.token(tier, subject)?)?;
    Ok(true)
}

/// Writes what was still owed when the last answer ended.
pub(crate) async fn flush(stores: &Stores, keys: Option<&ApiKeys>) -> Result<(), BoxError> {
    tokio::time::timeout(FLUSH, stores.limiter().flush()).await??;
    if let Some(keys) = keys {
        tokio::time::timeout(FLUSH, keys.flush()).await??;
    }
    Ok(())
}

/// It must reach the store in this time.
const FLUSH: Duration = Duration::from_secs(5);

/// Whose tokens are believed: those of the issuer whose keys are in this file, or at this URL or where its
/// metadata say, where they may change; or our own.
pub(crate) fn tokens(
    config: &Config,
    own: Option<&dev::Issuer>,
) -> Result<ResourceServer, BoxError> {
    let name = config.issuer();
    let issuer = match (config.jwks.as_deref(), own) {
        (Some(url), _) if url.starts_with("http://") => {
            Issuer::jwks_uri(name, url).insecure_http_loopback()
        }
        (Some(url), _) if url.starts_with("https://") => Issuer::jwks_uri(name, url),
        (Some(file), _) => Issuer::jwks(name, KeySet::from_file(file)?),
        (None, Some(own)) => Issuer::jwks(name, KeySet::from_json(&own.key_set())?),
        (None, None) if config.insecure_http_loopback => {
            Issuer::discover(name).insecure_http_loopback()
        }
        (None, None) => Issuer::discover(name),
    };
    Ok(ResourceServer::builder().issuer(issuer.audience(&config.audience)).build()?)
}

/// The API keys of the store, or of a file.
pub(crate) fn api_keys(config: &Config, stores: &Stores) -> Result<Option<ApiKeys>, BoxError> {
    let (Some(file), Some(pepper)) = (&config.api_keys, &config.pepper) else { return Ok(None) };
    let pepper = Secret::new(pepper.clone().into_bytes());
    if file.as_os_str() == "store" {
        if config.store == "memory" {
            return Err("--api-keys store needs --store redis://…".into());
        }
        return Ok(Some(ApiKeyStore::new(stores, &pepper)?.open()));
    }
    Ok(Some(ApiKeyFile::new(file, &pepper)?.open()?))
}

/// Tokens that a caller of the free tier has in a minute.
pub(crate) const FREE_TOKENS: u64 = 2_000;

fn default_tiers() -> BTreeMap<String, Tier> {
    let tier = |requests, tokens, at_a_time| {
        Tier::new()
            .requests_per_minute(requests)
            .tokens_per_minute(tokens)
            .concurrent_requests(at_a_time)
    };
    BTreeMap::from([
        ("free".to_owned(), tier(20, FREE_TOKENS, 2)),
        ("paid".to_owned(), tier(600, 200_000, 20)),
        ("enterprise".to_owned(), tier(6_000, 2_000_000, 100)),
    ])
}

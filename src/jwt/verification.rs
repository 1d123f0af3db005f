//! The verification of a token that is not remembered, step by step. It may wait.

use std::sync::Arc;

use super::{
    Facts, Reason, Verified, claims, compact::Compact, confirmation, resource_server::Inner,
    service::Verdict,
};
use crate::observe;

/// Whose the token is. What can be refused without cryptography is refused before it.
pub(crate) async fn verify(server: Arc<Inner>, facts: Facts) -> Verdict {
    observe::count("palisade_token_cache_misses_total", &[]);
    let verified = verify_jwt(&server, &facts).await.map_err(Reason::error)?;
    Ok(verified.user)
}

async fn verify_jwt(server: &Inner, facts: &Facts) -> Result<Verified, Reason> {
    let compact = Compact::split(&facts.token)?;
    let now = server.clock.unix();
    let (header, claims) = (compact.header()?, compact.claims()?);
    let (index, issuer) = server.issuer_of(claims::string(&claims, "iss")?)?;
    if !issuer.algorithms.contains(&header.algorithm) {
        return Err(Reason::Unverifiable);
    }
    let typ = header.token_type.as_deref();
    let times = issuer.rules.check(&claims, typ, now, server.leeway)?;
    let binding = server.enforced.read(&claims)?;
    let user = claims::identity(&issuer.rules, times, claims)?;
    let signature = compact.signature()?;

    let key_id = header.key_id.as_deref();
    let held = issuer.keys.keys_for(key_id, header.algorithm).await?;
    let key = held.keys.choose(key_id, header.algorithm).ok_or(Reason::Unverifiable)?;
    if !server.crypto.verifies(header.algorithm, &key.material, compact.signed(), &signature) {
        return Err(Reason::Unverifiable);
    }

    confirmation::check(&server.enforced, facts, &binding, now).await?;
    let generation = held.generation;
    let verified = Verified { user: Arc::new(user), times, issuer: index, generation, binding };
    server.cache.insert(facts.digest, verified.clone(), now);
    Ok(verified)
}

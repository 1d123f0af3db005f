//! The verification of a token that is not remembered, step by step. It may wait.

use std::sync::Arc;

use super::{
    Facts, Reason, Verified, claims,
    compact::{Compact, Header},
    confirmation, introspection,
    resource_server::Inner,
    service::Verdict,
    verified::Basis,
};
use crate::observe;

/// Whose the token is. What can be refused without cryptography, and without asking anybody, is refused before it.
pub(crate) async fn verify(server: Arc<Inner>, facts: Facts) -> Verdict {
    observe::count("palisade_token_cache_misses_total", &[]);
    let verified = verify_any(&server, &facts).await.map_err(Reason::error)?;
    Ok(verified.user)
}

async fn verify_any(server: &Arc<Inner>, facts: &Facts) -> Result<Verified, Reason> {
    match server.opaque {
        Some(issuer) if !Compact::is_jws(&facts.token) => introspect(server, facts, issuer).await,
        _ => verify_jwt(server, facts).await,
    }
}

async fn verify_jwt(server: &Arc<Inner>, facts: &Facts) -> Result<Verified, Reason> {
    let compact = Compact::split(&facts.token)?;
    let now = server.clock.unix();
    let (members, claims) = (compact.members()?, compact.claims()?);
    let (index, issuer) = server.issuer_of(claims::string(&claims, "iss")?)?;
    if issuer.keys.are_none() {
        return introspect(server, facts, index).await;
    }
    let header = Header::of(&members)?;
    if !issuer.algorithms.contains(&header.algorithm) {
        return Err(Reason::Unverifiable);
    }
    let typ = header.token_type.as_deref();
    let times = issuer.rules.check(&claims, typ, now, server.leeway)?;
    let binding = server.enforced.read(&claims)?;
    let (subject, signature) = (claims::subject(&claims)?, compact.signature()?);

    let key_id = header.key_id.as_deref();
    let held = issuer.keys.keys_for(key_id, header.algorithm).await?;
    let key = held.keys.choose(key_id, header.algorithm).ok_or(Reason::Unverifiable)?;
    if !server.crypto.verifies(header.algorithm, &key.material, compact.signed(), &signature) {
        return Err(Reason::Unverifiable);
    }

    // Only now: it is of no use for a token that does not hold.
    let user = claims::identity(&issuer.rules, times, subject, claims)?;
    confirmation::check(&server.enforced, facts, &binding, now).await?;
    let basis = Basis::Keys { generation: held.generation };
    let verified = Verified { user: Arc::new(user), times, issuer: index, basis, binding };
    server.cache.insert(facts.digest, verified.clone(), now);
    Ok(verified)
}

/// Asks the issuer at `index`.
async fn introspect(server: &Arc<Inner>, facts: &Facts, index: usize) -> Result<Verified, Reason> {
    let introspector = server.introspector_at(index).ok_or(Reason::Unverifiable)?;
    let verified =
        introspection::ask(server, index, introspector, &facts.token, facts.digest).await?;
    let now = server.clock.unix();
    confirmation::check(&server.enforced, facts, &verified.binding, now).await?;
    Ok(verified)
}

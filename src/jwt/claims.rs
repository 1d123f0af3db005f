//! Whether claims hold: RFC 7519, RFC 9068, RFC 8725, as plain functions on plain data.

use std::time::Duration;

use serde_json::{Map, Value};

use super::Reason;
use crate::identity::UserIdentity;

/// Which tokens an issuer's access tokens are, so that its other tokens don't pass for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessTokenProfile {
    /// RFC 9068: `typ` is `at+jwt`, and `client_id`, `iat` and `jti` are there.
    #[default]
    Rfc9068,
    /// A plain JWT: `typ` is `JWT` or absent. What Keycloak, Auth0 and Entra ID issue unless told
    /// otherwise. A claim of ID tokens alone, a `token_use` other than `access` (Cognito) and a claim `typ` of other
    /// tokens (Keycloak) are refused; else the audience alone tells an access token from an ID token, so give
    /// the API one that no client has for its `client_id`.
    Jwt,
}

/// What an issuer's tokens must say.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) issuer: String,
    pub(crate) profile: AccessTokenProfile,
    pub(crate) audience: Audience,
    /// Claims that must be there, whatever they say.
    pub(crate) required: Vec<String>,
    pub(crate) max_lifetime: Duration,
    /// The claim that roles stand in: a name or a JSON pointer.
    pub(crate) roles: String,
}

/// How a token says whom it is for.
#[derive(Clone, Debug)]
pub(crate) enum Audience {
    /// `aud` is or contains one of these.
    Aud(Vec<String>),
    /// This other claim is exactly one of these strings.
    Claim(String, Vec<String>),
}

/// When a token holds, in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// An introspected token need not say.
    expires_at: Option<u64>,
    not_before: Option<u64>,
    issued_at: Option<u64>,
}

impl Rules {
    /// Holds the claims against the rules at the time `now`. `claims` are not verified yet:
    /// nothing is kept unless the signature holds too.
    pub(crate) fn check(
        &self,
        claims: &Map<String, Value>,
        token_type: Option<&str>,
        now: Duration,
        leeway: Duration,
    ) -> Result<Times, Reason> {
        if string(claims, "iss")? != Some(&self.issuer) {
            return Err(Reason::Unverifiable);
        }
        self.check_type(claims, token_type)?;
        self.check_required(claims)?;
        self.audience.check(claims)?;
        let times = Times::read(claims)?;
        times.check(now, leeway)?;
        self.check_lifetime(times, now, leeway)?;
        Ok(times)
    }

    fn check_type(
        &self,
        claims: &Map<String, Value>,
        token_type: Option<&str>,
    ) -> Result<(), Reason> {
        let is = |name: &str| token_type.is_some_and(|typ| is_media_type(typ, name));
        match self.profile {
            AccessTokenProfile::Rfc9068 => {
                if !is("at+jwt") {
                    return Err(Reason::WrongType);
                }
                for required in ["client_id", "jti"] {
                    string(claims, required)?.ok_or(Reason::Malformed)?;
                }
                date(claims, "iat", f64::ceil)?.ok_or(Reason::Malformed)?;
            }
            AccessTokenProfile::Jwt => {
                if token_type.is_some() && !is("jwt") {
                    return Err(Reason::WrongType);
                }
                refuse_marked(claims)?;
            }
        }
        Ok(())
    }

    pub(crate) fn check_required(&self, claims: &Map<String, Value>) -> Result<(), Reason> {
        let is_there = |name: &String| claims.get(name).is_some_and(|value| !value.is_null());
        if self.required.iter().all(is_there) { Ok(()) } else { Err(Reason::Malformed) }
    }

    fn check_lifetime(&self, times: Times, now: Duration, leeway: Duration) -> Result<(), Reason> {
        let from = times.issued_at.unwrap_or_else(|| now.saturating_add(leeway).as_secs());
        let lifetime = times.expires_at.map(|end| end.saturating_sub(from));
        if lifetime.is_none_or(|lifetime| lifetime > self.max_lifetime.as_secs()) {
            return Err(Reason::TooLongLived);
        }
        Ok(())
    }
}

impl Audience {
    pub(crate) fn check(&self, claims: &Map<String, Value>) -> Result<(), Reason> {
        let holds = match self {
            Self::Aud(accepted) => match claims.get("aud").ok_or(Reason::Malformed)? {
                Value::String(one) => accepted.contains(one),
                Value::Array(list) => {
                    let strings: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
                    let strings = strings.ok_or(Reason::Malformed)?;
                    accepted.iter().any(|audience| strings.contains(&audience.as_str()))
                }
                _ => return Err(Reason::Malformed),
            },
            Self::Claim(name, values) => {
                let stated = string(claims, name)?.ok_or(Reason::Malformed)?;
                values.iter().any(|value| value == stated)
            }
        };
        if holds { Ok(()) } else { Err(Reason::WrongAudience) }
    }
}

impl Times {
    pub(crate) fn read(claims: &Map<String, Value>) -> Result<Self, Reason> {
        let times = Self::of_answer(claims)?;
        times.expires_at.ok_or(Reason::Malformed)?;
        Ok(times)
    }

    /// Those of a token that its issuer calls active: RFC 7662, section 2.2, has none of them required.
    pub(crate) fn of_answer(claims: &Map<String, Value>) -> Result<Self, Reason> {
        // Parts of a second count against the token.
        Ok(Self {
            expires_at: date(claims, "exp", f64::floor)?,
            not_before: date(claims, "nbf", f64::ceil)?,
            issued_at: date(claims, "iat", f64::ceil)?,
        })
    }

    /// Whether the token holds at `now`. Cached tokens are asked again on every use.
    pub(crate) fn check(&self, now: Duration, leeway: Duration) -> Result<(), Reason> {
        let earliest = now.saturating_sub(leeway).as_secs();
        if self.expires_at.is_some_and(|end| earliest >= end) {
            return Err(Reason::Expired);
        }
        let latest = now.saturating_add(leeway).as_secs();
        if self.not_before.is_some_and(|from| from > latest)
            || self.issued_at.is_some_and(|at| at > latest)
        {
            return Err(Reason::NotYetValid);
        }
        Ok(())
    }

    /// Whether `exp` has passed.
    pub(crate) fn have_passed(&self, now: Duration) -> bool {
        self.expires_at.is_some_and(|end| end <= now.as_secs())
    }
}

/// Whose the token is: `sub`, which nothing else stands in for.
pub(crate) fn subject(claims: &Map<String, Value>) -> Result<String, Reason> {
    let subject = string(claims, "sub")?.filter(|subject| !subject.is_empty());
    subject.map(str::to_owned).ok_or(Reason::Malformed)
}

/// The caller, of claims that hold and were signed, or stated by the issuer.
pub(crate) fn identity(
    rules: &Rules,
    times: Times,
    subject: String,
    claims: Map<String, Value>,
) -> Result<UserIdentity, Reason> {
    let mut user = UserIdentity::asserted(&rules.issuer, subject).with_scopes(scopes(&claims)?);
    if let Some(end) = times.expires_at {
        user = user.with_expiry(end);
    }
    let client_id = string(&claims, "client_id")?;
    if let Some(client_id) = client_id.or(string(&claims, "azp")?) {
        user = user.with_client_id(client_id);
    }
    // Entra ID has `uti` in the place of `jti`.
    if let Some(token_id) = string(&claims, "jti")?.or(string(&claims, "uti")?) {
        user = user.with_token_id(token_id);
    }
    let user = user.with_claims_value(Value::Object(claims));
    let roles: Vec<String> = user.claims().strs(&rules.roles).map(str::to_owned).collect();
    Ok(user.with_roles(roles))
}

/// Refuses a token whose claims mark it as another kind: only ID tokens, and security events such as logout tokens,
/// have the first three; Cognito and Hydra state a `token_use`, Keycloak a `typ`.
pub(crate) fn refuse_marked(claims: &Map<String, Value>) -> Result<(), Reason> {
    let states = |name: &str, values: &[&str]| {
        let value = claims.get(name).and_then(Value::as_str);
        value.is_some_and(|value| values.iter().any(|known| value.eq_ignore_ascii_case(known)))
    };
    let other_use =
        claims.contains_key("token_use") && !states("token_use", &["access", "access_token"]);
    let is_marked = ["at_hash", "c_hash", "events"].iter().any(|name| claims.contains_key(*name));
    if is_marked || other_use || states("typ", &["ID", "Refresh", "Offline", "Logout"]) {
        return Err(Reason::WrongType);
    }
    Ok(())
}

/// `scope` (RFC 8693, section 4.2), or `scp`, as Entra ID and Okta name it.
fn scopes(claims: &Map<String, Value>) -> Result<Vec<&str>, Reason> {
    match claims.get("scope").or_else(|| claims.get("scp")) {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => {
            Ok(text.split(' ').filter(|scope| !scope.is_empty()).collect())
        }
        Some(Value::Array(list)) if !claims.contains_key("scope") => {
            list.iter().map(|scope| scope.as_str().ok_or(Reason::Malformed)).collect()
        }
        Some(_) => Err(Reason::Malformed),
    }
}

/// A claim that must be a string if it is there.
pub(crate) fn string<'a>(
    claims: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<&'a str>, Reason> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Reason::Malformed),
    }
}

/// A NumericDate (RFC 7519, section 2): a number of seconds, not negative, perhaps with a fraction,
/// which goes where `round` says.
pub(crate) fn date(
    claims: &Map<String, Value>,
    name: &str,
    round: fn(f64) -> f64,
) -> Result<Option<u64>, Reason> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    if let Some(whole) = value.as_u64() {
        return Ok(Some(whole));
    }
    match value.as_f64() {
        // `as` saturates.
        Some(seconds) if seconds.is_finite() && seconds >= 0.0 => Ok(Some(round(seconds) as u64)),
        _ => Err(Reason::Malformed),
    }
}

/// Media types are compared in any case, `application/` left out or not: RFC 7515, section 4.1.9.
fn is_media_type(given: &str, name: &str) -> bool {
    const PREFIX: &str = "application/";
    let short = match given.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        _ => given,
    };
    short.eq_ignore_ascii_case(name)
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;

//! One issuer of access tokens, and what its tokens must say.

use std::time::Duration;

use super::{
    AccessTokenProfile, Algorithm, KeySet,
    claims::{Audience, Rules},
};
use crate::{BuildError, Secret};

/// An issuer whose tokens are accepted. Nothing of one issuer, keys least of all, serves for another.
#[derive(Debug)]
#[must_use]
pub struct Issuer {
    issuer: String,
    keys: Result<KeySet, BuildError>,
    audiences: Vec<String>,
    audience_claim: Option<(String, String)>,
    algorithms: Vec<Algorithm>,
    profile: AccessTokenProfile,
    max_lifetime: Duration,
}

/// An [`Issuer`] that was found to make sense.
#[derive(Debug)]
pub(crate) struct Trusted {
    pub(crate) keys: KeySet,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) rules: Rules,
}

impl Issuer {
    /// An issuer with these keys. `issuer` must equal the `iss` of its tokens to the byte, a
    /// trailing slash included.
    pub fn jwks(issuer: impl Into<String>, keys: KeySet) -> Self {
        Self::new(issuer.into(), Ok(keys), Algorithm::DEFAULT.to_vec())
    }

    /// An issuer that signs with a shared secret, of at least the algorithm's hash length: 32, 48 or 64
    /// random bytes. `algorithm` is an `HS` one, and the only one accepted.
    pub fn secret(
        issuer: impl Into<String>,
        algorithm: Algorithm,
        secret: &Secret<Vec<u8>>,
    ) -> Self {
        let keys = KeySet::secret(None, algorithm, secret);
        Self::new(issuer.into(), keys, vec![algorithm])
    }

    /// Accepts tokens for this audience: their `aud` is it, or contains it. Required; said more than
    /// once, each of them is accepted. Use what names this API, never a client's `client_id`.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// Instead of `aud`, asks that another claim is exactly `value`: for issuers whose access tokens
    /// have no `aud`, such as Amazon Cognito (`client_id`).
    pub fn audience_claim(mut self, claim: impl Into<String>, value: impl Into<String>) -> Self {
        self.audience_claim = Some((claim.into(), value.into()));
        self
    }

    /// The algorithms that tokens may be signed with. By default RS256, PS256, ES256 and EdDSA.
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.algorithms = algorithms.into_iter().collect();
        self
    }

    /// What the issuer's access tokens look like. By default as in RFC 9068.
    pub fn profile(mut self, profile: AccessTokenProfile) -> Self {
        self.profile = profile;
        self
    }

    /// The longest time from `iat`, or from now where there is none, to `exp`. By default 24 hours:
    /// until a token ends, a thief can use it.
    pub fn max_lifetime(mut self, max_lifetime: Duration) -> Self {
        self.max_lifetime = max_lifetime;
        self
    }

    pub(crate) fn build(self) -> Result<Trusted, BuildError> {
        if self.issuer.is_empty() {
            return Err(BuildError::Missing("issuer"));
        }
        if self.algorithms.is_empty() {
            return Err(BuildError::Empty("algorithms"));
        }
        let keys = self.keys?;
        if !keys.serves(&self.algorithms) {
            return Err(BuildError::Empty("the set of keys that fit the issuer's algorithms"));
        }
        let audience = audience(self.audiences, self.audience_claim)?;
        let rules = Rules {
            issuer: self.issuer,
            profile: self.profile,
            audience,
            max_lifetime: self.max_lifetime,
        };
        Ok(Trusted { keys, algorithms: self.algorithms, rules })
    }

    fn new(issuer: String, keys: Result<KeySet, BuildError>, algorithms: Vec<Algorithm>) -> Self {
        Self {
            issuer,
            keys,
            audiences: Vec::new(),
            audience_claim: None,
            algorithms,
            profile: AccessTokenProfile::default(),
            max_lifetime: DEFAULT_MAX_LIFETIME,
        }
    }
}

fn audience(
    audiences: Vec<String>,
    claim: Option<(String, String)>,
) -> Result<Audience, BuildError> {
    match (audiences.as_slice(), claim) {
        ([], None) => Err(BuildError::Missing("audience")),
        ([], Some((name, value))) if !name.is_empty() && !value.is_empty() => {
            Ok(Audience::Claim(name, value))
        }
        (list, None) if list.iter().all(|audience| !audience.is_empty()) => {
            Ok(Audience::Aud(audiences))
        }
        (_, Some(_)) if !audiences.is_empty() => {
            Err(BuildError::invalid("audience", "audience and audience_claim exclude each other"))
        }
        _ => Err(BuildError::Empty("audience")),
    }
}

const DEFAULT_MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

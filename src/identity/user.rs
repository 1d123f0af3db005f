//! A caller.

use std::fmt;

use serde_json::Value;

use super::Claims;
#[cfg(doc)]
use super::Identity;

/// A caller, by a verified access token.
#[derive(Clone)]
pub struct UserIdentity {
    issuer: String,
    subject: String,
    client_id: Option<String>,
    token_id: Option<String>,
    scopes: Vec<String>,
    roles: Vec<String>,
    expires_at: Option<u64>,
    claims: Claims,
}

impl UserIdentity {
    /// A caller on the application's own word: see [`Identity::asserted`].
    #[must_use]
    pub fn asserted(issuer: impl Into<String>, subject: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            subject: subject.into(),
            client_id: None,
            token_id: None,
            scopes: Vec::new(),
            roles: Vec::new(),
            expires_at: None,
            claims: Claims::none(),
        }
    }

    /// With the `client_id` of the OAuth client.
    #[must_use]
    pub fn with_client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into());
        self
    }

    /// With the token's own id, `jti`.
    #[must_use]
    pub fn with_token_id(mut self, token_id: impl Into<String>) -> Self {
        self.token_id = Some(token_id.into());
        self
    }

    /// With these granted scopes.
    #[must_use]
    pub fn with_scopes<T: Into<String>>(mut self, scopes: impl IntoIterator<Item = T>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// With these roles.
    #[must_use]
    pub fn with_roles<T: Into<String>>(mut self, roles: impl IntoIterator<Item = T>) -> Self {
        self.roles = roles.into_iter().map(Into::into).collect();
        self
    }

    /// With an end, in seconds since the Unix epoch.
    #[must_use]
    pub fn with_expiry(mut self, expires_at: u64) -> Self {
        self.expires_at = Some(expires_at);
        self
    }

    /// With claims: a JSON object as text. What is no JSON object leaves them empty.
    #[must_use]
    pub fn with_claims(mut self, json: &str) -> Self {
        let claims = serde_json::from_str(json).ok().filter(Value::is_object);
        self.claims = Claims::new(claims.unwrap_or_default());
        self
    }

    /// With claims that were parsed already.
    pub(crate) fn with_claims_value(mut self, claims: Value) -> Self {
        self.claims = Claims::new(claims);
        self
    }

    /// Who vouches for the subject: `iss`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The caller, unique within the issuer: `sub`.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The OAuth client that the token was given to.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    /// The token's own id: `jti`.
    #[must_use]
    pub fn token_id(&self) -> Option<&str> {
        self.token_id.as_deref()
    }

    /// The granted scopes.
    #[must_use]
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// Whether a scope was granted. Scopes are case-sensitive (RFC 6749, section 3.3).
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|granted| granted == scope)
    }

    /// The roles, from the claim that the issuer keeps them in.
    #[must_use]
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// Whether the caller has a role. Roles are case-sensitive.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|held| held == role)
    }

    /// When the token ends, in seconds since the Unix epoch.
    #[must_use]
    pub fn expires_at(&self) -> Option<u64> {
        self.expires_at
    }

    /// Every claim of the token.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }
}

/// Names whom, never what is claimed of them.
impl fmt::Debug for UserIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserIdentity")
            .field("issuer", &self.issuer)
            .field("subject", &self.subject)
            .field("scopes", &self.scopes)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

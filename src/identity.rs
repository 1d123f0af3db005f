//! Who sent a request: what the layers of this process verified.
//!
//! One [`Identity`] stands in the extensions of every request that passed a layer. Each layer writes
//! its own part, always, so that nothing a client or an outer layer left there is believed. A header
//! never becomes identity.

use std::{fmt, net::IpAddr, sync::Arc};

use http::Extensions;
use serde_json::Value;

use crate::reject::{Rejection, RejectionKind};

/// The layers in the order in which they must stand, outermost first.
pub(crate) const ORDER: &str =
    "PeerCertLayer, JwtAuthLayer, TieredRateLimitLayer, PromptGuardLayer";

/// The verified identity of one request. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    peer: Option<Arc<PeerIdentity>>,
    proxy: Option<Proxy>,
    carries: Option<Arc<[String]>>,
    /// `PeerCertLayer` was passed without a peer that may pass, as in its dry run.
    stranger: bool,
    user: Option<Arc<UserIdentity>>,
    tier: Option<Arc<str>>,
    /// `JwtAuthLayer` was passed without a token, as it may be told to allow.
    anonymous: bool,
    last: Option<Stage>,
}

/// Where in the stack a layer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    PeerCert,
    JwtAuth,
    RateLimit,
    PromptGuard,
}

impl Identity {
    /// The identity of a request, once a layer has been passed.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// The workload at the other end of the connection, or whose certificate a trusted proxy
    /// forwarded. Written by `PeerCertLayer`.
    #[must_use]
    pub fn peer(&self) -> Option<&PeerIdentity> {
        self.peer.as_deref()
    }

    /// The proxy that forwarded the peer's certificate. `None`: the peer is at the other end of the connection
    /// itself. Written by `PeerCertLayer`.
    #[must_use]
    pub fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// The certificate at the other end of the connection: the proxy's, where one forwarded the peer's.
    #[must_use]
    pub fn connection(&self) -> Option<&PeerIdentity> {
        match &self.proxy {
            None => self.peer(),
            Some(Proxy::Workload(proxy)) => Some(proxy),
            Some(_) => None,
        }
    }

    /// Whether the peer may present tokens of this issuer's users: anybody may, unless `PeerCertLayer` was told who.
    #[must_use]
    pub fn may_carry(&self, issuer: &str) -> bool {
        self.carries.as_ref().is_none_or(|issuers| issuers.iter().any(|known| known == issuer))
    }

    /// The caller, from an access token. Written by `JwtAuthLayer`.
    #[must_use]
    pub fn user(&self) -> Option<&UserIdentity> {
        self.user.as_deref()
    }

    /// The caller's tier. Written by `TieredRateLimitLayer`.
    #[must_use]
    pub fn tier(&self) -> Option<&str> {
        self.tier.as_deref()
    }

    /// States, on the application's own word, who the caller is: for an application that
    /// authenticates by other means, and puts this into a request's extensions in the place of
    /// `JwtAuthLayer`.
    ///
    /// ```
    /// use palisade::identity::{Identity, UserIdentity};
    ///
    /// let mut request = http::Request::new(());
    /// let user = UserIdentity::asserted("https://login.example", "alice");
    /// request.extensions_mut().insert(Identity::asserted(user));
    /// ```
    #[must_use]
    pub fn asserted(user: UserIdentity) -> Self {
        Self { user: Some(Arc::new(user)), ..Self::default() }
    }

    /// The identity of a request, for the layer at `stage` to write its part. Refuses when a later
    /// layer stands outside this one.
    pub(crate) fn enter(extensions: &mut Extensions, stage: Stage) -> Result<&mut Self, Rejection> {
        let identity = extensions.get_or_insert_default::<Self>();
        if identity.last.is_some_and(|last| last > stage) {
            return Err(wrong_order());
        }
        identity.last = Some(stage);
        Ok(identity)
    }

    pub(crate) fn set_peer(
        &mut self,
        peer: Option<Arc<PeerIdentity>>,
        proxy: Option<Proxy>,
        carries: Option<Arc<[String]>>,
    ) {
        self.stranger = peer.is_none();
        (self.peer, self.proxy, self.carries) = (peer, proxy, carries);
    }

    pub(crate) fn set_user(&mut self, user: Option<Arc<UserIdentity>>) {
        self.anonymous = user.is_none();
        self.user = user;
    }

    pub(crate) fn set_tier(&mut self, tier: Option<Arc<str>>) {
        self.tier = tier;
    }

    /// The peer, for a layer that can do nothing without: a stack in which nobody was asked is a refusal.
    pub(crate) fn known_peer(&self) -> Result<Option<&PeerIdentity>, Rejection> {
        match self.peer() {
            None if !self.stranger => Err(wrong_order()),
            peer => Ok(peer),
        }
    }

    /// The caller, for a layer that can do nothing without: nobody is a refusal, and so is a stack in which nobody was
    /// asked.
    pub(crate) fn known_user(&self) -> Result<&Arc<UserIdentity>, Rejection> {
        match &self.user {
            Some(user) => Ok(user),
            None if self.anonymous => Err(Rejection::new(
                RejectionKind::Unauthenticated,
                "anonymous",
                "This needs an access token.",
            )),
            None => Err(wrong_order()),
        }
    }
}

/// The refusal of a layer that misses what an earlier one should have left.
pub(crate) fn wrong_order() -> Rejection {
    debug_assert!(ORDER.starts_with("PeerCertLayer"));
    Rejection::new(
        RejectionKind::Misconfigured,
        "wrong_layer_order",
        "The server's layers are in the wrong order. From the outside in, they are: \
         PeerCertLayer, JwtAuthLayer, TieredRateLimitLayer, PromptGuardLayer.",
    )
}

/// A workload, by its verified certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerIdentity {
    /// The SPIFFE ID, if the certificate has one: its only URI name, of the `spiffe` scheme.
    pub spiffe_id: Option<String>,
    /// The DNS names, in lower case, as the certificate has them.
    pub dns_names: Vec<String>,
    /// The IP addresses.
    pub ip_addresses: Vec<IpAddr>,
    /// The e-mail addresses, as the certificate has them.
    pub email_addresses: Vec<String>,
    /// The common names of the subject, as the certificate has them. Texts without a form: no name of a service.
    pub common_names: Vec<String>,
    /// Whether the certificate has a list of names (Subject Alternative Name) beside its subject, even one
    /// with nothing in it that is read here.
    pub has_alternative_names: bool,
    /// SHA-256 of the certificate's DER.
    pub leaf_sha256: [u8; 32],
    /// SHA-256 of the DER of its public key (SubjectPublicKeyInfo), which outlives a renewal with the same key.
    pub public_key_sha256: [u8; 32],
    /// SHA-256 of the public key of each authority on the path that was verified here, from the issuer of the
    /// certificate to the anchor. Empty where the TLS stack alone verified it, since that does not tell the path.
    pub issuer_keys_sha256: Vec<[u8; 32]>,
    /// When the certificate begins to be valid, in seconds since the Unix epoch.
    pub not_before: u64,
    /// When the certificate ends to be valid, in seconds since the Unix epoch.
    pub not_after: u64,
}

/// Who forwarded a peer's certificate, and why that is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proxy {
    /// A workload, by its own certificate.
    Workload(Arc<PeerIdentity>),
    /// Whoever has this address, by the address alone.
    Address(IpAddr),
    /// Whoever may connect to a Unix socket of this machine.
    UnixSocket,
}

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
            claims: Claims(Value::Null),
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
        self.claims = Claims(claims.unwrap_or_default());
        self
    }

    /// With claims that were parsed already.
    pub(crate) fn with_claims_value(mut self, claims: Value) -> Self {
        self.claims = Claims(claims);
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

/// The claims of a token, by name (`tier`) or by JSON pointer (`/realm_access/roles`, RFC 6901).
#[derive(Clone)]
pub struct Claims(Value);

impl Claims {
    /// A claim that is a string.
    #[must_use]
    pub fn str(&self, claim: &str) -> Option<&str> {
        self.value(claim)?.as_str()
    }

    /// A claim that is a whole number of at least zero.
    #[must_use]
    pub fn u64(&self, claim: &str) -> Option<u64> {
        self.value(claim)?.as_u64()
    }

    /// A claim that is true or false.
    #[must_use]
    pub fn bool(&self, claim: &str) -> Option<bool> {
        self.value(claim)?.as_bool()
    }

    /// The strings of a claim that is a list. Anything else is an empty list.
    pub fn strs(&self, claim: &str) -> impl Iterator<Item = &str> {
        let list = self.value(claim).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str)
    }

    /// All claims as a type of the application's own, which borrows nothing.
    ///
    /// # Errors
    /// [`ClaimsMismatch`] when they don't fit the type.
    #[cfg(any(feature = "jwt", feature = "serde"))]
    pub fn get<T: serde::de::DeserializeOwned>(&self) -> Result<T, ClaimsMismatch> {
        T::deserialize(&self.0).map_err(|_| ClaimsMismatch(()))
    }

    /// One claim as a type of the application's own. A claim that is not there reads as null, which
    /// an `Option` takes for `None`.
    ///
    /// # Errors
    /// [`ClaimsMismatch`] when it does not fit the type.
    #[cfg(any(feature = "jwt", feature = "serde"))]
    pub fn get_claim<T: serde::de::DeserializeOwned>(
        &self,
        claim: &str,
    ) -> Result<T, ClaimsMismatch> {
        let value = self.value(claim).unwrap_or(&Value::Null);
        T::deserialize(value).map_err(|_| ClaimsMismatch(()))
    }

    /// Whether the claim is there at all.
    #[must_use]
    pub fn contains(&self, claim: &str) -> bool {
        self.value(claim).is_some()
    }

    fn value(&self, claim: &str) -> Option<&Value> {
        if claim.starts_with('/') { self.0.pointer(claim) } else { self.0.get(claim) }
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims(..)")
    }
}

/// The claims don't fit the type that was asked for. Does not say where, since that would show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the claims don't fit the type that was asked for")]
pub struct ClaimsMismatch(());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_read_by_name_or_pointer() {
        let user = UserIdentity::asserted("i", "s").with_claims(
            r#"{"tier":"paid","realm_access":{"roles":["a",1,"b"]},"https://x/y":"z","n":3}"#,
        );
        let claims = user.claims();
        assert_eq!(claims.str("tier"), Some("paid"));
        assert_eq!(claims.str("https://x/y"), Some("z"));
        assert_eq!(claims.strs("/realm_access/roles").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(claims.u64("n"), Some(3));
        assert_eq!(claims.str("n"), None);
        assert!(!format!("{user:?}").contains("paid"));
    }

    #[cfg(any(feature = "jwt", feature = "serde"))]
    #[test]
    fn claims_are_read_as_a_type_and_errors_do_not_show_them() {
        #[derive(serde::Deserialize, Debug)]
        struct Mine {
            tier: String,
            seats: Option<u32>,
        }
        let user = |json| UserIdentity::asserted("i", "s").with_claims(json);
        let mine: Mine = user(r#"{"tier":"paid","more":[1]}"#).claims().get().unwrap();
        assert_eq!((mine.tier.as_str(), mine.seats), ("paid", None));
        let odd = user(r#"{"tier":"paid","seats":"hush"}"#);
        let error = odd.claims().get::<Mine>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"));
        assert_eq!(odd.claims().get_claim::<String>("/tier").unwrap(), "paid");
        assert_eq!(odd.claims().get_claim::<Option<u8>>("none"), Ok(None));
        assert!(odd.claims().get_claim::<u8>("none").is_err());
        assert!(user("[]").claims().get::<Mine>().is_err());
    }

    #[test]
    fn a_layer_outside_of_which_a_later_one_stands_refuses() {
        let mut extensions = Extensions::new();
        assert!(Identity::enter(&mut extensions, Stage::JwtAuth).is_ok());
        assert!(Identity::enter(&mut extensions, Stage::JwtAuth).is_ok());
        assert!(Identity::enter(&mut extensions, Stage::PromptGuard).is_ok());
        let rejection = Identity::enter(&mut extensions, Stage::RateLimit).unwrap_err();
        assert_eq!(rejection.kind(), RejectionKind::Misconfigured);
        assert!(rejection.message().contains(ORDER));
    }
}

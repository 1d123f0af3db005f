//! Who sent a request: what the layers of this process verified.
//!
//! One [`Identity`] stands in the extensions of every request that passed a layer. Each layer writes
//! its own part, always, so that nothing a client or an outer layer left there is believed. A header
//! never becomes identity.

mod claim_test;
mod claims;
mod peer;
pub(crate) mod peer_rule;
mod user;

use std::sync::Arc;

use http::Extensions;

pub use self::{
    claim_test::{ClaimTest, ClaimValue},
    claims::{Claims, ClaimsMismatch},
    peer::{PeerIdentity, Proxy},
    peer_rule::PeerRule,
    user::UserIdentity,
};
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
    /// The identity of a request: nobody's, if no layer has been passed that tells.
    pub(crate) fn of_anybody(extensions: &Extensions) -> &Self {
        static NOBODY: Identity = Identity {
            peer: None,
            proxy: None,
            carries: None,
            stranger: false,
            user: None,
            tier: None,
            anonymous: false,
            last: None,
        };
        Self::of(extensions).unwrap_or(&NOBODY)
    }

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

    /// The caller's tier, for a layer that can do nothing without: a stack in which nobody was asked is a refusal.
    pub(crate) fn known_tier(&self) -> Result<&str, Rejection> {
        self.tier().ok_or_else(wrong_order)
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

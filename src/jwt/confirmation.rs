//! Whether the sender has the key that a token is bound to: the claim `cnf` (RFC 7800), with a client
//! certificate (RFC 8705) or a DPoP key (RFC 9449), as plain functions on plain data.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, Method, Uri};
use serde_json::{Map, Value};

use super::{DpopVerifier, Facts, Presented, Reason, Scheme, cache::Digest, dpop::Flaw};
use crate::{
    identity::{Identity, PeerIdentity},
    observe, secret,
    store::StoreFuture,
};

/// What is done with tokens that are bound to a client certificate (RFC 8705), and with tokens that
/// are bound to nothing. Tokens bound to a DPoP key are accepted where
/// [`dpop`](super::ResourceServerBuilder::dpop) says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Confirmation {
    /// A token that is bound to a certificate is refused: what is not checked must not be believed.
    #[default]
    Refuse,
    /// A token that is bound to a certificate holds for the peer that has it, as
    /// `PeerCertLayer`, outside this layer, has verified it, and for nobody else.
    Enforce,
    /// As `Enforce`; and a token that is bound to nothing, which serves a thief as well, is refused.
    Require,
}

/// Whose certificate a token that is bound to one is held against, where a proxy forwards those of its clients. See
/// [`ResourceServerBuilder::certificate_holder`](super::ResourceServerBuilder::certificate_holder).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateHolder {
    /// Whoever is at the other end of the connection: a gateway that got the token for itself. Of a proxy that is
    /// trusted by its address alone there is no certificate, and no bound token holds.
    #[default]
    Connection,
    /// The peer, whose certificate a trusted proxy forwarded; without a proxy, whoever is at the other end.
    Peer,
}

/// What a token is bound to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Binding {
    /// SHA-256 of a certificate's DER: `x5t#S256`.
    certificate: Option<[u8; 32]>,
    /// The thumbprint (RFC 7638) of a DPoP key: `jkt`.
    key: Option<[u8; 32]>,
}

/// Which bindings are checked.
#[derive(Debug, Default)]
pub(crate) struct Enforced {
    pub(crate) confirmation: Confirmation,
    pub(crate) holder: CertificateHolder,
    pub(crate) dpop: Option<DpopVerifier>,
}

/// What a request shows beside its token.
pub(crate) struct Shown<'a> {
    pub(crate) scheme: Scheme,
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    /// What the layers outside verified.
    pub(crate) identity: Option<&'a Identity>,
}

impl Binding {
    /// Reads `cnf`. A member that is not known here binds to something that is not checked here, and
    /// so does one that can't be read.
    fn read(claims: &Map<String, Value>) -> Result<Self, Reason> {
        let mut binding = Self::default();
        let Some(cnf) = claims.get("cnf") else { return Ok(binding) };
        let members = cnf.as_object().filter(|members| !members.is_empty());
        for (name, value) in members.ok_or(Reason::Bound)? {
            let place = match name.as_str() {
                "x5t#S256" => &mut binding.certificate,
                "jkt" => &mut binding.key,
                _ => return Err(Reason::Bound),
            };
            *place = Some(value.as_str().and_then(sha256_of).ok_or(Reason::Bound)?);
        }
        Ok(binding)
    }
}

impl Enforced {
    /// What the claims bind their token to, if all of it is checked here.
    pub(crate) fn read(&self, claims: &Map<String, Value>) -> Result<Binding, Reason> {
        let binding = Binding::read(claims)?;
        let refuses = self.confirmation == Confirmation::Refuse;
        if (binding.certificate.is_some() && refuses)
            || (binding.key.is_some() && self.dpop.is_none())
        {
            return Err(Reason::Bound);
        }
        if binding == Binding::default() && self.confirmation == Confirmation::Require {
            return Err(Reason::Unbound);
        }
        Ok(binding)
    }

    /// Whether the request shows everything that its token is bound to. A DPoP proof then counts as
    /// used, and the store's answer, whether it is for the first time, is still to be waited for.
    pub(crate) fn confirm(
        &self,
        binding: &Binding,
        shown: &Shown<'_>,
        token: &Digest,
        now: Duration,
    ) -> Result<Option<StoreFuture<bool>>, Reason> {
        let has = |bound: &[u8; 32]| {
            let holder = shown.identity.and_then(|identity| self.holder.of(identity));
            holder.is_some_and(|holder| secret::constant_time_eq(&holder.leaf_sha256, bound))
        };
        if binding.certificate.as_ref().is_some_and(|bound| !has(bound)) {
            return Err(Reason::WrongPeer);
        }
        match (&binding.key, shown.scheme) {
            (None, Scheme::Bearer) => Ok(None),
            // A token that any client may use, passed off as one that is bound, and the reverse
            // (RFC 9449, section 7.2).
            (None, Scheme::Dpop) => Err(Reason::NoDpopToken),
            (Some(_), Scheme::Bearer) => Err(Reason::DpopToken),
            (Some(key), Scheme::Dpop) => {
                let dpop = self.dpop.as_ref().ok_or(Reason::Bound)?;
                dpop.check(key, shown, token, now).map(Some)
            }
        }
    }
}

/// Whether the request that these facts are of shows everything that its token is bound to.
pub(crate) async fn check(
    enforced: &Enforced,
    facts: &Facts,
    binding: &Binding,
    now: Duration,
) -> Result<(), Reason> {
    match enforced.confirm(binding, &Shown::of(facts), &facts.digest, now)? {
        Some(first_use) => used_once(first_use).await,
        None => Ok(()),
    }
}

/// What the store says of a proof.
pub(crate) async fn used_once(first_use: StoreFuture<bool>) -> Result<(), Reason> {
    match first_use.await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Reason::Proof(Flaw::Used)),
        Err(_) => {
            observe::count("palisade_dpop_store_errors_total", &[]);
            Err(Reason::Unavailable)
        }
    }
}

impl<'a> Shown<'a> {
    pub(crate) fn by(presented: &Presented<'a>) -> Self {
        Self {
            scheme: presented.scheme,
            method: presented.method,
            uri: presented.uri,
            headers: presented.headers,
            identity: Identity::of(presented.extensions),
        }
    }

    fn of(facts: &'a Facts) -> Self {
        Self {
            scheme: facts.scheme,
            method: &facts.method,
            uri: &facts.uri,
            headers: &facts.headers,
            identity: facts.identity.as_ref(),
        }
    }
}

impl CertificateHolder {
    fn of(self, identity: &Identity) -> Option<&PeerIdentity> {
        match self {
            Self::Connection => identity.connection(),
            Self::Peer => identity.peer(),
        }
    }
}

/// A SHA-256 in base64url: 43 characters, no padding, no stray bits.
pub(crate) fn sha256_of(text: &str) -> Option<[u8; 32]> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::identity::Proxy;

    const A: [u8; 32] = [0xa5; 32];
    const B: [u8; 32] = [0xb6; 32];

    fn text(digest: [u8; 32]) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(digest)
    }

    fn enforced(confirmation: Confirmation) -> Enforced {
        Enforced { confirmation, ..Enforced::default() }
    }

    fn read(confirmation: Confirmation, cnf: Value) -> Result<Binding, Reason> {
        let claims = json!({ "cnf": cnf });
        enforced(confirmation).read(claims.as_object().unwrap())
    }

    fn confirm(
        binding: Binding,
        scheme: Scheme,
        certificate: Option<&[u8; 32]>,
    ) -> Result<bool, Reason> {
        let mut identity = Identity::default();
        identity.set_peer(certificate.map(peer), None, None);
        confirm_by(CertificateHolder::Connection, binding, scheme, &identity)
    }

    fn confirm_by(
        holder: CertificateHolder,
        binding: Binding,
        scheme: Scheme,
        identity: &Identity,
    ) -> Result<bool, Reason> {
        let (headers, uri, method) = (HeaderMap::new(), Uri::from_static("/"), &Method::POST);
        let identity = Some(identity);
        let shown = Shown { scheme, method, uri: &uri, headers: &headers, identity };
        let enforced = Enforced { holder, ..enforced(Confirmation::Enforce) };
        let asked = enforced.confirm(&binding, &shown, &[0; 32], Duration::ZERO);
        asked.map(|pending| pending.is_none())
    }

    fn peer(leaf_sha256: &[u8; 32]) -> Arc<PeerIdentity> {
        Arc::new(PeerIdentity {
            spiffe_id: None,
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            email_addresses: Vec::new(),
            common_names: Vec::new(),
            has_alternative_names: false,
            leaf_sha256: *leaf_sha256,
            public_key_sha256: [0; 32],
            issuer_keys_sha256: Vec::new(),
            not_before: 0,
            not_after: 0,
            claimed: None,
        })
    }

    #[test]
    fn behind_a_proxy_the_certificate_is_the_proxys_or_by_choice_the_clients() {
        let bound = |certificate| Binding { certificate: Some(certificate), key: None };
        let mut identity = Identity::default();
        let ask = |holder, binding, identity: &Identity| {
            confirm_by(holder, binding, Scheme::Bearer, identity)
        };
        // The client's is A, the proxy's is B.
        identity.set_peer(Some(peer(&A)), Some(Proxy::Workload(peer(&B))), None);
        for (holder, bound_to, expected) in [
            (CertificateHolder::Connection, B, Ok(true)),
            (CertificateHolder::Connection, A, Err(Reason::WrongPeer)),
            (CertificateHolder::Peer, A, Ok(true)),
            (CertificateHolder::Peer, B, Err(Reason::WrongPeer)),
        ] {
            assert_eq!(ask(holder, bound(bound_to), &identity), expected, "{holder:?}");
        }
        for proxy in [Proxy::UnixSocket, Proxy::Address([10, 0, 0, 1].into())] {
            identity.set_peer(Some(peer(&A)), Some(proxy), None);
            let by_connection = ask(CertificateHolder::Connection, bound(A), &identity);
            assert_eq!(by_connection, Err(Reason::WrongPeer));
            assert_eq!(ask(CertificateHolder::Peer, bound(A), &identity), Ok(true));
        }
        identity.set_peer(Some(peer(&A)), None, None);
        assert_eq!(ask(CertificateHolder::Peer, bound(A), &identity), Ok(true));
        identity.set_peer(None, None, None);
        assert_eq!(ask(CertificateHolder::Peer, bound(A), &identity), Err(Reason::WrongPeer));
    }

    #[test]
    fn a_binding_that_is_not_checked_is_refused() {
        for cnf in [
            json!({}),
            json!(7),
            json!(null),
            json!([]),
            json!({"jwk": {}}),
            json!({"kid": "k"}),
            json!({"x5t": text(A)}),
            json!({"X5T#S256": text(A)}),
            json!({"jkt": text(A)}),
            json!({"x5t#S256": text(A), "jkt": text(A)}),
            json!({"x5t#S256": text(A), "jku": "https://a.example"}),
        ] {
            assert_eq!(read(Confirmation::Enforce, cnf.clone()), Err(Reason::Bound), "{cnf}");
        }
        let bound = json!({"x5t#S256": text(A)});
        assert_eq!(read(Confirmation::Refuse, bound.clone()), Err(Reason::Bound));
        let binding = Binding { certificate: Some(A), key: None };
        assert_eq!(read(Confirmation::Enforce, bound), Ok(binding));
    }

    #[test]
    fn a_thumbprint_is_43_characters_of_strict_base64url() {
        let good = text(A);
        assert_eq!(good.len(), 43);
        // The last character has two bits more than 32 bytes have.
        let stray = format!("{}{}", &good[..42], if good.ends_with('Q') { 'R' } else { 'Z' });
        for bad in [
            String::new(),
            format!("{good}="),
            format!(" {good}"),
            good[..42].to_owned(),
            format!("{good}A"),
            BASE64_URL_SAFE_NO_PAD.encode([0; 31]),
            BASE64_URL_SAFE_NO_PAD.encode([0; 33]),
            "a5".repeat(32),
            stray,
        ] {
            let cnf = json!({ "x5t#S256": bad });
            assert_eq!(read(Confirmation::Enforce, cnf), Err(Reason::Bound), "{bad}");
        }
        for bad in [json!(7), json!([good]), json!(null)] {
            let cnf = json!({ "x5t#S256": bad });
            assert_eq!(read(Confirmation::Enforce, cnf), Err(Reason::Bound));
        }
    }

    #[test]
    fn where_binding_is_required_an_unbound_token_is_refused() {
        let claims = Map::new();
        let read = |confirmation| enforced(confirmation).read(&claims);
        assert_eq!(read(Confirmation::Refuse), Ok(Binding::default()));
        assert_eq!(read(Confirmation::Enforce), Ok(Binding::default()));
        assert_eq!(read(Confirmation::Require), Err(Reason::Unbound));
    }

    #[test]
    fn a_certificate_binding_asks_for_that_very_certificate() {
        let bound = Binding { certificate: Some(A), key: None };
        assert_eq!(confirm(bound, Scheme::Bearer, Some(&A)), Ok(true));
        assert_eq!(confirm(bound, Scheme::Bearer, Some(&B)), Err(Reason::WrongPeer));
        assert_eq!(confirm(bound, Scheme::Bearer, None), Err(Reason::WrongPeer));
        assert_eq!(confirm(Binding::default(), Scheme::Bearer, Some(&B)), Ok(true));
    }

    #[test]
    fn the_scheme_must_say_what_the_token_says() {
        let bound = Binding { certificate: None, key: Some(A) };
        assert_eq!(confirm(bound, Scheme::Bearer, None), Err(Reason::DpopToken));
        assert_eq!(confirm(Binding::default(), Scheme::Dpop, None), Err(Reason::NoDpopToken));
        // The certificate alone does not do for a token that is bound to both.
        let both = Binding { certificate: Some(A), key: Some(A) };
        assert_eq!(confirm(both, Scheme::Bearer, Some(&A)), Err(Reason::DpopToken));
        assert_eq!(confirm(both, Scheme::Dpop, None), Err(Reason::WrongPeer));
    }
}

//! Whether the sender has the key that a token is bound to: the claim `cnf` (RFC 7800), with a client
//! certificate (RFC 8705) or a DPoP key (RFC 9449), as plain functions on plain data.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, Method, Uri};
use serde_json::{Map, Value};

use super::{DpopVerifier, Facts, Presented, Reason, Scheme, cache::Digest, dpop::Flaw};
use crate::{identity::Identity, observe, secret, store::StoreFuture};

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
    pub(crate) dpop: Option<DpopVerifier>,
}

/// What a request shows beside its token.
pub(crate) struct Shown<'a> {
    pub(crate) scheme: Scheme,
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    /// SHA-256 of the peer's certificate.
    pub(crate) certificate: Option<&'a [u8; 32]>,
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
            shown.certificate.is_some_and(|shown| secret::constant_time_eq(shown, bound))
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
            certificate: certificate(Identity::of(presented.extensions)),
        }
    }

    fn of(facts: &'a Facts) -> Self {
        Self {
            scheme: facts.scheme,
            method: &facts.method,
            uri: &facts.uri,
            headers: &facts.headers,
            certificate: certificate(facts.identity.as_ref()),
        }
    }
}

fn certificate(identity: Option<&Identity>) -> Option<&[u8; 32]> {
    identity.and_then(Identity::peer).map(|peer| &peer.leaf_sha256)
}

/// A SHA-256 in base64url: 43 characters, no padding, no stray bits.
pub(crate) fn sha256_of(text: &str) -> Option<[u8; 32]> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const A: [u8; 32] = [0xa5; 32];
    const B: [u8; 32] = [0xb6; 32];

    fn text(digest: [u8; 32]) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(digest)
    }

    fn enforced(confirmation: Confirmation) -> Enforced {
        Enforced { confirmation, dpop: None }
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
        let (headers, uri) = (HeaderMap::new(), Uri::from_static("/"));
        let method = &Method::POST;
        let shown = Shown { scheme, method, uri: &uri, headers: &headers, certificate };
        let asked =
            enforced(Confirmation::Enforce).confirm(&binding, &shown, &[0; 32], Duration::ZERO);
        asked.map(|pending| pending.is_none())
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

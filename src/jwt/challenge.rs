//! Refusals with their challenge: RFC 6750, section 3.

use http::{HeaderValue, header};

use super::{
    AuthError, AuthErrorKind, DpopVerifier, Missing, Scheme, credentials::Unreadable, dpop::NONCE,
};
use crate::{BuildError, Rejection, RejectionKind};

/// Who challenges.
#[derive(Clone, Debug)]
pub(crate) struct Challenger {
    realm: String,
    /// Where the resource's metadata is (RFC 9728, section 5.1). Empty: not said.
    resource_metadata: String,
}

/// What a challenge is about.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked<'a> {
    /// The scheme that the request used. An error is told under this one.
    pub(crate) scheme: Scheme,
    /// The scopes that the request needs.
    pub(crate) scope: &'a str,
    /// What the scheme DPoP asks for, where it may be used.
    pub(crate) dpop: Option<&'a DpopVerifier>,
}

impl Default for Challenger {
    fn default() -> Self {
        Self { realm: "inference".into(), resource_metadata: String::new() }
    }
}

impl Challenger {
    pub(crate) fn new(realm: String) -> Result<Self, BuildError> {
        if realm.is_empty() || !realm.bytes().all(is_quotable) {
            return Err(BuildError::invalid("realm", "it must be of printable ASCII"));
        }
        Ok(Self { realm, ..Self::default() })
    }

    pub(crate) fn with_resource_metadata(self, url: &str) -> Self {
        Self { resource_metadata: url.to_owned(), ..self }
    }

    /// No credential was sent, or one of another scheme: no error code then.
    pub(crate) fn missing(&self, asked: Asked<'_>) -> Rejection {
        let kind = RejectionKind::Unauthenticated;
        let rejection = Rejection::new(kind, "missing_credentials", "An access token is required.");
        self.challenged(rejection, asked, &[])
    }

    /// The credential can't be read.
    pub(crate) fn unreadable(&self, why: Unreadable, asked: Asked<'_>) -> Rejection {
        let description = match why {
            Unreadable::Several => "The request carries more than one credential.",
            Unreadable::Malformed => "The credential of the request is malformed.",
        };
        self.refused(&AuthError::new(AuthErrorKind::InvalidRequest, description), asked)
    }

    /// The token grants too little.
    pub(crate) fn insufficient(&self, missing: &Missing, asked: Asked<'_>) -> Rejection {
        let description = if missing.is_beyond_scopes() {
            "The caller has not the role or claim that is needed here."
        } else {
            "The access token does not grant a scope that is needed here."
        };
        self.refused(&AuthError::new(AuthErrorKind::InsufficientScope, description), asked)
    }

    /// The verifier did not accept the token.
    pub(crate) fn refused(&self, error: &AuthError, asked: Asked<'_>) -> Rejection {
        let (kind, code) = match error.kind() {
            AuthErrorKind::InvalidRequest => (RejectionKind::BadRequest, "invalid_request"),
            AuthErrorKind::InvalidToken => (RejectionKind::Unauthenticated, "invalid_token"),
            AuthErrorKind::InsufficientScope => (RejectionKind::Forbidden, "insufficient_scope"),
            AuthErrorKind::InvalidDpopProof => {
                (RejectionKind::Unauthenticated, "invalid_dpop_proof")
            }
            AuthErrorKind::UseDpopNonce => (RejectionKind::Unauthenticated, "use_dpop_nonce"),
            AuthErrorKind::Unavailable => {
                let kind = RejectionKind::Unavailable;
                return Rejection::new(kind, "auth_unavailable", error.description());
            }
        };
        let rejection = Rejection::new(kind, code, error.description());
        let description = error.description();
        self.challenged(rejection, asked, &[("error", code), ("error_description", description)])
    }

    /// One challenge for each scheme, in a header of its own: two in one header, many can't tell
    /// apart (RFC 9110, section 11.6.1). Parameters that are empty are left out.
    fn challenged(
        &self,
        rejection: Rejection,
        asked: Asked<'_>,
        error: &[Parameter<'_>],
    ) -> Rejection {
        let scope = ("scope", asked.scope);
        let metadata = ("resource_metadata", &*self.resource_metadata);
        let of_scheme = |scheme| if asked.scheme == scheme { error } else { &[] };
        let bearer =
            [&[("realm", &*self.realm)], of_scheme(Scheme::Bearer), &[scope, metadata]].concat();
        let rejection = with_challenge(rejection, "Bearer", &bearer);
        let Some(dpop) = asked.dpop else { return rejection };
        let algorithms = ("algs", dpop.algorithms());
        let parameters = [of_scheme(Scheme::Dpop), &[scope, algorithms, metadata]].concat();
        let rejection = with_challenge(rejection, "DPoP", &parameters);
        match dpop.nonce() {
            Some(nonce) => rejection.with_header(NONCE, nonce),
            None => rejection,
        }
    }
}

type Parameter<'a> = (&'a str, &'a str);

/// Parameters that are empty are left out.
fn with_challenge(rejection: Rejection, scheme: &str, parameters: &[Parameter<'_>]) -> Rejection {
    let mut challenge = String::from(scheme);
    let mut separator = " ";
    for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        challenge.push_str(separator);
        challenge.push_str(name);
        challenge.push('=');
        push_quoted(&mut challenge, value);
        separator = ", ";
    }
    match HeaderValue::try_from(challenge) {
        Ok(value) => rejection.with_header(header::WWW_AUTHENTICATE, value),
        Err(_) => rejection,
    }
}

/// A quoted-string of RFC 9110, section 5.6.4. What can't stand in one becomes a question mark.
fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            ' '..='~' => out.push(character),
            _ => out.push('?'),
        }
    }
    out.push('"');
}

fn is_quotable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(rejection: Rejection) -> String {
        let response = rejection.into_response::<http_body_util::Empty<bytes::Bytes>>(
            "jwt",
            crate::reject::ErrorFormat::Problem,
            &crate::Routes::guard_all(),
        );
        let value = response.headers().get(header::WWW_AUTHENTICATE);
        value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    #[test]
    fn challenges_are_those_of_rfc_6750() {
        let challenger = Challenger::new("llm".into()).unwrap();
        let scoped = Asked { scope: "a b", ..Asked::default() };
        assert_eq!(challenge(challenger.missing(Asked::default())), r#"Bearer realm="llm""#);
        assert_eq!(challenge(challenger.missing(scoped)), r#"Bearer realm="llm", scope="a b""#);
        assert_eq!(
            challenge(challenger.refused(&AuthError::invalid_token(), Asked::default())),
            "Bearer realm=\"llm\", error=\"invalid_token\", \
             error_description=\"The access token cannot be verified.\"",
        );
        let refused = challenger.insufficient(&Missing::default(), scoped);
        assert!(challenge(refused).ends_with(r#", scope="a b""#));
        assert_eq!(challenge(challenger.refused(&AuthError::unavailable(), Asked::default())), "");
    }

    #[test]
    fn every_challenge_names_the_metadata() {
        let url = "https://a.example/.well-known/oauth-protected-resource";
        let challenger = Challenger::default().with_resource_metadata(url);
        for rejection in [
            challenger.missing(Asked::default()),
            challenger.unreadable(Unreadable::Several, Asked::default()),
            challenger.insufficient(&Missing::default(), Asked::default()),
            challenger.refused(&AuthError::invalid_token(), Asked::default()),
        ] {
            let challenge = challenge(rejection);
            assert!(challenge.ends_with(&format!(r#", resource_metadata="{url}""#)), "{challenge}");
        }
    }

    #[test]
    fn quoted_strings_are_escaped() {
        let challenger = Challenger::new(r#"a "b" \c"#.into()).unwrap();
        assert_eq!(
            challenge(challenger.missing(Asked::default())),
            r#"Bearer realm="a \"b\" \\c""#
        );
        let odd = AuthError::new(AuthErrorKind::InvalidToken, "é\"\r\n");
        assert!(
            challenge(challenger.refused(&odd, Asked::default()))
                .ends_with(r#"error_description="?\"??""#)
        );
        for bad in ["", "a\r\nb", "é"] {
            assert!(Challenger::new(bad.into()).is_err(), "{bad:?}");
        }
    }
}

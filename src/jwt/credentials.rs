//! Where a request carries its token: RFC 6750, section 2.1. The body and the query never do.

use http::{HeaderMap, HeaderName, header};

use super::dpop::PROOF;

/// The header that Anthropic's clients send their key in.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What a request carries.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Credential<'a> {
    /// Nothing.
    Nothing,
    /// Something of a scheme that is not ours: Basic.
    OtherScheme,
    /// A token, in the characters that a token may have.
    Token(&'a str),
    /// A token under the scheme DPoP, in such characters too.
    Dpop(&'a str),
}

/// Why a request can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// More than one credential. Which one counts, two readers may see differently.
    Several,
    /// Not a token.
    Malformed,
}

/// The one credential of a request. `x-api-key` counts if `api_key` says so.
pub(crate) fn find(headers: &HeaderMap, api_key: bool) -> Result<Credential<'_>, Unreadable> {
    let mut authorization = headers.get_all(header::AUTHORIZATION).iter();
    let mut keys = headers.get_all(API_KEY).iter().filter(|_| api_key);
    match (authorization.next(), authorization.next(), keys.next(), keys.next()) {
        (None, _, None, _) => Ok(Credential::Nothing),
        (Some(value), None, None, _) => authorized(value.as_bytes()),
        (None, _, Some(key), None) => token(key.as_bytes()).map(Credential::Token),
        _ => Err(Unreadable::Several),
    }
}

/// Takes the token away, and the proofs that came with it if `dpop` says so, or marks them so that
/// nothing logs them.
pub(crate) fn hide(headers: &mut HeaderMap, api_key: bool, dpop: bool, strip: bool) {
    let others = [api_key.then_some(API_KEY), dpop.then_some(PROOF)];
    for name in [header::AUTHORIZATION].into_iter().chain(others.into_iter().flatten()) {
        if strip {
            headers.remove(name);
        } else if let Some(value) = headers.get_mut(name) {
            value.set_sensitive(true);
        }
    }
}

/// Scheme names are compared in any case (RFC 9110, section 11.1), and one space or more follows.
fn authorized(value: &[u8]) -> Result<Credential<'_>, Unreadable> {
    let end = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at_checked(end).ok_or(Unreadable::Malformed)?;
    let credential = match scheme {
        scheme if scheme.eq_ignore_ascii_case(b"bearer") => Credential::Token,
        scheme if scheme.eq_ignore_ascii_case(b"dpop") => Credential::Dpop,
        _ => return Ok(Credential::OtherScheme),
    };
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    token(rest.get(spaces..).unwrap_or_default()).map(credential)
}

/// A `b64token`: letters, digits and `-._~+/`, then `=`.
fn token(value: &[u8]) -> Result<&str, Unreadable> {
    let unpadded = value.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    // Without a branch, so that it is done for many bytes at once: tokens are long.
    let of_token = |all, byte: &u8| {
        let mark = (*byte == b'+') | (*byte == b'_') | (*byte == b'~');
        all & (byte.is_ascii_alphabetic() | (b'-'..=b'9').contains(byte) | mark)
    };
    let body = value.get(..unpadded).filter(|body| !body.is_empty());
    if !body.is_some_and(|body| body.iter().fold(true, of_token)) {
        return Err(Unreadable::Malformed);
    }
    std::str::from_utf8(value).map_err(|_| Unreadable::Malformed)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn one_bearer_token_is_found_whatever_the_case() {
        for value in
            ["Bearer a.b-c_d~e+f/g==", "bearer a.b-c_d~e+f/g==", "BEARER   a.b-c_d~e+f/g=="]
        {
            let headers = headers(&[("authorization", value)]);
            let found = find(&headers, true);
            assert_eq!(found, Ok(Credential::Token("a.b-c_d~e+f/g==")), "{value}");
        }
        for value in ["DPoP a.b", "dpop  a.b"] {
            let headers = headers(&[("authorization", value)]);
            assert_eq!(find(&headers, true), Ok(Credential::Dpop("a.b")), "{value}");
        }
        assert_eq!(find(&headers(&[("x-api-key", "k")]), true), Ok(Credential::Token("k")));
        assert_eq!(find(&headers(&[("x-api-key", "k")]), false), Ok(Credential::Nothing));
        assert_eq!(find(&headers(&[]), true), Ok(Credential::Nothing));
    }

    #[test]
    fn other_schemes_are_told_from_malformed_tokens() {
        for value in ["Basic YTpi", "DPoPX a", "", "BearerX a", "Bearer\ta", "Bear"] {
            let headers = headers(&[("authorization", value)]);
            let found = find(&headers, true);
            assert_eq!(found, Ok(Credential::OtherScheme), "{value}");
        }
        for value in [
            "Bearer",
            "Bearer ",
            "Bearer a b",
            "Bearer a ",
            "Bearer \"a\"",
            "Bearer =",
            "Bearer é",
            "Bearer a=b",
            "Bearer a,Bearer b",
            "Bearer a\tb",
            "DPoP",
            "DPoP a b",
        ] {
            let headers = headers(&[("authorization", value)]);
            let found = find(&headers, true);
            assert_eq!(found, Err(Unreadable::Malformed), "{value}");
        }
    }

    #[test]
    fn two_credentials_are_one_too_many() {
        for list in [
            &[("authorization", "Bearer a"), ("authorization", "Bearer a")][..],
            &[("authorization", "Bearer a"), ("authorization", "Basic b")],
            &[("authorization", "Bearer a"), ("x-api-key", "a")],
            &[("authorization", "Basic a"), ("x-api-key", "a")],
            &[("x-api-key", "a"), ("x-api-key", "a")],
            &[("authorization", "DPoP a"), ("authorization", "Bearer a")],
            &[("authorization", "DPoP a"), ("x-api-key", "a")],
        ] {
            assert_eq!(find(&headers(list), true), Err(Unreadable::Several), "{list:?}");
        }
        let both = headers(&[("authorization", "Bearer a"), ("x-api-key", "b")]);
        assert_eq!(find(&both, false), Ok(Credential::Token("a")));
    }

    #[test]
    fn tokens_are_taken_away_or_marked() {
        let mut stripped =
            headers(&[("authorization", "DPoP a"), ("x-api-key", "b"), ("dpop", "c")]);
        let mut marked = stripped.clone();
        hide(&mut marked, true, true, false);
        assert!(marked.values().all(HeaderValue::is_sensitive));
        hide(&mut stripped, false, false, true);
        assert_eq!(stripped.len(), 2);
        assert!(stripped.contains_key("x-api-key") && stripped.contains_key("dpop"));
        hide(&mut stripped, true, true, true);
        assert!(stripped.is_empty());
    }
}

//! Where an issuer says its keys are: OpenID Connect Discovery 1.0 and RFC 8414.

use http::Uri;
use serde_json::Value;

use super::json;
pub(crate) use crate::outbound::check_url;

/// Where the metadata of `issuer` may stand, in the order in which to look.
///
/// OpenID Connect puts the well-known part behind the issuer's path (Discovery, section 4), RFC 8414
/// before it (section 3.1), and servers that moved from one to the other do both (section 5).
pub(crate) fn locations(issuer: &str) -> Result<Vec<String>, &'static str> {
    let uri: Uri = issuer.parse().map_err(|_| NO_URL)?;
    if uri.query().is_some() || issuer.contains('#') {
        return Err("an issuer has neither query nor fragment");
    }
    let (scheme, authority) = (uri.scheme_str().ok_or(NO_URL)?, uri.authority().ok_or(NO_URL)?);
    let path = uri.path().strip_suffix('/').unwrap_or(uri.path());
    let mut all = vec![
        format!("{scheme}://{authority}{path}/.well-known/openid-configuration"),
        format!("{scheme}://{authority}/.well-known/oauth-authorization-server{path}"),
    ];
    if !path.is_empty() {
        all.push(format!("{scheme}://{authority}/.well-known/openid-configuration{path}"));
    }
    Ok(all)
}

/// The `jwks_uri` of a metadata document. The document must be the issuer's own, to the byte: else one
/// tenant's metadata would serve for another (Discovery, section 4.3; RFC 8414, section 3.3).
pub(crate) fn key_set_url(document: &[u8], issuer: &str) -> Result<String, &'static str> {
    let metadata = json::parse_object(document).ok_or("the metadata is no JSON object")?;
    if metadata.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err("the metadata is another issuer's");
    }
    let url = metadata.get("jwks_uri").and_then(Value::as_str);
    url.map(str::to_owned).ok_or("the metadata has no jwks_uri")
}

const NO_URL: &str = "not a URL";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_looked_for_in_a_fixed_order() {
        let plain = locations("https://idp.example").unwrap();
        let expected = [
            "https://idp.example/.well-known/openid-configuration",
            "https://idp.example/.well-known/oauth-authorization-server",
        ];
        assert_eq!(plain, expected);
        assert_eq!(locations("https://idp.example/").unwrap(), expected);
        let tenant = [
            "https://idp.example:8443/realms/a/.well-known/openid-configuration",
            "https://idp.example:8443/.well-known/oauth-authorization-server/realms/a",
            "https://idp.example:8443/.well-known/openid-configuration/realms/a",
        ];
        assert_eq!(locations("https://idp.example:8443/realms/a").unwrap(), tenant);
        assert_eq!(locations("https://idp.example:8443/realms/a/").unwrap(), tenant);
        for bad in ["", "idp", "/a", "https://a?b", "https://a#b", "https://a/b?c"] {
            assert!(locations(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn metadata_counts_only_for_its_own_issuer() {
        let document = |issuer: &str| format!(r#"{{"issuer":"{issuer}","jwks_uri":"https://k"}}"#);
        let read = |text: &str| key_set_url(text.as_bytes(), "https://a/x");
        assert_eq!(read(&document("https://a/x")).unwrap(), "https://k");
        for other in ["https://a/x/", "https://a/X", "https://a", "HTTPS://a/x", "https://a/x "] {
            assert!(read(&document(other)).is_err(), "{other}");
        }
        for bad in [
            "",
            "[]",
            r#"{"jwks_uri":"https://k"}"#,
            r#"{"issuer":["https://a/x"],"jwks_uri":"https://k"}"#,
            r#"{"issuer":"https://a/x"}"#,
            r#"{"issuer":"https://a/x","jwks_uri":7}"#,
            r#"{"issuer":"https://b","issuer":"https://a/x","jwks_uri":"https://k"}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_tls_and_by_choice_loopback_is_fetched() {
        for good in ["https://a", "https://a:1/b?c=d", "https://127.0.0.1/x"] {
            assert_eq!(check_url(good, false), Ok(()), "{good}");
        }
        for local in ["http://127.0.0.1:3999/jwks", "http://localhost/", "http://[::1]:1/x"] {
            assert_eq!(check_url(local, true), Ok(()), "{local}");
            assert!(check_url(local, false).is_err(), "{local}");
        }
        for bad in [
            "http://a",
            "http://10.0.0.1/",
            "http://localhost.evil.example/",
            "http://127.0.0.1@evil.example/",
            "https://user@a/",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "/jwks",
            "",
        ] {
            assert!(check_url(bad, true).is_err(), "{bad}");
        }
    }
}

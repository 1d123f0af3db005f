//! Whether a proof was made for the address that was asked: `htu` (RFC 9449, sections 4.2 and 4.3).

use http::Uri;

/// An address under which clients reach the server: its origin, and the path that stands before
/// every request's path, if a proxy takes one away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    origin: Origin,
    path: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: &'static str,
    host: String,
    port: u16,
}

impl Base {
    /// Only `https`, or `http` on the loopback interface, since tokens have no business in the clear.
    pub(super) fn read(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "it is no address like https://llm.example";
        let uri: Uri = text.parse().map_err(|_| FORM)?;
        let origin = Origin::of(&uri).ok_or(FORM)?;
        if uri.query().is_some() || text.contains('#') {
            return Err("it has a query or a fragment");
        }
        if origin.scheme != "https" && !origin.is_loopback() {
            return Err("it is neither https nor on the loopback interface");
        }
        Ok(Self { origin, path: uri.path().trim_end_matches('/').to_owned() })
    }

    /// Whether `htu` is the address of a request for `path`, as clients write it. Query and fragment
    /// don't count.
    pub(super) fn is_target(&self, htu: &Uri, path: &str) -> bool {
        let Some(claimed) = normalised(htu.path()) else { return false };
        path.starts_with('/')
            && Origin::of(htu).is_some_and(|origin| origin == self.origin)
            && normalised(&format!("{}{path}", self.path)).is_some_and(|asked| asked == claimed)
    }
}

impl Origin {
    /// `None` for other schemes, and for what no origin has: a user, a port past 65535.
    fn of(uri: &Uri) -> Option<Self> {
        let (scheme, default) = match uri.scheme_str()? {
            scheme if scheme.eq_ignore_ascii_case("https") => ("https", 443),
            scheme if scheme.eq_ignore_ascii_case("http") => ("http", 80),
            _ => return None,
        };
        let authority = uri.authority()?;
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host)? {
            "" | ":" => default,
            rest => {
                let digits = rest.strip_prefix(':')?;
                let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
                plain.then(|| digits.parse().ok())??
            }
        };
        (!host.is_empty()).then(|| Self { scheme, host: host.to_ascii_lowercase(), port })
    }

    fn is_loopback(&self) -> bool {
        matches!(self.host.as_str(), "localhost" | "127.0.0.1" | "[::1]")
    }
}

/// A path in the one form that all its spellings have: RFC 3986, sections 6.2.2 and 5.2.4. `None` for
/// broken percent-encoding.
fn normalised(path: &str) -> Option<String> {
    let decoded = normal_escapes(path)?;
    let mut segments = Vec::new();
    let mut rest = decoded.strip_prefix('/').unwrap_or(&decoded).split('/').peekable();
    while let Some(segment) = rest.next() {
        let is_last = rest.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            segment => {
                segments.push(segment);
                continue;
            }
        }
        if is_last {
            segments.push("");
        }
    }
    Some(format!("/{}", segments.join("/")))
}

/// Escapes what must be, in upper case, and nothing that need not be.
fn normal_escapes(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let (byte, escaped) = match byte {
            b'%' => (hex(bytes.next()?)? << 4 | hex(bytes.next()?)?, true),
            byte => (byte, !byte.is_ascii()),
        };
        if escaped && !is_unreserved(byte) {
            out.push_str(&format!("%{byte:02X}"));
        } else {
            out.push(char::from(byte));
        }
    }
    Some(out)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fits(base: &str, htu: &str, path: &str) -> bool {
        let base = Base::read(base).unwrap();
        htu.parse().is_ok_and(|htu| base.is_target(&htu, path))
    }

    #[test]
    fn an_address_has_many_spellings() {
        for htu in [
            "https://llm.example/v1/chat/completions",
            "HTTPS://LLM.Example:443/v1/chat/completions",
            "https://llm.example/v1/chat/completions?a=b",
            "https://llm.example/v1/chat/completions#top",
            "https://llm.example:/v1/./x/../chat/completions",
            "https://llm.example/v1/%63hat/%63ompletions",
        ] {
            assert!(fits("https://llm.example", htu, "/v1/chat/completions"), "{htu}");
        }
        assert!(fits("https://llm.example/", "https://llm.example", "/"));
        assert!(fits("https://llm.example", "https://llm.example/a%2fb", "/a%2Fb"));
        assert!(fits("https://llm.example", "https://llm.example/%C3%A9", "/é"));
        assert!(fits("http://localhost:8080", "http://LOCALHOST:8080/a", "/a"));
        assert!(fits("https://[2001:db8::1]:8443", "https://[2001:DB8::1]:8443/a", "/a"));
    }

    #[test]
    fn another_address_is_another_address() {
        for htu in [
            "https://llm.example/v1/chat/completions/",
            "https://llm.example/v1/chat/Completions",
            "https://llm.example/v1//chat/completions",
            "https://llm.example/v1%2Fchat/completions",
            "https://llm.example:8443/v1/chat/completions",
            "https://llm.example:65979/v1/chat/completions",
            "https://llm.example.evil/v1/chat/completions",
            "https://llm.example@evil/v1/chat/completions",
            "https://a@llm.example/v1/chat/completions",
            "http://llm.example/v1/chat/completions",
            "wss://llm.example/v1/chat/completions",
            "//llm.example/v1/chat/completions",
            "/v1/chat/completions",
            "https://llm.example/v1/chat/completions%",
            "https://llm.example/v1/chat/completions%4",
            "https://llm.example/v1/chat/completions%zz",
            "https:///v1/chat/completions",
            "https://llm.example",
            "",
        ] {
            assert!(!fits("https://llm.example", htu, "/v1/chat/completions"), "{htu}");
        }
        assert!(!fits("https://llm.example", "https://llm.example/*", "*"));
        assert!(!fits("https://llm.example", "https://llm.example/", ""));
    }

    #[test]
    fn a_path_that_a_proxy_takes_away_is_put_back() {
        for base in ["https://gateway.example/llm", "https://gateway.example/llm/"] {
            assert!(fits(base, "https://gateway.example/llm/generate", "/generate"));
            assert!(!fits(base, "https://gateway.example/generate", "/generate"));
        }
    }

    #[test]
    fn a_base_is_an_address_in_the_open_only_at_home() {
        for good in
            ["https://llm.example", "http://127.0.0.1:1", "http://[::1]", "HTTP://localhost"]
        {
            assert!(Base::read(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "llm.example",
            "/",
            "http://llm.example",
            "ftp://llm.example",
            "https://a@llm.example",
            "https://llm.example?a",
            "https://llm.example/#a",
            "https://llm.example:70000",
            "http://localhost.evil",
        ] {
            assert!(Base::read(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn normal_forms_stay_as_they_are(path in "(/|\\.|%2e|%2F|%c3|[a-z~ é]|%){0,20}") {
            if let Some(normal) = normalised(&path) {
                prop_assert_eq!(normalised(&normal), Some(normal));
            }
        }
    }
}

//! Which scopes a request needs.

use std::borrow::Cow;

use http::Request;

use crate::{BuildError, connection, identity::UserIdentity, route::ends_in_segments};

/// Scopes by path. Every rule that fits a request holds for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScopeRules(Vec<Rule>);

#[derive(Clone, Debug)]
struct Rule {
    /// The end of the path; `None` for every path.
    suffix: Option<String>,
    scopes: Vec<String>,
}

impl ScopeRules {
    pub(crate) fn push(&mut self, suffix: Option<String>, scopes: Vec<String>) {
        self.0.push(Rule { suffix, scopes });
    }

    /// Refuses rules that ask for nothing, and scopes that no token could be granted
    /// (RFC 6749, section 3.3).
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        for rule in &self.0 {
            if rule.scopes.is_empty() {
                return Err(BuildError::Empty("require_scopes"));
            }
            if rule.suffix.as_deref().is_some_and(|suffix| suffix.trim_matches('/').is_empty()) {
                return Err(BuildError::invalid("require_scopes_at", "the path has no segment"));
            }
            let is_scope = |scope: &String| {
                !scope.is_empty()
                    && scope.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
            };
            if !rule.scopes.iter().all(is_scope) {
                return Err(BuildError::invalid("require_scopes", "not a scope of RFC 6749"));
            }
        }
        Ok(())
    }

    /// Whether the caller was granted all that the request needs.
    pub(crate) fn admit<B>(&self, request: &Request<B>, user: Option<&UserIdentity>) -> bool {
        self.needed(request).all(|scope| user.is_some_and(|user| user.has_scope(scope)))
    }

    /// All that the request needs, as a challenge lists it. Empty when that is nothing.
    pub(crate) fn list<B>(&self, request: &Request<B>) -> String {
        let mut list: Vec<&str> = Vec::new();
        for scope in self.needed(request) {
            if !list.contains(&scope) {
                list.push(scope);
            }
        }
        list.join(" ")
    }

    fn needed<B>(&self, request: &Request<B>) -> impl Iterator<Item = &str> {
        let given = request.uri().path();
        let pattern = connection::matched_path(request.extensions());
        let plain = if self.0.is_empty() { Cow::Borrowed(given) } else { plain(given) };
        let applies = move |rule: &&Rule| {
            rule.suffix.as_deref().is_none_or(|suffix| {
                let fits = |path: &str| ends_in_segments(path, suffix);
                fits(given) || fits(&plain) || pattern.is_some_and(fits)
            })
        };
        self.0.iter().filter(applies).flat_map(|rule| &rule.scopes).map(String::as_str)
    }
}

/// The path as a server further on might understand it: percent-decoded, without empty, `.` and
/// `..` segments and without parameters. `/x/%61dmin;a=b/` must not get past a rule for `/admin`.
fn plain(path: &str) -> Cow<'_, str> {
    let odd = |byte: u8| matches!(byte, b'%' | b';' | b'\\');
    if !path.bytes().any(odd) && !path.contains("//") && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    let mut decoded = path.as_bytes().to_vec();
    for _ in 0..MAX_DECODINGS {
        let next = percent_decoded(&decoded);
        if next == decoded {
            break;
        }
        decoded = next;
    }
    let text = String::from_utf8_lossy(&decoded);
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    Cow::Owned(format!("/{}", segments.join("/")))
}

fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        let pair = after.split_first_chunk::<2>().filter(|_| *first == b'%');
        let byte = pair.and_then(|([high, low], tail)| Some((hex(*high)? << 4 | hex(*low)?, tail)));
        let (byte, tail) = byte.unwrap_or((*first, after));
        out.push(byte);
        rest = tail;
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// How often a path may have been encoded over by the servers on the way.
const MAX_DECODINGS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> ScopeRules {
        let mut rules = ScopeRules::default();
        rules.push(None, vec!["llm".into()]);
        rules.push(Some("/chat/completions".into()), vec!["chat".into(), "llm".into()]);
        rules.push(Some("/admin".into()), vec!["admin".into()]);
        rules
    }

    fn needed(path: &str) -> String {
        rules().list(&Request::post(path).body(()).unwrap())
    }

    #[test]
    fn every_rule_that_fits_holds() {
        assert_eq!(needed("/v1/models"), "llm");
        assert_eq!(needed("/v1/chat/completions"), "llm chat");
        assert_eq!(needed("/x/admin/"), "llm admin");
        assert_eq!(needed("/xadmin"), "llm");
    }

    #[test]
    fn no_spelling_of_a_path_gets_past_its_rule() {
        for path in [
            "/%61dmin",
            "/%2561dmin",
            "//admin",
            "/admin//",
            "/admin/.",
            "/admin/x/..",
            "/admin;a=b",
            "/admin;a/",
            "/x/..%2fadmin",
            "/x%5cadmin",
        ] {
            assert_eq!(needed(path), "llm admin", "{path}");
        }
        assert_eq!(needed("/models/meta%2Fllama/generate"), "llm");
        assert_eq!(needed("/%"), "llm");
        assert_eq!(needed("/%f"), "llm");
    }

    #[test]
    fn all_scopes_are_needed() {
        let request = Request::post("/v1/chat/completions").body(()).unwrap();
        let user =
            |scopes: &[&str]| UserIdentity::asserted("i", "s").with_scopes(scopes.iter().copied());
        assert!(rules().admit(&request, Some(&user(&["chat", "llm"]))));
        assert!(!rules().admit(&request, Some(&user(&["chat"]))));
        assert!(!rules().admit(&request, Some(&user(&["CHAT", "llm"]))));
        assert!(!rules().admit(&request, None));
        assert!(ScopeRules::default().admit(&request, None));
    }

    #[test]
    fn rules_that_mean_nothing_are_refused() {
        let check = |suffix: Option<&str>, scopes: &[&str]| {
            let mut rules = ScopeRules::default();
            let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            rules.push(suffix.map(str::to_owned), scopes);
            rules.check().is_ok()
        };
        assert!(check(None, &["a:b.c/d"]));
        assert!(!check(None, &[]));
        for scope in ["", "a b", "a\"", "a\\", "é"] {
            assert!(!check(None, &[scope]), "{scope}");
        }
        assert!(!check(Some("/"), &["a"]));
        assert!(!check(Some(""), &["a"]));
    }

    proptest::proptest! {
        #[test]
        fn any_path_reads_as_one_without_odd_segments(path in "(/|\\.|%2e|%2F|%25|;|a|\\PC){0,30}") {
            let plain = plain(&path);
            if plain != path.as_str() {
                proptest::prop_assert!(plain.starts_with('/') && !plain.contains("//"));
                proptest::prop_assert!(plain.split('/').all(|segment| segment != ".."));
            }
        }
    }
}

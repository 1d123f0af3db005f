//! What a request needs of its caller, by its path.

use http::Request;

use super::policy::{Missing, Policy};
use crate::{BuildError, connection, identity::UserIdentity, route};

/// Policies by path. Every rule that fits a request holds for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccessRules(Vec<Rule>);

#[derive(Clone, Debug)]
struct Rule {
    /// The end of the path; `None` for every path.
    suffix: Option<String>,
    policy: Policy,
    /// The option that it was given to.
    option: &'static str,
}

impl AccessRules {
    pub(crate) fn push(&mut self, option: &'static str, suffix: Option<String>, policy: Policy) {
        self.0.push(Rule { suffix, policy, option });
    }

    /// Refuses rules that ask for nothing, and what no token could be granted.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        for Rule { suffix, policy, option } in &self.0 {
            if suffix.as_deref().is_some_and(|suffix| suffix.trim_matches('/').is_empty()) {
                return Err(BuildError::invalid(option, "the path has no segment"));
            }
            policy.check(option)?;
        }
        Ok(())
    }

    /// Whether the caller was granted all that the request needs.
    pub(crate) fn admit<B>(&self, request: &Request<B>, user: Option<&UserIdentity>) -> bool {
        self.needed(request).all(|policy| user.is_some_and(|user| policy.admits(user)))
    }

    /// What the request needs that the caller lacks, as a challenge tells it.
    pub(crate) fn missing<B>(&self, request: &Request<B>, user: Option<&UserIdentity>) -> Missing {
        let mut missing = Missing::default();
        self.needed(request).for_each(|policy| missing.add(policy, user));
        missing
    }

    fn needed<B>(&self, request: &Request<B>) -> impl Iterator<Item = &Policy> {
        let given = request.uri().path();
        let pattern = connection::matched_path(request.extensions());
        let readings = if self.0.is_empty() { Vec::new() } else { route::readings(given) };
        let applies = move |rule: &&Rule| {
            rule.suffix.as_deref().is_none_or(|suffix| {
                let fits = |path: &str| route::ends_in_segments(path, suffix);
                let mut readings = readings.iter();
                fits(given) || readings.any(|path| fits(path)) || pattern.is_some_and(fits)
            })
        };
        self.0.iter().filter(applies).map(|rule| &rule.policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> AccessRules {
        let mut rules = AccessRules::default();
        let mut push = |suffix: Option<&str>, scopes: &[&str]| {
            let policy = Policy::all_scopes(scopes.iter().copied());
            rules.push("require", suffix.map(Into::into), policy);
        };
        push(None, &["llm"]);
        push(Some("/chat/completions"), &["chat", "llm"]);
        push(Some("/admin"), &["admin"]);
        rules
    }

    fn needed(path: &str) -> String {
        rules().missing(&Request::post(path).body(()).unwrap(), None).list()
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
            "/admin//..",
            "/admin/x%2Fy/..",
            "/admin/x%252fy/..",
            "/admin/x%5cy/..",
            "/admin/x\\y/..",
            "/admin/x%2Fy//../..",
        ] {
            assert_eq!(needed(path), "llm admin", "{path}");
        }
        for path in [
            "/v1/chat//../completions",
            "/v1/chat/x%2Fy/../completions",
            "/v1/chat/x%2Fy//../completions",
        ] {
            assert_eq!(needed(path), "llm chat", "{path}");
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
        assert!(AccessRules::default().admit(&request, None));
    }

    #[test]
    fn rules_that_mean_nothing_are_refused() {
        let check = |suffix: Option<&str>, scopes: &[&str]| {
            let mut rules = AccessRules::default();
            let policy = Policy::all_scopes(scopes.iter().copied());
            rules.push("require", suffix.map(str::to_owned), policy);
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
}

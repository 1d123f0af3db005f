//! What a caller must have been granted, as plain data and a plain decision.

use std::{fmt, sync::Arc};

use crate::{
    BuildError,
    identity::{Claims, UserIdentity},
};

/// What a caller must have been granted: scopes, roles, claims, and alternatives of these.
///
/// ```
/// use palisade::{identity::UserIdentity, jwt::{ClaimTest, Policy}};
///
/// let policy = Policy::all_of([
///     Policy::scope("llm:infer"),
///     Policy::any_of([Policy::role("admin"), Policy::claim("tier", ClaimTest::equals("paid"))]),
/// ]);
/// let user = UserIdentity::asserted("https://login.example", "alice").with_scopes(["llm:infer"]);
/// assert!(policy.decide(&user).is_err());
/// assert!(policy.decide(&user.with_claims(r#"{"tier":"paid"}"#)).is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct Policy(Node);

#[derive(Clone, Debug)]
enum Node {
    Scope(String),
    Role(String),
    Claim(String, ClaimTest),
    All(Vec<Policy>),
    Any(Vec<Policy>),
}

impl Policy {
    /// The token grants this scope. Scopes are case-sensitive (RFC 6749, section 3.3).
    #[must_use]
    pub fn scope(scope: impl Into<String>) -> Self {
        Self(Node::Scope(scope.into()))
    }

    /// The token grants all of these scopes.
    #[must_use]
    pub fn all_scopes<T: Into<String>>(scopes: impl IntoIterator<Item = T>) -> Self {
        Self::all_of(scopes.into_iter().map(Self::scope))
    }

    /// The token grants one of these scopes at least.
    #[must_use]
    pub fn any_scope<T: Into<String>>(scopes: impl IntoIterator<Item = T>) -> Self {
        Self::any_of(scopes.into_iter().map(Self::scope))
    }

    /// The caller has this role: see [`UserIdentity::roles`]. Case-sensitive.
    #[must_use]
    pub fn role(role: impl Into<String>) -> Self {
        Self(Node::Role(role.into()))
    }

    /// A claim, by name (`tier`) or by JSON pointer (`/realm_access/roles`), stands the test. One that
    /// is not there stands none.
    #[must_use]
    pub fn claim(claim: impl Into<String>, test: ClaimTest) -> Self {
        Self(Node::Claim(claim.into(), test))
    }

    /// All of these hold.
    #[must_use]
    pub fn all_of(policies: impl IntoIterator<Item = Self>) -> Self {
        Self(Node::All(policies.into_iter().collect()))
    }

    /// One of these holds at least. Challenges ask for the first that more scopes would satisfy.
    #[must_use]
    pub fn any_of(policies: impl IntoIterator<Item = Self>) -> Self {
        Self(Node::Any(policies.into_iter().collect()))
    }

    /// Whether the caller was granted enough.
    ///
    /// # Errors
    /// What is missing.
    pub fn decide(&self, user: &UserIdentity) -> Result<(), Missing> {
        match self.standing(Some(user)) {
            Standing::Holds => Ok(()),
            _ => Err(self.missing(Some(user))),
        }
    }

    /// Whether the caller was granted enough, without a word on what is missing.
    pub(crate) fn admits(&self, user: &UserIdentity) -> bool {
        self.standing(Some(user)) == Standing::Holds
    }

    /// What a token would have to grant, so that this holds. Without a caller, roles and claims are
    /// taken to be those that are needed.
    pub(crate) fn missing(&self, user: Option<&UserIdentity>) -> Missing {
        let mut missing = Missing::default();
        missing.add(self, user);
        missing
    }

    /// Refuses what nothing could satisfy or what asks for nothing, and scopes that no token could be
    /// granted (RFC 6749, section 3.3). `what` names the option that it was given to.
    pub(crate) fn check(&self, what: &'static str) -> Result<(), BuildError> {
        match &self.0 {
            Node::Scope(scope) if !is_scope(scope) => {
                Err(BuildError::invalid(what, "not a scope of RFC 6749"))
            }
            Node::Role(name) | Node::Claim(name, _) if name.is_empty() => {
                Err(BuildError::invalid(what, "a role or claim without a name"))
            }
            Node::Claim(_, ClaimTest(Test::OneOf(list))) if list.is_empty() => {
                Err(BuildError::Empty(what))
            }
            Node::All(list) | Node::Any(list) if list.is_empty() => Err(BuildError::Empty(what)),
            Node::All(list) | Node::Any(list) => {
                list.iter().try_for_each(|policy| policy.check(what))
            }
            _ => Ok(()),
        }
    }

    fn standing(&self, user: Option<&UserIdentity>) -> Standing {
        let fixed = |holds: &dyn Fn(&UserIdentity) -> bool| match user {
            Some(user) if !holds(user) => Standing::Refused,
            _ => Standing::Holds,
        };
        match &self.0 {
            Node::Scope(scope) if user.is_some_and(|user| user.has_scope(scope)) => Standing::Holds,
            Node::Scope(_) => Standing::NeedsScopes,
            Node::Role(role) => fixed(&|user| user.has_role(role)),
            Node::Claim(claim, test) => fixed(&|user| test.holds(user.claims(), claim)),
            // An empty list is refused by `check`; if it were not, it would admit nobody.
            Node::All(list) => standings(list, user).max().unwrap_or(Standing::Refused),
            Node::Any(list) => standings(list, user).min().unwrap_or(Standing::Refused),
        }
    }
}

fn standings(list: &[Policy], user: Option<&UserIdentity>) -> impl Iterator<Item = Standing> {
    list.iter().map(move |policy| policy.standing(user))
}

/// How a policy stands with a caller, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Holds,
    /// A token with more scopes would do.
    NeedsScopes,
    /// A role or a claim is not as it must be, which more scopes would not mend.
    Refused,
}

/// What a caller lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    scopes: Vec<String>,
    beyond_scopes: bool,
}

impl Missing {
    /// The scopes that would do, granted or not, as `scope` of a challenge lists them (RFC 6750,
    /// section 3). Empty when no scope would help.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        let scopes: &[String] = if self.beyond_scopes { &[] } else { &self.scopes };
        scopes.iter().map(String::as_str)
    }

    /// Whether a role or a claim is not as it must be, so that more scopes would not help.
    #[must_use]
    pub fn is_beyond_scopes(&self) -> bool {
        self.beyond_scopes
    }

    pub(crate) fn list(&self) -> String {
        self.scopes().collect::<Vec<_>>().join(" ")
    }

    /// Adds what `policy` needs.
    pub(crate) fn add(&mut self, policy: &Policy, user: Option<&UserIdentity>) {
        match &policy.0 {
            Node::Scope(scope) if !self.scopes.contains(scope) => self.scopes.push(scope.clone()),
            Node::Scope(_) => {}
            Node::Role(_) | Node::Claim(..) => {
                self.beyond_scopes |= policy.standing(user) == Standing::Refused;
            }
            Node::All(list) => list.iter().for_each(|policy| self.add(policy, user)),
            Node::Any(list) => match list.iter().min_by_key(|policy| policy.standing(user)) {
                Some(policy) => self.add(policy, user),
                None => self.beyond_scopes = true,
            },
        }
    }
}

/// What a claim must be.
#[derive(Clone)]
pub struct ClaimTest(Test);

#[derive(Clone)]
enum Test {
    OneOf(Vec<ClaimValue>),
    Contains(String),
    Matches(Arc<dyn Fn(&Claims) -> bool + Send + Sync>),
}

impl ClaimTest {
    /// It is this string, whole number, or truth value.
    #[must_use]
    pub fn equals(value: impl Into<ClaimValue>) -> Self {
        Self::one_of([value])
    }

    /// It is one of these.
    #[must_use]
    pub fn one_of<T: Into<ClaimValue>>(values: impl IntoIterator<Item = T>) -> Self {
        Self(Test::OneOf(values.into_iter().map(Into::into).collect()))
    }

    /// It is a list in which this string stands. A text that contains it is no such list.
    #[must_use]
    pub fn contains(member: impl Into<String>) -> Self {
        Self(Test::Contains(member.into()))
    }

    /// The claim is there, and `test` says yes to the claims. It must be quick, and not panic.
    #[must_use]
    pub fn matches(test: impl Fn(&Claims) -> bool + Send + Sync + 'static) -> Self {
        Self(Test::Matches(Arc::new(test)))
    }

    fn holds(&self, claims: &Claims, claim: &str) -> bool {
        match &self.0 {
            Test::OneOf(values) => values.iter().any(|value| match value {
                ClaimValue::Text(text) => claims.str(claim) == Some(text),
                ClaimValue::Number(number) => claims.u64(claim) == Some(*number),
                ClaimValue::Truth(truth) => claims.bool(claim) == Some(*truth),
            }),
            Test::Contains(member) => claims.strs(claim).any(|found| found == member),
            Test::Matches(test) => claims.contains(claim) && test(claims),
        }
    }
}

impl fmt::Debug for ClaimTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Test::OneOf(values) => f.debug_tuple("OneOf").field(values).finish(),
            Test::Contains(member) => f.debug_tuple("Contains").field(member).finish(),
            Test::Matches(_) => f.write_str("Matches(..)"),
        }
    }
}

/// A value that a claim is compared with: of the same type, or it is another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClaimValue {
    /// A string.
    Text(String),
    /// A whole number of at least zero.
    Number(u64),
    /// True or false.
    Truth(bool),
}

impl From<&str> for ClaimValue {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for ClaimValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for ClaimValue {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for ClaimValue {
    fn from(truth: bool) -> Self {
        Self::Truth(truth)
    }
}

fn is_scope(scope: &str) -> bool {
    !scope.is_empty() && scope.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(scopes: &[&str], roles: &[&str], claims: &str) -> UserIdentity {
        UserIdentity::asserted("i", "s")
            .with_scopes(scopes.iter().copied())
            .with_roles(roles.iter().copied())
            .with_claims(claims)
    }

    fn missing(policy: &Policy, user: &UserIdentity) -> String {
        policy.decide(user).unwrap_err().list()
    }

    #[test]
    fn alternatives_ask_for_the_first_that_scopes_would_satisfy() {
        let policy = Policy::any_of([
            Policy::all_of([Policy::role("admin"), Policy::scope("admin")]),
            Policy::all_scopes(["a", "b"]),
            Policy::scope("c"),
        ]);
        assert_eq!(missing(&policy, &user(&["a"], &[], "{}")), "a b");
        assert_eq!(missing(&policy, &user(&[], &["admin"], "{}")), "admin");
        assert_eq!(policy.missing(None).list(), "admin");
        assert!(policy.decide(&user(&["c"], &[], "{}")).is_ok());
        assert!(policy.decide(&user(&["admin"], &["admin"], "{}")).is_ok());
        assert!(policy.decide(&user(&["admin"], &[], "{}")).is_err());
    }

    #[test]
    fn no_scope_is_asked_for_when_none_would_help() {
        let policy = Policy::all_of([Policy::scope("a"), Policy::role("admin")]);
        let missing = policy.decide(&user(&["a"], &["user"], "{}")).unwrap_err();
        assert!(missing.is_beyond_scopes());
        assert_eq!(missing.scopes().count(), 0);
        let missing = policy.decide(&user(&[], &["admin"], "{}")).unwrap_err();
        assert!(!missing.is_beyond_scopes());
        assert_eq!(missing.list(), "a");
    }

    #[test]
    fn claims_are_compared_with_their_type() {
        let caller =
            user(&[], &[], r#"{"n":1,"t":"1","b":true,"list":["x","yz"],"o":{"p":["q"]}}"#);
        let holds = |claim: &str, test| Policy::claim(claim, test).decide(&caller).is_ok();
        assert!(holds("n", ClaimTest::equals(1)) && !holds("n", ClaimTest::equals("1")));
        assert!(holds("t", ClaimTest::equals("1")) && !holds("t", ClaimTest::equals(1)));
        assert!(holds("b", ClaimTest::equals(true)) && !holds("b", ClaimTest::equals("true")));
        assert!(holds("t", ClaimTest::one_of(["0", "1"])));
        assert!(
            holds("list", ClaimTest::contains("x")) && !holds("list", ClaimTest::contains("y"))
        );
        assert!(holds("/o/p", ClaimTest::contains("q")));
        assert!(!holds("t", ClaimTest::contains("1")), "a text is no list");
        assert!(holds("n", ClaimTest::matches(|claims| claims.u64("n") > Some(0))));
        assert!(!holds("none", ClaimTest::matches(|_| true)), "what is not there stands no test");
    }

    #[test]
    fn roles_and_scopes_are_case_sensitive_and_not_each_other() {
        let caller = user(&["Admin"], &["Ops"], "{}");
        assert!(Policy::role("Ops").decide(&caller).is_ok());
        for policy in [
            Policy::role("ops"),
            Policy::role("Admin"),
            Policy::scope("admin"),
            Policy::scope("Ops"),
        ] {
            assert!(policy.decide(&caller).is_err(), "{policy:?}");
        }
    }

    #[test]
    fn policies_that_mean_nothing_are_refused_and_admit_nobody() {
        for policy in [
            Policy::all_of([]),
            Policy::any_of([]),
            Policy::any_of([Policy::scope("a"), Policy::all_of([])]),
            Policy::scope("a b"),
            Policy::role(""),
            Policy::claim("", ClaimTest::equals("a")),
            Policy::claim("a", ClaimTest::one_of(Vec::<String>::new())),
        ] {
            assert!(policy.check("require").is_err(), "{policy:?}");
        }
        let anybody = user(&["a"], &["a"], "{}");
        assert!(Policy::all_of([]).decide(&anybody).is_err());
        assert!(Policy::any_of([]).decide(&anybody).is_err());
    }

    proptest::proptest! {
        /// Against a plain evaluation of the same tree.
        #[test]
        fn decisions_are_those_of_the_tree(
            tree in tree(),
            scopes in proptest::collection::hash_set("[abc]", 0..3),
            roles in proptest::collection::hash_set("[abc]", 0..3),
        ) {
            let user = user(&[], &[], "{}").with_scopes(scopes.clone()).with_roles(roles.clone());
            let holds = plainly(&tree, &|scope| scopes.contains(scope), &|role| roles.contains(role));
            proptest::prop_assert_eq!(tree.decide(&user).is_ok(), holds);
            // Whoever is granted the scopes that are asked for gets in.
            if let Err(missing) = tree.decide(&user)
                && !missing.is_beyond_scopes()
            {
                let granted = scopes.iter().map(String::as_str).chain(missing.scopes());
                let user = user.clone().with_scopes(granted.collect::<Vec<_>>());
                proptest::prop_assert!(tree.decide(&user).is_ok());
            }
        }
    }

    fn tree() -> impl proptest::strategy::Strategy<Value = Policy> {
        use proptest::prelude::*;
        let leaf = prop_oneof!["[abc]".prop_map(Policy::scope), "[abc]".prop_map(Policy::role)];
        leaf.prop_recursive(4, 24, 3, |inner| {
            let list = proptest::collection::vec(inner, 1..4);
            prop_oneof![list.clone().prop_map(Policy::all_of), list.prop_map(Policy::any_of)]
        })
    }

    fn plainly(policy: &Policy, scope: &dyn Fn(&str) -> bool, role: &dyn Fn(&str) -> bool) -> bool {
        match &policy.0 {
            Node::Scope(name) => scope(name),
            Node::Role(name) => role(name),
            Node::Claim(..) => unreachable!("not made here"),
            Node::All(list) => list.iter().all(|policy| plainly(policy, scope, role)),
            Node::Any(list) => list.iter().any(|policy| plainly(policy, scope, role)),
        }
    }
}

//! What a caller must have been granted, as plain data and a plain decision.

#[cfg(test)]
mod tests;

pub use crate::identity::{ClaimTest, ClaimValue};
use crate::{BuildError, identity::UserIdentity};

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
            Node::Claim(_, test) if test.never_holds() => Err(BuildError::Empty(what)),
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

fn is_scope(scope: &str) -> bool {
    !scope.is_empty() && scope.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

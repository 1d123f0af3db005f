//! Which of the policies a request is held to.

use std::{collections::HashMap, fmt, sync::Arc};

use http::Request;

#[cfg(feature = "rule-packs")]
use super::PolicyFile;
use super::{GuardPolicy, NAME, Policy, RequestTarget, When, is_name, pinned::Pinned};
use crate::{
    BuildError,
    identity::Identity,
    prompt_guard::{policy::unavailable, scan::caught},
    reject::{Rejection, RejectionKind},
    route::Endpoint,
};

/// The policies of a layer.
#[derive(Debug)]
pub(crate) struct Policies {
    default: Arc<Pinned>,
    named: HashMap<Arc<str>, Arc<Pinned>>,
    /// In the order in which they are asked.
    choices: Vec<Choice>,
}

/// The same, as the builder was told of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chosen {
    named: Vec<Arc<Pinned>>,
    choices: Vec<Choice>,
    #[cfg(feature = "rule-packs")]
    pub(crate) file: Option<PolicyFile>,
}

#[derive(Clone)]
enum Choice {
    When(When, Arc<Pinned>),
    By(Arc<By>),
}

type By = dyn for<'a> Fn(&'a Identity, &'a RequestTarget<'_>) -> Option<&'a str> + Send + Sync;

impl Chosen {
    pub(crate) fn name(&mut self, name: &str, policy: GuardPolicy) -> Arc<Pinned> {
        let policy = Arc::new(Pinned::new(policy.named(name)));
        self.named.push(Arc::clone(&policy));
        policy
    }

    pub(crate) fn when(&mut self, when: When, name: &str, policy: GuardPolicy) {
        let policy = self.name(name, policy);
        self.choices.push(Choice::When(when, policy));
    }

    pub(crate) fn by<F>(&mut self, choose: F)
    where
        F: for<'a> Fn(&'a Identity, &'a RequestTarget<'_>) -> Option<&'a str>
            + Send
            + Sync
            + 'static,
    {
        self.choices.push(Choice::By(Arc::new(choose)));
    }

    /// The same with what stands in its file, after what was given.
    #[cfg(feature = "rule-packs")]
    fn read(&self, default: &Policy) -> (Self, Policy) {
        let mut all = Self { file: None, ..self.clone() };
        let Some(file) = &self.file else { return (all, default.clone()) };
        for (name, when, policy) in &file.policies {
            match when {
                Some(when) => all.when(when.clone(), name, policy.clone()),
                None => drop(all.name(name, policy.clone())),
            }
        }
        (all, file.default.as_ref().unwrap_or(default).clone())
    }

    #[cfg(not(feature = "rule-packs"))]
    fn read(&self, default: &Policy) -> (Self, Policy) {
        (self.clone(), default.clone())
    }

    /// Checked, with `default` for all others, unless the file has another.
    pub(super) fn ready(&self, default: &Policy) -> Result<Policies, BuildError> {
        const WHAT: &str = "name of a guard policy";
        let (Self { named: given, choices, .. }, default) = self.read(default);
        let mut named = HashMap::with_capacity(given.len());
        for policy in given {
            let name = Arc::clone(policy.name());
            if !is_name(&name) {
                return Err(BuildError::invalid(WHAT, format!("it is not {NAME}")));
            }
            if name == default.name || named.insert(Arc::clone(&name), policy).is_some() {
                return Err(BuildError::invalid(WHAT, format!("{name} is taken")));
            }
        }
        if named.len() > MOST_POLICIES {
            return Err(BuildError::invalid("guard policies", "there are more than 100"));
        }
        choices.iter().try_for_each(|choice| match choice {
            Choice::When(when, _) => when.check(),
            Choice::By(_) => Ok(()),
        })?;
        let default = Arc::new(Pinned::new(default));
        Ok(Policies { default, named, choices })
    }
}

impl Policies {
    pub(crate) fn otherwise(&self) -> Arc<Policy> {
        self.default.now()
    }

    /// The first that fits, or else the default.
    pub(crate) fn choose<B>(
        &self,
        request: &Request<B>,
        endpoint: Endpoint,
    ) -> Result<Arc<Policy>, Rejection> {
        if self.choices.is_empty() {
            return Ok(self.otherwise());
        }
        let identity = Identity::of_anybody(request.extensions());
        let target = RequestTarget::of(request, endpoint);
        for choice in &self.choices {
            match choice {
                Choice::When(when, policy) => {
                    if when.holds(&target, identity)? {
                        return Ok(policy.now());
                    }
                }
                Choice::By(choose) => {
                    let name = caught(|| choose(identity, &target)).ok_or_else(unavailable)?;
                    if let Some(name) = name {
                        return self.by_name(name);
                    }
                }
            }
        }
        Ok(self.otherwise())
    }

    fn by_name(&self, name: &str) -> Result<Arc<Policy>, Rejection> {
        if *name == **self.default.name() {
            return Ok(self.otherwise());
        }
        self.named.get(name).map(|policy| policy.now()).ok_or_else(|| {
            Rejection::new(
                RejectionKind::Misconfigured,
                "unknown_policy",
                "The server has no content policy of the name that was chosen for this request.",
            )
        })
    }
}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::When(when, policy) => f.debug_tuple("When").field(when).field(policy).finish(),
            Self::By(_) => f.write_str("By(..)"),
        }
    }
}

/// Each is a label of the guard's metrics.
pub(super) const MOST_POLICIES: usize = 100;

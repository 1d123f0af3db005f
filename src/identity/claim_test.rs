//! What a claim must be.

use std::{fmt, sync::Arc};

use super::Claims;

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

    /// Whether it is to be one of nothing.
    pub(crate) fn never_holds(&self) -> bool {
        matches!(&self.0, Test::OneOf(list) if list.is_empty())
    }

    pub(crate) fn holds(&self, claims: &Claims, claim: &str) -> bool {
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

macro_rules! equals {
    ($($value:ty),+) => {$(
        impl From<$value> for ClaimTest {
            fn from(value: $value) -> Self {
                Self::equals(value)
            }
        }
    )+};
}

equals!(&str, String, u64, bool);

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

//! How large a request may be, and what is wrong with one that can't be read.

use crate::{
    inference::json::{Bounds, JsonError},
    reject::{Rejection, RejectionKind},
};

/// How large a request body may be to be read. Its length is bounded by whoever collects it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReadLimits {
    pub(super) max_depth: usize,
    pub(super) max_segments: usize,
    pub(super) max_values: usize,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { max_depth: 64, max_segments: 16_384, max_values: 1 << 20 }
    }
}

impl ReadLimits {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many objects and arrays may stand within each other. 64 by default, 512 at most.
    #[must_use]
    pub fn max_depth(mut self, depth: usize) -> Self {
        self.max_depth = depth.min(512);
        self
    }

    /// How many segments of text a prompt may have. 16384 by default: each string of a tool's
    /// schema is one.
    #[must_use]
    pub fn max_segments(mut self, segments: usize) -> Self {
        self.max_segments = segments;
        self
    }

    /// How many JSON values and member names a body may hold: each takes 16 bytes while it is read.
    /// 1048576 by default.
    #[must_use]
    pub fn max_values(mut self, values: usize) -> Self {
        self.max_values = values;
        self
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds { depth: self.max_depth, nodes: self.max_values }
    }
}

/// Why a request can't be read. Always the caller's fault. Says nothing of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .kind.message())]
pub struct ReadError {
    kind: ReadErrorKind,
}

impl ReadError {
    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> ReadErrorKind {
        self.kind
    }
}

/// What is wrong with a request that can't be read. Always the caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReadErrorKind {
    /// The body is not UTF-8, as RFC 8259 section 8.1 demands.
    NotUtf8,
    /// The body is not one JSON value, or is cut short.
    NotJson,
    /// An object has two members of the same name: parsers differ in which of them they read.
    DuplicateKey,
    /// More objects and arrays within each other than [`ReadLimits::max_depth`].
    TooDeep,
    /// A member has a type that its endpoint does not know.
    WrongType,
    /// More values or segments than [`ReadLimits`] allow.
    TooMany,
    /// Nothing in it is a prompt.
    NoPrompt,
}

impl ReadErrorKind {
    fn message(self) -> &'static str {
        match self {
            Self::NotUtf8 => "the request body is not UTF-8",
            Self::NotJson => "the request body is not valid JSON",
            Self::DuplicateKey => "the request body has two members of the same name",
            Self::TooDeep => "the request body is nested too deeply",
            Self::WrongType => "a member of the request body has the wrong type",
            Self::TooMany => "the request body has too many values",
            Self::NoPrompt => "the request body has no prompt",
        }
    }
}

impl From<ReadErrorKind> for ReadError {
    fn from(kind: ReadErrorKind) -> Self {
        Self { kind }
    }
}

impl From<JsonError> for ReadErrorKind {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::NotUtf8 => Self::NotUtf8,
            JsonError::NotJson => Self::NotJson,
            JsonError::DuplicateKey => Self::DuplicateKey,
            JsonError::TooDeep => Self::TooDeep,
            JsonError::TooMany => Self::TooMany,
        }
    }
}

impl From<ReadError> for Rejection {
    fn from(error: ReadError) -> Self {
        Self::new(RejectionKind::BadRequest, "invalid_request", error.kind.message())
    }
}

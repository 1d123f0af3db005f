//! A strict reader of JSON (RFC 8259) for a guard.
//!
//! Why our own: what the guard inspects must be what the server behind it reads. Members of the same
//! name are refused, because parsers differ in which of them counts; depth and size are bounded;
//! and every string's place in the source is known, so that an edit touches only those bytes.

mod parse;
mod string;
mod value;

use self::{parse::Parser, value::Node};
pub(crate) use self::{
    string::{SourceOffsets, escape_into, escape_length},
    value::{Kind, Value},
};

/// A document that was read: its values, in the order of the source, in one vector.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    text: &'a str,
    nodes: Vec<Node>,
}

/// How large a document may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Objects and arrays within each other.
    pub(crate) depth: usize,
    /// Values and member names in all. Each takes 16 bytes of memory.
    pub(crate) nodes: usize,
}

/// Why a document was refused. Never holds a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonError {
    NotUtf8,
    NotJson,
    DuplicateKey,
    TooDeep,
    TooMany,
}

impl<'a> Document<'a> {
    /// Reads a whole document, in time linear in its length but for a logarithm in an object's members.
    pub(crate) fn read(source: &'a [u8], bounds: Bounds) -> Result<Self, JsonError> {
        // Places are kept in 32 bits.
        if u32::try_from(source.len()).is_err() {
            return Err(JsonError::TooMany);
        }
        let text = std::str::from_utf8(source).map_err(|_| JsonError::NotUtf8)?;
        let nodes = Parser::new(text, bounds).document()?;
        Ok(Self { text, nodes })
    }

    /// The outermost value.
    pub(crate) fn root(&self) -> Value<'_> {
        Value::new(self, 0)
    }
}

#[cfg(test)]
mod tests;

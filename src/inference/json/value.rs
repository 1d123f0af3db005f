//! Values of a document that was read.

use std::{borrow::Cow, ops::Range};

use super::{Document, string::unescape};

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Number,
    String,
    /// The name of a member; its value is the node after it.
    Name,
    Array,
    Object,
}

/// A value or member name, and where it stands in the source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) start: u32,
    pub(super) end: u32,
    /// The node after this one and all that is in it.
    pub(super) after: u32,
}

/// One value of a document, or the name of a member. Never panics: asked for what it is not, it is empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'d> {
    document: &'d Document<'d>,
    index: usize,
    node: Node,
}

impl<'d> Value<'d> {
    pub(super) fn new(document: &'d Document<'d>, index: usize) -> Self {
        const NOTHING: Node = Node { kind: Kind::Null, start: 0, end: 0, after: 0 };
        Self { document, index, node: document.nodes.get(index).copied().unwrap_or(NOTHING) }
    }

    pub(crate) fn kind(self) -> Kind {
        self.node.kind
    }

    pub(crate) fn is_null(self) -> bool {
        self.node.kind == Kind::Null
    }

    /// Where it stands in the source, quotes and brackets included.
    pub(crate) fn span(self) -> Range<usize> {
        self.node.start as usize..self.node.end as usize
    }

    /// As it stands in the source.
    pub(crate) fn source(self) -> &'d str {
        self.document.text.get(self.span()).unwrap_or_default()
    }

    /// Where the inside of a string or name stands in the source.
    pub(crate) fn inside(self) -> Range<usize> {
        match self.node.kind {
            Kind::String | Kind::Name => {
                let Range { start, end } = self.span();
                start + 1..end - 1
            }
            _ => self.span(),
        }
    }

    /// The text of a string or name, borrowed when it has no escapes.
    pub(crate) fn text(self) -> Option<Cow<'d, str>> {
        matches!(self.node.kind, Kind::String | Kind::Name)
            .then(|| unescape(self.document.text.get(self.inside()).unwrap_or_default()))
    }

    /// The number, if it is whole; out of range it is the nearest there is.
    pub(crate) fn whole(self) -> Option<i64> {
        if self.node.kind != Kind::Number {
            return None;
        }
        let source = self.source();
        if source.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
            let number: f64 = source.parse().ok()?;
            // `as` saturates.
            return (number.is_infinite() || number.fract() == 0.0).then_some(number as i64);
        }
        let nearest = if source.starts_with('-') { i64::MIN } else { i64::MAX };
        Some(source.parse().unwrap_or(nearest))
    }

    /// The values of an array.
    pub(crate) fn items(self) -> impl Iterator<Item = Self> {
        let end = if self.node.kind == Kind::Array { self.node.after as usize } else { 0 };
        Children { document: self.document, next: self.index + 1, end }
    }

    /// The names and values of an object's members.
    pub(crate) fn members(self) -> impl Iterator<Item = (Self, Self)> {
        let end = if self.node.kind == Kind::Object { self.node.after as usize } else { 0 };
        let mut children = Children { document: self.document, next: self.index + 1, end };
        std::iter::from_fn(move || children.next().zip(children.next()))
    }

    /// The value of the member of this name.
    pub(crate) fn get(self, name: &str) -> Option<Self> {
        self.members().find(|(own, _)| own.text().as_deref() == Some(name)).map(|(_, value)| value)
    }

    /// This value and all that is in it, names included, in the order of the source.
    pub(crate) fn all(self) -> impl Iterator<Item = Self> {
        let end = (self.node.after as usize).max(self.index + 1);
        (self.index..end).map(move |index| Self::new(self.document, index))
    }
}

struct Children<'d> {
    document: &'d Document<'d>,
    next: usize,
    end: usize,
}

impl<'d> Iterator for Children<'d> {
    type Item = Value<'d>;

    fn next(&mut self) -> Option<Value<'d>> {
        if self.next >= self.end {
            return None;
        }
        let value = Value::new(self.document, self.next);
        self.next = value.node.after as usize;
        Some(value)
    }
}

//! From source to nodes: one pass, no recursion.

use std::borrow::Cow;

use super::{
    Bounds, JsonError,
    string::{escape, unescape},
    value::{Kind, Node},
};

pub(super) struct Parser<'a> {
    text: &'a str,
    at: usize,
    nodes: Vec<Node>,
    open: Vec<Open>,
    /// The member names of all open objects, the outermost's first.
    names: Vec<Cow<'a, str>>,
    bounds: Bounds,
}

/// An array or object that is not closed yet.
struct Open {
    node: usize,
    object: bool,
    /// Where its names begin.
    names: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str, bounds: Bounds) -> Self {
        Self {
            text,
            at: 0,
            nodes: Vec::with_capacity(64),
            open: Vec::new(),
            names: Vec::new(),
            bounds,
        }
    }

    pub(super) fn document(mut self) -> Result<Vec<Node>, JsonError> {
        loop {
            if !self.value()? {
                continue;
            }
            // A value has ended: close what ends with it.
            loop {
                self.space();
                let Some(object) = self.open.last().map(|open| open.object) else {
                    return if self.at == self.text.len() {
                        Ok(self.nodes)
                    } else {
                        Err(JsonError::NotJson)
                    };
                };
                match (self.bump(), object) {
                    (Some(b','), true) => {
                        self.name()?;
                        break;
                    }
                    (Some(b','), false) => break,
                    (Some(b'}'), true) | (Some(b']'), false) => self.close()?,
                    _ => return Err(JsonError::NotJson),
                }
            }
        }
    }

    /// Reads the start of a value. `false`: a value that is within it comes next.
    fn value(&mut self) -> Result<bool, JsonError> {
        self.space();
        let start = self.at;
        match self.peek() {
            Some(b'{') => {
                self.open(true)?;
                self.space();
                if self.peek() != Some(b'}') {
                    self.name()?;
                    return Ok(false);
                }
                self.at += 1;
                self.close()?;
            }
            Some(b'[') => {
                self.open(false)?;
                self.space();
                if self.peek() != Some(b']') {
                    return Ok(false);
                }
                self.at += 1;
                self.close()?;
            }
            Some(b'"') => {
                self.string()?;
                self.push(Kind::String, start)?;
            }
            Some(b'-' | b'0'..=b'9') => {
                self.number()?;
                self.push(Kind::Number, start)?;
            }
            Some(b't') => self.literal("true", Kind::Bool)?,
            Some(b'f') => self.literal("false", Kind::Bool)?,
            Some(b'n') => self.literal("null", Kind::Null)?,
            _ => return Err(JsonError::NotJson),
        }
        Ok(true)
    }

    fn open(&mut self, object: bool) -> Result<(), JsonError> {
        if self.open.len() >= self.bounds.depth {
            return Err(JsonError::TooDeep);
        }
        let start = self.at;
        self.at += 1;
        self.open.push(Open { node: self.nodes.len(), object, names: self.names.len() });
        self.push(if object { Kind::Object } else { Kind::Array }, start)
    }

    fn close(&mut self) -> Result<(), JsonError> {
        let after = self.nodes.len();
        let Some(open) = self.open.pop() else { return Err(JsonError::NotJson) };
        if let Some(node) = self.nodes.get_mut(open.node) {
            node.end = place(self.at)?;
            node.after = place(after)?;
        }
        // Sorted, so that an object of many members takes no quadratic time.
        if let Some(names) = self.names.get_mut(open.names..) {
            names.sort_unstable();
            if names.windows(2).any(|pair| pair.first() == pair.last()) {
                return Err(JsonError::DuplicateKey);
            }
        }
        self.names.truncate(open.names);
        Ok(())
    }

    fn name(&mut self) -> Result<(), JsonError> {
        self.space();
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(JsonError::NotJson);
        }
        self.string()?;
        self.push(Kind::Name, start)?;
        self.names.push(unescape(self.text.get(start + 1..self.at - 1).unwrap_or_default()));
        self.space();
        if self.bump() == Some(b':') { Ok(()) } else { Err(JsonError::NotJson) }
    }

    /// Passes over a string, from its opening to its closing quote.
    fn string(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        loop {
            let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
            let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
            let run = rest.iter().position(special).ok_or(JsonError::NotJson)?;
            self.at += run;
            match rest.get(run) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    let escape = escape(rest.get(run..).unwrap_or_default());
                    self.at += escape.ok_or(JsonError::NotJson)?.0;
                }
                _ => return Err(JsonError::NotJson),
            }
        }
    }

    fn number(&mut self) -> Result<(), JsonError> {
        self.take(b"-");
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.take(b".") {
            self.digits()?;
        }
        if self.take(b"eE") {
            self.take(b"+-");
            self.digits()?;
        }
        Ok(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(JsonError::NotJson) }
    }

    fn literal(&mut self, word: &str, kind: Kind) -> Result<(), JsonError> {
        let start = self.at;
        if !self.text.as_bytes().get(start..).is_some_and(|rest| rest.starts_with(word.as_bytes()))
        {
            return Err(JsonError::NotJson);
        }
        self.at += word.len();
        self.push(kind, start)
    }

    fn push(&mut self, kind: Kind, start: usize) -> Result<(), JsonError> {
        if self.nodes.len() >= self.bounds.nodes {
            return Err(JsonError::TooMany);
        }
        let after = place(self.nodes.len() + 1)?;
        self.nodes.push(Node { kind, start: place(start)?, end: place(self.at)?, after });
        Ok(())
    }

    fn take(&mut self, any_of: &[u8]) -> bool {
        let taken = self.peek().is_some_and(|byte| any_of.contains(&byte));
        self.at += usize::from(taken);
        taken
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn bump(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

fn place(at: usize) -> Result<u32, JsonError> {
    u32::try_from(at).map_err(|_| JsonError::TooMany)
}

//! Prompts without roles: strings, lists, pairs, token ids.

use super::{
    Origin, ReadErrorKind, Unread,
    body::{Read, Reader},
};
use crate::inference::json::{Kind, Value};

impl Reader<'_> {
    /// A prompt, a list of prompts, one prompt's token ids, or a list of input items.
    pub(super) fn prompts(&mut self, value: Value<'_>) -> Read {
        match value.kind() {
            Kind::Array => {}
            _ => return self.prompt(value, 0),
        }
        let mut prompts = 0u64;
        let mut ids = 0u64;
        let mut turn = 0u32;
        for item in value.items() {
            if item.kind() == Kind::Number {
                token_id(item)?;
                ids += 1;
                continue;
            }
            self.prompt(item, turn)?;
            turn = turn.saturating_add(1);
            // The items of a conversation are one prompt together.
            prompts += u64::from(item.kind() != Kind::Object);
        }
        if ids > 0 {
            self.ids(ids);
            prompts += 1;
        }
        self.found.prompts = self.found.prompts.max(prompts);
        Ok(())
    }

    fn prompt(&mut self, value: Value<'_>, turn: u32) -> Read {
        match value.kind() {
            Kind::String => self.text(value, Origin::User, turn),
            Kind::Object => self.item(value, turn),
            Kind::Array => {
                let mut ids = 0u64;
                for item in value.items() {
                    match item.kind() {
                        Kind::Number => {
                            token_id(item)?;
                            ids += 1;
                        }
                        Kind::String => self.text(item, Origin::User, turn)?,
                        Kind::Object => self.item(item, turn)?,
                        Kind::Array => {
                            self.strings(item, Origin::User, turn)?;
                            self.unread(Unread::Other);
                        }
                        _ => return Err(ReadErrorKind::WrongType),
                    }
                }
                if ids > 0 {
                    self.ids(ids);
                }
                Ok(())
            }
            _ => Err(ReadErrorKind::WrongType),
        }
    }

    /// Token ids of one prompt, or a list of them.
    pub(super) fn token_ids(&mut self, value: Value<'_>) -> Read {
        super::body::array(value)?;
        let mut ids = 0u64;
        let mut lists = 0u64;
        for item in value.all() {
            match item.kind() {
                Kind::Number => {
                    token_id(item)?;
                    ids += 1;
                }
                Kind::Array => lists += 1,
                _ => return Err(ReadErrorKind::WrongType),
            }
        }
        self.found.prompts = self.found.prompts.max(lists - 1);
        self.ids(ids);
        Ok(())
    }

    /// Embeddings in the place of tokens: one for each innermost list, or a tensor in base64.
    pub(super) fn embeddings(&mut self, value: Value<'_>) -> Read {
        let tokens = match value.kind() {
            Kind::Array => value.all().filter(|item| item.kind() == Kind::Array).count() as u64,
            // Of two bytes each, 128 to a token: smaller models than that have no prompts worth counting.
            Kind::String => value.source().len() as u64 / 341 + 1,
            _ => return Err(ReadErrorKind::WrongType),
        };
        self.found.token_ids = self.found.token_ids.saturating_add(tokens);
        self.found.unread.push(Unread::Other);
        Ok(())
    }

    fn ids(&mut self, ids: u64) {
        self.found.token_ids = self.found.token_ids.saturating_add(ids);
        self.unread(Unread::TokenIds);
    }
}

fn token_id(value: Value<'_>) -> Read {
    let whole = value.source().bytes().all(|byte| byte.is_ascii_digit());
    if whole { Ok(()) } else { Err(ReadErrorKind::WrongType) }
}

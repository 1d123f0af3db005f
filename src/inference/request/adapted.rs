//! Prompts that an adapter of the application reads.

use bytes::Bytes;

use super::{Edit, Found, Origin, Piece, Prompt, ReadLimits, Unread, body::ATTACHMENT};
use crate::inference::adapter::{Adapted, AdapterError, BodyTexts, Way};

impl Prompt {
    /// Reads the prompt of a request as the adapter does.
    pub(crate) fn adapted(
        adapted: &Adapted,
        body: Bytes,
        limits: &ReadLimits,
    ) -> Result<Self, AdapterError> {
        let texts = adapted.read(Way::Request, &body)?;
        if texts.len() > limits.max_segments {
            return Err(AdapterError::new("too many texts"));
        }
        Ok(Self { raw: body, found: texts.into(), adapted: Some(adapted.clone()) })
    }

    /// The body with the edits made, or `None` if its adapter can't write it.
    pub(crate) fn rewritten(&self, edits: &[Edit]) -> Option<Bytes> {
        let (raw, pieces) = (&self.raw, &self.found.pieces);
        match &self.adapted {
            Some(adapted) => adapted.rewritten(Way::Request, raw, pieces, edits).ok(),
            None => Some(super::rewrite::rewrite(raw, pieces, edits)),
        }
    }
}

impl From<BodyTexts> for Found {
    fn from(texts: BodyTexts) -> Self {
        let named =
            |name| Piece { source: 0..0, decoded: Some(name), origin: Origin::User, turn: 0 };
        let attached = texts.unread.iter().filter(|what| **what != Unread::TokenIds).count() as u64;
        Self {
            pieces: texts.pieces,
            model: texts.model.map(named),
            max_output: texts.max_output,
            token_ids: texts.token_ids,
            overhead: attached.saturating_mul(ATTACHMENT),
            unread: texts.unread,
            ..Self::default()
        }
    }
}

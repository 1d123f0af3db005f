//! What is written in the place of what was found.

use std::{borrow::Cow, ops::Range};

use super::{Action, vault::Filling};
use crate::{
    inference::{Edit, Segment},
    store::Pepper,
};

/// A stretch of text that is to go.
#[derive(Debug, PartialEq)]
pub(crate) struct Mask {
    pub(crate) segment: usize,
    pub(crate) span: Range<usize>,
    pub(crate) rule: Cow<'static, str>,
    pub(crate) action: Action,
}

impl Mask {
    /// Whether another value takes its place, which depends on the text.
    pub(crate) fn needs_text(&self) -> bool {
        matches!(self.action, Action::Hash | Action::Pseudonymize)
    }

    /// The change of its text. Without a vault to fill, which answers have not, a placeholder would never
    /// be resolved: a mask stands there instead.
    pub(crate) fn edit(
        self,
        segments: &[Segment<'_>],
        hash_key: &Pepper,
        vault: Option<&mut Filling>,
    ) -> Edit {
        let name = name(&self.rule);
        let text = segments.get(self.segment).and_then(|s| s.text.get(self.span.clone()));
        let replacement = match (self.action, text, vault) {
            (Action::Hash, Some(text), _) => format!("[{name}:{}]", hash(hash_key, &name, text)),
            (Action::Pseudonymize, Some(text), Some(vault)) => vault.placeholder(&name, text),
            _ => format!("[{name}]"),
        };
        Edit::new(self.segment, self.span, replacement)
    }

    /// The name alone, where the text may come to an end elsewhere: in a stream.
    pub(crate) fn plain(self) -> Edit {
        let replacement = format!("[{}]", name(&self.rule));
        Edit::new(self.segment, self.span, replacement)
    }
}

/// `EMAIL` for `personal_data.email`.
fn name(rule: &str) -> Cow<'static, str> {
    let name = rule.rsplit('.').next().unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || !name.bytes().all(plain) {
        return Cow::Borrowed("REDACTED");
    }
    Cow::Owned(name.to_ascii_uppercase())
}

/// 80 bits of a keyed hash, in hexadecimal.
fn hash(key: &Pepper, name: &str, text: &str) -> String {
    let hash = key.key("prompt_guard").with(name.as_bytes()).with(text.as_bytes()).finish();
    hash.as_bytes().iter().take(10).fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::Origin;

    fn replacement(rule: &'static str, action: Action, vault: Option<&mut Filling>) -> String {
        let segments = [Segment::new(0, "to ann@example.org", Origin::User, 0)];
        let mask = Mask { segment: 0, span: 3..18, rule: rule.into(), action };
        mask.edit(&segments, &Pepper::from_secret("a key"), vault).replacement.into_owned()
    }

    #[test]
    fn names_are_the_last_part_of_the_rule() {
        assert_eq!(replacement("personal_data.email", Action::Redact, None), "[EMAIL]");
        assert_eq!(replacement("odd rule", Action::Redact, None), "[REDACTED]");
        assert_eq!(replacement("", Action::Redact, None), "[REDACTED]");
    }

    #[test]
    fn a_hash_is_of_the_key_the_kind_and_the_value() {
        let email = replacement("personal_data.email", Action::Hash, None);
        assert_eq!(email, replacement("personal_data.email", Action::Hash, None));
        assert_eq!(email.len(), "[EMAIL:]".len() + 20);
        assert_ne!(email[7..], replacement("x.phone", Action::Hash, None)[7..]);
        assert!(!email.contains("ann"));
    }

    #[test]
    fn a_placeholder_needs_a_vault() {
        assert_eq!(replacement("x.email", Action::Pseudonymize, None), "[EMAIL]");
        let mut filling = Filling::new();
        let placeholder = replacement("x.email", Action::Pseudonymize, Some(&mut filling));
        assert_eq!(filling.finish().unwrap().restore(&placeholder), "ann@example.org");
    }
}

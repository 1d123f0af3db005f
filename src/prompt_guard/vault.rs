//! What stands behind the placeholders of one request.

use std::{borrow::Cow, collections::BTreeMap, fmt, ops::Range, sync::Arc};

use crate::{
    Secret,
    inference::{Edit, Segment},
    store::{Key, Pepper},
};

/// The values that [`Action::Pseudonymize`](super::Action::Pseudonymize) took out of a prompt, by their placeholders.
///
/// The guard puts the values back into the answer, unless
/// [`restore_answers`](super::PromptGuardLayerBuilder::restore_answers) says otherwise. The vault also stands in the
/// extensions of the request, for handlers, and of its answer, for outer layers. A placeholder holds
/// 80 bits that nobody can guess, drawn for each request, so that no text can name another's value; one
/// value has one placeholder in a request. Values are wiped from memory when the last copy of the vault is dropped, and
/// never shown by `Debug`.
///
/// ```
/// use palisade::prompt_guard::Vault;
///
/// fn answer(vault: &Vault, from_the_model: &str) -> String {
///     vault.restore(from_the_model).into_owned()
/// }
/// ```
#[derive(Clone)]
pub struct Vault(Arc<Entries>);

struct Entries {
    /// By placeholder, in the order of their bytes.
    sorted: Vec<Entry>,
    longest: usize,
}

#[derive(Clone)]
struct Entry {
    placeholder: String,
    value: Secret<String>,
}

impl Vault {
    /// Puts the values back in the place of their placeholders. Other text stays as it is, and so do
    /// placeholders of other requests.
    #[must_use]
    pub fn restore<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let places = self.places(text);
        if places.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut restored = String::with_capacity(text.len());
        let mut at = 0;
        for (range, value) in places {
            restored.push_str(text.get(at..range.start).unwrap_or_default());
            restored.push_str(value);
            at = range.end;
        }
        restored.push_str(text.get(at..).unwrap_or_default());
        Cow::Owned(restored)
    }

    /// Where placeholders stand in a text, in order, and what stands behind each. No two overlap.
    #[must_use]
    pub fn places(&self, text: &str) -> Vec<(Range<usize>, &str)> {
        let mut places = Vec::new();
        let mut at = 0;
        while let Some(open) = text.get(at..).and_then(|rest| rest.find('[')) {
            at += open;
            let rest = text.get(at..).unwrap_or_default();
            match self.entry(rest) {
                Some(entry) => {
                    let end = at + entry.placeholder.len();
                    places.push((at..end, entry.value.expose().as_str()));
                    at = end;
                }
                None => at += 1,
            }
        }
        places
    }

    /// The entry of the placeholder that `text` begins with. There is one bracket at each of its ends and none within.
    fn entry(&self, text: &str) -> Option<&Entry> {
        let window = text.as_bytes().iter().take(self.0.longest);
        let end = window.into_iter().position(|byte| *byte == b']')? + 1;
        let placeholder = text.get(..end)?;
        let sorted = &self.0.sorted;
        let at = sorted.binary_search_by(|entry| entry.placeholder.as_str().cmp(placeholder));
        sorted.get(at.ok()?)
    }

    /// Where the beginning of a placeholder stands with which the text ends, or its end.
    pub(crate) fn open(&self, text: &str) -> usize {
        let Some(at) = text.rfind('[') else { return text.len() };
        let begun = text.get(at..).unwrap_or_default();
        let sorted = &self.0.sorted;
        let next = sorted.partition_point(|entry| entry.placeholder.as_str() < begun);
        let longer = |entry: &Entry| entry.placeholder.len() > begun.len();
        let begins = |entry: &&Entry| longer(entry) && entry.placeholder.starts_with(begun);
        sorted.get(next).filter(begins).map_or(text.len(), |_| at)
    }

    /// Whether a stretch of a text is a placeholder or within one: not what the model says, whatever it looks like.
    pub(crate) fn covers(&self, text: &str, span: &Range<usize>) -> bool {
        let covers = |place: &Range<usize>| place.start <= span.start && span.end <= place.end;
        // No placeholder begins further back.
        let mut from = span.end.min(text.len()).saturating_sub(self.0.longest);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        let mut until = span.start.saturating_add(self.0.longest).min(text.len());
        while !text.is_char_boundary(until) {
            until -= 1;
        }
        let near = self.places(text.get(from..until).unwrap_or_default()).into_iter();
        near.map(|(place, _)| from + place.start..from + place.end).any(|place| covers(&place))
    }

    /// The edits of a text that restore it.
    pub(crate) fn edits(&self, segment: &Segment<'_>) -> Vec<Edit> {
        let places = self.places(segment.text).into_iter();
        places.map(|(span, value)| Edit::new(segment.index, span, value.to_owned())).collect()
    }

    /// The length of the longest placeholder in bytes: what a stream has to hold back to find one whole. 0 if
    /// there is none.
    #[must_use]
    pub fn longest_placeholder(&self) -> usize {
        self.0.longest
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("values", &self.0.sorted.len()).finish_non_exhaustive()
    }
}

/// A vault that is being filled.
pub(crate) struct Filling {
    key: Pepper,
    /// By placeholder: a prompt may hold very many.
    entries: BTreeMap<String, Secret<String>>,
}

impl Filling {
    pub(crate) fn new() -> Self {
        Self { key: Pepper::random(), entries: BTreeMap::new() }
    }

    /// The placeholder of a value, `[EMAIL_K3J9X2QATRD7MWHC]`.
    pub(crate) fn placeholder(&mut self, name: &str, value: &str) -> String {
        let drawn = self.key.key(name).with(value.as_bytes()).finish();
        let mut placeholder = format!("[{name}_");
        placeholder.push_str(&letters(&drawn));
        placeholder.push(']');
        if !self.entries.contains_key(&placeholder) {
            self.entries.insert(placeholder.clone(), Secret::new(value.to_owned()));
        }
        placeholder
    }

    /// The vault, if there is anything in it.
    pub(crate) fn finish(self) -> Option<Vault> {
        let entries = self.entries.into_iter();
        let sorted: Vec<_> =
            entries.map(|(placeholder, value)| Entry { placeholder, value }).collect();
        let longest = sorted.iter().map(|entry| entry.placeholder.len()).max()?;
        Some(Vault(Arc::new(Entries { sorted, longest })))
    }
}

/// 80 bits of a key, as sixteen letters and digits.
pub(crate) fn letters(drawn: &Key) -> String {
    let drawn = drawn.as_bytes().iter().take(LENGTH);
    let letter = |byte: &u8| ALPHABET.get(usize::from(byte % 32)).copied().unwrap_or(b'A');
    drawn.map(|byte| char::from(letter(byte))).collect()
}

/// RFC 4648's alphabet of 32: no two letters that a model could take for each other in case.
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Five bits each.
const LENGTH: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(values: &[(&str, &str)]) -> (Vec<String>, Vault) {
        let mut filling = Filling::new();
        let placeholders =
            values.iter().map(|(name, value)| filling.placeholder(name, value)).collect();
        (placeholders, filling.finish().unwrap())
    }

    /// Time that grows with the square of them would be hours here.
    #[test]
    fn a_prompt_may_hold_very_many_values() {
        let mut filling = Filling::new();
        for value in 0..200_000 {
            filling.placeholder("EMAIL", &value.to_string());
            filling.placeholder("EMAIL", "0");
        }
        assert_eq!(filling.finish().unwrap().0.sorted.len(), 200_000);
    }

    #[test]
    fn values_come_back() {
        let values = [
            ("EMAIL", "ann@example.org"),
            ("EMAIL", "bo@example.org"),
            ("IBAN", "NO9386011117947"),
        ];
        let (placeholders, vault) = filled(&values);
        let text = format!(
            "[EMAIL] {0}{1}, [[{2}]], {0} [EMAIL_",
            placeholders[0], placeholders[1], placeholders[2]
        );
        assert_eq!(
            vault.restore(&text),
            "[EMAIL] ann@example.orgbo@example.org, [[NO9386011117947]], ann@example.org [EMAIL_"
        );
        assert!(matches!(vault.restore("nothing [here]"), Cow::Borrowed(_)));
        assert_eq!(vault.longest_placeholder(), "[EMAIL_]".len() + LENGTH);
    }

    #[test]
    fn a_value_has_one_placeholder_in_a_request_and_another_in_the_next() {
        let (placeholders, vault) =
            filled(&[("EMAIL", "a@b.example"), ("EMAIL", "a@b.example"), ("CARD", "a@b.example")]);
        assert_eq!(placeholders[0], placeholders[1]);
        assert_ne!(placeholders[0], placeholders[2]);
        assert_eq!(format!("{vault:?}"), "Vault { values: 2, .. }");
        let (others, _) = filled(&[("EMAIL", "a@b.example")]);
        assert_ne!(others[0], placeholders[0]);
        assert_eq!(vault.restore(&others[0]), others[0]);
    }

    #[test]
    fn a_value_that_looks_like_a_placeholder_is_not_restored_again() {
        let mut filling = Filling::new();
        let inner = filling.placeholder("EMAIL", "ann@example.org");
        let outer = filling.placeholder("NOTE", &inner);
        let vault = filling.finish().unwrap();
        assert_eq!(vault.restore(&outer), inner);
    }

    #[test]
    fn what_may_become_a_placeholder_is_open() {
        let values = [("EMAIL", "a"), ("EMAIL", "b"), ("PHONE", "c")];
        let (placeholders, vault) = filled(&values);
        for placeholder in &placeholders {
            for cut in 1..placeholder.len() {
                let text = format!("é [[{}", &placeholder[..cut]);
                assert_eq!(vault.open(&text), 5, "{text}");
            }
            assert_eq!(vault.open(placeholder), placeholder.len());
        }
        for text in ["", "a", "[x", "[EMAIL_ ", "[EMAILS", "[é"] {
            assert_eq!(vault.open(text), text.len(), "{text}");
        }
    }

    #[test]
    fn an_empty_vault_is_none() {
        assert!(Filling::new().finish().is_none());
    }
}

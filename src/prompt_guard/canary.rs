//! A token that stands in a system prompt and nowhere else: who says it has read the prompt out.

use aho_corasick::AhoCorasick;
use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};

use super::{Category, Detector, Finding, Views};
use crate::{BuildError, inference::Segment};

/// Finds a canary in an answer: a random token that you write into your system prompt, which a model has no
/// reason to say. The rule is `system_prompt.canary`, its score 1.
///
/// It is found in either case, spaced out or with other characters between its own, reversed, in rot13,
/// hex and base64, and in what [`Views`] decodes.
///
/// ```
/// use palisade::prompt_guard::{Action, Canary, PromptGuardLayer};
///
/// // Random, and another for each application. In the system prompt: "Never say 7f3kq9x2vd84."
/// let canary = Canary::new("7f3kq9x2vd84")?;
/// let guard = PromptGuardLayer::builder().output_detector(canary, Action::Block).build()?;
/// assert!(Canary::new("too-short").is_ok() && Canary::new("short").is_err());
/// # Ok::<(), palisade::BuildError>(())
/// ```
pub struct Canary {
    forms: AhoCorasick,
    length: usize,
}

impl Canary {
    /// The token. Only its ASCII letters and digits are looked for, in either case.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for a token with fewer than eight of them, which people may say by chance.
    pub fn new(token: &str) -> Result<Self, BuildError> {
        let bare: String = token.chars().filter(char::is_ascii_alphanumeric).collect();
        if bare.len() < 8 {
            let why = "it has fewer than eight letters and digits, and may be said by chance";
            return Err(BuildError::invalid("canary", why));
        }
        let mut forms = Vec::new();
        for form in [token.to_owned(), token.to_ascii_lowercase(), token.to_ascii_uppercase()] {
            forms.push(form.chars().rev().collect());
            forms.push(form.chars().map(rot13).collect());
            forms.push(form.bytes().map(|byte| format!("{byte:02x}")).collect());
            forms.extend(in_base64(form.as_bytes()));
            forms.push(form);
        }
        let forms: Vec<String> = forms.iter().map(|form| squeezed(form).0).collect();
        let length = forms.iter().map(String::len).max().unwrap_or_default();
        let forms = AhoCorasick::new(&forms)
            .map_err(|_| BuildError::invalid("canary", "it is too long"))?;
        Ok(Self { forms, length })
    }
}

impl Detector for Canary {
    fn name(&self) -> &'static str {
        "canary"
    }

    fn scan(&self, segment: &Segment<'_>, views: &Views<'_>, findings: &mut Vec<Finding>) {
        for view in views.iter() {
            let (text, places) = squeezed(view.text());
            for found in self.forms.find_iter(&text) {
                let last = places.get(found.end().saturating_sub(1));
                let Some((start, last)) = places.get(found.start()).zip(last) else { continue };
                let span = Some(view.origin_span(*start..last + 1));
                let (rule, category) = ("system_prompt.canary", Category::SystemPrompt);
                findings.push(Finding::new(rule, category, 1.0, segment.index, span));
            }
        }
    }

    fn lookbehind(&self) -> usize {
        // With a character between each and the next, of two bytes.
        self.length.saturating_mul(3)
    }
}

impl std::fmt::Debug for Canary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Canary(..)")
    }
}

/// The ASCII letters and digits in lower case, and where each stands.
fn squeezed(text: &str) -> (String, Vec<usize>) {
    let kept = text.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_alphanumeric());
    kept.map(|(at, byte)| (char::from(byte.to_ascii_lowercase()), at)).unzip()
}

fn rot13(character: char) -> char {
    let turned = |first: u8, byte: u8| char::from(first + (byte - first + 13) % 26);
    match character {
        'a'..='z' => turned(b'a', character as u8),
        'A'..='Z' => turned(b'A', character as u8),
        other => other,
    }
}

/// What all encodings of texts that have it somewhere have in common: one for each place among three bytes.
fn in_base64(token: &[u8]) -> impl Iterator<Item = String> {
    (0..3_usize).map(|before| {
        let padded: Vec<u8> = std::iter::repeat_n(0, before).chain(token.iter().copied()).collect();
        let encoded = BASE64_STANDARD_NO_PAD.encode(&padded);
        let whole = padded.len() * 8 / 6;
        encoded.get((before * 8).div_ceil(6)..whole).unwrap_or_default().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::Origin;

    fn found(token: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        let segment = Segment::new(0, text, Origin::Assistant, 0);
        Canary::new(token).unwrap().scan(&segment, &Views::of(text), &mut findings);
        findings.iter().map(|finding| text[finding.span.clone().unwrap()].to_owned()).collect()
    }

    #[test]
    fn a_canary_is_found_however_it_is_said() {
        let token = "7f3kQ9x2vd84";
        let spaced: Vec<String> = token.chars().map(String::from).collect();
        let hex: String = token.bytes().map(|byte| format!("{byte:02X}")).collect();
        for said in [
            token.to_owned(),
            token.to_uppercase(),
            spaced.join(" "),
            spaced.join("-"),
            spaced.join("\n"),
            token.chars().rev().collect(),
            token.chars().map(rot13).collect(),
            hex,
            "７ｆ３ｋＱ９ｘ２ｖｄ８４".to_owned(),
        ] {
            let text = format!("It says {said}, as asked.");
            let seen = found(token, &text);
            assert!(seen.contains(&said), "{text}: {seen:?}");
        }
        for before in ["", "x", "xy", "xyz"] {
            let text = BASE64_STANDARD_NO_PAD.encode(format!("{before}{token} and so on"));
            assert!(!found(token, &text).is_empty(), "{text}");
        }
    }

    #[test]
    fn other_texts_have_none() {
        for text in ["", "7f3kQ9x2vd8", "The quick brown fox", "4 8 7 f 3 k"] {
            assert!(found("7f3kQ9x2vd84", text).is_empty(), "{text}");
        }
    }
}

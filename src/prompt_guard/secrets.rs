//! Credentials in prompts and answers.
//!
//! Formats that their issuers made recognisable, by prefix and length; generic assignments and
//! passwords in addresses, by their randomness. One pass finds the prefixes; a pattern runs only
//! when its prefix is there.

use std::ops::Range;

use aho_corasick::AhoCorasick;
use regex::bytes::{Regex, RegexBuilder};

use super::{Category, Detector, Finding, ViewKind, Views, injection::DFA_CACHE, spans::Spans};
use crate::{BuildError, inference::Segment};

mod formats;

use self::formats::{Check, FORMATS, Format};

/// Finds credentials: access keys, tokens, private keys, passwords in addresses.
///
/// A finding's rule is `secret.` and the format's name, as in `secret.aws_access_key`; its span covers
/// the credential alone where the format is a part of something longer. Scores: 0.95 for a format
/// that its issuer made recognisable, 0.8 and less where randomness has to tell.
#[derive(Debug)]
pub struct Secrets {
    prefixes: AhoCorasick,
    /// For each prefix, the format that it belongs to.
    formats_of: Vec<usize>,
    formats: Vec<(&'static Format, Regex)>,
}

impl Secrets {
    /// Compiles the built-in formats: some milliseconds, so once per process.
    ///
    /// # Errors
    /// When a format does not compile, which a test of this crate rules out.
    pub fn builtin() -> Result<Self, BuildError> {
        let invalid = |name: &str, error: &dyn std::fmt::Display| {
            BuildError::invalid("secret format", format!("{name}: {error}"))
        };
        let mut prefixes = Vec::new();
        let mut formats_of = Vec::new();
        let mut formats = Vec::with_capacity(FORMATS.len());
        for (index, format) in FORMATS.iter().enumerate() {
            let regex = RegexBuilder::new(format.pattern)
                .unicode(false)
                .dfa_size_limit(DFA_CACHE)
                .build()
                .map_err(|error| invalid(format.rule, &error))?;
            formats.push((format, regex));
            for prefix in format.prefixes {
                prefixes.push(*prefix);
                formats_of.push(index);
            }
        }
        let prefixes = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(prefixes)
            .map_err(|error| invalid("prefixes", &error))?;
        Ok(Self { prefixes, formats_of, formats })
    }

    /// The credentials in a text: the rule, its score, and where.
    fn find(&self, text: &str) -> Vec<(&'static str, f32, Range<usize>)> {
        let mut present = vec![false; self.formats.len()];
        for found in self.prefixes.find_overlapping_iter(text) {
            let format = self.formats_of.get(found.pattern().as_usize());
            if let Some(present) = format.and_then(|format| present.get_mut(*format)) {
                *present = true;
            }
        }
        let mut found: Vec<(&'static str, f32, Range<usize>)> = Vec::new();
        let mut taken = Spans::default();
        let here = self.formats.iter().zip(present).filter(|(_, present)| *present);
        for ((format, regex), _) in here {
            for captures in regex.captures_iter(text.as_bytes()) {
                let Some(secret) = captures.get(1).or_else(|| captures.get(0)) else { continue };
                // Formats stand in the order of how much they say: the first keeps the span.
                if passes(format.check, secret.as_bytes()) && taken.take(&secret.range()) {
                    found.push((format.rule, format.score, secret.range()));
                }
            }
        }
        found
    }
}

impl Detector for Secrets {
    fn name(&self) -> &'static str {
        "secrets"
    }

    fn scan(&self, segment: &Segment<'_>, views: &Views<'_>, findings: &mut Vec<Finding>) {
        let mut taken = Spans::default();
        for (rule, score, range) in self.find(views.original()) {
            taken.take(&range);
            findings.push(Finding::new(rule, Category::Secret, score, segment.index, Some(range)));
        }
        for view in views.iter() {
            // The canonical view differs from the original only where it is not plain ASCII.
            let look = match view.kind() {
                ViewKind::Canonical => !views.original().is_ascii(),
                ViewKind::Decoded => true,
                ViewKind::Folded => false,
            };
            if !look {
                continue;
            }
            for (rule, score, range) in self.find(view.cased()) {
                let span = view.origin_span(range);
                if taken.take(&span) {
                    findings.push(Finding::new(
                        rule,
                        Category::Secret,
                        score,
                        segment.index,
                        Some(span),
                    ));
                }
            }
        }
    }
}

fn passes(check: Check, secret: &[u8]) -> bool {
    match check {
        Check::None => true,
        Check::Entropy(bits) => entropy(secret) >= bits && !is_placeholder(secret),
        Check::Password => !is_placeholder(secret),
        Check::Mixed(bits) => {
            let digits = secret.iter().any(u8::is_ascii_digit);
            let letters = secret.iter().any(u8::is_ascii_alphabetic);
            digits && letters && entropy(secret) >= bits && !is_placeholder(secret)
        }
    }
}

/// Shannon's entropy of the bytes, in bits a byte.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let total = bytes.len().max(1) as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / total)
        .map(|share| -share * share.log2())
        .sum()
}

/// What documentation writes where a secret goes.
fn is_placeholder(secret: &[u8]) -> bool {
    const MARKS: [&[u8]; 14] = [
        b"example",
        b"your",
        b"xxxx",
        b"placeholder",
        b"changeme",
        b"redacted",
        b"****",
        b"<",
        b"${",
        b"{{",
        b"dummy",
        b"....",
        b"getenv",
        b"environ",
    ];
    let lower = secret.to_ascii_lowercase();
    let said = MARKS.iter().any(|mark| lower.windows(mark.len()).any(|window| window == *mark));
    let words: [&[u8]; 6] = [b"password", b"pass", b"secret", b"token", b"passwd", b"pwd"];
    said || words.contains(&lower.as_slice())
}

#[cfg(test)]
mod tests;

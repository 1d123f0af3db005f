//! The short form in which patterns are written.
//!
//! A space stands for any separators, `~3` for up to three words with what follows them, `<40>` for
//! up to forty bytes, `§` for the rest of a word, `{NAME}` for a fragment, `\b` for a border of an ASCII word.

use std::{borrow::Cow, iter::Peekable, str::Chars};

use unicode_normalization::UnicodeNormalization as _;

/// What stands between words. CJK punctuation is in it as bytes, which no letter is made of alone.
const SEPARATOR: &str = r#"(?:[ \n,.:;"'`*_!+()<>\[\]{}|/\\#=-]+)"#;
const WORD: &str = r#"[^ \n,.:;"`*_!?+()<>\[\]{}|/\\#=-]+"#;

/// Writes a rule's short form out as a regex.
pub(super) fn expand(pattern: &str, fragments: &[(&str, &str)]) -> String {
    let mut pattern = Cow::Borrowed(pattern);
    for (name, fragment) in fragments {
        if pattern.contains(name) {
            pattern = Cow::Owned(pattern.replace(name, fragment));
        }
    }
    let mut out = String::with_capacity(pattern.len() * 2);
    // Some letters of views are in parts, as normalisation (NFKC) leaves them.
    let pattern: String = pattern.nfkc().collect();
    let mut rest = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(character) = rest.next() {
        match character {
            '\\' => {
                out.push(character);
                out.extend(rest.next());
            }
            '[' => {
                in_class = true;
                out.push(character);
            }
            ']' => {
                in_class = false;
                out.push(character);
            }
            ' ' if !in_class => out.push_str(SEPARATOR),
            '§' if !in_class => {
                out.push_str(WORD);
                out.pop();
                out.push('*');
            }
            '~' if !in_class => {
                let count = digits(&mut rest);
                out.push_str(&format!("(?:{WORD}{SEPARATOR}){{0,{count}}}"));
            }
            '<' if !in_class && rest.peek().is_some_and(char::is_ascii_digit) => {
                let count = digits(&mut rest);
                rest.next();
                out.push_str(&format!(r"[\x00-\xff]{{0,{count}}}"));
            }
            other => out.push(other),
        }
    }
    out
}

/// How many, at least one.
fn digits(rest: &mut Peekable<Chars<'_>>) -> String {
    let digits: String = std::iter::from_fn(|| rest.next_if(char::is_ascii_digit)).collect();
    if digits.is_empty() { "1".to_owned() } else { digits }
}

//! The short form in which patterns are written.
//!
//! A space stands for any separators, `~3` for up to three words with what follows them, `<40>` for
//! up to forty bytes, `§` for the rest of a word, `{NAME}` for a fragment, `\b` for a border of an ASCII word.

use std::{borrow::Cow, iter::Peekable, str::Chars};

use unicode_normalization::UnicodeNormalization as _;

/// What stands between words, in ranges, which are parsed sooner than single characters.
const SEPARATOR: &str = r#"(?:[\n -#'-/:->\[-\]_`{-}]+)"#;
/// The same without the apostrophe, and the question mark: what words are not made of.
const WORD: &str = r"[^\n -#(-/:-?\[-\]_`{-}]+";

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_is_written_out() {
        let fragments = [("{WHO}", "(?:you|we)")];
        let expanded = expand(r"{WHO} ~12[ab ]§<40>\.", &fragments);
        let rest = WORD.trim_end_matches('+');
        assert_eq!(
            expanded,
            format!(
                r"(?:you|we){SEPARATOR}(?:{WORD}{SEPARATOR}){{0,12}}[ab ]{rest}*[\x00-\xff]{{0,40}}\."
            )
        );
    }

    #[test]
    fn separators_and_words_are_told_apart() {
        let is = |class: &str, byte: u8| {
            let class = regex::bytes::Regex::new(&format!("^(?-u){class}$")).unwrap();
            class.is_match(&[byte])
        };
        for byte in b" \n,.:;\"'`*_!+()<>[]{}|/\\#=-" {
            assert!(is(SEPARATOR, *byte), "{}", char::from(*byte));
            assert_eq!(is(WORD, *byte), *byte == b'\'', "{}", char::from(*byte));
        }
        for byte in b"aZ09@$%&^~\xd0" {
            assert!(!is(SEPARATOR, *byte) && is(WORD, *byte), "{byte}");
        }
        assert!(!is(WORD, b'?') && !is(SEPARATOR, b'?'));
    }
}

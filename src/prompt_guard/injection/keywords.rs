//! Keywords as a pattern.

use std::fmt::Write as _;

use crate::prompt_guard::Views;

/// The most of one rule.
const MOST: usize = 200;

/// A pattern, in the short form, for any of the keywords; with `near`, only where one of those stands within as many
/// words, before or after.
pub(super) fn pattern(
    keywords: &[String],
    near: Option<(&[String], u8)>,
) -> Result<String, &'static str> {
    let any = any_of(keywords)?;
    Ok(match near {
        None => any,
        Some((others, 0)) => {
            let others = any_of(others)?;
            format!("{any} {others}|{others} {any}")
        }
        Some((others, words)) => {
            let others = any_of(others)?;
            format!("{any} ~{words}{others}|{others} ~{words}{any}")
        }
    })
}

fn any_of(keywords: &[String]) -> Result<String, &'static str> {
    if keywords.is_empty() || keywords.len() > MOST {
        return Err("it has no keywords, or more than 200");
    }
    let keywords: Result<Vec<_>, _> = keywords.iter().map(|keyword| one(keyword)).collect();
    Ok(format!("(?:{})", keywords?.join("|")))
}

fn one(keyword: &str) -> Result<String, &'static str> {
    let views = Views::of(keyword);
    let folded = views.iter().next().map(|view| view.text().trim()).unwrap_or_default();
    if folded.len() < 2 || !folded.chars().any(char::is_alphanumeric) {
        return Err("a keyword has less than two bytes, or no letter or digit");
    }
    let mut out = String::new();
    if folded.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        out.push_str(r"\b");
    }
    let mut spaced = false;
    for character in folded.chars() {
        if character.is_whitespace() {
            spaced = true;
            continue;
        }
        if std::mem::take(&mut spaced) {
            out.push(' ');
        }
        if character.is_ascii_alphanumeric() || (!character.is_ascii() && character != '§') {
            out.push(character);
        } else {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                // A `String` takes whatever is written.
                let _ = write!(out, r"\x{byte:02x}");
            }
        }
    }
    if folded.ends_with(|last: char| last.is_ascii_alphanumeric()) {
        out.push_str(r"\b");
    }
    Ok(out)
}

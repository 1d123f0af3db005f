//! What a server says about a token that it refuses: RFC 6750, section 3.

use std::collections::HashMap;

use crate::printable;

/// One `WWW-Authenticate`, a line for each thing that it says. One that can't be read is shown as it is.
pub(crate) fn readable(challenge: &str) -> String {
    let Some((scheme, parameters)) = challenge.split_once(' ') else {
        return format!("\n  asks for: {}", printable(challenge));
    };
    let Some(parameters) = read(parameters) else {
        return format!("\n  {}", printable(challenge));
    };
    let mut text = format!("\n  asks for: {}", printable(scheme));
    for (label, name) in LINES {
        if let Some(value) = parameters.get(name) {
            text = format!("{text}\n  {label}: {}", printable(value));
        }
    }
    text
}

const LINES: [(&str, &str); 5] = [
    ("error", "error"),
    ("because", "error_description"),
    ("needs the scope", "scope"),
    ("signed with", "algs"),
    ("says more at", "resource_metadata"),
];

/// `name=value` or `name="value"`, with commas between them: RFC 9110, section 11.2.
fn read(mut rest: &str) -> Option<HashMap<String, String>> {
    let mut parameters = HashMap::new();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let (token, after) = after.split_at(after.find(',').unwrap_or(after.len()));
                (token.trim().to_owned(), after)
            }
        };
        parameters.insert(name.trim().to_ascii_lowercase(), value);
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    Some(parameters)
}

/// The text of a quoted-string whose first quote is gone, and what comes after it: RFC 9110, section 5.6.4.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => return Some((value, characters.as_str())),
            '\\' => value.push(characters.next()?),
            character => value.push(character),
        }
    }
}

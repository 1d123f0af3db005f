//! What the head of a request says of how a server would read it: only what this guard reads alike passes.

use http::{HeaderMap, Uri, header};

use crate::{
    inference::is_prompt_member,
    reject::{Rejection, RejectionKind},
};

/// Whether the body is JSON in UTF-8 to a server that goes by the content type. In several parts, the
/// same bytes would have other members; in another charset, another text.
pub(crate) fn readable_type(headers: &HeaderMap) -> Result<(), Rejection> {
    let readable = |value: &[u8]| !essence(value).starts_with(b"multipart/") && is_utf8(value);
    content_types(headers).all(readable).then_some(()).ok_or_else(unsupported_type)
}

/// Refuses JSON under the content type of a form, which `curl -d` sends and most handlers ignore, if it
/// has a prompt to one that does not.
pub(crate) fn no_prompt_as_form(headers: &HeaderMap, data: &[u8]) -> Result<(), Rejection> {
    let is_form = |value: &[u8]| essence(value) == b"application/x-www-form-urlencoded";
    if !content_types(headers).any(is_form) || !has_prompt(&String::from_utf8_lossy(data)) {
        return Ok(());
    }
    Err(unsupported_type())
}

fn content_types(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(header::CONTENT_TYPE).iter().map(|value| value.as_bytes())
}

fn essence(content_type: &[u8]) -> Vec<u8> {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().to_ascii_lowercase()
}

fn unsupported_type() -> Rejection {
    Rejection::new(
        RejectionKind::Unreadable,
        "unsupported_media_type",
        "The body has a Content-Type or charset that is not accepted here. Send application/json in UTF-8.",
    )
}

/// Whether a content type names no charset, or one whose text is read as UTF-8.
pub(crate) fn is_utf8(content_type: &[u8]) -> bool {
    let lower = content_type.to_ascii_lowercase();
    let parameters = lower.split(|byte| *byte == b';').skip(1).map(<[u8]>::trim_ascii);
    let mut charsets = parameters.filter_map(|parameter| parameter.strip_prefix(b"charset"));
    charsets.all(|rest| {
        // Lenient parsers take blanks around the sign, and either quote.
        let name = rest.trim_ascii().strip_prefix(b"=").unwrap_or_default().trim_ascii();
        let quote = |byte: &u8| matches!(byte, b'"' | b'\'');
        let name: Vec<u8> = name.iter().filter(|byte| !quote(byte)).copied().collect();
        matches!(&*name, b"utf-8" | b"utf8" | b"us-ascii" | b"ascii")
    })
}

/// Refuses a prompt in the query, where some frameworks take what is a member of the body to others.
pub(crate) fn no_prompt_in_query(uri: &Uri) -> Result<(), Rejection> {
    if !has_prompt(uri.query().unwrap_or_default()) {
        return Ok(());
    }
    Err(Rejection::new(
        RejectionKind::Unreadable,
        "unreadable_content",
        "A prompt in the query can't be inspected. Send it in the body, as JSON.",
    ))
}

/// Whether a query, or a form, has a member that is a prompt.
fn has_prompt(pairs: &str) -> bool {
    let mut names = pairs.split(['&', ';']).map(|pair| pair.split('=').next().unwrap_or_default());
    names.any(|name| is_prompt_member(decoded(name).trim()))
}

/// Percent-decoded, in lower case and up to the first bracket: `prompt%5B%5D` and `prompt[0]` are
/// `prompt` to some.
fn decoded(name: &str) -> String {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *byte == b'%');
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(code.unwrap_or(*byte).to_ascii_lowercase());
        rest = after.get(if code.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    let end = out.iter().position(|byte| *byte == b'[').unwrap_or(out.len());
    String::from_utf8_lossy(out.get(..end).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charset_that_is_not_utf8_is_told() {
        for (content_type, expected) in [
            ("application/json", true),
            ("application/json; charset=UTF-8", true),
            ("application/json;charset=\"utf-8\"; x=y", true),
            ("text/plain; charset=us-ascii", true),
            ("application/json; charset=utf-7", false),
            ("application/json; x=y; Charset = 'UTF-16'", false),
            ("application/json; charset=utf-8; charset=utf-7", false),
            ("application/json; charset", false),
        ] {
            assert_eq!(is_utf8(content_type.as_bytes()), expected, "{content_type}");
        }
    }

    #[test]
    fn a_prompt_in_the_query_is_told_however_it_is_spelled() {
        for (query, refused) in [
            ("prompt=x", true),
            ("beta=true&pr%6Fmpt=x", true),
            ("a;PROMPT=x", true),
            ("messages%5B0%5D=x", true),
            ("inputs[]=x", true),
            ("+text=x", false),
            ("api-version=2024-10-21", false),
            ("beta=true&x=prompt", false),
            ("", false),
        ] {
            let uri = format!("/generate?{query}").parse().unwrap();
            assert_eq!(no_prompt_in_query(&uri).is_err(), refused, "{query}");
        }
    }
}

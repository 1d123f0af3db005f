//! How else a path may be read.

use std::borrow::Cow;

/// The path as a server further on might understand it: percent-decoded, without empty, `.` and
/// `..` segments and without parameters. `/x/%61dmin;a=b/` must not get past a rule for `/admin`.
pub(crate) fn plain(path: &str) -> Cow<'_, str> {
    let odd = |byte: u8| matches!(byte, b'%' | b';' | b'\\');
    if !path.bytes().any(odd) && !path.contains("//") && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    let mut decoded = path.as_bytes().to_vec();
    for _ in 0..MAX_DECODINGS {
        let next = percent_decoded(&decoded);
        if next == decoded {
            break;
        }
        decoded = next;
    }
    let text = String::from_utf8_lossy(&decoded);
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    Cow::Owned(format!("/{}", segments.join("/")))
}

fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        let pair = after.split_first_chunk::<2>().filter(|_| *first == b'%');
        let byte = pair.and_then(|([high, low], tail)| Some((hex(*high)? << 4 | hex(*low)?, tail)));
        let (byte, tail) = byte.unwrap_or((*first, after));
        out.push(byte);
        rest = tail;
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// How often a path may have been encoded over by the servers on the way.
const MAX_DECODINGS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_path_reads_as_one_without_odd_segments(path in "(/|\\.|%2e|%2F|%25|;|a|\\PC){0,30}") {
            let plain = plain(&path);
            if plain != path.as_str() {
                proptest::prop_assert!(plain.starts_with('/') && !plain.contains("//"));
                proptest::prop_assert!(plain.split('/').all(|segment| segment != ".."));
            }
        }
    }
}
